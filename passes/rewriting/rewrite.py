"""Rewriting: from the plan to the incremental graph.

Its inputs are the cached activations that ``baseline`` computes, a fill and a batch of positions. It recomputes regions only, up
to the frontier of the plan. There it pastes them into their maps, and runs the source nodes unchanged (the dense tail).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from kcompiler.passes.emission.box import Axis, Box, first_of, region_axis
from kcompiler.passes.emission.index import cell_index, within
from kcompiler.passes.emission.places import Places
from kcompiler.passes.emission.reads import contiguous_reads
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.values import copied
from kcompiler.passes.lowering import select
from kcompiler.passes.lowering.heads import is_head, only_summed, region_sum, updated_head
from kcompiler.passes.lowering.layout import Held, Layouts
from kcompiler.passes.lowering.operand import MicroBatch, Operand, Updated, as_rows
from kcompiler.passes.lowering.site import Site
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.geometry import Window
from kcompiler.passes.regions.region import Region
from kcompiler.passes.rewriting.baseline import table_shape, table_type
from kcompiler.passes.rewriting.microbatch import batch_size, join_at_once, joined, microbatches
from kcompiler.runtime.bundle.manifest import COLUMNS, FILL, POSITIONS, ROWS, TABLE


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The incremental graph, and the cached activations that it reads.

    Attributes:
        graph: inputs ``positions`` int64 [batch, 2] (y, x), ``fill`` float32 [H * W, C] (the image seen through the patch, as
            rows), and the cached activations; outputs as the source model.
        cached: names of the source values that the baseline pass must output as tables.
        heads: names of the nodes that reduce a whole map and are updated from its region.
    """

    graph: gs.Graph
    cached: tuple[str, ...]
    heads: frozenset[str] = frozenset()


