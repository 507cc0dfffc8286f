"""The examples run on an exported demo, and give the maps of the Python driver."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kcompiler

ROOT = Path(__file__).parents[2]
EXAMPLES, DEMO = ROOT / "examples", ROOT / "models" / "demo"
STRIDE, TOLERANCE = 12, 1e-4
LINES = 80
NODE_PACKAGE = "onnxruntime-node@1.30.0"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of an export, an image in raw numbers, and the driver's map of it."""
    folder = tmp_path_factory.mktemp("exported")
    bundle = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json").save(folder / "demo.kc")
    kcompiler.export(bundle, folder / "out", stride=STRIDE)
    explainer = kcompiler.load(bundle, providers=["cpu"])
    image = explainer.read_image(DEMO / "picture.png").tensor
    image.astype("<f4").tofile(folder / "image.bin")
    return folder / "out", folder / "image.bin", explainer.explain(image, stride=STRIDE)


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> list[str]:
    """Runs the example for Node.js beside the package that it imports."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(EXAMPLES / "node" / "heatmap.mjs", folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), NODE_PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{NODE_PACKAGE} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return ["node", str(folder / "heatmap.mjs")]


@pytest.fixture(params=["python", "node"])
def example(request) -> list[str]:
    if request.param == "node":
        return request.getfixturevalue("node")
    return [sys.executable, str(EXAMPLES / "python" / "heatmap.py")]


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
        other = content[:middle] + (b"\x7f" + content[middle + 1 :] if damage == "altered" else b"")
        (folder / name).write_bytes(other)
    done = run(example, folder, code=1)
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr


def test_images_of_another_size_are_refused(example, exported, tmp_path):
    np.zeros(7, "<f4").tofile(tmp_path / "image.bin")
    assert "7 numbers, expected float32" in run(example, exported[0], tmp_path / "image.bin", code=1).stderr


def test_folders_that_are_no_exports_are_refused(example, tmp_path):
    assert "is not an exported model" in run(example, tmp_path, code=1).stderr


@pytest.mark.parametrize("path", sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/heatmap.*")))
def test_examples_are_short_enough_to_copy(path):
    assert len((EXAMPLES / path).read_text(encoding="utf-8").splitlines()) <= LINES
