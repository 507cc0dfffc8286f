"""Calibration: measures matrix products, passes over memory and the candidate lowerings on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from kcompiler.passes.choosing.layouts import Placement
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.graphs.quantised import INTEGERS
from kcompiler.passes.lowering.heads import only_summed
from kcompiler.passes.lowering.table import Lowering
from kcompiler.passes.lowering.work import DEFAULT_RATES, FLOAT_BYTES, Rates
from kcompiler.passes.plan import Plan
from kcompiler.passes.rewriting.rewrite import node_graph
from kcompiler.runtime.arrays import IntArray
from kcompiler.runtime.bundle.manifest import POSITIONS
from kcompiler.runtime.inference.sessions import Machine, open_session

REPEATS = 5
BATCHES = 3
CLOSE = 1.5
"""Only candidates predicted to take at most this times the least time are measured."""
PRODUCT = (36, 512, 256, 256)
"""Batch, rows, depth and columns of the batched matrix product that is measured."""
PASS = (1 << 13, 512)
"""Shape of the tensor that a measured pass over memory reads and writes."""
NODES = 256
"""Nodes in the chain by which the time to start an operator is measured."""


def measured_rates(machine: Machine) -> Rates:
    """The rates of this machine.

    Products, passes and the start of a node are measured. Convolutions and integers are scaled like products from the defaults,
    and the gain of caches is the default.
    """
    elements, rows, depth, columns = PRODUCT
    rng = np.random.default_rng(0)

    def product(emit: Emitter) -> gs.Tensor:
        left = emit.input("x", np.float32, [elements, rows, depth])
        return emit("MatMul", left, emit.constant(rng.standard_normal((elements, depth, columns)).astype(np.float32)))

    def sweep(emit: Emitter) -> gs.Tensor:
        return emit("Relu", emit.input("x", np.float32, list(PASS)))

    def chain(emit: Emitter) -> gs.Tensor:
        value: gs.Tensor = emit.input("x", np.float32, [1])
        for number in range(NODES):
            value = emit("Add", value, emit.constant(np.array([number], np.float32)))
        return value

    products = 2.0 * elements * rows * depth * columns / _seconds(product, machine, (elements, rows, depth))
    moved = 2.0 * FLOAT_BYTES * PASS[0] * PASS[1] / _seconds(sweep, machine, PASS)
    node = _seconds(chain, machine, (1,)) / NODES
    convolved, integer = (products * rate / DEFAULT_RATES.products for rate in (DEFAULT_RATES.convolved, DEFAULT_RATES.integer))
    return Rates(products=products, convolved=convolved, integer=integer, moved=moved, node=node, cached=DEFAULT_RATES.cached)


def _seconds(build: Callable[[Emitter], gs.Tensor], machine: Machine, shape: tuple[int, ...]) -> float:
    graph = gs.Graph(name="rate", opset=20)
    output = build(Emitter(graph))
    output.dtype = np.dtype(np.float32)
    graph.outputs = [output]
    return _Run(graph, machine, {"x": np.ones(shape, np.float32)}).seconds([{}])


class _Run:
    """A graph in an ONNX Runtime session; outputs stay in the runtime's memory, so that copying them is not measured."""

    def __init__(self, graph: gs.Graph, machine: Machine, feeds: dict[str, np.ndarray]) -> None:
        model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False, ir_version=10)
        self.session = open_session(model.SerializeToString(), machine)
        self.feeds = feeds

    def seconds(self, inputs: Sequence[dict[str, np.ndarray]]) -> float:
        """Mean seconds of a run over all ``inputs``, the least of REPEATS repetitions after a warm-up."""
        times = [self._once(inputs) for _ in range(REPEATS + 1)]
        return min(times[1:]) / len(inputs)

    def _once(self, inputs: Sequence[dict[str, np.ndarray]]) -> float:
        binding = self.session.io_binding()
        for name, value in self.feeds.items():
            binding.bind_cpu_input(name, value)
        elapsed = 0.0
        for feed in inputs:
            for name, value in feed.items():
                binding.bind_cpu_input(name, value)
            binding.clear_binding_outputs()  # the output of the last run may have another shape
            binding.bind_output(self.session.get_outputs()[0].name)
            start = time.perf_counter()
            self.session.run_with_iobinding(binding)
            elapsed += time.perf_counter() - start
        return elapsed


