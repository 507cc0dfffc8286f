"""A compiled bundle, from Python."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from networks import save
from PIL import Image

import kcompiler
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.inputs.positions import make_grid

SHAPE = (3, 24, 28)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return kcompiler.compile(save("residual", tmp_path_factory.mktemp("model") / "model.onnx", 24, 28), patch=(4, 6))


@pytest.fixture(scope="module")
def explainer(bundle):
    return kcompiler.load(bundle, threads=1)


@pytest.fixture
def image():
    return np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)


def test_outputs_equal_running_the_source_on_covered_images(explainer, image):
    positions = np.array([[0, 0], [20, 22], [3, 7], [11, 0]])
    covered = np.repeat(image[None], 4, axis=0)
    for one, (y, x) in zip(covered, positions, strict=True):
        one[:, y : y + 4, x : x + 6] = np.array([1.0, -2.0, 0.5])[:, None, None]
    expected = explainer.full_inference().run(covered)
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=(1.0, -2.0, 0.5)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(cover(image[None], fill_image((1.0, -2.0, 0.5), SHAPE), positions, (4, 6)), covered)


def test_outputs_keep_the_order_and_number_of_positions(explainer, image):
    positions = make_grid((24, 28), (4, 6), 2).positions
    shuffled = np.random.default_rng(0).permutation(len(positions))
    np.testing.assert_allclose(
        explainer.outputs(image, positions)[shuffled], explainer.outputs(image, positions[shuffled]), rtol=1e-4, atol=1e-5
    )
    assert explainer.outputs(image, np.repeat(positions[:1], 3, axis=0)).shape == (3, 5)
    assert explainer.outputs(image, []).shape == (0, 5)


def test_heat_map_holds_raw_scores_of_the_target(explainer, image):
    heat_map = explainer.explain(image, stride=5, target=3, fill=0.25)
    grid = make_grid((24, 28), (4, 6), 5)
    np.testing.assert_array_equal(heat_map.ys, grid.ys)
    np.testing.assert_array_equal(heat_map.xs, grid.xs)
    np.testing.assert_array_equal(heat_map.scores.reshape(-1), explainer.outputs(image, grid.positions, fill=0.25)[:, 3])
    unoccluded = explainer.full_inference().run(image[None])[0]
    assert heat_map.unoccluded == pytest.approx(unoccluded[3], rel=1e-4)
    assert heat_map.scores.dtype == np.float32
    assert heat_map.evaluated == heat_map.scores.size
    assert heat_map.complete


def test_default_target_is_the_largest_output(explainer, image):
    assert explainer.explain(image, stride=10).target == explainer.full_inference().run(image[None])[0].argmax()


def test_region_of_interest_is_a_part_of_the_whole_map(explainer, image):
    whole = explainer.explain(image, stride=2, target=0)
    part = explainer.explain(image, stride=2, target=0, region=(4, 6, 16, 22))
    rows, cols = np.isin(whole.ys, part.ys), np.isin(whole.xs, part.xs)
    assert part.ys.min() == 4
    assert part.ys.max() + 4 == 16
    np.testing.assert_allclose(whole.scores[np.ix_(rows, cols)], part.scores, rtol=1e-4, atol=1e-5)


def test_image_with_and_without_batch_axis(explainer, image):
    np.testing.assert_array_equal(explainer.outputs(image, [[1, 2]]), explainer.outputs(image[None], [[1, 2]]))


def test_progress_counts_up_with_a_forecast(explainer, image):
    points = []
    explainer.explain(image, stride=1, target=0, progress=points.append)
    assert [p.done for p in points] == sorted({p.done for p in points})
    assert points[-1].done == points[-1].total == 21 * 23
    assert points[-1].remaining == 0
    assert points[0].remaining > 0


def test_interrupted_map_is_kept_and_resumed(explainer, image):
    def stop(progress):
        if progress.done > 100:
            raise KeyboardInterrupt

    with pytest.raises(kcompiler.Interrupted) as caught:
        explainer.explain(image, stride=1, target=1, progress=stop)
    partial = caught.value.heat_map
    assert 100 < partial.evaluated < partial.scores.size
    assert np.isnan(partial.scores).sum() == partial.scores.size - partial.evaluated
    whole = explainer.explain(image, stride=1, target=1)
    counted = []
    resumed = explainer.explain(image, stride=1, target=1, resume=partial, progress=counted.append)
    assert counted[-1].total == partial.scores.size - partial.evaluated
    assert resumed.complete
    np.testing.assert_allclose(resumed.scores, whole.scores, rtol=1e-4, atol=1e-5)
    with pytest.raises(kcompiler.UsageError, match="another target"):
        explainer.explain(image, stride=1, target=2, resume=partial)


def test_interrupted_maps_of_several_targets_are_kept_and_resumed(explainer, image):
    def stop(progress):
        if progress.done > 100:
            raise KeyboardInterrupt

    with pytest.raises(kcompiler.Interrupted) as caught:
        explainer.explain_targets(image, np.int64(2), stride=1, score="drop", progress=stop)
    partial = caught.value.heat_maps
    assert len(partial) == 2
    assert all(100 < one.evaluated < one.scores.size and not one.complete for one in partial)
    counted = []
    resumed = explainer.explain_targets(image, 2, stride=1, score="drop", resume=partial, progress=counted.append)
    assert counted[-1].total == partial[0].scores.size - partial[0].evaluated
    for one, whole in zip(resumed, explainer.explain_targets(image, 2, stride=1, score="drop"), strict=True):
        assert one.complete
        assert one.target == whole.target
        np.testing.assert_allclose(one.scores, whole.scores, rtol=1e-4, atol=1e-5)
    with pytest.raises(kcompiler.UsageError, match="another target, score"):
        explainer.explain_targets(image, 2, stride=2, score="drop", resume=partial)
    with pytest.raises(kcompiler.UsageError, match="several maps"):
        explainer.explain(image, stride=1, score="drop", resume=partial)


def test_upsampled_map_meets_the_scores_at_patch_centres(explainer, image):
    heat_map = explainer.explain(image, stride=4, target=0)
    full_size = heat_map.upsample()
    assert full_size.shape == (24, 28)
    between = full_size[int(heat_map.ys[2]) + 1 : int(heat_map.ys[2]) + 3, int(heat_map.xs[1]) + 2 : int(heat_map.xs[1]) + 4]
    assert between.mean() == pytest.approx(heat_map.scores[2, 1], abs=float(0.25 * np.ptp(heat_map.scores)))
    assert full_size.min() >= heat_map.scores.min() - 1e-6
    assert full_size.max() <= heat_map.scores.max() + 1e-6


def test_saved_map_is_raw_numbers_a_picture_and_a_record(explainer, image, tmp_path):
    heat_map = explainer.explain(image, stride=6, target=0)
    heat_map.save(tmp_path / "out", "one", picture=np.zeros((24, 28, 3), np.uint8), details={"note": 1})
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "one.npy"), heat_map.scores)
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert record["unoccluded"] == heat_map.unoccluded
    assert record["note"] == 1
    with Image.open(tmp_path / "out" / "one.png") as drawing:
        assert drawing.size[0] > 100
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.json", "one.npy", "one.png"]
    with pytest.raises(kcompiler.UsageError, match="exists already"):
        heat_map.save(tmp_path / "out", "one")
    heat_map.save(tmp_path / "out", "one", force=True)


def test_any_label_can_be_drawn(explainer, image, tmp_path):
    heat_map = replace(explainer.explain(image, stride=10, target=0), label="<b>$\\frac$")
    assert "<img src=" in heat_map._repr_html_()
    assert "<b>" not in heat_map._repr_html_()
    heat_map.save(tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/b"])
def test_names_stay_in_their_folder(explainer, image, tmp_path, name):
    heat_map = explainer.explain(image, stride=10, target=0)
    with pytest.raises(kcompiler.UsageError, match="no file name"):
        heat_map.save(tmp_path / "in", name)
    assert not list(tmp_path.iterdir())


def test_overlay_shows_red_where_covering_hurts(explainer, image):
    heat_map = explainer.explain(image, stride=2, target=0)
    pixels = np.asarray(heat_map.overlay(np.full((24, 28, 3), 128, np.uint8))).astype(int)
    assert (pixels[..., 0] - pixels[..., 2]).max() > 60
    with pytest.raises(kcompiler.UsageError, match=r"expected uint8 of the map's size \[24, 28\]"):
        heat_map.overlay(np.zeros((10, 10, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.astype(np.float64), "is float64, expected float32"),
        (lambda i: i[:2], r"shape \[2, 24, 28\], expected \[3, 24, 28\]"),
        (lambda i: np.stack([i, i]), r"shape \[2, 3, 24, 28\]"),
        (lambda i: np.where(np.arange(28) == 3, np.float32(np.nan), i), r"not finite.*\(0, 0, 3\)"),
    ],
)
def test_images_that_do_not_fit(explainer, image, change, message):
    with pytest.raises(kcompiler.ImageError, match=message):
        explainer.explain(change(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"target": 5}, "target is 5, expected 0 to 4"),
        ({"target": -1}, "target is -1"),
        ({"target": "cat"}, "'cat' names 0 outputs"),
        ({"fill": (1.0, 2.0)}, "one number, one for each of 3 channels"),
        ({"fill": float("nan")}, "not finite"),
        ({"region": (0, 0, 3, 3)}, "smaller than the patch"),
        ({"quality": "good"}, "expected 'exact'"),
        ({"stride": 2.5}, "stride is 2.5"),
        ({"region": (0, 0, 9.5, 9)}, "region is"),
        ({"region": (0, 0, 9)}, "region is"),
        ({"fill": "red"}, "fill 'red' is not known"),
        ({"target": 1.5}, "target is 1.5"),
    ],
)
def test_settings_out_of_range(explainer, image, options, message):
    with pytest.raises(kcompiler.UsageError, match=message):
        explainer.explain(image, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 8.0}, "patch is .*expected whole numbers"),
        ({"patch": (8,)}, "expected a side or"),
        ({"patch": (8, 8, 8)}, "expected a side or"),
        ({"input_shape": (3, 24.0, 28)}, "input_shape is"),
        ({"extents": "Tight"}, "extents is 'Tight'"),
        ({"convolution": "winograd"}, "convolution is 'winograd'"),
    ],
)
def test_compile_arguments_out_of_range(options, message, tmp_path):
    with pytest.raises(kcompiler.UsageError, match=message):
        kcompiler.compile(save("chain", tmp_path / "model.onnx", 24, 28), **options)


def test_sizes_may_be_numpy_numbers(tmp_path):
    bundle = kcompiler.compile(save("chain", tmp_path / "model.onnx", 24, 28), patch=np.int64(4))
    assert bundle.manifest.patch == (4, 4)


def test_absent_provider_is_an_error(bundle):
    with pytest.raises(kcompiler.ProviderError, match=r"CUDAExecutionProvider was asked for.*gpu"):
        kcompiler.load(bundle, providers=["cuda"])
    with pytest.raises(kcompiler.UsageError, match="expected a list of names"):
        kcompiler.load(bundle, providers="cpu")
    with pytest.raises(kcompiler.ProviderError, match="NoSuchProvider"):
        kcompiler.load(bundle, providers=["NoSuchProvider"])


@pytest.mark.parametrize("patch", [25, (24, 29), 0, (-1, 4)])
def test_patch_that_does_not_fit(patch, tmp_path):
    with pytest.raises(kcompiler.UsageError, match="does not fit the image"):
        kcompiler.compile(save("chain", tmp_path / "model.onnx", 24, 28), patch=patch)


def test_labels_name_targets(tmp_path):
    recipe = kcompiler.Preprocessing(
        size=(24, 28),
        resize="stretch",
        scale=1 / 255,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        channel_order="RGB",
        labels=tuple("abcde"),
    )
    model = save("chain", tmp_path / "model.onnx", 24, 28)
    explainer = kcompiler.load(bundle := kcompiler.compile(model, patch=4, preprocessing=recipe))
    image = np.zeros(SHAPE, np.float32)
    assert explainer.explain(image, stride=10, target="c").target == 2
    assert explainer.explain(image, stride=10, target="c").label == "c"
    assert bundle.manifest.preprocessing == recipe
    wrong = recipe.model_copy(update={"labels": ("a", "b")})
    with pytest.raises(kcompiler.UsageError, match="2 labels, the model puts out 5"):
        kcompiler.compile(model, patch=4, preprocessing=wrong)
    small = recipe.model_copy(update={"size": (20, 28)})
    with pytest.raises(kcompiler.UsageError, match=r"\[3, 20, 28\].*\[3, 24, 28\]"):
        kcompiler.compile(model, patch=4, preprocessing=small)
