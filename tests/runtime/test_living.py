"""Explainers that live long: many threads, forked and spawned processes, pickles, other working directories, an end."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from networks import save

import kcompiler
from kcompiler.runtime.inference.sessions import MOST_AT_ONCE, Machine

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 20, 20), dtype=np.float32)
PROC = Path("/proc/self")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("living")
    return kcompiler.compile(save("residual", folder / "model.onnx"), patch=4).save(folder / "model.kc")


def scores(explainer, number=0):
    return explainer.explain(IMAGES[number], stride=2, target=1).scores


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_an_explainer(bundle, threads):
    with kcompiler.load(bundle, threads=threads) as explainer:
        expected = [scores(explainer, number) for number in range(len(IMAGES))]
    with kcompiler.load(bundle, threads=threads) as explainer, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: scores(explainer, number % len(IMAGES)), range(32)))
    for number, one in enumerate(found):
        assert np.array_equal(one, expected[number % len(IMAGES)])


FORKED = """
import os, sys
import numpy as np
import kcompiler

folder, *hows = sys.argv[1:]
image = np.random.default_rng(0).standard_normal((8, 3, 20, 20), dtype=np.float32)[0]
bundle = kcompiler.compile(f"{folder}/model.onnx", patch=4)
explainer = kcompiler.load(bundle, threads=3)
expected = explainer.explain(image, stride=1).scores
for how in hows:
    child = os.fork()
    if child == 0:
        if how == "explains":
            assert np.array_equal(explainer.explain(image, stride=1).scores, expected)
        elif how == "closes":
            explainer.close()
            del explainer
        elif how == "returns":
            os._exit(0)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0, how
    assert bundle.folder.is_dir(), f"a child that {how} took the folder with it"
assert np.array_equal(explainer.explain(image, stride=1).scores, expected)
print(bundle.folder)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children(bundle):
    """In a fresh process: this one has other threads."""
    code = ["-W", "ignore::DeprecationWarning", "-c", FORKED, str(bundle.parent), "explains", "closes", "exits", "returns"]
    done = subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists(), "the parent removes it"


def test_pickles_open_the_bundle_anew(bundle):
    explainer = kcompiler.load(bundle, threads=1, providers=["cpu"])
    again = pickle.loads(pickle.dumps(explainer))
    assert again.machine.threads == 1
    assert np.array_equal(scores(again), scores(explainer))
    heat_map = explainer.explain(IMAGES[0], stride=4)
    copy = pickle.loads(pickle.dumps(heat_map))
    assert np.array_equal(copy.scores, heat_map.scores)
    assert (copy.label, copy.plan, copy.answer) == (heat_map.label, heat_map.plan, heat_map.answer)
    interrupted = pickle.loads(pickle.dumps(kcompiler.Interrupted(heat_map, heat_map)))
    assert (len(interrupted.heat_maps), str(interrupted)) == (2, str(kcompiler.Interrupted(heat_map)))


def test_pickled_bundles_do_not_own_their_folder(bundle):
    made = kcompiler.compile(bundle.parent / "model.onnx", patch=4)
    text = pickle.dumps(made)
    borrowed = pickle.loads(text)
    assert (borrowed.folder, borrowed.manifest.files) == (made.folder, made.manifest.files)
    del borrowed
    assert made.folder.is_dir()
    del made
    with pytest.raises(kcompiler.BundleError, match="not a compiled bundle"):
        pickle.loads(text)


def test_relative_paths_stay_where_they_were(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(bundle.parent)
    explainer = kcompiler.load(bundle.name, threads=2)
    monkeypatch.chdir(tmp_path)
    explainer.full_inference()
    scores(explainer)


def test_what_is_closed_says_so(bundle):
    with kcompiler.load(bundle) as explainer:
        scores(explainer)
    explainer.close()
    with pytest.raises(kcompiler.UsageError, match="is closed; load it again"):
        scores(explainer)
    made = kcompiler.compile(bundle.parent / "model.onnx", patch=4)
    folder, explainer = made.folder, kcompiler.load(made)
    del made
    explainer.close()
    assert not folder.exists()


def test_an_explanation_under_way_says_so_when_the_explainer_closes(bundle):
    explainer = kcompiler.load(bundle, threads=2)
    with pytest.raises(kcompiler.UsageError, match="is closed"):
        explainer.explain(IMAGES[0], stride=1, progress=lambda _: explainer.close())


def test_threads_beyond_the_cores_open_few_sessions(bundle):
    explainer, most = kcompiler.load(bundle, threads=1024), max(MOST_AT_ONCE, os.cpu_count() or 1)
    assert explainer.exact.workers.count <= most
    assert Machine(("cpu",), 1024).divided(1 << 20)[0] <= most
    explainer.explain(IMAGES[0], stride=1)
    assert len(os.listdir(PROC / "task")) <= 8 * most if PROC.is_dir() else True


def state():
    """Threads, open files, resident kilobytes and temporary folders."""
    resident = int(next(line for line in (PROC / "status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
    temporary = len(list(Path(tempfile.gettempdir()).glob("kcompiler-*")))
    return np.array([len(os.listdir(PROC / "task")), len(os.listdir(PROC / "fd")), resident, temporary])


def grown(after, before):
    print(f"threads, files, kB, folders: {before} {after}")
    threads, files, resident, folders = after - before
    return threads > 2 or files > 2 or folders > 0 or resident > 30_000


@pytest.mark.slow
@pytest.mark.skipif(not PROC.is_dir(), reason="reads /proc")
def test_ten_thousand_explanations_leave_nothing(bundle):
    with kcompiler.load(bundle, threads=2) as explainer:
        for number in range(1000):
            scores(explainer, number % 8)
        before = state()
        for number in range(10_000):
            scores(explainer, number % 8)
        gc.collect()
        assert not grown(state(), before)


@pytest.mark.slow
@pytest.mark.skipif(not PROC.is_dir(), reason="reads /proc")
def test_five_hundred_loads_leave_nothing(bundle):
    before = None
    for number in range(551):
        with kcompiler.load(bundle, threads=2) as explainer:
            scores(explainer)
        if number == 50:
            gc.collect()
            before = state()
    gc.collect()
    assert not grown(state(), before)
