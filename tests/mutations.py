"""Small faults put into compiled models on purpose: what verification is there to find, at any scale of outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from unittest import mock

import numpy as np
import onnx_graphsurgeon as gs

from kcompiler.analysed import Analysed
from kcompiler.options import Options
from kcompiler.passes.choosing.layouts import Placement
from kcompiler.passes.lowering import winograd
from kcompiler.passes.lowering.filtering import Filtering
from kcompiler.passes.plan import Plan
from kcompiler.passes.regions.geometry import Spans
from kcompiler.passes.rewriting import baseline
from kcompiler.passes.rewriting.rewrite import incremental_graph
from kcompiler.passes.rewriting.store import WeightsFile, write_model
from kcompiler.pipeline import analyse
from kcompiler.runtime.bundle.manifest import FILL, FULL, PatchSet
from kcompiler.runtime.exactness.compare import compare
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inference.full import side_by_side
from kcompiler.runtime.inference.sessions import Machine, open_session
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import Reference, sample_positions
from kcompiler.variants import manifest_of, write_variant
from kcompiler.verified import VERIFIED_POSITIONS, Growing

SEED = 2019
HEAVIER = 1.001
WRONG_ENTRY = 1.01
WRONG_PAD = 0.05
OTHER_IMAGE = 0.01
"""Deviation of what is added to an image whose cached activations are stale."""
SCALES = (1e-4, 1.0, 1e4)
MATTERS, AT_POSITIONS = 1.5, 1 / 6
"""A fault need not be found if at fewer positions than this share any output errs by more than so much times what is allowed: a
region may be off by a cell that nothing reads, or that a maximum hides nearly everywhere."""


@dataclass(frozen=True)
class Mutant:
    """What was altered, and what evaluates positions all the same."""

    what: str
    engine: Engine
    left: Baseline


@dataclass(frozen=True)
class Subject:
    """A model as compiled, and full inference to compare its mutants with, at the positions that compilation verifies."""

    analysed: Analysed
    options: Options
    folder: Path
    reference: Reference

    @classmethod
    def of(cls, model: Path, options: Options, scratch: Path) -> Subject:
        """``scratch`` must outlive the result."""
        analysed = analyse(model, options, scratch)
        explainer = _written(analysed, options, scratch / "bundle")
        positions = sample_positions(explainer.manifest.shape[1:], options.patch, VERIFIED_POSITIONS, SEED)
        return cls(analysed, options, scratch, Reference(explainer, positions, seed=SEED))

    @property
    def covered(self) -> np.ndarray:
        """The covered images [N, C, H, W] at the positions."""
        reference, shape = self.reference, self.reference.explainer.manifest.shape
        return cover(reference.image, fill_image(reference.fill, shape), reference.positions, self.options.patch)

    @cached_property
    def everywhere(self) -> Reference:
        """Full inference at every position."""
        manifest, reference = self.reference.explainer.manifest, self.reference
        positions = make_grid(manifest.shape[1:], manifest.patch, 1).positions
        return Reference(reference.explainer, positions, image=reference.image, fill=reference.fill)

    def mutant(self, what: str, graph: gs.Graph | None = None, plan: Plan | None = None) -> Mutant:
        """The model rewritten anew: from another graph or plan, or while something of the compiler is replaced."""
        plan = plan or self.analysed.plan
        choice = replace(self.analysed.choice, plan=plan)
        graph = graph or self.analysed.graph
        layouts = Placement(graph, plan).layouts(plan, choice.layouts.lowerings, choice.batch)
        made = incremental_graph(graph, plan, self.options.extents, layouts)
        altered = replace(self.analysed, choice=choice, rewritten=made)
        explainer = _written(altered, self.options, Path(tempfile.mkdtemp(dir=self.folder)) / "bundle")
        return Mutant(what, explainer.exact, explainer.exact.baseline(self.reference.image, self.reference.fill))

    def found(self, mutant: Mutant) -> float:
        """The largest error over what is allowed where compilation looks, the least of all SCALES: above 1 it is refused."""
        return min(shares(mutant, self.reference))

    def matters(self, mutant: Mutant) -> bool:
        """Whether many positions are far off."""
        reference = self.everywhere
        far = np.zeros(len(reference.positions), np.bool_)
        for outputs in reference.evaluated(mutant.engine, mutant.left, len(far)).values():
            allowed = compare(outputs, reference.outputs, reference.reordered).allowed
            if allowed is None:
                return True
            far |= (np.abs(outputs - reference.outputs) > MATTERS * allowed).any(axis=1)
        return far.mean() >= AT_POSITIONS


def shares(mutant: Mutant, reference: Reference) -> list[float]:
    """The largest error over what is allowed, with all outputs multiplied by each of SCALES."""

    def scaled(scale: np.float32, numbers: np.ndarray) -> list[np.ndarray]:
        return [other * scale for other in reference.reordered(numbers)]

    found = []
    for scale in map(np.float32, SCALES):
        ways = reference.evaluated(mutant.engine, mutant.left).values()
        each = [compare(outputs * scale, reference.outputs * scale, partial(scaled, scale)) for outputs in ways]
        found.append(max(max(one.output_error, one.map_error) for one in each))
        assert all(one.agrees for one in each) == (found[-1] <= 1)
    return found


def _written(analysed: Analysed, options: Options, folder: Path) -> Explainer:
    folder.mkdir()
    with WeightsFile(folder) as weights:
        write_model(analysed.normalised, folder / FULL, weights)
        variant = write_variant(analysed, "exact", options, folder, weights)
        classes = int(np.prod(analysed.graph.outputs[0].shape[1:]))
        growing = Growing(folder, weights, partial(manifest_of, analysed, options, classes))
        growing.put(PatchSet(patch=options.patch, variants=(variant,), report=analysed.report))
    return Explainer(folder, providers=("cpu",), threads=1, graphs=True)


def heavier_weights(subject: Subject) -> Iterator[Mutant]:
    """Of each incremental convolution, one weight off by a thousandth: of the heaviest ones, the one that matters most.

    Many a weight makes no difference at all: what it weighs is cut off by a Relu.
    """
    for node in _incremental(subject, "Conv"):
        weights = np.abs(np.asarray(node.inputs[1].values))
        taps = weights[0, 0].size
        heaviest = weights.reshape(-1, taps).argmax(axis=1) + np.arange(weights.size // taps) * taps
        mutants = [_heavier(subject.analysed.graph, node.name, number) for number in heaviest]
        effects = [np.abs(full_inference(one, subject.covered) - subject.reference.outputs).max() for one in mutants]
        yield subject.mutant(f"weight of {node.name}", mutants[int(np.argmax(effects))])


def _heavier(graph: gs.Graph, node: str, number: int) -> gs.Graph:
    mutant = graph.copy()
    (same,) = [other for other in mutant.nodes if other.name == node]
    weights = np.array(same.inputs[1].values)
    weights.flat[number] *= HEAVIER
    same.inputs[1] = gs.Constant(f"{same.inputs[1].name}/mutant", weights)
    return mutant


def full_inference(graph: gs.Graph, images: np.ndarray) -> np.ndarray:
    """Outputs [N, K a name]."""
    session = open_session(gs.export_onnx(graph, do_type_check=False).SerializeToString(), Machine(("cpu",), 1))
    return side_by_side(session.run(None, {graph.inputs[0].name: images}), len(images))


def shifted_regions(subject: Subject) -> Iterator[Mutant]:
    """Of each incremental value that windows make, the region a cell further up, or further left."""
    plan = subject.analysed.plan
    for node in _incremental(subject, "Conv", "MaxPool", "AveragePool", "LpPool"):
        name = node.outputs[0].name
        region = plan.regions[name]
        for axis in ("y", "x"):
            spans: Spans = getattr(region, axis)
            start = np.clip(spans.start - 1, 0, spans.size - spans.lengths)
            off = replace(spans, start=start, stop=start + spans.lengths)
            regions = {**plan.regions, name: replace(region, **{axis: off})}
            yield subject.mutant(f"region of {node.name} along {axis}", plan=replace(plan, regions=regions))


def wrong_pads(subject: Subject) -> Iterator[Mutant]:
    """The row of zeros that convolutions read around a map, not quite zero."""
    right = np.zeros

    def zeros(shape: object, dtype: object = float) -> np.ndarray:
        return right(shape, dtype) + np.asarray(WRONG_PAD, dtype)

    with mock.patch.object(baseline.np, "zeros", zeros):
        mutant = subject.mutant("pad rows")
    yield mutant


def wrong_transforms(subject: Subject) -> Iterator[Mutant]:
    """Of each matrix of minimal filtering that the model uses, one entry off by a hundredth."""
    right = winograd.algorithms
    for part in ("output", "weights", "inputs"):

        def wrong(windows: object, size: int, part: str = part) -> list[Filtering]:
            return [_with_wrong_entry(one, part) if one.products > 1 else one for one in right(windows, size)]

        with mock.patch.object(winograd, "algorithms", wrong):
            mutant = subject.mutant(f"matrix of {part}")
        yield mutant


def _with_wrong_entry(algorithm: Filtering, part: str) -> Filtering:
    matrix = np.array(getattr(algorithm, part))
    matrix.flat[np.abs(matrix).argmax()] *= WRONG_ENTRY
    return replace(algorithm, **{part: matrix})


def stale_caches(subject: Subject) -> Iterator[Mutant]:
    """Each cached activation of the baseline pass in turn left over from an image that is nearly the same."""
    explainer, reference = subject.reference.explainer, subject.reference
    engine = explainer.exact
    noise = np.random.default_rng(3).standard_normal(reference.image.shape, np.float32)
    images = reference.image, reference.image + np.float32(OTHER_IMAGE) * noise
    fresh, stale = (engine.baseline(image, reference.fill) for image in images)
    for name in fresh.feeds:
        if name != FILL:
            mixed = replace(fresh, feeds={**fresh.feeds, name: stale.feeds[name]})
            yield Mutant(f"cache {name}", engine, mixed)


MUTATIONS: dict[str, Callable[[Subject], Iterator[Mutant]]] = {
    one.__name__: one for one in (heavier_weights, shifted_regions, wrong_pads, wrong_transforms, stale_caches)
}


def _incremental(subject: Subject, *operators: str) -> list[gs.Node]:
    plan = subject.analysed.plan
    return [node for node in subject.analysed.graph.nodes if node.op in operators and node.outputs[0].name in plan.incremental]
