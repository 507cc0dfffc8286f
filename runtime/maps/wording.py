"""The words on a picture of a map: what it says, how it was made, what to be careful about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan


@dataclass(frozen=True, slots=True)
class Words:
    """The text of an overlay.

    Attributes:
        title: the class, and what the model says of the uncovered image.
        made: how the map was made.
        approximate: why the map is not what full inference at every position gives; empty if it is.
        bar: what the colour bar shows.
        notes: what a reader should know, below the picture.
    """

    title: str
    made: str
    approximate: str
    bar: str
    notes: tuple[str, ...] = ()


def bar_of(score: str) -> str:
    """What the colours show: how far the score falls."""
    what = "drop" if score == "drop" else f"drop of the {score}"
    return f"{what} when covered\n(above 0: what is covered supports the class)"


def made_of(score: str, patch: tuple[int, int], image: tuple[int, int], shape: tuple[int, int]) -> str:
    """How the map was made."""
    scored = "logit or output" if score == "drop" else score
    return (
        f"How far the {scored} falls while {patch[0]} x {patch[1]} of the model's {image[0]} x {image[1]} pixels are covered, "
        f"at {shape[0]} x {shape[1]} positions"
    )


def approximate_of(plan: SamplingPlan, evaluated: int, count: int, *, complete: bool) -> str:
    """In what a map departs from full inference at all of its ``count`` positions; empty if in nothing."""
    variant = "" if plan.variant == EVERYTHING.variant else f" by the approximate variant {plan.variant}"
    if evaluated == count:
        return f"APPROXIMATE: all {count} positions evaluated{variant}" if variant else ""
    share = f"{evaluated} of {count} positions ({100 * evaluated / count:.3g} %) evaluated{variant}"
    if plan.everything:
        return f"UNFINISHED: {share}, the others have no colour"
    ended = "" if complete else ", ended early"
    return f"APPROXIMATE: {share}, chosen by {plan.method}{ended}; the others are estimates"


def flat_of(extent: float, rounding: float) -> str:
    return f"Flat: all drops lie within {extent:.2g}, which rounding alone may make of these scores ({rounding:.2g}). No colour."


def crossed_of(count: int) -> str:
    where = "one position" if count == 1 else f"{count} positions"
    return f"Crossed: {where} at which the score is infinite or not a number. The others set the scale."


UNSEEN = "Hatched: what the model did not see."
UNREACHED = "Dashed: where patches end. What lies beyond was not covered: its effect is not known."


def joined(notes: Sequence[str]) -> tuple[str, ...]:
    """The notes that say something, each once."""
    return tuple(dict.fromkeys(filter(None, notes)))
