"""Writing and verification: a written bundle is compared with full inference, and rewritten more exactly until it agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcompiler.analysed import Analysed
from kcompiler.options import Options, check_labels
from kcompiler.passes.choosing.choice import Choice
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.verify import Verifier, verify_normalised
from kcompiler.runtime.bundle.manifest import BASELINE, FULL, INCREMENTAL, MANIFEST, WEIGHTS, Manifest, Variant, file_record
from kcompiler.runtime.errors import BundleError, CheckFailed
from kcompiler.runtime.exactness.compare import Comparison, incomparable
from kcompiler.variants import left_out, manifest_of, write_approximate, write_variant

VERIFIED_POSITIONS, VERIFIED_CLOSELY = 36, 72
"""Compared positions, fewer for large models: the corners, and a position for every alignment to strides. The second figure is
for models whose error at the first is over VERIFIED_AT_ONCE of the tolerance."""
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


def write_and_verify(analysed: Analysed, options: Options, folder: Path) -> Manifest:
    """Writes the bundle, and rewrites its baseline and incremental models with smaller error budgets until they are exact.

    Raises:
        BatchError: the outputs of the normalised model differ from the source's.
        CheckFailed: no attempt agrees with full inference, or an approximate variant is unsound.
    """
    own_output = analysed.graph.outputs[0].name
    approximate: list[Variant] = []
    tried: list[Tried] = []
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        classes = verify_normalised(
            analysed.source, analysed.head.output, folder / FULL, own_output, analysed.head.logits, analysed.largest_batch,
            analysed.head.reduction,
        )  # fmt: skip
        check_labels(options, classes, two_classes=analysed.head.two_classes(classes))
        verifiers, mark = (Verifier(folder, VERIFIED_POSITIONS), Verifier(folder, VERIFIED_CLOSELY)), weights.mark()

        def write(attempt: Analysed) -> Manifest:
            weights.rewind(mark)
            exact = write_variant(attempt, "exact", (BASELINE, INCREMENTAL), options, folder, weights)
            manifest = manifest_of(attempt, options, exact, classes, folder)
            _write(folder, manifest)
            return manifest

        for attempt in _attempts(analysed, options, tried):
            manifest = write(attempt)
            tried.append(Tried(attempt.choice, _compared(*verifiers)))
            if tried[-1].comparison.agrees and tried[-1].comparison.share <= VERIFIED_SHARE:
                break
        settled = _settled(tried)
        if settled is tried[-1]:
            analysed = attempt
        else:
            analysed = analysed.by(settled.choice, options)
            manifest = write(analysed)
        comparison = settled.comparison
        if not comparison.agrees:
            raise CheckFailed(
                DEFECT.format(f"{manifest.model}: the compiled model disagrees with full inference ({comparison.reason})")
            )
        for approximation in {requested.name: requested for requested in options.approximations}.values():
            approximate += write_approximate(analysed, options, approximation, folder, weights)
    notes = (*manifest.report.notes, *_given_up(analysed, tried), *left_out(options, approximate))
    report = manifest.report.model_copy(update={"largest_error": comparison.largest_error, "notes": notes})
    variants = (*manifest.variants, *approximate)
    files = {
        **manifest.files,
        **{name: file_record(folder / name) for variant in variants for name in (variant.baseline, variant.incremental)},
    }
    files[WEIGHTS] = file_record(folder / WEIGHTS)
    manifest = manifest.model_copy(update={"report": report, "variants": variants, "files": files})
    _write(folder, manifest)
    if unsound := verifiers[0].unsound():
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


def _attempts(analysed: Analysed, options: Options, tried: Sequence[Tried]) -> Iterator[Analysed]:
    """Ever more exact rewritings; at the end full inference, where the disagreement is no defect (:func:`_beyond_regions`)."""
    yield from analysed.ever_more_exact(options)
    last = tried[-1].comparison
    if not any(attempt.comparison.agrees for attempt in tried) and _beyond_regions(last):
        yield analysed.whole(options, f"with regions recomputed, {last.reason}")


def _settled(tried: Sequence[Tried]) -> Tried:
    """The attempt to keep: the last if it has a margin of VERIFIED_SHARE, or if none agrees.

    Otherwise all attempts that agree exceed the margin, which transforms do not explain: the fastest of about the least error.
    """
    agreeing = [attempt for attempt in tried if attempt.comparison.agrees]
    if not agreeing or agreeing[-1].comparison.share <= VERIFIED_SHARE:
        return tried[-1]
    limit = HARDLY_FURTHER * min(attempt.comparison.share for attempt in agreeing)
    return next(attempt for attempt in agreeing if attempt.comparison.share <= limit)


def _given_up(analysed: Analysed, tried: Sequence[Tried]) -> Iterator[str]:
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


def _compared(quick: Verifier, close: Verifier) -> Comparison:
    """The comparison of the exact variant, at more positions (``close``) where that at few (``quick``) is inconclusive."""
    try:
        comparison = quick.compared()
    except BundleError as error:  # full inference has been loaded before, so it is the compiled graph
        return incomparable(f"the compiled graph does not load ({error})")
    inconclusive = comparison.agrees and VERIFIED_AT_ONCE < comparison.share <= VERIFIED_SHARE
    return close.compared() if inconclusive else comparison


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
