"""Outputs of labels, indices and containers: the tensor of numbers that they are made of is explained, and that is said.

The oracle is the file as it was given, run by ONNX Runtime on covered images with that tensor as a further output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import CHANNELS, Builder
from onnx import TensorProto, helper, numpy_helper
from source_file import HEIGHT, PATCH, WIDTH, assert_equals_source, integers, mean_head

import kcompiler
from kcompiler.runtime.errors import ModelError, UsageError

ML = helper.make_opsetid("ai.onnx.ml", 3)
INTEGERS, STRINGS, FLOATS = TensorProto.INT64, TensorProto.STRING, TensorProto.FLOAT


def save(
    folder: Path,
    nodes: Callable[[Builder], None],
    outputs: Sequence[onnx.ValueInfoProto],
    batch: int | str = 1,
    opset: int = 18,
    **options: object,
) -> Path:
    """A model of a trunk whose last tensor is ``logits`` [N, 5], and of what ``nodes`` makes of that."""
    builder = Builder()
    head = mean_head(builder, opset, builder.relu(builder.conv("image", 4)))
    builder.nodes.append(helper.make_node("Identity", [head], ["logits"]))
    nodes(builder)
    image = helper.make_tensor_value_info("image", FLOATS, [batch, CHANNELS, HEIGHT, WIDTH])
    graph = helper.make_graph(builder.nodes, "tiny", [image], list(outputs), builder.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), ML], ir_version=8)
    onnx.save(model, folder / "model.onnx", **options)
    return folder / "model.onnx"


def value(name: str, kind: int = FLOATS, rank: int = 2) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", "numbers"][:rank])


LABEL, CLASS = value("label", STRINGS, 1), value("class", INTEGERS, 1)
PROBABILITIES = value("probabilities")


def add(b: Builder, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> None:
    b.nodes.append(helper.make_node(op, inputs, outputs, name=f"last {op}", **attributes))


def softmax(b: Builder) -> None:
    add(b, "Softmax", ["logits"], ["probabilities"], axis=1)


def zip_map(b: Builder) -> None:
    softmax(b)
    add(b, "ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[3, 4, 5, 6, 7])
    add(b, "ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0)
    labels = {"keys_int64s": [0, 1, 2, 3, 4], "values_strings": ["a", "b", "c", "d", "e"]}
    add(b, "LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml", **labels)


MAPS = helper.make_value_info(
    "maps", helper.make_sequence_type_proto(helper.make_map_type_proto(INTEGERS, helper.make_tensor_type_proto(FLOATS, [])))
)


def arg_max(b: Builder) -> None:
    add(b, "ArgMax", ["logits"], ["index"], axis=1, keepdims=1)
    add(b, "Squeeze", ["index", integers(b, 1)], ["class"])


def logits_and_label(b: Builder) -> None:
    softmax(b)
    arg_max(b)


def as_text(b: Builder) -> None:
    add(b, "Cast", ["logits"], ["text"], to=STRINGS)


def top(b: Builder) -> None:
    softmax(b)
    add(b, "TopK", ["probabilities", integers(b, 3)], ["values", "indices"], axis=1)


def label_from_a_table(b: Builder) -> None:
    arg_max(b)
    b.weights.append(numpy_helper.from_array(np.array([b"a", b"b", b"c", b"d", b"e"], dtype=object), "names"))
    add(b, "Gather", ["names", "class"], ["label"])


def decided(b: Builder) -> None:
    add(b, "Sigmoid", ["logits"], ["chances"])
    add(b, "Greater", ["chances", b.constant(0.5)], ["above"])
    add(b, "Cast", ["above"], ["decisions"], to=INTEGERS)


def linear_classifier(b: Builder) -> None:
    coefficients = np.random.default_rng(3).standard_normal(15).tolist()
    add(b, "LinearClassifier", ["logits"], ["label", "scores"], domain="ai.onnx.ml", coefficients=coefficients,
        intercepts=[0.1, 0.2, -0.1], multi_class=0, post_transform="SOFTMAX", classlabels_strings=["x", "y", "z"])  # fmt: skip
    add(b, "ZipMap", ["scores"], ["maps"], domain="ai.onnx.ml", classlabels_strings=["x", "y", "z"])


def split(b: Builder) -> None:
    add(b, "SplitToSequence", ["logits"], ["parts"], axis=1)


def boxes(b: Builder) -> None:
    """Two boxes, whose scores are the logits."""
    scores = [b.node("Slice", "logits", integers(b, at), integers(b, at + 2), integers(b, 1)) for at in (0, 2)]
    b.nodes.append(helper.make_node("Unsqueeze", [b.node("Add", *scores), integers(b, 1)], ["scores"]))
    corners = b.constant([[[0, 0, 1, 1], [0, 0, 5, 5]]])
    add(b, "NonMaxSuppression", [corners, "scores", integers(b, 5)], ["kept"])


TEXT_MAPS = helper.make_value_info(
    "maps", helper.make_sequence_type_proto(helper.make_map_type_proto(STRINGS, helper.make_tensor_type_proto(FLOATS, [])))
)
PARTS = helper.make_value_info("parts", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOATS, ["batch", "n"])))

ENDS: dict[str, tuple[Callable[[Builder], None], Sequence[onnx.ValueInfoProto], str, str]] = {
    "maps alone": (zip_map, [MAPS], "probabilities", "output maps is made of probabilities by ZipMap last ZipMap"),
    "label and maps": (zip_map, [LABEL, MAPS], "probabilities", "output label is made of probabilities by"),
    "label alone": (zip_map, [LABEL], "probabilities", "made of probabilities by LabelEncoder"),
    "label and probabilities": (
        zip_map,
        [LABEL, PROBABILITIES],
        "probabilities",
        "output label is",
    ),
    "index": (arg_max, [CLASS], "logits", "output class is made of logits by ArgMax"),
    "label of logits": (
        logits_and_label,
        [CLASS, PROBABILITIES],
        "probabilities",
        "output class is",
    ),
    "logits and probabilities": (softmax, [value("logits"), PROBABILITIES], "probabilities", "of the same numbers"),
    "text": (as_text, [value("text", STRINGS)], "logits", "output text is made of logits by Cast"),
    "values and indices": (top, [value("values"), value("indices", INTEGERS)], "probabilities", "output indices is made of"),
    "indices alone": (top, [value("indices", INTEGERS)], "probabilities", "made of probabilities by TopK"),
    "from a table": (label_from_a_table, [LABEL], "logits", "output label is made of logits by ArgMax"),
    "decisions": (decided, [value("decisions", INTEGERS)], "chances", "output decisions is made of chances by Greater"),
    "sequence": (split, [PARTS], "logits", "output parts is made of logits by SplitToSequence"),
    "kept boxes": (boxes, [value("kept", INTEGERS)], "scores", "output kept is made of scores by NonMaxSuppression"),
    "linear": (linear_classifier, [LABEL, TEXT_MAPS], "scores", "output label is made of scores by"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_numbers_in_front_are_explained(name, tmp_path):
    nodes, outputs, expected, note = ENDS[name]
    path = save(tmp_path, nodes, outputs)
    bundle = assert_equals_source(path, expected)
    assert any(note in one for one in bundle.report.notes), bundle.report.notes
    if name != "linear":
        assert any(node.incremental for node in bundle.report.nodes)


@pytest.mark.parametrize("opset", [8, 11, 17])
@pytest.mark.parametrize("name", ["label and maps", "linear"])
def test_of_older_opsets(name, opset, tmp_path):
    """As scikit-learn's converters write them."""
    nodes, outputs, expected, _ = ENDS[name]
    assert_equals_source(save(tmp_path, nodes, outputs, opset=opset), expected)


