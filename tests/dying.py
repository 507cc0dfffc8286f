"""Processes that die, or are refused, at the n-th operation on files.

A server of its own process imports everything once and then forks a child for each command, so that a command costs what it does
and no more: ``python dying.py`` answers a line of JSON with a line of JSON. It opens no ONNX Runtime session itself.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DEAD = 99
"""Exit code of a child that died of the hook."""
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended.

    Attributes:
        code: of its exit; DEAD if it died at the operation.
        operations: how many there were.
        said: standard output and error.
    """

    code: int
    operations: int
    said: str


class Server:
    """Runs commands of ``kcompiler`` in children of a server, in a ``folder`` that holds all files that count."""

    def __init__(self) -> None:
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, folder: Path, *command: object, at: int | None = None, how: str = "die", **around: object) -> Ran:
        """Runs a command; at operation ``at`` (from 0) it dies, or is refused this and all after it.

        Args:
            folder: working directory, which holds all files that count, and the temporary ones.
            command: arguments of ``kcompiler``, or a name in ``CALLS`` and its arguments.
            at: number of the operation.
            how: "die"; "full", as on a full disk, where only removing goes; "read-only".
            around: ``out``, ``error``: what standard output or error is: "full", "closed" or "gone", a pipe that nobody reads.
                ``tmp``: another folder for temporary files. Limits of the process by name ("NOFILE"); that of its address space
                ("AS") is what may be added to it.
        """
        asked = {"folder": str(folder), "command": list(map(str, command)), "at": at, "how": how, "around": around}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return Ran(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Hook:
    """Counts the operations that change files in a folder. ``removing``: whether the one at hand frees space."""

    def __init__(self, folder: str, at: int | None, how: str) -> None:
        self.folder, self.at, self.how, self.count = os.path.realpath(folder), at, how, 0
        self.removing = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Takes an audit event."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and isinstance(path, str | bytes | os.PathLike):
                self.step(path)
        elif event in CHANGES:
            self.step(arguments[0])

    def step(self, path: object) -> None:
        """An operation on a file."""
        if isinstance(path, str | bytes | os.PathLike) and not self._counts(os.fsdecode(path)):
            return
        number, self.count = self.count, self.count + 1
        if self.at is None or number < self.at:
            return
        if self.how == "die":
            os._exit(DEAD)
        elif not (self.removing and self.how == "full"):
            number = {"full": errno.ENOSPC, "read-only": errno.EROFS}[self.how]
            raise OSError(number, os.strerror(number))

    def _counts(self, path: str) -> bool:
        return os.path.realpath(path).startswith(self.folder + os.sep)


def _install(hook: Hook) -> None:
    """Counts events, flushes of files, and both halves of what is written into the temporary folder of an exchange."""
    from kcompiler.runtime.bundle import exchange

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        hook.removing = event in ("os.remove", "os.rmdir")
        hook(event, arguments)

    def write(path: Path, data: bytes) -> None:
        with path.open("xb") as stream:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                hook.step(path)
                stream.write(part)
                stream.flush()
            os.fsync(stream.fileno())

    def fsync(descriptor: int) -> None:
        hook.removing = False
        hook.step(None)
        flushed(descriptor)

    flushed, os.fsync, exchange._write = os.fsync, fsync, write
    sys.addaudithook(audited)


def _child(asked: dict[str, Any], told: int) -> None:
    """Runs what is asked, and tells how it ended."""
    import tempfile

    from kcompiler.cli import main

    around, (hear, said) = asked["around"], os.pipe()  # no file: limits would be for it, too
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 1 << 18)
    os.chdir(asked["folder"])
    os.makedirs("tmp", exist_ok=True)
    tempfile.tempdir = os.path.abspath(around.pop("tmp", "tmp"))
    for number, name in ((1, "out"), (2, "error")):
        _stream(number, around.pop(name, "said"), said)
    hook = Hook(asked["folder"], asked["at"], asked["how"])
    _install(hook)
    for name, most in around.items():
        kind, used = getattr(resource, f"RLIMIT_{name}"), 0
        if name == "AS":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(kind, (most + used, resource.getrlimit(kind)[1]))
    name, *arguments = asked["command"]
    sys.argv[1:] = asked["command"]
    code = 0
    try:
        if name in CALLS:
            CALLS[name](*arguments)
        else:
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        os.write(said, traceback.format_exc().encode())
        code = 70
    hook.at = None
    for name in around:  # what was said must find room
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)
    os.write(said, b"\0")
    text = os.read(hear, 1 << 18).decode(errors="replace").rstrip("\0")
    os.write(told, json.dumps({"code": code, "operations": hook.count, "said": text}).encode())


