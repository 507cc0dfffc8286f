"""The promise end to end: tune the demo classifier on some pictures, explain others by the plan, count those that keep the SSIM.

python tests/bench/promise.py [--calibration N] [--unseen N] [--ssim Q] [--share P] [--stride S]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for models, which is not installed

import kcompiler  # noqa: E402
from kcompiler.runtime.inputs.images import FloatArray  # noqa: E402
from kcompiler.runtime.sampling.quality import ssim  # noqa: E402
from kcompiler.runtime.tuning.promise import least_share  # noqa: E402
from kcompiler.runtime.tuning.trials import Goal, Sample  # noqa: E402
from kcompiler.runtime.tuning.tuner import tune  # noqa: E402
from models.demo_model import DEMO_FOLDER, MODEL, PREPROCESSING  # noqa: E402
from models.demo_pictures import picture  # noqa: E402

FIRST_SEED = 20_000
TAUS = (0.6, 0.5, 0.4)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    recipe = DEMO_FOLDER / PREPROCESSING
    explainer = kcompiler.load(kcompiler.compile(DEMO_FOLDER / MODEL, patch=16, preprocessing=recipe, thresholds=TAUS, int8=True))
    goal = Goal(ssim=options.ssim, share=options.share, stride=options.stride)
    known = [
        Sample(image, explainer.explain(image[0], stride=options.stride))
        for image in pictures(explainer, FIRST_SEED, options.calibration)
    ]
    start = time.perf_counter()
    tuned = tune(explainer, known, goal)
    seconds = time.perf_counter() - start
    found, gains = [], []
    for image in pictures(explainer, FIRST_SEED + options.calibration, options.unseen):
        exact = explainer.explain(image[0], stride=options.stride)
        fast = explainer.explain(image[0], stride=options.stride, quality=tuned)
        found.append(ssim(fast.scores, exact.scores))
        gains.append(exact.seconds / fast.seconds)
    kept = sum(one >= goal.ssim for one in found)
    word = "promised" if tuned.promised else "NOT promised"
    print(f"plan: {tuned.plan!r}")
    print(
        f"SSIM >= {goal.ssim:g} on {goal.share:.0%} of images with {goal.confidence:.0%} confidence: {word}, "
        f"{tuned.evidence.kept} of {tuned.evidence.held_out} held-out pictures kept it; tuned in {seconds:.1f} s beside the maps"
    )
    print(
        f"unseen pictures: {kept} of {len(found)} kept it ({kept / len(found):.1%}; at least "
        f"{least_share(kept, len(found), goal.confidence):.1%} with {goal.confidence:.0%} confidence), median SSIM "
        f"{statistics.median(found):.3f}, {statistics.median(gains):.1f}x faster than exact"
    )


def pictures(explainer: kcompiler.Explainer, first: int, count: int) -> Iterator[FloatArray]:
    """Inputs float32 [1, C, H, W] of test pictures."""
    recipe = explainer.manifest.preprocessing
    assert recipe is not None, "compiled with one"
    for seed in tqdm(range(first, first + count), f"pictures from {first} on"):
        yield explainer.check_image(recipe.to_input(picture(seed, "test").pixels))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--calibration", type=int, default=50, metavar="N", help="pictures to tune on (default: %(default)s)")
    add("--unseen", type=int, default=100, metavar="N", help="pictures to judge the promise on (default: %(default)s)")
    add("--ssim", type=float, default=0.9, metavar="Q", help="that is to be kept (default: %(default)s)")
    add("--share", type=float, default=0.9, metavar="P", help="of all images on which it is (default: %(default)s)")
    add("--stride", type=int, default=4, metavar="S", help="pixels between positions (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
