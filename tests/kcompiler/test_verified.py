"""Which attempt at an exact variant stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kcompiler.settled import Tried, kept_of

DISAGREES = None


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ([0.3], 0),
        ([0.95, 0.5], 1),  # the first that keeps the margin is the last that is tried
        ([DISAGREES, 0.95, 0.7], 2),
        ([0.9, 0.92, 0.88], 0),  # transforms do not matter: the fastest
        ([DISAGREES, 0.9, 0.88], 1),
        ([0.99, 0.93, 0.85], 1),  # they do, somewhat
        ([0.9, DISAGREES], 0),
        ([DISAGREES, DISAGREES], 1),  # a defect, unless it is of rounding: then full inference follows
    ],
)
def test_the_fastest_stays_that_is_as_exact_as_any(shares, kept):
    tried = [
        Tried(
            SimpleNamespace(number=number), SimpleNamespace(agrees=share is not DISAGREES, share=2.0 if share is None else share)
        )
        for number, share in enumerate(shares)
    ]
    assert kept_of(tried).choice.number == kept
