"""Linear operators on the change inside tiles: what minimal filtering and average pooling have in common."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.lowering.operand import Updated
from kcompiler.passes.lowering.site import Site
from kcompiler.runtime.arrays import DoubleArray


def apply_along_both(emit: Emitter, y: DoubleArray, x: DoubleArray, value: gs.Tensor, name: str) -> gs.Variable:
    """``y`` along the first and ``x`` along the second of the axes that ``value`` has in front: [rows of y, rows of x, numbers].

    Two products with small matrices; their Kronecker product would be one, but took twice as long.
    """
    if y.size > 1:
        flat = emit("Reshape", value, emit.int64([y.shape[1], -1]))
        value = emit("MatMul", emit.constant(y.astype(np.float32), name), flat)
    flat = emit("Reshape", value, emit.int64([y.shape[0], x.shape[1], -1]))
    return emit("MatMul", emit.constant(x.astype(np.float32), name), flat) if x.size > 1 else flat


def added_to_cached(site: Site, changes: gs.Tensor) -> Updated:
    """The output's region: what was cached, and what ``changes`` (in the order of its layout) add to it."""
    rows = site.emit("Reshape", changes, site.emit.int64([-1, site.channels]))
    cached = site.cached_output()
    return site.computed(rows=site.emit("Add", cached, rows), cached=cached, zeros=True)
