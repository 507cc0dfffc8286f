"""The table of what is fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import bundles, known, known_pictures, models, pictures
from tests.fuzz.cases import Case


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        cases: cases of a seed, the same ones every time, as many as are asked for; or all that there are.
        attempt: reads the files in a folder as a user would. Returns where the result is right, and raises a
            :class:`KCompilerError` where the answer is an error.
    """

    cases: Callable[[int], Iterator[Case]]
    attempt: Callable[[Path], None]


KINDS = {
    "bundles": Kind(bundles.cases, bundles.attempt),
    "models": Kind(models.cases, models.attempt),
    "known-models": Kind(known.cases, models.attempt),
    "pictures": Kind(pictures.cases, pictures.attempt),
    "known-pictures": Kind(known_pictures.cases, pictures.attempt),
}