def test_a_tensor_inside_a_model_of_channels_last(tmp_path):
    builder = Builder()
    builder.nodes.append(helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]))
    builder.channels["first"] = CHANNELS
    builder.nodes.append(helper.make_node("Softmax", [mean_head(builder, 18, "first")], ["out"]))
    image = helper.make_tensor_value_info("image", FLOATS, [1, HEIGHT, WIDTH, CHANNELS])
    graph = helper.make_graph(builder.nodes, "tiny", [image], [value("out")], builder.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    explainer = kcompiler.load(kcompiler.compile(model, patch=PATCH, output="first"))
    picture = np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, CHANNELS), dtype=np.float32)
    (found,) = explainer.outputs(picture, [(0, 0)], fill=picture.transpose(2, 0, 1))
    np.testing.assert_array_equal(found.reshape(CHANNELS, HEIGHT, WIDTH), picture.transpose(2, 0, 1))


@pytest.mark.parametrize("batch", [1, "batch"])
def test_weights_beside_the_file_are_found(batch, tmp_path):
    path = save(tmp_path, zip_map, [MAPS], batch, save_as_external_data=True, location="w.bin", size_threshold=100)
    assert (tmp_path / "w.bin").is_file()
    assert_equals_source(path, "probabilities")


def test_logits_are_found_behind_what_is_explained(tmp_path):
    bundle = kcompiler.compile(save(tmp_path, zip_map, [LABEL, MAPS]), patch=PATCH)
    assert bundle.manifest.logits is not None


