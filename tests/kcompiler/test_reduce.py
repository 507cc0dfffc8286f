"""Dense outputs reduced to one number a class: against the file as given, whose outputs are reduced here, at every position."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper, numpy_helper
from source_file import FILL, HEIGHT, NEVER_DENSE, PATCH, WIDTH, covered_images, integers, run_file
from typer.testing import CliRunner

import kcompiler
from kcompiler.cli import app
from kcompiler.options import Approximation, Options, reducing
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.measuring.check import check, sample_positions

CLASSES = 4
HOWS = ("mean", "max", "sum")
ROWS, COLS = HEIGHT - PATCH[0] + 1, WIDTH - PATCH[1] + 1


def trunk(b: Builder, classes: int = CLASSES) -> str:
    """A map of the classes, of half the image's size, and at image size."""
    x = b.relu(b.conv("image", 6, pads=[1, 1, 1, 1], strides=[2, 2]))
    x = b.conv(x, classes, pads=[1, 1, 1, 1])
    return b.node("Resize", x, "", b.constant([1.0, 1.0, 2.0, 2.0]), mode="linear")


def maps(b: Builder) -> str:
    return b.node("Softmax", trunk(b), axis=1)


def logit_maps(b: Builder) -> str:
    return trunk(b)


def maps_channels_last(b: Builder) -> str:
    return b.node("Transpose", trunk(b), perm=[0, 2, 3, 1])


def depth(b: Builder) -> str:
    return b.node("Softplus", trunk(b, 1))


def one_mask(b: Builder) -> str:
    return b.node("Sigmoid", trunk(b, 1))


def rows(b: Builder) -> str:
    """Detections [1, R, C], or a sequence [1, T, C]."""
    x = b.conv("image", 5, strides=[3, 2])
    x = b.node("Reshape", x, integers(b, 0, 5, -1))
    return b.node("Softmax", b.node("Transpose", x, perm=[0, 2, 1]), axis=-1)


KINDS: dict[str, tuple[Callable[[Builder], str], int, int]] = {
    # network, class axis, axes
    "maps": (maps, 1, 4),
    "logits": (logit_maps, 1, 4),
    "channels last": (maps_channels_last, 3, 4),
    "depth": (depth, 1, 4),
    "mask": (one_mask, 1, 4),
    "rows": (rows, 2, 3),
}


def save(folder, kind: str, batch: int | str = 1) -> str:
    network, _, axes = KINDS[kind]
    builder = Builder(seed=4)
    output = network(builder)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, CHANNELS, HEIGHT, WIDTH])
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, *("a", "b", "c")[: axes - 1]])
    graph = helper.make_graph(builder.nodes, "tiny", [image], [value], builder.weights)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def reduced(outputs, how: str, axis: int, box=None):
    """Outputs [N, ...] by numpy: one number a class, [N, K]."""
    cells = np.moveaxis(outputs, axis, 1)
    if box is not None:
        count = cells.ndim - 2
        cells = cells[(slice(None), slice(None), *(slice(*ends) for ends in zip(box[:count], box[count:], strict=True)))]
    flat = cells.reshape(*cells.shape[:2], -1).astype(np.float64)
    return getattr(flat, how)(axis=-1)


def dense_output(path):
    """The whole output of the file at every position, and of the uncovered image."""
    image, positions, covered = covered_images()
    (name,) = (value.name for value in onnx.load(path).graph.output)
    outputs = run_file(path, np.concatenate([covered, image[None]]), name)
    return image, positions, outputs[:-1], outputs[-1]


def explainer_of(path, *approximate: float, graphs: bool = True, **settings) -> Explainer:
    order = {"reduce": None, "reduce_over": "everything", "reduce_box": None, "class_axis": None}
    options = Options(
        patch=PATCH,
        dense_share=NEVER_DENSE,
        reducing=reducing(*(order | settings).values()),
        approximations=tuple(Approximation(Thresholds(tau)) for tau in approximate),
    )
    bundle = compile_file(path, options)
    return Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=graphs, owner=bundle)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything(kind, how, tmp_path):
    path = save(tmp_path, kind)
    image, positions, outputs, _ = dense_output(path)
    explainer = explainer_of(path, reduce=how)
    expected = reduced(outputs, how, KINDS[kind][1])
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=FILL), expected, rtol=1e-4, atol=1e-5)
    assert explainer.manifest.classes == expected.shape[1]
    assert any(f"the {how} of class k over all its" in note for note in explainer.manifest.report.notes)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    ("kind", "box"), [("maps", (1, 2, 7, 14)), ("channels last", (0, 0, 1, 1)), ("depth", (3, 4, 9, 6)), ("rows", (2, 9))]
)
def test_a_box(kind, box, how, tmp_path):
    path = save(tmp_path, kind, "batch")
    image, positions, outputs, _ = dense_output(path)
    explainer = explainer_of(path, reduce=how, reduce_box=box)
    expected = reduced(outputs, how, KINDS[kind][1], box)
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=FILL), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["maps", "channels last"])
def test_the_mean_over_maps_is_updated_by_what_changed(kind, tmp_path):
    report = explainer_of(save(tmp_path, kind), reduce="mean").manifest.report
    lines = [node for node in report.nodes if node.node.endswith("/mean/lines")]
    assert lines
    assert all("updated by what changed" in node.reason for node in lines)


