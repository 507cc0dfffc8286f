"""What a compilation reports while it runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from networks import save

import kcompiler
from kcompiler.options import options_of
from kcompiler.runtime.measuring.check import COMPARE
from kcompiler.stages import CHECK, CHOOSE, MEASURE, NORMALISE, READ, SHARES, UNSOUND, WRITE, analysing, building

DEMO = Path(__file__).parents[2] / "models" / "demo" / "demo.onnx"


def reported(**options):
    points = []
    kcompiler.compile(DEMO, progress=points.append, **options)
    return points


def stages_of(points):
    return list(dict.fromkeys(point.stage for point in points if point.stage))


def check_forecast(points):
    done = [point.done for point in points]
    assert done == sorted(done)
    assert points[-1].done == points[-1].total
    assert all(0 <= point.remaining < float("inf") for point in points if point.done)


def test_each_stage_is_named_and_all_of_them_are_the_whole():
    points = reported(patch=16)
    check_forecast(points)
    assert stages_of(points) == [READ, NORMALISE, CHOOSE, CHECK, WRITE, COMPARE]
    assert {point.total for point in points} == {1000}, "the thousandths of one patch"


def test_a_comparison_reports_each_batch():
    points = [point for point in reported(patch=16) if point.stage == COMPARE]
    assert len(points) > 10
    assert points[-1].done - points[0].done == SHARES[COMPARE]


def test_patches_variants_and_devices_are_expected_from_the_start():
    points = reported(patch=[16, (12, 20)], thresholds=(0.05,), device="cuda")
    check_forecast(points)
    assert [stage for stage in stages_of(points) if stage.startswith((COMPARE, UNSOUND))] == [
        f"{COMPARE} for patch 16x16", f"{COMPARE} for patch 16x16, cuda", f"{UNSOUND} for patch 16x16, cuda",
        f"{UNSOUND} for patch 16x16", f"{COMPARE} for patch 12x20", f"{COMPARE} for patch 12x20, cuda",
        f"{UNSOUND} for patch 12x20, cuda", f"{UNSOUND} for patch 12x20",
    ]  # fmt: skip
    options = options_of(patch=[16, (12, 20)], thresholds=(0.05,), device="cuda")
    assert {point.total for point in points} == {sum(SHARES[stage] for stage in analysing(options) + building(options))}


def test_measuring_reports_its_nodes():
    points = reported(patch=16, calibrate=True, threads=1)
    check_forecast(points)
    assert len([point for point in points if point.stage == MEASURE]) > 2


def test_what_fails_ends_without_the_whole(tmp_path):
    points = []
    with pytest.raises(kcompiler.UsageError, match="patch"):
        kcompiler.compile(save("chain", tmp_path / "model.onnx"), patch=400, progress=points.append)
    assert points[-1].done < points[-1].total


@pytest.mark.parametrize("stage", [NORMALISE, COMPARE])
def test_what_the_function_raises_ends_the_compilation_as_it_is(stage, tmp_path, monkeypatch):
    """It is no defect, and nothing is left behind."""

    def stop(point):
        if point.stage == stage:
            raise stopped

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stopped = LookupError("enough")
    with pytest.raises(LookupError) as raised:
        kcompiler.compile(DEMO, patch=16, progress=stop)
    assert raised.value is stopped
    assert list(tmp_path.iterdir()) == []
