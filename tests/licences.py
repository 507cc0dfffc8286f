"""Licences of all that an installation brings: python -m tests.licences prints the table of docs/licences.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "kcompiler"
EXTRAS = ("cpu", "medical", "ray", "serve")
"""Those that run compiled models; "export" and "test" are for development."""
PERMITTED = re.compile(
    r"0BSD|Apache(-2\.0| 2\.0| Software| License)|BSD|CC0|HPND|ISC\b|MIT\b|MPL-2\.0|Mozilla Public License 2\.0"
    r"|PSF|Python Software|Python-2\.0|Unlicense|Zlib"
)
"""Licences under which a program may pass a library on, whatever its own licence is."""
FORBIDDEN = re.compile(r"\bA?GPL|GNU (Affero )?General Public|SSPL|Commons Clause|Non-?Commercial", re.IGNORECASE)


def licence_of(found: Distribution) -> str:
    """By the expression, else the classifiers, else the first line of the text."""
    metadata = found.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or () if text.startswith("License ::")]
    if named := [text for text in classifiers if text != "OSI Approved"]:
        return ", ".join(named)
    return str(metadata.get("License") or "unknown").strip().partition("\n")[0]


def licences() -> Mapping[str, str]:
    """The licence of each package that an installation with the ``EXTRAS`` brings, by name."""
    return dict(sorted(_brought(PROJECT, frozenset(EXTRAS), {})))


def _brought(name: str, extras: frozenset[str], seen: dict[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    name = canonicalize_name(name)
    if extras | {""} <= seen.get(name, frozenset()):
        return
    seen[name] = seen.get(name, frozenset()) | extras | {""}
    try:
        found = distribution(name)
    except PackageNotFoundError:  # for another system, or an extra that is not installed
        return
    if name != PROJECT:
        yield name, licence_of(found)
    for text in found.requires or ():
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield from _brought(wanted.name, frozenset(wanted.extras), seen)


def table() -> str:
    """The licences as a Markdown table."""
    rows = (f"| {name} | {licence} |" for name, licence in licences().items())
    return "\n".join(["| package | licence |", "|---|---|", *rows])


if __name__ == "__main__":
    print(table())
