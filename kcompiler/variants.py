"""Writes the models of each variant of an analysed model, and the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from kcompiler.analysed import Analysed
from kcompiler.options import Approximation, Options
from kcompiler.passes.choosing import costs
from kcompiler.passes.choosing.choice import geometries
from kcompiler.passes.choosing.classes import all_geometries, extent_classes
from kcompiler.passes.choosing.devices import CPU, Device
from kcompiler.passes.rewriting.baseline import baseline_graph
from kcompiler.passes.rewriting.separate import separated
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.source.inputs import bound_record
from kcompiler.runtime.bundle.digests import FileRecord
from kcompiler.runtime.bundle.manifest import BASELINE, FORMAT, INCREMENTAL, PATCH_KEY, Manifest, PatchSet, patch_text
from kcompiler.runtime.bundle.report import NO_VARIANT
from kcompiler.runtime.bundle.stored import WEIGHTS_KEY, stored_text
from kcompiler.runtime.bundle.variant import DeviceName, Geometry, Variant
from kcompiler.runtime.inference.schedule import Extents
from kcompiler.runtime.inference.sessions import onnxruntime

APPROXIMATE_BUDGET = 1e-3
"""Rms error that transforms may add in approximate variants, whose other errors are far larger."""


def write_approximate(
    analysed: Analysed, options: Options, approximation: Approximation, folder: Path, weights: WeightsFile
) -> Variant | str:
    """Writes an approximate variant of ``analysed``, for its device, or returns why there is none."""
    exact = analysed.chooser
    if approximation.integers and not exact.device.integers:
        return "ONNX Runtime has no 8-bit integer products there"
    if exact.dense:
        return f"the model runs whole ({exact.dense})"
    chooser = exact.anew(thresholds=approximation.thresholds, integers=approximation.integers)
    if approximation.thresholds.freeze_gates and not chooser.propagation.frozen:
        return "the model has no gate that scales a map"
    if chooser.same_regions(exact) and not approximation.integers:
        return "its regions would be the exact variant's"
    choice = chooser.choose(APPROXIMATE_BUDGET, dense_share=options.dense_share)
    if choice.plan.all_dense:
        return "recomputing its regions is predicted to take longer than full inference"
    if approximation.integers and not choice.integers:
        return "8-bit integer products are predicted to take longer at every node"
    approximate = replace(analysed, chooser=chooser).by(choice, options)
    return write_variant(approximate, approximation.name, options, folder, weights)


def left_out(device: DeviceName, reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Notes on requested approximations without a variant for ``device``, from the reason of each by name: one a reason."""
    on = "" if device == CPU.name else f" for {device}"
    return tuple(
        f"{NO_VARIANT} {', '.join(name for name, other in reasons.items() if other == why)}{on}: {why}"
        for why in dict.fromkeys(reasons.values())
    )


def files_of(device: Device, name: str, patch: tuple[int, int] | None) -> tuple[str, str, str]:
    """Names of the baseline, the incremental and the index model of a variant; ``patch`` is None for the first of several."""
    if (device.name, name, patch) == (CPU.name, "exact", None):
        return BASELINE, INCREMENTAL, ""
    parts = [f"p{patch_text(patch)}"] if patch is not None else []
    suffix = ".".join([*parts, *([] if device.name == CPU.name else [device.name]), name])
    return f"baseline-{suffix}.onnx", f"incremental-{suffix}.onnx", f"index-{suffix}.onnx"


def with_tf32(name: str) -> str:
    """Name of the variant ``name`` with its products in TF32."""
    return "tf32" if name == "exact" else f"{name}.tf32"


def write_variant(analysed: Analysed, name: str, options: Options, folder: Path, weights: WeightsFile) -> Variant:
    """Writes the models of a variant for the device that it was analysed for, and returns its record.

    Where extents are those of classes, indices are computed by a model of their own.
    """
    choice, plan, rewritten, device = analysed.choice, analysed.plan, analysed.rewritten, analysed.chooser.device
    baseline, incremental, index = files_of(device, name, options.patch if options.is_further else None)
    patch = {PATCH_KEY: patch_text(options.patch)}
    write_model(baseline_graph(analysed.graph, plan, rewritten.cached), folder / baseline, weights)
    by_class = options.extents == "classes"
    regions = (all_geometries if by_class else geometries)(analysed.graph, plan)
    parts = separated(rewritten) if by_class else None
    stored = write_model(parts.incremental if parts else rewritten.graph, folder / incremental, weights, patch)
    if parts:
        write_model(parts.index, folder / index, weights, {**patch, WEIGHTS_KEY: stored_text(stored)})
    _, height, width = analysed.source.shape
    extents = Extents.of(regions, options.patch)
    return Variant(
        device=device.name,
        index=index if by_class else None,
        classes=extent_classes(extents, (height, width), options.patch, device.classes) if by_class else (),
        name=name,
        threshold=plan.thresholds.everywhere,
        node_thresholds=dict(plan.thresholds.nodes),
        integers=choice.integers,
        frozen_gates=len(plan.frozen),
        whole=not plan.frozen and not any(decision.incremental for decision in plan.decisions),
        baseline=baseline,
        incremental=incremental,
        batch=choice.batch,
        microbatches=max((chain.count for chain in choice.layouts.microbatches.values()), default=1),
        few=choice.few,
        weight_bytes=sum(weight.bytes for weight in stored.values()),
        bytes_per_position=costs.bytes_per_position(analysed.graph, plan, choice.layouts.lowerings),
        bytes_per_batch=costs.bytes_per_batch(plan, rewritten.cached),
        predicted_speedup=choice.full_seconds / choice.seconds,
        geometries=tuple(Geometry(work=w, heights=y, widths=x) for w, y, x in regions),
    )


def manifest_of(
    analysed: Analysed, options: Options, classes: int, compiled: Sequence[PatchSet], files: Mapping[str, FileRecord]
) -> Manifest:
    """The manifest of a bundle with ``compiled`` for each patch, the first one first, and ``files``."""
    first, *further = compiled
    return Manifest(
        format=FORMAT,
        versions={**{name: version(name) for name in ("kcompiler", "onnx", "numpy")}, "onnxruntime": onnxruntime().__version__},
        model=analysed.source.path.name,
        model_sha256=analysed.source.sha256,
        image=analysed.graph.inputs[0].name,
        layout=analysed.source.layout,
        shape=analysed.source.shape,
        element=analysed.source.element.name,
        bound={name: bound_record(array) for name, array in analysed.source.bound.items()},
        output=analysed.graph.outputs[0].name,
        reduction=analysed.head.reduction,
        logits=analysed.head.logits.name if analysed.head.logits is not None else None,
        squashing=analysed.head.logits.squashing if analysed.head.logits is not None else None,
        classes=classes,
        two_classes=analysed.head.two_classes(classes),
        largest_batch=analysed.largest_batch,
        patch=first.patch,
        extents=options.extents,
        convolution=options.convolution,
        variants=first.variants,
        device_variants=first.device_variants,
        calibration=analysed.calibration,
        tuned=(),
        preprocessing=options.preprocessing,
        files=files,
        report=first.report,
        further=tuple(further),
    )
