"""ONNX Runtime sessions: the only module that sets their options."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcompiler.runtime.bundle.variant import DeviceName, Variant
from kcompiler.runtime.errors import BundleError, ProviderError, UsageError
from kcompiler.runtime.foreign import foreign, raise_interrupt_behind
from kcompiler.runtime.inference import cuda
from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inference.forks import kept_by_children

if TYPE_CHECKING:
    import onnxruntime as ort

MOST_THREADS = 1024
MOST_AT_ONCE = 16
"""Concurrent batches, and threads of a session, on machines with fewer cores: each batch may have a session of its own."""
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Variable of the environment that ONNX Runtime reads once, while it is imported: with 1 it reports nothing to anybody. From
1.32 on its wheels for Linux otherwise queue reports (device, operating system, path of the process), look up a host after ten
seconds, and start a thread that makes forked children hang."""
REPORTS_FROM = (1, 32)
SHORT_NAMES = {"cpu": "CPUExecutionProvider", "cuda": cuda.NAME}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how sessions run.

    Attributes:
        providers: ONNX Runtime execution providers in order of preference, "cpu" and "cuda" for short; None takes CUDA
            where this build of ONNX Runtime has it and it starts, and the CPU otherwise.
        threads: CPU threads; None is as many as physical cores that this process may use.
        cuda: how sessions use CUDA, where they run there.
    """

    providers: tuple[str, ...] | None = None
    threads: int | None = None
    cuda: CudaOptions = field(default_factory=CudaOptions)

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}, expected 1 to {MOST_THREADS}")

    def divided(self, most: int) -> tuple[int, Machine]:
        """Divides the threads between concurrent batches.

        A thread per batch takes less time than all threads on one batch after the other: no thread waits for the slowest part
        of an operator, or while ONNX Runtime works on one thread (small operators, biases, starting each operator). Each
        batch has a thread that calls the session. Threads left over belong to the session's own pool, which all batches share
        (or see :meth:`shared_out`). Providers other than the CPU run one batch at a time.

        Args:
            most: largest number of concurrent batches.

        Returns:
            the number of concurrent batches, and the machine for the session that runs them.

        Raises:
            ProviderError: ONNX Runtime, or a requested provider, is absent.
        """
        if self.names[0] != SHORT_NAMES["cpu"]:
            return 1, self
        threads = self.threads or _cores()
        count = min(threads, most, max(_cores(), MOST_AT_ONCE))
        return count, replace(self, threads=threads - count + 1) if count > 1 else self

    @property
    def names(self) -> list[str]:
        """Full names of the providers, in order of preference.

        Raises:
            ProviderError: ONNX Runtime, or a requested provider, is absent, or CUDA was asked for and does not start.
        """
        return provider_names(self.providers, onnxruntime())

    @property
    def device(self) -> DeviceName:
        """The device whose variants of a model this machine runs."""
        return "cuda" if self.names[0] == cuda.NAME else "cpu"

    def for_variant(self, variant: Variant) -> Machine:
        """This machine, with products in TF32 if ``variant`` has them."""
        return replace(self, cuda=replace(self.cuda, tf32=variant.tf32)) if variant.tf32 != self.cuda.tf32 else self

    def shared_out(self, count: int) -> Machine:
        """The share of each batch in a machine that :meth:`divided` returned beside ``count``, if each has its own session."""
        return replace(self, threads=(self.threads + count - 1) // count) if self.threads is not None and count > 1 else self


@cache
def _cores() -> int:
    """Physical cores that this process may use, by its affinity and its container's quota."""
    with warnings.catch_warnings(action="ignore"):  # loky warns where it counts logical cores instead
        cores: int = importlib.import_module("loky").cpu_count(only_physical_cores=True)  # takes 50 ms to import
    return cores


def onnxruntime() -> Any:
    """The ``onnxruntime`` module, imported on first use, with its telemetry off unless the environment says otherwise.

    The setting is also that of child processes. Warns where somebody else imported a version that reports, before the setting.

    Raises:
        ProviderError: neither onnxruntime nor onnxruntime-gpu is installed.
    """
    too_late = NO_TELEMETRY not in os.environ and "onnxruntime" in sys.modules
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise_interrupt_behind(error)
        raise ProviderError(
            f"ONNX Runtime cannot be imported ({error}); install kcompiler[cpu], or kcompiler[gpu] for CUDA"
        ) from error
    if too_late and tuple(map(int, module.__version__.split(".")[:2])) >= REPORTS_FROM:
        warnings.warn(
            f"onnxruntime {module.__version__} was imported before kcompiler could turn its telemetry off; set {NO_TELEMETRY}=1 "
            "in the environment (or 0 if it may report)",
            RuntimeWarning,
            stacklevel=2,
        )
    return module


