"""The examples in languages that want a package or a compiler, ready to run; an export of the demo for all of them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import onnxruntime
import pytest

import kcompiler

ROOT = Path(__file__).parents[2]
EXAMPLES, DEMO = ROOT / "examples", ROOT / "models" / "demo"
STRIDE = 12
NODE_PACKAGE = "onnxruntime-node@1.30.0"
HEADERS_PACKAGE, HEADER = "com.github.asus4.onnxruntime@0.4.9", "onnxruntime_cxx_api.h"
"""Headers of ONNX Runtime 1.29: those of Python's package, which has the library, come without."""
STRICT = ["-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The folder of an export, an image in raw numbers, and the driver's map of it."""
    folder = tmp_path_factory.mktemp("exported")
    bundle = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json").save(folder / "demo.kc")
    kcompiler.export(bundle, folder / "out", stride=STRIDE)
    explainer = kcompiler.load(bundle, providers=["cpu"])
    image = explainer.read_image(DEMO / "picture.png").tensor
    image.astype("<f4").tofile(folder / "image.bin")
    return folder / "out", folder / "image.bin", explainer.explain(image, stride=STRIDE)


def npm(*arguments: object, package: str) -> str:
    """What npm prints; skips the test where there is no npm, or it cannot get the package."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    done = subprocess.run(["npm", *map(str, arguments), package], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{package} cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def node(tmp_path_factory) -> list[str]:
    """Runs the example for Node.js beside the package that it imports."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(EXAMPLES / "node" / "heatmap.mjs", folder)
    npm("install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, package=NODE_PACKAGE)
    return ["node", str(folder / "heatmap.mjs")]


@pytest.fixture(scope="session")
def headers(tmp_path_factory) -> Path:
    """The headers of ONNX Runtime, out of a package of libraries for many machines."""
    folder = tmp_path_factory.mktemp("headers")
    packed = folder / npm("pack", "--silent", "--pack-destination", folder, package=HEADERS_PACKAGE)
    with tarfile.open(packed) as package:
        members = {Path(one.name): one for one in package.getmembers()}
        found = next(path.parent for path in members if path.name == HEADER)
        for path, member in members.items():
            if path.parent == found and path.suffix == ".h":
                (folder / path.name).write_bytes(package.extractfile(member).read())
    packed.unlink()
    return folder


@pytest.fixture(scope="session")
def library() -> Path:
    """ONNX Runtime's library in Python's package."""
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.*"))


@pytest.fixture(scope="session")
def cpp(tmp_path_factory, headers) -> Path:
    """The example for C++, built by the command in it, where warnings are errors."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source = (EXAMPLES / "cpp" / "heatmap.cpp").read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^// +(c\+\+ .*)$", source, re.MULTILINE)[1].replace("HEADERS", str(headers)))
    program = tmp_path_factory.mktemp("cpp") / "heatmap"
    command[command.index("heatmap")] = str(program)
    done = subprocess.run([*command, *STRICT], cwd=EXAMPLES / "cpp", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(params=["python", "node", "cpp"])
def example(request) -> list[str]:
    """The command that runs an example."""
    if request.param == "node":
        return request.getfixturevalue("node")
    if request.param == "cpp":
        return ["env", f"ONNXRUNTIME={request.getfixturevalue('library')}", str(request.getfixturevalue("cpp"))]
    return [sys.executable, str(EXAMPLES / "python" / "heatmap.py")]
