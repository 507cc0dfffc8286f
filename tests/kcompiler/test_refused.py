"""What the system refuses is an error in a line, which names a file, and leaves nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dying import Ran, Server, copied, laid_out, snapshot, temporary
from PIL import Image

import kcompiler
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.manifest_file import read_manifest
from kcompiler.runtime.maps.stored import is_whole

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and file systems of Linux")
EXPLAIN = ("explain", "m.kc", "scans/0.png", "--stride", "12", "--force", "-o")
FOLDER = ("explain", "m.kc", "scans", "--stride", "12", "-o")
COMPILE = ("compile", "model.onnx", "--patch", "4", "--force", "-o")
TUNE = ("tune", "m.kc", "--images")
LONG = "n" * 300
MANY = 1 << 20


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def server():
    started = Server()
    yield started
    started.close()


@pytest.fixture
def work(bundle, tmp_path):
    return laid_out(bundle, tmp_path / "work", pictures=2)


def refused(ran: Ran, *codes: int) -> str:
    """The error of a command that ends with one of these codes: a line."""
    assert ran.code in codes, ran.said
    assert "Traceback" not in ran.said
    *_, error = ran.said.rstrip("\n").replace("\r", "\n").split("\n")
    assert error.startswith("error: "), ran.said
    return error


@pytest.fixture
def disk(tmp_path):
    """A file system of 16 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(server, work, disk):
    for command, name in ((COMPILE, "m.kc"), (EXPLAIN, "maps"), (("export", "m.kc", "-o"), "out")):
        assert f"{disk / name}" in (error := refused(server.run(work, *command, disk / name), 2))
        assert "No space left on device" in error
        assert snapshot(disk) == {}
    error = refused(server.run(work, "inspect", "m.kc", "--picture", disk / "p.png"), 2)
    assert error.startswith(f"error: {disk / 'p.png'}: cannot be written (No space left on device)")
    assert "2 failed" in server.run(work, *FOLDER, disk / "maps").said
    assert sorted(snapshot(disk)) == ["maps/failed.json", "maps/failed.txt"]


def test_a_full_disk_for_temporary_files(server, work, disk):
    for command in ((*COMPILE, "new.kc"), ("export", "m.kc", "-o", "out"), ("inspect", "model.onnx")):
        assert f"error: {disk}/kcompiler-" in (error := refused(server.run(work, *command, tmp=str(disk)), 3))
        assert "set TMPDIR" in error
        assert list(disk.iterdir()) == []
    assert not (work / "new.kc").exists()


def test_a_full_disk_under_a_server(work, disk, monkeypatch):
    """Of a page's picture, and of the files that it saves."""
    from kcompiler.runtime.request import Request
    from kcompiler.serving.pictures import read_subject
    from kcompiler.serving.saving import Made, archive

    explainer = kcompiler.load(work / "m.kc")
    picture, large = work / "scans" / "0.png", work / "large.png"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(large)
    with pytest.raises(kcompiler.UsageError, match="No space left on device"):
        read_subject(explainer, disk, "large.png", large.read_bytes())
    subject = read_subject(explainer, work, "0.png", picture.read_bytes())
    made = Made(explainer, explainer.explain(subject.tensor, stride=12), subject, Request(stride=12))
    assert archive([made]).startswith(b"PK")
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    with pytest.raises(kcompiler.KCompilerError, match="No space left on device"):
        archive([made])
    assert list(disk.iterdir()) == []


