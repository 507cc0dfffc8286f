"""The engine: evaluates batches of positions with one compiled variant, from the cached activations of a baseline pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import PATCH_KEY, POSITIONS, Manifest, patch_text
from kcompiler.runtime.bundle.unaltered import Unaltered
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.errors import BundleError, UsageError
from kcompiler.runtime.inference import cuda
from kcompiler.runtime.inference.baseline import Baseline, BaselinePass
from kcompiler.runtime.inference.classes import Classes
from kcompiler.runtime.inference.full import FullInference, side_by_side
from kcompiler.runtime.inference.indexed import Indexed
from kcompiler.runtime.inference.schedule import Extents, schedule
from kcompiler.runtime.inference.sessions import Machine, onnxruntime, run_bound
from kcompiler.runtime.inference.variant_sessions import sessions_of
from kcompiler.runtime.inference.workers import Workers
from kcompiler.runtime.inputs.fills import PatchFill, apart, collage
from kcompiler.runtime.inputs.images import Fill, cover, covering

if TYPE_CHECKING:
    import onnxruntime as ort

SMALL_BATCH = 8
"""Positions that each concurrent batch must have memory for; with less memory, fewer batches run concurrently."""
SIDE_BY_SIDE = 2
"""Batch size of full inference where several batches run concurrently: the activations then stay in a core's caches.
EfficientNet B0 takes 0.84 of the time of batches of 8, Swin-T 0.92. A single batch, on all threads or on another device, is
faster when larger."""


Keep = Callable[[FloatArray], FloatArray]
"""Selects from a batch's outputs, float32 [n, K], what is kept: float32 [n] or [n, ...]."""


def extents_of(variant: Variant, patch: tuple[int, int]) -> Extents:
    """The extents of a variant's regions, by which its positions are scheduled."""
    geometries = [(geometry.work, geometry.heights, geometry.widths) for geometry in variant.geometries]
    return Extents.of(geometries, patch)


