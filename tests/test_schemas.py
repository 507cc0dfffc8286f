"""The published JSON schemas are those of the records, hold for what is written, and change only as their format allows."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
import schemas
from networks import save
from pydantic import ValidationError
from schemas import FOLDER, RECORDS, described, incompatible, published, schema_of, written

import kcompiler
from kcompiler.runtime.bundle.manifest import MANIFEST, READABLE
from kcompiler.runtime.bundle.manifest_file import add_tuned
from kcompiler.runtime.bundle.plans import Evidence, SamplingPlan, Tuned
from kcompiler.runtime.deployed import CARD
from kcompiler.runtime.records import Record

DEMO = Path(__file__).parents[1] / "models" / "demo"
COMMAND = "python -m tests.schemas"
CLASSIFIER = """<ir_version: 9, opset_import: ["" : 18]>
net (uint8[N, 40, 44, 3] picture, float[1] age) => (float[N, 4] probabilities)
<float[4, 3, 3, 3] weights>
{
    pixels = Cast<to=1>(picture)
    aged = Mul(pixels, age)
    first = Transpose<perm=[0, 3, 1, 2]>(aged)
    maps = Conv<pads=[1, 1, 1, 1]>(first, weights)
    means = GlobalAveragePool(maps)
    cells = Flatten(means)
    probabilities = Softmax<axis=1>(cells)
}"""
SEGMENTATION = """<ir_version: 9, opset_import: ["" : 18]>
net (float[N, 3, 40, 44] image) => (float[N, 4, 40, 44] maps)
<float[4, 3, 3, 3] weights>
{
    maps = Conv<pads=[1, 1, 1, 1]>(image, weights)
}"""


def model_of(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    del model.graph.initializer[:]
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32) / 100
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    return model


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> dict[str, list[dict]]:
    """Manifests and cards as they are written, of unlike models, by the name of their schema."""
    folder = tmp_path_factory.mktemp("made")
    demo = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json").save(folder / "demo.kc")
    kcompiler.export(demo, folder / "demo", stride=(16, 24), edges="cut")
    approximate = kcompiler.compile(save("channels_last_block", folder / "approximate.onnx"), patch=4, thresholds=[0.5])
    approximate = approximate.save(folder / "approximate.kc")
    kcompiler.export(approximate, folder / "approximate", variant="tau0.5")
    add_tuned(demo, tuned())
    classifier = kcompiler.compile(model_of(CLASSIFIER), patch=(4, 6), bind={"age": 2.0}, calibrate=True)
    classifier = classifier.save(folder / "classifier.kc")
    kcompiler.export(classifier, folder / "classifier")
    reduced = kcompiler.compile(model_of(SEGMENTATION), patch=4, reduce="mean", reduce_box=(2, 2, 30, 30))
    reduced = reduced.save(folder / "reduced.kc")
    names = ("demo", "approximate", "classifier")
    return {
        "manifest": [json.loads((path / MANIFEST).read_text("utf-8")) for path in (demo, approximate, classifier, reduced)],
        "card": [json.loads((folder / name / CARD).read_text("utf-8")) for name in names],
    }


def tuned() -> Tuned:
    evidence = Evidence(
        given=8, images=8, held_out=2, kept=2, least_share=0.4, ssim=(0.91, 1.0), pearson=1.0, top_overlap=1.0, rendered_ssim=0.9,
        evaluated=0.25, seconds=1.0, exact_seconds=2.0, spot_error=0.01, candidates=(("kriging", 0.25, 1.5, 1.0),),
    )  # fmt: skip
    return Tuned(
        ssim=0.9, share=0.9, confidence=0.95, promised=False, stride=4, score="output", fill=(0.0, 1.5, -2.0), target=None,
        plan=SamplingPlan(expected_ssim=0.9), evidence=evidence,
    )  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_schemas_are_published_as_the_records_are(name):
    assert published(name).read_text(encoding="utf-8") == written(schema_of(name)), f"run {COMMAND}"


def test_what_can_be_read_is_published():
    expected = {f"manifest-{number}.json" for number in READABLE} | {published("card").name}
    assert expected <= {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", RECORDS)
def test_schemas_are_valid_and_say_what_each_field_is(name):
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    records = {name: schema, **schema["$defs"]}
    assert len(records) > 3
    for record, fields in records.items():
        assert fields["description"], record
        assert [field for field, about in fields["properties"].items() if not about.get("description")] == [], record


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_written_is_valid(documents, name):
    schema = json.loads(published(name).read_text(encoding="utf-8"))
    for document in documents[name]:
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)


def test_the_documents_have_what_is_optional(documents):
    """Otherwise the test above would not look at it."""
    demo, approximate, classifier, reduced = documents["manifest"]
    assert demo["tuned"]
    assert demo["preprocessing"]
    assert len(approximate["variants"]) == 2
    assert reduced["reduction"]["box"] == [2, 2, 30, 30]
    assert classifier["calibration"]
    assert classifier["bound"]["age"]
    assert classifier["squashing"]["operator"] == "Softmax"
    assert {card["score"] for card in documents["card"]} == {"output", "logit"}


CHANGES = [
    *(("both", change) for change in (
        lambda d: d.pop("patch"),
        lambda d: d.update(patch=[4]),
        lambda d: d.update(patch=[0, 4]),
        lambda d: d.update(patch="4x4"),
        lambda d: d.update(surprise=1),
        lambda d: d.update(layout="HWC"),
        lambda d: d.update(model_sha256=None),
        lambda d: d["files"].update(other=1),
        lambda d: d["preprocessing"].update(scale=-1),
        lambda d: d["preprocessing"].update(mean="0"),
        lambda d: d["preprocessing"].pop("labels"),
        lambda d: d.update(preprocessing=None),
    )),
    *(("manifest", change) for change in (
        lambda d: d["variants"][0].update(batch="64"),
        lambda d: d["variants"][0].update(threshold=1.5),
        lambda d: d.update(variants=[]),
        lambda d: d.update(two_classes=0),
        lambda d: d["report"]["nodes"][0].pop("layout"),
        lambda d: d["report"]["nodes"][0].update(map=[1, 2, 3]),
        lambda d: d["tuned"][0]["evidence"].pop("kept"),
    )),
    *(("card", change) for change in (
        lambda d: d["inputs"][0].update(type="float64"),
        lambda d: d["test"].update(batches=[0, -1]),
        lambda d: d.update(batches=[64, 0]),
        lambda d: d.update(score="drop"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for of, change in CHANGES for name in RECORDS if of in (name, "both")]
)
def test_schemas_and_records_refuse_the_same(documents, name, change):
    document = copy.deepcopy(documents[name][0])
    change(document)
    validator = jsonschema.Draft202012Validator(json.loads(published(name).read_text(encoding="utf-8")))
    try:
        RECORDS[name][0].model_validate_json(json.dumps(document), strict=True)
    except ValidationError:
        assert not validator.is_valid(document)
    else:
        assert validator.is_valid(document)


@pytest.mark.parametrize("name", RECORDS)
def test_another_format_is_not_valid(documents, name):
    document = {**documents[name][0], "format": RECORDS[name][1] + 1}
    assert not jsonschema.Draft202012Validator(schema_of(name)).is_valid(document)


class Sample(Record):
    """A sample.

    Attributes:
        side, depth: of it, in
            pixels: ``side`` first.
        name: what it is called.
    """

    side: int
    depth: int
    name: str


def test_descriptions_are_those_of_the_docstring():
    lengths = "of it, in pixels: `side` first."
    assert described(Sample) == ("A sample.", {"side": lengths, "depth": lengths, "name": "what it is called."})


INCOMPATIBLE = [
    (lambda s: s["properties"].pop("patch"), "/patch: is gone"),
    (lambda s: s["properties"].update(patch={"type": "integer"}), "/patch"),
    (lambda s: s["required"].remove("patch"), "/patch: became optional"),
    (lambda s: (s["properties"].update(new={"type": "integer"}), s["required"].append("new")), "/new: became required"),
    (lambda s: s["properties"]["layout"]["enum"].append("HWC"), "/layout/enum"),
    (lambda s: s["$defs"]["FileRecord"]["properties"].pop("sha256"), "FileRecord/sha256: is gone"),
    (lambda s: s["$defs"]["FileRecord"]["properties"]["bytes"].update(type="string"), "FileRecord/bytes/type"),
    (
        lambda s: s["$defs"]["Preprocessing"]["properties"]["std"]["items"].pop("exclusiveMinimum"),
        "Preprocessing/std/items",
    ),
]
COMPATIBLE = [
    lambda s: s["properties"].update(new={"type": "integer", "default": 0}),
    lambda s: s["properties"]["patch"].update(description="another"),
    lambda s: s["$defs"].update(New={"type": "object"}),
    lambda s: s["$defs"]["FileRecord"]["properties"].update(new={"$ref": "#/$defs/New", "default": None}),
]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(("change", "said"), INCOMPATIBLE)
def test_changes_that_take_another_format_are_found(name, change, said, tmp_path, monkeypatch, capsys):
    """The program says them, and leaves the published schema as it is."""
    assert schemas.main(tmp_path) == 0
    before = published(name, tmp_path).read_text(encoding="utf-8")
    changed = schema_of(name)
    change(changed)
    assert [line for line in incompatible(schema_of(name), changed) if line.startswith(said)]
    original = schemas.schema_of
    monkeypatch.setattr(schemas, "schema_of", lambda asked: changed if asked == name else original(asked))
    assert schemas.main(tmp_path) == 1
    assert f"raise the format number of the {name}, or take back:\n  {said}" in capsys.readouterr().err
    assert published(name, tmp_path).read_text(encoding="utf-8") == before


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("change", COMPATIBLE)
def test_changes_within_a_format_are_written(name, change, tmp_path, monkeypatch):
    assert schemas.main(tmp_path) == 0
    changed = schema_of(name)
    change(changed)
    monkeypatch.setattr(schemas, "schema_of", lambda asked: changed if asked == name else schema_of(asked))
    assert schemas.main(tmp_path) == 0
    assert json.loads(published(name, tmp_path).read_text(encoding="utf-8")) == changed
