"""Standard output and error that cannot be written: results are worth more than words about them, so the work goes on without."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from kcompiler.runtime.errors import MachineError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

PIPE = 128 + 13
"""The exit code of programs that SIGPIPE ends."""


class Tolerant(io.FileIO):
    """A stream that keeps the first error of writing, and from then on forgets what is written.

    Attributes:
        error: the first, None while there was none.
    """

    error: OSError | None = None

    def write(self, data: Buffer, /) -> int | None:  # type: ignore[override]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(memoryview(data).cast("B"))


@contextmanager
def tolerant() -> Iterator[None]:
    """Standard output and error as :class:`Tolerant` ones; those that are closed are opened to nowhere.

    Raises:
        SystemExit: at the end, with the code of what is inside. If that is 0: with 141 if the reader of standard output went
            away, as other programs do; with 3 if it could not be written for another reason, which is said.
    """
    _open_closed()
    (out, written), (error, _) = _replaced(1, sys.stdout), _replaced(2, sys.stderr)
    earlier, code = (sys.stdout, sys.stderr), None
    sys.stdout, sys.stderr = out, error
    try:
        yield
    except SystemExit as ended:
        code = ended.code
    finally:
        out.flush()
        sys.stdout, sys.stderr = earlier
        if written.error is not None and written.error.errno != errno.EPIPE:
            why = written.error.strerror
            print(f"error: standard output: cannot be written ({why}); files that were to be written are", file=error)
        error.flush()
    if not code and written.error is not None:
        code = PIPE if written.error.errno == errno.EPIPE else MachineError.exit_code
    raise SystemExit(code)


def _replaced(number: int, stream: TextIO | None) -> tuple[io.TextIOWrapper, Tolerant]:
    """A text stream to the descriptor of that ``number``, with the encoding of ``stream``."""
    raw = Tolerant(number, "w", closefd=False)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    errors = "backslashreplace" if number == 2 else getattr(stream, "errors", None) or "strict"
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding, errors, line_buffering=number == 2 or raw.isatty()), raw


def _open_closed() -> None:
    """Opens descriptors 0 to 2 where they are closed: else a result would get one of these, and native code writes there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
