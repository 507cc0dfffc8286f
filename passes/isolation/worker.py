"""The program of the process of its own: takes tasks from standard input, and answers on standard output.

It is run as a file, not imported: it starts without the rest of the package. What it runs may end it, in any way.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows: no limits but that of the clock, which the parent keeps
    resource = None  # type: ignore[assignment]

Feeds = Mapping[str, Any]


def checked(path: str) -> str:
    """What ONNX's checker says against the model at ``path``; empty if nothing, or if ONNX Runtime loads it all the same."""
    import onnx

    try:
        onnx.checker.check_model(path)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, OSError) as refusal:
        try:
            _session(path, _options(1, "ORT_DISABLE_ALL"))
        except Exception as error:  # ONNX Runtime has a class for each status code
            return f"ONNX Runtime cannot load it: {error}; the ONNX checker says: {refusal}"
    return ""


def optimised(model: bytes, weights: str, level: str, written: str, data: str, inline_bytes: int) -> None:
    """Writes ``model``, optimised at ``level``, to ``written``; weights of ``inline_bytes`` or more to ``data`` beside it.

    External weights are read from the folder ``weights``.
    """
    options = _options(1, level)
    options.optimized_model_filepath = written
    _configure(
        options,
        model_external_initializers_file_folder_path=weights,
        optimized_model_external_initializers_file_name=data,
        optimized_model_external_initializers_min_size_in_bytes=str(inline_bytes),
    )
    _session(model, options)


def outputs(
    model: bytes | str, weights: str, names: Sequence[str] | None, runs: Sequence[Feeds], threads: int, bfloat16: Sequence[str]
) -> list[list[Any]]:
    """The outputs ``names`` (None is all) of the model, a file or its content, for the feeds of each run.

    Feeds named in ``bfloat16`` hold the bits of such numbers as uint16. An output that is no array is None.
    """
    import onnxruntime as ort

    options = _options(threads, "ORT_ENABLE_ALL")
    if weights:
        _configure(options, model_external_initializers_file_folder_path=weights)
    session = _session(model, options)
    if not bfloat16:
        return [[_array(value) for value in session.run(names, dict(feeds))] for feeds in runs]
    results = []
    for feeds in runs:
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16) if name in bfloat16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }  # fmt: skip
        results.append([value.numpy() for value in session.run_with_ort_values(names, values)])
    return results


BFLOAT16 = 16
"""As in ``onnx.TensorProto``."""


def _array(value: object) -> object:
    return value if isinstance(value, np.ndarray) else None


def _options(threads: int, level: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = False
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    _configure(options, force_spinning_stop="1")
    return options


def _configure(options: Any, **entries: str) -> None:
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)


def _session(model: bytes | str, options: Any) -> Any:
    import onnxruntime as ort

    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


TASKS = {task.__name__: task for task in (checked, optimised, outputs)}


def limit(seconds: float, memory: int) -> None:
    """Limits the processor time from now on, and the memory."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)
    _lower(resource.RLIMIT_DATA, memory)


def _lower(what: int, number: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (number if hard == resource.RLIM_INFINITY else min(number, hard), hard))


def main() -> None:
    """Answers tasks until the other end closes: (True, result), or (False, the words of an error)."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print where they like
    with contextlib.suppress(ImportError):  # before the first task is there; without them each task says so
        importlib.import_module("onnx")
        importlib.import_module("onnxruntime")
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    while True:
        try:
            name, arguments, seconds, memory = pickle.load(asked)
        except EOFError:
            return
        limit(seconds, memory)
        try:
            answer: tuple[bool, Any] = (True, TASKS[name](*arguments))
        except MemoryError:
            answer = (False, f"it takes more than {memory / 1e9:.1f} GB of memory")
        except Exception as error:  # whatever a library raises
            answer = (False, str(error) or type(error).__name__)
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    main()
