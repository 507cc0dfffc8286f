"""Pictures shared among processes: the results of one process, whoever is killed meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from many import bits, command, write_pictures
from thread_workers import Threads
from typer.testing import CliRunner

import kcompiler
from kcompiler import scale
from kcompiler.cli import app
from kcompiler.commands import many
from kcompiler.commands.pictures import Job
from kcompiler.pool import cluster, crew
from kcompiler.pool.crew import Opening, gathered
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.request import Request


def kill_one(pids):
    """Kills a worker as soon as there is one."""
    while not pids:
        pids += [child.pid for child in multiprocessing.active_children() if child.name == "kcompiler worker"]
        time.sleep(0.02)
    os.kill(pids[0], signal.SIGKILL)


def test_processes_make_what_one_makes_though_one_is_killed(bundle, tmp_path):
    scans = write_pictures(tmp_path / "scans", 6)
    (scans / "bad.png").write_bytes(b"no picture")
    assert len(scale.explain_folder(bundle, scans, tmp_path / "here", threads=1, stride=4)) == 1
    killed = []
    killer = threading.Thread(target=kill_one, args=(killed,))
    killer.start()
    failures = scale.explain_folder(bundle, scans, tmp_path / "there", processes=2, stride=4)
    killer.join()
    assert killed
    assert [failure.picture for failure in failures] == [str(scans / "bad.png")]
    assert "not a readable picture" in failures[0].error
    assert bits(tmp_path / "there") == bits(tmp_path / "here")
    records = [json.loads(path.read_text())["settings"] for out in ("here", "there") for path in (tmp_path / out).glob("?.json")]
    assert len(records) == 12
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_processes_end_with_the_call_that_is_killed(bundle, tmp_path):
    scans, out = write_pictures(tmp_path / "scans", 40), tmp_path / "maps"
    arguments = ["explain", bundle, scans, "-o", out, "--stride", "4", "--processes", "2"]
    with subprocess.Popen([sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", *map(str, arguments)]) as call:
        until(lambda: list(out.glob("*.json")))
        children = [int(number) for number in Path(f"/proc/{call.pid}/task/{call.pid}/children").read_text().split()]
        call.kill()
    assert len(children) >= 2
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    done = bits(out, ".json", stamps=True, temporary=True)
    assert 0 < len(done) < 40
    assert scale.explain_folder(bundle, scans, out, processes=2, stride=4, resume=True) == []
    assert len(list(out.glob("*.json"))) == 40
    assert done.items() <= bits(out, ".json", stamps=True).items()


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def threads(monkeypatch):
    """Threads instead of processes, which take seconds to start."""
    monkeypatch.setattr(crew, "Processes", Threads)


def test_one_picture_is_shared_position_by_position(bundle, threads, tmp_path):
    scans = write_pictures(tmp_path / "scans", 1)
    for name, more in (("here", ()), ("there", ("--processes", "2"))):
        said = command(bundle, scans / "0.png", "-o", tmp_path / name, "--stride", "1", "--threads", "1", *more)
        assert "480 positions in" in said
    assert bits(tmp_path / "there") == bits(tmp_path / "here")


def test_calibration_images_are_shared(bundle, threads, tmp_path):
    copied = tmp_path / "model.kc"
    copied.mkdir()
    for path in bundle.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    images = write_pictures(tmp_path / "scans", 4)
    settings = ("--stride", "2", "--ssim", "0.5", "--share", "0.5")
    for work, more in (("here", ()), ("there", ("--processes", "2"))):
        done = CliRunner().invoke(
            app, ["tune", *map(str, (copied, "--images", images, "--work", tmp_path / work, *settings, *more))]
        )
        assert done.exit_code == 0, done.output
    assert "exact maps by 2 workers: 4 of 4" in done.output
    assert bits(tmp_path / "there", ".npy") == bits(tmp_path / "here", ".npy")


def explains(bundle, stopping, stride):
    settings = {"request": Request(stride=stride), "region": None, "style": Style(), "top": None, "resume": False, "force": False}
    return many.Explains(Opening(bundle, threads=1), settings)(stopping)


def test_a_worker_that_was_lost_after_it_had_written_makes_nothing_twice(bundle, tmp_path):
    scans = write_pictures(tmp_path / "scans", 1)
    job, work = Job(scans / "0.png", tmp_path / "maps", "0"), explains(bundle, lambda: False, 4)
    assert work(job, 0).done
    before = bits(tmp_path / "maps", stamps=True)
    again = work(job, 1)
    assert (again.done, again.error) == (True, None)
    assert "complete already" in again.lines[0][0]
    assert bits(tmp_path / "maps", stamps=True) == before


def test_a_worker_that_leaves_off_keeps_what_it_has(bundle, tmp_path):
    scans = write_pictures(tmp_path / "scans", 1)
    job, asked = Job(scans / "0.png", tmp_path / "maps", "0"), iter((False, True, True))
    left_off = explains(bundle, lambda: next(asked), 1)(job, 0)
    assert (left_off.done, left_off.error) == (False, None)
    assert "positions kept in" in left_off.lines[0][0]
    assert 0 < kcompiler.HeatMap.load(tmp_path / "maps" / "0.json").evaluated < 480
    assert explains(bundle, lambda: True, 1)(job, 0) == many.Outcome(), "what had not begun does not begin"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--processes", "0"), "--processes is 0, expected 1 to"),
        (("--ray", "scans"), "--ray is 'scans', expected HOST:PORT"),
        (("--processes", "2", "--compat", "captum"), "--compat captum takes files"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bundle, tmp_path, options, said):
    scans = write_pictures(tmp_path / "scans", 1)
    assert said in command(bundle, scans, "-o", tmp_path / "maps", *options, code=2)
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("opening", "count", "expected"),
    [
        ({}, None, (8, 1, 0, ("cpu",))),
        ({"threads": 3}, None, (2, 3, 0, ("cpu",))),
        ({"threads": 3}, 5, (5, 3, 0, ("cpu",))),
        ({"providers": ("cuda",)}, None, (2, 1, 1, ("cuda",))),
        ({"providers": ("cpu",)}, None, (8, 1, 0, ("cpu",))),
    ],
)
def test_actors_take_what_they_need_of_a_cluster(bundle, monkeypatch, opening, count, expected):
    monkeypatch.setattr(cluster, "joined", nullcontext)
    monkeypatch.setattr(cluster, "resource", {"CPU": 8.0, "GPU": 2.0}.__getitem__)
    with gathered(Opening(bundle, **opening), ray="auto", processes=count) as actors:
        backend = actors.backend
        assert (backend.count, backend._cpus, backend._gpus, actors.opening.providers) == expected
        assert actors.shares_pictures == (expected[2] == 0)


def test_without_ray_the_extra_is_named(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(f"No module {name}")))
    with pytest.raises(UsageError, match=r"install kcompiler\[ray\]"), gathered(Opening(bundle), ray="auto", processes=None):
        pass


def test_ray_may_stand_without_an_address(bundle, tmp_path, monkeypatch):
    scans, asked = write_pictures(tmp_path / "scans", 1), []

    def gathered_as(opening, *, ray, processes):
        asked.append((ray, processes))
        raise UsageError("enough")

    monkeypatch.setattr("kcompiler.commands.explain.gathered", gathered_as)
    for options in (("--ray",), ("--ray", "--processes", "3"), ("--ray", "a:1"), ("--ray=b:2",), ()):
        command(bundle, scans, "-o", tmp_path / "maps", *options, code=2)
    assert asked == [("auto", None), ("auto", 3), ("a:1", None), ("b:2", None), (None, None)]


def test_a_stage_adds_maps_and_says_what_failed(bundle, tmp_path):
    scans = write_pictures(tmp_path / "scans", 2)
    stage = scale.Explain(bundle, stride=4, target="b")
    paths = np.array([*map(str, sorted(scans.iterdir())), "none.png"], object)
    columns = stage({"path": paths, "patient": np.arange(3)})
    explainer = kcompiler.load(bundle, threads=1)
    expected = explainer.explain(explainer.read_image(paths[0]).tensor, stride=4, target="b")
    assert np.array_equal(columns["scores"][0], expected.scores)
    assert columns["label"].tolist() == ["b", "b", ""]
    assert columns["target"].tolist() == [1, 1, -1]
    assert np.isnan(columns["scores"][2]).all()
    assert columns["error"][2].startswith("none.png")
    assert columns["patient"].tolist() == [0, 1, 2]
    image = explainer.read_image(paths[0]).tensor
    assert np.array_equal(stage({"image": np.stack([image])})["scores"][0], expected.scores)
    with pytest.raises(UsageError, match="expected 'path' or 'image'"):
        stage({"file": paths})
    with pytest.raises(ImageError):
        explainer.read_image("none.png")
