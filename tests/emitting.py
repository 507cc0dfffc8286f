"""Index arithmetic by itself: emitted for a batch of patches, run by ONNX Runtime; and where regions lie, by their definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime

from kcompiler.passes.emission.box import Box, region_axis
from kcompiler.passes.emission.places import Places
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Spans, Window
from kcompiler.runtime.arrays import AnyArray, IntArray

Windows = tuple[Window, Window]
"""Along y and x."""


def window(inputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, pads: tuple[int, int] = (0, 0)) -> Window:
    """With as many outputs as there are with so much padding before and behind."""
    reach = (kernel - 1) * dilation + 1
    return Window(inputs, (inputs + sum(pads) - reach) // stride + 1, kernel, stride, dilation, pads[0])


def regions(spans: Spans, places: IntArray, extents: str) -> tuple[IntArray, int]:
    """Of a batch: the origins [batch], and the extent, one for all; origins are moved inward so that all lie in the map."""
    lengths = spans.lengths if extents == "static" else spans.lengths[places + spans.before]
    return np.minimum(spans.start[places + spans.before], spans.size - lengths.max()), int(lengths.max())


class Batch:
    """What is emitted for a batch of patches.

    Attributes:
        emit: what emits; graph inputs may be added.
        places: along y and x.
        extents: "tight" or "static".
    """

    def __init__(self, size: tuple[int, int], patch: tuple[int, int], extents: str) -> None:
        """For patches anywhere on an image of ``size``."""
        self.emit, self.extents = Emitter(gs.Graph(opset=20)), extents
        self._image = tuple(Spans.of_patch(*sides) for sides in zip(size, patch, strict=True))
        self.places = tuple(
            Places(self.emit, self.emit.input(name, np.int64, ["batch"]), spans.before, len(spans.start), extents)
            for name, spans in zip("yx", self._image, strict=True)
        )

    def spans(self, *chain: Windows) -> tuple[Spans, Spans]:
        """Of the image, or of a value behind it, along y and x; one cell where the patch changes nothing."""
        y, x = self._image
        for along_y, along_x in chain:
            y, x = along_y.changed(y), along_x.changed(x)
        return y.at_least_one(), x.at_least_one()

    def box(self, *chain: Windows) -> Box:
        """The box of the same."""
        y, x = (region_axis(self.places[along], along, spans) for along, spans in enumerate(self.spans(*chain)))
        return Box(y, x)

    def by_definition(self, positions: IntArray, *chain: Windows) -> tuple[IntArray, tuple[int, int]]:
        """Of the same, for a batch: origins [batch, 2], and the extent along y and x."""
        found = [regions(spans, positions[:, along], self.extents) for along, spans in enumerate(self.spans(*chain))]
        return np.stack([origins for origins, _ in found], axis=1), (found[0][1], found[1][1])

    @property
    def everywhere(self) -> IntArray:
        """Every position of the patch, cut off by the edges, too: int64 [N, 2]."""
        y, x = (np.arange(-spans.before, len(spans.start) - spans.before) for spans in self._image)
        return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def batches(self) -> Sequence[IntArray]:
        """Every position alone, all together, and three at a time."""
        everywhere = self.everywhere
        shuffled = np.random.default_rng(0).permutation(everywhere)
        return [*everywhere[:, None], everywhere, *np.split(shuffled[: len(shuffled) // 3 * 3], len(shuffled) // 3)]

    def finished(self, asked: Mapping[str, gs.Tensor], dtype: type[np.generic] = np.int32) -> Callable[..., dict[str, AnyArray]]:
        """What computes the tensors ``asked`` for, all of one type, of a batch of positions [batch, 2] and other inputs."""
        self.emit.graph.outputs = [self.emit("Identity", value) for value in asked.values()]
        for value in self.emit.graph.outputs:
            value.dtype = np.dtype(dtype)
        for places in self.places:
            places.finish()
        model = gs.export_onnx(self.emit.graph.cleanup().toposort(), do_type_check=False, ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        read = {value.name for value in session.get_inputs()}

        def computed(positions: IntArray, **feeds: AnyArray) -> dict[str, AnyArray]:
            given = {"y": positions[:, 0], "x": positions[:, 1], **feeds}
            found = session.run(None, {name: np.ascontiguousarray(value) for name, value in given.items() if name in read})
            return dict(zip(asked, found, strict=True))

        return computed
