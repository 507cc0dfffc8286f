"""What compiled models ask of a CUDA device: everything runs there, nothing is done twice, and nothing waits."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompiler

pytestmark = pytest.mark.fake_cuda
ROOT = Path(__file__).parents[2]
IMAGE_BYTES = 4 * 3 * 224 * 224
Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A network, and the most kernels and library calls that a batch of it may take."""

    name: str
    most: int


@dataclass(frozen=True)
class Rehearsed:
    """A bundle's rehearsals, without and with CUDA graphs."""

    case: Case
    plain: Figures
    graphs: Figures


@pytest.fixture(scope="module", params=[Case("demo", 80), Case("resnet18", 240), Case("vgg16", 180)], ids=lambda case: case.name)
def rehearsed(request, rehearsal, tmp_path_factory) -> Rehearsed:
    case = request.param
    if case.name == "demo":
        bundle = request.getfixturevalue("demo")
    else:
        pytest.importorskip("torch", reason="exports need PyTorch")
        folder = tmp_path_factory.mktemp(case.name)
        model, bundle = folder / "model.onnx", folder / "model.kc"
        command = [sys.executable, "-m", "models.export", case.name, "-o", model]
        subprocess.run([*map(str, command)], cwd=ROOT, check=True, capture_output=True)
        kcompiler.compile(model, patch=16, device="cuda").save(bundle)
    return Rehearsed(case, rehearsal(bundle), rehearsal(bundle, "--graphs"))


def batches(figures: Figures, image: int) -> list[Figures]:
    return figures["images"][image]["batches"]


def passes(figures: Figures, image: int) -> list[Figures]:
    """The counts of everything that was done for an image."""
    whole = figures["images"][image]
    return [whole["baseline"], whole["unoccluded"], *(batch["counts"] for batch in whole["batches"])]


def test_every_node_runs_on_the_device(rehearsed):
    for figures in (rehearsed.plain, rehearsed.graphs):
        for model, placement in figures["placements"].items():
            assert placement == {"on_cpu": [], "copies": 0}, model


def test_the_device_refuses_nothing(rehearsed):
    for figures in (rehearsed.plain, rehearsed.graphs):
        assert [counts["refusals"] for image in range(3) for counts in passes(figures, image) if counts["refusals"]] == []


def test_batches_take_few_launches(rehearsed):
    counted = [batch["counts"] for batch in batches(rehearsed.plain, 2)]
    assert min(counts["launches"] + counts["library_calls"] for counts in counted) > 0
    assert max(counts["launches"] + counts["library_calls"] for counts in counted) <= rehearsed.case.most


def test_the_third_image_finds_plans_and_memory_ready(rehearsed):
    assert sum(counts["plans"] for counts in passes(rehearsed.plain, 0)) > 0
    assert [counts["plans"] for counts in passes(rehearsed.plain, 2) if counts["plans"]] == []
    assert [counts["allocated"] for counts in passes(rehearsed.plain, 2) if counts["allocated"]] == []


def test_indices_are_copied_for_the_first_image_only(rehearsed):
    assert sum(batch["counts"]["to_device"] for batch in batches(rehearsed.plain, 0)) > 0
    assert [batch["counts"]["to_device"] for image in (1, 2) for batch in batches(rehearsed.plain, image)] == [0] * (
        2 * len(batches(rehearsed.plain, 0))
    )


def test_the_host_waits_at_the_end_of_a_batch_only(rehearsed):
    for figures in (rehearsed.plain, rehearsed.graphs):
        for batch in batches(figures, 2):
            assert batch["early_waits"] == 0
            assert 1 <= batch["counts"]["synchronisations"] <= 2, "for the run, and for its outputs"


def test_with_graphs_the_second_image_is_captured_and_the_third_replayed(rehearsed):
    for image, (captures, replays) in enumerate([(0, 0), (1, 1), (0, 1)]):
        for batch in batches(rehearsed.graphs, image):
            assert (batch["counts"]["captures"], batch["counts"]["replays"]) == (captures, replays)
    unoccluded = rehearsed.graphs["images"][2]["unoccluded"]
    for counts in (unoccluded, *(batch["counts"] for batch in batches(rehearsed.graphs, 2))):
        assert (counts["launches"], counts["library_calls"]) == (0, 0)
        assert counts["replayed"] > 0


def test_replays_are_what_runs_without_graphs(rehearsed):
    for plain, replayed in zip(batches(rehearsed.plain, 2), batches(rehearsed.graphs, 2), strict=True):
        assert replayed["counts"]["replayed"] == plain["counts"]["launches"] + plain["counts"]["library_calls"]


def test_every_baseline_pass_runs_on_its_own_image(rehearsed):
    """A captured one would read the memory of the image that it was captured with."""
    first = rehearsed.graphs["images"][0]["baseline"]
    for image in rehearsed.graphs["images"]:
        counts = image["baseline"]
        assert counts["to_device"] >= IMAGE_BYTES
        assert (counts["launches"], counts["library_calls"]) == (first["launches"], first["library_calls"])
        assert (counts["captures"], counts["replays"]) == (0, 0)


def test_float32_is_not_rounded_to_tf32(rehearsed):
    for figures in (rehearsed.plain, rehearsed.graphs):
        assert figures["math"] == ["default"]
        assert not figures["tensor_cores"]


def test_the_variant_tf32_is(rehearsal, demo):
    figures = rehearsal(demo, "--variant", "tf32", "--images", "1")
    assert figures["math"] == ["tf32"]
    assert figures["tensor_cores"]


EXPLAIN = """
import json
from dataclasses import asdict
from fake_cuda.recorder import Counts, Recorder
from kcompiler.cli import main
try:
    main()
finally:
    print(json.dumps(asdict(Counts.of(Recorder().events()))))
"""


def test_explain_from_end_to_end(python, demo, tmp_path):
    done = python(
        EXPLAIN,
        "explain",
        demo,
        ROOT / "models" / "demo" / "picture.png",
        "-o",
        tmp_path / "maps",
        "--provider",
        "cuda",
        "--stride",
        "8",
    )
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["launches"] > 0
    assert counts["refusals"] == []
    assert Path(tmp_path / "maps" / "picture.png").exists()
    scores = np.load(tmp_path / "maps" / "picture.npy")
    assert scores.shape == (28, 28)
