"""The networks are torchvision's, name by name and shape by shape, so that its state dicts load."""

import hashlib
import re

import pytest

torch = pytest.importorskip("torch")

from models.families.vision_transformer import GRID, Encoder  # noqa: E402
from models.input_range import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from models.networks import NETWORKS  # noqa: E402
from models.random_weights import randomise  # noqa: E402
from models.vgg import adaptive_average_pool  # noqa: E402

# Taken from torchvision 0.29.1 itself: number of state dict entries, of parameters, and sha256 of the sorted lines
# "name:shape", shapes as 64x3x7x7.
TORCHVISION = {
    "alexnet": (16, 61_100_840, "a06aa018d9e793ba12b1e7766ec48088cf5a12075f9bd6bb5c4a409d26539974"),
    "vgg16": (32, 138_357_544, "1233a85610c17a5dd5f24d13eecf19c1abce3f9a92a543d032bd935ef5373a6b"),
    "vgg19": (38, 143_667_240, "1650a42dcc9c55c28871ad2f3c608c0c027655b0ca4453bc552c4ea6e853afb2"),
    "resnet18": (122, 11_689_512, "1ea5a05ba4f9ea93db9b732b9b99ba541a818c39f00f7f614a4b58db704b33e3"),
    "resnet50": (320, 25_557_032, "a47fa5a28bf03007cbc449c1929ed0de3dbaadc544683db250b8eadd75d265a7"),
    "resnext50_32x4d": (320, 25_028_904, "8bc8143136fb326ce41a4a27ac331e95053801e1297f3e587601ef521c78244f"),
    "wide_resnet50_2": (320, 68_883_240, "c947fa91323b2e38ed027456230f76c5c47067774f860d69aa3ec24a192f4af8"),
    "squeezenet1_0": (52, 1_248_424, "d9e15ede37fa5b0f68b8f5dfaddb9b5117256d73d1432672986adcc4ba343a46"),
    "googlenet": (364, 13_004_888, "f30770a4a6e2b523bf779caf621a4f725733d987daebd3d1e0df3590c988c714"),
    "inception_v3": (580, 27_161_264, "4c37220abf05b3111c073f71588f20040c4c917c22773196583b075969e9cf99"),
    "densenet121": (727, 7_978_856, "a54fef7592b5d689e0141b371355420eaeec8c8db10cda3d62e897715f2a9964"),
    "mobilenet_v2": (314, 3_504_872, "0f7708124abff66a0df54975e6f0abb8184aaf2ee77b32cd8ce3733647151d95"),
    "mobilenet_v3_small": (244, 2_542_856, "67a5208595570df19ae374faf8d0981519b270bbe9dfb888bd8689c48d6feaeb"),
    "shufflenet_v2_x1_0": (338, 2_278_604, "08f65e10cfcc69dedfa79f6ef6f48142c026dbc7c7836829932e8417ef9e4abb"),
    "mnasnet1_0": (314, 4_383_312, "166a0f4432be1d07633b2ba22b037a766821e26d8884dd4bbdb2c9046e8483ae"),
    "regnet_x_400mf": (428, 5_495_976, "5cc640246ae8a640779d1894579af61d2a6db4bcf9afd72df9bedcddf81e9f31"),
    "regnet_y_400mf": (384, 4_344_144, "383be7f710eceac686da6c5b3d12a3eb678958eb1a184703cdbf8e063aa641d2"),
    "efficientnet_b0": (360, 5_288_548, "0a563af3488f4b92032d0126c3ee4e939e55e76be708f049acf38131ba6579ce"),
    "convnext_tiny": (182, 28_589_128, "cad8d402f37467a5f76acb1256d961db437023e4a7c5d5fd1a6e5f3306613d3a"),
    "vit_b_16": (152, 86_567_656, "e8a852d0c758aa2b9cb7539a65136ebf2cfdc5ceca1b1f79ac0bc6f05c2d5fd9"),
    "swin_t": (185, 28_288_354, "abd48094f7dfce2a753de10bf158ff1ccf5012688d4a3b83a2e8868d5aa58857"),
}

