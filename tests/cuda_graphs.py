"""Incremental graphs for CUDA, all but verified: for tests and figures of what is launched, without a device."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime

from kcompiler.analysed import Analysed, on_device
from kcompiler.options import Options
from kcompiler.passes.choosing.classes import all_geometries, extent_classes
from kcompiler.passes.choosing.devices import CUDA
from kcompiler.passes.rewriting.baseline import baseline_graph
from kcompiler.passes.rewriting.separate import Separated, separated
from kcompiler.pipeline import analyse
from kcompiler.runtime.bundle.manifest import COLUMNS, POSITIONS, ROWS
from kcompiler.runtime.bundle.variant import ExtentClass
from kcompiler.runtime.inference.classes import Classes
from kcompiler.runtime.inference.schedule import Extents
from kcompiler.runtime.inputs.positions import make_grid

ROOT = Path(__file__).parents[1]
BATCH = 6
WITHOUT_KERNEL = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""Operators that give memory another shape: nothing is launched."""
SCRATCH = tempfile.TemporaryDirectory()


@dataclass(frozen=True)
class Compiled:
    """A network for CUDA, with classes of extents.

    Attributes:
        analysed: with the choice for CUDA.
        parts: its graphs.
        extents: of its regions, the image's among them.
        patch: (height, width).
    """

    analysed: Analysed
    parts: Separated
    extents: Extents
    patch: tuple[int, int]

    @property
    def image(self) -> tuple[int, int]:
        _, height, width = self.analysed.source.shape
        return height, width

    @property
    def classes(self) -> tuple[ExtentClass, ...]:
        return extent_classes(self.extents, self.image, self.patch, 4)

    def kept(self, count: int, stride: int = 4) -> float:
        """The share of the redundancy ratio with tight extents that ``count`` classes keep, on the grid of ``stride``."""
        positions = make_grid(self.image, self.patch, stride).positions
        classes = Classes(extent_classes(self.extents, self.image, self.patch, count), self.extents)
        own = np.mean([self.extents.work(number[None]) for number in positions - np.array(self.extents.first)])
        return float(own / classes.work[classes.cheapest(classes.covering(positions))].mean())

    @property
    def baseline(self) -> onnx.ModelProto:
        rewritten = self.analysed.rewritten
        return proto(baseline_graph(self.analysed.graph, self.analysed.plan, rewritten.cached))


def proto(graph: gs.Graph) -> onnx.ModelProto:
    return gs.export_onnx(graph, do_type_check=False, ir_version=10)


def compiled(model: Path, folder: Path, patch: tuple[int, int], dense_share: float | None = None) -> Compiled:
    """For CUDA, all but verification."""
    options = Options(patch=patch, dense_share=dense_share, extents="classes", device="cuda")
    found = on_device(analyse(model, replace(options, extents="tight"), folder), options, CUDA)
    extents = Extents.of(all_geometries(found.graph, found.plan), patch)
    return Compiled(found, separated(found.rewritten), extents, patch)


@cache
def network(name: str) -> Compiled:
    """The demo classifier, or a network of models.export with random weights, which is exported in a process of its own."""
    folder = Path(SCRATCH.name) / name
    folder.mkdir()
    path = ROOT / "models/demo/demo.onnx"
    if name != "demo":
        path = folder / "model.onnx"
        command = [sys.executable, "-m", "models.export", name, "-o", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return compiled(path, folder, (8, 8) if name == "demo" else (16, 16))


def indices(given: Compiled, number: int, batch: int = BATCH) -> dict[str, np.ndarray]:
    """What the index graph computes for a batch of a class, by name."""
    one = given.classes[number]
    session = onnxruntime.InferenceSession(proto(given.parts.index).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    feeds = {
        POSITIONS: np.tile([one.rows[0], one.columns[0]], (batch, 1)).astype(np.int64),
        ROWS: np.array(one.rows, np.int64), COLUMNS: np.array(one.columns, np.int64),
    }  # fmt: skip
    taken = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {name: value for name, value in feeds.items() if name in taken}), strict=True))


def launched(graph: gs.Graph) -> Counter[str]:
    """Operators of the nodes that launch a kernel in every batch: those on constants are folded when the session opens."""
    constant = {name for name, value in graph.tensors().items() if isinstance(value, gs.Constant)}
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if all(value.name in constant for value in node.inputs if not value.is_empty()):
            constant |= {value.name for value in node.outputs}
        elif node.op not in WITHOUT_KERNEL:
            found[node.op] += 1
    return found