@pytest.mark.parametrize("over", ["everything", "class"])
@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.INT32])
def test_outputs_of_other_types(kind, over, tmp_path):
    path = save(tmp_path, "logits")
    model = onnx.load(path)
    (logits,) = (value.name for value in model.graph.output)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1000), "thousand"))
    model.graph.node.append(helper.make_node("Mul", [logits, "thousand"], ["large"]))
    model.graph.node.append(helper.make_node("Cast", ["large"], ["typed"], to=kind))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("typed", kind, [1, CLASSES, HEIGHT, WIDTH]))
    onnx.save(model, path)
    image, positions, outputs, uncovered = dense_output(path)
    outputs, uncovered = outputs.astype(np.float64), uncovered.astype(np.float64)
    expected = reduced(outputs, "sum", 1) if over == "everything" else over_class(outputs, uncovered, "sum", 1, 0.0)
    found = explainer_of(path, reduce="sum", reduce_over=over).outputs(image, positions, fill=FILL)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2.0)


@pytest.mark.parametrize("how", ["mean", "sum"])
def test_many_cells_lose_nothing(how, tmp_path):
    """ONNX Runtime's own sum over a whole map is off by more than a thousandth of what a small patch moves it by."""
    builder, side = Builder(seed=1), 256
    output = builder.relu(builder.conv("image", 4, pads=[1, 1, 1, 1]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, side, side])
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 4, side, side])
    graph = helper.make_graph(builder.nodes, "tiny", [image], [value], builder.weights)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    explainer = explainer_of(path, reduce=how)
    picture = np.random.default_rng(0).standard_normal((1, CHANNELS, side, side), dtype=np.float32)
    expected = reduced(run_file(path, picture, output), how, 1)
    np.testing.assert_allclose(explainer.full_inference().run(picture), expected, rtol=3e-7)
    np.testing.assert_allclose(explainer.outputs(picture[0], [(9, 9)], fill=picture[0]), expected, rtol=1e-6)


def over_class(outputs, uncovered, how: str, axis: int, above: float):
    """By numpy, class by class: over the cells that the uncovered image gives it."""
    cells = np.moveaxis(uncovered, axis - 1, 0)
    winners = cells.argmax(axis=0)
    found = []
    for number in range(len(cells)):
        mask = winners == number if len(cells) > 1 else cells[0] > above
        of_class = np.moveaxis(outputs, axis, 1)[:, number][:, mask]
        found.append(getattr(of_class, how)(axis=1) if mask.any() else np.full(len(outputs), np.nan))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_cells_of_each_class(kind, how, graphs, tmp_path):
    """By the compiled graphs, and as the driver runs it (tiny networks run whole)."""
    path = save(tmp_path, kind)
    image, positions, outputs, uncovered = dense_output(path)
    explainer = explainer_of(path, reduce=how, reduce_over="class", graphs=graphs)
    expected = over_class(outputs, uncovered, how, KINDS[kind][1], above=0.5 if kind == "mask" else 0.0)
    found = explainer.outputs(image, positions, fill=FILL)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.isnan(expected).all()
    full = explainer.full_inference().outputs(image[None], np.broadcast_to(np.reshape(FILL, (-1, 1, 1)), image.shape),
                                              np.array(positions), PATCH)  # fmt: skip
    np.testing.assert_allclose(full, expected, rtol=1e-4, atol=1e-5)


def test_every_way_to_a_map_of_the_cells_of_a_class(tmp_path):
    path = save(tmp_path, "logits")
    image, _, outputs, uncovered = dense_output(path)
    explainer = explainer_of(path, 0.5, reduce="mean", reduce_over="class")
    expected = over_class(outputs, uncovered, "mean", 1, 0.0)
    there = np.flatnonzero(~np.isnan(expected[0]))
    for heat_map in explainer.explain_targets(image, "all", stride=1, fill=FILL):
        assert heat_map.target in there
        np.testing.assert_allclose(heat_map.scores.ravel(), expected[:, heat_map.target], rtol=1e-4, atol=1e-5)
    target = int(there[0])
    exact = explainer.explain(image, stride=1, fill=FILL, target=target)
    np.testing.assert_allclose(exact.scores.ravel(), expected[:, target], rtol=1e-4, atol=1e-5)
    approximate = explainer.explain(image, stride=1, fill=FILL, target=target, quality=kcompiler.SamplingPlan(variant="tau0.5"))
    assert np.corrcoef(approximate.scores.ravel(), exact.scores.ravel())[0, 1] > 0.5
    assert explainer.explain(image, stride=4, fill="patch-mean").target in there
    assert check(explainer, sample_positions((HEIGHT, WIDTH), PATCH, 20, 0)).agrees


