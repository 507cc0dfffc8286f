"""Test networks compiled, and exported as map models: what the nodes of each model ask for, by the name of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import pytest
from networks import NETWORKS, Builder
from onnx import helper
from quantised import STATIC, save_dynamic, save_static
from source_file import NEVER_DENSE
from stacks import Asked, asked_by

import kcompiler
from kcompiler.options import Options
from kcompiler.passes import assumed
from kcompiler.pipeline import compile_file

ROOT = Path(__file__).parents[1]
SIZE, PATCH = (17, 24), (5, 5)
Models = Mapping[str, Sequence[Asked]]
"""What the nodes of each model ask for, by the name of its file."""


def rules() -> Mapping[str, object]:
    """The networks of ``test_every_rule.py``, one an operator; test files are not imported by name."""
    spec = spec_from_file_location("every_rule", Path(__file__).parent / "passes" / "test_every_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: partial(_rule, make, module.OPSETS.get(name, 20)) for name, make in sorted(module.NETWORKS.items())}


def _rule(make, opset: int, folder: Path) -> Models:
    b = Builder()
    onnx.save(b.model(b.conv(make(b), 3, pads=[1, 1, 1, 1]), 12, 14, opset=opset), folder / "model.onnx")
    return compiled(folder, folder / "model.onnx", patch=(3, 4), dense_share=NEVER_DENSE)


def compiled(folder: Path, model: Path, *, exported: bool = False, **options: object) -> Models:
    bundle = compile_file(model, Options(**{"patch": PATCH, **options}))
    if exported:
        kcompiler.export(bundle.save(folder / "model.kc"), folder / "out", stride=4)
    return models_of(bundle.folder, folder / "out")


def models_of(*folders: Path) -> Models:
    paths = [path for folder in folders for path in folder.glob("*.onnx")]
    return {path.name: tuple(asked_by(onnx.load(path, load_external_data=False))) for path in paths}


def tiny(name: str, folder: Path, **options: object) -> Models:
    b = Builder()
    onnx.save(b.model(NETWORKS[name](b), *SIZE, batch="N"), folder / "model.onnx")
    return compiled(folder, folder / "model.onnx", exported=True, device="cuda", **options)


def quantised(network, operators: bool, folder: Path) -> Models:
    return compiled(folder, save_static(folder, network, operators=operators), exported=True, patch=(3, 3))


def dynamic_scales(folder: Path) -> Models:
    return compiled(folder, save_dynamic(folder), exported=True, patch=(3, 3))


def approximate(folder: Path) -> Models:
    b = Builder()
    onnx.save(b.model(NETWORKS["residual"](b), 64, 60, batch="N"), folder / "model.onnx")
    bundle = kcompiler.compile(folder / "model.onnx", patch=5, thresholds=(0.1,)).save(folder / "model.kc")
    kcompiler.export(bundle, folder / "out", stride=4, variant="tau0.1")
    return models_of(bundle, folder / "out")


def pictures(interpolation: str, folder: Path) -> Models:
    """A map model that preprocesses pictures, and refines a coarse grid."""
    b = Builder()
    onnx.save(b.model(NETWORKS["residual"](b), *SIZE, batch="N"), folder / "model.onnx")
    recipe = kcompiler.Preprocessing(
        size=SIZE, resize="crop", shorter_side=30, interpolation=interpolation, scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3,
        channel_order="BGR",
    )  # fmt: skip
    bundle = kcompiler.compile(folder / "model.onnx", patch=5, preprocessing=recipe).save(folder / "model.kc")
    kcompiler.export(bundle, folder / "out", stride=2, preprocess=True, drill_down=(3, 0.5))
    return models_of(bundle, folder / "out")


def wide(folder: Path) -> Models:
    """A source with a Split, a Concat, a Sum and a Max of more branches than WebGPU binds buffers."""
    b, parts = Builder(), [f"part_{number}" for number in range(12)]
    b.nodes.append(helper.make_node("Split", [b.relu(b.conv("image", 24))], parts, axis=1, num_outputs=len(parts)))
    b.channels |= dict.fromkeys(parts, 2)
    convolved = [b.conv(part, 2) for part in parts]
    joined = [b.node(op, *convolved, channels=2) for op in ("Sum", "Max")]
    x = b.conv(b.node("Concat", *convolved, *joined, axis=1, channels=28), 4)
    onnx.save(b.model(x, *SIZE, batch="N"), folder / "model.onnx")
    return compiled(folder, folder / "model.onnx", exported=True)


def microbatches(folder: Path) -> Models:
    """Sixteen of them: the cache is so small that the few numbers of a test overflow it."""
    b = Builder()
    x = b.relu(b.conv("image", 8, pads=[1, 1, 1, 1]))
    for strides in ([1, 1], [2, 2]):
        x = b.relu(b.conv(b.relu(b.conv(x, 8, group=8, pads=[1, 1, 1, 1], strides=strides)), 8, 1))
    onnx.save(b.model(x, 22, 26, batch="N"), folder / "model.onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assumed, "CACHE_BYTES", 1 << 12)
        return compiled(folder, folder / "model.onnx", exported=True, dense_share=NEVER_DENSE)


def torch_exported(name: str, folder: Path) -> Models:
    export = pytest.importorskip("models.export", reason="exports need PyTorch")
    assert export.main([name, "-o", str(folder / "model.onnx")]) == 0
    return compiled(folder, folder / "model.onnx", exported=True, patch=(16, 16), device="cuda")


RULES = rules()
LARGE = {name: partial(torch_exported, name) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0")}
QUICK = {
    **{name: partial(tiny, name) for name in NETWORKS},
    **{f"rule {name}": make for name, make in RULES.items()},
    **{f"{one.__name__}, QLinear {also}": partial(quantised, one, also) for one in STATIC for also in (False, True)},
    "dynamic scales": dynamic_scales, "wide": wide, "micro-batches": microbatches,
    "static extents": partial(tiny, "concat", extents="static"), "approximate": approximate,
    **{f"{name} pictures, drill-down": partial(pictures, name) for name in ("bilinear", "bicubic", "lanczos")},
    "whole": partial(tiny, "chain", dense_share=0.0),
    "demo": lambda folder: compiled(folder, ROOT / "models/demo/demo.onnx", exported=True, patch=(16, 16), device="cuda"),
}  # fmt: skip


@cache
def of(name: str) -> Models:
    with TemporaryDirectory() as folder:
        return {**QUICK, **LARGE}[name](Path(folder))  # type: ignore[operator]
