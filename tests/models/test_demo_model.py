"""The demo's files belong together: the model is small, and sees in the picture what the truth file says."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

from models.demo_model import DEMO_FOLDER, MODEL, PICTURE, PREPROCESSING, TRUTH, Preprocessing
from models.demo_pictures import LABELS, SIDE, picture
from models.evaluate_demo import full_inference_scores, open_session, patch_centre, pointing, run

TRUTH_OF_PICTURE = json.loads((DEMO_FOLDER / TRUTH).read_text())


@pytest.fixture(scope="module")
def session():
    return open_session(DEMO_FOLDER / MODEL, threads=2)


@pytest.fixture(scope="module")
def preprocessing():
    return Preprocessing.load(DEMO_FOLDER / PREPROCESSING)


@pytest.fixture(scope="module")
def pixels():
    return np.asarray(Image.open(DEMO_FOLDER / PICTURE))


def test_model_is_small_and_valid():
    path = DEMO_FOLDER / MODEL
    assert path.stat().st_size <= 5e6
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert model.opset_import[0].version >= 18
    # The demo is to show that the compiler folds it.
    assert any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_model_classifies_the_picture_as_the_truth_says(session, preprocessing, pixels):
    logits = run(session, preprocessing(pixels)[None])[0]
    assert LABELS[logits.argmax()] == TRUTH_OF_PICTURE["label"]


def test_picture_is_unseen_and_holds_the_lesion_of_the_truth(pixels):
    made = picture(TRUTH_OF_PICTURE["picture_seed"], "test")
    assert list(made.box) == TRUTH_OF_PICTURE["box"]
    assert LABELS[made.label] == TRUTH_OF_PICTURE["label"] != "healthy"
    # Another numpy or scikit-image may round a pixel the other way.
    assert np.abs(made.pixels.astype(int) - pixels).max() <= 1


def test_preprocessing_file_has_the_agreed_fields(preprocessing):
    fields = json.loads((DEMO_FOLDER / PREPROCESSING).read_text())
    assert fields.keys() == {"size", "resize", "scale", "mean", "std", "channel_order", "labels"}
    assert fields["size"] == [SIDE, SIDE]
    assert (fields["resize"], fields["channel_order"]) == ("stretch", "RGB")
    assert fields["labels"] == list(LABELS)
    assert fields["scale"] == pytest.approx(1 / 255)


def test_preprocessing_is_the_formula(preprocessing):
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 3, 5, 3), dtype=np.uint8)
    inputs = preprocessing(pixels)
    assert inputs.shape == (2, 3, 3, 5)
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - preprocessing.mean[channel]) / preprocessing.std[channel]
        np.testing.assert_allclose(inputs[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_occlusion_map_of_the_picture_points_at_the_lesion(session, preprocessing, pixels):
    target = LABELS.index(TRUTH_OF_PICTURE["label"])
    scores = full_inference_scores(session, preprocessing(pixels), target, patch=16, stride=16)
    assert scores.shape == (14, 14)
    y, x = patch_centre(scores, patch=16, stride=16)
    top, left, bottom, right = TRUTH_OF_PICTURE["box"]
    assert top - 8 <= y <= bottom + 8
    assert left - 8 <= x <= right + 8


def test_scores_are_those_of_images_covered_by_hand(session, preprocessing, pixels):
    image = preprocessing(pixels)
    scores = full_inference_scores(session, image, target=1, patch=40, stride=70)
    for row, top in enumerate((0, 70, 140)):
        for column, left in enumerate((0, 70, 140)):
            covered = image.copy()
            covered[:, top : top + 40, left : left + 40] = 0
            assert scores[row, column] == pytest.approx(run(session, covered[None])[0, 1], rel=1e-4, abs=1e-4)


def test_pointing_counts_hits_near_misses_and_misses(preprocessing):
    """An explanation that knows the boxes is counted as told: one hit, one just outside the box, one far off."""
    boxes = []

    def right_for_lesions(image):
        return np.eye(3)[len(boxes) % 2 + 1]  # the pictures' labels are 1, 2, 1, ...

    def explain(image, target):
        seed = 5000 + next(offset for offset in range(9) if np.array_equal(inputs[offset], image))
        boxes.append(picture(seed, "test").box)
        top, left, bottom, right = boxes[-1]
        y = [(top + bottom) // 2, bottom + 4 if bottom < 200 else top - 4, (bottom + 112) % 224][len(boxes) - 1]
        scores = np.zeros((SIDE - 15, SIDE - 15), np.float32)
        scores[np.clip(y - 8, 0, SIDE - 16), np.clip((left + right) // 2 - 8, 0, SIDE - 16)] = -1
        return scores

    inputs = [preprocessing(picture(5000 + offset, "test").pixels) for offset in range(9)]
    found = pointing(right_for_lesions, explain, preprocessing, pictures=3, patch=16, stride=1)
    assert (found.pictures, found.strict, found.grown) == (3, 1, 2)