@pytest.mark.parametrize("fill", [0.0, "patch-mean"])
def test_of_dense_outputs_one_column_is_kept(fill, tmp_path):
    """Without --reduce, too: all numbers of all positions would fill the memory."""
    path = save(tmp_path, "logits")
    explainer = kcompiler.load(kcompiler.compile(path, patch=PATCH), threads=2)
    image, target = covered_images()[0], 3 * HEIGHT * WIDTH - 5
    found = explainer.explain(image, stride=2, target=target, fill=fill)
    ys, xs = np.meshgrid(found.ys, found.xs, indexing="ij")
    every = explainer.outputs(image, np.stack([ys.ravel(), xs.ravel()], axis=1), fill=fill)
    np.testing.assert_allclose(found.scores.ravel(), every[:, target], rtol=1e-5, atol=1e-6)
    engine, column = explainer.exact, explainer.targets.column(target, explainer.manifest.output)
    positions = np.stack([ys.ravel(), xs.ravel()], axis=1)
    parts = engine.run(engine.baseline(explainer.check_image(image), fill), positions, explainer.manifest.output, keep=column.of)
    assert all(scores.shape == part.shape for part, scores in parts)


def test_several_batches_at_once_share_the_cells_of_a_class(tmp_path):
    path = save(tmp_path, "maps")
    image, positions, outputs, uncovered = dense_output(path)
    bundle = kcompiler.compile(path, patch=PATCH, reduce="mean", reduce_over="class")
    found = kcompiler.load(bundle, providers=["cpu"], threads=2).outputs(image, positions, fill=FILL)
    np.testing.assert_allclose(found, over_class(outputs, uncovered, "mean", 1, 0.0), rtol=1e-4, atol=1e-5)


def test_sums_over_the_cells_of_a_class_do_not_depend_on_the_batch():
    reduction = Reduction(how="mean", over="class", shape=(2, 200, 200), axis=0)
    outputs = np.random.default_rng(0).random((6, reduction.numbers), dtype=np.float32)
    mask = reduction.mask(outputs[0])
    together = reduction.apply(outputs, mask)
    np.testing.assert_array_equal(together, np.concatenate([reduction.apply(one[None], mask) for one in outputs]))
    exact = [reduction.by_class(outputs.astype(np.float64))[:, number, mask[number]].mean(axis=1) for number in range(2)]
    np.testing.assert_allclose(together.T, exact, rtol=1e-7)


def test_a_class_without_cells_is_refused(tmp_path):
    path = save(tmp_path, "maps")
    explainer = explainer_of(path, reduce="mean", reduce_over="class")
    image = np.full((CHANNELS, HEIGHT, WIDTH), 0.1, np.float32)
    (row,) = explainer.outputs(image, [(0, 0)], fill=image)
    missing = np.flatnonzero(np.isnan(row))
    assert len(missing), "of a plain image some class has none"
    with pytest.raises(UsageError, match=f"class {missing[0]} has no cells in the uncovered image: .*those that have: "):
        explainer.explain(image, target=int(missing[0]))
    assert explainer.explain(image).target not in missing
    assert len(explainer.explain_targets(image, CLASSES)) == CLASSES - len(missing)


@pytest.mark.parametrize("over", ["everything", "class"])
def test_logits_are_reduced_alike(over, tmp_path):
    path = save(tmp_path, "maps")
    image, _, covered = covered_images()
    explainer = explainer_of(path, reduce="mean", reduce_over=over)
    assert explainer.manifest.logits is not None
    logits = onnx.load(path).graph.node[-1].input[0]
    outputs = run_file(path, np.concatenate([covered, image[None]]), logits)
    expected = reduced(outputs, "mean", 1)[:-1] if over == "everything" else over_class(outputs[:-1], outputs[-1], "mean", 1, 0.0)
    target = int(np.flatnonzero(~np.isnan(expected[0]))[-1])
    found = explainer.explain(image, stride=1, fill=FILL, target=target, score="logit")
    np.testing.assert_allclose(found.scores.ravel(), expected[:, target], rtol=1e-4, atol=1e-5)


