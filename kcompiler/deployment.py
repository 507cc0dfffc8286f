"""Export: a bundle and a grid of positions as one ONNX model, image in, heat map out, that runs wherever ONNX Runtime does."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from kcompiler.passes.deployment.map_model import (
    BATCHES,
    CHOSEN,
    COLOUR,
    DROP,
    IMAGE,
    MAP,
    TARGET,
    UNCOVERED,
    Scheduled,
    Scored,
    write_map_model,
)
from kcompiler.passes.rewriting.store import WeightsFile
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.files import check_folder_replaceable, replace_folder
from kcompiler.runtime.bundle.manifest import Variant, file_record
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.deployed import (
    CARD,
    CARD_FORMAT,
    MODEL,
    PAGE,
    TEST_IMAGE,
    TEST_MAP,
    WEIGHTS,
    Card,
    Tensor,
    TestVector,
    is_of_export,
)
from kcompiler.runtime.errors import CheckFailed, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import extents_of
from kcompiler.runtime.inference.schedule import schedule
from kcompiler.runtime.inference.sessions import Machine, open_session
from kcompiler.runtime.inputs.positions import Box, Edges, Stride, make_grid
from kcompiler.runtime.measuring.check import random_image

TEST_FILL = 0.5
TESTED_BATCHES = 2
TOLERANCE = 1e-4
"""Largest difference from the test vector, as a share of its range: other processors and runtimes add up in other orders."""


def export_map(
    bundle: Path,
    out: Path,
    *,
    stride: Stride = 4,
    region: Box | None = None,
    edges: Edges = "valid",
    score: Score = "auto",
    variant: str = "exact",
    force: bool = False,
) -> Card:
    """Writes the map model of a bundle, its weights, its card and a test vector into the folder ``out``, whole or not at all.

    Args:
        bundle: a saved bundle.
        out: the folder.
        stride, region, edges, score: see :meth:`Explainer.explain`.
        variant: name of the bundle's variant.
        force: replace an earlier export.

    Raises:
        BundleError: ``bundle`` is not an intact bundle.
        UsageError: a parameter is out of its range, or ``out`` may not be replaced.
        CheckFailed: the model disagrees with the Python driver; nothing is written.
    """
    check_folder_replaceable(out, is_of_export, force=force)
    explainer = Explainer(bundle)
    manifest = explainer.manifest
    chosen = next((one for one in manifest.variants if one.name == variant), None)
    if chosen is None:
        raise UsageError(f"variant {variant!r}; variants in the bundle: {', '.join(one.name for one in manifest.variants)}")
    if manifest.reduction is not None and manifest.reduction.by_driver:
        raise UsageError("--reduce-over class is done by the driver, so this bundle has no map model; reduce over everything")
    kind, output = explainer.targets.scored(score)
    if kind == "drop":
        raise UsageError("score 'drop' is an output of every map model; ask for 'output' or 'logit'")
    grid = make_grid(manifest.shape[1:], manifest.patch, stride, region, edges)
    size = min(chosen.batch, manifest.largest_batch)
    scheduled = Scheduled(grid, schedule(grid.positions, extents_of(chosen, manifest.patch), size))
    rest_of = explainer.targets.column(0, output).rest_of if manifest.two_classes else None
    scored = Scored(output, explainer.targets.count, rest_of)
    with tempfile.TemporaryDirectory(prefix="kcompiler-export-") as scratch:
        folder = Path(scratch)
        with WeightsFile(folder) as weights:
            write_map_model(bundle, manifest, chosen, scheduled, scored, folder / MODEL, weights)
        test = _tested(explainer, chosen, scheduled, output, folder)
        card = _card(explainer, chosen, scheduled, scored, kind, test, folder)
        (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / PAGE).write_text(page(card), encoding="utf-8")
        replace_folder(folder, out, is_of_export, force=force)
    return card


def _tested(explainer: Explainer, variant: Variant, scheduled: Scheduled, output: str, folder: Path) -> TestVector:
    """Runs a few batches by the map model and by the driver; writes the image, and the map that the driver makes.

    Raises:
        CheckFailed: the two disagree.
    """
    manifest, engine = explainer.manifest, explainer.engines[variant.name]
    image = random_image(manifest.shape, 0, element=manifest.image_element)
    parts = scheduled.parts[:TESTED_BATCHES]
    fill = float(manifest.image_element.fitted(np.full(1, TEST_FILL, np.float32))[0])
    baseline = engine.baseline(image, fill)
    targets = explainer.targets
    target = targets.largest(targets.scores(engine.unoccluded(baseline, output), output))
    expected = np.full(len(scheduled.order), np.nan, np.float32)
    for part in parts:
        expected[part] = targets.column(target, output).of(engine.evaluate(baseline, scheduled.grid.positions[part], output))
    expected = expected.reshape(scheduled.grid.shape)
    feeds = {
        IMAGE: image,
        COLOUR: np.full(manifest.shape[0], fill, np.float32),
        TARGET: np.array([-1], np.int64),
        BATCHES: np.array([0, len(parts)], np.int64),
    }
    session = open_session(folder / MODEL, Machine(("cpu",), 1))
    found, chosen = session.run([MAP, CHOSEN], feeds)
    _compare(manifest.model, found, expected, int(chosen[0]), target)
    for name, values in ((TEST_IMAGE, image), (TEST_MAP, expected)):
        (folder / name).write_bytes(values.astype("<f4").tobytes())
    return TestVector(
        image=TEST_IMAGE, map=TEST_MAP, fill=fill, target=-1, batches=(0, len(parts)), chosen=target, tolerance=TOLERANCE
    )


def _compare(model: str, found: FloatArray, expected: FloatArray, chosen: int, target: int) -> None:
    """Compares the map model's map with the driver's."""
    same_places = np.array_equal(np.isnan(found), np.isnan(expected))
    allowed = TOLERANCE * (np.nanmax(np.abs(expected)) if np.isfinite(expected).any() else 0.0)
    difference = float(np.nanmax(np.abs(found - expected), initial=0.0))
    if chosen != target or not same_places or not difference <= allowed:
        raise CheckFailed(
            f"{model}: the map model disagrees with the driver (class {chosen}, the driver's {target}; largest difference "
            f"{difference:.3g}, allowed {allowed:.3g}); nothing was written. This is a defect of kcompiler: please report it"
        )


def _card(
    explainer: Explainer, variant: Variant, scheduled: Scheduled, scored: Scored, score: str, test: TestVector, folder: Path
) -> Card:
    manifest, grid = explainer.manifest, scheduled.grid
    channels, height, width = manifest.shape
    model = onnx.load(folder / MODEL, load_external_data=False)
    units = "in the units of the source model's input" + ("" if manifest.layout == "NCHW" else ", whose channels are last")
    return Card(
        format=CARD_FORMAT, kcompiler=version("kcompiler"), model=manifest.model, model_sha256=manifest.model_sha256,
        variant=variant.name, score=score, largest_error=manifest.report.largest_error if variant.name == "exact" else None,
        opset=next(one.version for one in model.opset_import if one.domain == ""),
        domains=tuple(sorted(one.domain or "ai.onnx" for one in model.opset_import)),
        operators=dict(sorted(Counter(node.op_type for node in nodes_of(model.graph)).items())),
        inputs=(
            Tensor(name=IMAGE, type="float32", shape=(1, *manifest.shape), meaning=f"the image, {units}"),
            Tensor(name=COLOUR, type="float32", shape=(channels,), meaning="what covers, a number per channel, as in the image"),
            Tensor(name=TARGET, type="int64", shape=(1,), meaning=f"the class, 0 to {scored.classes - 1}; -1 is the largest"),
            Tensor(
                name=BATCHES, type="int64", shape=(2,),
                meaning=f"first batch and number of batches to evaluate, of {len(scheduled.parts)} in all",
            ),
        ),
        outputs=(
            Tensor(
                name=MAP, type="float32", shape=grid.shape,
                meaning="the score with the patch at (ys[row], xs[col]); NaN where no batch of this call evaluated it",
            ),
            Tensor(
                name=DROP, type="float32", shape=(height, width),
                meaning="how far the score falls, at the image's size, linear between the patches' centres; NaN beside a NaN",
            ),
            Tensor(name=UNCOVERED, type="float32", shape=(1, scored.classes), meaning="scores of all classes, nothing covered"),
            Tensor(name=CHOSEN, type="int64", shape=(1,), meaning="the class that is explained"),
        ),
        patch=manifest.patch, ys=tuple(grid.ys.tolist()), xs=tuple(grid.xs.tolist()),
        batches=tuple(len(part) for part in scheduled.parts), labels=explainer.labels, layout=manifest.layout,
        preprocessing=manifest.preprocessing,
        files={name: file_record(folder / name) for name in (MODEL, WEIGHTS, TEST_IMAGE, TEST_MAP)}, test=test,
    )  # fmt: skip


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from nodes_of(body)


def page(card: Card) -> str:
    """The card on a page of text."""
    rows = [f"{MODEL}: occlusion heat maps of {card.model}, variant {card.variant}, by kcompiler {card.kcompiler}", ""]
    for title, tensors in (("Inputs, all of them required", card.inputs), ("Outputs", card.outputs)):
        rows += [f"{title}:", *(f"  {one.name}: {one.type} {list(one.shape)}, {one.meaning}" for one in tensors), ""]
    test = card.test
    rows += [
        f"Patch: {card.patch[0]} x {card.patch[1]} pixels; {len(card.ys)} x {len(card.xs)} positions (ys and xs in {CARD}).",
        "",
        f"Batches: {len(card.batches)}. To use several threads, open one session with one thread, and share the batches out over",
        "concurrent calls: the map of each is NaN where another has numbers. Fewer batches a call show progress, and can be",
        "cancelled in between. Switch memory patterns off: batches differ in shape.",
        "",
        f"Files: keep {WEIGHTS} beside {MODEL}. Opset {card.opset}; operators of {', '.join(card.domains)}.",
        "",
        f"Test: {TEST_IMAGE} with fill {test.fill} for every channel, target {test.target}, batches {list(test.batches)} gives",
        f"{TEST_MAP} and class {test.chosen}, to {test.tolerance:g} of the largest number. Both files are little-endian float32,",
        "row by row.",
        "",
    ]
    return "\n".join(rows)
