"""Files that belong together are replaced all or none, whichever step fails, and a record is never beside those of another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kcompiler.runtime.bundle import files
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.errors import UsageError

NAMES = ("map.npy", "map.png", "map.json")
STEPS = 6
"""Renames: three files go, three come."""


def contents(of: str) -> dict[str, bytes]:
    return {name: f"{of} {name}".encode() for name in NAMES}


def there(folder: Path) -> dict[str, bytes]:
    """Files by name; temporary folders are not looked into."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class Killed(BaseException):
    """As if the process had ended."""


def breaking(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, again: bool) -> None:
    """Lets the rename of number ``step`` fail, and if ``again`` all after it."""
    counted, rename = iter(range(1 << 20)), os.replace

    def replace(source: Path, target: Path) -> None:
        number = next(counted)
        if number == step or (again and number > step):
            raise error
        rename(source, target)

    monkeypatch.setattr(files.os, "replace", replace)


@pytest.mark.parametrize("step", range(STEPS))
def test_what_was_there_stays_when_a_rename_fails(tmp_path, monkeypatch, step):
    replace_files(tmp_path, contents("old"), force=False)
    breaking(monkeypatch, step, OSError(28, "No space left on device"), again=False)
    with pytest.raises(UsageError, match="No space left"):
        replace_files(tmp_path, contents("new"), force=True)
    assert there(tmp_path) == contents("old")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES), "nothing temporary is left"


@pytest.mark.parametrize("step", range(STEPS // 2))
def test_nothing_is_left_of_new_files_when_a_rename_fails(tmp_path, monkeypatch, step):
    breaking(monkeypatch, step, OSError(28, "No space left on device"), again=False)
    with pytest.raises(UsageError, match="No space left"):
        replace_files(tmp_path / "out", contents("new"), force=False)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("step", range(STEPS + 1))
def test_the_record_is_only_there_with_its_own_files(tmp_path, monkeypatch, step):
    """Killed at whichever step: nothing is put back."""
    replace_files(tmp_path, contents("old"), force=False)
    breaking(monkeypatch, step, Killed(), again=True)
    try:
        replace_files(tmp_path, contents("new"), force=True)
    except Killed:
        pass
    else:
        assert step == STEPS
    found = there(tmp_path)
    assert "map.json" not in found or found in (contents("old"), contents("new"))


def test_a_single_file_is_replaced_at_once(tmp_path, monkeypatch):
    """There is never a moment without it."""
    replace_files(tmp_path, {"manifest.json": b"old"}, force=False)
    breaking(monkeypatch, 0, Killed(), again=True)
    with pytest.raises(Killed):
        replace_files(tmp_path, {"manifest.json": b"new"}, force=True)
    assert there(tmp_path) == {"manifest.json": b"old"}
