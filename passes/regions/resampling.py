"""Resampling: Pad, Slice (cropping), Resize and DepthToSpace.

Each is a linear map along y and another along x. Their matrices are not derived from attributes but probed: the node itself runs
on maps with a single line of ones, for each line. So every mode and corner case is ONNX Runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.regions.geometry import Taps
from kcompiler.passes.regions.region import NoRule, Region, map_of, numbers, only
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.foreign import foreign
from kcompiler.runtime.inference.sessions import Machine, open_session

OPSET = 21
"""Opset of the probe. Since opset 18, later versions of these operators only extend earlier ones."""
PROBED_NUMBERS = 1 << 22
"""Input elements in a run of the probe."""
NEGLIGIBLE = 1e-7
"""Matrix entries of at most this magnitude are taken for rounding, and are zero."""
LARGEST_SIDE = 2048
SEPARABLE = 1e-4
"""Tolerance, absolute and relative, of the check that the node is a matrix along y times a matrix along x."""


def resampling(node: gs.Node, regions: Sequence[Region | None]) -> Region:
    """The box around the outputs that read a changed cell."""
    region = only(node, regions)
    if node.op == "Pad" and not padded_axes(node) <= {*region.cell_axes}:
        raise NoRule(f"Pad along the axes {sorted(padded_axes(node))}, not along the cells alone")
    return resampled(node, region)


def padded_axes(node: gs.Node) -> set[int]:
    """Axes (of four) along which a Pad adds or removes cells."""
    pads, axes = numbers(node, 1) or [], numbers(node, 3) or range(4)
    return {axis % 4 for axis, before, after in zip(axes, pads, pads[len(pads) // 2 :], strict=False) if before or after}


def resampled(node: gs.Node, region: Region) -> Region:
    """The region of the output of a node that resamples ``region``.

    Raises:
        NoRule: the node does more than resample cells.
    """
    y, x = taps_of(node, region)
    channels, *size = map_of(node, node.outputs[0], last=region.last)
    if [y.outputs, x.outputs] != size:
        raise NoRule(f"{node.op} to {size} cells by ONNX shape inference but {[y.outputs, x.outputs]} in ONNX Runtime")
    if node.op != "DepthToSpace" and channels != region.channels:
        raise NoRule(f"{node.op} along the channels")
    return Region(channels, y.changed(region.y), x.changed(region.x), region.last)


def taps_of(node: gs.Node, region: Region) -> tuple[Taps, Taps]:
    """The taps of a resampling node along y and x.

    Raises:
        NoRule: the node is not linear, not separable, or too large to be probed.
    """
    if node.op == "DepthToSpace":
        if region.last:
            raise NoRule("DepthToSpace of a map whose channels are last")
        block = int(node.attrs["blocksize"])
        y, x = (Taps.repeated(spans.size, block) for spans in (region.y, region.x))
        return y, x
    if max(*region.map, *map_of(node, node.outputs[0], last=region.last)[1:]) > LARGEST_SIDE:
        raise NoRule(f"{node.op} of maps of more than {LARGEST_SIDE} cells a side")
    return _probed(_alone(node, region), region.map, region.last)


def _alone(node: gs.Node, region: Region) -> bytes:
    """A serialised model of this node alone, for any number of maps of one channel."""
    constants = [
        numpy_helper.from_array(np.asarray(v.values), f"c{n}") for n, v in enumerate(node.inputs[1:]) if not v.is_empty()
    ]
    present = {constant.name for constant in constants}
    names = ["map", *(f"c{n}" if f"c{n}" in present else "" for n in range(len(node.inputs) - 1))]
    attributes = {key: value for key, value in node.attrs.items() if not isinstance(value, gs.Graph)}
    probe = helper.make_node(node.op, names, ["out"], **attributes)
    shape: list[str | int | None] = ["n", *region.map, 1] if region.last else ["n", 1, *region.map]
    value = helper.make_tensor_value_info("map", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([probe], "probe", [value], [out], constants)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    return bytes(model.SerializeToString())


@lru_cache(maxsize=256)
def _probed(model: bytes, size: tuple[int, int], last: bool) -> tuple[Taps, Taps]:
    """The (y, x) taps of the model of one node, on maps of ``size`` (height, width)."""
    session = open_session(model, Machine(("cpu",), 1))

    def run(maps: FloatArray) -> FloatArray:
        feed = maps[..., None] if last else maps[:, None]
        with foreign(lambda why: NoRule(f"cannot be probed: {why}")):
            (out,) = session.run(None, {"map": feed})
        if not out.size:
            raise NoRule("makes a map without cells")
        result: FloatArray = out[..., 0] if last else out[:, 0]
        return result

    if run(np.zeros((1, *size), np.float32)).any():
        raise NoRule("pads with a number that is not zero")
    y, x = _matrix(run, size, 0), _matrix(run, size, 1)
    probe = np.random.default_rng(0).standard_normal((1, *size), dtype=np.float32)
    result = run(probe)[0]
    if not np.allclose(result, y @ probe[0] @ x.T, atol=SEPARABLE, rtol=SEPARABLE):
        raise NoRule("is not one linear map along y and another along x")
    return Taps.of(y), Taps.of(x)


def _matrix(run: Callable[[FloatArray], FloatArray], size: tuple[int, int], axis: int) -> FloatArray:
    """The matrix [outputs, inputs] along ``axis``, from maps with a line of ones across it, for each of its cells."""
    count, rows = size[axis], []
    step = max(1, PROBED_NUMBERS // (size[0] * size[1]))
    for start in range(0, count, step):
        lines = np.arange(start, min(start + step, count))
        maps = np.zeros((len(lines), *size), np.float32)
        maps[(np.arange(len(lines)), lines) if axis == 0 else (np.arange(len(lines)), slice(None), lines)] = 1
        rows.append(run(maps) if axis == 0 else run(maps).transpose(0, 2, 1))
    responses = np.concatenate(rows)  # [inputs, outputs, cells across]
    if not responses.size:
        raise NoRule("gives a map without cells")
    across = int(np.abs(responses).sum(axis=(0, 1)).argmax())
    matrix: FloatArray = responses[:, :, across].T
    return np.where(np.abs(matrix) > NEGLIGIBLE, matrix, 0)