class Engine:
    """Evaluates positions with one variant of a bundle. Sessions open on first use."""

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
        """Sets batch size and thread count; opens no session.

        Args:
            files: files of the bundle.
            memory: bytes that all concurrent batches together may take, beside weights and cached activations.
            full: returns full inference on a machine; used where full inference takes less time than the incremental model.
            graphs: run the compiled graphs even where nothing in them is incremental, as other stacks do: to verify them.

        Raises:
            UsageError: the memory does not suffice for one position.
            ProviderError: ONNX Runtime, or a requested provider, is absent.
        """
        self.folder, self.manifest, self.variant = files.folder, manifest, variant
        self.machine = machine = machine.for_variant(variant)
        self._full, self._graphs = full, graphs
        small_batch = min(variant.batch, manifest.largest_batch, SMALL_BATCH)
        bytes_per_small_batch = variant.bytes_per_batch + variant.bytes_per_position * small_batch
        count, self._share = machine.divided(max(memory // bytes_per_small_batch, 1))
        self.workers = Workers(count)
        self.sessions = sessions_of(files, variant, machine, self._share, count)
        capturing = machine.cuda.graphs and machine.device == "cuda" and variant.index is not None
        self._turn: AbstractContextManager[object] = cuda.RUNNING if capturing else nullcontext()
        batch = _batch_within(manifest, variant, memory // count)
        self._indexed: Indexed | None = None
        if variant.index is not None:
            self._indexed = Indexed(self.sessions, Classes(variant.classes, self._extents, batch), capturing=capturing)
        self._pass = BaselinePass(self.sessions, manifest.image, same_memory=self._indexed is not None)
        self.batch = min(batch, SIDE_BY_SIDE) if count > 1 and variant.whole and not graphs else batch

    @property
    def device(self) -> str:
        """Where activations are kept: "cuda" or "cpu"."""
        return self.sessions.device

    def open(self) -> None:
        """Opens the sessions now.

        Raises:
            BundleError: image, patch or outputs of the models differ from the manifest.
        """
        baseline, incremental = self.sessions.baseline, self.sessions.incremental
        image = baseline.get_inputs()[0]
        actual = (image.name, tuple(image.shape[1:]), incremental.get_modelmeta().custom_metadata_map.get(PATCH_KEY))
        manifest = self.manifest
        expected = (manifest.image, manifest.shape, patch_text(manifest.patch))
        outputs = [value.name for value in incremental.get_outputs()]
        if actual != expected or outputs != list(manifest.outputs):
            raise BundleError(f"{self.folder}: manifest and models disagree ({expected} and {actual}); compile the model again")

    def baseline(self, image: FloatArray, fill: Fill = 0.0, positions: int | None = None) -> Baseline:
        """Runs the baseline pass on the uncovered image, float32 [1, C, H, W], and keeps the activations on the device.

        ``positions`` is the number of positions to evaluate, if known: for fewer than ``variant.few`` full inference takes less
        time, and no baseline pass runs.
        """
        covered_by = covering(fill, image, element=self.manifest.image_element)
        patches = covered_by if isinstance(covered_by, PatchFill) else None
        picture = image[0] if isinstance(covered_by, PatchFill) else covered_by
        few = not self._graphs and positions is not None and positions < self.variant.few
        with self._turn:
            baseline = Baseline(image, picture, patches, self._mask(image), {})
            if few or (self.variant.whole and not self._graphs):
                return baseline
            return self._pass.run(baseline)

    def _covered_by(self, picture: FloatArray, baseline: Baseline) -> Baseline:
        with self._turn:
            return self._pass.covered_by(picture, baseline)

    def _mask(self, image: FloatArray) -> BoolArray | None:
        """The cells of each class, by full inference: rounding in the incremental model would move cells between classes."""
        reduction = self.manifest.reduction
        return self._full(self.machine).mask(image) if reduction is not None and reduction.by_driver else None

    def unoccluded(self, baseline: Baseline, *outputs: str) -> FloatArray:
        """The model's outputs for the uncovered image, float32 [K], computed as a position whose fill is the image itself."""
        own_pixels = self._covered_by(baseline.image[0], baseline)
        alone = not self._runs_concurrently(own_pixels)
        scores: FloatArray = self._evaluate(own_pixels, np.zeros((1, 2), np.int64), *outputs, alone=alone)[0]
        return scores

    def evaluate(self, baseline: Baseline, positions: IntArray, *outputs: str) -> FloatArray:
        """Evaluates one batch of positions, int64 [N, 2], N >= 1.

        Returns:
            float32 [N, K per name] of ``outputs``; without names, of the explained output.
        """
        return self._evaluate(baseline, positions, *outputs, alone=True)

    def _evaluate(
        self, baseline: Baseline, positions: IntArray, *outputs: str, alone: bool, by_worker: bool = False
    ) -> FloatArray:
        with self._turn:
            raw = self._raw(baseline, positions, *outputs, alone=alone, by_worker=by_worker)
        expected = self._numbers * max(len(outputs), 1)
        if raw.shape[1] != expected:
            raise BundleError(
                f"{self.folder}: the models put out {raw.shape[1]} numbers, expected {expected}; compile the model again"
            )
        reduction = self.manifest.reduction
        return raw if reduction is None or baseline.mask is None else reduction.apply(raw, baseline.mask)

    def _raw(self, baseline: Baseline, positions: IntArray, *outputs: str, alone: bool, by_worker: bool) -> FloatArray:
        """The models' outputs before reduction over the cells of each class."""
        if not baseline.feeds:
            covered = cover(baseline.image, baseline.fill, positions, self.manifest.patch)
            return self._full(self.machine if alone else self._share).raw(covered, *outputs)
        session = self.sessions.alone if alone else self.sessions.of_worker() if by_worker else self.sessions.incremental
        names = outputs or (self.manifest.output,)
        if self._indexed is not None:
            return side_by_side(self._indexed.run(session, baseline.feeds, positions, names), len(positions))
        binding = session.io_binding()
        for name, value in baseline.feeds.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_cpu_input(POSITIONS, np.ascontiguousarray(positions))
        for name in names:
            binding.bind_output(name, "cpu")
        run_bound(session, binding, self.device)
        return side_by_side(binding.copy_outputs_to_cpu(), len(positions))

    @cached_property
    def _numbers(self) -> int:
        """Numbers in an output for one position, before the driver's reduction."""
        reduction = self.manifest.reduction
        return reduction.numbers if reduction is not None and reduction.by_driver else self.manifest.classes

    def feeds(self, baseline: Baseline, positions: IntArray) -> dict[str, ort.OrtValue]:
        """All inputs of the incremental model, by name, for a batch of positions, int64 [N, 2]."""
        if self._indexed is not None:
            return {**baseline.feeds, **self._indexed.placed(positions).feeds}
        return {**baseline.feeds, POSITIONS: onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(positions))}

    def _runs_concurrently(self, baseline: Baseline) -> bool:
        """Whether batches run concurrently: full inference of a few positions runs batch by batch, on all threads."""
        return bool(baseline.feeds) or self.variant.whole

    @cached_property
    def _extents(self) -> Extents:
        return extents_of(self.variant, self.manifest.patch)

    def batches(self, positions: IntArray, size: int | None = None) -> list[IntArray]:
        """Splits positions (int64 [N, 2]) into batches, or into batches of ``size``: arrays of indices into ``positions``.

        Batches are smaller than ``self.batch`` where some workers would otherwise be idle in the last round. Positions fewer
        than a batch stay together and run on all threads: the fixed cost of a batch outweighs what splitting would gain.
        """
        if self._indexed is not None:
            return self._indexed.classes.batches(positions, size or self.batch)
        if size is not None:
            return schedule(positions, self._extents, size)
        if len(positions) < self.batch:
            return schedule(positions, self._extents, self.batch)
        count, size = -(-len(positions) // self.batch), self.batch
        if idle := -count % self.workers.count:
            size = -(-len(positions) // (count + idle))
        return schedule(positions, self._extents, size)

    def work(self, batch: IntArray) -> float:
        """Predicted work per position of a batch, int64 [N, 2], in arbitrary units: that of the largest regions in it."""
        return self._extents.work(batch - np.array(self._extents.first))

    def run(
        self, baseline: Baseline, positions: IntArray, *outputs: str, deadline: float = np.inf, keep: Keep = lambda scores: scores
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """Evaluates positions batch by batch.

        Args:
            keep: selects what is yielded of a batch's outputs, such as one column; dense outputs of all positions would not fit
                in memory.
            deadline: time (of ``time.perf_counter``) after which no further batch starts.

        Yields:
            for each batch its indices into ``positions``, and ``keep`` of its outputs float32 [n, K per name].

        Raises:
            UsageError: the fill makes a patch for each position, and a patch extends beyond the image.
        """
        if baseline.patches is not None:
            yield from self._run_patches(baseline, baseline.patches, positions, *outputs, deadline=deadline, keep=keep)
            return
        parts = self.batches(positions)
        yield from self.run_batches(baseline, positions, parts, *outputs, of=len(parts), deadline=deadline, keep=keep)

    def run_batches(
        self, baseline: Baseline, positions: IntArray, parts: Sequence[IntArray], *outputs: str, of: int,
        deadline: float = np.inf, keep: Keep,
    ) -> Iterator[tuple[IntArray, FloatArray]]:  # fmt: skip
        """:meth:`run` of some of the ``of`` batches that it divides positions into, with the same bits."""
        workers, evaluate = self._evaluator(baseline, of, *outputs)
        yield from workers.map(lambda part: (part, keep(evaluate(positions[part]))), parts, deadline)

    def evaluate_batches(self, baseline: Baseline, batches: Sequence[IntArray], *outputs: str) -> Iterator[FloatArray]:
        """Evaluates each of ``batches`` as :meth:`evaluate` does, several concurrently; yields results in order."""
        workers, evaluate = self._evaluator(baseline, len(batches), *outputs)
        return workers.map(evaluate, batches)

    def _evaluator(self, baseline: Baseline, count: int, *outputs: str) -> tuple[Workers, Callable[[IntArray], FloatArray]]:
        """The workers for ``count`` batches, and the function that evaluates one batch."""
        alone = count < 2 or self.workers.count == 1 or not self._runs_concurrently(baseline)
        if not (baseline.feeds or alone):
            self._full(self._share)  # opens the session before several threads would at the same time
        workers = Workers(1) if alone else self.workers
        return workers, lambda batch: self._evaluate(baseline, batch, *outputs, alone=alone, by_worker=not alone)

    def _run_patches(
        self, baseline: Baseline, patches: PatchFill, positions: IntArray, *outputs: str, deadline: float, keep: Keep
    ) -> Iterator[tuple[IntArray, FloatArray]]:
        """:meth:`run` where each position has its own patches: yields means over the samples."""
        image, patch = baseline.image[0], self.manifest.patch
        last = np.array(image.shape[1:]) - patch
        if ((positions < 0) | (positions > last)).any():
            raise UsageError(f"fill {patches!r} makes whole patches only, expected (y, x) between [0, 0] and {last.tolist()}")
        for indices in apart(positions, patch):
            group = positions[indices]
            parts = self.batches(group)
            totals: list[FloatArray | float] = [0.0] * len(parts)
            for sample in range(patches.samples):
                drawn = self.manifest.image_element.fitted(patches.patches(image, group, patch, sample))
                picture = collage(image, drawn, group)
                covered = self._covered_by(picture, baseline)
                for number, scores in enumerate(self.evaluate_batches(covered, [group[part] for part in parts], *outputs)):
                    totals[number] = totals[number] + keep(scores)
            for part, total in zip(parts, totals, strict=True):
                yield indices[part], np.asarray(total / np.float32(patches.samples), np.float32)
            if time.perf_counter() >= deadline:
                return

    def scores(self, baseline: Baseline, positions: IntArray, output: str, keep: Keep) -> FloatArray:
        """Evaluates positions, int64 [N, 2], and keeps one score each: ``keep`` of the named output, float32 [N]."""
        result = np.empty(len(positions), np.float32)
        for part, scores in self.run(baseline, positions, output, keep=keep):
            result[part] = scores
        return result

    def evaluate_all(self, baseline: Baseline, positions: IntArray, *outputs: str) -> FloatArray:
        """Evaluates positions, int64 [N, 2], batch by batch: all outputs, float32 [N, K per name]."""
        result = np.empty((len(positions), self.manifest.classes * max(len(outputs), 1)), np.float32)
        for part, scores in self.run(baseline, positions, *outputs):
            result[part] = scores
        return result


def _batch_within(manifest: Manifest, variant: Variant, memory: int) -> int:
    least = variant.bytes_per_batch + variant.bytes_per_position
    if memory < least:
        raise UsageError(f"memory is {memory} bytes, but one position of this model takes about {least}; allow more")
    return min(variant.batch, manifest.largest_batch, (memory - variant.bytes_per_batch) // variant.bytes_per_position)