class _Rewriter:
    def __init__(self, source: gs.Graph, plan: Plan, extents: str, layouts: Layouts, emit: Emitter) -> None:
        self.source, self.plan, self.layouts, self.emit = source, plan, layouts, emit
        self.positions = self.emit.input(POSITIONS, np.int64, [source.inputs[0].shape[0], 2])
        self.positions_y = self.emit("Gather", self.positions, self.emit.int64(0), axis=1)
        self.positions_x = self.emit("Gather", self.positions, self.emit.int64(1), axis=1)
        image, by_class = plan.regions[plan.image], extents == "classes"
        sizing = [self.emit.input(name, np.int64, [name]) if by_class else None for name in (ROWS, COLUMNS)]
        self.places = tuple(
            Places(self.emit, along, spans.before, len(spans.start), extents, positions)
            for spans, along, positions in zip((image.y, image.x), (self.positions_y, self.positions_x), sizing, strict=True)
        )
        self.source_tensors = source.tensors()
        self.updated: dict[str, Updated] = {}
        self.dense: dict[str, gs.Tensor] = {}
        self.tables: dict[str, gs.Variable] = {}
        self.heads: set[str] = set()
        self.joined: list[gs.Tensor] = []

    def run(self) -> Rewritten:
        self._cover_image()
        for node, decision in zip(self.source.nodes, self.plan.decisions, strict=True):
            if node.name not in self.plan.needed or node.outputs[0].name in self.updated:
                continue
            if not decision.incremental:
                self._keep(node)
            elif node.name in self.layouts.microbatches:
                self._lower_in_microbatches(node)
            else:
                self._lower(node)
        graph = self.emit.graph
        for output in self.source.outputs:
            value = self._full(output)
            value.dtype = output.dtype
            value.name = output.name
            value.shape = output.shape
            graph.outputs.append(value)
        join_at_once(self.joined)
        self._finish()
        return Rewritten(graph, tuple(self.tables), frozenset(self.heads))

    def run_whole(self) -> Rewritten:
        """Completes a copy of the whole source as the graph under construction: its image input becomes the covered image."""
        graph = self.emit.graph
        count = len(self.source.nodes)
        image = graph.inputs.pop(0)
        covered = self._cover_whole(image)
        covered.inputs[0].outputs = [image]  # the tensor object that nodes, and bodies of nodes (If, Loop), read
        graph.nodes = graph.nodes[count:] + graph.nodes[:count]  # toposort would not see reads of outer values by bodies
        return Rewritten(graph, tuple(self.tables))

    def run_node(self, node: gs.Node) -> gs.Graph:
        """Emits one node alone: input regions are gathered from their cached maps; its region is summed if only heads read it."""
        for name in {value.name for value in node.inputs if value.name in self.plan.incremental}:
            region = self.plan.regions[name]
            box = self._box(region)
            cells = self.emit("Gather", self._table(name), cell_index(self.emit, box), axis=0)
            rows = self.emit("Reshape", cells, self.emit.int64([-1, region.channels]))
            self.updated[name] = Updated(box, region.channels, rows=rows)
        self._lower(node)
        output = node.outputs[0]
        updated = self.updated[output.name]
        summed = only_summed(output, self.plan.regions[output.name])
        result = region_sum(self.emit, updated) if summed else as_rows(self.emit, updated)
        result.dtype = table_type(output)
        self.emit.graph.outputs = [result]
        self._finish()
        return self.emit.graph

    def _box(self, region: Region) -> Box:
        y, x = (region_axis(self.places[along], along, spans) for along, spans in enumerate((region.y, region.x)))
        return Box(y, x)

    def _finish(self) -> None:
        """Emits the origins and extents of regions, drops nodes without readers, and sorts."""
        for places in self.places:
            places.finish()
        self.emit.graph.cleanup().toposort()

    def _cover_image(self) -> None:
        """The image's updated region: the fill under the patch, the image where the box extends beyond the patch."""
        emit, image = self.emit, self.source.inputs[0]
        _, channels, height, width = image.shape
        fill = emit.input(FILL, np.float32, [height * width, channels])
        box = self._box(self.plan.regions[image.name])
        index = cell_index(emit, box)
        covered, uncovered = (emit("Gather", rows, index, axis=0) for rows in (fill, self._table(image.name)))
        inside = []
        for axis, positions, patch in (
            (box.y, self.positions_y, self.plan.patch[0]),
            (box.x, self.positions_x, self.plan.patch[1]),
        ):
            assert axis.number is not None
            position = emit("Unsqueeze", emit("Cast", positions, to=TensorProto.INT32), emit.int64([1, 2, 3]))
            first = emit("Sub", axis.places.origins(axis.number, 4), position)
            steps = first_of(emit, np.arange(axis.size), axis.extent(emit), [-1, 1, 1] if axis.along == 0 else [-1, 1])
            inside.append(within(emit, emit("Add", first, steps), emit.int32(0), emit.int32(patch)))
        patches = emit("Where", emit("And", *inside), covered, uncovered)
        self.updated[image.name] = Updated(box, channels, rows=emit("Reshape", patches, emit.int64([-1, channels])))

    def _cover_whole(self, image: gs.Tensor) -> gs.Variable:
        """The covered image [batch, C, H, W], assembled from lines: those under the patch are computed, all others copied.

        A gather of whole lines, W elements each. :meth:`_paste` would gather cells of as few elements as the image has channels.
        """
        emit, (_, channels, height, width) = self.emit, image.shape
        patch_height, patch_width = self.plan.patch
        fill = emit.input(FILL, np.float32, [height * width, channels])
        rows = emit("Slice", self._table(image.name), emit.int64([0]), emit.int64([height * width]), emit.int64([0]))
        planes, covers = (
            emit("Reshape", emit("Transpose", cells, perm=[1, 0]), emit.int64([channels * height, width]))
            for cells in (rows, fill)
        )
        first_y, first_x = (emit("Unsqueeze", along, emit.int64([1, 2])) for along in (self.positions_y, self.positions_x))
        lines = emit("Add", first_y, emit.int64(np.arange(patch_height)))  # [batch, 1, patch height]
        clipped = emit("Max", emit("Min", lines, emit.int64(height - 1)), emit.int64(0))
        touched = emit("Add", emit.int64(np.arange(channels)[:, None] * height), clipped)  # [batch, C, patch height]
        columns = emit("Sub", emit.int64(np.arange(width)), first_x)
        inside_x = within(emit, columns, emit.int64(0), emit.int64(patch_width))
        computed = emit(
            "Where",
            emit("Unsqueeze", inside_x, emit.int64([1])),
            *(emit("Gather", table, touched, axis=0) for table in (covers, planes)),
        )  # [batch, C, patch height, width]
        union = emit("Concat", planes, emit("Reshape", computed, emit.int64([-1, width])), axis=0)

        number = emit("Cast", self.places[0].ramp(3), to=TensorProto.INT64)
        relative = emit("Sub", emit.int64(np.arange(height)), first_y)  # [batch, 1, H]
        start = emit("Add", emit("Mul", number, emit.int64(channels * patch_height)), emit.int64(channels * height))
        own = emit("Add", emit("Add", start, relative), emit.int64(np.arange(channels)[:, None] * patch_height))
        copied = emit.int64(np.arange(channels * height).reshape(channels, height))
        inside_y = within(emit, relative, emit.int64(0), emit.int64(patch_height))
        index = emit("Where", inside_y, own, copied)
        return emit("Gather", union, index, axis=0)

    def _operand(self, value: gs.Tensor, part: MicroBatch | None = None) -> Operand | None:
        if value.name not in self.updated:
            return None
        return Operand(self.updated[value.name], lambda: self._table(value.name), part)

    def _table(self, name: str) -> gs.Variable:
        if name not in self.tables:
            dtype = table_type(self.source_tensors[name])
            self.tables[name] = self.emit.input(TABLE + name, dtype.type, table_shape(self.plan, name))
        return self.tables[name]

    def _gate(self, value: gs.Tensor) -> gs.Tensor | None:
        """The values [1, C] of a frozen gate, None for any other value."""
        if value.name not in self.plan.frozen:
            return None
        numbers = self.emit("Gather", self._table(value.name), self.emit.int64([0]), axis=0)
        return self.emit("Cast", numbers, to=TensorProto.BOOL) if value.dtype == np.bool_ else numbers

    def _frozen(self, value: gs.Tensor, gate: gs.Tensor) -> gs.Variable:
        """The values [1, C] of a frozen gate in the shape that the source's nodes read, the same for each position."""
        single = self.emit("Reshape", gate, self.emit.int64([1, *value.shape[1:]]))
        shape = self.emit("Concat", batch_size(self.emit, self.positions), self.emit.int64([1, 1, 1]), axis=0)
        return self.emit("Expand", single, shape)

    def _lower(self, node: gs.Node, part: MicroBatch | None = None) -> None:
        """Emits the region of the node's output, for the whole batch or for a micro-batch."""
        name = node.outputs[0].name
        region, inputs = self.plan.regions[name], tuple(self._operand(value, part) for value in node.inputs)
        output = self._box(region)
        reads = tuple(
            Held(operand.updated.layout, operand.updated.channels, operand.updated.box == output) if operand is not None else None
            for operand in inputs
        )
        site = Site(
            node=node, reads=reads, windows=select.windows(node, region), last=region.last, channels=region.channels,
            region=next(self.plan.regions[value.name] for value in node.inputs if value.name in self.updated),
            mean_extent=region.mean_extent, emit=self.emit, inputs=inputs, output=output, layout=self.layouts.values[name],
            copies=self.layouts.transitions[node.name].copies,
            cached=lambda: self._table(name), gate=self._gate,
        )  # fmt: skip
        self.updated[name] = select.by_name(node, self.layouts.lowerings[node.name]).emit(site)

    def _lower_in_microbatches(self, first: gs.Node) -> None:
        """Emits a chain of nodes once per micro-batch, and concatenates the rows of its last output to those of the batch."""
        chain = self.layouts.microbatches[first.name]
        nodes = [node for node in self.source.nodes if node.name in chain.nodes]
        last = nodes[-1].outputs[0].name
        parts = []
        for part in microbatches(self.emit, self.positions, chain.count):
            for node in nodes:
                self._lower(node, part)
            parts.append(as_rows(self.emit, self.updated[last]))
        self.joined.append(joined(self.emit, parts))
        self.updated[last] = replace(self.updated[last], rows=self.joined[-1], maps=None)

    def _keep(self, node: gs.Node) -> None:
        """Emits a node of the dense tail: an update if it is a head on a region, else the source node on full maps."""
        read = node.inputs[0].name if node.inputs else ""
        is_region = read in self.updated and read not in self.dense
        if is_region and is_head(node, self.plan.regions[read]):
            operand = Operand(self.updated[read], lambda: self._table(read))
            self.dense[node.outputs[0].name] = updated_head(self.emit, node, operand, self.plan.regions[read])
            self.heads.add(node.name)
            return
        outputs = self.emit.copy(node, [self._full(value) for value in node.inputs])
        self.dense.update({source.name: copy for source, copy in zip(node.outputs, outputs, strict=True)})

    def _full(self, value: gs.Tensor) -> gs.Tensor:
        """The full map of a value for each position: a region is pasted into its cached map, a frozen gate is as cached."""
        if isinstance(value, gs.Constant):
            return self.emit.constant(value.values, value.name)
        if (gate := self._gate(value)) is not None:
            return self._frozen(value, gate)
        if value.name not in self.dense and not value.is_empty():
            self.dense[value.name] = self._paste(value.name)
        return self.dense[value.name] if not value.is_empty() else value

    def _paste(self, name: str) -> gs.Variable:
        region, operand = self.plan.regions[name], Operand(self.updated[name], lambda: self._table(name))
        y, x = (
            contiguous_reads(self.emit, Window.identity(size), Axis(self.places[along], along, None, size))
            for along, size in enumerate((region.y.size, region.x.size))
        )
        rows = operand.read(self.emit, y, x)
        whole = rows if region.last else self.emit("Transpose", rows, perm=[0, 3, 1, 2])
        if self.source_tensors[name].dtype == np.bool_:
            return self.emit("Cast", whole, to=TensorProto.BOOL)
        return self.emit("AveragePool", whole, kernel_shape=[1, 1]) if name in self.layouts.blocked else whole


def incremental_graph(source: gs.Graph, plan: Plan, extents: str, layouts: Layouts) -> Rewritten:
    """Rewrites ``source`` (normalised) by ``plan`` and ``layouts``. The batch axis is that of its image: free, or 1.

    The extents of regions are constant ("static"), or those of the largest in a batch ("tight"), or of the largest at the rows
    and columns of the patch that two more inputs give ("classes").
    """
    if plan.all_dense:
        return _Rewriter(source, plan, extents, layouts, Emitter(copied(source))).run_whole()
    empty = gs.Graph(name="incremental", opset=source.opset, import_domains=source.import_domains)
    return _Rewriter(source, plan, extents, layouts, Emitter(empty, reserved=source.tensors())).run()


def node_graph(source: gs.Graph, plan: Plan, node: gs.Node, extents: str, layouts: Layouts) -> gs.Graph:
    """A graph with one incremental node of ``source`` alone, lowered as in ``layouts``: to measure its time.

    Inputs are ``positions`` and the cached activations that it reads, as in the incremental graph.
    """
    empty = gs.Graph(name="node", opset=source.opset, import_domains=source.import_domains)
    return _Rewriter(source, plan, extents, layouts, Emitter(empty, reserved=source.tensors())).run_node(node)
