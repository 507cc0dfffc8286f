"""Work side by side on threads: results in order, no further ahead of who takes them than keeps all threads busy."""

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
    """Stands for the result of an item that was not begun."""


NOT_BEGUN: Final = _NotBegun()


class Workers:
    """Some threads, started when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="kcompiler")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], deadline: float = float("inf")) -> Iterator[Result]:
        """``function`` of each item, in order; a single worker is the caller's own thread.

        Whoever stops asking waits for what is under way, and what has not begun never does. On Ctrl-C the results of what is
        under way are handed out before it is raised.

        Args:
            deadline: time (of ``time.perf_counter``) from which on no item but the first is begun.
        """

        def begin(number: int, item: Item) -> Result | _NotBegun:
            return function(item) if number == 0 or time.perf_counter() < deadline else NOT_BEGUN

        if self.count == 1:
            results: Iterator[Result | _NotBegun] = (begin(number, item) for number, item in enumerate(items))
        else:
            results = self._side_by_side(begin, items)
        for result in results:
            if isinstance(result, _NotBegun):  # nor was any after it: they begin in order
                break
            yield result

    def _side_by_side(self, begin: Callable[[int, Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        rest = enumerate(items)
        under_way: deque[tuple[int, Future[Result]]] = deque()
        handed_out = 0
        try:
            while True:
                # As many again wait in line: a thread that is done before one that began earlier goes on at once.
                for number, item in rest:
                    under_way.append((number, self._pool.submit(begin, number, item)))
                    if len(under_way) >= 2 * self.count:
                        break
                if not under_way:
                    return
                number, future = under_way[0]
                result = future.result()
                handed_out = number + 1
                yield result
                under_way.popleft()
        except KeyboardInterrupt:
            _cancel(under_way)
            for number, future in under_way:
                # Whoever is handed what was not begun stops asking, and the interrupt would be lost.
                if number >= handed_out and not isinstance(result := future.result(), _NotBegun):
                    yield result
            raise
        finally:
            _cancel(under_way)
            wait([future for _, future in under_way])


def _cancel(under_way: deque[tuple[int, Future[Result]]]) -> None:
    """Cancels what has not begun: the newest first, so that what is left is all that began, without a gap."""
    while under_way and under_way[-1][1].cancel():
        under_way.pop()
