"""``kcompiler explain`` on folders: results mirror them, bad pictures are listed and the rest goes on."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kcompiler.cli import app
from kcompiler.commands import explaining
from kcompiler.commands.pictures import Job, find
from kcompiler.runtime.errors import UsageError


def explain(*arguments, code=0):
    done = CliRunner().invoke(app, ["explain", *map(str, arguments), "--stride", "12"])
    assert done.exit_code == code, done.output
    return done.output


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def scans(tmp_path):
    """Pictures of three patients, two of one name, one damaged, and files that are no pictures."""
    folder = tmp_path / "scans"
    for seed, name in enumerate(("p/1.png", "q/1.png", "q/2.jpg", "top.png")):
        write(folder / name, seed)
    (folder / "q" / "bad.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("mine")
    (folder / "q" / "list.csv").write_text("1,2")
    (folder / "q" / ".hidden.png").write_bytes(b"")
    return folder


def records(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.json"))


def test_results_mirror_the_folder_and_failures_are_listed(bundle, scans, tmp_path):
    out = tmp_path / "maps"
    said = explain(bundle, scans, "-o", out, code=1)
    assert records(out) == ["failed.json", "p/1.json", "q/1.json", "q/2.json", "top.json"]
    assert "4 explained; 1 failed; 2 files skipped that are no pictures (1 .csv, 1 .txt)" in said
    assert "100%" in said
    ((failure,), text) = json.loads((out / "failed.json").read_text()), (out / "failed.txt").read_text()
    assert failure["picture"] == str(scans / "q" / "bad.png")
    assert "not a readable picture" in failure["error"]
    assert failure["picture"] in text
    maps = [np.load(out / name / "1.npy") for name in "pq"]
    assert not np.array_equal(*maps)


def test_resume_does_what_is_left(bundle, scans, tmp_path):
    out = tmp_path / "maps"
    explain(bundle, scans, "-o", out, code=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
    write(scans / "q" / "bad.png", 7)
    said = explain(bundle, scans, "-o", out, "--resume")
    assert "1 explained; 4 complete already; 2 files skipped" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert records(out) == ["p/1.json", "q/1.json", "q/2.json", "q/bad.json", "top.json"]
    assert not (out / "failed.txt").exists()


@pytest.mark.parametrize(
    "arguments", [("--target", "dog"), ("--channel", "3"), ("--budget", "0"), ("--quality", "0.9"), ("--range", "x")]
)
def test_settings_that_no_picture_can_have_end_it_at_once(bundle, scans, tmp_path, arguments):
    explain(bundle, scans, "-o", tmp_path / "maps", *arguments, code=2)
    assert not (tmp_path / "maps").exists()


def test_pictures_that_settings_do_not_fit_are_listed(bundle, scans, tmp_path):
    write(scans / "p" / "large.png", 3)
    with Image.open(scans / "p" / "large.png") as small:
        small.resize((80, 60)).save(scans / "p" / "large.png")
    explain(bundle, scans, "-o", tmp_path / "maps", "--region", "0,0,60,80", code=1)
    failed = json.loads((tmp_path / "maps" / "failed.json").read_text())
    assert len(failed) == 5
    assert records(tmp_path / "maps") == ["failed.json", "p/large.json"]


def test_the_next_picture_is_read_by_a_thread_while_one_is_explained(bundle, scans, tmp_path, monkeypatch):
    read, threads = explaining.read_shown, {}

    def watched(explainer, path, *selection):
        threads[path] = threading.current_thread() is threading.main_thread()
        return read(explainer, path, *selection)

    monkeypatch.setattr(explaining, "read_shown", watched)
    explain(bundle, scans, "-o", tmp_path / "maps", code=1)
    assert [path.name for path, main in threads.items() if main] == ["top.png"], "the first"
    assert len(threads) == 5


def test_where_results_go(tmp_path):
    for name in ("a/x/1.png", "b/x/1.png", "a/1.png", "a/1.jpg", "a/failed.png"):
        write(tmp_path / name, 0)
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    one, both = find([a], out).jobs, find([a, b, tmp_path / "a" / "x" / "1.png"], out).jobs
    assert one == (
        Job(a / "1.jpg", out, "1.jpg"), Job(a / "1.png", out, "1.png"), Job(a / "failed.png", out, "failed.png"),
        Job(a / "x" / "1.png", out / "x", "1"),
    )  # fmt: skip
    places = [(job.folder / job.stem).relative_to(out).as_posix() for job in both]
    assert places == ["a/1.jpg", "a/1.png", "a/failed", "a/x/1", "b/x/1", "1"]
    assert [job.path.name for job in find([a], a / "x").jobs] == ["1.jpg", "1.png", "failed.png"], "results are no pictures"


def test_folders_without_pictures_and_of_one_name_are_refused(tmp_path):
    (tmp_path / "a" / "s").mkdir(parents=True)
    (tmp_path / "b" / "s").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds no pictures"):
        find([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(UsageError, match="two folders are named 's'"):
        find([tmp_path / "a" / "s", tmp_path / "b" / "s"], tmp_path / "out")


def test_a_folder_is_not_overwritten_by_its_results(bundle, scans, tmp_path):
    said = explain(bundle, scans, "-o", scans, "--resume", code=2)
    assert "would be overwritten" in said
    assert "takes files" in explain(bundle, scans, "-o", tmp_path / "maps", "--compat", "captum", code=2)


def test_a_report_of_what_was_written(bundle, scans, tmp_path):
    page = tmp_path / "report.html"
    said = explain(bundle, scans, "-o", tmp_path / "maps", "--html", page, code=1)
    assert "report.html: 4 maps" in said
    html = page.read_text(encoding="utf-8")
    for part in ("1 could not be explained", "bad.png", "q/2.jpg", "settings: stride", "machine: versions"):
        assert part in html
    assert html.count('<details class="map"') == 4
    assert "exists already" in explain(bundle, scans, "-o", tmp_path / "other", "--html", page, code=2)
    explain(bundle, scans / "top.png", "-o", tmp_path / "maps", "--resume", "--html", page)
    assert '<section class="map"' in page.read_text(encoding="utf-8")


def test_a_report_of_the_largest_outputs(bundle, scans, tmp_path):
    page = tmp_path / "report.html"
    explain(bundle, scans / "top.png", "-o", tmp_path / "maps", "--top", "2", "--html", page)
    assert page.read_text(encoding="utf-8").count('<details class="map"') == 2
