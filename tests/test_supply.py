"""What an installation brings: licences that let a program be passed on, all of them listed."""

from __future__ import annotations

import re
from pathlib import Path

from licences import FORBIDDEN, PERMITTED, licences

ROOT = Path(__file__).parents[1]


def test_licences_let_a_program_be_passed_on():
    found = licences()
    assert {"numpy", "onnx", "onnxruntime", "pydantic", "ray", "starlette", "pydicom"} <= set(found)
    odd = {name: licence for name, licence in found.items() if FORBIDDEN.search(licence) or not PERMITTED.search(licence)}
    assert odd == {}


def test_licences_are_listed():
    listed = set(re.findall(r"^\| (\S+) \| ", (ROOT / "docs" / "licences.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(licences()) <= listed, "run python -m tests.licences"


def test_what_checks_the_project_is_locked():
    """All but the project itself and PyTorch, whose file for processors alone is not everywhere the same."""
    lock = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
    names = re.findall(r"^([a-z0-9-]+)==\S+", lock, re.MULTILINE)
    assert set(licences()) - {"torch"} <= set(names)
    entries = re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]
    assert len(entries) == len(names)
    assert all("--hash=sha256:" in entry for entry in entries)
