"""ONNX Runtime's telemetry is off before ONNX Runtime is imported, wherever this package imports it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "ORT_DISABLE_TELEMETRY"
ONLY_PLACE = ROOT / "runtime" / "inference" / "sessions.py"
STARTED_WITH_IT = ROOT / "passes" / "isolation" / "worker.py"
"""Runs as a program of its own, whose environment has the setting."""
THREADS = "len(__import__('os').listdir('/proc/self/task'))"


def in_a_fresh_process(code: str, **settings: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], env={**environment, **settings}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [*done.stdout.split(), *done.stderr.splitlines()]


@pytest.mark.parametrize(("given", "found"), [({}, "1"), ({VARIABLE: "0"}, "0"), ({VARIABLE: "1"}, "1")])
def test_telemetry_is_off_unless_the_user_says_otherwise(given, found):
    code = (
        "import sys, kcompiler, os\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "from kcompiler.runtime.inference.sessions import onnxruntime\n"
        "onnxruntime()\n"
        f"print(os.environ['{VARIABLE}'], {THREADS})"
    )
    value, threads, *said = in_a_fresh_process(code, OPENBLAS_NUM_THREADS="1", **given)
    assert (value, said) == (found, [])
    if found == "1":
        alone = in_a_fresh_process(
            f"import kcompiler, onnxruntime\nprint({THREADS})", OPENBLAS_NUM_THREADS="1", **{VARIABLE: "1"}
        )
        assert threads == alone[0]


def test_who_imports_it_earlier_is_warned_once():
    code = (
        "import onnxruntime\n"
        "from kcompiler.runtime.inference.sessions import onnxruntime as imported, REPORTS_FROM\n"
        "old = tuple(map(int, onnxruntime.__version__.split('.')[:2])) < REPORTS_FROM\n"
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always')\n"
        "    assert imported() is imported() is onnxruntime\n"
        "print(len(said) + old, *(warning.message for warning in said))"
    )
    number, *said = in_a_fresh_process(code)
    assert number == "1"
    assert not said or f"{VARIABLE}=1" in said


def imports_of_onnxruntime(path: Path) -> list[int]:
    """Lines of the imports that run, of any module of ONNX Runtime."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    lines = []
    for node in ast.walk(tree):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
        names += [argument.value for argument in node.args if isinstance(argument, ast.Constant)] if called else []
        lines += [node.lineno for name in names if str(name).partition(".")[0] == "onnxruntime"]
    return lines


def test_it_is_imported_in_one_place():
    found = {
        path: imports_of_onnxruntime(path)
        for floor in ("kcompiler", "passes", "runtime")
        for path in (ROOT / floor).rglob("*.py")
    }
    assert {path for path, lines in found.items() if lines} - {STARTED_WITH_IT} == {ONLY_PLACE}
    assert len(found[ONLY_PLACE]) == 1
