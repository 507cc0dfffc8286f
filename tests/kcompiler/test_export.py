"""Map models: one ONNX model gives the driver's maps, bit for bit, and says what it is."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from map_models import FILL, SIZE, compiled, exported, run, session
from networks import NETWORKS, Builder
from onnx import TensorProto, helper
from source_file import NEVER_DENSE

import kcompiler
from kcompiler.cli import main
from kcompiler.deployment import export_map
from kcompiler.options import Approximation, Options
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.digests import file_record
from kcompiler.runtime.deployed import Card
from kcompiler.runtime.measuring.check import random_image


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("network", [*NETWORKS, "softmax"])
def test_maps_have_the_bits_of_the_driver(tmp_path, network, extents):
    opened, card, explainer = exported(compiled(tmp_path, network, extents=extents), stride=2)
    image = random_image((3, *SIZE), 1)
    for target in (None, 1):
        expected = explainer.explain(image, stride=2, fill=FILL, target=target)
        found = run(opened, image, -1 if target is None else target, (0, len(card.batches)))
        np.testing.assert_array_equal(found["map"], expected.scores)
        assert (int(found["class"][0]), float(found["uncovered"][0, expected.target])) == (expected.target, expected.unoccluded)
        drop = np.float32(expected.unoccluded) - expected.upsample()
        np.testing.assert_allclose(found["drop"], drop, rtol=1e-4, atol=1e-5 * np.abs(drop).max())


def test_a_model_that_runs_whole_gives_the_bits_of_full_inference(tmp_path):
    b = Builder()
    x = b.relu(b.conv("image", 8, 3, pads=[1, 1, 1, 1]))
    x = b.node("Add", x, b.conv(x, 8, 3, pads=[1, 1, 1, 1]))
    onnx.save(b.model(b.node("GlobalAveragePool", x), *SIZE, batch="N"), tmp_path / "model.onnx")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=16).save(tmp_path / "model.kc")
    assert kcompiler.load(bundle).manifest.exact.whole
    opened, card, _ = exported(bundle, stride=1)
    explainer = kcompiler.load(bundle, providers=["cpu"], threads=1)
    image = random_image((3, *SIZE), 1)
    expected = explainer.explain(image, stride=1, fill=FILL)
    np.testing.assert_array_equal(run(opened, image, batches=(0, len(card.batches)))["map"], expected.scores)


@pytest.mark.parametrize("score", ["logit", "output"])
@pytest.mark.parametrize("target", [None, 0, 1])
def test_both_classes_of_a_sigmoid(tmp_path, score, target):
    opened, card, explainer = exported(compiled(tmp_path, "two classes"), stride=3, score=score)
    image = random_image((3, *SIZE), 1)
    expected = explainer.explain(image, stride=3, fill=FILL, target=target, score=score)
    found = run(opened, image, -1 if target is None else target, (0, len(card.batches)))
    np.testing.assert_array_equal(found["map"], expected.scores)
    assert int(found["class"][0]) == expected.target
    assert found["uncovered"].shape == (1, 2)


def test_approximate_variants_and_boxes_and_edges_travel(tmp_path):
    size, box = (64, 60), (2, 3, 40, 52)
    bundle = compiled(tmp_path, "residual", size, thresholds=(0.1,))
    opened, card, explainer = exported(bundle, stride=(2, 3), region=box, edges="cut", variant="tau0.1")
    image = random_image((3, *size), 1)
    plan = kcompiler.SamplingPlan(variant="tau0.1")
    expected = explainer.explain(image, stride=(2, 3), fill=FILL, region=box, edges="cut", quality=plan)
    np.testing.assert_array_equal(run(opened, image, expected.target, (0, len(card.batches)))["map"], expected.scores)
    assert (card.ys, card.xs, card.variant) == (tuple(expected.ys), tuple(expected.xs), "tau0.1")


@pytest.mark.parametrize(
    ("network", "approximation", "variant", "prefer"),
    [
        ("gated", Approximation(Thresholds(1.0, freeze_gates=True)), "gates", {}),
        ("chain", Approximation(integers=True), "int8", {"Conv": "int8 gemm"}),
    ],
)
def test_variants_of_other_kinds_have_the_bits_of_the_driver(tmp_path, network, approximation, variant, prefer):
    """Frozen gates, and 8-bit integers, whose scales depend on the positions of a batch."""
    b = Builder()
    onnx.save(b.model(NETWORKS[network](b), *SIZE, classes=5, batch="N"), tmp_path / "model.onnx")
    settings = Options(patch=(5, 5), dense_share=NEVER_DENSE, prefer=prefer, approximations=(approximation,))
    bundle = compile_file(tmp_path / "model.onnx", settings).save(tmp_path / "model.kc")
    opened, card, explainer = exported(bundle, stride=2, variant=variant)
    image = random_image((3, *SIZE), 1)
    expected = explainer.explain(image, stride=2, fill=FILL, quality=kcompiler.SamplingPlan(variant=variant))
    exact = explainer.explain(image, stride=2, fill=FILL, target=expected.target)
    found = run(opened, image, expected.target, (0, len(card.batches)))["map"]
    np.testing.assert_array_equal(found, expected.scores)
    assert not np.array_equal(found, exact.scores), "it does make a difference"


def test_batches_are_shared_out_over_calls(tmp_path):
    opened, card, explainer = exported(compiled(tmp_path, "residual"), stride=1)
    image = random_image((3, *SIZE), 1)
    count = len(card.batches)
    assert count > 2
    expected = explainer.explain(image, stride=1, fill=FILL).scores
    shares = [run(opened, image, batches=(first, 1)) for first in range(count)]
    for share, positions in zip(shares, card.batches, strict=True):
        known = np.isfinite(share["map"])
        assert known.sum() == positions
        np.testing.assert_array_equal(share["map"][known], expected[known])
    np.testing.assert_array_equal(np.sum([np.isfinite(share["map"]) for share in shares], axis=0), 1)
    none = run(opened, image, batches=(0, 0))
    assert np.isnan(none["map"]).all()
    assert np.isnan(none["drop"]).all()
    np.testing.assert_array_equal(none["uncovered"], shares[0]["uncovered"])


@pytest.mark.parametrize("batches", [(0, 1000), (1000, 1)])
def test_batches_that_there_are_not_are_an_error(tmp_path, batches):
    opened, _, _ = exported(compiled(tmp_path, "residual"), stride=4)
    with pytest.raises(Exception, match="out of data bounds"):
        run(opened, random_image((3, *SIZE), 1), batches=batches)


def test_drop_is_known_where_no_missing_score_is_near(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "residual"), stride=1)
    image = random_image((3, *SIZE), 1)
    found = run(opened, image, batches=(0, len(card.batches) // 2))
    whole = run(opened, image, batches=(0, len(card.batches)))["drop"]
    known = np.isfinite(found["drop"])
    assert 0 < known.sum() < known.size
    np.testing.assert_array_equal(found["drop"][known], whole[known])
    assert np.isfinite(found["drop"][2:-2, 2:-2][np.isfinite(found["map"])]).any()


def test_the_card_describes_the_model_and_its_test_vector_passes(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "softmax"), stride=3)
    out = tmp_path / "out"
    assert Card.model_validate_json((out / "card.json").read_text()) == card
    for given, described in ((opened.get_inputs(), card.inputs), (opened.get_outputs(), card.outputs)):
        assert {value.name: tuple(value.shape) for value in given} == {one.name: one.shape for one in described}
        types = {"tensor(float)": "float32", "tensor(int64)": "int64"}
        assert {value.name: types[value.type] for value in given} == {one.name: one.type for one in described}
    assert card.files == {name: file_record(out / name) for name in card.files}
    assert {*card.files, "card.json", "card.txt"} == {path.name for path in out.iterdir()}
    assert (card.score, card.opset >= 18, card.domains) == ("logit", True, ("ai.onnx",))
    test = card.test
    image = np.fromfile(out / test.image, "<f4").reshape(card.inputs[0].shape)
    expected = np.fromfile(out / test.map, "<f4").reshape(card.outputs[0].shape)
    found = run(opened, image, test.target, test.batches, [test.fill] * 3)
    assert int(found["class"][0]) == test.chosen
    assert np.isfinite(expected).sum() == sum(card.batches[: test.batches[1]])
    np.testing.assert_allclose(found["map"], expected, atol=test.tolerance * np.nanmax(np.abs(expected)))


ALONE = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.enable_mem_pattern = False
session = onnxruntime.InferenceSession(sys.argv[1], options)
image = np.fromfile(sys.argv[2], "<f4").reshape(session.get_inputs()[0].shape)
batches = np.array([0, int(sys.argv[3])])
feeds = {"image": image, "fill": np.full(3, 0.5, np.float32), "target": np.array([-1]), "batches": batches}
print(float(np.nansum(session.run(["map"], feeds)[0])))
assert not {"onnx", "kcompiler", "torch"} & {*sys.modules}
"""


