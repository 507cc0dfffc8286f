"""Preprocessing in a map model: pictures of any size become the images that the Python path makes of them."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from map_models import compiled, exported, run
from onnxruntime import InferenceSession
from PIL import Image

import kcompiler
from kcompiler.deployment import Deployment, export_map
from kcompiler.passes.deployment.builder import Builder
from kcompiler.passes.deployment.picture import check_recipe, image_of, model_fill
from kcompiler.runtime.deployed import COLOUR, PICTURE, SEEN
from kcompiler.runtime.inputs.elements import Element
from kcompiler.runtime.inputs.preprocessing import Preprocessing, preprocessed, read_picture, view_of

SIZE = (17, 24)
ODD_SIZES = (1, 2, 7, 16, 17, 18, 23, 24, 25, 31, 64, 97, 101, 333, 640, 1023)
UNIT = {"scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "channel_order": "RGB"}
WITHIN = 0.01
"""Of 255."""


def recipe(**changes: object) -> Preprocessing:
    given = {"size": SIZE, "resize": "stretch", **UNIT, **changes}
    if given["resize"] == "crop":
        given.setdefault("shorter_side", 26)
    return Preprocessing.model_validate(given)


def session(asked: Preprocessing, element: str = "float32") -> InferenceSession:
    """The preprocessing part of a map model alone."""
    outer = Builder("map/")
    results = [image_of(outer, asked, Element(element)), SEEN, model_fill(outer, asked, Element(element))]
    made = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        outer.nodes,
        "preprocessing",
        [
            made(PICTURE, onnx.TensorProto.UINT8, ["h", "w", asked.picture_channels]),
            made(COLOUR, onnx.TensorProto.FLOAT, [asked.channels]),
        ],
        [made(name, onnx.TensorProto.FLOAT, None) for name in results],
        outer.initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def of(opened: InferenceSession, pixels: np.ndarray, fill: float = 0.0) -> tuple[np.ndarray, ...]:
    channels = opened.get_inputs()[1].shape[0]
    return tuple(opened.run(None, {PICTURE: pixels, COLOUR: np.full(channels, fill, np.float32)}))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_pictures_of_all_sizes_are_resized_as_in_python(resize, interpolation):
    """256 pairs of sizes of random pixels, which is the hardest picture for any resampling."""
    asked = recipe(resize=resize, interpolation=interpolation)
    opened = session(asked)
    for height, width in itertools.product(ODD_SIZES, ODD_SIZES):
        pixels = picture(height, width)
        found, seen, _ = of(opened, pixels)
        assert np.abs(found - preprocessed(pixels, asked)).max() <= WITHIN, (height, width)
        top, left, bottom, right = seen
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width


MORE = {
    "letterbox": {"resize": "letterbox", "pad": (114.0, 0.0, 250.0), "channel_order": "BGR"},
    "letterbox, top left": {"resize": "letterbox", "anchor": "top-left", "pad": (114.0,)},
    "stretch and crop": {"resized": (23, 30)},
    "stretch and pad": {"resized": (23, 21), "pad": (9.0,)},
    "crop to the pixel, floor": {"resize": "crop", "shorter_side": 29, "crop_at": "floor"},
    "crop to the pixel, round": {"resize": "crop", "shorter_side": 29, "crop_at": "round"},
    "crop of a share": {"resize": "crop", "crop_share": 0.6, "shorter_side": None, "crop_at": "round"},
    "crop wider than the picture": {"resize": "crop", "shorter_side": 18, "pad": (9.0,)},
    "crop wider, to the pixel, floor": {"resize": "crop", "shorter_side": 19, "pad": (9.0,), "crop_at": "floor"},
    "crop wider, to the pixel, round": {"resize": "crop", "shorter_side": 19, "pad": (9.0,), "crop_at": "round"},
    "negative": {"invert": True, "scale": -0.5},
    "gray": {"gray": True, "channel_order": "gray", "mean": (1.0,), "std": (2.0,)},
    "five channels": {"channel_order": "stored", "mean": (1.0,) * 5, "std": (2.0,) * 5},
}
SOME_SIZES = (1, 2, 7, 17, 24, 31, 97, 333)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("changes", MORE.values(), ids=MORE)
@pytest.mark.parametrize("rounded", [False, True], ids=["free", "rounded"])
def test_recipes_are_those_of_python(changes, interpolation, rounded):
    """To the bit, where pixels are rounded."""
    if rounded and changes.get("resize") == "crop":
        changes = {"crop_at": "floor", **changes}
    asked = recipe(interpolation=interpolation, rounded=rounded, **changes)
    if interpolation == "nearest" and asked.crop_at == "fraction" and asked.resize == "crop":
        with pytest.raises(kcompiler.UsageError, match="interpolation 'nearest'"):
            check_recipe(asked)
        return
    check_recipe(asked)
    opened = session(asked)
    for height, width in itertools.product(SOME_SIZES, SOME_SIZES):
        pixels = picture(height, width, asked.picture_channels)
        found, seen, _ = of(opened, pixels)
        expected = preprocessed(pixels, asked)
        assert np.abs(found - expected).max() <= (1e-5 if rounded else WITHIN), (height, width)
        np.testing.assert_allclose(seen, view_of((height, width), asked).seen, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("changes", "field"), [({"bits": 12}, "bits"), ({"window": (40.0, 400.0)}, "window")])
def test_fields_without_a_form_in_a_model_are_refused_by_name(tmp_path, changes, field):
    bundle = compiled(tmp_path, "softmax", preprocessing=recipe(scale=1 / 255, **changes))
    with pytest.raises(kcompiler.UsageError, match=f"{field} of the preprocessing has no form"):
        export_map(bundle, tmp_path / "out", Deployment(preprocess=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"resize": "letterbox"}, {"resize": "crop", "shorter_side": 26, "crop_at": "round"}])
def test_rounded_recipes_pass_their_own_test_vector(tmp_path, changes):
    _, card, _ = exported(
        compiled(tmp_path, "residual", preprocessing=recipe(scale=1 / 255, rounded=True, **changes)), preprocess=True, stride=5
    )
    assert card.preprocesses


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_photographs_are_resized_as_in_python(resize, tmp_path):
    asked = recipe(size=(224, 224), resize=resize, **({"shorter_side": 256} if resize == "crop" else {}))
    ramp = np.add.outer(np.arange(2448), np.arange(3264)).astype(np.uint8)
    pixels = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
    found, seen, _ = of(session(asked), pixels)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    assert np.abs(found - read_picture(tmp_path / "picture.png", asked).tensor).max() <= WITHIN
    margin = 2448 * 32 / 2 / 256
    expected = (0, 0, 2448, 3264) if resize == "stretch" else (margin, 408 + margin, 2448 - margin, 408 + 2448 - margin)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR", "gray"])
def test_channels_are_scaled_and_ordered_as_in_python(order):
    channels = 1 if order == "gray" else 3
    numbers = {"mean": (0.485, 0.456, 0.406)[:channels], "std": (0.229, 0.224, 0.225)[:channels]}
    asked = recipe(scale=1 / 255, channel_order=order, **numbers)
    pixels = picture(40, 30, channels)
    found, _, fill = of(session(asked), pixels, 200.0)
    expected = preprocessed(pixels, asked)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN / 255 / 0.224)
    np.testing.assert_allclose(fill, asked.fill((200.0,)), rtol=1e-6)


@pytest.mark.parametrize("element", ["uint8", "int8", "bool", "float16", "bfloat16", "int64"])
def test_images_hold_what_the_sources_type_holds(element):
    """A picture of the model's own size, whose pixels are not resampled."""
    asked = recipe(mean=(3.25, 0.0, 100.0), std=(1.5, 2.0, 1.0))
    found, _, fill = of(session(asked, element), picture(*SIZE), 77.0)
    np.testing.assert_array_equal(found, Element(element).fitted(preprocessed(picture(*SIZE), asked)))
    np.testing.assert_array_equal(fill, Element(element).fitted(asked.fill((77.0,))))


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_maps_of_pictures_are_those_of_the_driver(tmp_path, resize):
    asked = recipe(resize=resize, scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channel_order="BGR")
    bundle = compiled(tmp_path, "residual", preprocessing=asked)
    opened, card, explainer = exported(bundle, stride=2, preprocess=True)
    assert card.preprocesses
    assert card.inputs[0].shape == ("height", "width", 3)
    for seed, (height, width) in enumerate([(17, 24), (40, 33), (300, 511)]):
        Image.fromarray(picture(height, width, seed=seed)).save(tmp_path / "picture.png")
        image = explainer.read_image(tmp_path / "picture.png").tensor
        expected = explainer.explain(image, stride=2, fill=asked.fill((10.0, 20.0, 30.0)))
        found = run(opened, picture(height, width, seed=seed), batches=(0, len(card.batches)), fill=(10.0, 20.0, 30.0))
        assert int(found["class"][0]) == expected.target
        np.testing.assert_allclose(found["map"], expected.scores, rtol=0, atol=1e-4 * np.ptp(expected.scores))


