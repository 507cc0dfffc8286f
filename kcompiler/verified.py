"""Writing and verification: a written bundle is compared with full inference, and rewritten more exactly until it agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kcompiler.analysed import Analysed, on_device
from kcompiler.options import Options, check_labels
from kcompiler.passes.choosing.choice import Choice
from kcompiler.passes.choosing.devices import CPU, DEVICES
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.verify import Verifier, verify_normalised
from kcompiler.runtime.bundle.manifest import FILES, FULL, MANIFEST, WEIGHTS, Manifest, file_record
from kcompiler.runtime.bundle.variant import DeviceName, Variant
from kcompiler.runtime.errors import BundleError, CheckFailed
from kcompiler.runtime.exactness.compare import Comparison, incomparable
from kcompiler.variants import left_out, manifest_of, with_tf32, write_approximate, write_variant

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
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        classes = verify_normalised(
            analysed.source, analysed.head.output, folder / FULL, own_output, analysed.head.logits, analysed.largest_batch,
            analysed.head.reduction,
        )  # fmt: skip
        check_labels(options, classes, two_classes=analysed.head.two_classes(classes))
        verifiers = Verifiers(Verifier(folder, VERIFIED_POSITIONS), Verifier(folder, VERIFIED_CLOSELY))
        mark = weights.mark()

        def write(attempt: Analysed) -> Manifest:
            weights.rewind(mark)
            exact = write_variant(attempt, "exact", options, folder, weights)
            manifest = manifest_of(attempt, options, exact, classes, folder)
            _write(folder, manifest)
            return manifest

        analysed, manifest, tried = settled(analysed, options, write, verifiers, CPU.name)
        approximate, reasons = _approximate(analysed, options, folder, weights)
        device_variants, device_notes = _for_device(analysed, options, folder, weights, manifest, verifiers)
    notes = (*manifest.report.notes, *_given_up(analysed, tried), *left_out(CPU.name, reasons), *device_notes)
    report = manifest.report.model_copy(update={"largest_error": _kept(tried).comparison.largest_error, "notes": notes})
    manifest = manifest.model_copy(update={"report": report, "variants": (*manifest.variants, *approximate)})
    manifest = _complete(manifest, folder, device_variants)
    _write(folder, manifest)
    if unsound := verifiers.quick.unsound(CPU.name):
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


@dataclass(frozen=True, slots=True)
class Verifiers:
    """Compare a written bundle with full inference, at few positions or at more."""

    quick: Verifier
    close: Verifier

    def compared(self, device: DeviceName) -> Comparison:
        """The comparison of a device's exact variant, at more positions where that at few is inconclusive."""
        try:
            comparison = self.quick.compared(device)
        except BundleError as error:  # full inference has been loaded before, so it is the compiled graph
            return incomparable(f"the compiled graph does not load ({error})")
        inconclusive = comparison.agrees and VERIFIED_AT_ONCE < comparison.share <= VERIFIED_SHARE
        return self.close.compared(device) if inconclusive else comparison


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
    kept = _kept(tried)
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


def _approximate(
    analysed: Analysed, options: Options, folder: Path, weights: WeightsFile
) -> tuple[list[Variant], dict[str, str]]:
    """The approximate variants that are written, and by name why the others that are requested are not."""
    requested = {approximation.name: approximation for approximation in options.approximations}
    written = {name: write_approximate(analysed, options, one, folder, weights) for name, one in requested.items()}
    reasons = {name: found for name, found in written.items() if isinstance(found, str)}
    return [found for found in written.values() if isinstance(found, Variant)], reasons


def _for_device(
    analysed: Analysed, options: Options, folder: Path, weights: WeightsFile, manifest: Manifest, verifiers: Verifiers
) -> tuple[list[Variant], tuple[str, ...]]:
    """Writes the variants for the device that ``options`` name beside the CPU, verified on the CPU; returns them, and notes.

    Raises:
        CheckFailed: see :func:`write_and_verify`.
    """
    device = DEVICES[options.device]
    if device is CPU:
        return [], ()
    options = replace(options, extents="classes")
    mark = weights.mark()

    def write(attempt: Analysed) -> Manifest:
        weights.rewind(mark)
        if not any(decision.incremental for decision in attempt.plan.decisions):
            # Nothing of the device's own is written: full inference evaluates positions.
            whole = {"device": device.name, "whole": True, "batch": attempt.choice.batch, "predicted_speedup": 1.0}
            variant = manifest.exact.model_copy(update=whole)
        else:
            variant = write_variant(attempt, "exact", options, folder, weights)
        written = _complete(manifest, folder, [variant])
        _write(folder, written)
        return written

    chosen = on_device(analysed, options, device)
    if chosen.chooser.dense:
        return list(write(chosen).device_variants), ()
    chosen, written, tried = settled(chosen, options, write, verifiers, device.name)
    approximate, reasons = _approximate(chosen, options, folder, weights)
    variants = [*written.device_variants, *approximate]
    notes = (*(f"{device.name}: {note}" for note in _given_up(chosen, tried)), *left_out(device.name, reasons))
    if options.precision == "tf32":
        variants += [variant.model_copy(update={"name": with_tf32(variant.name), "tf32": True}) for variant in variants]
    _write(folder, _complete(manifest, folder, variants))
    if unsound := verifiers.quick.unsound(device.name):
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant for {device.name} is not sound ({unsound})"))
    return variants, notes


def _complete(manifest: Manifest, folder: Path, device_variants: Sequence[Variant]) -> Manifest:
    """``manifest`` with other variants for devices, and with records of all files of the bundle."""
    variants = (*manifest.variants, *device_variants)
    names = {*FILES, *(name for variant in variants for name in variant.files)}
    known = {name: record for name, record in manifest.files.items() if name != WEIGHTS}
    files = {name: known[name] if name in known else file_record(folder / name) for name in sorted(names)}
    return manifest.model_copy(update={"device_variants": tuple(device_variants), "files": files})


def _attempts(analysed: Analysed, options: Options, tried: Sequence[Tried]) -> Iterator[Analysed]:
    """Ever more exact rewritings; at the end full inference, where the disagreement is no defect (:func:`_beyond_regions`)."""
    yield from analysed.ever_more_exact(options)
    last = tried[-1].comparison
    if not any(attempt.comparison.agrees for attempt in tried) and _beyond_regions(last):
        yield analysed.whole(options, f"with regions recomputed, {last.reason}")


def _kept(tried: Sequence[Tried]) -> Tried:
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


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
