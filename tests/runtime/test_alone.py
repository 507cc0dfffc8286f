"""The runtime deploys alone: without onnx, onnx-graphsurgeon and torch, and says clearly when ONNX Runtime is missing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from networks import save

import kcompiler

BLOCK = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def python(code, blocked, *arguments):
    command = [sys.executable, "-P", "-c", BLOCK.format(blocked=blocked) + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_explains_without_the_compilers_dependencies(tmp_path):
    path = kcompiler.compile(save("residual", tmp_path / "model.onnx"), patch=4).save(tmp_path / "model.kc")
    image = np.random.default_rng(0).standard_normal((3, 20, 20), dtype=np.float32)
    np.save(tmp_path / "image.npy", image)
    code = """
import numpy as np, kcompiler
explainer = kcompiler.load(sys.argv[1])
heat_map = explainer.explain(np.load(sys.argv[2]), stride=4, target=0)
heat_map.save(sys.argv[3])
assert not {"onnx", "onnx_graphsurgeon", "torch"} & set(sys.modules)
"""
    done = python(code, {"onnx", "onnx_graphsurgeon", "torch", "onnxscript"}, path, tmp_path / "image.npy", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = kcompiler.load(path).explain(image, stride=4, target=0).scores
    np.testing.assert_allclose(np.load(tmp_path / "out" / "heatmap.npy"), expected, rtol=1e-4, atol=1e-5)


def test_every_runtime_module_imports_alone():
    code = """
import importlib, pkgutil, kcompiler.runtime
names = [m.name for m in pkgutil.walk_packages(kcompiler.runtime.__path__, "kcompiler.runtime.")]
for name in names: importlib.import_module(name)
assert len(names) > 10
assert not [m for m in sys.modules if m.startswith("kcompiler.passes")]
"""
    done = python(code, {"onnx", "onnx_graphsurgeon", "torch"})
    assert done.returncode == 0, done.stderr


def test_missing_onnxruntime_is_said_with_what_to_install(tmp_path):
    path = kcompiler.compile(save("chain", tmp_path / "model.onnx"), patch=4).save(tmp_path / "model.kc")
    model = tmp_path / "model.onnx"
    code = "from kcompiler.cli import main; sys.argv[0] = 'kcompiler'; main()"
    for arguments in (("check", path), ("compile", model, "-o", tmp_path / "other.kc")):
        done = python(code, {"onnxruntime"}, *arguments)
        assert done.returncode == 3, done.stderr
        assert "install kcompiler[cpu], or kcompiler[gpu]" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "other.kc").exists()


def test_the_command_line_starts_without_what_few_commands_need():
    """scipy alone would more than double the time until a command begins."""
    late = {"matplotlib", "onnx", "onnxruntime", "pydicom", "scipy", "skimage", "torch", "uvicorn"}
    done = python(f"import kcompiler.cli; print(sorted({late!r} & set(sys.modules)))", set())
    assert done.stdout.strip() == "[]", done.stderr