LAST_LAYERS = {
    "alexnet": {"classifier.6"},
    "vgg16": {"classifier.6"},
    "vgg16_gap": {"classifier"},
    "vgg19": {"classifier.6"},
    "squeezenet1_0": {"classifier.1"},
    "googlenet": {"fc", "aux1.fc2", "aux2.fc2"},
    "inception_v3": {"fc", "AuxLogits.fc"},
    "densenet121": {"classifier"},
    "mobilenet_v1": {"classifier"},
    "mobilenet_v2": {"classifier.1"},
    "mobilenet_v3_small": {"classifier.3"},
    "mnasnet1_0": {"classifier.1"},
    "efficientnet_b0": {"classifier.1"},
    "convnext_tiny": {"classifier.2"},
    "vit_b_16": {"heads.head"},
    "swin_t": {"head"},
}
"""Layers that depend on the number of classes; ``fc`` alone in networks that are not named here."""


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


def test_mobilenet_v1_has_as_many_numbers_as_that_of_keras():
    """torchvision has no such network; the summary of Keras's counts 4,231,976 to train and 21,888 more."""
    network = on_no_memory("mobilenet_v1")
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_231_976
    assert sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name) == 21_888


@pytest.mark.parametrize("name", NETWORKS)
def test_classes_change_the_last_layers_only(name):
    usual, few = on_no_memory(name).state_dict(), on_no_memory(name, num_classes=7).state_dict()
    changed = {key.rpartition(".")[0] for key in usual if usual[key].shape != few[key].shape}
    assert changed == LAST_LAYERS.get(name, {"fc"})


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_have_one_row_per_image(name):
    network = on_no_memory(name, num_classes=7).eval()
    usual, least = NETWORKS[name].usual_side, NETWORKS[name].least_side
    for height, width in ((usual, usual), (least, least + 9)):
        assert network(torch.empty(2, 3, height, width, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "pattern", "old", "count"),
    [
        ("densenet121", r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", 58 * (2 * 5 + 2)),
        ("vit_b_16", r"\.mlp\.0\.", ".mlp.linear_1.", 12 * 2),
        ("vit_b_16", r"\.mlp\.3\.", ".mlp.linear_2.", 12 * 2),
    ],
)
def test_entries_of_published_files_have_older_names(name, pattern, old, count):
    network = on_no_memory(name)
    state = {re.sub(pattern, old, key): value for key, value in network.state_dict().items()}
    assert len(state.keys() - network.state_dict().keys()) == count
    network.load_state_dict(state, strict=True, assign=True)


def test_positions_of_vit_are_interpolated_between_those_it_has():
    """At twice the side a place lies a quarter of the way from one learnt position to the next."""
    encoder = Encoder()
    learnt, doubled = encoder.pos_embedding, encoder._positions(2 * GRID, 2 * GRID)
    assert encoder._positions(GRID, GRID) is learnt
    assert torch.equal(doubled[:, 0], learnt[:, 0])
    grid, fine = (tokens[0, 1:].unflatten(0, (side, side)) for tokens, side in ((learnt, GRID), (doubled, 2 * GRID)))
    expected = (9 * grid[4, 5] + 3 * grid[4, 6] + 3 * grid[5, 5] + grid[5, 6]) / 16
    torch.testing.assert_close(fine[9, 11], expected)


@pytest.mark.parametrize(("height", "width"), [(7, 14), (2, 3), (9, 7), (16, 10)])
def test_adaptive_pool_equals_torchs(height, width):
    maps = torch.rand(2, 5, height, width)
    torch.testing.assert_close(adaptive_average_pool(maps, 7), torch.nn.functional.adaptive_avg_pool2d(maps, 7))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_transform_input_turns_imagenet_normalised_pixels_into_minus_one_to_one(name):
    plain, converting = (NETWORKS[name].build(num_classes=5, transform_input=convert).eval() for convert in (False, True))
    randomise(plain, seed=0)
    converting.load_state_dict(plain.state_dict())
    pixels = torch.rand(2, 3, 75, 75)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = plain(2 * pixels - 1)
        torch.testing.assert_close(converting((pixels - mean) / std), expected, rtol=1e-3, atol=1e-4 * expected.std().item())
