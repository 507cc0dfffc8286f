"""Killed at every operation on files: what is there afterwards is the old or the new, and the next run leaves nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import DEAD, Ran, Server, copied, laid_out, snapshot, temporary

from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.manifest_file import read_manifest
from kcompiler.runtime.maps.stored import is_whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
EXPLAIN = ("explain", "m.kc", "scans/0.png", "-o", "maps", "--stride", "12")
FOLDER = ("explain", "m.kc", "scans", "-o", "maps", "--stride", "12")
COMPILE = ("compile", "model.onnx", "-o", "new.kc", "--patch")
EXPORT = ("export", "m.kc", "-o", "out", "--stride")
TUNE = ("tune", "m.kc", "--images", "scans", "--stride", "8", "--target", "0", "--ssim", "0.5")


@pytest.fixture(scope="module")
def server():
    started = Server()
    yield started
    started.close()


@pytest.fixture(scope="module")
def base(bundle, tmp_path_factory):
    return laid_out(bundle, tmp_path_factory.mktemp("dying") / "base", pictures=3)


@pytest.fixture
def work(base, tmp_path):
    return copied(base, tmp_path / "work")


def run(server: Server, folder: Path, *command: object) -> Ran:
    ran = server.run(folder, *command)
    assert ran.code == 0, ran.said
    assert temporary(folder) == []
    return ran


def deaths(server: Server, before: Path, *command: object) -> Iterator[Path]:
    """The folder after each death of a command, from that of the first operation to that of the last."""
    folder = before.parent / "died"
    total = run(server, copied(before, folder), *command).operations
    assert total > 10, "the operations are seen"
    for number in range(total):
        assert server.run(copied(before, folder), *command, at=number).code == DEAD, number
        yield folder


def visible(folder: Path) -> dict[str, bytes]:
    """Files by path but for temporary ones, and for what differs from call to call: seconds, in the records of maps."""
    files = {name: data for name, data in snapshot(folder).items() if ".writing-" not in name and not name.startswith("tmp/")}
    for name in files:
        if name.endswith(".json") and isinstance(content := json.loads(files[name]), dict) and "seconds" in content:
            files[name] = json.dumps({**content, "seconds": 0}).encode()
    return files


def check_maps(folder: Path, *states: dict[str, bytes]) -> None:
    """Every map that has a record is one of ``states``, whole."""
    found = visible(folder)
    for name in (name for name in found if name.endswith(".json")):
        stem = name.removesuffix(".json")
        of_map = {other: data for other, data in found.items() if other.startswith(f"{stem}.")}
        assert of_map in [{other: state[other] for other in state if other.startswith(f"{stem}.")} for state in states], name
        assert is_whole(folder / name)


def check_settled(folder: Path, *states: dict[str, bytes]) -> None:
    """Whoever looks next finds one of ``states``, and nothing else."""
    recover(folder / "maps")
    assert visible(folder / "maps") in states
    assert temporary(folder / "maps") == []


@pytest.mark.parametrize(
    ("earlier", "files"), [((), ()), (("save-map", 1, ".nii.gz", ".dcm"), (".dcm", ".seg.nrrd")), (("save-map", 1, ".dcm"), ())]
)
def test_a_map_is_the_old_or_the_new(server, work, earlier, files):
    """Also with other files than before, of which none is left beside the record of others."""
    (work / "maps").mkdir()
    old = visible(work / "maps")
    if earlier:
        run(server, work, *earlier)
        old = visible(work / "maps")
    new = visible(_made(server, work, "save-map", 2, *files) / "maps")
    for folder in deaths(server, work, "save-map", 2, *files):
        check_maps(folder / "maps", old, new)
        check_settled(folder, old, new)
        run(server, folder, "save-map", 2, *files)
        assert visible(folder / "maps") == new


def test_a_bundle_is_the_old_or_the_new(server, work, base):
    new = visible(base / "m.kc")
    for earlier in (False, True):
        if earlier:
            run(server, work, "save-bundle", "m.kc", "new.kc")
            run(server, work, "add-tuned", "new.kc", "0.75")
        old = visible(work / "new.kc") if earlier else {}
        for folder in deaths(server, work, "save-bundle", "m.kc", "new.kc"):
            if earlier:
                assert read_manifest(folder / "new.kc").tuned in ((), read_manifest(work / "new.kc").tuned)
            recover(folder)
            assert visible(folder / "new.kc") in (old, new)
            run(server, folder, "save-bundle", "m.kc", "new.kc")
            assert visible(folder / "new.kc") == new


def test_a_plan_is_in_the_bundle_or_not(server, work):
    run(server, work, "add-tuned", "m.kc", "0.75")
    ways = [[0.75], [0.75, 0.5]]
    for folder in deaths(server, work, "add-tuned", "m.kc", "0.5"):
        assert [plan.ssim for plan in read_manifest(folder / "m.kc").tuned] in ways
        run(server, folder, "add-tuned", "m.kc", "0.5")
        assert [plan.ssim for plan in read_manifest(folder / "m.kc").tuned] == ways[1]


def finished(folder: Path) -> dict[Path, int]:
    """Scores of maps that are whole, with their times of writing."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.npy") if is_whole(path.with_suffix(".json"))}


