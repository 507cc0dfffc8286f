"""Saved heat maps: what is read back is what was saved, or an error."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from matplotlib.colorbar import Colorbar

from kcompiler.runtime.errors import ImageError
from kcompiler.runtime.maps.heatmap import HeatMap


def heat_map() -> HeatMap:
    rng = np.random.default_rng(0)
    sampled = rng.random((3, 4)) < 0.7
    scores = np.where(sampled, rng.standard_normal((3, 4)), np.nan).astype(np.float32)
    return HeatMap(
        scores=scores, unoccluded=1.5, target=2, label="two", ys=np.arange(0, 12, 4), xs=np.arange(0, 16, 4), patch=(5, 6),
        image=(20, 24), seconds=0.25, sampled=sampled, score="logit", complete=False, warnings=("few",),
    )  # fmt: skip


def test_what_is_read_is_what_was_saved(tmp_path):
    saved = heat_map()
    saved.save(tmp_path, "map")
    read = HeatMap.load(tmp_path / "map.json")
    for one in fields(HeatMap):
        np.testing.assert_array_equal(getattr(read, one.name), getattr(saved, one.name), err_msg=one.name)


@pytest.mark.parametrize(
    ("score", "unit"),
    [("logit", "drop of the logit when covered"), ("output", "drop of the output when covered"), ("drop", "drop when covered")],
)
def test_the_colour_bar_says_what_falls(monkeypatch, score, unit):
    labels = []
    monkeypatch.setattr(Colorbar, "set_label", lambda self, text, **_: labels.append(text))
    replace(heat_map(), score=score).overlay()
    assert labels[-1] == unit


def test_scores_of_another_map_are_not_read(tmp_path):
    """A copy that was interrupted, say: of the same size, so that nothing else tells."""
    saved = heat_map()
    saved.save(tmp_path, "map")
    np.save(tmp_path / "map.npy", replace(saved, scores=saved.scores + 1).scores)
    with pytest.raises(ImageError, match="of another map"):
        HeatMap.load(tmp_path / "map.json")
