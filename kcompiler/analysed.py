"""The result of all stages before verification, in memory. It can be rewritten with smaller rounding errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs

from kcompiler.head import Head
from kcompiler.options import Options
from kcompiler.passes.choosing.choice import Choice, Chooser
from kcompiler.passes.choosing.devices import Device
from kcompiler.passes.choosing.report import make_report
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.propagate import Thresholds, propagate
from kcompiler.passes.rewriting.rewrite import Rewritten, incremental_graph
from kcompiler.passes.source.load import Source
from kcompiler.passes.source.origins import Origins
from kcompiler.passes.spec import check_incremental, check_plan
from kcompiler.runtime.bundle.manifest import LARGEST_BATCH, Calibration
from kcompiler.runtime.bundle.report import Report

ERROR_BUDGETS = (1e-4, 5e-5, 2.5e-5, 1.2e-5, 6e-6, 3e-6, 1.5e-6, 0.0)
"""Rms error, relative to the changes, that transforms may add in all layers together. The budgets are tried in turn (0 allows
direct convolutions only), then ONNX Runtime's own convolutions, until verification finds at most VERIFIED_SHARE of the error that
"exact" allows."""
FREEZING = Thresholds(freeze_gates=True)
SAME_SUMS = "regions"
"""The lowering of a convolution that runs the Conv operator itself, with its order of summation."""


@dataclass(frozen=True, slots=True)
class Analysed:
    """The results of all stages before verification.

    Attributes:
        source: the loaded file.
        operators: count of each operator in the source.
        origins: the nodes of the source, for the report.
        head: the explained output.
        normalised: the normalised graph, which is full inference.
        graph: the normalised graph after the exchange passes, which is compiled.
        one_by_one: whether the models take one image at a time.
        chooser: the prices and preferences of ``choice``.
        choice: the plan, layouts and batch size of ``rewritten``.
        rewritten: the incremental graph.
        calibration: record of measured rates and prices; None if they are predicted.
    """

    source: Source
    operators: Mapping[str, int]
    origins: Origins
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
        report = make_report(self.normalised, self.graph, self.choice, self.rewritten, self.operators, self.origins)
        return report.model_copy(update={"notes": (*self.source.notes, *self.head.notes, *self._of_gates())})

    def _of_gates(self) -> Iterator[str]:
        """A note on gates that end regions, as long as freezing them is not what this does."""
        frozen = propagate(self.graph, self.plan.patch, FREEZING).frozen if not self.chooser.dense else ()
        if frozen and not self.plan.frozen:
            yield (
                f"regions end at gates, which whole maps make and which scale maps (squeeze and excite, {len(frozen)} in all): "
                "approximate variants that freeze them (--freeze-gates) recompute regions behind them, too"
            )

    def ever_more_exact(self, options: Options) -> Iterator[Analysed]:
        """This, then rewritings with ever smaller error budgets for transforms, then without transforms.

        In the last, every convolution has full inference's order of summation, which matters where large terms cancel.
        """
        last = self
        yield last
        for chooser, budget, batch in self._further():
            choice = chooser.choose(budget, batch, options.dense_share)
            if choice.layouts.lowerings != last.choice.layouts.lowerings:
                last = self.by(choice, options)
                yield last

    def by(self, choice: Choice, options: Options) -> Analysed:
        """A copy, rewritten by another choice."""
        return replace(self, choice=choice, rewritten=rewritten_by(self.graph, choice, options))

    def whole(self, options: Options, why: str) -> Analysed:
        """A copy that runs the model whole, for the reason ``why``."""
        chooser = self.chooser.running_whole(why)
        return replace(self, chooser=chooser).by(chooser.choose(0.0), options)

    def _further(self) -> Iterator[tuple[Chooser, float, int | None]]:
        """(chooser, error budget, batch size or None) of each rewriting.

        The last chooses its batch size anew, as it reads no transformed weights.
        """
        yield from ((self.chooser, budget, self.choice.batch) for budget in ERROR_BUDGETS[1:])
        yield self.chooser.preferring({"Conv": SAME_SUMS}), 0.0, None


def for_patch(analysed: Analysed, options: Options) -> Analysed:
    """``analysed``, chosen and rewritten anew for the patch of ``options``."""
    return _chosen_by(analysed.chooser.anew(patch=options.patch), analysed, options)


def on_device(analysed: Analysed, options: Options, device: Device) -> Analysed:
    """``analysed``, chosen and rewritten anew for ``device``, by the rates assumed of it."""
    direct = analysed.chooser.direct or not device.transforms
    return _chosen_by(analysed.chooser.anew(device=device, rates=device.rates, direct=direct), analysed, options)


def _chosen_by(chooser: Chooser, analysed: Analysed, options: Options) -> Analysed:
    choice = chooser.choose(ERROR_BUDGETS[0], dense_share=options.dense_share)
    return replace(analysed, chooser=chooser).by(choice, options)


def rewritten_by(graph: gs.Graph, choice: Choice, options: Options) -> Rewritten:
    """The incremental graph of ``graph`` by ``choice``; the plan and the result are checked by ``passes/spec.py``."""
    check_plan(graph, choice.plan)
    rewritten = incremental_graph(graph, choice.plan, options.extents, choice.layouts)
    check_incremental(graph, rewritten)
    return rewritten
