"""The demo's files belong together: the model is small, and sees in the picture what the truth file says."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

import kcompiler
from models.demo_model import DEMO_FOLDER, MODEL, PICTURE, PREPROCESSING, TRUTH
from models.demo_pictures import LABELS, SIDE, picture
from models.evaluate_demo import patch_centre, pointing

TRUTH_OF_PICTURE = json.loads((DEMO_FOLDER / TRUTH).read_text())


@pytest.fixture(scope="module")
def explainer():
    return kcompiler.load(kcompiler.compile(DEMO_FOLDER / MODEL, patch=16, preprocessing=DEMO_FOLDER / PREPROCESSING))


@pytest.fixture(scope="module")
def preprocessing():
    return kcompiler.Preprocessing.read(DEMO_FOLDER / PREPROCESSING)


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


def test_model_classifies_the_picture_as_the_truth_says(explainer, preprocessing, pixels):
    logits = explainer.full_inference().run(preprocessing.to_input(pixels)[None])[0]
    assert LABELS[logits.argmax()] == TRUTH_OF_PICTURE["label"]


def test_picture_is_unseen_and_holds_the_lesion_of_the_truth(pixels):
    made = picture(TRUTH_OF_PICTURE["picture_seed"], "test")
    assert list(made.box) == TRUTH_OF_PICTURE["box"]
    assert LABELS[made.label] == TRUTH_OF_PICTURE["label"] != "healthy"
    # Another numpy or scikit-image may round a pixel the other way.
    assert np.abs(made.pixels.astype(int) - pixels).max() <= 1


def test_preprocessing_is_of_the_pictures(preprocessing):
    assert preprocessing.size == (SIDE, SIDE)
    assert preprocessing.labels == tuple(LABELS)


def test_occlusion_map_of_the_picture_points_at_the_lesion(explainer, preprocessing, pixels):
    target = LABELS.index(TRUTH_OF_PICTURE["label"])
    scores = explainer.explain(preprocessing.to_input(pixels), stride=16, target=target).scores
    assert scores.shape == (14, 14)
    y, x = patch_centre(scores, patch=16, stride=16)
    top, left, bottom, right = TRUTH_OF_PICTURE["box"]
    assert top - 8 <= y <= bottom + 8
    assert left - 8 <= x <= right + 8


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

    inputs = [preprocessing.to_input(picture(5000 + offset, "test").pixels) for offset in range(9)]
    found = pointing(right_for_lesions, explain, preprocessing, pictures=3, patch=16, stride=1)
    assert (found.pictures, found.strict, found.grown) == (3, 1, 2)
