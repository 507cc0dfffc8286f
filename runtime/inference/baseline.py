"""The baseline pass: full inference of the uncovered image, whose cached activations stay on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kcompiler.runtime.arrays import BoolArray, FloatArray
from kcompiler.runtime.bundle.manifest import FILL
from kcompiler.runtime.inference.buffers import Lease, Pool
from kcompiler.runtime.inference.sessions import bind_output, onnxruntime, run_bound
from kcompiler.runtime.inference.variant_sessions import VariantSessions
from kcompiler.runtime.inputs.fills import PatchFill

if TYPE_CHECKING:
    import onnxruntime as ort


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The result of a baseline pass; the cached activations stay on the device.

    Attributes:
        image: float32 [1, C, H, W], uncovered.
        fill: float32 [C, H, W], the picture that shows through the patch.
        patches: makes a patch for each position; None if ``fill`` covers at all positions.
        mask: bool [K, cells], the cells of each class in the uncovered image; None unless the driver reduces outputs over them.
        feeds: cached activations and fill by input name of the incremental model; empty where full inference evaluates positions.
        leases: of the device memory of ``feeds``, where it is used again for other images.
    """

    image: FloatArray
    fill: FloatArray
    patches: PatchFill | None
    mask: BoolArray | None
    feeds: dict[str, ort.OrtValue]
    leases: tuple[Lease, ...] = ()


class BaselinePass:
    """Runs the baseline model of a variant."""

    def __init__(self, sessions: VariantSessions, image: str, *, same_memory: bool) -> None:
        """For the models of ``sessions``, whose image input is named ``image``.

        ``same_memory`` is whether the next image's activations and fill take the memory of those that are not used any more.
        """
        self._sessions, self._image, self._same_memory = sessions, image, same_memory
        self._tables, self._fills = Pool(), Pool()

    def run(self, baseline: Baseline) -> Baseline:
        """``baseline`` with its feeds."""
        session, device = self._sessions.baseline, self._sessions.device
        binding = session.io_binding()
        binding.bind_cpu_input(self._image, baseline.image)
        names, earlier = [value.name for value in session.get_outputs()], self._tables.taken()
        for name in names:
            bind_output(binding, name, device, earlier.get(name))
        run_bound(session, binding, device)
        values = earlier or dict(zip(names, binding.get_outputs(), strict=True))
        leases = (self._tables.leased(values),) if self._same_memory else ()
        return self.covered_by(baseline.fill, replace(baseline, feeds=dict(values), leases=leases))

    def covered_by(self, picture: FloatArray, baseline: Baseline) -> Baseline:
        """``baseline`` with ``picture``, float32 [C, H, W], as its fill."""
        if not baseline.feeds:
            return replace(baseline, fill=picture)
        rows = np.ascontiguousarray(picture.reshape(len(picture), -1).T)
        earlier = self._fills.taken()
        if earlier:
            earlier[FILL].update_inplace(rows)
        fill = earlier or {FILL: onnxruntime().OrtValue.ortvalue_from_numpy(rows, self._sessions.device, 0)}
        leases = (*baseline.leases[:1], self._fills.leased(fill)) if self._same_memory else ()
        feeds = {name: value for name, value in {**baseline.feeds, **fill}.items() if name in self._sessions.inputs}
        return replace(baseline, fill=picture, feeds=feeds, leases=leases)
