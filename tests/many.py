"""Pictures to explain by the dozen, and what was made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from kcompiler.cli import app


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (30, 40)) -> Path:
    """Pictures of noise, named by their numbers."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def command(*arguments: object, code: int = 0) -> str:
    """What ``kcompiler explain`` says."""
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def bits(out: Path, *suffixes: str, stamps: bool = False, temporary: bool = False) -> Mapping[str, object]:
    """The content of all maps and overlays below a folder, or when they were written; ``temporary`` folders may be there."""
    paths = [
        path
        for path in out.rglob("*")
        if path.is_file() and ".writing" not in str(path) and path.suffix in (suffixes or (".npy", ".png"))
    ]
    assert temporary or not list(out.rglob(".writing-*"))
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns if stamps else path.read_bytes() for path in paths}
