"""Export: a bundle and a grid of positions as one ONNX model, image in, heat map out, that runs wherever ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcompiler.card import TOLERANCE, Exported, card_of, page
from kcompiler.passes.deployment.batches import Refinement, Scheduled
from kcompiler.passes.deployment.loop import Scored
from kcompiler.passes.deployment.map_model import Asked, write_map_model
from kcompiler.passes.deployment.picture import check_recipe
from kcompiler.passes.deployment.properties import add_properties
from kcompiler.passes.rewriting.store import WeightsFile
from kcompiler.runtime import deployed
from kcompiler.runtime.arrays import AnyArray, ByteArray, FloatArray
from kcompiler.runtime.bundle.files import check_folder_replaceable, replace_folder
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.deployed import Card, TestVector, is_of_export
from kcompiler.runtime.errors import CheckFailed, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.engine import extents_of
from kcompiler.runtime.inference.schedule import schedule
from kcompiler.runtime.inference.sessions import Machine, open_session
from kcompiler.runtime.inputs.positions import Box, Edges, Stride, make_grid
from kcompiler.runtime.inputs.preprocessing import Preprocessing, preprocessed
from kcompiler.runtime.measuring.check import random_image
from kcompiler.runtime.sampling.drill_down import Coarse
from kcompiler.runtime.sampling.tuned import find_tuned
from kcompiler.runtime.scratch import scratch_folder

TEST_FILL = 0.5
TEST_COLOUR = 100.0
"""Fills of test vectors: in model units, and in pixel values."""
TESTED_BATCHES = 2


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings of a map model.

    Attributes:
        stride, region, edges, score: see :meth:`Explainer.explain`.
        variant: name of the bundle's variant.
        drill_down: (step of the coarse grid in cells of the map, share of its cells to refine); None evaluates all positions.
        quality: SSIM of a tuned plan, which gives variant and drill-down; None for the two above.
        preprocess: whether the model takes pictures, and preprocesses them itself.
        single_file: whether weights stand in the model, not in a file beside it.
        patch: (height, width), of those that the bundle is compiled for; None is the first.
    """

    stride: Stride = 4
    region: Box | None = None
    edges: Edges = "valid"
    score: Score = "auto"
    variant: str = EVERYTHING.variant
    drill_down: tuple[int, float] | None = None
    quality: float | None = None
    preprocess: bool = False
    single_file: bool = False
    patch: tuple[int, int] | None = None


def export_map(bundle: Path, out: Path, settings: Deployment | None = None, *, force: bool = False) -> Card:
    """Writes the map model of a bundle, its weights, its card and a test vector into the folder ``out``, whole or not at all.

    Args:
        bundle: a saved bundle.
        out: the folder.
        settings: of the map model.
        force: replace an earlier export.

    Raises:
        BundleError: ``bundle`` is not an intact bundle.
        UsageError: a setting is out of its range or does not fit the bundle, or ``out`` may not be replaced.
        CheckFailed: the model disagrees with the Python driver; nothing is written.
    """
    check_folder_replaceable(out, is_of_export, force=force)
    settings = settings or Deployment()
    exported = _exported(Explainer(bundle, patch=settings.patch), settings)
    explainer = exported.explainer
    with scratch_folder("export") as folder:
        with WeightsFile(folder) as weights:
            write_map_model(bundle, explainer.manifest, exported.variant, exported.asked, folder / deployed.MODEL, weights)
        if exported.asked.single_file:
            (folder / deployed.WEIGHTS).unlink()
        test = _tested(exported, folder)
        add_properties(folder / deployed.MODEL, exported.asked.scheduled, test)
        card = card_of(exported, test, folder)
        (folder / deployed.CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / deployed.PAGE).write_text(page(card), encoding="utf-8")
        replace_folder(folder, out, is_of_export, force=force)
    return card


def _exported(explainer: Explainer, settings: Deployment) -> Exported:
    """What is exported by ``settings``.

    Raises:
        UsageError: see :func:`export_map`.
    """
    manifest = explainer.manifest
    if manifest.reduction is not None and manifest.reduction.by_driver:
        raise UsageError("--reduce-over class is done by the driver, so this bundle has no map model; reduce over everything")
    recipe = manifest.preprocessing if settings.preprocess else None
    if settings.preprocess and recipe is None:
        raise UsageError("the bundle has no preprocessing to put into the model; compile it with --preprocessing")
    if recipe is not None:
        check_recipe(recipe)
    kind, output = explainer.targets.scored(settings.score)
    if kind == "drop":
        raise UsageError("score 'drop' is an output of every map model; ask for 'output' or 'logit'")
    plan, tuned = _plan(manifest, settings, kind)
    variant = next((one for one in manifest.variants if one.name == plan.variant), None)
    if variant is None:
        raise UsageError(f"variant {plan.variant!r}; variants in the bundle: {', '.join(one.name for one in manifest.variants)}")
    rest_of = explainer.targets.column(0, output).rest_of if manifest.two_classes else None
    scored, scheduled = Scored(output, explainer.targets.count, rest_of), _scheduled(manifest, variant, plan, settings)
    asked = Asked(scheduled, scored, recipe, settings.single_file)
    return Exported(explainer, variant, plan, tuned, kind, asked)


