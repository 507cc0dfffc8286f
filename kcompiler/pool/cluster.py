"""Workers that are actors on a Ray cluster, which is imported, and joined, only here."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kcompiler.pool.worker import Lost, Opens, Work
from kcompiler.runtime.errors import UsageError, WorkersLost

STORE = 100 << 20
"""Bytes of the object store of a cluster that is started here: tasks are paths, results a few words."""
LONGEST = 20
"""Characters of the folder for temporary folders that a cluster has its own in: the paths of its sockets have 107 at most."""
REACHED_WITHIN = 20.0
"""Seconds that an address has to answer."""
CONTROL = "control"
"""The group of an actor's methods that run beside the task at hand."""
ASIDE = ("auto", "local")
"""What may stand for an address: the cluster that runs on this machine, if there is one; one that starts and ends here."""


def ray() -> Any:
    """The module ``ray``, told not to report its usage.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(f"Ray cannot be imported ({error}); install kcompiler[ray]") from error


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Joins the cluster at an address, or the one that the caller has joined already; leaves it if it was joined here.

    Raises:
        UsageError: no address, or Ray is not installed.
        WorkersLost: there is no cluster.
    """
    module = ray()
    if module.is_initialized():
        yield
        return
    if address not in ASIDE and ":" not in address:
        raise UsageError(f"--ray is {address!r}, expected HOST:PORT, ray://HOST:PORT, {' or '.join(ASIDE)}; or put --ray last")
    within = None if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
    with tempfile.TemporaryDirectory(prefix="kcompiler-ray-", dir=within, ignore_cleanup_errors=True) as logs:
        try:
            _join(module, address, logs)
        except (OSError, RuntimeError, ValueError) as error:
            raise WorkersLost(
                f"no Ray cluster answers at {address} ({_line(error)}); start one with 'ray start --head'"
            ) from error
        try:
            yield
        finally:
            module.shutdown()


def _join(module: Any, address: str, logs: str) -> None:
    """Joins the cluster at an address; one that is started here logs into the folder ``logs``."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "auto":
        try:
            module.init(address="auto", **quiet)
            return
        except ConnectionError:
            address = "local"
    if address not in ASIDE:
        _reach(address)
    if address == "local":
        module.init(address="local", include_dashboard=False, object_store_memory=STORE, _temp_dir=logs, **quiet)
    else:
        module.init(address=address, **quiet)


def _reach(address: str) -> None:
    """Raises an ``OSError`` if nobody answers there: Ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()


def resource(name: str) -> float:
    """How much of a resource ("CPU", "GPU") the cluster that was joined has."""
    return float(ray().cluster_resources().get(name, 0.0))


class Cluster:
    """A number of actors on the cluster that was joined, each of so many CPUs and GPUs."""

    def __init__(self, count: int, *, cpus: float, gpus: float = 0) -> None:
        self.count, self._cpus, self._gpus = count, cpus, gpus

    def start(self, opens: Opens[Any, Any]) -> ActorWorker:
        return ActorWorker(opens, self._cpus, self._gpus)

    def share(self, value: object) -> InStore:
        return InStore(ray().put(value))

    def close(self) -> None:
        """Nothing is left: the store forgets what nobody refers to."""


@dataclass(frozen=True, slots=True)
class InStore:
    """A shared value, in the cluster's object store: once a node."""

    reference: Any

    def get(self) -> Any:
        return ray().get(self.reference)


class ActorWorker:
    """An actor that is sent tasks one after the other."""

    def __init__(self, opens: Opens[Any, Any], cpus: float, gpus: float) -> None:
        self._opens = opens
        made = ray().remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, concurrency_groups={CONTROL: 1})(Actor)
        self._actor = made.remote()

    def open(self) -> Future[Any]:
        return _told(self._actor.open.remote(self._opens))

    def submit(self, task: Any, lost: int) -> Future[Any]:
        return _told(self._actor.work.remote(task, lost))

    def stop(self) -> None:
        self._actor.stop.options(concurrency_group=CONTROL).remote()

    def close(self) -> None:
        ray().kill(self._actor)


class Actor:
    """What runs on the cluster."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._work: Work[Any, Any] | None = None

    def open(self, opens: Opens[Any, Any]) -> None:
        self._work = opens(self._stop.is_set)

    def work(self, task: Any, lost: int) -> Any:
        assert self._work is not None, "opened first"
        return self._work(task, lost)

    def stop(self) -> None:
        self._stop.set()


def _told(reference: Any) -> Future[Any]:
    """The future of a result, which fails as the call did, or with :class:`Lost` if the actor is gone."""
    told: Future[Any] = Future()

    def tell(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            told.set_result(done.result())
        else:
            told.set_exception(_cause(error))

    reference.future().add_done_callback(tell)
    return told


def _cause(error: BaseException) -> BaseException:
    """What was raised on the cluster; or :class:`Lost`, for whatever Ray says of itself."""
    exceptions = importlib.import_module("ray.exceptions")
    if isinstance(error, exceptions.RayTaskError):
        return error.cause if isinstance(error.cause, Exception) else error
    return Lost(_line(error)) if isinstance(error, exceptions.RayError) else error


def _line(error: BaseException) -> str:
    """The first sentence of what Ray says."""
    return str(error).strip().partition("\n")[0].rstrip(".")
