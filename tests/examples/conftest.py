"""The examples in languages that want a package, a compiler or a browser, ready to run; exports of the demo for all of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from packages import npm
from served import ISOLATION, Site, served

import kcompiler
from kcompiler.runtime.inputs.preprocessing import Preprocessing

ROOT = Path(__file__).parents[2]
EXAMPLES, DEMO = ROOT / "examples", ROOT / "models" / "demo"
PAGE = EXAMPLES / "browser"
STRIDE = 12
PAGE_STRIDE = 16
COLOUR = (207.0, 83.0, 59.0)
"""What the page covers with unless told otherwise: the mean of the demo's preprocessing, as a colour."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Exports:
    """The demo as map models, and the driver's map of its picture.

    Attributes:
        pictures, images: folders of exports, with preprocessing in the model and without.
        bundle: that they are made of.
        model: the classifier.
        picture, image: the demo's picture, and what its preprocessing makes of it.
        fill: what covers, COLOUR in the image's units.
        expected: the driver's map.
    """

    pictures: Path
    images: Path
    bundle: Path
    model: Path
    picture: Path
    image: np.ndarray
    fill: tuple[float, ...]
    expected: kcompiler.HeatMap

    @property
    def card(self) -> dict:
        return json.loads((self.pictures / "card.json").read_text(encoding="utf-8"))

    def files(self, folder: Path | None = None) -> list[Path]:
        """Those that a user gives the page, without a picture."""
        return [(folder or self.pictures) / name for name in ("map.onnx", "weights.bin", "card.json")]


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")
    recipe = DEMO / "preprocessing.json"
    bundle = kcompiler.compile(DEMO / "demo.onnx", preprocessing=recipe).save(folder / "demo.kc")
    kcompiler.export(bundle, folder / "pictures", stride=PAGE_STRIDE, preprocess=True)
    kcompiler.export(bundle, folder / "images", stride=PAGE_STRIDE)
    explainer = kcompiler.load(bundle, providers=["cpu"])
    image = explainer.read_image(DEMO / "picture.png").tensor
    fill = Preprocessing.read(recipe).fill(COLOUR)
    expected = explainer.explain(image, stride=PAGE_STRIDE, fill=fill)
    return Exports(
        folder / "pictures", folder / "images", bundle, DEMO / "demo.onnx", DEMO / "picture.png", image, fill, expected
    )


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory) -> Path:
    """The page, with onnxruntime-web beside it."""
    folder = tmp_path_factory.mktemp("page") / "browser"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "ort", "package-lock.json"))
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]["onnxruntime-web"]
    npm("install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, package=f"onnxruntime-web@{wanted}")
    subprocess.run(["npm", "run", "ort"], cwd=folder, capture_output=True, check=True)
    return folder


@pytest.fixture(scope="session")
def isolated_site(page_folder) -> Iterator[Site]:
    with served(page_folder, ISOLATION) as site:
        yield site


@pytest.fixture(scope="session")
def plain_site(page_folder) -> Iterator[Site]:
    with served(page_folder, {}) as site:
        yield site
