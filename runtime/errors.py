"""All errors that are raised on purpose. Messages name the file or node, the actual and the expected state, and what to do."""

from __future__ import annotations

LONGEST = 1000
"""Characters of a message; of a longer one, the middle is left out."""


class KCompilerError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is the exit code of the command line.

    A message is a line of text, whatever it cites: other libraries' words span several, names in files may hold anything.
    """

    exit_code = 3

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UsageError(KCompilerError):
    """A parameter is out of range, or parameters contradict each other."""

    exit_code = 2


class ModelError(KCompilerError):
    """The model is not valid ONNX, or not a model that can be compiled."""


class ImageError(KCompilerError):
    """The image cannot be read, or does not fit the model."""


class BundleError(KCompilerError):
    """The compiled bundle is incomplete, altered, or of another format version."""


class ProviderError(KCompilerError):
    """ONNX Runtime is missing, or lacks the requested execution provider."""


class LimitExceeded(KCompilerError):
    """What was to run within limits took more time or memory, or ended its process."""


class MachineError(KCompilerError):
    """The machine has too little of something: space for temporary files, memory, file handles; or an output is full."""


class WorkersLost(KCompilerError):
    """Processes or actors that share the work are lost one after the other, or the cluster that they run on cannot be reached."""


class CheckFailed(KCompilerError):
    """The compiled model does not agree with full inference."""

    exit_code = 1


def one_line(text: str) -> str:
    """``text`` in a line of printable characters, at most :data:`LONGEST`; a blank for what separates its lines."""
    lines = "".join(letter if letter.isprintable() else "\n" for letter in str(text)).split("\n")
    line = " ".join(part.strip() for part in lines if part.strip()) if len(lines) > 1 else lines[0]
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2 - 3
    return f"{line[:half]} ... {line[-half:]}"