def _stream(number: int, kind: str, said: int) -> None:
    if kind == "closed":
        os.close(number)
    elif kind == "gone":
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, number)
        os.close(write)
    elif kind == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    else:
        os.dup2(said, number)


def _save_map(target: str, *suffixes: str) -> None:
    """Writes a map as ``explain --force`` does, of a target, with files of further suffixes."""
    from kcompiler.runtime.maps.stored import write_map

    number, drawing = int(target), Image.new("L", (2, 2), int(target))
    scores, files = np.full((2, 3), number, np.float32), dict.fromkeys(suffixes, target.encode())
    write_map(Path("maps"), "map", scores, drawing, {"target": number}, files=files, force=True)


def _save_bundle(built: str, target: str) -> None:
    """Writes a bundle as ``compile --force`` does."""
    from kcompiler.runtime.bundle.files import replace_folder
    from kcompiler.runtime.bundle.manifest import is_own_file

    replace_folder(Path(built), Path(target), is_own_file, force=True)


def _add_tuned(bundle: str, ssim: str) -> None:
    """Writes a plan as ``tune`` does."""
    from kcompiler.runtime.bundle.manifest_file import add_tuned
    from kcompiler.runtime.bundle.plans import EVERYTHING, Evidence, Tuned

    evidence = Evidence(
        given=1, images=1, held_out=0, kept=0, least_share=0.0, ssim=(), pearson=1.0, top_overlap=1.0, rendered_ssim=1.0,
        evaluated=1.0, seconds=1.0, exact_seconds=1.0, spot_error=0.0, candidates=(),
    )  # fmt: skip
    tuned = Tuned(
        ssim=float(ssim), share=0.9, confidence=0.9, promised=False, stride=4, score="output", fill=None, target=0,
        plan=EVERYTHING, evidence=evidence,
    )  # fmt: skip
    add_tuned(Path(bundle), tuned)


CALLS: dict[str, Callable[..., None]] = {"save-map": _save_map, "save-bundle": _save_bundle, "add-tuned": _add_tuned}


def _warm() -> None:
    """What every command would do once, but for sessions."""
    import onnxruntime

    import kcompiler.cli
    import kcompiler.deployment
    import kcompiler.pipeline
    from kcompiler.runtime.bundle.plans import EVERYTHING
    from kcompiler.runtime.maps.heatmap import HeatMap

    assert all((onnxruntime, kcompiler.cli, kcompiler.pipeline, kcompiler.deployment))
    np.random.default_rng(0)
    scores, places = np.zeros((2, 2), np.float32), np.array([0, 4])
    HeatMap(scores, 0.0, 0, "a", places, places, (4, 4), (8, 8), 0.0, scores == 0, plan=EVERYTHING).overlay()


def _serve() -> None:
    _warm()
    for line in sys.stdin:
        asked = json.loads(line)
        answer, told = os.pipe()
        child = os.fork()
        if not child:
            os.close(answer)
            try:
                _child(asked, told)
            finally:
                os._exit(71)
        os.close(told)
        with os.fdopen(answer, "rb") as stream:
            text = stream.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(text.decode() if text else json.dumps({"code": code, "operations": -1, "said": ""}), flush=True)


def snapshot(folder: Path, *ignored: str) -> dict[str, bytes]:
    """All files below a folder by their paths, hidden ones, too."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if not name.startswith(ignored or ("\0",))}


def laid_out(bundle: Path, folder: Path, pictures: int) -> Path:
    """A folder with a bundle ``m.kc``, its model, and pictures 0.png, 1.png, ... in ``scans``."""
    shutil.copytree(bundle, folder / "m.kc")
    shutil.copy(bundle.parent / "model.onnx", folder)
    (folder / "scans").mkdir()
    for seed in range(pictures):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "scans" / f"{seed}.png")
    return folder


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def temporary(folder: Path) -> Sequence[Path]:
    """What is left of temporary files."""
    return [path for path in folder.rglob("*") if path.name.startswith((".writing-", "kcompiler-"))]


if __name__ == "__main__":
    sys.path.pop(0)  # tests/ has a folder kcompiler
    _serve()
