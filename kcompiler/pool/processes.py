"""Workers that are processes of this machine. They are spawned: ONNX Runtime's threads do not survive a fork."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from kcompiler.pool.worker import Lost, Opens
from kcompiler.runtime.errors import KCompilerError

SPAWN = multiprocessing.get_context("spawn")


class Processes:
    """A number of processes; what they share lies in a temporary folder."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._shared = 0

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="kcompiler-shared-")

    def start(self, opens: Opens[Any, Any]) -> ProcessWorker:
        return ProcessWorker(opens)

    def share(self, value: object) -> InFile:
        self._shared += 1
        path = Path(self._folder.name) / f"{self._shared}.pickle"
        path.write_bytes(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))
        return InFile(path)

    def close(self) -> None:
        """Removes what is shared."""
        if self._shared:
            self._folder.cleanup()


@dataclass(frozen=True, slots=True)
class InFile:
    """A shared value, in a file."""

    path: Path

    def get(self) -> Any:
        return pickle.loads(self.path.read_bytes())


class ProcessWorker:
    """A process that is sent tasks one after the other. A thread waits for each answer."""

    def __init__(self, opens: Opens[Any, Any]) -> None:
        ours, theirs = SPAWN.Pipe()
        self._stop = SPAWN.Event()
        self._process = SPAWN.Process(target=serve, args=(theirs, opens, self._stop), daemon=True, name="kcompiler worker")
        self._process.start()
        theirs.close()  # so that the end of the process ends the connection
        self._connection = ours
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kcompiler pool")

    def open(self) -> Future[Any]:
        return self._thread.submit(self._answer)

    def submit(self, task: Any, lost: int) -> Future[Any]:
        return self._thread.submit(self._ask, task, lost)

    def _ask(self, task: Any, lost: int) -> Any:
        try:
            self._connection.send((task, lost))
        except OSError as error:
            raise Lost(self._end()) from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            result, error = self._connection.recv()
        except (EOFError, OSError) as gone:
            raise Lost(self._end()) from gone
        if error is not None:
            raise error
        return result

    def _end(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return f"process {self._process.pid} ended with {how}"

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._process.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._process.join()
        self._connection.close()


def serve(connection: Connection, opens: Opens[Any, Any], stop: Event) -> None:
    """A worker's life: opens once, then answers tasks, until the pool closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the pool says what to do
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = opens(stop.is_set)
        connection.send((None, None))
        while True:
            task, lost = connection.recv()
            connection.send(_answered(partial(work, task, lost)))
    except EOFError:
        return
    except Exception as error:
        connection.send((None, _noted(error)))


def _answered(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return call(), None
    except Exception as error:
        return None, _noted(error)


def _noted(error: Exception) -> Exception:
    """With a note of where it was raised: the traceback does not travel."""
    if not isinstance(error, KCompilerError):
        error.add_note("".join(traceback.format_exception(error)))
    return error


def _end_with_parent() -> None:
    """Ends this process as soon as the parent has, however that ended: nobody would take the results."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is a child"
    parent.join()
    os._exit(1)
