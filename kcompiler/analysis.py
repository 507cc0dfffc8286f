"""Analysis: from an ONNX file to a model rewritten in memory. No bundle is written, and only what is measured is run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_graphsurgeon as gs

from kcompiler.options import Options, check_options
from kcompiler.passes.choosing.calibrate import Measured, measured_rates
from kcompiler.passes.choosing.choice import Choice, Chooser
from kcompiler.passes.choosing.report import make_report
from kcompiler.passes.exchange.blocks import fill_blocks
from kcompiler.passes.exchange.commute import convolve_before_pooling, pool_before_convolving
from kcompiler.passes.exchange.distribute import convolve_before_joining, pool_before_joining
from kcompiler.passes.graphs.batch import BatchError, subgraphs
from kcompiler.passes.lowering.work import DEFAULT_RATES
from kcompiler.passes.normalising.logits import Logits, ends_in_sigmoid, expose_logits
from kcompiler.passes.normalising.normalise import normalise
from kcompiler.passes.normalising.reduce import described, numbers_of, reduce_outputs, reduction_of
from kcompiler.passes.plan import Plan
from kcompiler.passes.rewriting.rewrite import Rewritten, incremental_graph
from kcompiler.passes.source.load import Source, load
from kcompiler.passes.source.outputs import select_output
from kcompiler.runtime.bundle.manifest import LARGEST_BATCH, Calibration
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.inference.sessions import Machine
from kcompiler.thresholds import check_node_thresholds

ERROR_BUDGETS = (1e-4, 5e-5, 2.5e-5, 1.2e-5, 6e-6, 3e-6, 1.5e-6, 0.0)
"""Rms error, relative to the changes, that transforms may add in all layers together: tried in turn, the last one being
direct convolutions only, and then ONNX Runtime's own, until verification finds no more than VERIFIED_SHARE of what "exact"
allows."""
DENSE_NUMBERS = 10_000
SUGGESTION = (
    "the output has {:,} numbers an image, each a class of its own; --reduce mean, max or sum makes one number a class of them"
)
TWO_CLASSES = "the one output is a sigmoid's, so it speaks of two classes: target 1 is the output, target 0 what is left to one"
SAME_SUMS = "regions"
"""The lowering of a convolution that runs the operator itself."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """A model rewritten in memory: nothing is written or run yet.

    Attributes:
        operators: operator counts of the source.
        output: name of the explained tensor of the source; ``logits`` what its softmax or sigmoid reads, if it is one.
        normalised: the source in plain form: full inference.
        graph: the same with nodes exchanged where regions are cheaper so: what is compiled.
        sigmoid: whether the explained tensor is a sigmoid's.
        reduction: of a dense output, if one was asked for.
        one_by_one: whether the models take one image at a time.
        notes: what a user should know about what was compiled.
    """

    source: Source
    operators: Mapping[str, int]
    output: str
    logits: Logits | None
    normalised: gs.Graph
    graph: gs.Graph
    sigmoid: bool
    reduction: Reduction | None
    one_by_one: bool
    chooser: Chooser
    choice: Choice
    rewritten: Rewritten
    calibration: Calibration | None
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        return self.choice.plan

    @property
    def largest_batch(self) -> int:
        return 1 if self.one_by_one else LARGEST_BATCH

    def two_classes(self, classes: int) -> bool:
        """Whether the output, of so many numbers, is the probability of one of two classes."""
        return self.sigmoid and classes == 1 and (self.reduction is None or self.reduction.how == "mean")

    @property
    def report(self) -> Report:
        made = make_report(self.normalised, self.graph, self.choice, self.rewritten, self.operators)
        return made.model_copy(update={"notes": self.notes})

    def ever_more_exact(self, options: Options) -> Iterator[Analysed]:
        """This, then the same with ever tighter bounds on the rounding of transforms, then without transforms.

        The last one adds up no convolution in another order than full inference: where little is left of large sums, that shows.
        """
        last = self
        yield last
        for chooser, budget, batch in self._further():
            choice = chooser.choose(budget, batch, options.dense_share)
            if choice.lowerings != last.choice.lowerings:
                graph = incremental_graph(self.graph, choice.plan, options.extents, choice.lowerings, choice.batch)
                last = replace(last, choice=choice, rewritten=graph)
                yield last

    def whole(self, options: Options, why: str) -> Analysed:
        """The same, run by full inference."""
        chooser = self.chooser.running_whole(why)
        choice = chooser.choose(0.0)
        graph = incremental_graph(self.graph, choice.plan, options.extents, choice.lowerings, choice.batch)
        return replace(self, chooser=chooser, choice=choice, rewritten=graph)

    def _further(self) -> Iterator[tuple[Chooser, float, int | None]]:
        """Choosers, budgets and batches; for the last one a batch is chosen anew, as no transformed weights are to be read."""
        yield from ((self.chooser, budget, self.choice.batch) for budget in ERROR_BUDGETS[1:])
        yield self.chooser.preferring({"Conv": SAME_SUMS}), 0.0, None


def cheaper_on_regions(graph: gs.Graph, options: Options) -> gs.Graph:
    """The same outputs but for rounding, from nodes in another order; ``graph`` itself if there is nothing to exchange.

    Nodes that ``options`` name stay.
    """
    named = {*options.prefer, *(node for one in options.approximations for node in one.thresholds.nodes)}
    graph = convolve_before_pooling(pool_before_convolving(graph, named), named)
    return fill_blocks(convolve_before_joining(pool_before_joining(graph, named), named), named)


def analyse(path: Path, options: Options, scratch: Path, one_by_one: str = "") -> Analysed:
    """Loads, normalises, plans, rewrites and lowers. ``scratch`` must outlive the result: weights are mapped from it.

    ``one_by_one`` says why the model is to run whole, for one image at a time, where that is known already.
    """
    if one_by_one:
        return _analyse(path, options, scratch, one_by_one)
    try:
        return _analyse(path, options, scratch, "")
    except BatchError as why:
        return _analyse(path, options, scratch, str(why))


def _analyse(path: Path, options: Options, scratch: Path, one_by_one: str) -> Analysed:
    source = load(path, options.input_shape, options.layout, options.bind)
    check_options(source, options)
    operators = Counter(node.op_type for node in source.model.graph.node)
    source_nodes = {node.name for node in source.model.graph.node}
    explained = select_output(source, options.output)
    normalised = normalise(source, explained.tensor, scratch, free_batch=not one_by_one)
    logits, sigmoid = expose_logits(normalised), ends_in_sigmoid(normalised)
    notes = list(explained.notes)
    reduction = None
    if options.reducing is not None:
        reduction = reduction_of(normalised, options.reducing, sigmoid=sigmoid)
        notes.append(described(normalised, reduction))
        reduce_outputs(normalised, reduction)
        logits = Logits(str(normalised.outputs[1].name)) if len(normalised.outputs) > 1 else None
    elif (numbers := numbers_of(normalised) or 0) > DENSE_NUMBERS:
        notes.append(SUGGESTION.format(numbers))
    elif sigmoid and numbers == 1:
        notes.append(TWO_CLASSES)
    dense = one_by_one or ("the model has nodes with bodies (If, Loop)" if any(subgraphs(normalised)) else "")
    graph = normalised if dense else cheaper_on_regions(normalised, options)
    _, machine = Machine(("cpu",), options.threads).divided(sys.maxsize)  # what is measured is what each batch will have
    rates = measured_rates(machine) if options.calibrate else DEFAULT_RATES
    direct = options.convolution == "direct"
    chooser = Chooser(graph, options.patch, prefer=options.prefer, direct=direct, dense=dense, rates=rates)
    check_node_thresholds(path, options, source_nodes, chooser)
    choice = chooser.choose(ERROR_BUDGETS[0], dense_share=options.dense_share)
    calibration = None
    if options.calibrate:
        measured = Measured(graph, chooser.everything, machine, options.extents)
        chooser.reprice(measured)
        choice = chooser.choose(ERROR_BUDGETS[0], choice.batch, options.dense_share)
        calibration = Calibration(
            threads=options.threads, products=rates.products, moved=rates.moved, node=rates.node, seconds=measured.seconds
        )
    rewritten = incremental_graph(graph, choice.plan, options.extents, choice.lowerings, choice.batch)
    return Analysed(
        source, operators, explained.tensor, logits, normalised, graph, sigmoid, reduction, bool(one_by_one), chooser, choice,
        rewritten, calibration, tuple(notes),
    )  # fmt: skip