def _random(rng: np.random.Generator, value: gs.Tensor) -> np.ndarray:
    """Random content of a cached activation: standard normal, or uniform over the integer type."""
    shape = tuple(value.shape)
    if value.dtype in INTEGERS:
        limits = np.iinfo(value.dtype)
        return np.asarray(rng.integers(limits.min, limits.max, shape, endpoint=True)).astype(value.dtype)
    return rng.standard_normal(shape, dtype=np.float32)


class MeasuredPrices:
    """``Prices`` that run each candidate of a node in a graph of its own, once for all nodes of equal geometry and attributes.

    Attributes:
        seconds: measured seconds per position, by node name and lowering name.
    """

    def __init__(
        self, graph: gs.Graph, plan: Plan, machine: Machine, extents: str, told: Callable[[], object] = lambda: None
    ) -> None:
        """For the nodes of ``graph`` on the regions of ``plan``; ``told`` is called with each node that is priced."""
        self.graph, self.plan, self.machine, self.extents = graph, plan, machine, extents
        self.placement = Placement(graph, plan)
        self.told, self.known = told, dict[object, float]()
        self.seconds: dict[str, dict[str, float]] = {}

    def __call__(self, node: gs.Node, batches: Sequence[IntArray], candidates: Sequence[tuple[Lowering, float]]) -> list[float]:
        """Seconds per position of each candidate (lowering, predicted seconds) in ``batches`` of positions."""
        self.told()
        least = min(seconds for _, seconds in candidates)
        close = [lowering for lowering, seconds in candidates if seconds <= CLOSE * least]
        if len(close) == 1:
            return [seconds for _, seconds in candidates]
        sample = [batches[number] for number in np.linspace(0, len(batches) - 1, BATCHES).round().astype(int)]
        measured = {lowering.name: self._measured(node, sample, lowering) for lowering in close}
        self.seconds[node.name] = measured
        # The ratio of measured to predicted time is similar for all candidates of a node. Candidates that were not run are scaled
        # by it, not dropped, since they may be the only ones within the error budget.
        ratio = float(
            np.median([measured[lowering.name] / seconds for lowering, seconds in candidates if lowering.name in measured])
        )
        return [measured.get(lowering.name, seconds * ratio) for lowering, seconds in candidates]

    def _measured(self, node: gs.Node, batches: Sequence[IntArray], lowering: Lowering) -> float:
        values = [value for value in (*node.inputs, *node.outputs) if value.name in self.plan.regions]
        regions = [self.plan.regions[value.name] for value in values]
        geometry = tuple(
            (region.channels, s.size, s.start.tobytes(), s.stop.tobytes()) for region in regions for s in (region.y, region.x)
        )
        weights = tuple(tuple(value.shape) for value in node.inputs if isinstance(value, gs.Constant))
        summed = only_summed(node.outputs[0], regions[-1])
        key = (node.op, weights, repr(sorted(node.attrs.items())), geometry, summed, lowering.name, len(batches[0]))
        if key not in self.known:
            layouts = self.placement.alone(node, lowering.name, len(batches[0]))
            graph = node_graph(self.graph, self.plan, node, self.extents, layouts)
            rng = np.random.default_rng(0)
            feeds = {value.name: _random(rng, value) for value in graph.inputs if value.name != POSITIONS}
            inputs = [{POSITIONS: np.ascontiguousarray(batch)} for batch in batches]
            self.known[key] = _Run(graph, self.machine, feeds).seconds(inputs) / len(batches[0])
        return self.known[key]
