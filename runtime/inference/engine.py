"""The engine: one compiled variant of a model, which evaluates batches of positions from the caches of a baseline pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import FILL, PATCH_KEY, POSITIONS, Manifest, Variant, patch_text
from kcompiler.runtime.bundle.unaltered import Unaltered
from kcompiler.runtime.errors import BundleError, UsageError
from kcompiler.runtime.inference.full import FullInference, side_by_side
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inference.sessions import Machine, onnxruntime
from kcompiler.runtime.inference.variant_sessions import VariantSessions
from kcompiler.runtime.inference.workers import Workers
from kcompiler.runtime.inputs.fills import PatchFill, apart, collage
from kcompiler.runtime.inputs.images import Fill, cover, covering

if TYPE_CHECKING:
    import onnxruntime as ort


SMALL_BATCH = 8
"""Positions that each of the batches under way must have memory for, if there are to be several."""
SIDE_BY_SIDE = 2
"""Images in each of several batches of full inference at once: their activations stay in a core's caches. EfficientNet B0 takes
0.84 of the time of 8 so, Swin-T 0.92. One batch at a time, on all threads or another device, is better larger."""


Keep = Callable[[FloatArray], FloatArray]
"""What is kept of outputs float32 [n, K]: [n], or [n, ...]."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The uncovered image, ready to be covered: everything stays on the device.

    Attributes:
        image: float32 [1, C, H, W].
        fill: float32 [C, H, W], what shows through the patch.
        patches: makes what covers each position, if it is not the same picture for all.
        feeds: cached activations and fill by input name of the incremental model; none where full inference evaluates positions.
        mask: the cells of each class in the uncovered image, where the driver reduces outputs over those.
    """

    image: FloatArray
    fill: FloatArray
    feeds: dict[str, ort.OrtValue]
    patches: PatchFill | None = None
    mask: BoolArray | None = None


class Engine:
    """One variant of a bundle: sessions open when first needed."""

    def __init__(
        self,
        files: Unaltered,
        manifest: Manifest,
        variant: Variant,
        machine: Machine,
        memory: int,
        full: Callable[[Machine], FullInference],
        *,
        graphs: bool = False,
    ) -> None:
        """For ``variant`` of a bundle.

        Args:
            files: of the bundle.
            memory: bytes that the batches under way may take together, beside weights and cached activations.
            full: returns full inference on a machine, for what it takes less time for.
            graphs: run the compiled graphs even where nothing in them is incremental, as other stacks do: to verify them.

        Raises:
            UsageError: the memory is not enough for one position.
            ProviderError: ONNX Runtime, or a provider that was asked for, is absent.
        """
        self.folder, self.manifest, self.variant, self.machine = files.folder, manifest, variant, machine
        self._full, self._graphs = full, graphs
        several = variant.bytes_per_batch + variant.bytes_per_position * min(variant.batch, manifest.largest_batch, SMALL_BATCH)
        count, self._share = machine.divided(max(memory // several, 1))
        self.workers = Workers(count)
        self.sessions = VariantSessions(files, variant, machine, self._share, count)
        batch = _batch_within(manifest, variant, memory // count)
        self.batch = min(batch, SIDE_BY_SIDE) if count > 1 and variant.whole and not graphs else batch

    @property
    def device(self) -> str:
        """Where activations are kept: "cuda" or "cpu"."""
        return self.sessions.device

    def open(self) -> None:
        """Opens the sessions now.

        Raises:
            BundleError: the models are not those that the manifest describes.
        """
        baseline, incremental = self.sessions.baseline, self.sessions.incremental
        image = baseline.get_inputs()[0]
        found = (image.name, tuple(image.shape[1:]), incremental.get_modelmeta().custom_metadata_map.get(PATCH_KEY))
        manifest = self.manifest
        expected = (manifest.image, manifest.shape, patch_text(manifest.patch))
        outputs = [value.name for value in incremental.get_outputs()]
        if found != expected or outputs != list(manifest.outputs):
            raise BundleError(f"{self.folder}: manifest and models disagree ({expected} and {found}); compile the model again")

    def baseline(self, image: FloatArray, fill: Fill = 0.0, positions: int | None = None) -> Baseline:
        """The baseline pass: the cached activations of the uncovered image (float32 [1, C, H, W]), on the device.

        ``positions`` is how many are to be evaluated, if that is known: for few it does not pay, and they run by full inference.
        """
        covered_by = covering(fill, image, element=self.manifest.image_element)
        patches = covered_by if isinstance(covered_by, PatchFill) else None
        picture = image[0] if isinstance(covered_by, PatchFill) else covered_by
        few = not self._graphs and positions is not None and positions < self.variant.few
        if few or (self.variant.whole and not self._graphs):
            return Baseline(image, picture, {}, patches, self._mask(image))
        session = self.sessions.baseline
        binding = session.io_binding()
        binding.bind_cpu_input(self.manifest.image, image)
        names = [value.name for value in session.get_outputs()]
        for name in names:
            binding.bind_output(name, self.device)
        session.run_with_iobinding(binding)
        values = dict(zip(names, binding.get_outputs(), strict=True))
        return self._covered_by(picture, Baseline(image, picture, values, patches, self._mask(image)))

    def _mask(self, image: FloatArray) -> BoolArray | None:
        """The cells of each class by full inference: a last bit of the incremental model would move cells from class to class."""
        reduction = self.manifest.reduction
        return self._full(self.machine).mask(image) if reduction is not None and reduction.by_driver else None

    def _covered_by(self, picture: FloatArray, baseline: Baseline) -> Baseline:
        """The same with ``picture``, float32 [C, H, W], for what shows through the patch."""
        if not baseline.feeds:
            return replace(baseline, fill=picture)
        rows = np.ascontiguousarray(picture.reshape(len(picture), -1).T)
        feeds = {**baseline.feeds, FILL: onnxruntime().OrtValue.ortvalue_from_numpy(rows, self.device, 0)}
        read = self.sessions.inputs
        return replace(baseline, fill=picture, feeds={name: value for name, value in feeds.items() if name in read})

    def unoccluded(self, baseline: Baseline, *outputs: str) -> FloatArray:
        """The model's outputs for the image itself, float32 [K]: covering it with its own pixels changes nothing."""
        itself = self._covered_by(baseline.image[0], baseline)
        found: FloatArray = self._evaluate(itself, np.zeros((1, 2), np.int64), *outputs, alone=not self._several(itself))[0]
        return found

    def evaluate(self, baseline: Baseline, positions: IntArray, *outputs: str) -> FloatArray:
        """One batch of positions, int64 [N, 2], N >= 1: ``outputs`` (none named: the explained one), float32 [N, K a name]."""
        return self._evaluate(baseline, positions, *outputs, alone=True)

    def _evaluate(
        self, baseline: Baseline, positions: IntArray, *outputs: str, alone: bool, by_worker: bool = False
    ) -> FloatArray:
        raw = self._raw(baseline, positions, *outputs, alone=alone, by_worker=by_worker)
        reduction = self.manifest.reduction
        return raw if reduction is None or baseline.mask is None else reduction.apply(raw, baseline.mask)

    def _raw(self, baseline: Baseline, positions: IntArray, *outputs: str, alone: bool, by_worker: bool) -> FloatArray:
        """What the models put out."""
        if not baseline.feeds:
            covered = cover(baseline.image, baseline.fill, positions, self.manifest.patch)
            return self._full(self.machine if alone else self._share).raw(covered, *outputs)
        session = self.sessions.alone if alone else self.sessions.of_worker() if by_worker else self.sessions.incremental
        binding = session.io_binding()
        for name, value in baseline.feeds.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_cpu_input(POSITIONS, np.ascontiguousarray(positions))
        for name in outputs or (self.manifest.output,):
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        return side_by_side(binding.copy_outputs_to_cpu(), len(positions))

    def _several(self, baseline: Baseline) -> bool:
        """Whether there are to be several batches: full inference of a few positions is not what a batch is made for."""
        return bool(baseline.feeds) or self.variant.whole

    @cached_property
    def _extents(self) -> Extents:
        return Extents.of([(known.work, known.heights, known.widths) for known in self.variant.geometries], self.manifest.patch)

    def batches(self, positions: IntArray, size: int | None = None) -> list[IntArray]:
        """Indices into ``positions`` (int64 [N, 2]) of the batches they are evaluated in, or of batches of ``size``.

        They are smaller than they may be where otherwise some workers would have none in the last round. Fewer positions than
        make up a batch stay together, and have all threads: what each batch takes besides weighs more than what that loses.
        """
        if size is not None:
            return schedule(positions, self._extents, size)
        if len(positions) < self.batch:
            return schedule(positions, self._extents, self.batch)
        count, size = -(-len(positions) // self.batch), self.batch
        if idle := -count % self.workers.count:
            size = -(-len(positions) // (count + idle))
        return schedule(positions, self._extents, size)

    def work(self, batch: IntArray) -> float:
        """Predicted work of a position of a batch, int64 [N, 2], in no unit: as large as that of its largest region."""
        return self._extents.work(batch - np.array(self._extents.first))

    def run(
        self, baseline: Baseline, positions: IntArray, *outputs: str, deadline: float = np.inf, keep: Keep = lambda found: found
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """Batch by batch: indices into ``positions`` and outputs float32 [n, K a name].

        Args:
            keep: what is kept of a batch's outputs and yielded, such as one column: of dense outputs all would fill the memory.
            deadline: time (of ``time.perf_counter``) from which on no further batch is started.

        Raises:
            UsageError: patches are made for each position, and one is cut off by the image's edge.
        """
        if baseline.patches is not None:
            yield from self._run_patches(baseline, baseline.patches, positions, *outputs, deadline=deadline, keep=keep)
            return
        parts = self.batches(positions)
        workers, evaluate = self._at_once(baseline, len(parts), *outputs)
        yield from workers.map(lambda part: (part, keep(evaluate(positions[part]))), parts, deadline)

    def evaluate_batches(self, baseline: Baseline, batches: Sequence[IntArray], *outputs: str) -> Iterator[FloatArray]:
        """The same as :meth:`evaluate` for each of ``batches``, in order, several at once."""
        workers, evaluate = self._at_once(baseline, len(batches), *outputs)
        return workers.map(evaluate, batches)

    def _at_once(self, baseline: Baseline, count: int, *outputs: str) -> tuple[Workers, Callable[[IntArray], FloatArray]]:
        """What runs ``count`` batches, and what evaluates one of them."""
        alone = count < 2 or self.workers.count == 1 or not self._several(baseline)
        if not (baseline.feeds or alone):
            self._full(self._share)  # opened before several threads ask for it
        workers = Workers(1) if alone else self.workers
        return workers, lambda batch: self._evaluate(baseline, batch, *outputs, alone=alone, by_worker=not alone)

    def _run_patches(
        self, baseline: Baseline, patches: PatchFill, positions: IntArray, *outputs: str, deadline: float, keep: Keep
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """The same where each position has patches of its own: means over their samples."""
        image, patch = baseline.image[0], self.manifest.patch
        last = np.array(image.shape[1:]) - patch
        if ((positions < 0) | (positions > last)).any():
            raise UsageError(f"fill {patches!r} makes whole patches only, expected (y, x) between [0, 0] and {last.tolist()}")
        for numbers in apart(positions, patch):
            group = positions[numbers]
            parts = self.batches(group)
            totals: list[FloatArray | float] = [0.0] * len(parts)
            for sample in range(patches.samples):
                made = self.manifest.image_element.fitted(patches.patches(image, group, patch, sample))
                picture = collage(image, made, group)
                covered = self._covered_by(picture, baseline)
                for place, found in enumerate(self.evaluate_batches(covered, [group[part] for part in parts], *outputs)):
                    totals[place] = totals[place] + keep(found)
            for part, total in zip(parts, totals, strict=True):
                yield numbers[part], np.asarray(total / np.float32(patches.samples), np.float32)
            if time.perf_counter() >= deadline:
                return

    def scores(self, baseline: Baseline, positions: IntArray, output: str, keep: Keep) -> FloatArray:
        """Of any number of positions, int64 [N, 2], what ``keep`` reads from the output of that name: float32 [N]."""
        result = np.empty(len(positions), np.float32)
        for part, found in self.run(baseline, positions, output, keep=keep):
            result[part] = found
        return result

    def evaluate_all(self, baseline: Baseline, positions: IntArray, *outputs: str) -> FloatArray:
        """Any number of positions, int64 [N, 2], batch by batch: outputs float32 [N, K a name]."""
        result = np.empty((len(positions), self.manifest.classes * max(len(outputs), 1)), np.float32)
        for part, found in self.run(baseline, positions, *outputs):
            result[part] = found
        return result


def _batch_within(manifest: Manifest, variant: Variant, memory: int) -> int:
    least = variant.bytes_per_batch + variant.bytes_per_position
    if memory < least:
        raise UsageError(f"memory is {memory} bytes, but one position of this model takes about {least}; allow more")
    return min(variant.batch, manifest.largest_batch, (memory - variant.bytes_per_batch) // variant.bytes_per_position)
