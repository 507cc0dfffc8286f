"""Failures of other libraries, turned into ours: the one place that catches whatever is raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kcompiler.runtime.errors import KCompilerError


class ForeignFailure(Exception):
    """A library failed, for a reason that only its own words tell."""


@contextmanager
def foreign(ours: Callable[[str], Exception] = ForeignFailure) -> Iterator[None]:
    """Raises what ``ours`` makes of the words of any failure inside; our own errors pass.

    Around calls of libraries whose exceptions have no base but Exception: ONNX Runtime's (a class for each status code), those
    of onnx's version converter, and whatever a damaged file makes Pillow's decoders meet.
    """
    try:
        yield
    except KCompilerError:
        raise
    except Exception as error:
        raise ours(str(error)) from error
