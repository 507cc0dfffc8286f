"""What covers: ways to make the picture, or the patches, that :meth:`kcompiler.Explainer.explain` takes as ``fill``."""

from kcompiler.runtime.inputs.fills import Blur, Conditional, Marginal, Mean, Noise, PatchFill, PatchMean, PictureFill

__all__ = ["Blur", "Conditional", "Marginal", "Mean", "Noise", "PatchFill", "PatchMean", "PictureFill"]
