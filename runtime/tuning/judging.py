"""Judging: which plan is taken after the race, and whether it can be promised, by images that had no part in its choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan
from kcompiler.runtime.tuning.promise import expected_of_next, images_needed, last_promised
from kcompiler.runtime.tuning.simulation import Family
from kcompiler.runtime.tuning.trials import Costs, Goal, Trial, from_most_careful

CHOOSING = 6
"""Number of images that choose a plan; the others may judge it."""
UNPROMISED = 8
"""Number of images that judge a plan that cannot be promised."""
Run = Callable[[Family, Costs, Sequence[int]], Trial]
"""Runs a family, with the costs of its variant, on the images with these numbers."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan that is taken.

    Attributes:
        trial: trial of the plan's family; None for the exact plan.
        number: number of the plan in the family.
        promised: whether the plan can be promised.
        kept: images that had no part in the choice and on which the plan met the goal. For a plan that is not promised, at most
            those on which the plan chosen without them did, which is no more careful.
    """

    trial: Trial | None
    number: int
    promised: bool
    kept: int

    @property
    def seconds(self) -> float:
        """Predicted seconds of an explanation: the mean over all images that the plan ran on."""
        assert self.trial is not None, "an exact map is timed, not predicted"
        return self.trial.seconds(self.number, list(self.trial.outcomes))

    @property
    def plan(self) -> SamplingPlan:
        return self.trial.family.plans[self.number] if self.trial is not None else EVERYTHING


def exactly(second: Sized) -> Chosen:
    """The exact plan, which keeps any goal on all images of the ``second`` part."""
    return Chosen(None, 0, True, len(second))


def fastest(trials: Sequence[Trial], goal: Goal, images: Sequence[int], within: float = np.inf) -> tuple[Trial, int] | None:
    """The fastest plan that meets the goal on its share of ``images`` in less than ``within`` seconds: its trial and number."""
    best, least = None, within
    for trial in trials:
        if not trial.ran_on(images):
            continue  # dropped out of the race
        number = trial.most_careless(goal, images)
        if number is not None and trial.seconds(number, images) < least:
            best, least = (trial, number), trial.seconds(number, images)
    return best


def promised(best: tuple[Trial, int] | None, goal: Goal, second: Sequence[int]) -> Chosen:
    """The least careful plan, of the family that was chosen on other images, that the ``second`` part of the images can promise.

    If ``second`` is too small for any promise: the chosen plan, or the next more careful plan that meets the goal on its share of
    ``second``, and on as many of all images as make it expected of the next image
    (:func:`~kcompiler.runtime.tuning.promise.expected_of_next`). If no plan does, the exact plan.
    """
    if best is None:
        return exactly(second)
    trial, chosen = best
    kept = [trial.kept(number, goal, second) for number in range(len(trial.family.plans))]
    last = last_promised(kept, len(second), goal.share, goal.confidence)
    if last is not None:
        return Chosen(trial, last, True, kept[last])
    if promisable(goal, second):
        return exactly(second)
    images = list(trial.outcomes)
    needed = expected_of_next(len(images), goal.share)
    observed, expected = trial.most_careless(goal, second), trial.most_careless(goal, images, min(needed, len(images)))
    if observed is None or expected is None:
        return exactly(second)
    if needed > len(images):  # success on all images is not enough: take a plan that is more careful still, if there is any
        expected = max(expected - 1, 0)
    number = min(chosen, observed, expected)
    return Chosen(trial, number, False, min(kept[chosen], kept[number]))


def promisable(goal: Goal, second: Sequence[int]) -> bool:
    """Whether ``second`` has enough images to promise anything."""
    return len(second) >= images_needed(goal.share, goal.confidence)


def judged(trials: Sequence[Trial], goal: Goal, parts: tuple[Sequence[int], Sequence[int]], within: float, run: Run) -> Chosen:
    """Takes a plan of the families that raced on the first of two ``parts`` of the images; if none is accepted, the exact plan.

    If a promise is possible, only the fastest family is judged, from its most careful plan on: judging another would be a second
    chance to succeed by luck. If not, the family is judged as it raced, without its most careful plans if it raced without them.
    If no plan is accepted, the whole family is judged, and the fastest family of the exact variant.

    Args:
        within: predicted seconds that an explanation must stay below.
        run: runs a family on more images.
    """
    first, second = parts
    exact = exactly(second)
    best = fastest(trials, goal, first, within)
    if best is None:
        return exact
    trial, number = best
    whole = from_most_careful(trial.family)
    if whole == trial.family or not promisable(goal, second):
        chosen = promised(_run_on(trial, second, run, number), goal, second)
        if chosen.trial is not None or promisable(goal, second):
            return chosen
    again = []
    if whole != trial.family:
        again.append((run(whole, trial.costs, [*first, *second]), whole.plans.index(trial.family.plans[number])))
    if not promisable(goal, second):
        other = fastest([t for t in trials if t.family.variant == EVERYTHING.variant], goal, first, within)
        if other is not None and other[0] is not trial:
            again.append(_run_on(other[0], second, run, other[1]))
    accepted = [chosen for chosen in (promised(pair, goal, second) for pair in again) if chosen.trial is not None]
    return min(accepted, key=lambda chosen: chosen.seconds, default=exact)


def _run_on(trial: Trial, images: Sequence[int], run: Run, number: int) -> tuple[Trial, int]:
    return trial.joined(run(trial.family, trial.costs, images)), number


def split(count: int, goal: Goal) -> tuple[list[int], list[int]]:
    """Splits image numbers at random into those that choose a plan and those that judge it.

    If there are too few images for a promise, at most :data:`UNPROMISED` judge, and the rest are left out: their exact maps would
    only make an estimate more precise.
    """
    order = np.random.default_rng(0).permutation(count).tolist()
    first = min(CHOOSING, count // 2)
    held = order[first:]
    return order[:first], held if promisable(goal, held) else held[:UNPROMISED]