def test_a_tensor_inside_may_be_asked_for(tmp_path):
    path = save(tmp_path, zip_map, [MAPS])
    bundle = assert_equals_source(path, "logits", output="logits")
    assert bundle.report.notes == ("explains logits, a tensor inside the graph, not one of its outputs",)
    bundle = kcompiler.compile(path, patch=PATCH, output="index")
    assert bundle.manifest.output == "probabilities"


def test_ranked_values_may_be_asked_for(tmp_path):
    path = save(tmp_path, top, [value("values"), value("indices", INTEGERS)])
    assert assert_equals_source(path, "values", output="values").manifest.classes == 3


def test_whole_numbers_that_nothing_decides_stay(tmp_path):
    def rounded(b: Builder) -> None:
        add(b, "Mul", ["logits", b.constant(100.0)], ["hundred"])
        add(b, "Cast", ["hundred"], ["counts"], to=INTEGERS)

    assert kcompiler.compile(save(tmp_path, rounded, [value("counts", INTEGERS)]), patch=PATCH).manifest.output == "counts"


def test_different_numbers_are_asked_for(tmp_path):
    def two_heads(b: Builder) -> None:
        add(b, "ArgMax", ["logits"], ["class"], axis=1, keepdims=0)
        add(b, "ReduceMean", ["image", integers(b, 2, 3)], ["colour"], keepdims=0)

    path = save(tmp_path, two_heads, [CLASS, value("colour")])
    with pytest.raises(UsageError, match=r"has 2 outputs \(class, colour\), made of different numbers; .*--output NAME"):
        kcompiler.compile(path, patch=PATCH)
    with pytest.raises(UsageError, match=r"no output 'logit'; .*near: logits"):
        kcompiler.compile(path, patch=PATCH, output="logit")
    assert_equals_source(path, "logits", output="class")


def test_an_output_without_a_number_is_left_out(tmp_path):
    def with_names(b: Builder) -> None:
        b.weights.append(numpy_helper.from_array(np.array([b"a", b"b"], dtype=object), "names"))
        add(b, "Identity", ["names"], ["all names"])

    path = save(tmp_path, with_names, [value("all names", STRINGS, 1), value("logits")])
    bundle = assert_equals_source(path, "logits")
    assert bundle.report.notes == (
        "output all names is a tensor of strings that is made of no tensor of numbers alone: logits is explained",
    )


def test_what_has_no_number_is_refused(tmp_path):
    def pairs(b: Builder) -> None:
        add(b, "ReduceMean", ["image", integers(b, 2, 3)], ["colour"], keepdims=0)
        add(b, "SequenceConstruct", ["logits", "colour"], ["pairs"])

    sequence = helper.make_value_info(
        "pairs", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOATS, ["batch", "numbers"]))
    )
    path = save(tmp_path, pairs, [sequence])
    with pytest.raises(ModelError, match=r"output pairs is a sequence, expected a tensor of numbers; .*--output NAME"):
        kcompiler.compile(path, patch=PATCH)
    assert_equals_source(path, "logits", output="logits")
