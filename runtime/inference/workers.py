"""A thread pool whose results come in order, and that runs no further ahead of its consumer than keeps all threads busy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _NotBegun:
    """The type of the result of an item that did not start before the deadline."""


NOT_BEGUN: Final = _NotBegun()


class Workers:
    """A pool of ``count`` threads, started on first use."""

    def __init__(self, count: int) -> None:
        self.count = count

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="kcompiler")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], deadline: float = float("inf")) -> Iterator[Result]:
        """Yields ``function`` of each item, in order; a single worker is the caller's own thread.

        If the consumer closes the iterator, items that have not started are cancelled, and closing waits for the others. On
        Ctrl-C the results of items that have started are yielded before ``KeyboardInterrupt`` is raised.

        Args:
            deadline: time (of ``time.perf_counter``) after which no item but the first starts.
        """

        def begin(number: int, item: Item) -> Result | _NotBegun:
            return function(item) if number == 0 or time.perf_counter() < deadline else NOT_BEGUN

        if self.count == 1:
            results: Iterator[Result | _NotBegun] = (begin(number, item) for number, item in enumerate(items))
        else:
            results = self._concurrently(begin, items)
        for result in results:
            if isinstance(result, _NotBegun):  # items start in order, so later ones did not start either
                break
            yield result

    def _concurrently(self, begin: Callable[[int, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        rest = enumerate(items)
        pending: deque[tuple[int, Future[Result]]] = deque()
        yielded = 0
        try:
            while True:
                # Twice as many items as threads: a thread that finishes early starts another item before the consumer asks.
                for number, item in rest:
                    pending.append((number, self._pool.submit(begin, number, item)))
                    if len(pending) >= 2 * self.count:
                        break
                if not pending:
                    return
                number, future = pending[0]
                result = future.result()
                yielded = number + 1
                yield result
                pending.popleft()
        except KeyboardInterrupt:
            _cancel(pending)
            for number, future in pending:
                # The consumer would stop at a _NotBegun, and the interrupt would be lost.
                if number >= yielded and not isinstance(result := future.result(), _NotBegun):
                    yield result
            raise
        finally:
            _cancel(pending)
            wait([future for _, future in pending])


def _cancel(pending: deque[tuple[int, Future[Result]]]) -> None:
    """Cancels items that have not started, newest first, so that the rest are a gapless prefix of ``pending``."""
    while pending and pending[-1][1].cancel():
        pending.pop()