def test_pictures_pass_the_test_vector(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "softmax", preprocessing=recipe(scale=1 / 255)), preprocess=True, stride=3)
    out = tmp_path / "out"
    pixels = np.fromfile(out / card.test.image, np.uint8).reshape(card.test.image_shape)
    expected = np.fromfile(out / card.test.map, "<f4").reshape(card.outputs[0].shape)
    found = run(opened, pixels, card.test.target, card.test.batches, [card.test.fill] * 3)
    assert int(found["class"][0]) == card.test.chosen
    np.testing.assert_allclose(found["map"], expected, atol=card.test.tolerance * np.nanmax(np.abs(expected)))


def test_a_bundle_without_preprocessing_cannot_bring_it_along(tmp_path):
    with pytest.raises(kcompiler.UsageError, match="no preprocessing"):
        export_map(compiled(tmp_path, "softmax"), tmp_path / "out", Deployment(preprocess=True))
    assert not (tmp_path / "out").exists()


def test_weights_may_stand_in_the_model(tmp_path):
    bundle = compiled(tmp_path, "residual")
    beside, _, _ = exported(bundle, stride=3)
    image = np.random.default_rng(0).random((1, 3, *SIZE), np.float32)
    expected = run(beside, image, batches=(0, 1))
    card = export_map(bundle, tmp_path / "single", Deployment(stride=3, single_file=True))
    assert "weights.bin" not in card.files
    assert {path.name for path in (tmp_path / "single").iterdir()} == {*card.files, "card.json", "card.txt"}
    alone = InferenceSession((tmp_path / "single" / "map.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(run(alone, image, batches=(0, 1))["map"], expected["map"])
