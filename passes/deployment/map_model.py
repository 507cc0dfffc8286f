"""The map model: a baseline pass, then one Loop over batches of positions, whose scores become the heat map.

Which batches a call evaluates is an input: calls that share them out run on threads, show progress, and can be cancelled in
between. Source of the two graphs: a bundle's variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kcompiler.passes.deployment.batches import FIRST_SLOT, Scheduled
from kcompiler.passes.deployment.builder import Builder
from kcompiler.passes.deployment.loop import Scored, batch_loop
from kcompiler.passes.deployment.picture import image_of, model_fill
from kcompiler.passes.deployment.renamed import rename_tensors
from kcompiler.passes.rewriting.store import WeightsFile, external_tensor
from kcompiler.runtime import deployed
from kcompiler.runtime.arrays import DoubleArray, IntArray
from kcompiler.runtime.bundle.manifest import TABLE, Manifest
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing

INLINE_BYTES = 1024
"""Size from which initializers of the outer graph stand in the file of weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a map model is to do.

    Attributes:
        scheduled: the grid, and the batches that it is evaluated in.
        scored: what is scored.
        recipe: preprocessing that the model does itself; None if it takes preprocessed images.
        single_file: whether its weights stand in the model, not in a file beside it.
    """

    scheduled: Scheduled
    scored: Scored
    recipe: Preprocessing | None = None
    single_file: bool = False


def write_map_model(folder: Path, manifest: Manifest, variant: Variant, asked: Asked, path: Path, weights: WeightsFile) -> None:
    """Writes the map model of a bundle's variant to ``path``, its large weights to the file of ``weights`` beside it.

    Args:
        folder: the bundle's.
        manifest: the bundle's.
        variant: the bundle's that evaluates positions.
        asked: what the map model is to do.
        path: of the map model.
        weights: file in the same folder.

    Raises:
        UsageError: a single file would exceed what a protobuf can hold.
    """
    scheduled, scored = asked.scheduled, asked.scored
    outer = Builder("map/")
    image, fill = _image_and_fill(outer, manifest, asked.recipe)
    baseline = onnx.load(folder / variant.baseline)
    rename_tensors(baseline.graph, lambda name: image if name == manifest.image else _in_baseline(name))
    first, count = (outer("Gather", deployed.BATCHES, outer.constant(number)) for number in (0, 1))
    given = [deployed.TARGET, _scores(outer, scheduled), first, count, _fills(outer, manifest, image, fill)]
    ahead, results = len(outer.nodes), [deployed.CHOSEN, deployed.UNCOVERED, "map/scores"]
    loop, around, incremental = batch_loop(folder / variant.incremental, scheduled, scored, given, results)
    _maps(outer, manifest, scheduled, results[-1])
    graph = helper.make_graph(
        [*outer.nodes[:ahead], *baseline.graph.node, *loop, *outer.nodes[ahead:]],
        "heat map",
        _inputs(manifest, asked),
        _outputs(manifest, asked),
        [*baseline.graph.initializer, *outer.initializers, *around],
    )
    opsets = {one.domain: one.version for model in (baseline, incremental) for one in model.opset_import}
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*one) for one in opsets.items()], ir_version=incremental.ir_version
    )
    if asked.single_file:
        _check_size(model)
    else:
        _move_weights(model, weights)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)


def _inputs(manifest: Manifest, asked: Asked) -> list[onnx.ValueInfoProto]:
    """Every input is required: some runtimes ignore defaults."""
    channels = manifest.shape[0]
    shapes: dict[str, tuple[int, list[int | str]]] = {
        deployed.PICTURE: (TensorProto.UINT8, ["height", "width", asked.recipe.picture_channels if asked.recipe else channels]),
        deployed.IMAGE: (TensorProto.FLOAT, [1, *manifest.shape]),
        deployed.COLOUR: (TensorProto.FLOAT, [channels]),
        deployed.TARGET: (TensorProto.INT64, [1]),
        deployed.BATCHES: (TensorProto.INT64, [2]),
        deployed.KNOWN: (TensorProto.FLOAT, [*asked.scheduled.grid.shape]),
    }
    del shapes[deployed.PICTURE if asked.recipe is None else deployed.IMAGE]
    if asked.scheduled.refinement is None:
        del shapes[deployed.KNOWN]
    return [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()]


def _outputs(manifest: Manifest, asked: Asked) -> list[onnx.ValueInfoProto]:
    grid = [*asked.scheduled.grid.shape]
    shapes = {
        deployed.MAP: (TensorProto.FLOAT, grid),
        deployed.DROP: (TensorProto.FLOAT, [*manifest.shape[1:]]),
        deployed.UNCOVERED: (TensorProto.FLOAT, [1, asked.scored.classes]),
        deployed.CHOSEN: (TensorProto.INT64, [1]),
    }
    if asked.scheduled.refinement is not None:
        shapes[deployed.EVALUATED] = (TensorProto.FLOAT, grid)
    if asked.recipe is not None:
        shapes[deployed.SEEN] = (TensorProto.FLOAT, [4])
    return [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()]


def _in_baseline(name: str) -> str:
    return name if name.startswith(TABLE) else f"baseline/{name}"


def _image_and_fill(outer: Builder, manifest: Manifest, recipe: Preprocessing | None) -> tuple[str, str]:
    """The image [1, C, H, W] and the fill [C], in the units of the source model's input."""
    if recipe is None:
        return deployed.IMAGE, deployed.COLOUR
    return image_of(outer, recipe, manifest.image_element), model_fill(outer, recipe, manifest.image_element)


