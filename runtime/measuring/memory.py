"""Measures memory: full inference and the compiled model each in a process that does nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.spread import spread
from kcompiler.runtime.inputs.images import fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import random_image
from kcompiler.runtime.measuring.timing import FILL

STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process that only loads and runs full inference or the compiled model, in bytes.

    Attributes:
        peak: peak resident memory.
        private: anonymous resident memory at the end. The rest is mapped from files: weights, which the system can drop and
            read again.
    """

    peak: int
    private: int


def peak_memory(explainer: Explainer, path: str, batch: int) -> Memory | None:
    """Host memory of a new process that loads and runs ``path``, "full" or "compiled", at a batch size.

    None on systems without /proc (getrusage reports the parent's peak if that is higher).
    """
    if not STATUS.is_file():
        return None
    code = "import sys; from kcompiler.runtime.measuring.memory import print_peak; print_peak(*sys.argv[1:])"
    machine = explainer.machine
    providers = ",".join(machine.providers or ())
    arguments = [sys.executable, "-P", "-c", code, str(explainer.folder), path, str(batch), str(machine.threads or 0), providers]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    peak, private = map(int, done.stdout.split())
    return Memory(peak, private)


def print_peak(folder: str, path: str, batch: str, threads: str, providers: str) -> None:
    """Entry point of the process of :func:`peak_memory`: runs a few batches, then prints its :class:`Memory` to stdout."""
    size = int(batch)
    explainer = Explainer(Path(folder), threads=int(threads) or None, providers=providers.split(",") if providers else None)
    manifest = explainer.manifest
    element = manifest.image_element
    image, fill = random_image(manifest.shape, 0, element=element), element.fitted(fill_image(FILL, manifest.shape))
    positions = make_grid(manifest.shape[1:], manifest.patch, 4).positions
    full = explainer.full_inference() if path == "full" else None  # kept until memory is read, with its session
    if full is not None:
        full.outputs(image, fill, positions[: 3 * size], manifest.patch, batch=size)
    else:
        baseline = explainer.exact.baseline(image, fill)
        for _ in explainer.exact.evaluate_batches(baseline, spread(explainer.exact, positions, 5 * size)):
            pass
    status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    print(*(int(status[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon")))
