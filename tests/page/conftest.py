"""The page of ``kcompiler serve`` in a browser, with the demo."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from npm import npm
from serving import SECONDS, Page, page_of

import kcompiler

DEMO = Path(__file__).parents[2] / "models" / "demo"
AXE = "axe-core@4.10.3"
REFUSED = re.compile(r"Failed to load resource: the server responded with a status of 40[01]")
"""What Chromium says of an answer that the page then explains."""


@pytest.fixture(scope="session")
def explainer(tmp_path_factory) -> kcompiler.Explainer:
    compiled = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json")
    return kcompiler.load(compiled.save(tmp_path_factory.mktemp("bundle") / "demo.kc"), providers=["cpu"])


@pytest.fixture(scope="session")
def served(explainer, tmp_path_factory) -> Iterator[Page]:
    with page_of(explainer, tmp_path_factory.mktemp("pictures")) as page:
        yield page


@pytest.fixture(scope="session")
def two_patches(tmp_path_factory) -> Iterator[Page]:
    """The page of a bundle that is compiled for two patches."""
    bundle = kcompiler.compile(DEMO / "demo.onnx", patch=[16, (24, 8)], preprocessing=DEMO / "preprocessing.json")
    with page_of(kcompiler.load(bundle, providers=["cpu"]), tmp_path_factory.mktemp("pictures")) as page:
        yield page


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The accessibility checks of axe-core, to run in a page."""
    folder = tmp_path_factory.mktemp("axe")
    npm("install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, package=AXE)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def opened(browser, served) -> Iterator[Callable]:
    """Opens the page in a new tab; nothing may be complained of in its console by the end."""
    contexts, complaints = [], []

    def open_page(address: str = served.address, **settings: object):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}))
        contexts[-1].set_default_timeout(SECONDS * 1000)
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [complaint for complaint in complaints if not REFUSED.match(complaint)] == []
