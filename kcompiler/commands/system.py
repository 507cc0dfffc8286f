"""What the system refuses, in a line: which file, why, and what helps."""

from __future__ import annotations

import errno
import os

from kcompiler.runtime.errors import KCompilerError, MachineError, UsageError
from kcompiler.runtime.refusals import helps, is_lack_of_memory, why

PLACES = frozenset(
    (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
)
"""Errors of the place that was named, not of the machine."""
MORE_MEMORY = "give it more memory (ulimit -v), or fewer --threads"


def refused(error: BaseException) -> KCompilerError | None:
    """What a failure of the system is to a user; None if it is none: a fault of this program, say."""
    if isinstance(error, OSError):
        return _of_a_file(error)
    text = " ".join(str(error).split())
    if is_lack_of_memory(error):
        return MachineError(f"out of memory ({text or 'no more is given to this process'}); {MORE_MEMORY}")
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return MachineError(f"no thread can be started ({text}); {MORE_MEMORY}, or allow more threads (ulimit -u)")
    return None


def _of_a_file(error: OSError) -> KCompilerError:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "a file"
    kind = UsageError if error.errno in PLACES else MachineError
    return kind(f"{name}: {why(error)}; {helps(error)}")
