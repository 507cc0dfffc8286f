"""Batches whose indices are computed once: the feeds that depend on positions alone, kept on the device for all images.

A compiled graph for a device has the index arithmetic in a model of its own (``index``), which runs on the CPU. Its results are
the same for every image, so those of recent batches are kept. A batch is filled up to one of few sizes, so few shapes occur.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kcompiler.runtime.arrays import AnyArray, FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import COLUMNS, POSITIONS, ROWS, SHAPE
from kcompiler.runtime.inference import cuda
from kcompiler.runtime.inference.classes import Classes, filled_up
from kcompiler.runtime.inference.sessions import bind_output, captured_as, onnxruntime, run_bound, running
from kcompiler.runtime.inference.variant_sessions import VariantSessions

if TYPE_CHECKING:
    import onnxruntime as ort

KEPT_BYTES = 1 << 30
"""Bytes of the indices that are kept; a map of 2,800 positions of ResNet18 takes 110 MB."""


@dataclass(slots=True, eq=False)
class Placed:
    """A batch of positions, as the incremental model takes it.

    Attributes:
        number: of its class.
        feeds: indices and shapes by input name; the former lie on the device.
        count: positions; the batch is filled up with repetitions of the last.
        bytes: of ``feeds``.
        results: device memory for outputs by name, from the first run on, so that their addresses stay.
    """

    number: int
    feeds: Mapping[str, ort.OrtValue]
    count: int
    bytes: int
    results: dict[str, ort.OrtValue] = field(default_factory=dict)


class Indexed:
    """Runs batches of an incremental model with the indices of their positions. May be used by several threads."""

    def __init__(self, sessions: VariantSessions, classes: Classes, *, capturing: bool, kept_bytes: int = KEPT_BYTES) -> None:
        """For a variant's ``sessions`` and ``classes``; up to ``kept_bytes`` of indices are kept.

        ``capturing`` is whether runs are captured as CUDA graphs.
        """
        self._capturing = capturing
        self.classes, self._sessions, self._most = classes, sessions, kept_bytes
        self._kept: OrderedDict[bytes, Placed] = OrderedDict()
        self._captures = Captures()
        self._lock = threading.Lock()

    def run(
        self, session: ort.InferenceSession, feeds: Mapping[str, ort.OrtValue], positions: IntArray, names: Sequence[str]
    ) -> list[FloatArray]:
        """The outputs ``names`` at ``positions``, int64 [N, 2], from cached activations and fill (``feeds``): each [N, ..].

        ``session`` runs it where no class has a session of its own, and few positions: shapes that recur do not alternate with
        theirs. Where CUDA graphs are asked for, a run whose like was before is captured or replayed.
        """
        placed, device = self.placed(positions), self._sessions.device
        if placed.count >= self.classes.least:
            session = self._sessions.of_class(placed.number) or session
        feeds, binding = {**feeds, **placed.feeds}, session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        if not self._capturing:
            for name in names:
                binding.bind_output(name, "cpu")
            with cuda.RUNNING if device == "cuda" else nullcontext():
                run_bound(session, binding, device)
            return [output[: placed.count] for output in binding.copy_outputs_to_cpu()]
        for name in names:
            bind_output(binding, name, device, placed.results.get(name))
        run_bound(session, binding, device, captured_as(self._captures.number(_addresses(feeds, placed.results, names))))
        placed.results.update(zip(names, binding.get_outputs(), strict=True))
        self._captures.ran(_addresses(feeds, placed.results, names))
        return [output[: placed.count] for output in binding.copy_outputs_to_cpu()]

    def placed(self, positions: IntArray) -> Placed:
        """The batch of ``positions``, int64 [N, 2], in the extents of the cheapest class that covers them."""
        key = positions.tobytes()
        with self._lock:
            placed = self._kept.pop(key, None) or self._computed(positions, self._sessions.device)
            self._kept[key] = placed
            while len(self._kept) > 1 and sum(one.bytes for one in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        return placed

    def _computed(self, positions: IntArray, device: str) -> Placed:
        number = self.classes.of_batch(positions)
        values = self.values(positions, number)
        ort_value = onnxruntime().OrtValue.ortvalue_from_numpy
        feeds = {
            name: ort_value(value) if name.startswith(SHAPE) else ort_value(value, device, 0) for name, value in values.items()
        }
        return Placed(number, feeds, len(positions), sum(value.nbytes for value in values.values()))

    def values(self, positions: IntArray, number: int) -> dict[str, AnyArray]:
        """What the index model computes for a batch of ``positions``, filled up, in the extents of class ``number``.

        By name of the incremental model's input.
        """
        missing = filled_up(len(positions)) - len(positions)
        extent = self.classes.classes[number]
        feeds = {
            POSITIONS: np.concatenate([positions, np.repeat(positions[-1:], missing, axis=0)]),
            ROWS: np.array(extent.rows, np.int64),
            COLUMNS: np.array(extent.columns, np.int64),
        }
        session = self._sessions.index
        names, taken = ([value.name for value in values] for values in (session.get_outputs(), session.get_inputs()))
        with running():
            results = session.run(names, {name: value for name, value in feeds.items() if name in taken})
        return dict(zip(names, results, strict=True))


def _addresses(feeds: Mapping[str, ort.OrtValue], results: Mapping[str, ort.OrtValue], names: Sequence[str]) -> tuple[int, ...]:
    """Where the inputs of a run lie, and those of its outputs ``names`` that have memory."""
    return tuple(value.data_ptr() for value in (*feeds.values(), *(results[name] for name in names if name in results)))


class Captures:
    """Which runs are captured as CUDA graphs: those whose inputs and outputs lie where those of an earlier run lay."""

    def __init__(self, most: int = 128) -> None:
        """At most ``most`` graphs, each of which keeps some memory."""
        self._most = most
        self._numbers: dict[tuple[int, ...], int] = {}
        self._seen: set[tuple[int, ...]] = set()

    def number(self, addresses: tuple[int, ...]) -> int:
        """ONNX Runtime's number of the graph of a run with these addresses; -1 to run it without, as the first time."""
        if addresses in self._seen and addresses not in self._numbers and len(self._numbers) < self._most:
            self._numbers[addresses] = len(self._numbers) + 1
        return self._numbers.get(addresses, -1)

    def ran(self, addresses: tuple[int, ...]) -> None:
        """Notes a run with these addresses, including those of outputs that it allocated itself."""
        self._seen.add(addresses)
