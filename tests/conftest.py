"""Makes ``models``, which is not installed, importable: last in the path, so that an installed kcompiler comes first.

Starts a browser for tests of pages.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before any test file imports onnxruntime
sys.path.append(str(Path(__file__).parents[1]))
settings.register_profile("whatever the time", deadline=None)  # no test asserts how long it takes
settings.load_profile("whatever the time")


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
