"""A crew: workers that load the same bundle, as many as asked for or as there is room for, and how each loads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import kcompiler
from kcompiler.pool import cluster
from kcompiler.pool.cluster import Cluster
from kcompiler.pool.pool import Pool
from kcompiler.pool.processes import Processes
from kcompiler.pool.worker import Backend, Opens, Result, Task
from kcompiler.runtime.bundle.manifest import read_manifest
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.sessions import Machine

MOST = 100_000
"""Workers that may be asked for."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How each worker loads the bundle: arguments of :func:`kcompiler.load`. The path is one that all workers can read."""

    bundle: Path
    providers: tuple[str, ...] | None = None
    threads: int | None = None
    patch: tuple[int, int] | None = None

    def load(self) -> Explainer:
        """Loads it here."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported
        return kcompiler.load(self.bundle, providers=self.providers, threads=self.threads, patch=self.patch)

    @property
    def on_cuda(self) -> bool:
        return self.providers is not None and "cuda" in self.providers[0].lower()


@dataclass(frozen=True, slots=True)
class Crew:
    """Where workers come from, and how they load the bundle."""

    backend: Backend
    opening: Opening

    def pool(self, opens: Opens[Task, Result], say: Callable[[str], None]) -> Pool[Task, Result]:
        return Pool(self.backend, opens, say)

    def load(self) -> Explainer:
        """The model as the workers have it, to plan and check with: without CUDA on a machine that has none."""
        opening = self.opening
        if self.shares_pictures:
            return opening.load()
        return kcompiler.load(opening.bundle, providers=("cpu",), patch=opening.patch, compiled_for="cuda")

    @property
    def shares_pictures(self) -> bool:
        """Whether one picture's positions may be shared: what loads here must compute as the workers do."""
        return not (self.opening.on_cuda and isinstance(self.backend, Cluster))


@contextmanager
def gathered(opening: Opening, *, ray: str | None, processes: int | None) -> Iterator[Crew | None]:
    """A crew on the Ray cluster at an address, or of processes; None if neither is asked for.

    Each worker has ``opening.threads`` threads. None divides the physical cores among processes; on a cluster it is one, and
    where the model runs on CUDA there is a worker a GPU.

    Args:
        ray: address, see :func:`cluster.joined`.
        processes: number of workers; None fills the cluster.

    Raises:
        UsageError: a number is out of its range, Ray is not installed, or the cluster has no place for a worker.
        WorkersLost: there is no cluster.
    """
    if processes is not None and not 1 <= processes <= MOST:
        raise UsageError(f"--processes is {processes}, expected 1 to {MOST}")
    opening = replace(opening, bundle=opening.bundle.absolute())
    if ray is not None:
        with cluster.joined(ray):
            yield _on_cluster(opening, processes)
    elif processes is not None:
        cores, _ = Machine(("cpu",)).divided(MOST)  # a thread a core
        backend = Processes(processes)
        try:
            yield Crew(backend, replace(opening, threads=opening.threads or max(1, cores // processes)))
        finally:
            backend.close()
    else:
        yield None


def _on_cluster(opening: Opening, count: int | None) -> Crew:
    gpus = cluster.resource("GPU")
    if opening.providers is None:
        compiled = {variant.device for variant in read_manifest(opening.bundle).variants}
        opening = replace(opening, providers=("cuda",) if gpus and "cuda" in compiled else ("cpu",))
    opening = replace(opening, threads=opening.threads or 1)
    assert opening.threads is not None, "set above"
    room = gpus if opening.on_cuda else cluster.resource("CPU") / opening.threads
    if room < 1:
        what = "GPU" if opening.on_cuda else f"place for a worker of {opening.threads} CPU threads"
        raise UsageError(f"the Ray cluster has no {what}; add nodes, or ask for another --provider or --threads")
    return Crew(Cluster(count or int(room), cpus=opening.threads, gpus=int(opening.on_cuda)), opening)
