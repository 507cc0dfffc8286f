"""Writes docs/pictures/page.png and page-compared.png, what docs/page.md shows: python -m tests.page.screenshots [FOLDER]."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))
DEMO = ROOT / "models" / "demo"
COLOURS = 256
SECONDS = 120


def finished(page, number: int = 0) -> None:
    from playwright.sync_api import expect

    expect(page.locator(".panel .status").nth(number)).to_contain_text("Exact: all", timeout=SECONDS * 1000)


def point(page, y: float, x: float) -> None:
    """Points at a place of the first picture, in shares of its height and width, and waits for the outputs there."""
    box = page.locator(".panel .map").first.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_timeout(1500)


def save(page, path: Path) -> None:
    """A screenshot of the whole page, with few colours, which take little room."""
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)


def take(browser, address: str, out: Path, scratch: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(address)
    page.set_input_files(".panel .file", str(DEMO / "picture.png"))
    finished(page)
    point(page, 0.42, 0.3)
    save(page, out / "page.png")
    Image.open(DEMO / "picture.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(scratch / "other.png")
    page.check("#compare")
    page.locator(".panel .file").nth(1).set_input_files(str(scratch / "other.png"))
    finished(page, 1)
    point(page, 0.3, 0.36)
    save(page, out / "page-compared.png")
    page.uncheck("#compare")
    page.set_viewport_size({"width": 800, "height": 900})
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    if out != ROOT / "docs" / "pictures":
        save(page, out / "page-narrow-dark.png")


def main(out: Path) -> None:
    from playwright.sync_api import sync_playwright
    from serving import page_of

    import kcompiler

    out.mkdir(parents=True, exist_ok=True)
    bundle = kcompiler.compile(DEMO / "demo.onnx", preprocessing=DEMO / "preprocessing.json")
    with (
        tempfile.TemporaryDirectory() as folder,
        page_of(kcompiler.load(bundle), Path(folder)) as served,
        sync_playwright() as tool,
    ):
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with tempfile.TemporaryDirectory() as scratch:
            take(browser, served.address, out, Path(scratch))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")
