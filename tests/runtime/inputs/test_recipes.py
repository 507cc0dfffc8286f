"""Recipes of published models give the arrays of the pipelines that they describe."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.preprocessing import Preprocessing, preprocessed
from kcompiler.runtime.inputs.recipes import PRESETS, recipe_by

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPE = (3, 224, 224)
SIZES = [(300, 401), (401, 301), (97, 131), (224, 224)]
LEVEL = 1 / 255


@pytest.fixture(params=["along x first", "as installed"])
def pillow(request, monkeypatch):
    """Pillow with the order of axes that it had up to version 12, whose numbers are ours to the bit; and as it is installed."""
    if request.param == "along x first":
        one_call = Image.Image.resize

        def resize(image, size, resample=None, *others, **named):
            return one_call(one_call(image, (size[0], image.height), resample), tuple(size), resample)

        monkeypatch.setattr(Image.Image, "resize", resize)
    return request.param


def agree(pillow, ours, theirs):
    """To the bit; or where the axes come in another order, within a level for nearly all pixels, and two for all."""
    apart = np.abs(ours - theirs) / LEVEL
    if pillow == "along x first":
        assert apart.max() <= 1e-3
    else:
        assert apart.max() <= 2.01
        assert (apart > 1.01).mean() <= 1e-4


def photograph(height, width):
    """Smooth, with soft edges, as photographs are."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(20 * y + 3 * c) * np.cos(15 * x - 2 * c) + np.tanh(30 * (x - y)) for c in range(3)]
    return np.rint(np.stack(waves, axis=-1) * 60 + 127).astype(np.uint8)


def written(tmp_path, content, name="preprocessor_config.json"):
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path / name


def found(recipe, pixels):
    """In units of the scaled pixel: times std."""
    return preprocessed(pixels, recipe)[0] * np.array(recipe.std, np.float32)[:, None, None]


def resized(image, size, interpolation):
    """In one call, as the pipelines do: the order of the axes is the installed Pillow's."""
    return image.resize(size[::-1], interpolation)


def torchvisions(pixels, shorter, crop, interpolation):
    """Resize, CenterCrop, ToTensor of torchvision, for crops inside of the picture."""
    height, width = pixels.shape[:2]
    scaled = (shorter, int(shorter * width / height)) if height <= width else (int(shorter * height / width), shorter)
    image = np.asarray(resized(Image.fromarray(pixels), scaled, interpolation))
    top, left = (round((side - crop) / 2.0) for side in scaled)
    return image[top : top + crop, left : left + crop].transpose(2, 0, 1) / 255


# --- presets


@pytest.mark.parametrize("size", SIZES)
def test_imagenet_is_torchvisions(size, pillow):
    pixels = photograph(*size)
    expected = torchvisions(pixels, 256, 224, Image.Resampling.BILINEAR) - np.array(MEAN)[:, None, None]
    agree(pillow, found(PRESETS["imagenet"](SHAPE), pixels), expected)


def test_presets_of_ranges():
    pixels = photograph(224, 224)
    planes = pixels.transpose(2, 0, 1).astype(float)
    np.testing.assert_allclose(preprocessed(pixels, PRESETS["unit"](SHAPE))[0], planes / 255, atol=1e-6)
    np.testing.assert_allclose(preprocessed(pixels, PRESETS["minus-one-one"](SHAPE))[0], planes / 127.5 - 1, atol=1e-6)
    keras = planes[::-1] - np.array([103.939, 116.779, 123.68])[:, None, None]
    np.testing.assert_allclose(preprocessed(pixels, PRESETS["caffe"](SHAPE))[0], keras, atol=1e-4)
    assert PRESETS["unit"]((1, 28, 28)).channel_order == "gray"
    assert PRESETS["unit"]((5, 28, 28)).channels == 5


# --- Hugging Face

