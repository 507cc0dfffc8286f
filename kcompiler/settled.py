"""Settling on a rewriting: ever more exact ones are written and compared with full inference, until one agrees with a margin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kcompiler.analysed import Analysed
from kcompiler.options import Options
from kcompiler.passes.choosing.choice import Choice
from kcompiler.passes.verify import Verifier
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.errors import BundleError, CheckFailed
from kcompiler.runtime.exactness.compare import Comparison, incomparable

VERIFIED_AT_ONCE, VERIFIED_SHARE = 0.4, 0.8
"""Largest accepted fraction of the tolerance, at VERIFIED_POSITIONS and VERIFIED_CLOSELY positions: the error of a sample of
positions is less than the largest of all, more so for a smaller sample."""
HARDLY_FURTHER = 1.1
"""Ratio up to which an error counts as no larger than another, so that the faster choice is taken."""
DEFECT = "{}; nothing was written. This is a defect of kcompiler: please report it with the model"


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice that was written, and its comparison with full inference."""

    choice: Choice
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Verifiers:
    """Compare a written bundle with full inference, at few positions or at more; ``begin`` reports that a comparison begins."""

    quick: Verifier
    close: Verifier
    begin: Callable[[], None] = lambda: None

    def compared(self, device: DeviceName) -> Comparison:
        """The comparison of a device's exact variant, at more positions where that at few is inconclusive."""
        self.begin()
        try:
            comparison = self.quick.compared(device)
        except BundleError as error:  # full inference has been loaded before, so it is the compiled graph
            return incomparable(f"the compiled graph does not load ({error})")
        inconclusive = comparison.agrees and VERIFIED_AT_ONCE < comparison.share <= VERIFIED_SHARE
        if not inconclusive:
            return comparison
        self.begin()
        return self.close.compared(device)


def settled(
    analysed: Analysed, options: Options, write: Callable[[Analysed], Manifest], verifiers: Verifiers, device: DeviceName
) -> tuple[Analysed, Manifest, list[Tried]]:
    """Writes attempts, by ``write``, until the exact variant for ``device`` agrees with full inference with a margin.

    Returns:
        what is written at the end, its manifest, and all attempts.

    Raises:
        CheckFailed: no attempt agrees.
    """
    tried: list[Tried] = []
    for attempt in _attempts(analysed, options, tried):
        manifest = write(attempt)
        tried.append(Tried(attempt.choice, verifiers.compared(device)))
        if tried[-1].comparison.agrees and tried[-1].comparison.share <= VERIFIED_SHARE:
            break
    kept = kept_of(tried)
    if kept is tried[-1]:
        analysed = attempt
    else:
        analysed = analysed.by(kept.choice, options)
        manifest = write(analysed)
    if not kept.comparison.agrees:
        raise CheckFailed(
            DEFECT.format(f"{manifest.model}: the compiled model disagrees with full inference ({kept.comparison.reason})")
        )
    return analysed, manifest, tried


def _attempts(analysed: Analysed, options: Options, tried: Sequence[Tried]) -> Iterator[Analysed]:
    """Ever more exact rewritings; at the end full inference, where the disagreement is no defect (:func:`_beyond_regions`)."""
    yield from analysed.ever_more_exact(options)
    last = tried[-1].comparison
    if not any(attempt.comparison.agrees for attempt in tried) and _beyond_regions(last):
        yield analysed.whole(options, f"with regions recomputed, {last.reason}")


def kept_of(tried: Sequence[Tried]) -> Tried:
    """The attempt to keep: the last if it has a margin of VERIFIED_SHARE, or if none agrees.

    Otherwise all attempts that agree exceed the margin, which transforms do not explain: the fastest of about the least error.
    """
    agreeing = [attempt for attempt in tried if attempt.comparison.agrees]
    if not agreeing or agreeing[-1].comparison.share <= VERIFIED_SHARE:
        return tried[-1]
    limit = HARDLY_FURTHER * min(attempt.comparison.share for attempt in agreeing)
    return next(attempt for attempt in agreeing if attempt.comparison.share <= limit)


def given_up(analysed: Analysed, tried: Sequence[Tried]) -> Iterator[str]:
    """A note on the replacement of the fastest algorithms, if they were not exact enough."""
    first = tried[0].comparison
    if analysed.choice is tried[0].choice:
        return
    problem = first.reason or f"an error took {first.share:.0%} of what is allowed"
    transforms = "transforms of less rounding" if analysed.choice.error else "no transforms of convolutions"
    yield f"{'runs whole' if analysed.choice.plan.all_dense else f'takes {transforms}'}: with the fastest algorithms {problem}"


def _beyond_regions(comparison: Comparison) -> bool:
    """Whether recomputed regions may disagree in this way without a defect.

    Either the model amplifies the rounding of any reordered sum beyond the tolerance, or infinities and NaNs differ: sums over
    parts of a map multiply infinities by zeros, which is NaN.
    """
    return comparison.rounding or bool(np.isinf(comparison.largest_error))
