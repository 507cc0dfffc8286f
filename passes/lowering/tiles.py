"""Linear transforms of tiles of the change: shared by minimal filtering and average pooling."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.runtime.arrays import DoubleArray


def apply_along_both(emit: Emitter, y: DoubleArray, x: DoubleArray, value: gs.Tensor, name: str) -> gs.Variable:
    """Multiplies the first axis of ``value`` by ``y`` and the second by ``x``: [rows of y, rows of x, all other axes].

    Two products with small matrices. A single product with their Kronecker product took twice as long.
    """
    if y.size > 1:
        flat = emit("Reshape", value, emit.int64([y.shape[1], -1]))
        value = emit("MatMul", emit.constant(y.astype(np.float32), name), flat)
    flat = emit("Reshape", value, emit.int64([y.shape[0], x.shape[1], -1]))
    return emit("MatMul", emit.constant(x.astype(np.float32), name), flat) if x.size > 1 else flat


def added_to_cached(site: Site, changes: gs.Tensor) -> Updated:
    """The output region: its cached rows plus ``changes``, which are in the row order of its layout."""
    rows = site.emit("Reshape", changes, site.emit.int64([-1, site.channels]))
    cached = site.cached_output()
    return site.computed(rows=site.emit("Add", cached, rows), cached=cached, zeros=True)