NORMALISED = {
    "image_mean": MEAN,
    "image_std": STD,
    "rescale_factor": 1 / 255,
    "do_rescale": True,
    "do_normalize": True,
    "do_resize": True,
}
PROCESSORS = {
    "ViT": {"size": {"height": 224, "width": 224}, "resample": 2},
    "DeiT": {
        "size": {"height": 256, "width": 256},
        "resample": 3,
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
    "Siglip": {"size": {"height": 224, "width": 224}, "resample": 3},
    "CLIP": {"size": {"shortest_edge": 224}, "resample": 3, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
    "Bit": {"size": {"shortest_edge": 256}, "resample": 3, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
    "MobileNetV1": {"size": {"shortest_edge": 256}, "resample": 2, "crop_size": {"height": 224, "width": 224}},
    "MobileNetV2": {"size": {"shortest_edge": 255}, "resample": 2, "crop_size": {"height": 224, "width": 224}},
    "ConvNext": {"size": {"shortest_edge": 224}, "resample": 3, "crop_pct": 0.875},
    "ConvNext at 384": {"size": {"shortest_edge": 384}, "resample": 3, "crop_pct": 0.875},
    "Beit": {"size": {"height": 224, "width": 224}, "resample": 3, "do_center_crop": False},
    "CLIP, pads": {"size": {"shortest_edge": 200}, "resample": 3, "crop_size": {"height": 224, "width": 221}},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_of_transformers(name, size, tmp_path, pillow):
    """The processor itself, by Pillow, from the same file."""
    transformers = pytest.importorskip("transformers")
    kind = name.partition(",")[0].partition(" ")[0]
    content = {**NORMALISED, **PROCESSORS[name], "image_processor_type": f"{kind}ImageProcessor"}
    recipe = recipe_by(written(tmp_path, content))(SHAPE)
    try:
        processor = getattr(transformers, f"{kind}ImageProcessorPil")
    except (AttributeError, ImportError):
        processor = getattr(transformers, f"{kind}ImageProcessor")
    pixels = photograph(*size)
    expected = processor.from_pretrained(tmp_path)(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    assert expected.shape == (3, *recipe.size)
    scaled = expected * np.array(STD, np.float32)[:, None, None]
    agree(pillow, found(recipe, pixels), scaled)


def test_old_files_of_transformers(tmp_path):
    """Feature extractors, sizes of one number, steps that are off."""
    content = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "resample": 2, "image_mean": MEAN, "image_std": STD}
    recipe = recipe_by(written(tmp_path, content))(SHAPE)
    assert (recipe.size, recipe.resize, recipe.scale) == ((224, 224), "stretch", pytest.approx(1 / 255))
    content = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}
    content |= {"do_normalize": False, "do_rescale": False}
    recipe = recipe_by(written(tmp_path, content))(SHAPE)
    assert (recipe.shorter_side, recipe.scale, recipe.mean, recipe.std) == (224, 1.0, (0.0,) * 3, (1.0,) * 3)


def test_labels_of_the_config_beside(tmp_path):
    path = written(tmp_path, {**NORMALISED, **PROCESSORS["ViT"], "image_processor_type": "ViTImageProcessor"})
    written(tmp_path, {"id2label": {"1": "dog", "0": "cat"}, "model_type": "vit"}, "config.json")
    assert recipe_by(path)(SHAPE).labels == ("cat", "dog")
    assert recipe_by(tmp_path)(SHAPE).labels == ("cat", "dog"), "a folder"
    written(tmp_path, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "config.json")
    assert recipe_by(path)(SHAPE).labels == ()
    written(tmp_path, {"id2label": {"0": "cat", "2": "dog"}}, "config.json")
    with pytest.raises(UsageError, match="id2label"):
        recipe_by(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "DonutImageProcessor"}, "image processor Donut is not known"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order is not known here"),
        ({"do_thumbnail": True}, "do_thumbnail is not known here"),
        ({"rescale_offset": True}, "rescale_offset is not known here"),
        ({"do_pad": True}, "do_pad is not known"),
        ({"crop_pct": 0.9}, "crop_pct is not known"),
        ({"resample": 4}, "resample is 4"),
        ({"resample": None}, "has no resample"),
        ({"image_mean": None}, "has no image_mean"),
        ({"size": {"shortest_edge": 224}}, "size is"),
        ({"size": {"shortest_edge": 224, "longest_edge": 1333}}, "size is"),
        ({"size": None}, "has no size"),
        ({"do_normalize": "yes"}, "expected true or false"),
        ({"image_std": [0, 1, 1]}, "std"),
        ({"image_mean": [0.5]}, "mean and std need 3"),
        ({"do_center_crop": True, "crop_size": {"width": 3}}, "crop_size is"),
    ],
)
def test_what_processors_do_besides_is_refused(tmp_path, change, message):
    content = {**NORMALISED, **PROCESSORS["ViT"], "image_processor_type": "ViTImageProcessor", **change}
    with pytest.raises(UsageError, match=message):
        recipe_by(written(tmp_path, content))
    off = {**NORMALISED, **PROCESSORS["ViT"], "image_processor_type": "ViTImageProcessor", "do_pad": False, "pad_size": None}
    recipe_by(written(tmp_path, off))


# --- timm

TIMM = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center", "mean": MEAN, "std": STD}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timms_evaluation(size, crop_pct, mode, tmp_path, pillow):
    """timm.data.transforms_factory.transforms_imagenet_eval, written with Pillow."""
    content = {"architecture": "x", "num_classes": 2, "pretrained_cfg": {**TIMM, "crop_pct": crop_pct, "crop_mode": mode}}
    recipe = recipe_by(written(tmp_path, content, "config.json"))(SHAPE)
    pixels, scaled = photograph(*size), int(np.floor(224 / crop_pct))
    if mode == "center":
        expected = torchvisions(pixels, scaled, 224, Image.Resampling.BICUBIC)
    else:
        whole = np.asarray(resized(Image.fromarray(pixels), (scaled, scaled), Image.Resampling.BICUBIC))
        first = round((scaled - 224) / 2.0)
        expected = whole[first : first + 224, first : first + 224].transpose(2, 0, 1) / 255
    agree(pillow, found(recipe, pixels), expected - np.array(MEAN)[:, None, None])


def test_timms_labels_and_test_size(tmp_path):
    tested = {**TIMM, "test_input_size": [3, 288, 288], "test_crop_pct": 1.0}
    path = written(tmp_path, {"label_names": ["cat", "dog"], "pretrained_cfg": tested}, "config.json")
    assert recipe_by(path)(SHAPE).labels == ("cat", "dog")
    assert (recipe_by(tmp_path)(SHAPE).size, recipe_by(path)(SHAPE).shorter) == ((224, 224), 248)
    assert (recipe_by(path)((3, 288, 288)).size, recipe_by(path)((3, 288, 288)).shorter) == ((288, 288), 288)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_mode": "border"}, "crop_mode border is not supported"),
        ({"input_size": [3, 224, 256]}, "center of 224 x 256 is not supported"),
        ({"input_size": [1, 224, 224]}, "1 channels"),
        ({"interpolation": "random"}, "interpolation"),
        ({"sharpen": 3}, "sharpen is not known here"),
    ],
)
def test_what_timm_does_besides_is_refused(tmp_path, change, message):
    path = written(tmp_path, {"pretrained_cfg": {**TIMM, **change}}, "config.json")
    with pytest.raises(UsageError, match=message):
        recipe_by(path)(SHAPE)


# --- files


def test_our_own_files(tmp_path):
    own = {"size": [6, 8], "resize": "stretch", "scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1], "channel_order": "RGB"}
    assert recipe_by(written(tmp_path, own, "own.json"))(SHAPE) == Preprocessing.model_validate(own)
    with pytest.raises(UsageError, match=r"no such file.*presets are imagenet, unit"):
        recipe_by("imagenett")
    with pytest.raises(UsageError, match="describes a model"):
        recipe_by(written(tmp_path, {"model_type": "vit", "architectures": ["X"]}, "config.json"))
    with pytest.raises(UsageError, match="expected an object"):
        recipe_by(written(tmp_path, [1, 2], "list.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"without preprocessor_config\.json"):
        recipe_by(tmp_path / "empty")
