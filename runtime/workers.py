"""Work side by side on threads: results in order, no further ahead of who takes them than keeps all threads busy."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Some threads, started when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="kcompiler")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], deadline: float = float("inf")) -> Iterator[Result]:
        """``function`` of each item, in order; a single worker is the caller's own thread.

        Whoever stops asking waits for what is under way, and what has not begun never does.

        Args:
            deadline: time (of ``time.perf_counter``) from which on no item is begun. The first one is in any case.
        """
        if self.count == 1:
            for item in items:
                yield function(item)
                if time.perf_counter() >= deadline:
                    return
            return
        rest = iter(items)
        under_way: deque[Future[Result]] = deque()
        try:
            while True:
                # As many again wait in line: a thread that is done before one that began earlier goes on at once.
                for item in rest:
                    under_way.append(self._pool.submit(function, item))
                    if len(under_way) >= 2 * self.count:
                        break
                if not under_way:
                    return
                yield under_way.popleft().result()
                if time.perf_counter() >= deadline:
                    rest = iter(())
                    under_way = deque(future for future in under_way if not future.cancel())
        finally:
            for future in under_way:
                future.cancel()
            wait(under_way)
