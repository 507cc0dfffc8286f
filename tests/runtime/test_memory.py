"""What ``memory`` promises against what is taken: in a process of its own, by the kernel's count of its resident pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from networks import Builder
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.pipeline import compile_file

SIZE, PATCH, CHANNELS = 96, 40, 128
MEGABYTE = 1 << 20
SLACK = 2.0
"""Times what is promised. Batches are estimated by their worst node, and ONNX Runtime keeps memory that has got too small for the
next batch: 1.0 to 1.75 times were seen, whatever the number of batches."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="the peak of resident memory is read from Linux' /proc")

TAKEN = f"""
import sys
import threading
from pathlib import Path

import numpy as np
import kcompiler

def resident(key):
    lines = dict(line.split(":", 1) for line in Path({str(STATUS)!r}).read_text().splitlines())
    return int(lines[key].split()[0]) * 1024

explainer = kcompiler.load(sys.argv[1], providers=["cpu"], threads=int(sys.argv[2]), memory=int(sys.argv[3]))
image = np.random.default_rng(0).standard_normal((1, *explainer.manifest.shape), dtype=np.float32)
engine, count = explainer.exact, explainer.exact.workers.count
meet = threading.Barrier(count, timeout=60)

def opened(_):
    engine.sessions.of_worker()
    meet.wait()  # so that each of the workers has one item
    engine._evaluate(baseline, np.zeros((1, 2), np.int64), alone=False, by_worker=True)

baseline = engine.baseline(image)
list(engine.workers.map(opened, range(count)))  # beside cached activations and weights, which are there now
before = resident("VmRSS")
Path({str(CLEAR)!r}).write_text("5")  # the peak is what is resident now; getrusage's would be that of whoever started this
found = explainer.explain(image, target=0, stride=7)
assert np.isfinite(found.scores).all()
print(resident("VmHWM") - before, engine.batch, count, found.scores.size)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Wide regions of many channels: a batch takes much, and little time."""
    folder, builder = tmp_path_factory.mktemp("memory"), Builder()
    x = builder.relu(builder.conv("image", CHANNELS, 3, pads=[1, 1, 1, 1]))
    x = builder.relu(builder.conv(x, CHANNELS, 3, pads=[1, 1, 1, 1]))
    onnx.save(builder.model(builder.node("GlobalAveragePool", builder.conv(x, 8, 1)), SIZE, SIZE), folder / "model.onnx")
    return compile_file(folder / "model.onnx", Options(patch=(PATCH, PATCH), dense_share=NEVER_DENSE))


def taken(bundle, threads: int, memory: int) -> tuple[int, int]:
    """By how many bytes resident memory grows at the peak, and positions under way at once."""
    command = [sys.executable, "-P", "-c", TAKEN, bundle.folder, threads, memory]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    growth, batch, workers, positions = map(int, done.stdout.split())
    assert batch * workers < positions / 2, "it takes several rounds"
    return growth, batch * workers


@pytest.mark.parametrize("threads", [1, 2])
def test_an_explanation_takes_no_more_memory_than_it_was_given(bundle, threads):
    """If nothing is said, it takes several times as much."""
    freely, most = taken(bundle, threads, 1 << 40)
    for memory in (24 * MEGABYTE, 40 * MEGABYTE):
        growth, count = taken(bundle, threads, memory)
        assert growth <= SLACK * memory, f"{growth / MEGABYTE:.0f} MB for {count} positions at once"
        assert freely > SLACK * memory, f"{freely / MEGABYTE:.0f} MB for {most} positions at once, if nothing is said"
