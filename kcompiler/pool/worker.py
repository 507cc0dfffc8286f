"""What a pool and its workers say to each other, whatever the workers run on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Stopping = Callable[[], bool]
"""Whether the task at hand is to be left off."""


Work = Callable[[Task, int], Result]
"""Does a task: called with it, and the number of workers that were lost over it before."""
Opens = Callable[[Stopping], Work[Task, Result]]
"""Runs once in each worker, and returns what does its tasks. Travels to the worker by pickle."""


class Shared(Protocol):
    """A value that many tasks refer to; each worker gets it once. Travels by pickle, the value does not."""

    def get(self) -> Any: ...


class Worker(Protocol):
    """A worker, from the side of the pool."""

    def open(self) -> Future[Any]:
        """Opens what does the tasks; fails with what that raised, or with :class:`Lost`."""

    def submit(self, task: Any, lost: int) -> Future[Any]:
        """Queues a task; fails with what that raised, or with :class:`Lost`."""

    def stop(self) -> None:
        """Asks the worker to leave off the task at hand."""

    def close(self) -> None:
        """Ends the worker now, whatever it is doing. Its tasks fail with :class:`Lost`."""


class Backend(Protocol):
    """Where workers come from.

    Attributes:
        count: how many there are to be.
    """

    count: int

    def start(self, opens: Opens[Any, Any]) -> Worker:
        """A new worker. It may have to wait for a place, until which its :meth:`Worker.open` is not done."""

    def share(self, value: object) -> Shared: ...

    def close(self) -> None: ...


class Lost(Exception):
    """A worker is gone: killed, crashed, or its machine with it."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[Task, Result]):
    """The end of a task.

    Attributes:
        task: as it was given.
        result: what the worker returned; None if there is none.
        lost: why there is no result: workers were lost over it. None if there is one.
    """

    task: Task
    result: Result | None
    lost: str | None = None
