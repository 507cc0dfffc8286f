"""What the operating system refuses, in words: why, and what helps."""

from __future__ import annotations

import errno

FULL = "free space there, or choose another place"
HELP = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close files of other programs",
    errno.ENOMEM: "give it more memory",
    errno.EAGAIN: "allow more threads or processes (ulimit -u)",
}
"""What helps where another place would not."""
NO_MEMORY = (
    "bad_alloc", "Failed to allocate memory", "bad allocation", "failed to allocate", "failed to map segment",
    "Cannot allocate memory",
)  # fmt: skip
"""What ONNX Runtime says when it gets no memory, and the loader of extension modules."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether a failure is one of memory, as Python or a library says it."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def why(error: OSError) -> str:
    """Why, as a clause."""
    return error.strerror or " ".join(str(error).split())


def helps(error: OSError) -> str:
    """What to do."""
    return HELP.get(error.errno or 0, "choose another place")


def cannot_be_written(place: object, error: OSError) -> str:
    """The message for a file or folder that was to be written."""
    return f"{place}: cannot be written ({why(error)}); {helps(error)}"