def _fills(outer: Builder, manifest: Manifest, image: str, fill: str) -> str:
    """What covers: the image itself, then the fill everywhere, as rows: float32 [2, H * W, C]."""
    channels, height, width = manifest.shape
    cells = height * width
    image_rows = outer("Reshape", outer("Transpose", image, perm=[0, 2, 3, 1]), outer.constant([1, cells, channels]))
    fill_row = outer("Reshape", fill, outer.constant([1, 1, channels]))
    return outer("Concat", image_rows, outer("Expand", fill_row, outer.constant([1, cells, 1])), axis=0)


def _scores(outer: Builder, scheduled: Scheduled) -> str:
    """The table of scores before the first batch, float32 [slots]: NaN where none is known."""
    if scheduled.refinement is None:
        return outer.constant(np.full(scheduled.slots, np.nan, np.float32))
    nothing = outer.constant(np.full(1, np.nan, np.float32))
    return outer("Concat", nothing, outer("Reshape", deployed.KNOWN, outer.constant([-1])), nothing, axis=0)


def _maps(outer: Builder, manifest: Manifest, scheduled: Scheduled, scores: str) -> None:
    """From the table of scores to the map, and its drop at the image's size."""
    end = outer.constant(FIRST_SLOT + scheduled.cells)
    cells, shape = outer.part(scores, outer.constant(FIRST_SLOT), end), outer.constant([*scheduled.grid.shape])
    if (refinement := scheduled.refinement) is None:
        outer("Reshape", cells, shape, name=deployed.MAP)
    else:
        outer("Reshape", cells, shape, name=deployed.EVALUATED)
        nearest = outer("Gather", cells, outer.constant(refinement.coarse.cells[refinement.coarse.owner]))
        outer("Reshape", outer("Where", outer("IsNaN", cells), nearest, cells), shape, name=deployed.MAP)

    unoccluded = outer("Reshape", outer("Gather", deployed.UNCOVERED, deployed.CHOSEN, axis=1), outer.constant([1, 1]))
    drop = outer("Sub", unoccluded, deployed.MAP)
    missing = outer("IsNaN", drop)
    zero = outer.number(0)
    axes = ((scheduled.grid.ys, manifest.patch[0], manifest.shape[1]), (scheduled.grid.xs, manifest.patch[1], manifest.shape[2]))
    along_y, along_x = (outer.constant(linear_weights(*axis).astype(np.float32)) for axis in axes)

    def at_pixels(values: str) -> str:
        return outer("MatMul", outer("MatMul", along_y, values), outer("Transpose", along_x, perm=[1, 0]))

    pixels = at_pixels(outer("Where", missing, zero, drop))
    touched = outer("Greater", at_pixels(outer("Cast", missing, to=TensorProto.FLOAT)), zero)
    outer("Where", touched, outer.number(np.nan), pixels, name=deployed.DROP)


def linear_weights(corners: IntArray, patch: int, size: int) -> DoubleArray:
    """[size, corners]: what each pixel of an axis has of the score at each position, linear between the patches' centres."""
    centres = corners + (patch - 1) / 2
    return np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(len(corners))], axis=1)


def _check_size(model: onnx.ModelProto) -> None:
    if (size := model.ByteSize()) >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UsageError(f"the model takes {size / 1e9:.1f} GB, and a single file holds 2 GB; leave its weights beside it")


def _move_weights(model: onnx.ModelProto, weights: WeightsFile) -> None:
    """Moves the large weights of the outer graph to their file."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.nbytes >= INLINE_BYTES and values.dtype.kind == "f":
            tensor.CopyFrom(external_tensor(tensor.name, values, *weights.add(values)))
    weights.flush()
