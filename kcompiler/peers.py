"""Maps as other tools make them, by the tools' rules for positions and aggregation, from a compiled model."""

from kcompiler.runtime.peers import captum, monai, xplique

__all__ = ["captum", "monai", "xplique"]
