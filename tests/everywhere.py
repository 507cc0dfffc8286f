"""The oracle of exactness: a compiled model against full inference, at every position."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.measuring.check import check

NEVER_DENSE = 2.0
"""As ``dense_share``: more than any region's share of its map."""


def assert_exact_everywhere(model: Path, options: Options) -> Explainer:
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    rows, cols = (range(1 - side, size) for side, size in zip(options.patch, explainer.manifest.shape[1:], strict=True))
    everywhere = np.array([(y, x) for y in rows for x in cols])  # cut off by the edges, too
    comparison = check(explainer, everywhere, fill=(0.7, -1.2, 3.0), seed=1)
    assert comparison.agrees, comparison.reason
    return explainer
