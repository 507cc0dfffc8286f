"""A training, cut short, writes files that run; batches hold what they should."""

import json

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("skimage")

import kcompiler  # noqa: E402
from models.findings import DATA_SETS  # noqa: E402
from models.networks import NETWORKS  # noqa: E402
from models.three_heads import ThreeHeads, cells_in, head_loss, scout_loss  # noqa: E402
from models.train import RECIPES, main  # noqa: E402
from models.training_pictures import batches, make_pool  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    main(["resnet18", "-o", str(folder), "--steps", "2", "--side", "64", "--pictures", "12", "--tests", "12"])
    return folder


@pytest.mark.parametrize("name", DATA_SETS)
def test_each_data_set_has_a_model_that_runs(folder, name):
    preprocessing = kcompiler.Preprocessing.read(folder / f"resnet18-{name}.preprocessing.json")
    assert preprocessing.size == (64, 64)
    assert preprocessing.labels == DATA_SETS[name].labels
    session = ort.InferenceSession(folder / f"resnet18-{name}.onnx", providers=["CPUExecutionProvider"])
    pool = make_pool(name, "test", 3, 64, preprocessing)
    pixels = np.repeat(pool.grey[..., None], 3, axis=3)
    assert pool.inputs(slice(None)).numpy() == pytest.approx(preprocessing.to_input(pixels), abs=1e-5)
    (logits,) = session.run(None, {"image": preprocessing.to_input(pixels)})
    assert logits.shape == (3, len(DATA_SETS[name].labels))
    assert np.isfinite(logits).all()


def test_figures_are_written(folder):
    figures = json.loads((folder / "resnet18.json").read_text())
    assert figures["steps"] == 2
    assert set(figures["test_accuracy"]) == set(DATA_SETS)


def test_batches_mix_the_data_sets_and_patches_spare_the_finding():
    pools = [make_pool(name, "train", 12, 96) for name in DATA_SETS]
    drawn = list(batches(pools, 16, [64, 96], np.random.default_rng(0)))
    assert [tuple(batch.images.shape) for batch in drawn] == [(16, 3, 64, 64), (16, 3, 96, 96)]
    for batch in drawn:
        assert sorted(torch.bincount(batch.owners).tolist()) == [5, 5, 6]
    ill = next(index for index, box in enumerate(pools[0].boxes) if box.any())
    alone = type(pools[0])(
        *(part[ill : ill + 1] for part in (pools[0].grey, pools[0].labels, pools[0].boxes)), pools[0].preprocessing
    )
    plain, covered = alone.inputs(slice(None))[0], 0
    for batch in batches([alone], 32, [96], np.random.default_rng(1)):
        for image, box in zip(batch.images, batch.boxes, strict=True):
            top, left, bottom, right = (box * 96).round().int().tolist()
            same = plain if (left, top) == tuple(alone.boxes[0][[1, 0]]) else plain.flip(2)
            assert torch.equal(image[:, top:bottom, left:right], same[:, top:bottom, left:right])
            covered += bool((image != same).any())
    assert covered > 16


def test_loss_is_that_of_each_pictures_own_head():
    logits = {"one": torch.randn(4, 3), "other": torch.randn(4, 2)}
    owners, labels = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 1, 0, 0])
    rows = [logits[("one", "other")[owner]][row].log_softmax(0)[labels[row]] for row, owner in enumerate(owners)]
    assert head_loss(logits, owners, labels).item() == pytest.approx(-torch.stack(rows).mean().item())


def test_cells_that_touch_a_box():
    boxes = torch.tensor([[0.3, 0.5, 0.6, 0.75], [0, 0, 0, 0], [0, 0.9, 0.01, 1]])
    found = cells_in(boxes, 4)
    assert found[0].nonzero().tolist() == [[1, 2], [2, 2]]
    assert not found[1].any()
    assert found[2].nonzero().tolist() == [[0, 3]]


def test_scouts_are_asked_for_the_label_in_the_box_and_for_nothing_elsewhere():
    boxes, labels = torch.tensor([[0, 0, 0.5, 0.5], [0, 0, 0, 0]]), torch.tensor([2, 0])
    right = torch.zeros(2, 3, 2, 2)
    right[:, 0] = 20
    right[0, :, 0, 0] = torch.tensor([0, 0, 20])
    wrong = right.clone()
    wrong[0, :, 0, 0] = torch.tensor([20, 0, 0])
    owners = torch.tensor([0, 0])
    assert scout_loss({"one": right}, owners, labels, boxes).item() == pytest.approx(0, abs=1e-6)
    assert scout_loss({"one": wrong}, owners, labels, boxes).item() == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_only_the_last_layer_is_replaced(name):
    with torch.device("meta"):
        network = ThreeHeads(name, {"few": 3, "more": 4}).eval()
    side = NETWORKS[name].least_side * 2
    heads, scouts = network(torch.empty(2, 3, side, side, device="meta"))
    assert {key: tuple(value.shape) for key, value in heads.items()} == {"few": (2, 3), "more": (2, 4)}
    assert {key: value.shape[:2] for key, value in scouts.items()} == {"few": (2, 3), "more": (2, 4)}


def test_vgg16_with_batch_norm_has_torchvisions_names():
    with torch.device("meta"):
        state = NETWORKS["vgg16"].build(num_classes=5, batch_norm=True).state_dict()
    # As in torchvision's vgg16_bn: convolutions at 0, 3, 7, 10, ..., 40, each followed by its normalisation.
    assert state["features.40.weight"].shape == (512, 512, 3, 3)
    assert state["features.41.running_mean"].shape == (512,)
    assert len(state) == 13 * 7 + 6
