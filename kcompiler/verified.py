"""Writing and verifying: what is written is compared with full inference, and written again more exactly until it agrees."""

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
"""Positions compared, fewer of models that take long: the corners, and one for every alignment to strides. The second figure
where an error found at the first is over VERIFIED_AT_ONCE of what is allowed."""
VERIFIED_AT_ONCE, VERIFIED_SHARE = 0.4, 0.8
"""What an error that is found may have of what is allowed: a sample does not show the largest of all, and a smaller one less."""
HARDLY_FURTHER = 1.1
"""An error that much larger is as good as one of less rounding."""
DEFECT = "{}; nothing was written. This is a defect of kcompiler: please report it with the model"


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice that was written, and how far it was from full inference."""

    choice: Choice
    comparison: Comparison


def write_and_verify(analysed: Analysed, options: Options, folder: Path) -> Manifest:
    """Writes the bundle, then the two models of it again with a tighter bound on rounding until they agree with full inference.

    Raises:
        BatchError: the normalised model gives other outputs than the source.
        CheckFailed: the compiled model disagrees with full inference, whatever the bound, or an approximate variant is not sound.
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
        for approximation in {one.name: one for one in options.approximations}.values():
            approximate += write_approximate(analysed, options, approximation, folder, weights)
    notes = (*manifest.report.notes, *_given_up(analysed, tried), *left_out(options, approximate))
    report = manifest.report.model_copy(update={"largest_error": comparison.largest_error, "notes": notes})
    variants = (*manifest.variants, *approximate)
    files = {
        **manifest.files,
        **{name: file_record(folder / name) for one in variants for name in (one.baseline, one.incremental)},
    }
    files[WEIGHTS] = file_record(folder / WEIGHTS)
    manifest = manifest.model_copy(update={"report": report, "variants": variants, "files": files})
    _write(folder, manifest)
    if unsound := verifiers[0].unsound():
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


def _attempts(analysed: Analysed, options: Options, tried: Sequence[Tried]) -> Iterator[Analysed]:
    """Ever more exact ones; at the end by full inference, where that is no defect: see :func:`_beyond_regions`."""
    yield from analysed.ever_more_exact(options)
    last = tried[-1].comparison
    if not any(one.comparison.agrees for one in tried) and _beyond_regions(last):
        yield analysed.whole(options, f"with regions recomputed, {last.reason}")


def _settled(tried: Sequence[Tried]) -> Tried:
    """The last one if it is the first that keeps a margin, or if none agrees.

    Otherwise transforms are not what uses the margin up: the fastest that is hardly further off than any.
    """
    agreeing = [one for one in tried if one.comparison.agrees]
    if not agreeing or agreeing[-1].comparison.share <= VERIFIED_SHARE:
        return tried[-1]
    limit = HARDLY_FURTHER * min(one.comparison.share for one in agreeing)
    return next(one for one in agreeing if one.comparison.share <= limit)


def _given_up(analysed: Analysed, tried: Sequence[Tried]) -> Iterator[str]:
    """What became of the fastest algorithms, if they were not exact enough."""
    first = tried[0].comparison
    if analysed.choice is tried[0].choice:
        return
    found = first.reason or f"an error took {first.share:.0%} of what is allowed"
    transforms = "transforms of less rounding" if analysed.choice.error else "no transforms of convolutions"
    yield f"{'runs whole' if analysed.choice.plan.all_dense else f'takes {transforms}'}: with the fastest algorithms {found}"


def _beyond_regions(comparison: Comparison) -> bool:
    """Whether recomputed regions may disagree so without a defect.

    The model amplifies the rounding of any other order of sums beyond what is allowed; or what is infinite or not a number
    differs, since sums over the parts of a map do not keep infinities apart: zero times infinity is no number.
    """
    return comparison.rounding or bool(np.isinf(comparison.largest_error))


def _compared(quick: Verifier, close: Verifier) -> Comparison:
    """The exact variant with full inference, closely where a quick look leaves open whether it is exact enough."""
    try:
        comparison = quick.compared()
    except BundleError as error:  # that full inference loads was seen before
        return incomparable(f"the compiled graph does not load ({error})")
    open_still = comparison.agrees and VERIFIED_AT_ONCE < comparison.share <= VERIFIED_SHARE
    return close.compared() if open_still else comparison


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