def open_session(
    model: Path | bytes,
    machine: Machine,
    *,
    optimise: bool = True,
    pack: bool = True,
    profile: Path | None = None,
    weights: Path | None = None,
    shared: Mapping[str, ort.OrtValue] | None = None,
) -> ort.InferenceSession:
    """Opens a session on ``model``.

    Args:
        model: path of an ONNX file with its external weights in the same folder, or the content of an ONNX file.
        machine: providers and threads.
        optimise: False turns all graph optimisations off, so convolutions add up in another order.
        pack: False does not pack the weights of matrix products, so these add up in another order.
        profile: prefix of the file that ONNX Runtime writes its profile to; None does not profile.
        weights: folder of the external weights, if ``model`` is the content of a file.
        shared: initializers by name, on the machine's device, that other sessions have, too (:func:`cuda.shareable`). Such
            sessions also share the memory of their activations, unless they capture runs as CUDA graphs. Others capture nothing.

    Raises:
        BundleError: ONNX Runtime cannot load the model.
        ProviderError: a requested provider is absent from this build, or did not start on this machine.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.enable_mem_pattern = False  # tight extents change shapes with every batch: each shape would keep a pattern
    # Otherwise an idle session's threads spin on the cores that the next session runs on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not pack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights.resolve()))
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers = machine.names
    if machine.threads is not None or providers[0] == SHORT_NAMES["cpu"]:
        options.intra_op_num_threads = min(machine.threads or _cores(), max(_cores(), MOST_AT_ONCE))
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    name = "a model in memory" if isinstance(model, bytes) else model
    if shared is not None:
        for key, value in shared.items():
            options.add_initializer(key, value)
        if not machine.cuda.graphs:
            cuda.share_arena(ort)
            options.add_session_config_entry("session.use_env_allocators", "1")
    capturing = machine.cuda if shared is not None else replace(machine.cuda, graphs=False)
    asked = [(name, capturing.provider_options) if name == cuda.NAME else name for name in providers]
    with foreign(lambda why: BundleError(f"{name}: ONNX Runtime cannot load it: {why}")), cuda.failures(machine.device):
        made = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=asked)
    session = kept_by_children(made)
    if machine.providers is not None:
        for name in providers:
            if name not in session.get_providers():
                raise ProviderError(
                    f"execution provider {name} was asked for but did not start on this machine "
                    f"(running: {', '.join(session.get_providers())}); check the driver and CUDA libraries, or ask for cpu"
                )
    return session


def provider_names(asked: Sequence[str] | None, ort: Any) -> list[str]:
    """Full names of the providers of ``ort`` (onnxruntime) to use; the CPU is last, for operators that the others lack.

    Raises:
        ProviderError: ``ort`` does not have a provider in ``asked``, or CUDA does not start on this machine.
    """
    cpu, available = SHORT_NAMES["cpu"], ort.get_available_providers()
    if asked is None:
        return [cuda.NAME, cpu] if cuda.starts(ort) else [cpu]
    names = [SHORT_NAMES.get(name, name) for name in asked]
    for name in names:
        if name not in available:
            raise ProviderError(
                f"execution provider {name} was asked for but this ONNX Runtime has only {', '.join(available)}; "
                "install kcompiler[gpu] for CUDA, or ask for cpu"
            )
    if cuda.NAME in names and not cuda.starts(ort):
        raise ProviderError(f"{cuda.NAME} was asked for but does not start on this machine: {cuda.why_not(ort)}; or ask for cpu")
    return names if cpu in names else [*names, cpu]


def run_bound(session: ort.InferenceSession, binding: ort.IOBinding, device: str, options: ort.RunOptions | None = None) -> None:
    """Runs a session on what is bound.

    Raises:
        ProviderError: CUDA failed.
        BundleError: the model failed.
    """
    with running(), cuda.failures(device):
        session.run_with_iobinding(binding, options)


def running() -> AbstractContextManager[None]:
    """Around a run: what ONNX Runtime reports becomes a :class:`BundleError`."""
    return foreign(lambda why: BundleError(f"ONNX Runtime cannot run the model: {why}"))


def bind_output(binding: ort.IOBinding, name: str, device: str, value: ort.OrtValue | None) -> None:
    """Binds an output to memory on ``device``: that of ``value`` if there is one, else new memory."""
    if value is None:
        binding.bind_output(name, device)
    else:
        binding.bind_ortvalue_output(name, value)


def captured_as(number: int) -> ort.RunOptions:
    """The options of a run that is captured as CUDA graph ``number``, or replays it if it was; -1 does neither."""
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
