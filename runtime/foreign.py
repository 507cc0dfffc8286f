"""Failures of other libraries, turned into ours: the one place that catches whatever is raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kcompiler.runtime.errors import KCompilerError


class ForeignFailure(Exception):
    """A library failed, for a reason that only its own words tell."""


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that ``error`` was made of, if it was: extension modules make an ImportError of one, while imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error


def raise_interrupt_behind(error: BaseException) -> None:
    """Raises the interrupt that ``error`` was made of, if it was, in its place."""
    if (interrupt := interrupt_behind(error)) is not None:
        raise interrupt from None


@contextmanager
def foreign(ours: Callable[[str], Exception] = ForeignFailure) -> Iterator[None]:
    """Raises what ``ours`` makes of the words of any failure inside; our own errors pass, and interrupts.

    Around calls of libraries whose exceptions have no base but Exception: ONNX Runtime's (a class for each status code), those
    of onnx's version converter, and whatever a damaged file makes Pillow's decoders meet.
    """
    try:
        yield
    except KCompilerError:
        raise
    except Exception as error:
        raise_interrupt_behind(error)
        raise ours(str(error)) from error
