"""All errors that are raised on purpose. Messages name the file or node, the actual and the expected state, and what to do."""

from __future__ import annotations


class KCompilerError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is the exit code of the command line."""

    exit_code = 3


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


class WorkersLost(KCompilerError):
    """Processes or actors that share the work are lost one after the other, or the cluster that they run on cannot be reached."""


class CheckFailed(KCompilerError):
    """The compiled model does not agree with full inference."""

    exit_code = 1
