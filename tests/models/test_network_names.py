"""The networks are torchvision's, name by name and shape by shape, so that its state dicts load."""

import hashlib

import pytest

torch = pytest.importorskip("torch")

from models.networks import NETWORKS  # noqa: E402

# Taken from torchvision 0.29.2 itself: number of state dict entries, of parameters, and sha256 of the sorted lines
# "name:shape", shapes as 64x3x7x7.
TORCHVISION = {
    "vgg16": (32, 138_357_544, "1233a85610c17a5dd5f24d13eecf19c1abce3f9a92a543d032bd935ef5373a6b"),
    "resnet18": (122, 11_689_512, "1ea5a05ba4f9ea93db9b732b9b99ba541a818c39f00f7f614a4b58db704b33e3"),
    "inception_v3": (580, 27_161_264, "4c37220abf05b3111c073f71588f20040c4c917c22773196583b075969e9cf99"),
}


def on_no_memory(name, **arguments):
    """Network with shapes only, no storage: built in no time."""
    with torch.device("meta"):
        return NETWORKS[name].build(**arguments)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name):
    network = on_no_memory(name)
    lines = sorted(f"{key}:{'x'.join(map(str, value.shape))}" for key, value in network.state_dict().items())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (len(lines), parameters, hashlib.sha256("\n".join(lines).encode()).hexdigest()) == TORCHVISION[name]


@pytest.mark.parametrize("name", TORCHVISION)
def test_classes_change_the_last_layers_only(name):
    usual, few = on_no_memory(name).state_dict(), on_no_memory(name, num_classes=7).state_dict()
    changed = {key.rpartition(".")[0] for key in usual if usual[key].shape != few[key].shape}
    assert changed == {"vgg16": {"classifier.6"}, "resnet18": {"fc"}, "inception_v3": {"fc", "AuxLogits.fc"}}[name]


@pytest.mark.parametrize(("name", "side"), [("vgg16", 224), ("resnet18", 224), ("inception_v3", 299)])
def test_logits_have_one_row_per_image(name, side):
    network = on_no_memory(name, num_classes=7).eval()
    assert network(torch.empty(2, 3, side, side, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(("height", "width"), [(7, 14), (2, 3), (9, 7), (16, 10)])
def test_adaptive_pool_equals_torchs(height, width):
    from models.vgg import adaptive_average_pool

    maps = torch.rand(2, 5, height, width)
    torch.testing.assert_close(adaptive_average_pool(maps, 7), torch.nn.functional.adaptive_avg_pool2d(maps, 7))


def test_transform_input_turns_imagenet_normalised_pixels_into_minus_one_to_one():
    from models.inception import IMAGENET_MEAN, IMAGENET_STD, InceptionV3
    from models.random_weights import randomise

    plain, converting = InceptionV3(5).eval(), InceptionV3(5, transform_input=True).eval()
    randomise(plain, seed=0)
    converting.load_state_dict(plain.state_dict())
    pixels = torch.rand(2, 3, 75, 75)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = plain(2 * pixels - 1)
        torch.testing.assert_close(converting((pixels - mean) / std), expected, rtol=1e-3, atol=1e-4 * expected.std().item())
