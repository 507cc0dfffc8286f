"""``explain --resume`` leaves alone what is whole, and makes what is not; what is no map's is nobody's to replace."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kcompiler.cli import app
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.stored import has_scores, is_whole, write_map


def explain(*arguments, code=0):
    done = CliRunner().invoke(app, ["explain", *map(str, arguments), "--stride", "12"])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def out(bundle, picture, tmp_path):
    explain(bundle, picture, "-o", tmp_path / "maps")
    return tmp_path / "maps"


def content(folder):
    return {path.suffix: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


@pytest.mark.parametrize("damage", ["scores", "picture", "no scores", "no picture"])
def test_a_map_that_is_not_as_its_record_says_is_made_again(bundle, picture, out, damage):
    whole, path = content(out), out / ("a.npy" if "scores" in damage else "a.png")
    if damage.startswith("no"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not is_whole(out / "a.json")
    assert "complete already" not in explain(bundle, picture, "-o", out, "--resume")
    assert content(out) == whole
    assert "complete already" in explain(bundle, picture, "-o", out, "--resume")


@pytest.mark.parametrize("left", [["a.npy"], ["a.npy", "a.png"]])
def test_a_map_without_a_record_is_made_again(bundle, picture, out, left):
    whole = content(out)
    for path in list(out.iterdir()):
        if path.name not in left:
            path.unlink()
    assert has_scores(out / "a.json")
    explain(bundle, picture, "-o", out, "--resume")
    assert content(out) == whole
    assert is_whole(out / "a.json")


@pytest.mark.parametrize("top", [(), ("--top", "2")])
def test_files_of_others_are_in_the_way(bundle, picture, tmp_path, top):
    name = "a.png" if not top else "a.0.png"
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / name).write_bytes(b"mine")
    assert "exists already" in explain(bundle, picture, "-o", tmp_path / "maps", "--resume", *top, code=2)
    assert (tmp_path / "maps" / name).read_bytes() == b"mine"


def test_a_record_that_is_none_is_in_the_way(bundle, picture, out):
    (out / "a.json").write_text("mine")
    assert "is no record of a heat map" in explain(bundle, picture, "-o", out, "--resume", code=3)
    (out / "a.json").write_text('{"notes": "mine"}')
    assert "is of other settings" in explain(bundle, picture, "-o", out, "--resume", code=2)


def test_force_and_resume_go_on_with_what_replaces_other_settings(bundle, picture, out):
    explain(bundle, picture, "-o", out, "--resume", "--target", "1", code=2)
    explain(bundle, picture, "-o", out, "--resume", "--force", "--target", "1")
    assert HeatMap.load(out / "a.json").target == 1
    assert "complete already" in explain(bundle, picture, "-o", out, "--resume", "--force", "--target", "1")


def test_a_record_without_digests_is_whole_with_its_scores_and_picture(bundle, picture, out):
    """As earlier versions wrote them."""
    record = json.loads((out / "a.json").read_text())
    del record["sha256"]
    (out / "a.json").write_text(json.dumps(record))
    assert is_whole(out / "a.json")
    assert "complete already" in explain(bundle, picture, "-o", out, "--resume")
    (out / "a.png").unlink()
    assert not is_whole(out / "a.json")


def saved(folder, number, **files):
    drawing, scores = Image.new("L", (2, 2)), np.full((2, 3), number, np.float32)
    contents = {f".{suffix}": data for suffix, data in files.items()}
    return write_map(folder, "map", scores, drawing, {"target": number}, files=contents, force=True)


def test_files_that_a_record_names_go_with_it(tmp_path):
    saved(tmp_path, 1, dcm=b"one", nrrd=b"one")
    assert is_whole(tmp_path / "map.json")
    (tmp_path / "map.txt").write_text("mine")
    (tmp_path / "map.nrrd").write_bytes(b"altered by somebody")
    assert not is_whole(tmp_path / "map.json")
    saved(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "map.npy", "map.nrrd", "map.png", "map.txt"]
    assert is_whole(tmp_path / "map.json")


@pytest.mark.parametrize("suffix", ["../x", "/etc/passwd", ".a/../../x", "", "\0"])
def test_a_record_names_nothing_beyond_its_stem(tmp_path, suffix):
    """A record is a stranger's: it is no list of files to remove."""
    saved(tmp_path / "maps", 1)
    (tmp_path / "x").write_text("mine")
    record = json.loads((tmp_path / "maps" / "map.json").read_text())
    record["sha256"][suffix] = "0" * 64
    (tmp_path / "maps" / "map.json").write_text(json.dumps(record))
    assert not is_whole(tmp_path / "maps" / "map.json")
    saved(tmp_path / "maps", 2)
    assert (tmp_path / "x").read_text() == "mine"
    assert is_whole(tmp_path / "maps" / "map.json")
