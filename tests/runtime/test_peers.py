"""Presets reproduce the maps of the tools they are named after, by those tools themselves."""

from __future__ import annotations

import numpy as np
import pytest

import kcompiler
from kcompiler.runtime import peers
from kcompiler.runtime.inputs.positions import make_grid
from models.demo_model import DEMO_FOLDER, MODEL, PICTURE, PREPROCESSING

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the other tools' own code
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def explainer():
    return kcompiler.load(kcompiler.compile(DEMO_FOLDER / MODEL, patch=(16, 20), preprocessing=DEMO_FOLDER / PREPROCESSING))


@pytest.fixture(scope="module")
def image(explainer):
    return explainer.read_image(DEMO_FOLDER / PICTURE).tensor


@pytest.fixture(scope="module")
def module(explainer):
    """Full inference as PyTorch sees it."""
    full = explainer.full_inference()

    class Full(torch.nn.Module):
        def forward(self, images):
            return torch.from_numpy(full.run(images.detach().numpy()))

    return Full()


def test_the_map_is_worth_comparing(explainer, image):
    found = peers.captum(explainer, image, 1)
    assert np.ptp(found) > 100 * TOLERANCE["atol"]


@pytest.mark.parametrize("strides", [(12, 17), (16, 20)])
def test_captum_occlusion(explainer, image, module, strides):
    occlusion = pytest.importorskip("captum.attr").Occlusion(module)
    batch = torch.from_numpy(image.reshape(1, 3, 224, 224))
    expected = occlusion.attribute(
        batch, sliding_window_shapes=(3, 16, 20), strides=(3, *strides), target=1, baselines=0.25, perturbations_per_eval=8
    )
    found = peers.captum(explainer, image, 1, strides=strides, baselines=0.25)
    assert found.shape == (3, 224, 224)
    np.testing.assert_allclose(found, expected[0].numpy(), **TOLERANCE)


def test_captum_occlusion_channel_by_channel(explainer, image, module):
    occlusion = pytest.importorskip("captum.attr").Occlusion(module)
    batch = torch.from_numpy(image.reshape(1, 3, 224, 224))
    expected = occlusion.attribute(
        batch, sliding_window_shapes=(1, 16, 20), strides=(1, 16, 20), target=0, perturbations_per_eval=8
    )
    found = peers.captum(explainer, image, 0, per_channel=True)
    np.testing.assert_allclose(found, expected[0].numpy(), **TOLERANCE)
    assert np.abs(found[0] - found[1]).max() > 10 * TOLERANCE["atol"], "channels differ"


@pytest.mark.parametrize("mode", ["gaussian", "mean_img", "mean_patch", 0.25])
def test_monai_occlusion_sensitivity(explainer, image, module, mode):
    visualize = pytest.importorskip("monai.visualize")
    tool = visualize.OcclusionSensitivity(
        nn_module=module, mask_size=(16, 20), mode=mode, overlap=0.25, n_batch=8, activate=False, verbose=False
    )
    expected, probable = tool(torch.from_numpy(image.reshape(1, 3, 224, 224)))
    found, found_probable = peers.monai(explainer, image, mode=mode, overlap=0.25)
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), **TOLERANCE)
    differ = found_probable != probable.numpy()
    assert differ.mean() < 1e-3, "but where two classes are equal"


def test_xplique_occlusion_by_its_definition(explainer, image, module):
    """TensorFlow is not at hand: sum over whole patches of drop times mask, as its documentation has it."""
    grid = make_grid((224, 224), (16, 20), (40, 30))
    full = explainer.full_inference()
    checked = explainer.check_image(image)
    expected = np.zeros((224, 224))
    before = full.run(checked)[0, 2]
    for y, x in grid.positions:
        covered = checked.copy()
        covered[:, :, y : y + 16, x : x + 20] = 0.5
        expected[y : y + 16, x : x + 20] += before - full.run(covered)[0, 2]
    found = peers.xplique(explainer, image, 2, patch_stride=(40, 30), occlusion_value=0.5)
    np.testing.assert_allclose(found, expected, **TOLERANCE)


def test_settings_that_are_none(explainer, image):
    with pytest.raises(kcompiler.UsageError, match="strides is 24"):
        peers.captum(explainer, image, 0, strides=24)
    with pytest.raises(kcompiler.UsageError, match="overlap is 1"):
        peers.monai(explainer, image, overlap=1.0)
    with pytest.raises(kcompiler.UsageError, match="mode is 'soft'"):
        peers.monai(explainer, image, mode="soft")
