"""Packages of npm that tests use, where they can be had."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def npm(*arguments: object, package: str) -> str:
    """What npm prints; skips the test where there is no npm, or it cannot get the package."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    done = subprocess.run(["npm", *map(str, arguments), package], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{package} cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()
