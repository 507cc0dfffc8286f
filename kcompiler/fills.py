"""Fills: classes that make a picture, or patches, for the ``fill`` of :meth:`kcompiler.Explainer.explain`."""

from kcompiler.runtime.inputs.fills import Blur, Conditional, Marginal, Mean, Noise, PatchFill, PatchMean, PictureFill

__all__ = ["Blur", "Conditional", "Marginal", "Mean", "Noise", "PatchFill", "PatchMean", "PictureFill"]
