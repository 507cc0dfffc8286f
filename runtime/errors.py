"""Every error a user can meet. Messages name the file or node, what was found, what was expected, what to do."""

from __future__ import annotations


class KCompilerError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 3


class UsageError(KCompilerError):
    """A parameter is out of its range, or two do not go together."""

    exit_code = 2


class ModelError(KCompilerError):
    """The model is not valid ONNX, or not a model that can be compiled."""


class ImageError(KCompilerError):
    """The image cannot be read, or does not fit the model."""


class BundleError(KCompilerError):
    """The compiled bundle is incomplete, altered, or of another version."""


class ProviderError(KCompilerError):
    """ONNX Runtime is missing, or lacks the execution provider that was asked for."""


class CheckFailed(KCompilerError):
    """The compiled model does not agree with full inference."""

    exit_code = 1
