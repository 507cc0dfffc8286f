"""A folder explained on a cluster of three nodes while actors, nodes and the driver are killed: nothing is lost or made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from clusters import add_node, cluster_of, pids_of_actors
from many import bits, write_pictures
from networks import save

import kcompiler
from kcompiler import scale

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("ray", reason="needs Ray: install kcompiler[ray]")
PICTURES, KILLS, NODES, SEED = 200, 50, 3, 1
SIZE = (40, 48)
RECIPE = {"size": SIZE, "resize": "crop", "shorter_side": 48, "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3,
          "channel_order": "RGB"}  # fmt: skip
SETTINGS = {"stride": 1}
PATIENCE = 60.0
"""Seconds without a map after which the next is killed: before anything is done."""
VICTIMS, SHARES = ("actor", "node", "driver"), (0.6, 0.2, 0.2)


@pytest.fixture(scope="module")
def large_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    save("chain", folder / "model.onnx", *SIZE)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    return kcompiler.compile(folder / "model.onnx", patch=5, preprocessing=folder / "recipe.json").save(folder / "model.kc")


class Campaign:
    """Drivers, one after the other, and what they have completed."""

    def __init__(self, cluster, bundle, scans, out):
        self.cluster, self.bundle, self.scans, self.out = cluster, bundle, scans, out
        self.seen, self.killed, self.ends, self.driver = {}, Counter(), Counter(), None

    def start(self):
        program = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()"]
        arguments = [
            "explain",
            self.bundle,
            self.scans,
            "-o",
            self.out,
            "--ray",
            self.cluster.address,
            "--stride",
            "1",
            "--resume",
        ]
        command = [*program, *map(str, arguments)]
        self.log = (self.out.parent / "driver.log").open("ab")
        self.driver = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def look(self):
        """Notes which maps are complete, and fails if one was made anew."""
        for record in self.out.glob("*.json"):
            if record.stem != "failed":
                status = record.stat()
                stamp = status.st_ino, status.st_mtime_ns
                assert self.seen.setdefault(record.stem, stamp) == stamp, f"{record.stem} was made twice"

    def kill(self, victim, rng):
        self.look()
        if victim == "driver":
            self.driver.kill()
            self.driver.wait()
            self.start()
        elif victim == "node":
            nodes = [node for node in self.cluster.list_all_nodes() if not node.head]
            self.cluster.remove_node(nodes[rng.integers(len(nodes))], allow_graceful=False)
            add_node(self.cluster)
        elif pids := pids_of_actors(self.cluster):
            os.kill(pids[rng.integers(len(pids))], signal.SIGKILL)
        else:
            return
        self.killed[victim] += 1

    @contextmanager
    def running(self):
        self.start()
        try:
            yield
        finally:
            self.driver.kill()
            self.driver.wait()

    def wait(self, more, seconds):
        """Waits until so many more maps are complete, but no longer; and then a moment, so that others are at hand or written."""
        enough, until = len(self.seen) + more, time.monotonic() + PATIENCE
        while len(self.seen) < enough and time.monotonic() < until:
            self.look()
            if self.driver.poll() is not None:  # as where workers were lost over a picture again and again
                self.ends[self.driver.returncode] += 1
                self.start()
            time.sleep(0.02)
        time.sleep(seconds)


def test_every_map_is_made_once_whatever_is_killed(large_bundle, tmp_path, capsys):
    scans = write_pictures(tmp_path / "scans", PICTURES, SIZE)
    assert scale.explain_folder(large_bundle, scans, tmp_path / "undisturbed", threads=1, **SETTINGS) == []
    rng, out = np.random.default_rng(SEED), tmp_path / "maps"
    with cluster_of(NODES) as cluster:
        campaign = Campaign(cluster, large_bundle, scans, out)
        with campaign.running():
            while campaign.killed.total() < KILLS:
                campaign.wait(rng.integers(0, 6), rng.uniform(0, 0.5))
                campaign.kill(str(rng.choice(VICTIMS, p=SHARES)), rng)
                if campaign.killed.total() % 10 == 0:
                    say(capsys, f"{dict(campaign.killed)} killed, {len(campaign.seen)} of {PICTURES} complete")
            say(capsys, f"{dict(campaign.killed)} killed, {len(campaign.seen)} complete; drivers ended {dict(campaign.ends)}")
            assert len(campaign.seen) < PICTURES, "the last kill was in the midst of it"
            while campaign.driver.wait(600) != 0:
                campaign.start()
        campaign.look()
    records = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert sorted(map(int, records)) == list(range(PICTURES))
    assert all(record["complete"] for record in records.values())
    assert bits(out) == bits(tmp_path / "undisturbed")
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def say(capsys, text):
    with capsys.disabled():
        print(text, flush=True)
