"""Progress through stages, and its bar."""

from __future__ import annotations

import io
import sys
import time

import pytest

from kcompiler.runtime.progress import Stages, Steps

SHARES = {"first": 300, "second": 700}


def test_what_was_not_expected_adds_to_the_whole():
    points = []
    with Stages(points.append, SHARES) as stages:
        stages.expect("first", "second")
        stages.enter("first")
        stages.enter("second")
        stages.within(1, 2)
        stages.enter("second", "once more")
    assert [(point.stage, point.done, point.total) for point in points] == [
        ("first", 0, 1000), ("second", 300, 1000), ("second", 650, 1000), ("second once more", 1000, 1700), ("", 1700, 1700),
    ]  # fmt: skip


def test_steps_end_at_their_total():
    told = []
    steps = Steps(lambda done, total: told.append((done, total)), 4)
    steps.advance(3)
    steps.advance(3)
    assert told == [(3, 4), (4, 4)]


@pytest.mark.parametrize("seconds", [0.0, 1.2])
def test_the_bar_comes_after_a_second_and_goes_at_the_end(monkeypatch, seconds):
    monkeypatch.setattr(sys, "stderr", shown := io.StringIO())
    with Stages(True, SHARES) as stages:
        stages.expect("first", "second")
        stages.enter("first")
        time.sleep(seconds)
        stages.enter("second", "of two")
    assert ("second of two:  30%" in shown.getvalue()) == (seconds > 1)
    assert shown.getvalue().rpartition("\r")[0].rpartition("\r")[2].strip() == ""
