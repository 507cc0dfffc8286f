"""The example for C++ alone: its checksums, the libraries and exports that it refuses, its progress."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import kcompiler

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cpp"
BLOCK = 64
DIGESTS = """
#include <iostream>
#include "checksums.h"
int main(int count, char** paths) {
    for (int at = 1; at < count; ++at) std::cout << sha256(paths[at]) << std::endl;
}
"""
OLDER = """
#include <cstdint>
struct Base {
    const void* (*api)(std::uint32_t);
    const char* (*version)();
};
extern "C" const Base* OrtGetApiBase() {
    static const Base base = {[](std::uint32_t) -> const void* { return nullptr; }, [] { return "1.2.3"; }};
    return &base;
}
"""


def built(source: str, out: Path, *options: str) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    command = [compiler, "-std=c++17", "-x", "c++", *options, "-I", EXAMPLE, "-", "-o", out]
    subprocess.run([*map(str, command)], input=source, text=True, check=True)
    return out


def refused(program: Path, library: object, *arguments: object) -> str:
    """What the program says when it fails."""
    environment = {**os.environ, "ONNXRUNTIME": str(library)}
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_checksums_are_sha256(tmp_path):
    sizes = [0, 1, *(BLOCK * blocks + more for blocks in (1, 2) for more in (-9, -8, -7, -1, 0, 1)), 100_003]
    paths = [tmp_path / str(size) for size in sizes]
    for size, path in zip(sizes, paths, strict=True):
        path.write_bytes(np.random.default_rng(size).bytes(size))
    program = built(DIGESTS, tmp_path / "digests")
    done = subprocess.run([program, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_libraries_that_will_not_do_are_refused(cpp, exported, tmp_path):
    older = built(OLDER, tmp_path / "libonnxruntime.so", "-shared", "-fPIC")
    message = refused(cpp, older, exported[0])
    assert f"{older}: is ONNX Runtime 1.2.3, older than the headers" in message
    other = built("int nothing;", tmp_path / "other.so", "-shared", "-fPIC")
    assert f"{other}: is not the library of ONNX Runtime" in refused(cpp, other, exported[0])
    assert "set ONNXRUNTIME to the library" in refused(cpp, tmp_path / "missing.so", exported[0])


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "has no number as metadata kcompiler.format"),
        ({"kcompiler.format": "one"}, "has no number as metadata kcompiler.format"),
        ({"kcompiler.format": "1"}, "its format is not 2; export again or copy a newer program"),
        ({"kcompiler.format": "2"}, "has no number as metadata kcompiler.test.fill"),
    ],
)
def test_exports_without_metadata_or_of_other_formats_are_refused(cpp, exported, library, tmp_path, properties, message):
    folder = tmp_path / "out"
    shutil.copytree(exported[0], folder)
    model = onnx.load(folder / "map.onnx", load_external_data=False)
    helper.set_model_props(model, properties)
    card, digest = folder / "card.json", hashlib.sha256((folder / "map.onnx").read_bytes()).hexdigest()
    (folder / "map.onnx").write_bytes(model.SerializeToString())
    changed = hashlib.sha256((folder / "map.onnx").read_bytes()).hexdigest()
    card.write_text(card.read_text(encoding="utf-8").replace(digest, changed), encoding="utf-8")
    assert f"{folder / 'map.onnx'}: {message}" in refused(cpp, library, folder)


def test_exports_in_a_single_file_run(cpp, exported, library, tmp_path):
    kcompiler.export(exported[0].parent / "demo.kc", tmp_path / "out", stride=32, single_file=True)
    environment = {**os.environ, "ONNXRUNTIME": str(library)}
    subprocess.run([cpp, tmp_path / "out"], check=True, env=environment)


def test_progress_is_told(cpp, exported, library):
    folder, image, _ = exported
    done = subprocess.run([cpp, folder, image], capture_output=True, check=True, env={**os.environ, "ONNXRUNTIME": str(library)})
    counts = [int(line.split()[0]) for line in done.stderr.decode().strip().split("\r")]
    assert counts == sorted(set(counts))
    assert len(counts) > 1
    assert done.stderr.decode().endswith(f"\r{counts[-1]} of {counts[-1]} batches\n")


@pytest.mark.parametrize("arguments", [[], ["out", "--threads", "0"], ["out", "--threads", "many"], ["out", "--unknown"]])
def test_wrong_command_lines_are_told_the_right_one(cpp, library, arguments):
    assert "heatmap FOLDER [IMAGE.bin] [--threads N] [--out map.bin]" in refused(cpp, library, *arguments)


def test_the_documents_quote_the_commands_of_the_example():
    source = (EXAMPLE / "heatmap.cpp").read_text(encoding="utf-8")
    commands = re.findall(r"^//   (\S.*)$", source, re.MULTILINE)
    assert len(commands) == 2
    assert "".join(f"    {command}\n" for command in commands) in (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
