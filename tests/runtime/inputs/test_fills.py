"""What covers the image: pictures and patches, against the source file on images covered by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from networks import save
from source_file import cover_by_hand, run_file

import kcompiler
from kcompiler.runtime.inputs import fills
from kcompiler.runtime.inputs.fills import NAMED, Blur, Conditional, Marginal, Noise, PatchFill, apart, collage
from kcompiler.runtime.inputs.images import covering

SHAPE = (3, 30, 34)
PATCH = (4, 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("residual", tmp_path_factory.mktemp("model") / "model.onnx", *SHAPE[1:])


@pytest.fixture(scope="module")
def explainer(model):
    return kcompiler.load(kcompiler.compile(model, patch=PATCH), threads=1)


@pytest.fixture
def image():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]] / 6
    return (np.sin(y + x) + 0.1 * rng.standard_normal(SHAPE)).astype(np.float32)


def by_hand(model, image, picture, positions):
    return run_file(model, cover_by_hand(image, positions, picture, PATCH))


@pytest.mark.parametrize("fill", ["mean", "blur", "noise", Blur(2.0), Noise(3)])
def test_pictures_show_through_the_patch(model, explainer, image, fill):
    positions = np.array([[0, 0], [-3, 2], [29, 33], [11, -5], [26, 28], [7, 9]])
    picture = covering(fill, image[None])
    np.testing.assert_allclose(
        explainer.outputs(image, positions, fill), by_hand(model, image, picture, positions), rtol=1e-4, atol=1e-5
    )


def test_any_picture_may_cover(model, explainer, image):
    other = np.random.default_rng(8).standard_normal(SHAPE).astype(np.float32)
    positions = np.array([[3, 4], [20, 11]])
    np.testing.assert_allclose(
        explainer.outputs(image, positions, other), by_hand(model, image, other, positions), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("fill", ["patch-mean", Marginal(2, seed=1), Conditional(3, seed=2)])
def test_patches_of_each_position_are_averaged_over_samples(model, explainer, image, fill):
    """Overlapping positions, one of them twice: each sees its own patch only."""
    positions = np.array([[0, 0], [1, 2], [3, 3], [26, 28], [1, 2], [12, 14], [12, 15]])
    made = NAMED[fill] if isinstance(fill, str) else fill
    expected = np.zeros((len(positions), 5))
    for sample in range(made.samples):
        patches = made.patches(image, positions, PATCH, sample)
        covered = np.concatenate([collage(image, patches[[n]], positions[[n]])[None] for n in range(len(positions))])
        expected += run_file(model, covered) / made.samples
    np.testing.assert_allclose(explainer.outputs(image, positions, fill), expected, rtol=1e-4, atol=1e-5)


def test_patches_that_are_cut_off_are_refused(explainer, image):
    with pytest.raises(kcompiler.UsageError, match="whole patches only"):
        explainer.outputs(image, [[-1, 0]], "patch-mean")


@pytest.mark.parametrize("count", [1, 7, 200])
def test_groups_hold_every_position_once_and_nothing_that_overlaps(count):
    rng = np.random.default_rng(count)
    positions = rng.integers(0, 20, (count, 2))
    groups = list(apart(positions, PATCH))
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))
    for group in groups:
        covered = np.zeros((40, 40), int)
        for y, x in positions[group]:
            covered[y : y + PATCH[0], x : x + PATCH[1]] += 1
        assert covered.max() == 1


def test_grids_make_few_groups():
    positions = np.stack(np.meshgrid(range(0, 60, 2), range(0, 60, 2), indexing="ij"), -1).reshape(-1, 2)
    assert len(list(apart(positions, (4, 6)))) == 2 * 3


def test_conditional_patches_go_on_from_what_is_around():
    """A smooth image: samples lie near what they hide; and they differ where the image leaves it open."""
    y, x = np.mgrid[:40, :40] / 12
    smooth = np.stack([np.sin(y) + np.cos(x)] * 3).astype(np.float32)
    positions = np.array([[0, 0], [12, 17], [34, 34], [3, 30]])
    fill = Conditional(samples=4)
    samples = np.stack([fill.patches(smooth, positions, (6, 6), sample) for sample in range(4)])
    hidden = np.stack([smooth[:, y : y + 6, x : x + 6] for y, x in positions])
    marginal = np.stack([Marginal().patches(smooth, positions, (6, 6), sample) for sample in range(4)])
    assert np.abs(samples.mean(axis=0) - hidden).mean() < 0.5 * np.abs(marginal.mean(axis=0) - hidden).mean()
    assert samples.std(axis=0).mean() > 0
    np.testing.assert_array_equal(samples[1], fill.patches(smooth, positions, (6, 6), 1))


@pytest.mark.parametrize(("place", "patch"), [((0, 0), (3, 2)), ((2, 4), (3, 2)), ((5, 9), (3, 3)), ((0, 4), (8, 3))])
def test_conditional_patches_have_the_mean_and_covariance_of_the_window(place, patch):
    """By the textbook, from the covariance of all pixels of the window."""
    rng = np.random.default_rng(0)
    image = np.cumsum(rng.standard_normal((2, 8, 12)), axis=2).astype(np.float32)
    fill, (y, x), size = Conditional(ring=3), place, patch[0] * patch[1]
    samples = np.stack([fill.patches(image, np.array([place]), patch, sample)[0] for sample in range(4000)])
    centred = image - image.mean(axis=(1, 2), keepdims=True)
    across, (along_y, along_x) = np.cov(centred.reshape(2, -1)), fills._correlations(centred.astype(np.float64))
    top, left, bottom, right = max(y - 3, 0), max(x - 3, 0), min(y + patch[0] + 3, 8), min(x + patch[1] + 3, 12)
    rows, cols = (axis.ravel() for axis in np.mgrid[top:bottom, left:right])
    whole = along_y ** abs(rows[:, None] - rows) * along_x ** abs(cols[:, None] - cols)
    inside = (y <= rows) & (rows < y + patch[0]) & (x <= cols) & (cols < x + patch[1])
    weights = whole[np.ix_(inside, ~inside)] @ np.linalg.inv(whole[np.ix_(~inside, ~inside)])
    mean = centred[:, rows[~inside], cols[~inside]] @ weights.T + image.mean(axis=(1, 2))[:, None]
    covariance = np.kron(across, whole[np.ix_(inside, inside)] - weights @ whole[np.ix_(~inside, inside)])
    deviations = np.sqrt(np.diag(covariance))
    found = samples.reshape(-1, 2 * size)
    assert (np.abs(found.mean(axis=0) - mean.ravel()) < 4.5 * deviations / np.sqrt(len(found))).all()
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.1 * deviations.max() ** 2)


def test_conditional_patches_take_little_memory():
    image = np.random.default_rng(0).standard_normal((1, 90, 90)).astype(np.float32)
    tracemalloc.start()
    Conditional().patches(image, np.array([[0, 0], [10, 10], [26, 26]]), (64, 64), 0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4e6


def test_constant_images_are_no_trouble():
    flat = np.full((3, 20, 20), 2.0, np.float32)
    for name, fill in NAMED.items():
        positions = np.array([[0, 0], [5, 5]])
        made = fill.patches(flat, positions, (4, 4), 0) if isinstance(fill, PatchFill) else fill.picture(flat)
        np.testing.assert_allclose(made, 2.0, atol=1e-3, err_msg=name)


def test_one_channel_alone(model, explainer, image):
    found = explainer.explain(image, stride=5, target=0, channel=1, fill=(9.0, 0.5, 9.0))
    picture = image.copy()
    picture[1] = 0.5
    expected = by_hand(model, image, picture, [(y, x) for y in found.ys for x in found.xs])[:, 0]
    np.testing.assert_allclose(found.scores.ravel(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fill": "rainbow"}, "fill 'rainbow' is not known"),
        ({"fill": np.zeros((3, 5, 5), np.float32)}, r"fill has shape \[3, 5, 5\]"),
        ({"channel": 3}, "channel is 3, expected 0 to 2"),
        ({"channel": 0, "fill": "conditional"}, "to cover one channel"),
        ({"edges": "round"}, "edges is 'round'"),
        ({"stride": (2, 3, 4)}, "stride is"),
    ],
)
def test_settings_that_do_not_fit(explainer, image, settings, message):
    with pytest.raises(kcompiler.UsageError, match=message):
        explainer.explain(image, **settings)


@pytest.mark.parametrize("edges", ["valid", "inward", "cut", "centred"])
def test_edges_and_strides_per_axis(model, explainer, image, edges):
    found = explainer.explain(image, stride=(4, 5), target=2, edges=edges, fill=0.3)
    positions = [(y, x) for y in found.ys for x in found.xs]
    expected = by_hand(model, image, np.full(SHAPE, 0.3, np.float32), positions)[:, 2]
    np.testing.assert_allclose(found.scores.ravel(), expected, rtol=1e-4, atol=1e-5)
    mean = found.upsample("mean")
    assert np.isfinite(mean).all() or edges in ("valid", "centred")


def test_maps_of_several_targets_are_those_of_each(explainer, image):
    maps = explainer.explain_targets(image, "all", stride=4)
    assert [one.target for one in maps] == [0, 1, 2, 3, 4]
    for one in maps:
        np.testing.assert_allclose(one.scores, explainer.explain(image, stride=4, target=one.target).scores, rtol=1e-6)
        assert one.complete
        assert one.exact
    unoccluded = [one.unoccluded for one in maps]
    largest = explainer.explain_targets(image, 2, stride=6)
    assert [one.target for one in largest] == np.argsort(unoccluded)[::-1][:2].tolist()
    (third,) = explainer.explain_targets(image, [3], stride=6)
    assert third.target == 3
    with pytest.raises(kcompiler.UsageError, match="targets is 6"):
        explainer.explain_targets(image, 6)
    with pytest.raises(kcompiler.UsageError, match="do not apply"):
        explainer.explain_targets(image, 2, quality=0.9)


def test_batches_of_images_are_explained_one_by_one(explainer, image):
    images = np.stack([image, image[::-1]])
    maps = list(explainer.explain_batch(images, stride=6, target=1))
    for found, one in zip(maps, images, strict=True):
        np.testing.assert_array_equal(found.scores, explainer.explain(one, stride=6, target=1).scores)


def test_aggregation_to_pixels(explainer, image):
    found = explainer.explain(image, stride=(3, 4), target=0, edges="cut")
    total, count = np.zeros(SHAPE[1:]), np.zeros(SHAPE[1:])
    for row, y in enumerate(found.ys):
        for col, x in enumerate(found.xs):
            total[y : y + 4, x : x + 6] += found.scores[row, col]
            count[y : y + 4, x : x + 6] += 1
    np.testing.assert_allclose(found.upsample("mean"), total / count, rtol=1e-5)
    nearest = found.upsample("nearest")
    assert set(np.unique(nearest)) <= set(np.unique(found.scores))
    assert nearest[int(found.ys[1] + 1.5), int(found.xs[2] + 2.5)] == found.scores[1, 2]
    with pytest.raises(kcompiler.UsageError, match="method is 'cubic'"):
        found.upsample("cubic")
