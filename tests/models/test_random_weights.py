"""Random networks must still respond to their input, and fold their batch normalisation visibly."""

import pytest

torch = pytest.importorskip("torch")

from models.networks import NETWORKS  # noqa: E402
from models.random_weights import WIDEST, randomise, smooth_noise  # noqa: E402


def resnet(seed):
    network = NETWORKS["resnet18"].build(num_classes=10).eval()
    randomise(network, seed)
    return network


def test_residuals_that_pile_up_do_not_widen_the_logits():
    network = NETWORKS["regnet_y_400mf"].build(num_classes=100).eval()
    randomise(network, seed=0)
    with torch.no_grad():
        logits = network(smooth_noise(2, 224, torch.Generator().manual_seed(1)))
    assert logits.std() < 1.3 * WIDEST


def test_same_seed_same_weights():
    one, same, other = (resnet(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_batch_norms_are_far_from_the_identity():
    norms = [module for module in resnet(0).modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 20
    for norm in norms:
        for values, identity in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
            assert (values - identity).abs().mean() > 0.05


def test_nothing_is_left_as_a_training_would_start():
    network = NETWORKS["convnext_tiny"].build(num_classes=100)
    randomise(network, seed=0)
    # Residuals are scaled by 1e-6 before the first step, biases are zero, and norms are the identity.
    assert [name for name, parameter in network.named_parameters() if parameter.std() < 0.02] == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("resnet18", "inception_v3", "convnext_tiny", "swin_t") else pytest.mark.slow)
        for name in NETWORKS
    ],
)
def test_logits_tell_images_apart_and_are_of_moderate_size(name):
    network = NETWORKS[name].build(num_classes=100).eval()
    randomise(network, seed=0)
    side = NETWORKS[name].usual_side // 8 * 8
    with torch.no_grad():
        logits = network(smooth_noise(2, side, torch.Generator().manual_seed(1)))
    assert 0.3 < logits.std() < 20
    assert (logits[0] - logits[1]).std() > 0.04 * logits.std()
