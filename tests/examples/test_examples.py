"""The examples run on an exported demo, and give the maps of the Python driver."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import kcompiler

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLERANCE = 1e-4
LINES = 80


def run(example: list[str], *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run([*example, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_examples_give_the_drivers_map(example, exported, tmp_path, threads):
    folder, image, expected = exported
    done = run(example, folder, image, "--threads", threads, "--out", tmp_path / "map.bin")
    found = np.fromfile(tmp_path / "map.bin", "<f4").reshape(expected.scores.shape)
    assert np.abs(found - expected.scores).max() <= TOLERANCE * np.ptp(expected.scores)
    assert f"class {expected.target}, {expected.scores.size} positions" in done.stdout


def test_examples_pass_the_test_vector(example, exported):
    assert "largest difference from the test map: 0" in run(example, exported[0]).stdout


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("map.onnx", "weights.bin") for damage in ("altered", "truncated", "missing")),
        *(("card.json", damage) for damage in ("truncated", "missing")),
    ],
)
def test_damaged_exports_are_refused(example, exported, tmp_path, name, damage):
    folder = tmp_path / "out"
    shutil.copytree(exported[0], folder)
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    if damage == "missing":
        (folder / name).unlink()
    else:
        other = content[:middle] + (bytes([content[middle] ^ 1]) + content[middle + 1 :] if damage == "altered" else b"")
        (folder / name).write_bytes(other)
    done = run(example, folder, code=1)
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [1, 3, "2", None, [2]])
@pytest.mark.parametrize("example", ["python", "node"], indirect=True)
def test_cards_of_other_formats_are_refused(example, exported, tmp_path, number):
    """The example for C++, which does not read the card, looks for the format in the model (``test_cpp.py``)."""
    shutil.copytree(exported[0], tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))
    (tmp_path / "out" / "card.json").write_text(json.dumps({"format": number, "model": card["model"]}), encoding="utf-8")
    done = run(example, tmp_path / "out", code=1)
    assert f"{tmp_path / 'out'}: card format" in done.stderr
    assert "expected 2; export again or copy a newer program" in done.stderr
    assert "Traceback" not in done.stderr


def test_images_of_another_size_are_refused(example, exported, tmp_path):
    np.zeros(7, "<f4").tofile(tmp_path / "image.bin")
    assert "7 numbers, expected float32" in run(example, exported[0], tmp_path / "image.bin", code=1).stderr


@pytest.mark.parametrize("options", [{"preprocess": True}, {"drill_down": (3, 0.2)}])
def test_exports_that_take_other_inputs_are_refused(example, exported, tmp_path, options):
    kcompiler.export(exported[0].parent / "demo.kc", tmp_path / "out", stride=32, **options)
    message = run(example, tmp_path / "out", code=1).stderr
    assert str(tmp_path / "out") in message
    assert "takes other inputs; export without --preprocess and --drill-down" in message


def test_folders_that_are_no_exports_are_refused(example, tmp_path):
    assert "is not an exported model" in run(example, tmp_path, code=1).stderr


@pytest.mark.parametrize("path", sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/heatmap.*")))
def test_examples_are_short_enough_to_copy(path):
    assert len((EXAMPLES / path).read_text(encoding="utf-8").splitlines()) <= LINES
