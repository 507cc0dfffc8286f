"""The page's own files: a fixed list, read once, so that no address leads to any other file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml",
         "mjs": "text/javascript; charset=utf-8"}  # fmt: skip
OWN = (
    "index.html", "page.css", "icon.svg", "page.mjs", "server.mjs", "events.mjs", "settings.mjs", "panel.mjs", "stage.mjs",
    "grids.mjs", "seen.mjs", "outputs.mjs", "words.mjs", "drops.mjs", "drawing.mjs",
)  # fmt: skip
"""``drawing.mjs`` is that of ``examples/browser/``: a test keeps them the same."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page, and its content type."""

    content: bytes
    kind: str


def page_files() -> Mapping[str, PageFile]:
    """The files by their paths in addresses."""
    folder = files("kcompiler.serving") / "page"
    read = {f"/{name}": PageFile((folder / name).read_bytes(), TYPES[name.rpartition(".")[2]]) for name in OWN}
    return {**read, "/": read["/index.html"]}
