"""Exports and compiles a network: the bundle as users have it, the work that the cost model sees in it, variants for ablations.

python -m bench.on_cuda.prepare FOLDER CORES NETWORK [CLASSES...], in a process of its own. Writes NETWORK.work.json, NETWORK.kc
and, with numbers of classes, NETWORK.ablations.kc to FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import onnx_graphsurgeon as gs
from bench.on_cuda.checkout import ROOT
from bench.on_cuda.scale import PATCH
from bench.on_cuda.worker import end_with_parent
from networks import NETWORKS, save

from kcompiler.analysed import Analysed, on_device
from kcompiler.options import Approximation, Options
from kcompiler.passes.choosing.devices import CUDA, Device
from kcompiler.passes.choosing.prices import Priced, predicted
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import Rates
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.pipeline import analyse
from kcompiler.runtime.bundle.digests import file_record
from kcompiler.runtime.bundle.manifest import FULL, MANIFEST, Manifest
from kcompiler.runtime.bundle.manifest_file import manifest_bytes
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.variants import with_tf32, write_approximate, write_variant
from kcompiler.verified import write_and_verify

NEVER_DENSE = 2.0
"""Dense share of tiny networks, which would run whole."""
TINY_SIDE = 96
NOTHING = Rates(products=inf, convolved=inf, integer=inf, moved=inf, node=0.0, cached=0.0)
UNITS = {"products": 1.0, "convolved": 1.0, "moved": 1.0, "node": 1.0}
"""Rates in whose units the cost model gives work: FLOPs of products and of convolutions, bytes, operators."""
CAPPED = Approximation(Thresholds(0.5))


def main() -> None:
    folder, cores, network, *classes = sys.argv[1:]
    end_with_parent()
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    prepared(Path(folder), network, [int(count) for count in classes])


def prepared(folder: Path, network: str, classes: Sequence[int]) -> None:
    """Writes all results to ``folder``."""
    model, dense_share = _model(folder, network)
    name = model.stem
    options = Options((PATCH, PATCH), device="cuda", precision="tf32", dense_share=dense_share)
    with tempfile.TemporaryDirectory() as scratch:
        analysed = analyse(model, options, Path(scratch))
        (folder / f"{name}.work.json").write_text(json.dumps(work_of(on_device(analysed, options, CUDA))))
        own = Path(tempfile.mkdtemp(dir=folder))
        manifest = write_and_verify(analysed, options, own)
        own.rename(folder / f"{name}.kc")
        if classes:
            own = Path(tempfile.mkdtemp(dir=folder))
            _write_ablated(own, manifest, analysed, options, classes)
            own.rename(folder / f"{name}.ablations.kc")


def _model(folder: Path, network: str) -> tuple[Path, float | None]:
    """The ONNX file of a network, and its dense share; one of a file, of the demo, of the exporter or of the tests."""
    path = folder / f"{network}.onnx"
    if network.endswith(".onnx"):
        return Path(network), None
    if network == "demo":
        return ROOT / "models" / "demo" / "demo.onnx", None
    if network in NETWORKS:
        return save(network, path, TINY_SIDE, TINY_SIDE), NEVER_DENSE
    from models.export import main as export  # imports PyTorch

    if export([network, "-o", str(path)]):
        raise SystemExit(f"{network} cannot be exported")
    return path, None


def work_of(analysed: Analysed) -> dict[str, dict[str, float] | float]:
    """Work per position by the cost model, in :data:`UNITS`, of full inference and of the compiled model; its batch size."""
    chooser, choice = analysed.chooser, analysed.choice

    def allowed(node: gs.Node) -> list[Lowering]:
        windows = select.windows(node, chooser.everything.regions[node.outputs[0].name])
        return select.candidates(node, windows, {}, integers=False)

    full, compiled = {}, {}
    for unit, value in UNITS.items():
        rates = replace(NOTHING, **{unit: value})
        priced = Priced(chooser.sample(choice.batch), rates, predicted, allowed)
        full[unit] = priced.full
        compiled[unit] = priced.seconds(choice.plan, choice.layouts)
    return {"full": full, "compiled": compiled, "batch": choice.batch}


def _write_ablated(folder: Path, manifest: Manifest, analysed: Analysed, options: Options, classes: Sequence[int]) -> None:
    """Writes a bundle with a variant for each ablation, unverified: what is measured on them tells whether they agree."""
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        on_cpu = write_variant(analysed, "exact", replace(options, device="cpu"), folder, weights)
        variants = tuple(_variants(folder, analysed, replace(options, extents="classes"), classes, weights))
    names = {FULL, "weights.bin", *(name for variant in (on_cpu, *variants) for name in variant.files)}
    files = {name: file_record(folder / name) for name in sorted(names)}
    manifest = manifest.model_copy(update={"variants": (on_cpu,), "device_variants": variants, "files": files})
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))


def _variants(
    folder: Path, analysed: Analysed, options: Options, classes: Sequence[int], weights: WeightsFile
) -> Iterator[Variant]:
    def written(name: str, device: Device) -> Variant:
        return write_variant(on_device(analysed, options, device), name, options, folder, weights)

    yield written("exact", CUDA)
    for count in classes:
        yield written(f"classes{count}", replace(CUDA, classes=count))
    yield written("transforms", replace(CUDA, transforms=True))
    capped = write_approximate(on_device(analysed, options, CUDA), options, CAPPED, folder, weights)
    if isinstance(capped, Variant):
        yield capped
        yield capped.model_copy(update={"name": with_tf32(capped.name), "tf32": True})


if __name__ == "__main__":
    main()
