"""Writes the models of each variant of an analysed model, and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from kcompiler.analysed import Analysed
from kcompiler.options import Approximation, Options
from kcompiler.passes.choosing import costs
from kcompiler.passes.choosing.choice import Chooser, geometries
from kcompiler.passes.rewriting.baseline import baseline_graph
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.source.inputs import bound_record
from kcompiler.runtime.bundle.manifest import FILES, FORMAT, PATCH_KEY, Geometry, Manifest, Variant, file_record, patch_text
from kcompiler.runtime.inference.sessions import onnxruntime

APPROXIMATE_BUDGET = 1e-3
"""Rms error that transforms may add in approximate variants, whose other errors are far larger."""


def write_approximate(
    analysed: Analysed, options: Options, approximation: Approximation, folder: Path, weights: WeightsFile
) -> list[Variant]:
    """Writes an approximate variant of ``analysed``; returns [] where it would equal the exact variant, or is not worthwhile."""
    exact = analysed.chooser
    chooser = Chooser(
        analysed.graph, options.patch, prefer=options.prefer, direct=exact.direct, dense=exact.dense, rates=exact.rates,
        thresholds=approximation.thresholds, integers=approximation.integers,
    )  # fmt: skip
    if exact.dense or (chooser.same_regions(exact) and not approximation.integers):
        return []
    choice = chooser.choose(APPROXIMATE_BUDGET, dense_share=options.dense_share)
    if approximation.thresholds.freeze_gates and not choice.plan.frozen:
        return []
    if choice.plan.all_dense or (approximation.integers and not choice.integers):
        return []
    approximate = replace(analysed, chooser=chooser).by(choice, options)
    name = approximation.name
    files = f"baseline-{name}.onnx", f"incremental-{name}.onnx"
    return [write_variant(approximate, name, files, options, folder, weights)]


def left_out(options: Options, written: Sequence[Variant]) -> tuple[str, ...]:
    """Notes on requested approximations without a variant."""
    names = {variant.name for variant in written}
    return tuple(
        f"no variant {a.name}: its regions would be the exact variant's, or it is predicted to take longer than full inference"
        for a in {requested.name: requested for requested in options.approximations}.values()
        if a.name not in names
    )


def write_variant(
    analysed: Analysed, name: str, files: tuple[str, str], options: Options, folder: Path, weights: WeightsFile
) -> Variant:
    """Writes the baseline and the incremental model of a variant to ``files`` (their names), and returns its record."""
    choice, plan, rewritten = analysed.choice, analysed.plan, analysed.rewritten
    baseline, incremental = files
    write_model(baseline_graph(analysed.graph, plan, rewritten.cached), folder / baseline, weights)
    weight_bytes = write_model(rewritten.graph, folder / incremental, weights, {PATCH_KEY: patch_text(options.patch)})
    return Variant(
        name=name,
        threshold=plan.thresholds.everywhere,
        node_thresholds=dict(plan.thresholds.nodes),
        integers=choice.integers,
        frozen_gates=len(plan.frozen),
        whole=not any(decision.incremental for decision in plan.decisions),
        baseline=baseline,
        incremental=incremental,
        batch=choice.batch,
        few=choice.few,
        weight_bytes=weight_bytes,
        bytes_per_position=costs.bytes_per_position(analysed.graph, plan, choice.layouts.lowerings),
        bytes_per_batch=costs.bytes_per_batch(plan, rewritten.cached),
        predicted_speedup=choice.full_seconds / choice.seconds,
        geometries=tuple(Geometry(work=w, heights=y, widths=x) for w, y, x in geometries(analysed.graph, plan)),
    )


def manifest_of(analysed: Analysed, options: Options, exact: Variant, classes: int, folder: Path) -> Manifest:
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
        patch=options.patch,
        extents=options.extents,
        convolution=options.convolution,
        variants=(exact,),
        calibration=analysed.calibration,
        tuned=(),
        preprocessing=options.preprocessing,
        files={name: file_record(folder / name) for name in FILES},
        report=analysed.report,
    )
