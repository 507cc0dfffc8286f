"""What a process has done with the fake device, in order; for processes whose environment is that of ``environment.py``."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum, IntFlag
from functools import cache

RECORDER = "libfake_cuda.so"


class Kind(Enum):
    """What an event is; the numbers are those of ``enum kind`` in libraries/recorder.h."""

    LAUNCH = 1
    LIBRARY_CALL = 2
    COPY = 3
    FILL = 4
    ALLOCATION = 5
    RELEASE = 6
    SYNCHRONISATION = 7
    GRAPH_CAPTURE = 8
    GRAPH_LAUNCH = 9
    PLAN = 10
    REFUSAL = 11


class Flag(IntFlag):
    """How an event came about; the bits are those of ``enum flag`` in libraries/recorder.h."""

    CAPTURED = 1
    REPLAYED = 2
    PAGEABLE = 4
    BLOCKING = 8
    WRONG_DIRECTION = 16


@dataclass(frozen=True, slots=True)
class Event:
    """A call that reached the fake device, or a node of a graph that was replayed.

    Attributes:
        name: of the kernel, without namespaces and templates; of the function of a library; of a copy "HtoD", "DtoH", "DtoD" or
            "HtoH"; else of CUDA's function.
        detail: sizes and math mode of a product, operations and shapes of a cuDNN plan; else "".
        bytes: of a copy, fill, allocation or release.
        target: address that a copy or fill writes, or of an allocation; 0 for other events.
        source: address that a copy reads; 0 for other events.
    """

    kind: Kind
    flags: Flag
    name: str
    detail: str
    bytes: int
    stream: int
    target: int
    source: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of events.

    Attributes:
        launches: kernels that the host launched one by one.
        library_calls: computations by cuBLAS, cuDNN and cuFFT that the host called for one by one.
        replays: launches of CUDA graphs.
        replayed: kernels and computations in them.
        captures: CUDA graphs captured.
        plans: execution plans that cuDNN built.
        synchronisations: times that the host waited for the device, blocking copies included.
        to_device: bytes copied from the host.
        to_host: bytes copied to the host.
        allocated: bytes of device memory.
        refusals: names of calls that a device would have refused.
    """

    launches: int
    library_calls: int
    replays: int
    replayed: int
    captures: int
    plans: int
    synchronisations: int
    to_device: int
    to_host: int
    allocated: int
    refusals: tuple[str, ...]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Counts:
        events = list(events)
        computed = (Kind.LAUNCH, Kind.LIBRARY_CALL)
        executed = [event for event in events if not event.flags & Flag.CAPTURED]
        single = Counter(event.kind for event in executed if not event.flags & Flag.REPLAYED)
        copies = [event for event in executed if event.kind is Kind.COPY]
        return cls(
            launches=single[Kind.LAUNCH],
            library_calls=single[Kind.LIBRARY_CALL],
            replays=single[Kind.GRAPH_LAUNCH],
            replayed=sum(event.kind in computed for event in executed if event.flags & Flag.REPLAYED),
            captures=single[Kind.GRAPH_CAPTURE],
            plans=single[Kind.PLAN],
            synchronisations=single[Kind.SYNCHRONISATION] + sum(bool(copy.flags & Flag.BLOCKING) for copy in copies),
            to_device=sum(copy.bytes for copy in copies if copy.name == "HtoD"),
            to_host=sum(copy.bytes for copy in copies if copy.name == "DtoH"),
            allocated=sum(one.bytes for one in executed if one.kind is Kind.ALLOCATION and one.name.startswith("cudaMalloc")),
            refusals=tuple(event.name for event in events if event.kind is Kind.REFUSAL),
        )

    @classmethod
    def sum(cls, several: Sequence[Counts]) -> Counts:
        names = [field.name for field in fields(cls) if field.name != "refusals"]
        totals = {name: sum(getattr(counts, name) for counts in several) for name in names}
        return cls(**totals, refusals=tuple(name for counts in several for name in counts.refusals))


class _Record(ctypes.Structure):
    """``struct record`` of libraries/recorder.h."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("flags", ctypes.c_int32),
        ("bytes", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("detail", ctypes.c_char_p),
        ("stream", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
        ("source", ctypes.c_void_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
    )


class Recorder:
    """Reads the record of this process."""

    def __init__(self) -> None:
        """Of the library that the stand-ins write to.

        Raises:
            OSError: this process was not started in the environment of the fake device.
        """
        self._library = ctypes.CDLL(RECORDER)
        self._library.fake_records.restype = ctypes.c_uint64
        self._library.fake_records.argtypes = [ctypes.c_void_p, ctypes.c_uint64]

    def reset(self) -> None:
        """Forgets all events so far."""
        self._library.fake_reset()

    def events(self) -> list[Event]:
        """The events since the last reset."""
        count = self._library.fake_records(None, 0)
        records: Sequence[_Record] = (_Record * count)()
        self._library.fake_records(records, count)
        return [_event(record) for record in records]


def _event(record: _Record) -> Event:
    kind, name = Kind(record.kind), (record.name or b"").decode()
    return Event(
        kind,
        Flag(record.flags),
        _short(name) if kind is Kind.LAUNCH else name,
        (record.detail or b"").decode(),
        record.bytes,
        record.stream or 0,
        record.target or 0,
        record.source or 0,
        tuple(record.grid),
        tuple(record.block),
    )


@cache
def _short(name: str) -> str:
    """A kernel's own name, of its mangled one: the last part of the qualified name that comes first."""
    found = re.match(r"_Z(N?)(?:K)?", name)
    rest, last = name[found.end() :] if found else "", name
    while part := re.match(r"(\d+)", rest):
        start, length = part.end(), int(part[1])
        last, rest = rest[start : start + length], rest[start + length :]
        if not found or not found[1]:
            break
    return last
