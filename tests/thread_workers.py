"""Workers of a pool that are threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kcompiler.pool.worker import Lost, Opens


class ThreadWorker:
    """Does tasks in a thread, in order; a task that raises :class:`Lost` is its end."""

    def __init__(self, opens: Opens[Any, Any]) -> None:
        self.opens, self.gone, self.stopped, self.closed = opens, False, threading.Event(), False
        self.work: Any = None
        self.calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.calls or self.closed)
                if not self.calls:
                    return
                future, call = self.calls.pop(0)
            try:
                if self.gone or self.closed:
                    raise Lost("gone")
                future.set_result(call())
            except Exception as error:
                self.gone |= isinstance(error, Lost)
                future.set_exception(error)

    def _queue(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        with self.changed:
            self.calls.append((future, call))
            self.changed.notify()
        return future

    def open(self) -> Future[Any]:
        return self._queue(self._open)

    def _open(self) -> None:
        self.work = self.opens(self.stopped.is_set)

    def submit(self, task: Any, lost: int) -> Future[Any]:
        return self._queue(lambda: self.work(task, lost))

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify()


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A shared value, as it is."""

    value: object

    def get(self) -> Any:
        return self.value


class Threads:
    """A backend of such workers; ``started`` are all that there were."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.started: list[ThreadWorker] = []

    def start(self, opens: Opens[Any, Any]) -> ThreadWorker:
        self.started.append(ThreadWorker(opens))
        return self.started[-1]

    def share(self, value: object) -> Held:
        return Held(value)

    def close(self) -> None: ...
