"""Hands tasks to workers, a few at a time; replaces workers that are lost, and gives their tasks to others, with a limit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self

from kcompiler.pool.worker import Backend, Finished, Lost, Opens, Result, Shared, Task, Worker
from kcompiler.runtime.errors import WorkersLost

QUEUED = 2
"""Tasks that a worker has at most: the one at hand, and the next, for which it then does not wait."""
LOSSES = 3
"""Workers that are lost over a task before it is given up."""
LOSSES_IN_A_ROW = 5
"""Times that as many workers as there are may be lost without one task done between: then something is wrong with all of them."""
PATIENCE = 30.0
"""Seconds without a worker after which that is said."""
GRACE = 60.0
"""Seconds that workers have to leave off what they are doing."""


def _until(tasks: Iterable[Task], deadline: float) -> Iterator[Task]:
    for number, task in enumerate(tasks):
        if number and time.perf_counter() >= deadline:
            return
        yield task


@dataclass(eq=False, slots=True)
class _Ticket(Generic[Task]):
    """A task, and how many workers were lost over it."""

    task: Task
    lost: int = 0


@dataclass(eq=False, slots=True)
class _Seat(Generic[Task]):
    """A worker, and what it has to do, in order."""

    worker: Worker
    opening: Future[Any]
    tickets: deque[tuple[Future[Any], _Ticket[Task]]] = field(default_factory=deque)
    open: bool = False
    gone: bool = False

    @property
    def awaited(self) -> Future[Any] | None:
        """What it does now; None if nothing."""
        if not self.open:
            return self.opening
        return self.tickets[0][0] if self.tickets else None


class Pool(Generic[Task, Result]):
    """Workers of one kind, kept from one :meth:`map` to the next. Used by one thread; as a context it closes them."""

    def __init__(self, backend: Backend, opens: Opens[Task, Result], say: Callable[[str], None]) -> None:
        """``opens`` runs in each worker; ``say`` is told of workers that are lost or have no place. Starts nothing yet."""
        self._backend, self._opens, self._say = backend, opens, say
        self._seats: list[_Seat[Task]] = []
        self._again: deque[_Ticket[Task]] = deque()
        self._events: SimpleQueue[_Seat[Task]] = SimpleQueue()
        self._losses = self._handed_out = 0

    @property
    def count(self) -> int:
        """Number of workers."""
        return self._backend.count

    def share(self, value: object) -> Shared:
        """A value that many tasks refer to."""
        return self._backend.share(value)

    def open(self) -> None:
        """Starts all workers, and waits until each is ready, instead of until the first is as :meth:`map` does.

        Raises:
            WorkersLost, Exception: see :meth:`map`.
        """
        self._fill()
        while any(not seat.open for seat in self._seats):
            for seat in self._done():
                for _ in self._ended(seat):
                    raise AssertionError("nothing was to be done")

    def map(self, tasks: Iterable[Task], deadline: float = float("inf")) -> Iterator[Finished[Task, Result]]:
        """Yields each task with its result, in the order that they end in; takes tasks only as workers become free for them.

        On Ctrl-C, workers are asked to leave off, and what they then return is yielded before ``KeyboardInterrupt`` is raised.

        Args:
            deadline: time (of ``time.perf_counter``) after which no task but the first starts.

        Raises:
            WorkersLost: workers are lost one after the other, with no task done.
            Exception: what opening or a task raised.
        """
        source, seats = _until(tasks, deadline), self._seats
        try:
            while True:
                self._hand_out(source, self._seats if self._again else seats)
                if not self._again and not self._handed_out and not self._opening_for(source):
                    return
                seats = self._done()
                for seat in seats:
                    yield from self._ended(seat)
        except KeyboardInterrupt:
            yield from self._left_off()
            raise
        finally:
            self._drop()

    def _hand_out(self, source: Iterator[Task], seats: Iterable[_Seat[Task]]) -> None:
        """Gives open workers, of ``seats``, tasks in turn, as far as they have room."""
        for queued in range(1, QUEUED + 1):
            for seat in [seat for seat in seats if seat.open and len(seat.tickets) < queued]:
                ticket = self._next(source)
                if ticket is None:
                    return
                self._handed_out += 1
                seat.tickets.append((self._watched(seat, seat.worker.submit(ticket.task, ticket.lost)), ticket))

    def _opening_for(self, source: Iterator[Task]) -> bool:
        """Starts the missing workers, if there is anything to do for them."""
        ticket = self._next(source)
        if ticket is None:
            return False
        self._again.append(ticket)
        self._fill()
        return True

    def _fill(self) -> None:
        while len(self._seats) < self._backend.count:
            self._seats.append(self._seat())

    def _seat(self) -> _Seat[Task]:
        worker = self._backend.start(self._opens)
        seat = _Seat[Task](worker, worker.open())
        self._watched(seat, seat.opening)
        return seat

    def _watched(self, seat: _Seat[Task], future: Future[Any]) -> Future[Any]:
        """A future whose end is an event of its worker."""
        future.add_done_callback(lambda _: self._events.put(seat))
        return future

    def _next(self, source: Iterator[Task]) -> _Ticket[Task] | None:
        if self._again:
            return self._again.popleft()
        task = next(source, None)
        return None if task is None else _Ticket(task)

    def _done(self) -> list[_Seat[Task]]:
        """Workers that have opened, ended tasks or been lost; waits for the first."""
        while True:
            try:
                seats = {self._events.get(timeout=PATIENCE): True}
            except Empty:
                if not any(seat.open for seat in self._seats):
                    self._say(f"waiting for a place for the first of {len(self._seats)} workers")
                continue
            while not self._events.empty():
                seats[self._events.get()] = True
            return [seat for seat in seats if not seat.gone]

    def _ended(self, seat: _Seat[Task]) -> Iterator[Finished[Task, Result]]:
        """Takes what a worker has done, or gives its tasks to others if it is lost."""
        while not seat.gone and (future := seat.awaited) is not None and future.done():
            try:
                result = future.result()
            except Lost as lost:
                yield from self._replaced(seat, str(lost))
                return
            if not seat.open:
                seat.open = True
                continue
            self._losses = 0
            self._handed_out -= 1
            _, ticket = seat.tickets.popleft()
            yield Finished(ticket.task, result)

    def _replaced(self, seat: _Seat[Task], why: str) -> Iterator[Finished[Task, Result]]:
        """Puts a new worker in the place of one that is lost; only the task at hand may be to blame."""
        self._dismiss(seat)
        self._losses += 1
        if self._losses > LOSSES_IN_A_ROW * self._backend.count:
            raise WorkersLost(f"{self._losses} workers were lost one after the other, and none did a task; the last: {why}")
        self._say(f"a worker was lost ({why}); another takes its place")
        tickets = [ticket for _, ticket in seat.tickets]
        for ticket in tickets[:1]:
            ticket.lost += 1
        given_up = [ticket for ticket in tickets if ticket.lost >= LOSSES]
        self._again.extend(ticket for ticket in tickets if ticket.lost < LOSSES)
        self._seats.append(self._seat())
        yield from (Finished(ticket.task, None, f"{LOSSES} workers were lost over it; the last: {why}") for ticket in given_up)

    def _left_off(self) -> Iterator[Finished[Task, Result]]:
        """Asks workers to leave off, and yields what they return then."""
        for seat in self._seats:
            seat.worker.stop()
        until = time.perf_counter() + GRACE
        for seat in self._seats:
            for future, ticket in seat.tickets:
                wait([future], max(until - time.perf_counter(), 0))
                if future.done() and future.exception() is None:
                    yield Finished(ticket.task, future.result())
        self.close()

    def _drop(self) -> None:
        """Ends workers that are still at tasks, whose results nobody takes any more."""
        for seat in [seat for seat in self._seats if seat.tickets]:
            self._dismiss(seat)
        self._again.clear()

    def _dismiss(self, seat: _Seat[Task]) -> None:
        self._handed_out -= len(seat.tickets)
        seat.gone = True
        self._seats.remove(seat)
        seat.worker.close()

    def close(self) -> None:
        """Ends all workers."""
        for seat in list(self._seats):
            self._dismiss(seat)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
