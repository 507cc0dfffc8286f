"""Pictures on a Ray cluster of several nodes on this machine: the results of one process. Starting the cluster takes seconds."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from clusters import cluster_of, pids_of_actors
from many import bits, command, write_pictures

import kcompiler
from kcompiler import scale
from kcompiler.pool.crew import Opening, gathered
from kcompiler.pool.grid import SpreadGrid
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.errors import WorkersLost
from kcompiler.runtime.explanation import explained
from kcompiler.runtime.request import Request
from kcompiler.runtime.several import explained_targets

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
pytest.importorskip("ray", reason="needs Ray: install kcompiler[ray]")


@pytest.fixture(scope="module")
def nodes():
    with cluster_of(4) as nodes:
        yield nodes


@pytest.fixture
def image(bundle, tmp_path):
    explainer = kcompiler.load(bundle, threads=1)
    return explainer.read_image(write_pictures(tmp_path / "one", 1) / "0.png").tensor


def test_actors_make_what_one_process_makes_though_one_is_killed(bundle, nodes, tmp_path):
    scans = write_pictures(tmp_path / "scans", 12)
    (scans / "bad.png").write_bytes(b"no picture")
    assert len(scale.explain_folder(bundle, scans, tmp_path / "here", threads=1, stride=4)) == 1
    say, killed = scale.explain_found.__globals__["_note"], []

    def note(overall, job, outcome, failures):
        if not killed:  # as soon as a picture is done, so that others are at hand
            killed.append(pids_of_actors(nodes)[0])
            os.kill(killed[0], signal.SIGKILL)
        say(overall, job, outcome, failures)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(scale.explain_found.__globals__, "_note", note)
        said = command(bundle, scans, "-o", tmp_path / "there", "--ray", nodes.address, "--stride", "4", code=1)
    assert "12 explained; 1 failed" in said
    assert "another takes its place" in said
    assert bits(tmp_path / "there") == bits(tmp_path / "here")
    assert not pids_of_actors(nodes)
    said = command(bundle, scans, "-o", tmp_path / "there", "--ray", nodes.address, "--stride", "4", "--resume", code=1)
    assert "0 explained; 12 complete already; 1 failed" in said


def test_a_grid_over_four_actors_has_the_bits_of_one_machine(bundle, nodes, image):
    explainer = kcompiler.load(bundle, threads=1)
    requests = {
        "exact": Request(stride=1),
        "beyond the edges": Request(stride=1, edges="cut", fill="blur", score="drop"),
        "a patch for each position": Request(stride=2, fill="marginal"),
        "kriging, in rounds": Request(stride=1, quality=SamplingPlan(step=4, share=0.6)),
        "drill-down, in two phases": Request(stride=1, quality=SamplingPlan(method="drill-down", step=4, share=0.5)),
    }
    with gathered(Opening(bundle, threads=1), ray=nodes.address, processes=4) as crew:
        spread = SpreadGrid(crew, print)
        spread.open()  # so that each has parts of the first round already
        for name, request in requests.items():
            alone, shared = (explained(explainer, image, each) for each in (request, _by(request, spread)))
            assert np.array_equal(alone.scores, shared.scores), name
            assert np.array_equal(alone.sampled, shared.sampled), name
            assert alone.evaluated > 60, name
        several = [
            explained_targets(explainer, image, "all", each) for each in (Request(stride=1), _by(Request(stride=1), spread))
        ]
        assert np.array_equal(*([heat_map.scores for heat_map in maps] for maps in several))
        assert len(pids_of_actors(nodes)) == 4
        spread.close()


def _by(request, spread):
    return Request(**{name: getattr(request, name) for name in request.__slots__ if name != "spread"}, spread=spread)


def test_a_stage_of_ray_data(bundle, nodes, tmp_path):
    import ray

    scans = write_pictures(tmp_path / "scans", 4)
    (scans / "bad.png").write_bytes(b"no picture")
    with gathered(Opening(bundle), ray=nodes.address, processes=None):
        ray.data.DataContext.get_current().enable_progress_bars = False
        paths = [{"path": str(path)} for path in scans.iterdir()]
        data = ray.data.from_items(paths).map_batches(
            scale.Explain, fn_constructor_kwargs={"bundle": str(bundle), "stride": 4}, concurrency=2, batch_size=2
        )
        rows = {row["path"]: row for row in data.take_all()}
    assert sum(row["error"] == "" for row in rows.values()) == 4
    assert "not a readable picture" in rows[str(scans / "bad.png")]["error"]
    explainer = kcompiler.load(bundle, threads=1)
    expected = explainer.explain(explainer.read_image(scans / "0.png").tensor, stride=4)
    assert np.array_equal(rows[str(scans / "0.png")]["scores"], expected.scores)


def test_what_the_cluster_cannot_do_is_said(bundle, nodes, tmp_path):
    scans = write_pictures(tmp_path / "scans", 2)
    said = command(bundle, scans, "-o", tmp_path / "maps", "--ray", nodes.address, "--threads", "64", code=2)
    assert "no place for a worker of 64 CPU threads" in said
    said = command(bundle, scans, "-o", tmp_path / "maps", "--ray", nodes.address, "--provider", "cuda", code=2)
    assert "no GPU" in said


def test_no_cluster_is_an_error():
    nowhere = gathered(Opening(Path("model.kc")), ray="127.0.0.1:1", processes=None)
    with pytest.raises(WorkersLost, match="no Ray cluster answers at"), nowhere:
        pass
