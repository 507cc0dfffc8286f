"""The one thread that uses the model: maps of several tabs advance in turn, and a tab that is closed ends its map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from kcompiler.serving.refused import Refused

Result = TypeVar("Result")
MOST_JOBS = 8


class Desk:
    """Runs calls on a single thread, in the order in which they are asked for.

    Attributes:
        jobs: number of maps that are being made.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kcompiler-serve")
        self.jobs, self._closing = 0, False

    async def do(self, call: Callable[[], Result]) -> Result:
        """The result of ``call``, made on the desk's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def each(self, make: Callable[[], Generator[Result]]) -> AsyncGenerator[Result]:
        """Yields what the generator yields that ``make`` returns, a call for each item, so that several alternate.

        Where the consumer goes away, the generator is closed as soon as its current step ends.

        Raises:
            Refused: too many maps are being made.
        """
        if self.jobs >= MOST_JOBS:
            raise Refused(429, f"{self.jobs} maps are being made already; cancel one, or wait.")
        self.jobs += 1
        generator: Generator[Result] | None = None
        try:
            generator = await self.do(make)
            while not self._closing and (step := await self.do(partial(_step, generator))):
                yield step[0]
        finally:
            self.jobs -= 1
            if generator is not None:
                self._thread.submit(generator.close)

    def close(self) -> None:
        """Ends what is being made, after its current step."""
        self._closing = True

    def wait(self) -> None:
        """Waits until the thread is idle, and ends it."""
        self._thread.shutdown(cancel_futures=False)


def _step(generator: Generator[Result]) -> tuple[Result] | None:
    """What the generator yields next; None at its end."""
    for item in generator:
        return (item,)
    return None
