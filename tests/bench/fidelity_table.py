"""What ``fidelity.py`` found, as a table: by class of the unseen pictures, and by family of plans."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from faithfulness import Faithfulness
from rich.console import Console
from rich.table import Table

from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.sampling.quality import Quality
from kcompiler.runtime.tuning.promise import least_share


@dataclass(frozen=True, slots=True)
class Judged:
    """An unseen picture.

    Attributes:
        share: of the positions, evaluated.
        seconds, exact_seconds: of the tuned and of the exact explanation (the latter from a sample of its positions).
        speedup, exact_speedup: of each, over full inference of all positions, timed right before and after it.
        faithful, exact_faithful: of each map; pointing only for findings that the classifier recognises.
    """

    seed: int
    label: int
    right: bool
    quality: Quality
    share: float
    seconds: float
    exact_seconds: float
    speedup: float
    exact_speedup: float
    faithful: Faithfulness
    exact_faithful: Faithfulness


@dataclass(frozen=True, slots=True)
class Pace:
    """Of full inference: ``seconds`` a position at ``batch``, each time it was measured; ``positions`` of a map."""

    positions: int
    batch: int
    seconds: Sequence[float]


Judgement = Callable[[Sequence[Judged]], str]


def rows(goal: float) -> dict[str, Judgement]:
    """The lines of the table, each of some pictures."""
    return {
        "unseen pictures": lambda some: str(len(some)),
        f"SSIM >= {goal:g}": lambda some: f"{statistics.fmean(one.quality.ssim >= goal for one in some):.0%}",
        "SSIM, 10th percentile": lambda some: f"{np.percentile([one.quality.ssim for one in some], 10):.3f}",
        "SSIM, median": _median(lambda one: one.quality.ssim),
        "Pearson, median": _median(lambda one: one.quality.pearson),
        "top-5% overlap, median": _median(lambda one: one.quality.top_overlap),
        "rendered SSIM, median": _median(lambda one: one.quality.rendered_ssim),
        "positions evaluated, mean": lambda some: f"{statistics.fmean(one.share for one in some):.1%}",
        "seconds, exact": _median(lambda one: one.exact_seconds, "{:.2f}"),
        "seconds, tuned": _median(lambda one: one.seconds, "{:.2f}"),
        "speed-up over full, exact": _range(lambda one: one.exact_speedup),
        "speed-up over full, tuned": _range(lambda one: one.speedup),
        "deletion AUC, exact / tuned": _both(lambda one: one.deletion),
        "insertion AUC, exact / tuned": _both(lambda one: one.insertion),
        "points at the finding, exact / tuned": _pointing,
    }


def _median(value: Callable[[Judged], float], form: str = "{:.3f}") -> Judgement:
    return lambda some: form.format(statistics.median(map(value, some)))


def _range(value: Callable[[Judged], float]) -> Judgement:
    return lambda some: f"{_median(value, '{:.1f}x')(some)} ({min(map(value, some)):.1f}-{max(map(value, some)):.1f})"


def _both(value: Callable[[Faithfulness], float]) -> Judgement:
    def judgement(some: Sequence[Judged]) -> str:
        exact, tuned = ([value(one) for one in each] for each in _faithful(some))
        return f"{statistics.fmean(exact):.3f} / {statistics.fmean(tuned):.3f}"

    return judgement


def _pointing(some: Sequence[Judged]) -> str:
    exact, tuned = ([one.pointing for one in each if one.pointing is not None] for each in _faithful(some))
    return f"{sum(exact)} / {sum(tuned)} of {len(exact)}" if exact else "-"


def _faithful(some: Sequence[Judged]) -> tuple[list[Faithfulness], list[Faithfulness]]:
    return [one.exact_faithful for one in some], [one.faithful for one in some]


def report(model: str, pace: Pace, tuned: Tuned, judged: Sequence[Judged], right: Sequence[bool], labels: Sequence[str]) -> None:
    """Prints the table, the plan, what is promised of it and was kept; ``right`` says of every picture if its class was found."""
    console = Console()
    if not console.is_terminal:
        console.width = 160
    groups = {name: [one for one in judged if one.label == number] for number, name in enumerate(labels)}
    groups = {**{name: some for name, some in groups.items() if some}, "all": list(judged)}
    table = Table("", *groups, box=None, title=model)
    for name, judgement in rows(tuned.ssim).items():
        table.add_row(name, *map(judgement, groups.values()))
    console.print(table, ablation(pace, tuned, judged))
    failures = sum(one.quality.ssim < tuned.ssim for one in judged)
    most = 1 - least_share(len(judged) - failures, len(judged), tuned.confidence)
    promised = "promised" if tuned.promised else "NOT promised (too few calibration images)"
    for line in (
        f"plan: {tuned.plan!r}",
        f"SSIM >= {tuned.ssim:g} on {tuned.share:.0%} of images with {tuned.confidence:.0%} confidence: {promised}; "
        f"{tuned.evidence.kept} of {tuned.evidence.held_out} held-out calibration images kept it",
        f"failure rate: {failures} of {len(judged)} unseen pictures, at most {most:.0%} with {tuned.confidence:.0%} confidence",
        f"the classifier is right on {sum(right)} of these {len(right)} pictures",
        f"full inference: {statistics.median(pace.seconds) * 1e3:.2f} ms a position at batch {pace.batch} "
        f"({min(pace.seconds) * 1e3:.2f}-{max(pace.seconds) * 1e3:.2f}), {pace.positions} positions",
    ):
        console.print(line, soft_wrap=True, highlight=False)


def ablation(pace: Pace, tuned: Tuned, judged: Sequence[Judged]) -> Table:
    """Each family's plan that was the fastest to keep the goal on the first half of the calibration images, or its first."""
    count = pace.positions
    full = count * statistics.median(pace.seconds)
    exact = statistics.median(one.exact_seconds for one in judged)
    table = Table("families", "positions", "predicted s", f"SSIM >= {tuned.ssim:g}", "predicted speed-up", box=None)
    for name, evaluated, seconds, kept in (("exact", float(count), exact, 1.0), *tuned.evidence.candidates):
        table.add_row(name, f"{evaluated / count:.1%}", f"{seconds:.2f}", f"{kept:.0%}", f"{full / seconds:.1f}x")
    return table
