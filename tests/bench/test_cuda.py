"""The script for a machine with a GPU runs to its end on the CPU, and keeps to its time."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("cuda.py")
SLACK = 15.0
"""Seconds that a busy machine may take to start and to end the processes."""
SPEED = ("exactness", "full inference, ms a position by batch", "first map", "map", "speed-up", "speed-up over the best")


def measured(folder, *options):
    start = time.monotonic()
    command = [sys.executable, SCRIPT, "--cpu", "--output", folder, *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=400, check=False)
    record = json.loads((folder / "cuda.json").read_text())
    assert (folder / "cuda.txt").read_text() in done.stdout, "the table is printed last, whatever happened"
    return record, time.monotonic() - start, done


def failures(sections):
    return {name: {key: value for key, value in section["values"].items() if isinstance(value, dict) and "failed" in value}
            for name, section in sections.items()}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    record, _, done = measured(tmp_path_factory.mktemp("whole"), "residual")
    assert done.returncode == 0, done.stdout + done.stderr
    return record


def test_all_sections_run_to_their_end(whole):
    sections = whole["sections"]
    assert {name: section["state"] for name, section in sections.items()} == dict.fromkeys(sections, "done")
    kinds = ["environment", "rates", "speed", "kernels", "ablations", "torch", "torch.compile"]
    assert [name.split()[0] for name in sections] == kinds
    failed = failures(sections)
    assert {kind: failed[kind] for kind in failed if not kind.startswith("ablations")} == {
        name: {} for name in sections if not name.startswith("ablations")
    }
    assert all("no such variant" in value["failed"] for value in failed["ablations residual"].values())


def test_the_compiled_network_agrees_and_is_measured(whole):
    values = whole["sections"]["speed residual"]["values"]
    assert set(values) >= set(SPEED)
    assert values["exactness"]["agrees"]
    assert not values["opened"]["whole"]


@pytest.mark.parametrize("way", ["full", "compiled"])
def test_predicted_times_stand_beside_measured_ones(whole, way):
    values = whole["sections"]["speed residual"]["values"][f"{way}, predicted"]
    assert values["measured"] > 0
    assert values["predicted"] == pytest.approx(sum(values["parts"].values()))
    assert values["work"]["convolved"] > 0


def test_a_run_without_time_says_what_it_leaves_out(tmp_path):
    record, took, done = measured(tmp_path, "--seconds", "3")
    assert record["used"] < 3 + SLACK
    assert took < 3 + 2 * SLACK
    skipped = [name for name, section in record["sections"].items() if section["state"] == "skipped"]
    assert skipped
    for name in skipped:
        assert record["sections"][name]["why"] in done.stdout


def test_an_interrupted_run_prints_what_there_is(tmp_path):
    command = [sys.executable, SCRIPT, "--cpu", "--output", tmp_path, "residual"]
    run = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    while "rates | gemm" not in (line := run.stdout.readline()):
        assert line, "the run ended before it was interrupted"
    run.send_signal(signal.SIGINT)
    printed, _ = run.communicate(timeout=60)
    assert (tmp_path / "cuda.txt").read_text() in printed
    sections = json.loads((tmp_path / "cuda.json").read_text())["sections"]
    assert sections["environment"]["state"] == "done"
    assert sections["rates"]["values"]["gemm"]["value"] > 0
    assert sections["torch.compile"]["state"] == "skipped"


def test_a_network_that_cannot_be_had_fails_alone(tmp_path):
    record, _, done = measured(tmp_path, str(tmp_path / "missing.onnx"), "--seconds", "60")
    assert done.returncode == 1
    states = {name.split()[0]: section["state"] for name, section in record["sections"].items()}
    assert states["speed"] == "failed"
    assert "missing.onnx" in record["sections"]["speed missing"]["why"]
    assert states["environment"] == states["rates"] == "done"
