"""The checkout as Python sees it once installed: its packages under the names that pyproject.toml maps them to."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""Of the checkout, also for processes that read this file through a link."""
INNER = {"passes": "passes", "runtime": "runtime", "demo": "models/demo"}
"""Subpackages of kcompiler whose folders lie elsewhere in the checkout."""
BESIDE = {"models": "models", "bench": "tests/bench", "networks.py": "tests/networks.py"}
"""What else the benchmark imports, first in the path, where no other module hides it."""


def importable(folder: Path) -> None:
    """Makes ``folder`` hold the checkout's packages, as links, and the metadata of its version, whatever is installed."""
    package = folder / "kcompiler"
    package.mkdir()
    for path in (ROOT / "kcompiler").iterdir():
        (package / path.name).symlink_to(path)
    for name, place in INNER.items():
        (package / name).symlink_to(ROOT / place)
    for name, place in BESIDE.items():
        (folder / name).symlink_to(ROOT / place)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    metadata = folder / f"kcompiler-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kcompiler\nVersion: {version}\n", encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """The environment of processes that import what is in ``folder``."""
    given = os.environ.get("PYTHONPATH", "")
    paths = [str(folder), *filter(None, given.split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def command(module: str, *arguments: object) -> list[str]:
    """A command line that runs a module of the benchmark in a process of its own."""
    return [sys.executable, "-P", "-m", f"bench.on_cuda.{module}", *map(str, arguments)]