def test_one_mask_is_two_classes_by_its_mean_alone(tmp_path):
    path = save(tmp_path, "mask")
    image, _, outputs, _ = dense_output(path)
    explainer = explainer_of(path, reduce="mean")
    found = explainer.explain(image, stride=1, fill=FILL, target=0, score="output")
    np.testing.assert_allclose(found.scores.ravel(), 1 - reduced(outputs, "mean", 1)[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="expected 0 to 0"):
        explainer_of(path, reduce="max").targets.index(1)


@pytest.mark.parametrize("over", ["everything", "class"])
def test_a_map_of_labels_is_reduced_by_what_it_is_made_of(over, tmp_path):
    path = save(tmp_path, "logits")
    model = onnx.load(path)
    (logits,) = (value.name for value in model.graph.output)
    model.graph.node.append(helper.make_node("ArgMax", [logits], ["labels"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.INT64, [1, HEIGHT, WIDTH]))
    onnx.save(model, path)
    image, positions, covered = covered_images()
    outputs = run_file(path, np.concatenate([covered, image[None]]), logits)
    expected = reduced(outputs, "mean", 1)[:-1] if over == "everything" else over_class(outputs[:-1], outputs[-1], "mean", 1, 0.0)
    found = explainer_of(path, reduce="mean", reduce_over=over).outputs(image, positions, fill=FILL)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_class_axis_may_be_said(tmp_path):
    path = save(tmp_path, "rows")
    image, positions, outputs, _ = dense_output(path)
    explainer = explainer_of(path, reduce="max", class_axis=1)
    np.testing.assert_allclose(explainer.outputs(image, positions, fill=FILL), outputs.max(axis=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduce": "mean", "reduce_box": (0, 0, 13, 4)}, r"\[0, 0, 13, 4\] is not a box inside the cells \[12, 14\] of output"),
        ({"reduce": "mean", "reduce_box": (3, 3, 3, 5)}, r"is not a box inside the cells"),
        ({"reduce": "mean", "reduce_box": (3, 5)}, r"the cells of output .* are \[12, 14\]: expected top,left,bottom,right"),
        ({"reduce": "mean", "class_axis": 4}, r"--class-axis is 4, but output .* has the axes 1 to 3"),
        ({"reduce": "mean", "reduce_over": "class", "reduce_box": (0, 0, 1, 1)}, "exclude each other"),
        ({"reduce_over": "class"}, "add --reduce mean, max or sum"),
        ({"reduce_box": (0, 0, 1, 1)}, "add --reduce mean, max or sum"),
        ({"reduce": "median"}, "--reduce median .* expected mean, max or sum"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        kcompiler.compile(save(tmp_path, "maps"), patch=PATCH, **settings)


def test_a_row_of_numbers_is_refused(tmp_path):
    builder = Builder()
    model = builder.model(builder.conv("image", 4), HEIGHT, WIDTH)
    with pytest.raises(UsageError, match=r"output gemm_2 \[N, 5\] is one row of numbers an image, so there is nothing"):
        kcompiler.compile(model, patch=PATCH, reduce="mean")


def test_large_outputs_suggest_it(tmp_path):
    builder = Builder()
    x = builder.conv("image", 30, pads=[1, 1, 1, 1])
    model = builder.model(x, 20, 20, classes=None)
    report = kcompiler.compile(model, patch=4).report
    (note,) = report.notes
    assert note.startswith("the output has 12,000 numbers an image, each a class of its own; --reduce mean, max or sum makes one")


def test_the_command_line(tmp_path):
    path = save(tmp_path, "maps")
    _, _, _, uncovered = dense_output(path)
    np.save(tmp_path / "one.npy", covered_images()[0])
    run = CliRunner().invoke
    options = ["--patch", "3x4", "--reduce", "mean", "--reduce-over", "class"]
    result = run(app, ["compile", str(path), "-o", str(tmp_path / "m.kc"), *options])
    assert result.exit_code == 0, result.output
    assert "is reduced: number k of 4 is the mean of class k" in result.output
    result = run(app, ["inspect", str(path), "--patch", "3x4", "--reduce", "max", "--reduce-box", "0,0,3,3", "--json"])
    assert "over the cells [0, 0, 3, 3] of it" in json.loads(result.output)["notes"][0]
    call = ["explain", str(tmp_path / "m.kc"), str(tmp_path / "one.npy"), "-o", str(tmp_path / "out"), "--stride", "1"]
    result = run(app, [*call, "--score", "output"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "one.json").read_text())
    assert record["settings"]["reduction"]["over"] == "class"
    uncovered_scores = over_class(uncovered[None], uncovered, "mean", 1, 0.0)[0]
    assert record["target"] == np.nanargmax(uncovered_scores)
    assert record["unoccluded"] == pytest.approx(uncovered_scores[record["target"]], rel=1e-4)
    assert run(app, ["check", str(tmp_path / "m.kc")]).exit_code == 0