def test_a_read_only_disk(server, work, disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    export, inspect = ("export", "m.kc", "-o"), ("inspect", "m.kc", "--picture")
    for command in (COMPILE, EXPLAIN, FOLDER, export, inspect):
        assert f"{disk}: cannot be written" in refused(server.run(work, *command, disk / "new.png"), 2)
    assert f"error: {disk}/kcompiler-" in refused(server.run(work, *COMPILE, "new.kc", tmp=str(disk)), 3)


@pytest.mark.parametrize(
    "command",
    [
        (*EXPLAIN, LONG), (*COMPILE, LONG), ("export", "m.kc", "-o", LONG), ("inspect", "m.kc", "--picture", f"{LONG}.png"),
        ("compile", LONG), ("inspect", LONG), ("explain", "m.kc", LONG, "-o", "maps"), ("explain", LONG, "scans", "-o", "maps"),
        (*EXPLAIN, "maps", "--html", LONG), (*TUNE, LONG), (*TUNE, "scans", "--work", LONG), (*TUNE, "scans", "--log", LONG),
    ],
)  # fmt: skip
def test_a_name_that_is_too_long(server, work, command):
    assert LONG in (error := refused(server.run(work, *command), 2))
    assert "File name too long" in error
    assert temporary(work) == []


@pytest.mark.parametrize("most", [0, 100, 1000])
def test_a_limit_of_file_size(server, work, most):
    assert "error: maps/0." in (error := refused(server.run(work, *EXPLAIN, "maps", FSIZE=most), 2))
    assert "ulimit -f" in error
    assert "a temporary file cannot be written" in refused(server.run(work, *COMPILE, "new.kc", FSIZE=most), 3)
    assert snapshot(work / "maps") == {}
    assert temporary(work) == []
    assert not (work / "new.kc").exists()


def test_a_limit_of_open_files(server, work):
    """Folders that cannot be removed for want of a handle are removed by the next call."""
    for most in range(6, 12, 2):
        for command in ((*EXPLAIN, "maps"), (*COMPILE, "new.kc")):
            assert "Too many open files" in (said := refused(server.run(work, *command, NOFILE=most), 2, 3)) or "TMPDIR" in said
    assert not (work / "new.kc").exists()
    for command in ((*EXPLAIN, "maps"), (*COMPILE, "new.kc")):
        assert server.run(work, *command).code == 0
    assert temporary(work) == []
    assert is_whole(work / "maps" / "0.json")


@pytest.mark.parametrize("more", [4 * MANY, 16 * MANY])
def test_a_limit_of_memory(server, work, more):
    """Native code may crash; all the same nothing is left after the next call."""
    for command in ((*EXPLAIN, "maps"), (*COMPILE, "new.kc")):
        ran = server.run(work, *command, AS=more)
        assert ran.code <= 0 or "memory" in refused(ran, 3), ran.said
    for command in ((*EXPLAIN, "maps"), (*COMPILE, "new.kc")):
        assert server.run(work, *command).code == 0
    assert temporary(work) == []


@pytest.mark.parametrize("kind", ["full", "closed", "gone"])
def test_standard_output_and_error_that_cannot_be_written(server, work, kind):
    """The maps are made all the same; a full device is an error, a reader that went away ends it as it does other programs."""
    code = {"full": 3, "closed": 0, "gone": 141}[kind]
    for streams in ({"out": kind}, {"error": kind}, {"out": kind, "error": kind}):
        ran = server.run(work, *EXPLAIN[:-1], "-o", "maps", **streams)
        assert ran.code == (code if "out" in streams else 0), ran.said
        assert is_whole(work / "maps" / "0.json")
        assert ("error: standard output: cannot be written (No space" in ran.said) == (streams == {"out": "full"})
        shutil.rmtree(work / "maps")
    assert server.run(work, "inspect", "m.kc", out=kind).code == code
    assert server.run(work, "inspect", "absent.onnx", out=kind, error=kind).code == 3, "the code of an error stays"


def results(folder: Path) -> dict[str, bytes]:
    """The files of maps and of a bundle, but for the seconds that they took."""
    found = {name: data for name, data in snapshot(folder).items() if name.startswith(("maps/", "new.kc/"))}
    return {name: re.sub(rb'"seconds": [^,]*', b"", data) for name, data in found.items()}


def refusals(server: Server, before: Path, how: str, every: int, *command: object) -> None:
    """Every operation of a command is refused in turn, and all after it."""
    folder = before.parent / "refused"
    total = server.run(copied(before, folder), *command).operations
    old, new = results(before), results(folder)
    for number in range(0, total, every):
        ran = server.run(copied(before, folder), *command, at=number, how=how)
        if ran.code:
            refused(ran, 2, 3)
        recover(folder)
        recover(folder / "maps")
        assert results(folder) in ([old, new] if ran.code else [new]), number
        assert server.run(folder, *command).code == 0
        assert temporary(folder) == []


@pytest.mark.parametrize(("how", "every"), [("full", 12), slow("full", 1), slow("read-only", 1)])
def test_every_operation_of_explain_is_refused(server, work, how, every):
    assert server.run(work, *EXPLAIN, "maps").code == 0
    refusals(server, work, how, every, *EXPLAIN, "maps", "--target", "1")


@pytest.mark.parametrize(("how", "every"), [("read-only", 24), slow("full", 1), slow("read-only", 1)])
def test_every_operation_of_compile_is_refused(server, work, how, every):
    assert server.run(work, "compile", "model.onnx", "--patch", "5", "-o", "new.kc").code == 0
    refusals(server, work, how, every, *COMPILE, "new.kc")
    assert read_manifest(work / "new.kc").patch == (5, 5)


def started(work: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    """A command in a process of its own, with a folder for temporary files of its own."""
    (work / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(work / "tmp"), "ORT_DISABLE_TELEMETRY": "1", **variables}
    call = [sys.executable, "-c", "from kcompiler.cli import main; main()", *command]
    return subprocess.Popen(call, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(work: Path, ending: signal.Signals, tries: int) -> list[int]:
    """Exit codes of a compile that is told to end at moments after it made its first temporary folder."""
    codes = []
    for number in range(tries):
        process = started(work, "compile", "model.onnx", "-o", "new.kc", "--force")
        while process.poll() is None and not any((work / "tmp").iterdir()):
            time.sleep(0.001)
        time.sleep(0.3 * number / tries)
        process.send_signal(ending)
        _, said = process.communicate()
        codes.append(process.returncode)
        assert "Traceback" not in said
        assert temporary(work) == [], said
    return codes


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("tries", [1, slow(20)])
def test_signals_end_a_compile_without_leaving_anything(work, ending, tries):
    """Once the command is over, while Python exits, a signal is what it is to any program."""
    assert set(ended(work, ending, tries)) <= {0, 128 + ending, -ending}


def test_an_interrupt_that_an_import_takes_for_its_own_failure(work):
    """As extension modules do that are interrupted while they are imported."""
    (work / "modules").mkdir()
    (work / "modules" / "onnxruntime.py").write_text(
        "raise ImportError('initialization failed') from KeyboardInterrupt('SIGTERM')"
    )
    process = started(work, "check", "m.kc", PYTHONPATH=str(work / "modules"))
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "interrupted: SIGTERM\n")


def test_a_signal_keeps_what_was_evaluated(work):
    """The map so far is written, and the next call goes on with it."""
    shutil.rmtree(work / "scans")
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    (work / "scans").mkdir()
    for number in range(40):
        Image.fromarray(np.roll(pixels, number, 0)).save(work / "scans" / f"{number:02}.png")
    process = started(work, "explain", "m.kc", "scans", "--stride", "1", "-o", "maps")
    while process.poll() is None and not (work / "maps" / "02.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143, said
    assert temporary(work) == []
    made = {path: path.stat().st_mtime_ns for path in (work / "maps").glob("*.json")}
    whole = [path for path in made if kcompiler.HeatMap.load(path).complete]
    assert len(made) >= len(whole) >= 3
    assert all(is_whole(path) for path in made)
    assert len(made) < 40


def test_what_a_dead_process_left_goes_and_what_a_living_one_has_stays(work):
    """Folders in use are locked, also those of other processes; what others made is nobody's business."""
    from kcompiler.runtime.scratch import inside
    from kcompiler.runtime.scratch import temporary as made

    (work / "tmp" / "kcompiler-results").mkdir(parents=True)
    (work / "tmp" / "kcompiler-bundle-strange1" / "files").mkdir(parents=True)
    hold = "from kcompiler.runtime.scratch import temporary; a = temporary('bundle'); print(a.root, flush=True); input()"
    environment = {**os.environ, "TMPDIR": str(work / "tmp")}
    processes = [
        subprocess.Popen([sys.executable, "-c", hold], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    dead, living = (Path(process.stdout.readline().strip()) for process in processes)
    processes[0].kill()
    processes[0].communicate()
    assert dead.is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(work / "tmp"))
        with made("model") as ours:
            assert not dead.exists()
            assert living.is_dir()
            assert inside(ours).is_dir()
            names = {path.name for path in (work / "tmp").iterdir()}
    assert names == {"kcompiler-results", "kcompiler-bundle-strange1", living.name, ours.root.name}
    processes[1].communicate("\n")
    assert not living.exists()
