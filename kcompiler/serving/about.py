"""What the page tells of the bundle, and offers to choose from."""

from __future__ import annotations

from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.fills import NAMED


def about(explainer: Explainer) -> dict[str, object]:
    """The bundle, as JSON values."""
    manifest, targets = explainer.manifest, explainer.targets
    recipe = manifest.preprocessing
    return {
        "model": manifest.model,
        "digest": manifest.model_sha256,
        "image": list(manifest.shape),
        "patch": list(manifest.patch),
        "patches": [list(patch) for patch in explainer.patches],
        "classes": list(targets.labels) or [f"class {index}" for index in range(targets.count)],
        "score": targets.scored("auto")[0],
        "has_logits": manifest.logits is not None,
        "squashing": manifest.squashing.operator if manifest.squashing is not None else None,
        "takes": "arrays" if recipe is None else "pictures",
        "resize": None if recipe is None else recipe.resize,
        "channels": manifest.shape[0] if recipe is None else recipe.channels,
        "fills": list(NAMED),
        "tuned": [
            {"ssim": plan.ssim, "share": plan.share, "promised": plan.promised, "stride": plan.stride, "score": plan.score}
            for plan in manifest.tuned if plan.device == explainer.exact.variant.device
        ],
        "device": explainer.device,
    }  # fmt: skip