def test_map_models_run_where_only_onnx_runtime_and_numpy_are(tmp_path):
    _, card, _ = exported(compiled(tmp_path, "softmax"), stride=3)
    out = tmp_path / "out"
    command = [sys.executable, "-c", ALONE, out / "map.onnx", out / "test-image.bin", card.test.batches[1]]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(done.stdout) == pytest.approx(np.nansum(np.fromfile(out / "test-map.bin", "<f4")), rel=1e-4)


def test_exporting_is_all_or_nothing(tmp_path, capfd, monkeypatch):
    bundle = compiled(tmp_path, "softmax")
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")

    def export(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kcompiler", "export", str(bundle), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.err + captured.out

    for arguments, code, message in (
        (("-o", other), 2, "exists already"),
        (("-o", other, "--force"), 2, "notes.txt"),
        (("-o", tmp_path / "new", "--variant", "tau0.1"), 2, "variants in the bundle: exact"),
        (("-o", tmp_path / "new", "--stride", "0"), 2, "stride"),
        (("-o", tmp_path / "new", "--drill-down", "4"), 2, "expected STEP,SHARE"),
        (("-o", tmp_path / "new", "--drill-down", "4,2"), 2, "a share between 0 and 1"),
        (("-o", tmp_path / "new", "--preprocess"), 2, "compile it with --preprocessing"),
        (("-o", tmp_path / "new", "--quality", "0.9"), 2, "run 'kcompiler tune'"),
        (("-o", tmp_path / "new", "--region", "0,0,3,3"), 2, "smaller than the patch"),
    ):
        assert export(*arguments)[0] == code
        assert message in export(*arguments)[1]
    assert not (tmp_path / "new").exists()
    assert (other / "notes.txt").read_text() == "mine"
    assert export("-o", tmp_path / "new")[0] == 0
    assert json.loads((tmp_path / "new" / "card.json").read_text())["variant"] == "exact"
    assert export("-o", tmp_path / "new")[0] == 2
    assert export("-o", tmp_path / "new", "--force", "--stride", "8")[0] == 0


def test_compiling_to_a_single_file_writes_a_map_model_and_no_bundle(tmp_path, monkeypatch):
    b = Builder()
    onnx.save(b.model(NETWORKS["residual"](b), *SIZE, classes=5, batch="N"), tmp_path / "model.onnx")
    monkeypatch.setattr(sys, "argv", ["kcompiler", "compile", str(tmp_path / "model.onnx"), "--patch", "5", "--single-file"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.map", "model.onnx"]
    opened = session(tmp_path / "model.map")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=5)
    card = json.loads((tmp_path / "model.map" / "card.json").read_text())
    assert bundle.export(tmp_path / "out").batches == tuple(card["batches"])
    image = random_image((3, *SIZE), 1)
    found, expected = (run(one, image, batches=(0, 1))["map"] for one in (opened, session(tmp_path / "out")))
    np.testing.assert_array_equal(found, expected)


def test_reductions_by_the_driver_have_no_map_model(tmp_path):
    b = Builder()
    maps = b.relu(b.conv("image", 3, pads=[1, 1, 1, 1]))
    given, dense = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, *SIZE]) for name in ("image", maps))
    graph = helper.make_graph(b.nodes, "dense", [given], [dense], b.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "model.onnx")
    bundle = kcompiler.compile(tmp_path / "model.onnx", patch=5, reduce="mean", reduce_over="class").save(tmp_path / "model.kc")
    with pytest.raises(kcompiler.UsageError, match="reduce over everything"):
        export_map(bundle, tmp_path / "out")


def test_metadata_repeat_what_running_the_model_takes(tmp_path):
    opened, card, _ = exported(compiled(tmp_path, "softmax"), stride=3)
    expected = {
        "format": card.format, "batches": len(card.batches), "test.batches": card.test.batches[1], "test.fill": card.test.fill,
        "test.class": card.test.chosen, "test.tolerance": card.test.tolerance,
    }  # fmt: skip
    assert opened.get_modelmeta().custom_metadata_map == {f"kcompiler.{name}": str(value) for name, value in expected.items()}
