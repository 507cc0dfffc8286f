"""The process that measures: runs the sections that its parent names, and sends back each result as it is measured."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.on_cuda.scale import SCALES, Scale

SECTIONS = {
    "environment": "rates.environment",
    "rates": "rates.rates",
    "speed": "speed.speed",
    "kernels": "kernels.kernels",
    "ablations": "ablations.ablations",
    "torch": "pytorch.eager",
    "torch.compile": "pytorch.compiled",
}
"""The function of each kind of section, by module of this package."""


ERRORS = 3
"""ONNX Runtime's level of messages."""


class OutOfTimeError(Exception):
    """The section's time does not suffice for what is left of it."""


class Run:
    """What a section has at hand.

    Attributes:
        scale: the sizes.
        folder: of the prepared bundles.
        kept: what later sections use again.
        end: time (of ``time.perf_counter``) at which the section is to end.
    """

    def __init__(self, scale: Scale, folder: Path, connection: Connection) -> None:
        self.scale, self.folder, self._connection = scale, folder, connection
        self.kept: dict[str, Any] = {}
        self.end = 0.0

    def tell(self, key: str, value: object, text: str) -> None:
        """Sends a result, and a text of it."""
        self._connection.send(("value", key, value, text))

    def check(self, seconds: float = 0.0) -> None:
        """Ends the section if less than ``seconds`` of its time are left."""
        if time.perf_counter() + seconds > self.end:
            raise OutOfTimeError("its time did not suffice for more")

    def attempt(self, key: str, measure: Callable[[], None]) -> None:
        """Runs one of several measurements, the others of which do not need it: its failure is a result."""
        self.check()
        try:
            measure()
        except OutOfTimeError:
            raise
        except Exception as error:
            self.tell(key, {"failed": traceback.format_exc()}, f"failed: {summary(error)}")
            self._check_device(key)

    def _check_device(self, key: str) -> None:
        """Ends the section if the device fails: after an illegal access it does until the process ends."""
        import numpy as np
        import onnxruntime

        try:
            onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(1, np.float32), self.scale.provider, 0).numpy()
        except Exception as error:
            raise RuntimeError(f"the device failed at {key}: {summary(error)}") from error


def summary(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def main() -> None:
    import onnxruntime

    descriptor, provider, folder = sys.argv[1:]
    end_with_parent()
    onnxruntime.set_default_logger_severity(ERRORS)  # the slow choices of algorithms warn at every convolution
    connection = Connection(int(descriptor))
    run = Run(SCALES[provider], Path(folder), connection)
    while True:
        try:
            section, seconds = connection.recv()
        except EOFError:
            return
        run.end = time.perf_counter() + seconds
        connection.send(_ended(run, section))


def _ended(run: Run, section: str) -> tuple[str, ...]:
    kind, *arguments = section.split()
    module, function = SECTIONS[kind].split(".")
    try:
        getattr(import_module(f"bench.on_cuda.{module}"), function)(run, *arguments)
    except OutOfTimeError as why:
        return "partial", str(why)
    except Exception as error:
        return "failed", summary(error), traceback.format_exc()
    return "done", ""


def end_with_parent() -> None:
    """Ends this process once its parent is gone, even if it is killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
