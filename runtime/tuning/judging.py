"""Judging: which of the plans that raced is taken, and what may be promised of it, by images that had no part in its choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.tuning.promise import expected_of_next, images_needed, last_promised
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import Costs, Goal, Trial, from_most_careful

CHOOSING = 6
"""Images that choose a plan; all others may judge it."""
UNPROMISED = 8
"""Images that judge a plan which cannot be promised."""
Run = Callable[[Family, Costs, Sequence[int]], Trial]
"""Tries a family, of a variant that takes so much, on images by number."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A plan of a trial, None for the exact one.

    Attributes:
        promised: whether it can be promised.
        kept: images that had no part in its choice on which it met the goal; of a plan that is not promised, those on which
            it and the plan chosen without them did, which is no more careful.
    """

    trial: Trial | None
    number: int
    promised: bool
    kept: int

    @property
    def seconds(self) -> float:
        """Predicted, the mean over all images it was tried on."""
        assert self.trial is not None, "an exact map is timed, not predicted"
        return self.trial.seconds(self.number, list(self.trial.outcomes))

    @property
    def plan(self) -> SamplingPlan:
        return self.trial.family.plans[self.number] if self.trial is not None else EVERYTHING


def fastest(trials: Sequence[Trial], goal: Goal, images: Sequence[int], within: float = np.inf) -> tuple[Trial, int] | None:
    """The trial, and number of its plan, that keeps the goal on its share of ``images`` in least time, less than ``within``."""
    best, least = None, within
    for trial in trials:
        if not trial.ran_on(images):
            continue  # it fell behind
        number = trial.most_careless(goal, images)
        if number is not None and trial.seconds(number, images) < least:
            best, least = (trial, number), trial.seconds(number, images)
    return best


def promised(best: tuple[Trial, int] | None, goal: Goal, second: Sequence[int]) -> Chosen:
    """Of the family chosen on some images, the fastest plan that keeps the promise, judged on the ``second`` part of them.

    Where those are too few for any promise, the plan that was chosen, or the first more careful one that keeps the goal on its
    share of those that had no part in the choice, and on so many of all images together that it is to be expected of the next
    one, too (:func:`~kcompiler.runtime.tuning.promise.expected_of_next`); the exact plan, if none does.
    """
    if best is None:
        return Chosen(None, 0, True, len(second))
    trial, chosen = best
    kept = [trial.kept(number, goal, second) for number in range(len(trial.family.plans))]
    last = last_promised(kept, len(second), goal.share, goal.confidence)
    if last is not None:
        return Chosen(trial, last, True, kept[last])
    if promisable(goal, second):
        return Chosen(None, 0, True, len(second))
    every = list(trial.outcomes)
    needed = expected_of_next(len(every), goal.share)
    serves, expected = trial.most_careless(goal, second), trial.most_careless(goal, every, min(needed, len(every)))
    if serves is None or expected is None:
        return Chosen(None, 0, True, len(second))
    if needed > len(every):  # not even if all keep it: then a plan more careful than that, if there is one
        expected = max(expected - 1, 0)
    number = min(chosen, serves, expected)
    return Chosen(trial, number, False, min(kept[chosen], kept[number]))


def promisable(goal: Goal, second: Sequence[int]) -> bool:
    """Whether so many images that judge can promise anything."""
    return len(second) >= images_needed(goal.share, goal.confidence)


def judged(trials: Sequence[Trial], goal: Goal, parts: tuple[Sequence[int], Sequence[int]], within: float, run: Run) -> Chosen:
    """What is taken of the families that raced on the first of two ``parts`` of the images: the exact plan, if nothing serves.

    Where a promise is possible, the fastest family is judged from its most careful plan on, and no other: each would be a
    chance more to be lucky. Where it is not, the family is judged as it raced first, which may have begun late; if none of its
    plans serves, its more careful ones have their chance, and the fastest family that evaluates exactly.

    Args:
        within: seconds that an explanation may take.
        run: asked for outcomes of a family on more images.
    """
    first, second = parts
    exact = Chosen(None, 0, True, len(second))
    best = fastest(trials, goal, first, within)
    if best is None:
        return exact
    trial, number = best
    whole = from_most_careful(trial.family)
    if whole == trial.family or not promisable(goal, second):
        chosen = promised(_on_more(trial, second, run, number), goal, second)
        if chosen.trial is not None or promisable(goal, second):
            return chosen
    again = []
    if whole != trial.family:
        again.append((run(whole, trial.costs, [*first, *second]), whole.plans.index(trial.family.plans[number])))
    if not promisable(goal, second):
        other = fastest([one for one in trials if one.family.variant == EVERYTHING.variant], goal, first, within)
        if other is not None and other[0] is not trial:
            again.append(_on_more(other[0], second, run, other[1]))
    serving = [one for one in (promised(one, goal, second) for one in again) if one.trial is not None]
    return min(serving, key=lambda one: one.seconds, default=exact)


def _on_more(trial: Trial, images: Sequence[int], run: Run, number: int) -> tuple[Trial, int]:
    return trial.joined(run(trial.family, trial.costs, images)), number


def split(count: int, goal: Goal) -> tuple[list[int], list[int]]:
    """Numbers of the images, in random order, that choose a plan, and of those that judge it.

    If there are too few for a promise, more maps could only sharpen an estimate: no more than :data:`UNPROMISED` judge then,
    and the rest is left out.
    """
    order = np.random.default_rng(0).permutation(count).tolist()
    first = min(CHOOSING, count // 2)
    held = order[first:]
    return order[:first], held if promisable(goal, held) else held[:UNPROMISED]
