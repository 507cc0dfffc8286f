"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from networks import save
from PIL import Image

from kcompiler.commands.compat import as_monai_says
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.request import Request

RECIPE = {"size": [24, 28], "resize": "stretch", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB",
          "labels": ["a", "b", "c", "d", "e"]}  # fmt: skip


def kcompiler(*arguments, code=0, **options):
    """Runs the command in a process of its own, as a user does."""
    command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a model, its recipe, a bundle of it, and a picture."""
    folder = tmp_path_factory.mktemp("work")
    save("chain", folder / "model.onnx", 24, 28)
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    done = kcompiler("compile", folder / "model.onnx", "--patch", "5", "--preprocessing", folder / "recipe.json")
    assert "nodes incremental" in done.stdout
    return folder


def test_help_lists_the_commands():
    done = kcompiler("--help")
    for command in ("compile", "inspect", "explain", "tune", "check", "bench", "demo"):
        assert command in done.stdout


def test_compile_writes_beside_the_model_and_never_replaces(work):
    assert (work / "model.kc" / "manifest.json").is_file()
    done = kcompiler("compile", work / "model.onnx", code=2)
    assert "exists already" in done.stderr
    kcompiler(
        "compile", work / "model.onnx", "-o", work / "wide.kc", "--patch", "4x7", "--extents", "static", "--convolution", "direct"
    )
    manifest = json.loads((work / "wide.kc" / "manifest.json").read_text())
    assert manifest["patch"] == [4, 7]
    assert manifest["extents"] == "static"


def test_compile_never_replaces_the_folder_of_its_model(work, tmp_path):
    """Though the model is a file that a bundle may hold."""
    shutil.copytree(work / "model.kc", tmp_path / "model.kc")
    done = kcompiler("compile", tmp_path / "model.kc" / "full.onnx", "-o", tmp_path / "model.kc", "--force", code=2)
    assert "holds the model full.onnx" in done.stderr
    assert (tmp_path / "model.kc" / "full.onnx").is_file()


def test_check_says_ok_with_its_error(work):
    done = kcompiler("check", work / "model.kc", "--positions", "30")
    assert done.stdout.startswith("OK ")
    assert "positions on cpu, largest error" in done.stdout


def test_inspect_shows_the_nodes_and_the_ratios(work):
    done = kcompiler("inspect", work / "model.onnx", "--patch", "5")
    for text in ("Conv", "incremental", "regions", "reads", "redundancy R", "parameters", "largest region"):
        assert text in done.stdout, text
    report = json.loads(kcompiler("inspect", work / "model.onnx", "--json").stdout)
    assert report["redundancy_tight"] >= 1
    assert json.loads(kcompiler("inspect", work / "model.kc", "--json").stdout)["largest_error"] is not None


def test_inspect_of_a_bundle_takes_nothing_that_it_was_compiled_for(work):
    done = kcompiler("inspect", work / "model.kc", "--patch", "9", code=2)
    assert "is a bundle, and its report is of what it was compiled for; leave out --patch" in " ".join(done.stderr.split())


def test_inspect_draws_several_models(work, tmp_path):
    save("residual", tmp_path / "other.onnx", 24, 28)
    picture = tmp_path / "regions.png"
    arguments = ("inspect", work / "model.onnx", tmp_path / "other.onnx", "--patch", "5", "--picture", picture)
    done = kcompiler(*arguments)
    assert "redundancy R by patch" in done.stdout
    assert "dense from" in done.stdout
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    assert "--force" in kcompiler(*arguments, code=2).stderr
    reports = json.loads(kcompiler(*arguments, "--force", "--json").stdout)
    assert set(reports) == {"model.onnx", "other.onnx"}
    assert [one["patch"] for one in reports["other.onnx"]["redundancies"]] == [4, 8, 16]
    assert "ends in .png" in kcompiler("inspect", work / "model.onnx", "--picture", tmp_path / "a.txt", code=2).stderr


def test_explain_writes_map_overlay_and_record(work, tmp_path):
    out = tmp_path / "maps"
    done = kcompiler(
        "explain", work / "model.kc", work / "picture.png", "-o", out, "--stride", "3", "--target", "c", "--fill", "128"
    )
    assert "picture.npy" in done.stdout
    scores = np.load(out / "picture.npy")
    assert scores.shape == (7, 8)
    assert scores.dtype == np.float32
    record = json.loads((out / "picture.json").read_text())
    assert record["label"] == "c"
    assert record["settings"]["stride"] == [3, 3]
    assert len(record["settings"]["model_sha256"]) == 64
    assert record["settings"]["fill_model_units"] == pytest.approx(Preprocessing(**RECIPE).fill((128.0,)))
    assert "onnxruntime" in record["machine"]["versions"]
    assert isinstance(record["seconds"], float)
    assert (out / "picture.png").is_file()


def test_explain_takes_arrays(work, tmp_path):
    array = np.random.default_rng(0).standard_normal((3, 24, 28), dtype=np.float32)
    np.save(tmp_path / "array.npy", array)
    kcompiler(
        "explain", work / "model.kc", tmp_path / "array.npy", "-o", tmp_path / "out", "--region", "0,0,12,14", "--stride", "2"
    )
    assert np.load(tmp_path / "out" / "array.npy").shape == (4, 5)


def test_explain_takes_strides_edges_channels_and_named_fills(work, tmp_path):
    bundle, picture = work / "model.kc", work / "picture.png"
    kcompiler(
        "explain", bundle, picture, "-o", tmp_path / "a", "--stride", "5x8", "--edges", "cut", "--channel", "1", "--fill", "blur"
    )
    assert np.load(tmp_path / "a" / "picture.npy").shape == (5, 4)
    settings = json.loads((tmp_path / "a" / "picture.json").read_text())["settings"]
    assert (settings["stride"], settings["edges"], settings["channel"], settings["fill_model_units"]) == (
        [5, 8],
        "cut",
        1,
        "blur",
    )
    kcompiler("explain", bundle, picture, "-o", tmp_path / "b", "--stride", "6", "--fill", picture)
    covered_by_itself = np.load(tmp_path / "b" / "picture.npy")
    assert np.ptp(covered_by_itself) < 1e-4
    done = kcompiler("explain", bundle, picture, "-o", tmp_path / "c", "--fill", "rainbow", code=2)
    assert "rainbow" in done.stderr


def test_explain_writes_maps_of_the_largest_outputs(work, tmp_path):
    kcompiler("explain", work / "model.kc", work / "picture.png", "-o", tmp_path / "out", "--stride", "6", "--top", "2")
    records = sorted((tmp_path / "out").glob("*.json"))
    assert len(records) == 2
    assert len({json.loads(record.read_text())["target"] for record in records}) == 2
    again = (
        "explain",
        work / "model.kc",
        work / "picture.png",
        "-o",
        tmp_path / "out",
        "--stride",
        "6",
        "--top",
        "2",
        "--resume",
    )
    written = [record.stat().st_mtime_ns for record in records]
    assert "complete already" in kcompiler(*again).stdout
    assert [record.stat().st_mtime_ns for record in records] == written
    scores = np.load(records[0].with_suffix(".npy"))
    part = HeatMap.load(records[0])
    sampled = np.arange(scores.size).reshape(scores.shape) % 2 == 0
    partial = replace(part, sampled=sampled, complete=False, scores=np.where(sampled, scores, np.float32(np.nan)))
    details = {key: json.loads(records[0].read_text())[key] for key in ("settings", "machine")}
    partial.save(tmp_path / "out", records[0].stem, details=details, force=True)
    assert "complete already" not in kcompiler(*again).stdout
    np.testing.assert_allclose(np.load(records[0].with_suffix(".npy")), scores, rtol=1e-4, atol=1e-5)
    done = kcompiler(*again[:-2], "3", "--resume", code=2)
    assert "is of other settings" in done.stderr


@pytest.mark.parametrize(("tool", "shape"), [("captum", (3, 24, 28)), ("monai", (1, 5, 24, 28)), ("xplique", (24, 28))])
def test_explain_makes_maps_as_other_tools_do(work, tmp_path, tool, shape):
    bundle, picture = work / "model.kc", work / "picture.png"
    kcompiler("explain", bundle, picture, "-o", tmp_path / "out", "--stride", "3", "--compat", tool)
    assert np.load(tmp_path / "out" / "picture.npy").shape == shape
    assert json.loads((tmp_path / "out" / "picture.json").read_text())["compat"] == tool
    done = kcompiler("explain", bundle, picture, "-o", tmp_path / "no", "--compat", tool, "--edges", "cut", code=2)
    assert "has its own rules" in done.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("step", ["1", "2", "3", "4", "5"])
def test_monai_steps_by_the_stride_asked_for(step):
    """Whatever binary fractions make of one less step over side."""
    mode, overlap = as_monai_says(Request(stride=int(step)), (5, 5))
    assert (mode, int(5 * (1 - overlap))) == ("gaussian", int(step))


def test_fill_that_is_no_file_says_so(work, tmp_path):
    done = kcompiler("explain", work / "model.kc", work / "picture.png", "-o", tmp_path / "out", "--fill", "nosuch.png", code=2)
    assert "'nosuch.png', expected a pixel value" in " ".join(done.stderr.split())
    assert "picture file that exists" in " ".join(done.stderr.split())


def test_what_monai_cannot_do_is_refused(work, tmp_path):
    bundle, picture = work / "model.kc", work / "picture.png"
    for arguments, message in (
        (("--stride", "3x2"), "one overlap"),
        (("--fill", picture), "covers with a bell"),
        (("--fill", "10,20,30"), "covers with one number"),
        (("--top", "2"), "leave out --top"),
    ):
        done = kcompiler("explain", bundle, picture, "-o", tmp_path / "out", "--compat", "monai", *arguments, code=2)
        assert message in done.stderr


def test_explain_refuses_to_overwrite(work, tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    done = kcompiler("explain", work / "model.kc", work / "picture.png", "-o", tmp_path, code=2)
    assert "not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["keep.txt"]
    kcompiler("explain", work / "model.kc", work / "picture.png", "-o", tmp_path, "--stride", "8", "--force")
    assert (tmp_path / "keep.txt").read_text() == "mine"


def test_explain_resumes_what_was_interrupted(work, tmp_path):
    arguments = ("explain", work / "model.kc", work / "picture.png", "-o", tmp_path / "out", "--stride", "2")
    kcompiler(*arguments)
    record = json.loads((tmp_path / "out" / "picture.json").read_text())
    complete = HeatMap.load(tmp_path / "out" / "picture.json")
    scores = complete.scores
    partial = np.where(np.arange(len(scores))[:, None] < 4, scores, np.float32(np.nan))
    interrupted = replace(complete, scores=partial, sampled=~np.isnan(partial), complete=False)
    settings = {name: value for name, value in record.items() if name not in interrupted.record()}
    interrupted.save(tmp_path / "out", "picture", details=settings, force=True)
    done = kcompiler(*arguments, "--resume")
    assert "positions in" in done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "out" / "picture.npy"), scores, rtol=1e-4, atol=1e-5)
    assert "complete already" in kcompiler(*arguments, "--resume").stdout
    done = kcompiler(*arguments[:-1], "3", "--resume", code=2)
    assert "other settings" in done.stderr


def test_results_never_replace_what_is_explained(work, tmp_path):
    picture = tmp_path / "p.png"
    picture.write_bytes((work / "picture.png").read_bytes())
    for option in ("--resume", "--force"):
        done = kcompiler("explain", work / "model.kc", picture, "-o", tmp_path, option, code=2)
        assert "would be overwritten" in done.stderr
    assert picture.read_bytes() == (work / "picture.png").read_bytes()
    other = tmp_path / "q.png"
    other.write_bytes(b"mine")
    array = tmp_path / "in" / "q.npy"
    array.parent.mkdir()
    np.save(array, np.zeros((3, 24, 28), np.float32))
    done = kcompiler("explain", work / "model.kc", array, "-o", tmp_path, "--resume", code=2)
    assert "q.png: exists already" in done.stderr
    assert other.read_bytes() == b"mine"


def test_force_never_replaces_the_model(work, tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes((work / "model.onnx").read_bytes())
    done = kcompiler("compile", model, "-o", model, "--force", code=2)
    assert "will not be replaced" in done.stderr
    assert model.read_bytes() == (work / "model.onnx").read_bytes()


BAD = {
    "model is no file": (["compile", "absent.onnx"], 3, "absent.onnx: no such file"),
    "model is no onnx": (["compile", "recipe.json"], 3, "recipe.json: not an ONNX file"),
    "patch too large": (["compile", "model.onnx", "-o", "x.kc", "--patch", "25"], 2, "does not fit the image"),
    "patch no number": (["compile", "model.onnx", "-o", "x.kc", "--patch", "big"], 2, "--patch is 'big'"),
    "input shape no numbers": (["compile", "model.onnx", "-o", "x.kc", "--input-shape", "3,a"], 2, "--input-shape"),
    "recipe absent": (
        ["compile", "model.onnx", "-o", "x.kc", "--preprocessing", "absent.json"],
        2,
        "absent.json: no such file",
    ),
    "no such command": (["frobnicate"], 2, "frobnicate"),
    "stride zero": (["explain", "model.kc", "picture.png", "-o", "x", "--stride", "0"], 2, "stride is 0"),
    "fill no colour": (["explain", "model.kc", "picture.png", "-o", "x", "--fill", "red"], 2, "--fill is 'red'"),
    "region outside": (["explain", "model.kc", "picture.png", "-o", "x", "--region", "0,0,99,99"], 2, "inside the image"),
    "region incomplete": (["explain", "model.kc", "picture.png", "-o", "x", "--region", "0,0"], 2, "--region"),
    "target unknown": (["explain", "model.kc", "picture.png", "-o", "x", "--target", "dog"], 2, "'dog' names 0 outputs"),
    "picture absent": (["explain", "model.kc", "absent.png", "-o", "x"], 3, "absent.png: no such file"),
    "picture unreadable": (["explain", "model.kc", "recipe.json", "-o", "x"], 3, "recipe.json: not a readable picture"),
    "second picture unreadable": (["explain", "model.kc", "picture.png", "recipe.json", "-o", "x"], 3, "recipe.json"),
    "same names": (["explain", "model.kc", "picture.png", "./picture.png", "-o", "x"], 2, "'picture'"),
    "bundle absent": (["explain", "absent.kc", "picture.png", "-o", "x"], 3, "absent.kc: not a compiled bundle"),
    "cuda absent": (["check", "model.kc", "--provider", "cuda"], 3, "CUDAExecutionProvider was asked for"),
    "threads zero": (["check", "model.kc", "--threads", "0"], 2, "threads is 0"),
    "threads absurd": (["check", "model.kc", "--threads", "99999999999"], 2, "threads is 99999999999"),
    "bundle below a file": (["compile", "model.onnx", "-o", "recipe.json/x.kc"], 2, "cannot be written"),
    "bench against nobody": (["bench", "model.kc", "--against", "keras"], 2, "keras is not known"),
    "bench against no module": (["bench", "model.kc", "--against", "torch"], 2, "needs --torch-module"),
    "bench against a missing module": (
        ["bench", "model.kc", "--against", "torch", "--torch-module", "nothing.here:make"],
        2,
        "expected package.module:function",
    ),
    "bench of a bundle for another patch": (["bench", "model.kc", "--patch", "3"], 2, "is compiled already"),
    "out is a file": (["explain", "model.kc", "picture.png", "-o", "recipe.json"], 2, "is a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_written(case, work):
    arguments, code, message = BAD[case]
    before = sorted(work.rglob("*"))
    done = kcompiler(*arguments, code=code, cwd=work)
    assert message in " ".join(done.stderr.split())
    assert sorted(work.rglob("*")) == before


def test_bench_prints_a_table_and_json(work):
    arguments = ("bench", work / "model.kc", "--positions", "20", "--rounds", "1")
    assert "speed-up" in kcompiler(*arguments).stdout
    (result,) = json.loads(kcompiler(*arguments, "--json").stdout)
    assert result["agrees"]
    assert result["speedup"] > 0
    assert set(result["full"]) == {"1", "2", "4", "8", "16"}
    assert 1e7 < result["memory_compiled"]["private"] < result["memory_compiled"]["peak"] < 2e9


def test_bench_over_patches_and_strides_with_a_profile(work):
    arguments = ("bench", work / "model.onnx", "--patch", "3", "--patch", "4x6", "--stride", "2", "--stride", "5")
    done = kcompiler(*arguments, "--rounds", "1", "--positions", "20", "--no-memory", "--profile", "--json")
    results = json.loads(done.stdout)
    assert [(tuple(one["patch"]), one["stride"]) for one in results] == [((3, 3), 2), ((3, 3), 5), ((4, 6), 2), ((4, 6), 5)]
    assert all(one["drill_down"] > 0 and one["gemm_peak"] > 0 and one["memory_full"] is None for one in results)
    assert "ms a position" in done.stderr


def test_bench_against_pytorch(work):
    (work / "network.py").write_text("import torch\n\ndef make():\n    return torch.nn.Conv2d(3, 2, 3)\n")
    arguments = ("bench", work / "model.kc", "--rounds", "1", "--positions", "20", "--no-memory", "--json", "--against", "torch")
    (result,) = json.loads(kcompiler(*arguments, "--torch-module", "network:make", cwd=work).stdout)
    assert result["against"]["torch"] > 0


def test_bench_of_fewer_positions_than_a_batch(work):
    arguments = ("bench", work / "model.onnx", "--patch", "20", "--stride", "3", "--rounds", "1", "--json")
    (result,) = json.loads(kcompiler(*arguments).stdout)
    assert result["positions"] == 6


@pytest.fixture(scope="module")
def calibration(work):
    """A folder with calibration pictures: smooth waves."""
    folder = work / "calibration"
    folder.mkdir()
    y, x = np.mgrid[0:48, 0:56] / 9
    for seed in range(6):
        rng = np.random.default_rng(seed)
        waves = [np.sin(rng.normal() * y + rng.normal() * x + 6 * rng.random()) for _ in range(3)]
        pixels = np.rint(np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def tuned(work, calibration):
    bundle = work / "tuned.kc"
    kcompiler(
        "compile", work / "model.onnx", "-o", bundle, "--patch", "5", "--preprocessing", work / "recipe.json", "--tau", "0.2"
    )
    done = kcompiler(
        "tune", bundle, "--images", calibration, "--ssim", "0.5", "--share", "0.5", "--confidence", "0.6", "--stride", "1"
    )
    return bundle, done


def test_tune_shows_what_was_tried_and_writes_the_plan(tuned):
    bundle, done = tuned
    assert "taken: " in done.stdout
    assert "of 3 that chose" in done.stdout
    assert "of 3 held out" in done.stdout
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d exact maps: 3 of 3$", done.stderr, re.MULTILINE)
    assert re.search(r" exact maps to judge by: 3 of 3$", done.stderr, re.MULTILINE)
    (plan,) = json.loads((bundle / "manifest.json").read_text())["tuned"]
    assert plan["ssim"] == 0.5
    assert plan["evidence"]["images"] == 6
    assert len(list(bundle.with_name("tuned.kc.tuning").glob("*.npy"))) == 6


def test_tune_takes_maps_that_are_there(tuned, calibration):
    bundle, _ = tuned
    before = {path.name: path.stat().st_mtime_ns for path in bundle.with_name("tuned.kc.tuning").iterdir()}
    kcompiler("tune", bundle, "--images", calibration, "--ssim", "0.6", "--share", "0.5", "--confidence", "0.6", "--stride", "1")
    assert before == {path.name: path.stat().st_mtime_ns for path in bundle.with_name("tuned.kc.tuning").iterdir()}
    assert len(json.loads((bundle / "manifest.json").read_text())["tuned"]) == 2


def test_tune_says_when_there_are_too_few_images_for_a_promise(work, calibration, tmp_path):
    done = kcompiler(
        "tune", work / "model.kc", "--images", calibration, "--ssim", "0.3", "--stride", "1", "--work", tmp_path / "maps"
    )
    assert (
        "NOT promised: that takes 35 images at least, 29 of them held out" in done.stdout
        or "exact maps will be used" in done.stdout
    )


def test_tuning_adds_its_steps_to_a_log(tuned, calibration, tmp_path):
    bundle, _ = tuned
    (tmp_path / "tune.log").write_text("of yesterday\n")
    settings = ("--ssim", "0.6", "--share", "0.5", "--confidence", "0.6", "--stride", "1")
    done = kcompiler("tune", bundle, "--images", calibration, *settings, "--log", tmp_path / "tune.log")
    first, *steps, last = (tmp_path / "tune.log").read_text().splitlines()
    assert first == "of yesterday"
    assert steps == done.stderr.splitlines()
    assert last.split(" ", 2)[2] in done.stdout
    done = kcompiler("tune", bundle, "--images", calibration, "--log", tmp_path / "absent" / "tune.log", code=2)
    assert "cannot be written (No such file or directory); name a file in a folder that exists" in done.stderr


def test_a_model_that_runs_whole_says_what_is_left(work, calibration, tmp_path):
    save("unknown_in_the_middle", tmp_path / "model.onnx", 24, 28)
    arguments = ("--patch", "5", "--preprocessing", work / "recipe.json", "--tau", "0.5")
    done = kcompiler("compile", tmp_path / "model.onnx", *arguments)
    assert "only sampling the positions can make its maps faster ('kcompiler tune')" in done.stdout
    settings = ("--ssim", "0.5", "--share", "0.5", "--confidence", "0.6", "--stride", "1")
    done = kcompiler("tune", tmp_path / "model.kc", "--images", calibration, *settings)
    assert "kriging, step 6" in done.stdout
    assert "drill-down, step 2, exact" in done.stdout
    assert "plans evaluate part of the positions, each by full inference" in done.stdout
    assert "compile --approximate" not in done.stdout


def test_where_no_plan_serves_tuning_chooses_exact_maps_and_says_so(work, calibration, tmp_path):
    bundle = tmp_path / "model.kc"
    shutil.copytree(work / "model.kc", bundle)
    done = kcompiler("tune", bundle, "--images", calibration, "--ssim", "1", "--stride", "2")
    assert "exact maps will be used" in done.stdout
    kcompiler("explain", bundle, work / "picture.png", "-o", tmp_path / "maps", "--stride", "2", "--quality", "1")
    assert json.loads((tmp_path / "maps" / "picture.json").read_text())["exact"]


def test_explain_by_quality_and_budget_says_what_it_did(tuned, work, tmp_path):
    bundle, _ = tuned
    plans = {one["ssim"]: one["plan"] for one in json.loads((bundle / "manifest.json").read_text())["tuned"]}
    done = kcompiler("explain", bundle, work / "picture.png", "-o", tmp_path / "maps", "--stride", "1", "--quality", "0.5")
    record = json.loads((tmp_path / "maps" / "picture.json").read_text())
    assert record["plan"] in plans.values()
    if not record["exact"]:
        assert "positions by the variant" in done.stdout
        assert record["evaluated"] == len(record["sampled"]) < len(record["ys"]) * len(record["xs"])
    kcompiler("explain", bundle, work / "picture.png", "-o", tmp_path / "early", "--stride", "1", "--budget", "0.000001")
    early = json.loads((tmp_path / "early" / "picture.json").read_text())
    assert not early["complete"]
    assert np.isfinite(np.load(tmp_path / "early" / "picture.npy")).all()
    done = kcompiler("explain", bundle, work / "picture.png", "-o", tmp_path / "none", "--quality", "0.99", code=2)
    assert "run 'kcompiler tune'" in done.stderr
    done = kcompiler("explain", bundle, work / "picture.png", "-o", tmp_path / "none", "--quality", "fine", code=2)
    assert "expected 'exact' or an SSIM" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--ssim", "0"), 2, "ssim is 0"),
        (("--ssim", "1.5"), 2, "ssim is 1.5"),
        (("--share", "1"), 2, "share is 1"),
        (("--images", "absent"), 2, "absent: is no folder"),
        (("--images", "one"), 2, "1 calibration images, expected at least 2"),
        (("--images", "wrong"), 3, "b.npy"),
    ],
)
def test_tune_refuses_what_it_cannot_do(work, calibration, tmp_path, arguments, code, message):
    for name in ("one", "wrong"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes((calibration / "0.png").read_bytes())
    np.save(tmp_path / "wrong" / "b.npy", np.zeros((3, 5, 5), np.float32))
    images = () if "--images" in arguments else ("--images", calibration)
    before = (work / "model.kc" / "manifest.json").read_bytes()
    done = kcompiler("tune", work / "model.kc", *images, *arguments, code=code, cwd=tmp_path)
    assert message in done.stderr
    assert (work / "model.kc" / "manifest.json").read_bytes() == before
