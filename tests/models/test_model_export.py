"""Exported files compute what torch computes, and the command line explains its refusals."""

import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from models.export import main  # noqa: E402
from models.networks import NETWORKS  # noqa: E402
from models.onnx_export import export_classifier  # noqa: E402
from models.random_weights import randomise  # noqa: E402

# Largest difference allowed, relative to the deviation of the logits: float32 rounding of up to 120 convolutions.
TOLERANCE = 3e-5

SMALL = dict.fromkeys(NETWORKS, (64, 96)) | {"inception_v3": (75, 80)}

QUICK = {
    "torchscript": (
        "resnet18",
        "squeezenet1_0",
        "googlenet",
        "densenet121",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "shufflenet_v2_x1_0",
        "mnasnet1_0",
        "regnet_x_400mf",
        "regnet_y_400mf",
        "efficientnet_b0",
        "convnext_tiny",
        "swin_t",
    ),
    "dynamo": ("resnet18", "squeezenet1_0"),
}
"""Networks that either exporter writes in seconds."""


def exports():
    """Every network, exporter and kind of batch; the default run takes a free batch with resnet18 alone."""
    for name in NETWORKS:
        for exporter, quick in QUICK.items():
            for images in (1, 3):
                slow = name not in quick or (images > 1 and name != "resnet18")
                kind = "static" if images == 1 else "dynamic"
                yield pytest.param(name, exporter, images, marks=[pytest.mark.slow] * slow, id=f"{name}-{exporter}-{kind}")


def network_of(name, classes=5):
    network = NETWORKS[name].build(num_classes=classes).eval()
    randomise(network, seed=0)
    return network


def outputs_of(path, images):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    return session.run(None, {"image": images})[0]


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * expected.std()


@pytest.mark.parametrize(("name", "exporter", "images"), list(exports()))
def test_export_equals_torch(tmp_path, name, exporter, images):
    path, network = tmp_path / "model.onnx", network_of(name)
    export_classifier(network, path, size=SMALL[name], exporter=exporter, dynamic_batch=images > 1)
    onnx.checker.check_model(path, full_check=True)
    batch = torch.randn(images, 3, *SMALL[name], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(outputs_of(path, batch.numpy()), network(batch).numpy())
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"], "weights belong in the file itself"


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("keep", [True, False])
def test_batch_norm_stays_only_where_asked_for(tmp_path, exporter, keep):
    path, network = tmp_path / "model.onnx", network_of("resnet18")
    export_classifier(network, path, size=(64, 64), exporter=exporter, keep_batch_norm=keep)
    operators = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    assert operators["BatchNormalization"] == (20 if keep else 0)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(outputs_of(path, image.numpy()), network(image).numpy())


@pytest.mark.slow
def test_vit_is_exported_at_its_own_side_without_interpolation(tmp_path):
    path, network = tmp_path / "model.onnx", network_of("vit_b_16")
    export_classifier(network, path, size=(224, 224))
    assert not any(node.op_type == "Resize" for node in onnx.load(path).graph.node)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(outputs_of(path, image.numpy()), network(image).numpy())


def test_inception_leaves_its_auxiliary_head_behind(tmp_path):
    path = tmp_path / "model.onnx"
    export_classifier(network_of("inception_v3"), path, size=SMALL["inception_v3"])
    assert len(onnx.load(path).graph.node) < 250
    auxiliary_head = 4 * (128 * 768 + 768 * 128 * 25)
    assert path.stat().st_size < 4 * 27_161_264 - auxiliary_head


def test_command_line_writes_probabilities_of_the_given_weights(tmp_path, capsys):
    weights, path = tmp_path / "weights.pt", tmp_path / "new" / "model.onnx"
    network = network_of("resnet18")
    torch.save(network.state_dict(), weights)
    arguments = ["--weights", str(weights), "--classes", "5", "--size", "64", "--softmax", "--dynamic-batch"]
    assert main(["resnet18", "-o", str(path), *arguments]) == 0
    assert "3 x 64 x 64" in capsys.readouterr().out
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_same(outputs_of(path, images.numpy()), network(images).softmax(dim=1).numpy())


def test_weights_of_old_torch_without_batch_counts_load(tmp_path):
    weights, path = tmp_path / "weights.pt", tmp_path / "model.onnx"
    state = {key: value for key, value in network_of("resnet18").state_dict().items() if "num_batches" not in key}
    torch.save(state, weights)
    assert main(["resnet18", "-o", str(path), "--weights", str(weights), "--classes", "5", "--size", "64"]) == 0


def refusal(capsys, *arguments):
    """Run the command line, which must end with exit code 2, and return its message."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's own refusals
        code = stop.code
    assert code == 2
    return capsys.readouterr().err


def test_unknown_network_is_refused_with_the_known_ones(tmp_path, capsys):
    message = refusal(capsys, "vgg17", "-o", tmp_path / "model.onnx")
    assert "vgg17" in message
    assert all(name in message for name in NETWORKS)


def test_existing_output_is_replaced_only_by_force(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_text("precious")
    message = refusal(capsys, "resnet18", "-o", path)
    assert str(path) in message
    assert "--force" in message
    assert path.read_text() == "precious"
    assert main(["resnet18", "-o", str(path), "--force", "--size", "64"]) == 0
    onnx.checker.check_model(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("fc.bias"), "keys missing from the file: fc.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "keys unknown to the network: extra"),
        (lambda state: state.update({"fc.weight": torch.zeros(4, 512)}), "fc.weight (file [4, 512], network [5, 512])"),
        (lambda state: state.update(epoch=3), "not tensors: epoch"),
    ],
    ids=["missing", "unknown", "reshaped", "no tensor"],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, capsys, change, expected):
    weights, path = tmp_path / "weights.pt", tmp_path / "model.onnx"
    state = dict(network_of("resnet18").state_dict())
    change(state)
    torch.save(state, weights)
    message = refusal(capsys, "resnet18", "-o", path, "--weights", weights, "--classes", 5)
    assert str(weights) in message
    assert expected in message
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"\x80\x02N."], ids=["absent", "empty", "text", "None"])
def test_unreadable_weights_are_refused(tmp_path, capsys, content):
    weights = tmp_path / "weights.pt"
    if content is not None:
        weights.write_bytes(content)
    assert str(weights) in refusal(capsys, "resnet18", "-o", tmp_path / "model.onnx", "--weights", weights)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("inception_v3", "--size", 74), "at least 75"),
        (("resnet18", "--size", 64, 64, 3), "got 3 numbers"),
        (("resnet18", "--classes", 0), "not positive"),
        (("resnet18", "--transform-input"), "googlenet and inception_v3 only"),
        (("alexnet", "--size", 62), "at least 63"),
        (("resnet18", "--logits", "--softmax"), "not allowed with"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, capsys, arguments, expected):
    assert expected in refusal(capsys, *arguments, "-o", tmp_path / "model.onnx")


def test_a_failed_export_leaves_nothing_behind(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, image):
            raise RuntimeError("no graph")

    with pytest.raises(RuntimeError, match="no graph"):
        export_classifier(Broken(), tmp_path / "model.onnx", size=(8, 8))
    assert not list(tmp_path.iterdir())
