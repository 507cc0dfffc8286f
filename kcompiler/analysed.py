"""A model rewritten in memory: nothing of a bundle is written yet. It can be rewritten with less rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs

from kcompiler.head import Head
from kcompiler.options import Options
from kcompiler.passes.choosing.choice import Choice, Chooser
from kcompiler.passes.choosing.report import make_report
from kcompiler.passes.plan import Plan
from kcompiler.passes.rewriting.rewrite import Rewritten, incremental_graph
from kcompiler.passes.source.load import Source
from kcompiler.passes.spec import check_incremental, check_plan
from kcompiler.runtime.bundle.manifest import LARGEST_BATCH, Calibration
from kcompiler.runtime.bundle.report import Report

ERROR_BUDGETS = (1e-4, 5e-5, 2.5e-5, 1.2e-5, 6e-6, 3e-6, 1.5e-6, 0.0)
"""Rms error, relative to the changes, that transforms may add in all layers together: tried in turn, the last one being
direct convolutions only, and then ONNX Runtime's own, until verification finds no more than VERIFIED_SHARE of what "exact"
allows."""
SAME_SUMS = "regions"
"""The lowering of a convolution that runs the operator itself."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """What all stages but the last make of a model.

    Attributes:
        operators: operator counts of the source.
        head: of the model.
        normalised: the source in plain form: full inference.
        graph: the same with nodes exchanged where regions are cheaper so: what is compiled.
        one_by_one: whether the models take one image at a time.
    """

    source: Source
    operators: Mapping[str, int]
    head: Head
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
        made = make_report(self.normalised, self.graph, self.choice, self.rewritten, self.operators)
        return made.model_copy(update={"notes": self.head.notes})

    def ever_more_exact(self, options: Options) -> Iterator[Analysed]:
        """This, then the same with ever tighter bounds on the rounding of transforms, then without transforms.

        The last one adds up no convolution in another order than full inference: where little is left of large sums, that shows.
        """
        last = self
        yield last
        for chooser, budget, batch in self._further():
            choice = chooser.choose(budget, batch, options.dense_share)
            if choice.layouts.lowerings != last.choice.layouts.lowerings:
                last = self.by(choice, options)
                yield last

    def by(self, choice: Choice, options: Options) -> Analysed:
        """The same, rewritten by another choice."""
        return replace(self, choice=choice, rewritten=rewritten_by(self.graph, choice, options))

    def whole(self, options: Options, why: str) -> Analysed:
        """The same, run by full inference."""
        chooser = self.chooser.running_whole(why)
        return replace(self, chooser=chooser).by(chooser.choose(0.0), options)

    def _further(self) -> Iterator[tuple[Chooser, float, int | None]]:
        """Choosers, budgets and batches; for the last one a batch is chosen anew, as no transformed weights are to be read."""
        yield from ((self.chooser, budget, self.choice.batch) for budget in ERROR_BUDGETS[1:])
        yield self.chooser.preferring({"Conv": SAME_SUMS}), 0.0, None


def rewritten_by(graph: gs.Graph, choice: Choice, options: Options) -> Rewritten:
    """The incremental graph of ``graph`` by a choice, its plan and itself checked by their specs."""
    check_plan(graph, choice.plan)
    rewritten = incremental_graph(graph, choice.plan, options.extents, choice.layouts)
    check_incremental(graph, rewritten)
    return rewritten
