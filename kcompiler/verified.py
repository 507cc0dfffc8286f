"""Writing and verification: a written bundle is compared with full inference, and rewritten more exactly until it agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kcompiler.analysed import Analysed, on_device
from kcompiler.options import Options, check_labels
from kcompiler.passes.choosing.devices import CPU, DEVICES
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.verify import Verifier, verify_normalised
from kcompiler.runtime.bundle.manifest import FILES, FULL, MANIFEST, WEIGHTS, Manifest, file_record
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.errors import CheckFailed
from kcompiler.settled import DEFECT, Verifiers, given_up, kept_of, settled
from kcompiler.variants import left_out, manifest_of, with_tf32, write_approximate, write_variant

VERIFIED_POSITIONS, VERIFIED_CLOSELY = 36, 72
"""Compared positions, fewer for large models: the corners, and a position for every alignment to strides. The second figure is
for models whose error at the first is over VERIFIED_AT_ONCE of the tolerance."""


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
        approximate = _approximate(analysed, options, folder, weights)
        device_variants, device_notes = _for_device(analysed, options, folder, weights, manifest, verifiers)
    notes = (*manifest.report.notes, *given_up(analysed, tried), *left_out(options, CPU.name, approximate), *device_notes)
    report = manifest.report.model_copy(update={"largest_error": kept_of(tried).comparison.largest_error, "notes": notes})
    manifest = manifest.model_copy(update={"report": report, "variants": (*manifest.variants, *approximate)})
    manifest = _complete(manifest, folder, device_variants)
    _write(folder, manifest)
    if unsound := verifiers.quick.unsound(CPU.name):
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


def _approximate(analysed: Analysed, options: Options, folder: Path, weights: WeightsFile) -> list[Variant]:
    requested = {approximation.name: approximation for approximation in options.approximations}
    return [
        variant
        for approximation in requested.values()
        for variant in write_approximate(analysed, options, approximation, folder, weights)
    ]


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
    variants = [*written.device_variants, *_approximate(chosen, options, folder, weights)]
    notes = (*(f"{device.name}: {note}" for note in given_up(chosen, tried)), *left_out(options, device.name, variants))
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


def _write(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
