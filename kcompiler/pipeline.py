"""The compiler on one page: from an ONNX file to a verified bundle.

    load         the file, its image input, its other inputs, the tensor to explain        passes/source
    normalise    the same outputs from standard operators                                  passes/normalising
    explain      logits before a softmax, reduction of a dense output to class scores      kcompiler/head.py
    exchange     reorder linear nodes so that regions are smaller                          passes/exchange
    propagate    the region of each value that a patch can change                          passes/regions
    plan         which nodes are incremental, which are dense and why                      passes/plan.py
    choose       the fastest lowering of each node, layouts of regions, the dense tail     passes/choosing
    rewrite      emit the baseline and the incremental graph, each node by its lowering    passes/rewriting, passes/lowering
    verify       compare with full inference, and reduce rounding until they agree         kcompiler/verified.py, settled.py

``passes/spec.py`` checks the invariants between stages.
"""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

from kcompiler.analysed import ERROR_BUDGETS, Analysed, rewritten_by
from kcompiler.bundle import Bundle
from kcompiler.head import explained_head
from kcompiler.options import Options, check_options, with_recipe
from kcompiler.passes.choosing.calibrate import MeasuredPrices, measured_rates
from kcompiler.passes.choosing.choice import Choice, Chooser
from kcompiler.passes.exchange.order import exchanged
from kcompiler.passes.graphs.batch import BatchError, subgraphs
from kcompiler.passes.lowering.work import DEFAULT_RATES
from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.source.load import load
from kcompiler.passes.source.origins import Origins
from kcompiler.passes.source.outputs import select_output
from kcompiler.passes.spec import check_normalised
from kcompiler.runtime.bundle.manifest import Calibration
from kcompiler.runtime.inference.sessions import Machine
from kcompiler.runtime.progress import Stages, Steps
from kcompiler.runtime.scratch import inside, naming_temporary, scratch_folder, temporary
from kcompiler.stages import CHOOSE, MEASURE, NORMALISE, READ, analysing, building, silent
from kcompiler.thresholds import check_node_thresholds
from kcompiler.verified import write_and_verify


def compile_file(path: Path, options: Options, stages: Stages | None = None) -> Bundle:
    """Analyses, writes and verifies; the bundle is in a temporary folder until it is saved.

    ``stages`` reports the progress.
    """
    stages = stages or silent()
    stages.expect(*analysing(options), *building(options))
    built = temporary("bundle")
    try:
        with naming_temporary(built), scratch_folder("weights") as scratch:
            analysed = analyse(path, options, scratch, stages=stages)
            options = with_recipe(analysed.source, options)
            try:
                manifest = write_and_verify(analysed, options, inside(built), stages)
            except BatchError as why:
                analysed = analyse(path, options, scratch, one_by_one=str(why), stages=stages)
                manifest = write_and_verify(analysed, options, inside(built), stages)
    except BaseException:
        built.remove()
        raise
    return Bundle(built, manifest)


def analyse(path: Path, options: Options, scratch: Path, one_by_one: str = "", stages: Stages | None = None) -> Analysed:
    """All stages but the last, in memory. ``scratch`` must outlive the result: weights are memory-mapped from it.

    ``one_by_one``, if not empty, is the reason to run the model whole, on one image at a time. Otherwise the stages are repeated
    in this way if they find that the model cannot have a free batch. ``stages`` reports the progress.
    """
    stages = stages or silent()
    if one_by_one:
        return _analysed(path, options, scratch, one_by_one, stages)
    try:
        return _analysed(path, options, scratch, "", stages)
    except BatchError as why:
        return _analysed(path, options, scratch, str(why), stages)


def _analysed(path: Path, options: Options, scratch: Path, one_by_one: str, stages: Stages) -> Analysed:
    stages.enter(READ)
    source = load(path, options.input_shape, options.layout, options.bind)
    options = with_recipe(source, options)
    check_options(source, options)
    operators = Counter(node.op_type for node in source.model.graph.node)
    origins = Origins.of(source.model.graph)
    explained = select_output(source, options.output)

    stages.enter(NORMALISE)
    normalised = normalise(source, explained.tensor, scratch, free_batch=not one_by_one)
    check_normalised(normalised)
    head = explained_head(normalised, explained, options.reducing)

    stages.enter(CHOOSE)
    dense = one_by_one or ("the model has nodes with bodies (If, Loop)" if any(subgraphs(normalised)) else "")
    graph = normalised if dense else exchanged(normalised, named_nodes(options))
    _, machine = Machine(("cpu",), options.threads).divided(sys.maxsize)  # the threads that each batch will run on
    rates = measured_rates(machine) if options.calibrate else DEFAULT_RATES
    direct = options.convolution == "direct"
    chooser = Chooser(graph, options.patch, prefer=options.prefer, direct=direct, dense=dense, rates=rates)
    check_node_thresholds(path, options, origins.names, chooser)
    choice, calibration = chooser.choose(ERROR_BUDGETS[0], dense_share=options.dense_share), None
    if options.calibrate:
        stages.enter(MEASURE)
        choice, calibration = calibrated(chooser, choice, machine, options, stages)

    rewritten = rewritten_by(graph, choice, options)
    return Analysed(
        source=source, operators=operators, origins=origins, head=head, normalised=normalised, graph=graph,
        one_by_one=bool(one_by_one), chooser=chooser, choice=choice, rewritten=rewritten, calibration=calibration,
    )  # fmt: skip


def named_nodes(options: Options) -> set[str]:
    """Names of nodes in the options, which the exchange passes must keep."""
    return {*options.prefer, *(node for approximation in options.approximations for node in approximation.thresholds.nodes)}


def calibrated(
    chooser: Chooser, choice: Choice, machine: Machine, options: Options, stages: Stages
) -> tuple[Choice, Calibration]:
    """The choice by prices measured on ``machine``, at the batch size of ``choice``, and a record of the measurements."""
    steps = Steps(stages.within, len(chooser.everything.regions))
    measured = MeasuredPrices(chooser.graph, chooser.everything, machine, options.extents, told=partial(steps.advance, 1))
    chooser.reprice(measured)
    choice, rates = chooser.choose(ERROR_BUDGETS[0], choice.batch, options.dense_share), chooser.rates
    return choice, Calibration(
        threads=options.threads, products=rates.products, moved=rates.moved, node=rates.node, seconds=measured.seconds
    )
