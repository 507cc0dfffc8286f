"""Writing and verification: a written bundle is compared with full inference, and rewritten more exactly until it agrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kcompiler.analysed import Analysed, for_patch, on_device
from kcompiler.options import Options, check_labels
from kcompiler.passes.choosing.devices import CPU, DEVICES, Device
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.passes.verify import Verifier, verify_normalised
from kcompiler.runtime.bundle.digests import FileRecord, file_record
from kcompiler.runtime.bundle.manifest import FILES, FULL, MANIFEST, Manifest, PatchSet, patch_text
from kcompiler.runtime.bundle.manifest_file import manifest_bytes
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.errors import CheckFailed
from kcompiler.runtime.measuring.check import COMPARE
from kcompiler.runtime.progress import Stages
from kcompiler.settled import DEFECT, Verifiers, given_up, kept_of, settled
from kcompiler.stages import APPROXIMATE, CHECK, CHOOSE, UNSOUND, WRITE, silent
from kcompiler.variants import left_out, manifest_of, with_tf32, write_approximate, write_variant

VERIFIED_POSITIONS, VERIFIED_CLOSELY = 36, 72
"""Compared positions, fewer for large models: the corners, and a position for every alignment to strides. The second figure is
for models whose error at the first is over VERIFIED_AT_ONCE of the tolerance."""


def write_and_verify(analysed: Analysed, options: Options, folder: Path, stages: Stages | None = None) -> Manifest:
    """Writes the bundle, and rewrites its baseline and incremental models with smaller error budgets until they are exact.

    ``stages`` reports the progress.

    Raises:
        BatchError: the outputs of the normalised model differ from the source's.
        CheckFailed: no attempt agrees with full inference, or an approximate variant is unsound.
    """
    own_output = analysed.graph.outputs[0].name
    stages = stages or silent()
    stages.enter(CHECK)
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        classes = verify_normalised(
            analysed.source, analysed.head.output, folder / FULL, own_output, analysed.head.logits, analysed.largest_batch,
            analysed.head.reduction,
        )  # fmt: skip
        check_labels(options, classes, two_classes=analysed.head.two_classes(classes))
        growing = Growing(folder, weights, partial(manifest_of, analysed, options, classes), stages)
        manifest = _compiled(analysed, options, growing)
        for others in options.of_further:
            stages.enter(CHOOSE, _of(others, CPU))
            _compiled(for_patch(analysed, others), others, growing)
        return growing.written() if options.further else manifest


@dataclass(slots=True)
class Growing:
    """A bundle that is being written: its manifest tells what is there.

    Attributes:
        folder: of the bundle.
        weights: its file of weights.
        manifest_of: the manifest of what is compiled for each patch, and the files.
        compiled: what is there for each patch.
    """

    folder: Path
    weights: WeightsFile
    manifest_of: Callable[[Sequence[PatchSet], Mapping[str, FileRecord]], Manifest]
    stages: Stages = field(default_factory=silent)
    compiled: dict[tuple[int, int], PatchSet] = field(default_factory=dict)

    def put(self, compiled: PatchSet) -> Manifest:
        """Replaces what is there for a patch, and writes the manifest; returns it for that patch alone."""
        self.compiled[compiled.patch] = compiled
        return self.written().for_patch(compiled.patch)

    def written(self) -> Manifest:
        """The manifest, which is also written."""
        self.weights.flush()
        compiled = tuple(self.compiled.values())
        variants = (variant for one in compiled for variant in (*one.variants, *one.device_variants))
        names = {*FILES, *(name for variant in variants for name in variant.files)}
        manifest = self.manifest_of(compiled, {name: file_record(self.folder / name) for name in sorted(names)})
        (self.folder / MANIFEST).write_bytes(manifest_bytes(manifest))
        return manifest


def _compiled(analysed: Analysed, options: Options, growing: Growing) -> Manifest:
    """Writes and verifies what there is for a patch; returns the manifest for that patch alone.

    Raises:
        CheckFailed: see :func:`write_and_verify`.
    """
    folder, weights, patch, stages = growing.folder, growing.weights, options.patch, growing.stages
    of = _of(options, CPU)
    quick, close = (Verifier(folder, count, patch, stages.within) for count in (VERIFIED_POSITIONS, VERIFIED_CLOSELY))
    verifiers = Verifiers(quick, close, partial(stages.enter, COMPARE, of))
    mark = weights.mark()

    def write(attempt: Analysed) -> Manifest:
        stages.enter(WRITE, of)
        weights.rewind(mark)
        exact = write_variant(attempt, "exact", options, folder, weights)
        return growing.put(PatchSet(patch=patch, variants=(exact,), report=attempt.report))

    analysed, manifest, tried = settled(analysed, options, write, verifiers, CPU.name)
    approximate, reasons = _approximate(analysed, options, growing)
    device_variants, device_notes = _for_device(analysed, options, growing, manifest, verifiers)
    notes = (*manifest.report.notes, *given_up(analysed, tried), *left_out(CPU.name, reasons), *device_notes)
    report = manifest.report.model_copy(update={"largest_error": kept_of(tried).comparison.largest_error, "notes": notes})
    variants = (*manifest.variants, *approximate)
    manifest = growing.put(PatchSet(patch=patch, variants=variants, device_variants=device_variants, report=report))
    if approximate:
        stages.enter(UNSOUND, of)
    if unsound := verifiers.quick.unsound(CPU.name):
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant is not sound ({unsound})"))
    return manifest


def _of(options: Options, device: Device) -> str:
    """What a stage is for, where there are several patches or devices."""
    parts = [f"patch {patch_text(options.patch)}"] if options.further or options.is_further else []
    parts += [] if device is CPU else [device.name]
    return f"for {', '.join(parts)}" if parts else ""


def _approximate(analysed: Analysed, options: Options, growing: Growing) -> tuple[list[Variant], dict[str, str]]:
    """The approximate variants that are written, and by name why the others that are requested are not."""
    written: dict[str, Variant | str] = {}
    for approximation in options.approximations:
        growing.stages.enter(APPROXIMATE, approximation.name)
        written[approximation.name] = write_approximate(analysed, options, approximation, growing.folder, growing.weights)
    reasons = {name: found for name, found in written.items() if isinstance(found, str)}
    return [found for found in written.values() if isinstance(found, Variant)], reasons


def _for_device(
    analysed: Analysed, options: Options, growing: Growing, manifest: Manifest, verifiers: Verifiers
) -> tuple[tuple[Variant, ...], tuple[str, ...]]:
    """Writes the variants for the device that ``options`` name beside the CPU, verified on the CPU; returns them, and notes.

    Raises:
        CheckFailed: see :func:`write_and_verify`.
    """
    device = DEVICES[options.device]
    if device is CPU:
        return (), ()
    options = replace(options, extents="classes")
    folder, weights, mark, stages = growing.folder, growing.weights, growing.weights.mark(), growing.stages
    of = _of(options, device)
    stages.enter(CHOOSE, of)
    verifiers = replace(verifiers, begin=partial(stages.enter, COMPARE, of))

    def put(*variants: Variant) -> Manifest:
        exact = PatchSet(patch=options.patch, variants=manifest.variants, device_variants=variants, report=manifest.report)
        return growing.put(exact)

    def write(attempt: Analysed) -> Manifest:
        stages.enter(WRITE, of)
        weights.rewind(mark)
        if any(decision.incremental for decision in attempt.plan.decisions):
            return put(write_variant(attempt, "exact", options, folder, weights))
        # Nothing of the device's own is written: full inference evaluates positions.
        whole = {"device": device.name, "whole": True, "batch": attempt.choice.batch, "predicted_speedup": 1.0}
        return put(manifest.exact.model_copy(update=whole))

    chosen = on_device(analysed, options, device)
    if chosen.chooser.dense:
        return write(chosen).device_variants, ()
    chosen, written, tried = settled(chosen, options, write, verifiers, device.name)
    approximate, reasons = _approximate(chosen, options, growing)
    variants = [*written.device_variants, *approximate]
    notes = (*(f"{device.name}: {note}" for note in given_up(chosen, tried)), *left_out(device.name, reasons))
    if options.precision == "tf32":
        variants += [variant.model_copy(update={"name": with_tf32(variant.name), "tf32": True}) for variant in variants]
    put(*variants)
    if approximate:
        stages.enter(UNSOUND, of)
    if unsound := verifiers.quick.unsound(device.name):
        raise CheckFailed(DEFECT.format(f"{manifest.model}: an approximate variant for {device.name} is not sound ({unsound})"))
    return tuple(variants), notes
