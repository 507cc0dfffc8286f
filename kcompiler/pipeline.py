"""The compiler on one page: from an ONNX file to a verified bundle."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from kcompiler.bundle import Bundle
from kcompiler.options import Approximation, Options, check_labels, check_options
from kcompiler.passes import costs
from kcompiler.passes.baseline import baseline_graph
from kcompiler.passes.batch import BatchError, subgraphs
from kcompiler.passes.blocks import fill_blocks
from kcompiler.passes.calibrate import Measured, measured_rates
from kcompiler.passes.choice import Choice, Chooser, geometries
from kcompiler.passes.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.distribute import convolve_before_joining, pool_before_joining
from kcompiler.passes.load import Source, load
from kcompiler.passes.logits import expose_logits
from kcompiler.passes.normalise import normalise, select_output
from kcompiler.passes.plan import Plan
from kcompiler.passes.report import make_report
from kcompiler.passes.rewrite import Rewritten, incremental_graph
from kcompiler.passes.store import WeightsFile, write_model
from kcompiler.passes.verify import Verifier, verify_normalised
from kcompiler.passes.work import DEFAULT_RATES
from kcompiler.runtime.errors import CheckFailed
from kcompiler.runtime.manifest import (
    BASELINE,
    FILES,
    FORMAT,
    FULL,
    INCREMENTAL,
    LARGEST_BATCH,
    MANIFEST,
    PATCH_KEY,
    WEIGHTS,
    Calibration,
    Geometry,
    Manifest,
    Variant,
    file_record,
    patch_text,
)
from kcompiler.runtime.report import Report
from kcompiler.runtime.sessions import Machine, onnxruntime

VERIFIED_POSITIONS = 12
ERROR_BUDGETS = (1e-4, 5e-5, 2.5e-5, 1.2e-5, 6e-6, 3e-6, 1.5e-6, 0.0)
"""Rms error, relative to the changes, that transforms may add in all layers together: tried in turn, the last one being
direct convolutions only, until verification finds no more than VERIFIED_SHARE of what "exact" allows."""
APPROXIMATE_BUDGET = 1e-3
"""The same for approximate variants, whose other errors are far larger."""
DEFECT = "{}; nothing was written. This is a defect of kcompiler: please report it with the model"
VERIFIED_SHARE = 0.65
"""Below 1, because a sample of positions does not show the largest error of all."""
EXTERNAL_BYTES = 1 << 30
"""From here on a proto is saved with its weights in a file of their own; ONNX itself cannot go beyond 2 GB."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """A model rewritten in memory: nothing is written or run yet.

    Attributes:
        operators: operator counts of the source.
        output: name of the explained output; ``logits`` of what its softmax or sigmoid reads, if it is one.
        normalised: the source in plain form: full inference.
        graph: the same with nodes exchanged where regions are cheaper so: what is compiled.
        one_by_one: whether the models take one image at a time.
    """

    source: Source
    operators: Mapping[str, int]
    output: str
    logits: str | None
    normalised: gs.Graph
    graph: gs.Graph
    one_by_one: bool
    chooser: Chooser
    choice: Choice
    rewritten: Rewritten
    calibration: Calibration | None

    @property
    def plan(self) -> Plan:
        return self.choice.plan

    @property
    def largest_batch(self) -> int:
        return 1 if self.one_by_one else LARGEST_BATCH

    @property
    def report(self) -> Report:
        return make_report(self.normalised, self.graph, self.choice, self.rewritten, self.operators)

    def ever_more_exact(self, options: Options) -> Iterator[Analysed]:
        """This, then the same with ever tighter bounds on the rounding of transforms; the last without transforms."""
        last = self
        yield last
        for budget in ERROR_BUDGETS[1:]:
            choice = self.chooser.choose(budget, self.choice.batch, options.dense_share)
            if choice.lowerings != last.choice.lowerings:
                graph = incremental_graph(self.graph, choice.plan, options.extents, choice.lowerings)
                last = replace(last, choice=choice, rewritten=graph)
                yield last


def cheaper_on_regions(graph: gs.Graph, options: Options) -> gs.Graph:
    """The same outputs but for rounding, from nodes in another order; ``graph`` itself if there is nothing to exchange.

    Nodes that ``options`` name stay.
    """
    named = {*options.prefer, *(node for one in options.approximations for node in one.thresholds.nodes)}
    graph = convolve_before_pooling(pool_before_convolving(graph, named), named)
    return fill_blocks(convolve_before_joining(pool_before_joining(graph, named), named), named)


def analyse(path: Path, options: Options, scratch: Path) -> Analysed:
    """Loads, normalises, plans, rewrites and lowers. ``scratch`` must outlive the result: weights are mapped from it."""
    try:
        return _analyse(path, options, scratch)
    except BatchError as why:
        return _analyse(path, options, scratch, one_by_one=str(why))


def _analyse(path: Path, options: Options, scratch: Path, one_by_one: str = "") -> Analysed:
    """As :func:`analyse`; ``one_by_one`` says why the model is to run whole, for one image at a time."""
    source = load(path, options.input_shape)
    check_options(source, options)
    operators = Counter(node.op_type for node in source.model.graph.node)
    output = select_output(source, options.output)
    normalised = normalise(source, output, scratch, free_batch=not one_by_one)
    logits = expose_logits(normalised)
    dense = one_by_one or ("the model has nodes with bodies (If, Loop)" if any(subgraphs(normalised)) else "")
    graph = normalised if dense else cheaper_on_regions(normalised, options)
    _, machine = Machine(("cpu",), options.threads).divided(sys.maxsize)  # what is measured is what each batch will have
    rates = measured_rates(machine) if options.calibrate else DEFAULT_RATES
    direct = options.convolution == "direct"
    chooser = Chooser(graph, options.patch, prefer=options.prefer, direct=direct, dense=dense, rates=rates)
    choice = chooser.choose(ERROR_BUDGETS[0], dense_share=options.dense_share)
    calibration = None
    if options.calibrate:
        measured = Measured(graph, chooser.everything, machine, options.extents)
        chooser.reprice(measured)
        choice = chooser.choose(ERROR_BUDGETS[0], choice.batch, options.dense_share)
        calibration = Calibration(
            threads=options.threads, products=rates.products, moved=rates.moved, node=rates.node, seconds=measured.seconds
        )
    rewritten = incremental_graph(graph, choice.plan, options.extents, choice.lowerings)
    return Analysed(
        source, operators, output, logits, normalised, graph, bool(one_by_one), chooser, choice, rewritten, calibration
    )


def compile_file(path: Path, options: Options) -> Bundle:
    """Analyses, writes and verifies; the bundle lies in a temporary folder until it is saved."""
    folder = Path(tempfile.mkdtemp(prefix="kcompiler-bundle-"))
    try:
        with tempfile.TemporaryDirectory(prefix="kcompiler-") as scratch:
            analysed = analyse(path, options, Path(scratch))
            try:
                manifest = write_and_verify(analysed, options, folder)
            except BatchError as why:
                analysed = _analyse(path, options, Path(scratch), one_by_one=str(why))
                manifest = write_and_verify(analysed, options, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return Bundle(folder, manifest)


def write_and_verify(analysed: Analysed, options: Options, folder: Path) -> Manifest:
    """Writes the bundle, then the two models of it again with a tighter bound on rounding until they agree with full inference.

    Raises:
        BatchError: the normalised model gives other outputs than the source.
        CheckFailed: the compiled model disagrees with full inference, whatever the bound, or an approximate variant is not sound.
    """
    own_output = analysed.graph.outputs[0].name
    approximate = []
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        classes = verify_normalised(analysed.source, analysed.output, folder / FULL, own_output, analysed.largest_batch)
        check_labels(options, classes)
        verifier, mark = Verifier(folder, VERIFIED_POSITIONS), weights.mark()
        for analysed in analysed.ever_more_exact(options):  # noqa: B020 - the one that is verified is the one that stays
            weights.rewind(mark)
            exact = _write_variant(analysed, "exact", (BASELINE, INCREMENTAL), options, folder, weights)
            manifest = _manifest(analysed, options, exact, classes, folder)
            _write(folder, manifest)
            comparison = verifier.compared()
            if comparison.agrees and comparison.output_error <= VERIFIED_SHARE:
                break
        if not comparison.agrees:
            raise CheckFailed(
                DEFECT.format(f"{manifest.model}: the compiled model disagrees with full inference ({comparison.reason})")
            )
        for approximation in options.approximations:
            approximate += write_approximate(analysed, options, approximation, folder, weights)
    report = manifest.report.model_copy(update={"largest_error": comparison.largest_error})
    variants = (*manifest.variants, *approximate)
    files = {
        **manifest.files,
        **{name: file_record(folder / name) for one in variants for name in (one.baseline, one.incremental)},
    }
    files[WEIGHTS] = file_record(folder / WEIGHTS)
    manifest = manifest.model_copy(update={"report": report, "variants": variants, "files": files})
    _write(folder, manifest)
    if unsound := verifier.unsound():
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


def write_approximate(
    analysed: Analysed, options: Options, approximation: Approximation, folder: Path, weights: WeightsFile
) -> list[Variant]:
    """Writes an approximate variant of ``analysed``; none where it would be the exact one, or is not worthwhile."""
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
    rewritten = incremental_graph(analysed.graph, choice.plan, options.extents, choice.lowerings)
    approximate = replace(analysed, chooser=chooser, choice=choice, rewritten=rewritten)
    name = approximation.name
    files = f"baseline-{name}.onnx", f"incremental-{name}.onnx"
    return [_write_variant(approximate, name, files, options, folder, weights)]


def _write_variant(
    analysed: Analysed, name: str, files: tuple[str, str], options: Options, folder: Path, weights: WeightsFile
) -> Variant:
    """Writes the baseline and the incremental model to ``files``."""
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
        bytes_per_position=costs.bytes_per_position(analysed.graph, plan, rewritten.lowerings),
        bytes_per_batch=costs.bytes_per_batch(plan, rewritten.cached),
        predicted_speedup=choice.full_seconds / choice.seconds,
        geometries=tuple(Geometry(work=w, heights=y, widths=x) for w, y, x in geometries(analysed.graph, plan)),
    )


def _manifest(analysed: Analysed, options: Options, exact: Variant, classes: int, folder: Path) -> Manifest:
    return Manifest(
        format=FORMAT,
        versions={**{name: version(name) for name in ("kcompiler", "onnx", "numpy")}, "onnxruntime": onnxruntime().__version__},
        model=analysed.source.path.name,
        model_sha256=analysed.source.sha256,
        image=analysed.graph.inputs[0].name,
        layout=analysed.source.layout,
        shape=analysed.source.shape,
        output=analysed.graph.outputs[0].name,
        logits=analysed.logits,
        classes=classes,
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


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


def as_file(model: str | Path | onnx.ModelProto, scratch: Path) -> Path:
    """The model as a file: ``model`` itself, or the proto saved into ``scratch``."""
    if isinstance(model, onnx.ModelProto):
        path = scratch / "model.onnx"
        if model.ByteSize() < EXTERNAL_BYTES:
            onnx.save(model, path)
        else:
            copy = onnx.ModelProto()
            copy.CopyFrom(model)  # saving external data takes the weights out of the proto
            onnx.save(copy, path, save_as_external_data=True, location="model.bin")
        return path
    return Path(model)
