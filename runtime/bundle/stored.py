"""Where weights lie in the bundle's file of weights: for sessions that share them, each of which would load its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.bundle.manifest import WEIGHTS
from kcompiler.runtime.errors import BundleError
from kcompiler.runtime.foreign import foreign

WEIGHTS_KEY = "kcompiler.weights"
"""Metadata key of an index model: the weights of the incremental model that takes its indices."""


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight in the bundle's file of weights.

    Attributes:
        dtype: as NumPy names it.
        shape: of the tensor.
        offset: of its first byte.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def stored_text(weights: Mapping[str, StoredWeight]) -> str:
    """The value of the metadata key."""
    return json.dumps({name: asdict(weight) for name, weight in weights.items()})


def stored_weights(folder: Path, text: str) -> Iterator[tuple[str, AnyArray]]:
    """Name and content, mapped from the file in ``folder``, of each weight that ``text`` (:func:`stored_text`) describes.

    Raises:
        BundleError: it describes none, or others than those in the file.
    """
    with foreign(
        lambda why: BundleError(f"{folder / WEIGHTS}: the index model tells of other weights ({why}); compile the model again")
    ):
        file = np.memmap(folder / WEIGHTS, np.uint8, mode="r")
        for name, fields in json.loads(text).items():
            weight = StoredWeight(fields["dtype"], tuple(fields["shape"]), fields["offset"])
            yield name, file[weight.offset : weight.offset + weight.bytes].view(weight.dtype).reshape(weight.shape)
