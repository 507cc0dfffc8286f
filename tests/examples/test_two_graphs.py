"""The example that drives a bundle's two graphs gives the driver's scores, and the examples in Python need nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kcompiler
from kcompiler.runtime.exactness.compare import OUTPUT_SHARE

ROOT = Path(__file__).parents[2]
EXAMPLES, DEMO = ROOT / "examples" / "python", ROOT / "models" / "demo"
STRIDE = 7
ALONE = """
import importlib.abc, runpy, sys

class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "onnxruntime"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program where only the standard library, NumPy and ONNX Runtime can be imported."""
PACKAGES = ("kcompiler", "onnx", "onnx_graphsurgeon", "PIL", "pydantic", "scipy", "skimage", "torch")


def alone(program: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-c", ALONE, str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a bundle of the demo, an export of it, and the demo's picture in raw numbers."""
    folder = tmp_path_factory.mktemp("made")
    bundle = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json").save(folder / "demo.kc")
    kcompiler.export(bundle, folder / "out", stride=16)
    image = kcompiler.load(bundle, providers=["cpu"]).read_image(DEMO / "picture.png").tensor
    image.astype("<f4").tofile(folder / "image.bin")
    return folder


@pytest.mark.parametrize("name", PACKAGES)
def test_the_guard_refuses_what_is_installed(name, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"import {name}")
    subprocess.run([sys.executable, "-P", str(program)], check=True, capture_output=True, timeout=120)
    assert f"No module named '{name}'" in alone(program, code=1).stderr


@pytest.mark.parametrize("threads", [1, 3])
def test_two_graphs_give_the_drivers_scores(made, tmp_path, threads):
    """To the bit where batches are the same; the driver's own batches are others, which moves the last digits."""
    alone(
        EXAMPLES / "two_graphs.py", made / "demo.kc", made / "image.bin", "--stride", STRIDE, "--threads", threads,
        "-o", tmp_path / "map.bin",
    )  # fmt: skip
    explainer = kcompiler.load(made / "demo.kc", providers=["cpu"], threads=1)
    image = np.fromfile(made / "image.bin", "<f4").reshape(1, 3, 224, 224)
    expected = explainer.explain(image, stride=STRIDE)
    found = np.fromfile(tmp_path / "map.bin", "<f4").reshape(expected.scores.shape)

    ys, xs = np.meshgrid(expected.ys, expected.xs, indexing="ij")
    positions = np.stack([ys, xs], axis=-1).reshape(-1, 2)
    engine = explainer.exact
    batches = [positions[start : start + engine.batch] for start in range(0, len(positions), engine.batch)]
    assert len(batches) > 3
    same = np.concatenate(list(engine.evaluate_batches(engine.baseline(image, 0.0), batches)))
    assert np.array_equal(found.ravel(), same[:, expected.target])

    magnitude = np.abs(same).max()
    assert np.abs(found - expected.scores).max() <= OUTPUT_SHARE * magnitude


def test_two_graphs_of_a_single_sigmoid(tmp_path):
    """Two classes, logits behind the output, channels last in the source: against the driver."""
    import onnx

    text = """<ir_version: 9, opset_import: ["" : 18]>
    net (float[N, 40, 44, 3] picture) => (float[N, 1] probability)
    <float[8, 3, 3, 3] weights, float[1, 8] head>
    {
        first = Transpose<perm=[0, 3, 1, 2]>(picture)
        maps = Conv<pads=[1, 1, 1, 1]>(first, weights)
        positive = Relu(maps)
        means = GlobalAveragePool(positive)
        cells = Flatten(means)
        logit = Gemm<transB=1>(cells, head)
        probability = Sigmoid(logit)
    }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, values in {"weights": rng.standard_normal((8, 3, 3, 3)), "head": -np.abs(rng.standard_normal((1, 8)))}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    onnx.save(model, tmp_path / "model.onnx")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=(4, 6)).save(tmp_path / "model.kc")
    image = rng.standard_normal((40, 44, 3), dtype=np.float32)
    image.transpose(2, 0, 1).astype("<f4").tofile(tmp_path / "image.bin")
    done = alone(EXAMPLES / "two_graphs.py", bundle, tmp_path / "image.bin", "--stride", 3, "-o", tmp_path / "map.bin")
    expected = kcompiler.load(bundle, providers=["cpu"]).explain(image, stride=3)
    assert expected.target == 0, "the class that the output does not score itself"
    assert f"class 0, {expected.scores.size} positions" in done.stdout
    found = np.fromfile(tmp_path / "map.bin", "<f4").reshape(expected.scores.shape)
    assert np.abs(found - expected.scores).max() <= OUTPUT_SHARE * np.abs(expected.scores).max()


def test_the_map_model_runs_alone(made):
    assert "largest difference from the test map: 0" in alone(EXAMPLES / "heatmap.py", made / "out").stdout


@pytest.mark.parametrize("number", [8, 10, 0, "9", None, [9]])
def test_bundles_of_other_formats_are_refused(made, tmp_path, number):
    shutil.copytree(made / "demo.kc", tmp_path / "demo.kc")
    path = tmp_path / "demo.kc" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": number}))
    done = alone(EXAMPLES / "two_graphs.py", tmp_path / "demo.kc", made / "image.bin", code=1)
    assert f"bundle format {number!r}, expected 9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["manifest.json", "baseline.onnx", "incremental.onnx", "weights.bin"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_bundles_are_refused(made, tmp_path, name, damage):
    shutil.copytree(made / "demo.kc", tmp_path / "demo.kc")
    path = tmp_path / "demo.kc" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    done = alone(EXAMPLES / "two_graphs.py", tmp_path / "demo.kc", made / "image.bin", code=1)
    assert str(tmp_path / "demo.kc") in done.stderr
    assert "Traceback" not in done.stderr


def test_images_of_another_size_are_refused(made, tmp_path):
    np.zeros(7, "<f4").tofile(tmp_path / "image.bin")
    done = alone(EXAMPLES / "two_graphs.py", made / "demo.kc", tmp_path / "image.bin", code=1)
    assert "7 numbers, expected float32 [3, 224, 224]" in done.stderr
