"""Which manifests are read: their format numbers, and what is said of fields that are not as expected.

The number rises when what is written means something else, or lacks what was there. A field that is added with a default does
not raise it: what was written before lacks the field, and is read as the default. What an earlier version cannot read, it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from kcompiler.runtime.errors import BundleError

UNKNOWN, MISSING, WRONG = "unknown", "missing", "wrong"
"""What can be wrong with a field of a manifest."""
LISTED = 5
"""Largest number of fields of each kind that an error lists."""


def check_format(path: Path, content: object, readable: range) -> None:
    """Checks the format number of a manifest, before anything else in it is looked at.

    Args:
        path: of the manifest, for the message.
        content: what its JSON holds.
        readable: the formats that this version reads.

    Raises:
        BundleError: no format number, or another; the message names both versions and says what to do.
    """
    if not isinstance(content, Mapping):
        raise BundleError(f"{path}: damaged ({type(content).__name__}, expected an object); compile the model again")
    found = content.get("format")
    if not isinstance(found, int) or isinstance(found, bool):
        raise BundleError(f"{path}: damaged (format is {found!r}, expected a whole number); compile the model again")
    if found in readable:
        return
    last = readable.stop - 1
    own = f"{readable.start} to {last}" if len(readable) > 1 else f"{last}"
    found_is = (
        f"{path}: bundle format {found}, written by kcompiler {writer(content)}; this is kcompiler {installed()}, which reads"
    )
    if found > last:
        raise BundleError(f"{found_is} only up to format {last}; upgrade kcompiler, or compile the model again with this version")
    raise BundleError(f"{found_is} format {own}; compile the model again")


def what_is_wrong(error: ValidationError, content: Mapping[str, object]) -> str:
    """What is wrong with a manifest of a format that is read."""
    places = {e["loc"]: _kind(e["type"]) for e in error.errors()}
    around = {loc[:depth] for loc in places for depth in range(len(loc))}  # a list is wrong where one of its items is
    inner = [loc for loc in places if loc not in around]
    fields = {
        kind: [".".join(map(str, loc)) for loc in inner if places[loc] == kind][:LISTED] for kind in (UNKNOWN, MISSING, WRONG)
    }
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in fields.items() if names)
    if not fields[UNKNOWN]:
        return f"damaged ({listed})"
    return f"damaged, or of a later kcompiler (written by {writer(content)}, this is {installed()}; {listed})"


def _kind(of: str) -> str:
    return {"extra_forbidden": UNKNOWN, "missing": MISSING}.get(of, WRONG)


def writer(content: Mapping[str, object]) -> str:
    """The version of kcompiler that wrote a manifest, by its own record; "unknown" if it has none."""
    versions = content.get("versions")
    found = versions.get("kcompiler") if isinstance(versions, Mapping) else None
    return found if isinstance(found, str) else "unknown"


def installed() -> str:
    """The version of kcompiler that runs; "unknown" where it was copied without its package's metadata."""
    try:
        return version("kcompiler")
    except PackageNotFoundError:
        return "unknown"
