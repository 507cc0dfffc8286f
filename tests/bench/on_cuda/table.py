"""The results as a JSON file and as a table, whatever there is of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from bench.on_cuda.supervise import Outcome

JSON, TEXT = "cuda.json", "cuda.txt"


def write(folder: Path, run: Mapping[str, object], outcomes: Mapping[str, Outcome]) -> None:
    """Replaces both files at once each; ``run`` is what there is to say of the whole run."""
    sections = {name: asdict(outcome) for name, outcome in outcomes.items()}
    _replace(folder / JSON, json.dumps({**run, "sections": sections}, indent=1, default=_plain) + "\n")
    _replace(folder / TEXT, table(outcomes))


def table(outcomes: Mapping[str, Outcome]) -> str:
    """A row per result, after one per section."""
    return "\n".join(["| section | what | measured |", "|---|---|---|", *_rows(outcomes)]) + "\n"


def _rows(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    for name, outcome in outcomes.items():
        why = f": {outcome.why}" if outcome.why else ""
        took = f" ({outcome.seconds:.1f} s)" if outcome.seconds else ""
        yield f"| **{name}** | | {outcome.state}{why}{took} |"
        yield from (f"| {name} | {key} | {text} |" for key, text in outcome.texts.items())


def _plain(value: object) -> object:
    """NumPy's numbers and other values as JSON has them."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(f"{path.suffix}.part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
