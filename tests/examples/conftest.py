"""The page of the browser example, the browser, and the exported demo that they run."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from picture_models import export_for_pictures
from served import ISOLATION, Site, served

import kcompiler
from kcompiler.runtime.inputs.preprocessing import Preprocessing

ROOT = Path(__file__).parents[2]
PAGE, DEMO = ROOT / "examples" / "browser", ROOT / "models" / "demo"
STRIDE = 16
COLOUR = (207.0, 83.0, 59.0)
"""What the page covers with unless told otherwise: the mean of the demo's preprocessing, as a colour."""


@dataclass(frozen=True, slots=True, eq=False)
class Exports:
    """The demo as map models, and the driver's map of its picture.

    Attributes:
        pictures, images: folders of exports, with preprocessing in the model and without.
        model: the classifier that they are made of.
        picture, image: the demo's picture, and what its preprocessing makes of it.
        fill: what covers, COLOUR in the image's units.
        expected: the driver's map.
    """

    pictures: Path
    images: Path
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
    export_for_pictures(bundle, folder / "pictures", STRIDE)
    kcompiler.export(bundle, folder / "images", stride=STRIDE)
    explainer = kcompiler.load(bundle, providers=["cpu"])
    image = explainer.read_image(DEMO / "picture.png").tensor
    fill = Preprocessing.read(recipe).fill(COLOUR)
    expected = explainer.explain(image, stride=STRIDE, fill=fill)
    return Exports(folder / "pictures", folder / "images", DEMO / "demo.onnx", DEMO / "picture.png", image, fill, expected)


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory) -> Path:
    """The page, with onnxruntime-web beside it."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js and npm")
    folder = tmp_path_factory.mktemp("page") / "browser"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "ort", "package-lock.json"))
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"onnxruntime-web cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    subprocess.run(["npm", "run", "ort"], cwd=folder, capture_output=True, check=True)
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return path or pytest.skip("needs Chromium")


@pytest.fixture(scope="session")
def playwright():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright, chromium):
    with playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as launched:
        yield launched


@pytest.fixture(scope="session")
def isolated_site(page_folder) -> Iterator[Site]:
    with served(page_folder, ISOLATION) as site:
        yield site


@pytest.fixture(scope="session")
def plain_site(page_folder) -> Iterator[Site]:
    with served(page_folder, {}) as site:
        yield site
