"""The oracle of exactness: a compiled model against the source file and against full inference, at every position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from source_file import cover_by_hand, positions_of, run_file

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.exactness.compare import compare, worst
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.measuring.check import Reference

FILL = (0.7, -1.2, 3.0)


def assert_exact_everywhere(model: Path, options: Options) -> Explainer:
    """As docs/exactness.md has it: with the file run by ONNX Runtime on images that are covered by hand, and with full inference.

    The file is that of an image of float32, channels first, and has one output, which is explained. If it is compiled for another
    device, too, the CPU runs the variant for that as well.
    """
    bundle = compile_file(model, options)
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, owner=bundle)
    positions = positions_of(explainer.manifest.shape[1:], options.patch, cut_off=True)
    reference = Reference(explainer, positions, fill=FILL, seed=1)
    covered = cover_by_hand(reference.image[0], positions, FILL, options.patch)
    expected = run_file(model, covered).reshape(len(positions), -1)
    for device in dict.fromkeys(("cpu", options.device)):
        compiled = Explainer(bundle.folder, providers=["cpu"], threads=1, compiled_for=device)
        assert compiled.exact.variant.device == device
        assert_exact(compiled, reference, expected)
    return explainer


def assert_exact(explainer: Explainer, reference: Reference, expected: FloatArray) -> None:
    """A compiled model against the outputs of the file, ``expected`` [N, K], and of full inference."""

    def around_expected(numbers: IntArray) -> list[FloatArray]:
        """What another order of sums does to full inference; how far that is from the file is no rounding."""
        with np.errstate(invalid="ignore"):  # of what is infinite
            return [expected[numbers] + (other - reference.outputs[numbers]) for other in reference.reordered(numbers)]

    found = reference.evaluated(explainer.exact, explainer.exact.baseline(reference.image, reference.fill))
    for oracle, comparison in (
        ("the file", worst({way: compare(one, expected, around_expected) for way, one in found.items()})),
        ("full inference", worst({way: reference.judged(one) for way, one in found.items()})),
    ):
        assert comparison.agrees, f"{explainer.exact.variant.device}, {oracle}: {comparison.reason}"