def _plan(manifest: Manifest, settings: Deployment, score: str) -> tuple[SamplingPlan, Tuned | None]:
    """The sampling plan that the model carries out, and the promise of a tuned plan."""
    if settings.quality is None:
        if settings.drill_down is None:
            return SamplingPlan(variant=settings.variant), None
        step, share = settings.drill_down
        if step < 1 or not 0 < share < 1:
            raise UsageError(f"drill-down {step},{share:g}: expected a step of at least 1, and a share between 0 and 1")
        return SamplingPlan(method="drill-down", variant=settings.variant, step=step, share=share), None
    if settings.drill_down is not None or settings.variant != EVERYTHING.variant:
        raise UsageError("a quality brings its own variant and drill-down; leave those out")
    if not isinstance(settings.stride, int):
        raise UsageError(
            f"quality {settings.quality:g} at stride {settings.stride}: plans are tuned for one stride along y and x"
        )
    find_tuned(manifest, settings.quality, settings.stride, score, None, None)
    carried = manifest.model_copy(update={"tuned": tuple(tuned for tuned in manifest.tuned if in_one_model(tuned.plan))})
    if not carried.tuned:
        raise UsageError(
            f"quality {settings.quality:g}: the tuned plan chooses positions by kriging, which the Python driver does; "
            "run 'kcompiler tune --for-export' for a plan that a map model carries out"
        )
    tuned = find_tuned(carried, settings.quality, settings.stride, score, None, None)
    return tuned.plan, tuned


def in_one_model(plan: SamplingPlan) -> bool:
    """Whether a map model can carry out a sampling plan."""
    return plan.everything or plan.method == "drill-down"


def _scheduled(manifest: Manifest, variant: Variant, plan: SamplingPlan, settings: Deployment) -> Scheduled:
    """The grid in the batches of the driver; a second round in the order that they would have if it were everything else."""
    grid = make_grid(manifest.shape[1:], manifest.patch, settings.stride, settings.region, settings.edges)
    size, extents = min(variant.batch, manifest.largest_batch), extents_of(variant, manifest.patch)
    if plan.everything:
        return Scheduled(grid, schedule(grid.positions, extents, size), least=variant.microbatches)
    coarse = Coarse.of(grid.shape, plan.step, plan.share)
    others = np.setdiff1d(np.arange(len(grid.positions)), coarse.cells)
    order = [others[part] for part in schedule(grid.positions[others], extents, size)]
    parts = [coarse.cells[part] for part in schedule(grid.positions[coarse.cells], extents, size)]
    refinement = Refinement(coarse, np.concatenate([np.empty(0, np.int64), *order]), size)
    return Scheduled(grid, parts, refinement, least=variant.microbatches)


def _tested(exported: Exported, folder: Path) -> TestVector:
    """Runs a few batches by the map model and by the driver; writes the image, and the map that the driver makes.

    Raises:
        CheckFailed: the two disagree.
    """
    explainer, scheduled, output = exported.explainer, exported.asked.scheduled, exported.asked.scored.output
    manifest, engine = explainer.manifest, explainer.engines[exported.variant.name]
    given, image, fill = _test_image(manifest, exported.asked.recipe)
    baseline = engine.baseline(image, np.array(fill.model, np.float32))
    targets = explainer.targets
    target = targets.largest(targets.scores(engine.unoccluded(baseline, output), output))
    parts = scheduled.parts[:TESTED_BATCHES]
    scores = np.full(scheduled.cells, np.nan, np.float32)
    for part in parts:
        scores[part] = targets.column(target, output).of(engine.evaluate(baseline, scheduled.grid.positions[part], output))
    expected = _estimated(scheduled, scores).reshape(scheduled.grid.shape)
    feeds = {
        deployed.IMAGE if exported.asked.recipe is None else deployed.PICTURE: given,
        deployed.COLOUR: np.full(manifest.shape[0], fill.given, np.float32),
        deployed.TARGET: np.array([-1], np.int64),
        deployed.BATCHES: np.array([0, len(parts)], np.int64),
    }
    if scheduled.refinement is not None:
        feeds[deployed.KNOWN] = np.full(scheduled.grid.shape, np.nan, np.float32)
    session = open_session(folder / deployed.MODEL, Machine(("cpu",), 1))
    found, chosen = session.run([deployed.MAP, deployed.CHOSEN], feeds)
    _compare(manifest.model, found, expected, int(chosen[0]), target)
    (folder / deployed.TEST_IMAGE).write_bytes(given.astype(given.dtype.newbyteorder("<")).tobytes())
    (folder / deployed.TEST_MAP).write_bytes(expected.astype("<f4").tobytes())
    return TestVector(
        image=deployed.TEST_IMAGE, image_shape=given.shape, map=deployed.TEST_MAP, fill=fill.given, target=-1,
        batches=(0, len(parts)), chosen=target, tolerance=TOLERANCE,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Fill:
    """The fill of every channel, as the map model takes it; and a number per channel in model units."""

    given: float
    model: Sequence[float]


def _test_image(manifest: Manifest, recipe: Preprocessing | None) -> tuple[AnyArray, FloatArray, _Fill]:
    """What the map model is given, the image that the driver is given, and the fill."""
    element, channels = manifest.image_element, manifest.shape[0]
    if recipe is None:
        image = random_image(manifest.shape, 0, element=element)
        fill = float(element.fitted(np.full(1, TEST_FILL, np.float32))[0])
        return image, image, _Fill(fill, [fill] * channels)
    height, width = recipe.size
    picture: ByteArray = np.random.default_rng(0).integers(0, 256, (height + 3, width + 1, recipe.picture_channels), np.uint8)
    image = element.fitted(preprocessed(picture, recipe))
    return picture, image, _Fill(TEST_COLOUR, element.fitted(recipe.fill((TEST_COLOUR,))).tolist())


def _estimated(scheduled: Scheduled, scores: FloatArray) -> FloatArray:
    """Scores [cells] with those of the nearest coarse cells where a drill-down has none."""
    if scheduled.refinement is None:
        return scores
    coarse = scheduled.refinement.coarse
    return np.where(np.isnan(scores), scores[coarse.cells][coarse.owner], scores)


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
