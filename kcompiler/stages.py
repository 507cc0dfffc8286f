"""The stages of compilation that its progress names, and the share of its time that each usually takes."""

from __future__ import annotations

from kcompiler.options import Options
from kcompiler.passes.choosing.devices import CPU, DEVICES
from kcompiler.runtime.measuring.check import COMPARE
from kcompiler.runtime.progress import Stages

READ, NORMALISE, CHOOSE, MEASURE = "reading", "normalising", "choosing algorithms", "measuring algorithms"
CHECK, WRITE = "checking the normalised model", "writing"
APPROXIMATE, UNSOUND = "adding the variant", "checking the approximate variants"
SHARES = {
    READ: 40, NORMALISE: 60, CHOOSE: 220, CHECK: 80, WRITE: 90, COMPARE: 510,
    MEASURE: 4000, APPROXIMATE: 100, UNSOUND: 200,
}  # fmt: skip
"""Thousandths of a compilation for one patch, about the medians of tests/bench/compile_time.py; those of
the last line come on top. Measuring (--calibrate) takes from half of the rest to nine times that."""


def analysing(options: Options) -> list[str]:
    """The stages of an analysis."""
    return [READ, NORMALISE, CHOOSE, *([MEASURE] if options.calibrate else [])]


def building(options: Options) -> list[str]:
    """The stages that follow, for all patches, variants and devices."""
    approximate = [*[APPROXIMATE] * len(options.approximations), UNSOUND] if options.approximations else []
    variants = [WRITE, COMPARE, *approximate]
    patches, devices = 1 + len(options.further), 1 if DEVICES[options.device] is CPU else 2
    return [CHECK, *[CHOOSE] * (patches * devices - 1), *variants * patches * devices]


def silent() -> Stages:
    """Progress that nobody looks at."""
    return Stages(None, SHARES)
