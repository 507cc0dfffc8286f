"""A compiled bundle, from Python."""

from __future__ import annotations

import html
import io
import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from networks import save
from painted import read_back
from PIL import Image
from source_file import cover_by_hand, run_file

import kcompiler
from kcompiler.runtime.inputs.images import cover, fill_image
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.maps.heatmap import HeatMap

SHAPE = (3, 24, 28)
PATCH = (4, 6)
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("residual", tmp_path_factory.mktemp("model") / "model.onnx", 24, 28)


@pytest.fixture(scope="module")
def bundle(model):
    return kcompiler.compile(model, patch=PATCH)


@pytest.fixture(scope="module")
def explainer(bundle):
    return kcompiler.load(bundle, threads=1)


@pytest.fixture
def image():
    return np.random.default_rng(5).standard_normal(SHAPE, dtype=np.float32)


def expected_map(model, image, stride, target, fill=0.0, region=(0, 0, 24, 28)):
    """The scores of a map, by the source file: float32 [rows, cols]."""
    ys, xs = (range(region[axis], region[axis + 2] - PATCH[axis] + 1, stride) for axis in (0, 1))
    covered = cover_by_hand(image, [(y, x) for y in ys for x in xs], fill, PATCH)
    return run_file(model, covered)[:, target].reshape(len(ys), len(xs))


def between_centres(scores, stride):
    """A map [rows, cols] at the size of the image, pixel by pixel: linear between the centres of patches, constant beyond."""

    def neighbours(pixel, side, count):
        place = min(max((pixel - (side - 1) / 2) / stride, 0.0), count - 1.0)
        first = min(int(place), count - 2)
        return (first, 1 - (place - first)), (first + 1, place - first)

    found = np.zeros(SHAPE[1:])
    for y, x in np.ndindex(*SHAPE[1:]):
        for row, share in neighbours(y, PATCH[0], scores.shape[0]):
            for column, part in neighbours(x, PATCH[1], scores.shape[1]):
                found[y, x] += share * part * scores[row, column]
    return found


def test_outputs_equal_running_the_source_on_covered_images(model, explainer, image):
    positions = np.array([[0, 0], [20, 22], [3, 7], [11, 0]])
    covered = cover_by_hand(image, positions, (1.0, -2.0, 0.5), PATCH)
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=(1.0, -2.0, 0.5)), run_file(model, covered), **NEAR)
    np.testing.assert_array_equal(cover(image[None], fill_image((1.0, -2.0, 0.5), SHAPE), positions, PATCH), covered)


def test_outputs_keep_the_order_and_number_of_positions(explainer, image):
    positions = make_grid((24, 28), (4, 6), 2).positions
    shuffled = np.random.default_rng(0).permutation(len(positions))
    np.testing.assert_allclose(
        explainer.outputs(image, positions)[shuffled], explainer.outputs(image, positions[shuffled]), rtol=1e-4, atol=1e-5
    )
    assert explainer.outputs(image, np.repeat(positions[:1], 3, axis=0)).shape == (3, 5)
    assert explainer.outputs(image, []).shape == (0, 5)


def test_heat_map_holds_raw_scores_of_the_target(model, explainer, image):
    heat_map = explainer.explain(image, stride=5, target=3, fill=0.25)
    grid = make_grid((24, 28), (4, 6), 5)
    np.testing.assert_array_equal(heat_map.ys, grid.ys)
    np.testing.assert_array_equal(heat_map.xs, grid.xs)
    np.testing.assert_array_equal(heat_map.scores.reshape(-1), explainer.outputs(image, grid.positions, fill=0.25)[:, 3])
    np.testing.assert_allclose(heat_map.scores, expected_map(model, image, 5, 3, fill=0.25), **NEAR)
    unoccluded = run_file(model, image[None])[0]
    assert heat_map.unoccluded == pytest.approx(unoccluded[3], rel=1e-4)
    np.testing.assert_array_equal(heat_map.drop, np.float32(heat_map.unoccluded) - heat_map.scores)
    assert heat_map.scores.dtype == np.float32
    assert heat_map.evaluated == heat_map.scores.size
    assert heat_map.complete


