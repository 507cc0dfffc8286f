"""Mutated models are right, or refused in a line, within limits of time and memory."""

from __future__ import annotations

import itertools

import pytest

from tests.fuzz import models
from tests.fuzz.runner import ERROR, RIGHT, Limits, outcomes
from tests.fuzz.test_known import no_telemetry  # noqa: F401

FEW, MANY = 24, 2000


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_mutated_models_are_right_or_refused_in_a_line(count):
    found = list(outcomes("models", list(itertools.islice(models.cases(2019), count)), Limits(seconds=30.0)))
    assert len(found) == count
    assert [outcome for outcome in found if outcome.kind not in (RIGHT, ERROR)] == []
    assert {RIGHT, ERROR} == {outcome.kind for outcome in found}, "some mutations leave a model valid, most do not"


def test_cases_are_those_of_their_seed():
    first, again, other = (list(itertools.islice(models.cases(seed), 20)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