def _made(server: Server, work: Path, *command: object) -> Path:
    """A copy of a folder in which a command was run to its end."""
    made = copied(work, work.parent / "made")
    run(server, made, *command)
    return made


def test_explain_force_leaves_the_old_map_or_the_new(server, work):
    run(server, work, *EXPLAIN)
    command = (*EXPLAIN, "--force", "--target", "1")
    old, new = visible(work / "maps"), visible(_made(server, work, *command) / "maps")
    assert old["0.npy"] != new["0.npy"]
    for number, folder in enumerate(deaths(server, work, *command)):
        check_maps(folder / "maps", old, new)
        if number % 3:  # in turn: who looks finds one of them; the next call goes on
            check_settled(folder, old, new)
        else:
            run(server, folder, *command, "--resume")
            assert visible(folder / "maps") == new


@pytest.mark.slow
@pytest.mark.parametrize("command", [EXPLAIN, FOLDER], ids=["a picture", "a folder"])
def test_explain_is_resumed(server, work, command):
    new = visible(_made(server, work, *command) / "maps")
    for folder in deaths(server, work, *command):
        (folder / "maps").mkdir(exist_ok=True)
        check_maps(folder / "maps", new)
        complete = {
            path: path.stat().st_mtime_ns for path in (folder / "maps").glob("*.npy") if is_whole(path.with_suffix(".json"))
        }
        run(server, folder, *command, "--resume")
        assert visible(folder / "maps") == new
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in complete.items()), "nothing is made twice"


@pytest.mark.slow
def test_explain_resume_is_resumed(server, work):
    """A folder in which one map is whole, one has an altered picture, one is absent."""
    run(server, work, *FOLDER)
    new = visible(work / "maps")
    for path in (work / "maps").glob("2.*"):
        path.unlink()
    (work / "maps" / "1.png").write_bytes(b"altered")
    for folder in deaths(server, work, *FOLDER, "--resume"):
        run(server, folder, *FOLDER, "--resume")
        assert visible(folder / "maps") == new


@pytest.mark.slow
def test_explain_force_of_a_folder_is_resumed(server, work):
    run(server, work, *FOLDER)
    command = (*FOLDER, "--force", "--target", "1")
    old, new = visible(work / "maps"), visible(_made(server, work, *command) / "maps")
    for folder in deaths(server, work, *command):
        check_maps(folder / "maps", old, new)
        run(server, folder, *command, "--resume")
        assert visible(folder / "maps") == new


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
def test_compile_writes_the_bundle_or_not(server, work, force):
    """In the temporary folder and beside the target."""
    if force:
        run(server, work, *COMPILE, 5)
    for folder in deaths(server, work, *COMPILE, 4, "--force"):
        recover(folder)
        if force or (folder / "new.kc").exists():
            assert read_manifest(folder / "new.kc").patch in ((4, 4), *([(5, 5)] if force else []))
        run(server, folder, *COMPILE, 4, "--force")
        assert read_manifest(folder / "new.kc").patch == (4, 4)


@pytest.mark.slow
def test_export_writes_the_model_or_not(server, work):
    run(server, work, *EXPORT, 12)
    old, new = visible(work / "out"), visible(_made(server, work, *EXPORT, 8, "--force") / "out")
    for folder in deaths(server, work, *EXPORT, 8, "--force"):
        recover(folder)
        assert visible(folder / "out") in (old, new)
        run(server, folder, *EXPORT, 8, "--force")
        assert visible(folder / "out") == new


@pytest.mark.slow
def test_tune_keeps_its_maps(server, work):
    for folder in deaths(server, work, *TUNE):
        complete = {
            path: path.stat().st_mtime_ns for path in folder.glob("m.kc.tuning/*.npy") if is_whole(path.with_suffix(".json"))
        }
        assert len(read_manifest(folder / "m.kc").tuned) in (0, 1)
        run(server, folder, *TUNE)
        assert len(read_manifest(folder / "m.kc").tuned) == 1
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in complete.items()), "nothing is made twice"


@pytest.mark.slow
def test_a_report_is_the_old_or_the_new(server, work):
    run(server, work, *EXPLAIN, "--html", "report.html")
    (old,) = (visible(work)[name] for name in ("report.html",))
    command = (*EXPLAIN, "--force", "--target", "1", "--html", "report.html")
    new = visible(_made(server, work, *command))["report.html"]
    for folder in deaths(server, work, *command):
        assert visible(folder)["report.html"][:2000] in (old[:2000], new[:2000])
        run(server, folder, *command)
