"""Bundles for CUDA, and processes that run on the fake device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kcompiler
from fake_cuda.environment import Unavailable, environment

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def variables() -> dict[str, str]:
    """The environment of a process that has the fake device."""
    try:
        return environment()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def python(variables) -> Run:
    """Runs a program, which may import ``fake_cuda`` after kcompiler, with the fake device."""

    def run(program: str, *arguments: object, check: bool = True, **changed: str) -> subprocess.CompletedProcess[str]:
        preamble = f"import sys, kcompiler\nsys.path.append({str(ROOT / 'tests')!r})\n"
        command = [sys.executable, "-P", "-c", preamble + program, *map(str, arguments)]
        done = subprocess.run(command, env={**variables, **changed}, capture_output=True, text=True, timeout=600)
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    bundle = kcompiler.compile(
        DEMO / "demo.onnx", patch=8, device="cuda", precision="tf32", preprocessing=DEMO / "preprocessing.json"
    )
    folder = tmp_path_factory.mktemp("demo") / "demo.kc"
    bundle.save(folder)
    return folder


@pytest.fixture(scope="session")
def rehearsal(variables, tmp_path_factory) -> Callable[..., dict[str, Any]]:
    """What tests/bench/rehearse_cuda.py finds on a bundle: a Rehearsal as JSON has it."""

    def run(bundle: Path, *options: str) -> dict[str, Any]:
        figures = tmp_path_factory.mktemp("rehearsal") / "figures.json"
        command = [sys.executable, ROOT / "tests" / "bench" / "rehearse_cuda.py", bundle, "--json", figures, *options]
        subprocess.run([*map(str, command)], check=True, timeout=1800)
        (found,) = json.loads(figures.read_text())
        return found

    return run
