"""The explainers of a bundle that is compiled for several patches."""

from __future__ import annotations

from kcompiler.runtime.explainer import Explainer
from kcompiler.serving.asked import Patch


class Patches:
    """An explainer for each patch; all but the first are opened when a page first asks for theirs.

    Attributes:
        first: the explainer of the patch that pages begin with.
    """

    def __init__(self, first: Explainer) -> None:
        self.first = first
        self._opened = {first.manifest.patch: first}

    def explainer(self, patch: Patch | None) -> Explainer:
        """The explainer for a patch, (height, width) in pixels; None is the first.

        Raises:
            UsageError: the bundle is not compiled for the patch.
        """
        if patch is None:
            return self.first
        if patch not in self._opened:
            self._opened[patch] = self.first.for_patch(patch)
        return self._opened[patch]
