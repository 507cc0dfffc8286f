"""Device memory of cached activations and fills, used again for the next image.

Allocating it anew for every image takes time, and CUDA graphs replay on the addresses that they were captured with.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime as ort


class Lease:
    """Holds values of a :class:`Pool`. They go back to it with the last reference to the lease."""

    __slots__ = ("__weakref__", "values")

    def __init__(self, values: Mapping[str, ort.OrtValue]) -> None:
        self.values = values


class Pool:
    """Sets of values by name, of the same shapes and types in every set."""

    def __init__(self) -> None:
        self._free: list[Mapping[str, ort.OrtValue]] = []

    def taken(self) -> Mapping[str, ort.OrtValue]:
        """A set that nothing uses any more, to be overwritten and :meth:`leased`; empty if there is none."""
        return self._free.pop() if self._free else {}

    def leased(self, values: Mapping[str, ort.OrtValue]) -> Lease:
        """A lease of ``values``, whoever allocated them."""
        lease = Lease(values)
        weakref.finalize(lease, self._free.append, values).atexit = False
        return lease