def test_default_target_is_the_largest_output(model, explainer, image):
    found = explainer.explain(image, stride=10)
    assert found.target == run_file(model, image[None])[0].argmax()
    np.testing.assert_allclose(found.scores, expected_map(model, image, 10, found.target), **NEAR)


def test_region_of_interest_is_a_part_of_the_whole_map(model, explainer, image):
    whole = explainer.explain(image, stride=2, target=0)
    part = explainer.explain(image, stride=2, target=0, region=(4, 6, 16, 22))
    rows, cols = np.isin(whole.ys, part.ys), np.isin(whole.xs, part.xs)
    assert part.ys.min() == 4
    assert part.ys.max() + 4 == 16
    np.testing.assert_allclose(whole.scores[np.ix_(rows, cols)], part.scores, **NEAR)
    np.testing.assert_allclose(part.scores, expected_map(model, image, 2, 0, region=(4, 6, 16, 22)), **NEAR)


def test_image_with_and_without_batch_axis(explainer, image):
    np.testing.assert_array_equal(explainer.outputs(image, [[1, 2]]), explainer.outputs(image[None], [[1, 2]]))


def test_progress_counts_up_with_a_forecast(explainer, image):
    points = []
    explainer.explain(image, stride=1, target=0, progress=points.append)
    assert [p.done for p in points] == sorted({p.done for p in points})
    assert points[-1].done == points[-1].total == 21 * 23
    assert points[-1].remaining == 0
    first = points[0]
    assert first.remaining == pytest.approx(first.seconds * (first.total - first.done) / first.done)


def test_interrupted_map_is_kept_and_resumed(model, explainer, image):
    def stop(progress):
        if progress.done > 100:
            raise KeyboardInterrupt

    with pytest.raises(kcompiler.Interrupted) as caught:
        explainer.explain(image, stride=1, target=1, progress=stop)
    partial = caught.value.heat_map
    assert 100 < partial.evaluated < partial.scores.size
    whole = expected_map(model, image, 1, 1)
    np.testing.assert_allclose(partial.scores, np.where(partial.sampled, whole, np.nan), **NEAR)
    counted = []
    resumed = explainer.explain(image, stride=1, target=1, resume=partial, progress=counted.append)
    assert counted[-1].total == partial.scores.size - partial.evaluated
    assert resumed.complete
    np.testing.assert_allclose(resumed.scores, whole, **NEAR)
    with pytest.raises(kcompiler.UsageError, match="another target"):
        explainer.explain(image, stride=1, target=2, resume=partial)


def test_interrupted_maps_of_several_targets_are_kept_and_resumed(model, explainer, image):
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
    outputs = run_file(model, image[None])[0]
    for one, cut_short, target in zip(resumed, partial, np.argsort(-outputs)[:2], strict=True):
        assert one.complete
        assert one.target == cut_short.target == target
        drop = outputs[target] - expected_map(model, image, 1, target)
        np.testing.assert_allclose(one.scores, drop, **NEAR)
        np.testing.assert_allclose(cut_short.scores, np.where(cut_short.sampled, drop, np.nan), **NEAR)
    with pytest.raises(kcompiler.UsageError, match="another target, score"):
        explainer.explain_targets(image, 2, stride=2, score="drop", resume=partial)
    with pytest.raises(kcompiler.UsageError, match="several maps"):
        explainer.explain(image, stride=1, score="drop", resume=partial)


def test_upsampled_map_is_linear_between_the_scores_at_patch_centres(model, explainer, image):
    expected = between_centres(expected_map(model, image, 4, 0), 4)
    full_size = explainer.explain(image, stride=4, target=0).upsample()
    assert (full_size.shape, full_size.dtype) == ((24, 28), np.float32)
    np.testing.assert_allclose(full_size, expected, **NEAR)


