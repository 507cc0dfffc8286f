"""ONNX Runtime sessions: every option in one place."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcompiler.runtime.errors import BundleError, ProviderError, UsageError
from kcompiler.runtime.foreign import foreign

if TYPE_CHECKING:
    import onnxruntime as ort

MOST_THREADS = 1024
SHORT_NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how sessions run.

    Attributes:
        providers: ONNX Runtime execution providers in order of preference, "cpu" and "cuda" for short; None takes CUDA
            where this build of ONNX Runtime has it and it starts, and the CPU otherwise.
        threads: of the CPU that work at once; None is one for each physical core that this process may use.
    """

    providers: tuple[str, ...] | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}, expected 1 to {MOST_THREADS}")

    def divided(self, most: int) -> tuple[int, Machine]:
        """How many batches to run at once, ``most`` or fewer, and the machine for the session that runs them.

        One thread a batch takes less time than all of them on one batch after the other: nothing waits for the slowest part of
        an operator, and what ONNX Runtime does on one thread (small operators, biases, starting each operator) keeps none idle.
        A session is called by a thread for each batch, and those left over are its own, which all batches share (or see
        :meth:`shared_out`). Providers other than the CPU have one batch at a time.

        Raises:
            ProviderError: ONNX Runtime, or a provider that was asked for, is absent.
        """
        first = provider_names(self.providers, onnxruntime().get_available_providers())[0]
        if first != SHORT_NAMES["cpu"]:
            return 1, self
        threads = self.threads or _cores()
        count = min(threads, most)
        return count, replace(self, threads=threads - count + 1) if count > 1 else self

    def shared_out(self, count: int) -> Machine:
        """Of what :meth:`divided` returned beside ``count``, what each batch has that runs in a session of its own."""
        return replace(self, threads=(self.threads + count - 1) // count) if self.threads is not None and count > 1 else self


@cache
def _cores() -> int:
    """Physical cores that this process may use, by its affinity and its container's quota."""
    with warnings.catch_warnings(action="ignore"):  # where it cannot tell physical cores, it takes logical ones
        cores: int = importlib.import_module("loky").cpu_count(only_physical_cores=True)  # takes 50 ms to import
    return cores


def onnxruntime() -> Any:
    """The module, imported when first needed.

    Raises:
        ProviderError: neither onnxruntime nor onnxruntime-gpu is installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({error}); install kcompiler[cpu], or kcompiler[gpu] for CUDA"
        ) from error


def open_session(
    model: Path | bytes,
    machine: Machine,
    *,
    optimise: bool = True,
    pack: bool = True,
    profile: Path | None = None,
    weights: Path | None = None,
) -> ort.InferenceSession:
    """A session on ``model``.

    Args:
        model: an ONNX file, external weights beside it; or what would be in such a file.
        machine: providers and threads.
        optimise: False turns every graph optimisation off: convolutions add up in another order.
        pack: False leaves the weights of products as they are: these add up in another order.
        profile: start of the file name for ONNX Runtime's profile, if it is to make one.
        weights: folder of external weights, for what would be in a file.

    Raises:
        ProviderError: a provider that was asked for is absent from this build, or did not start on this machine.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # tight extents change shapes with every batch: patterns would pile up, one a shape
    # The threads of a session that is done must not spin on the cores of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not pack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights.resolve()))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    wanted = provider_names(machine.providers, ort.get_available_providers())
    if machine.threads is not None or wanted[0] == SHORT_NAMES["cpu"]:
        options.intra_op_num_threads = machine.threads or _cores()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    name = "a model in memory" if isinstance(model, bytes) else model
    with foreign(lambda why: BundleError(f"{name}: ONNX Runtime cannot load it: {why}")):
        session = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=wanted)
    if machine.providers is not None:
        for name in wanted:
            if name not in session.get_providers():
                raise ProviderError(
                    f"execution provider {name} was asked for but did not start on this machine "
                    f"(running: {', '.join(session.get_providers())}); check the driver and CUDA libraries, or ask for cpu"
                )
    return session


def provider_names(asked: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """Full names of the providers to use, the CPU last for what others lack.

    Raises:
        ProviderError: one that was asked for is not in this build.
    """
    cpu = SHORT_NAMES["cpu"]
    if asked is None:
        cuda = SHORT_NAMES["cuda"]
        return [cuda, cpu] if cuda in available else [cpu]
    names = [SHORT_NAMES.get(name, name) for name in asked]
    for name in names:
        if name not in available:
            raise ProviderError(
                f"execution provider {name} was asked for but this ONNX Runtime has only {', '.join(available)}; "
                "install kcompiler[gpu] for CUDA, or ask for cpu"
            )
    return names if cpu in names else [*names, cpu]


def device_of(session: ort.InferenceSession) -> str:
    """Where the session keeps its tensors: "cuda" or "cpu"."""
    return "cuda" if session.get_providers()[0] == SHORT_NAMES["cuda"] else "cpu"
