"""Saved heat maps: what is read back is what was saved, or an error."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from matplotlib.colorbar import Colorbar

from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.answer import Answer, Output
from kcompiler.runtime.maps.heatmap import HeatMap


def heat_map() -> HeatMap:
    rng = np.random.default_rng(0)
    sampled = rng.random((3, 4)) < 0.7
    scores = np.where(sampled, rng.standard_normal((3, 4)), np.nan).astype(np.float32)
    return HeatMap(
        scores=scores, unoccluded=1.5, target=2, label="two", ys=np.arange(0, 12, 4), xs=np.arange(0, 16, 4), patch=(5, 6),
        image=(20, 24), seconds=0.25, sampled=sampled, score="logit", complete=False, warnings=("few",),
        answer=Answer("probability", Output("two", 0.75, 1.5), (Output("two", 0.75, 1.5), Output("one", 0.25, None)), 2.0**-17),
    )  # fmt: skip


def test_what_is_read_is_what_was_saved(tmp_path):
    saved = heat_map()
    saved.save(tmp_path, "map")
    read = HeatMap.load(tmp_path / "map.json")
    for one in fields(HeatMap):
        np.testing.assert_array_equal(getattr(read, one.name), getattr(saved, one.name), err_msg=one.name)


@pytest.mark.parametrize(
    ("score", "unit"),
    [
        ("logit", "drop of the logit when covered\n"),
        ("output", "drop of the output when covered\n"),
        ("drop", "drop when covered\n"),
    ],
)
def test_the_colour_bar_says_what_falls(monkeypatch, score, unit):
    labels = []
    monkeypatch.setattr(Colorbar, "set_label", lambda self, text, **_: labels.append(text))
    replace(heat_map(), score=score).overlay()
    assert labels[-1] == unit + "(above 0: what is covered supports the class)"


def test_scores_of_another_map_are_not_read(tmp_path):
    """A copy that was interrupted, say: of the same size, so that nothing else tells."""
    saved = heat_map()
    saved.save(tmp_path, "map")
    np.save(tmp_path / "map.npy", replace(saved, scores=saved.scores + 1).scores)
    with pytest.raises(ImageError, match="of another map"):
        HeatMap.load(tmp_path / "map.json")


@pytest.mark.parametrize(
    "record",
    ["", "[]", "null", "[" * 100_000, '{"ys": 1}', '{"sha256": 3}', '{"sampled": [1e999]}', '{"sampled": [99999999999999999999]}',
     '{"ys": [[1]]}', '{"plan": 5}', '{"unoccluded": "x"}', '{"patch": 7}', '{"answer": [1]}', '{"warnings": 3}'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_record_of_a_map_is_an_error(tmp_path, record):
    heat_map().save(tmp_path, "map")
    path = tmp_path / "map.json"
    changed = json.loads(record) if record.startswith("{") else None
    path.write_text(record if changed is None else json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ImageError, match=r"map\.json: is no heat map that can be read, or damaged"):
        HeatMap.load(path)


def test_records_of_earlier_versions_are_read(tmp_path):
    saved = heat_map()
    saved.save(tmp_path, "map")
    record = json.loads((tmp_path / "map.json").read_text())
    del record["answer"], record["view"]
    (tmp_path / "map.json").write_text(json.dumps(record))
    read = HeatMap.load(tmp_path / "map.json")
    assert (read.answer, read.title, read.rounding) == (None, "two: 1.5 uncovered", 0.0)
    np.testing.assert_array_equal(read.scores, saved.scores)


def test_the_record_says_where_the_map_lies_in_its_picture(tmp_path):
    view = View((40, 72), (20, 24), (2.0, 2.0), (0.0, 12.0))
    heat_map().save(tmp_path, "map", picture=np.zeros((40, 72), np.uint8), view=view)
    assert json.loads((tmp_path / "map.json").read_text())["view"] == {
        "picture": [40, 72], "model": [20, 24], "scale": [2.0, 2.0], "offset": [0.0, 12.0]
    }  # fmt: skip


def test_the_title_has_probability_and_logit():
    assert heat_map().title == "two: probability 0.75, logit 1.5 uncovered"


def test_a_map_that_is_no_exact_one_says_so_with_its_plan():
    part = heat_map()
    evaluated = f"{part.evaluated} of 12 positions ({100 * part.evaluated / 12:.3g} %) evaluated"
    assert part.words.approximate == f"UNFINISHED: {evaluated}, the others have no colour"
    plan = SamplingPlan(method="drill-down", variant="tau0.2", share=0.3)
    sampled = replace(part, plan=plan, complete=True).words.approximate
    assert sampled == (
        f"APPROXIMATE: {evaluated} by the approximate variant tau0.2, chosen by drill-down; the others are estimates"
    )
    everywhere = np.ones_like(part.sampled)
    assert replace(part, plan=plan, sampled=everywhere).words.approximate.startswith("APPROXIMATE: all 12 positions")
    assert replace(part, sampled=everywhere).words.approximate == ""


@pytest.mark.parametrize(("size", "flat"), [(2.0**-18, True), (2.0**-16, False)])
@pytest.mark.parametrize("score", ["logit", "drop"])
def test_a_map_within_the_rounding_of_its_head_is_flat(size, flat, score):
    """2^-18 of the magnitude may be off at each position, so that a range of twice that tells nothing."""
    part = heat_map()
    moved = 2.0 * size * np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32)
    one = replace(part, score=score, scores=moved if score == "drop" else np.float32(1.5) + moved, sampled=part.sampled | True)
    assert one.layer(View.whole(one.image)).flat is flat


def test_views_of_another_image_are_refused():
    with pytest.raises(UsageError, match=r"an image of \[20, 20\] pixels, expected the map's \[20, 24\]"):
        heat_map().overlay(np.zeros((20, 20), np.uint8), view=View.whole((20, 20)))