def test_saved_map_is_raw_numbers_a_picture_and_a_record(model, explainer, image, tmp_path):
    heat_map, picture = explainer.explain(image, stride=6, target=0), np.zeros((24, 28, 3), np.uint8)
    written = heat_map.save(tmp_path / "out", "one", picture=picture, details={"note": 1})
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert sorted(p.name for p in written) == ["one.json", "one.npy", "one.png"]
    scores = np.load(tmp_path / "out" / "one.npy")
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected_map(model, image, 6, 0), **NEAR)
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert record.pop("seconds") == heat_map.seconds
    assert record.pop("unoccluded") == pytest.approx(run_file(model, image[None])[0, 0], rel=1e-4)
    assert record.pop("plan") == heat_map.plan.model_dump()
    digests = {suffix: sha256((tmp_path / "out" / f"one{suffix}").read_bytes()).hexdigest() for suffix in (".npy", ".png")}
    assert record.pop("sha256") == digests
    answer, outputs = record.pop("answer"), run_file(model, image[None])[0]
    assert (answer["kind"], answer["target"]["label"], answer["target"]["logit"]) == ("output", "0", None)
    assert [int(each["label"]) for each in answer["top"]] == np.argsort(-outputs)[:5].tolist()
    np.testing.assert_allclose([each["output"] for each in answer["top"]], np.sort(outputs)[::-1][:5], **NEAR)
    assert answer["off_by"] == pytest.approx(2.0**-18 * np.abs(outputs).max(), rel=1e-4)
    assert record == {
        "target": 0, "label": "0", "ys": [0, 6, 12, 18], "xs": [0, 6, 12, 18], "patch": [4, 6], "image": [24, 28],
        "score": "output", "evaluated": 16, "sampled": None, "exact": True, "complete": True, "warnings": [], "note": 1,
        "view": None,
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "one.png") as drawing:
        np.testing.assert_array_equal(np.asarray(drawing), np.asarray(heat_map.overlay(picture)))
    loaded = HeatMap.load(tmp_path / "out" / "one.json")
    np.testing.assert_array_equal(loaded.scores, scores)
    assert loaded.record() == heat_map.record()
    with pytest.raises(kcompiler.UsageError, match="exists already"):
        heat_map.save(tmp_path / "out", "one")
    replace(heat_map, scores=-scores).save(tmp_path / "out", "one", force=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "one.npy"), -scores)


def test_any_label_can_be_drawn(explainer, image, tmp_path):
    heat_map = replace(explainer.explain(image, stride=10, target=0), label="<b>$\\frac$")
    _, found, rest = heat_map._repr_html_().partition('<iframe srcdoc="')
    assert found
    assert html.unescape(rest.partition('"')[0]) == heat_map.to_html()
    assert "<b>" not in heat_map.to_html()
    with Image.open(io.BytesIO(heat_map._repr_png_())) as drawing:
        np.testing.assert_array_equal(np.asarray(drawing), np.asarray(heat_map.overlay()))
    heat_map.save(tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/b"])
def test_names_stay_in_their_folder(explainer, image, tmp_path, name):
    heat_map = explainer.explain(image, stride=10, target=0)
    with pytest.raises(kcompiler.UsageError, match="no file name"):
        heat_map.save(tmp_path / "in", name)
    assert not list(tmp_path.iterdir())


def test_overlay_shows_red_where_covering_hurts(model, explainer, image):
    """And blue where it helps, the more opaque the more it does; where it does neither, the picture."""
    uncovered, covered = run_file(model, image[None])[0, 0], expected_map(model, image, 2, 0)
    heat_map = explainer.explain(image, stride=2, target=0)
    share = (uncovered - between_centres(covered, 2)) / np.abs(uncovered - covered).max()
    assert share.min() < -0.3 < 0.3 < share.max(), "it does both"
    painted = read_back(heat_map.overlay, SHAPE[1:])
    np.testing.assert_allclose(painted.opacity, 0.75 * np.abs(share), atol=0.02)
    strong = np.abs(share) > 0.2
    np.testing.assert_array_equal(np.sign(painted.red[strong]), np.sign(share[strong]))
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
