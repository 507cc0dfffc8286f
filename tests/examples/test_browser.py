"""The page of the browser example makes the Python driver's map, and refuses what is no export or no picture."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image
from served import ISOLATION, served

import kcompiler

SECONDS = 60
STRIDE = 16
TOLERANCE = 1e-4
"""Largest difference from the driver's map, as a share of its range."""
WATCH = """() => {
    const progress = document.getElementById("progress"), canvas = document.getElementById("overlay");
    window.watched = [];
    new MutationObserver(() => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let coloured = 0;
        for (let at = 0; at < pixels.length; at += 4) coloured += Math.abs(pixels[at] - pixels[at + 2]) > 8;
        window.watched.push([progress.value, coloured]);
    }).observe(progress, { attributes: true, attributeFilter: ["value"] });
}"""


def saved(page, button: str) -> Path:
    """What the page saves when a button is pressed."""
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path())


def numbers(page) -> dict:
    """The numbers that the page saves, the map as float64 [rows, cols] with NaN for null."""
    found = json.loads(saved(page, "#save-numbers").read_text(encoding="utf-8"))
    return {**found, "map": np.array(found["map"], np.float64)}


class Opened:
    """The page in a browser, and what a user does there."""

    def __init__(self, page, expect: Callable) -> None:
        self.page, self.expect, self.loaded = page, expect, 0
        page.on("load", self._count)

    def _count(self, _page: object) -> None:
        self.loaded += 1

    def give(self, *paths: Path) -> None:
        self.page.set_input_files("#files", [str(path) for path in paths])

    def status(self, text: str | re.Pattern) -> None:
        self.expect(self.page.locator("#status")).to_contain_text(text, timeout=SECONDS * 1000)

    def complains(self, *texts: str) -> None:
        for text in texts:
            self.expect(self.page.locator("#error")).to_contain_text(text, timeout=SECONDS * 1000)

    def run(self) -> None:
        self.status("Ready.")
        self.page.click("#run")
        self.status("Finished")


def copy_with(folder: Path, to: Path, name: str, content: bytes | None) -> Path:
    """A copy of an export in which the file ``name`` has another content, or is missing."""
    shutil.copytree(folder, to)
    if content is None:
        (to / name).unlink()
    else:
        (to / name).write_bytes(content)
    return to


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """Opens the page of a site in a browser that has never seen it."""
    from playwright.sync_api import expect

    contexts = []

    def open_page(url: str, **settings: object) -> Opened:
        contexts.append(browser.new_context(**settings))
        contexts[-1].set_default_timeout(SECONDS * 1000)
        found = Opened(contexts[-1].new_page(), expect)
        found.page.goto(url)
        return found

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened, isolated_site) -> Opened:
    return opened(isolated_site.url, service_workers="block")


def assert_drivers_map(found: dict, exports) -> None:
    expected = exports.expected
    assert np.abs(found["map"] - expected.scores).max() <= TOLERANCE * np.ptp(expected.scores)
    assert (found["class"], found["label"]) == (expected.target, expected.label)
    assert found["uncovered"][expected.target] == pytest.approx(expected.unoccluded, rel=TOLERANCE)
    assert (found["ys"], found["xs"]) == (expected.ys.tolist(), expected.xs.tolist())


@pytest.mark.parametrize("threads", ["by the host", "by the service worker", "none"])
def test_the_pages_map_is_the_drivers(opened, exports, isolated_site, plain_site, threads):
    site = isolated_site if threads == "by the host" else plain_site
    page = opened(site.url, service_workers="allow" if threads == "by the service worker" else "block")
    if threads == "by the service worker":
        while page.loaded < 2:  # the page loads itself anew once the service worker adds the headers
            page.page.wait_for_timeout(50)
    assert page.page.evaluate("crossOriginIsolated") == (threads != "none")
    cores = page.page.evaluate("Math.min(navigator.hardwareConcurrency, 8)")
    page.give(*exports.files(), exports.picture)
    page.status("one thread" if threads == "none" or cores == 1 else f"{cores} threads")
    page.run()
    assert_drivers_map(numbers(page.page), exports)


@pytest.mark.slow
def test_pictures_of_any_size_are_not_resized_by_the_browser(page, exports, tmp_path):
    with Image.open(exports.picture) as picture:
        picture.resize((331, 250), Image.Resampling.BICUBIC).save(tmp_path / "wide.png")
    pixels = np.asarray(Image.open(tmp_path / "wide.png"))
    page.give(*exports.files(), tmp_path / "wide.png")
    page.run()
    found = numbers(page.page)
    feeds = {
        "picture": pixels, "fill": np.array(found["fill"], np.float32),
        "target": np.array([-1]), "batches": np.array([0, len(exports.card["batches"])]),
    }  # fmt: skip
    session = ort.InferenceSession(exports.pictures / "map.onnx", providers=["CPUExecutionProvider"])
    expected, seen = session.run(["map", "seen"], feeds)
    assert np.abs(found["map"] - expected).max() <= TOLERANCE * np.ptp(expected)
    assert found["seen"] == seen.tolist() == [0, 0, 250, 331]
    assert page.page.eval_on_selector("#overlay", "canvas => [canvas.width, canvas.height]") == [331, 250]


def test_the_map_fills_in_batch_by_batch(page, exports):
    page.give(*exports.files(), exports.picture)
    page.status("Ready.")
    page.page.evaluate(WATCH)
    page.page.click("#run")
    page.status("Finished")
    progress, coloured = np.array(page.page.evaluate("watched")).T
    positions = np.cumsum(exports.card["batches"])
    assert progress[progress > 0].tolist() == pytest.approx((positions / positions[-1]).tolist())
    assert 0 < coloured[1] < coloured[-1]


def test_a_cancelled_map_keeps_what_was_evaluated_and_can_be_made_again(page, exports):
    page.give(*exports.files(), exports.picture)
    page.status("Ready.")
    page.page.evaluate("""() => new MutationObserver((_, observer) => {
        if (document.getElementById("progress").value === 0) return;
        observer.disconnect();
        document.getElementById("cancel").click();
    }).observe(document.getElementById("progress"), { attributes: true })""")
    page.page.click("#run")
    page.status("Cancelled.")
    found, expected = numbers(page.page)["map"], exports.expected.scores
    known = np.isfinite(found)
    assert 0 < known.sum() < known.size
    assert np.abs(found - expected)[known].max() <= TOLERANCE * np.ptp(expected)
    page.page.click("#run")
    page.status("Finished")
    assert_drivers_map(numbers(page.page), exports)


def damaged(content: bytes) -> dict[str, bytes]:
    """Other contents for a file, by what was done to it."""
    middle = len(content) // 2
    return {"altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], "cut": content[:middle]}


def test_damaged_exports_are_refused(page, exports, tmp_path):
    cases = [
        (name, other, "is damaged, or of another export")
        for name in ("map.onnx", "weights.bin")
        for other in damaged((exports.pictures / name).read_bytes()).values()
    ]
    card = (exports.pictures / "card.json").read_bytes()
    cases += [("card.json", damaged(card)["cut"], "is no JSON")]
    cases += [("card.json", other, '"ys" is missing or wrong') for other in (b"{}", b"null", card.replace(b'"ys"', b'"rows"'))]
    for number, (name, other, reason) in enumerate(cases):
        page.give(*exports.files(copy_with(exports.pictures, tmp_path / str(number), name, other)), exports.picture)
        page.complains(f"{name}: {reason}" if name != "card.json" else name, reason)
        assert page.page.is_disabled("#run")
        page.give(exports.picture)  # takes the message away
        page.expect(page.page.locator("#error")).to_be_empty()
    page.give(*exports.files())
    page.run()
    assert_drivers_map(numbers(page.page), exports)


def test_cards_of_other_formats_are_refused(page, exports, tmp_path):
    card = (exports.pictures / "card.json").read_text(encoding="utf-8").replace('"format": 2', '"format": 3', 1)
    page.give(*exports.files(copy_with(exports.pictures, tmp_path / "out", "card.json", card.encode())))
    page.complains("card.json: card format 3, expected 2; export again")


def test_weights_may_stand_in_the_model(page, exports, tmp_path):
    stride = int(np.diff(exports.expected.ys)[0])
    kcompiler.export(exports.bundle, tmp_path / "out", stride=stride, preprocess=True, single_file=True)
    page.give(tmp_path / "out" / "map.onnx", tmp_path / "out" / "card.json", exports.picture)
    page.run()
    assert_drivers_map(numbers(page.page), exports)


def test_exports_that_drill_down_are_refused(page, exports, tmp_path):
    kcompiler.export(exports.bundle, tmp_path / "out", stride=32, preprocess=True, drill_down=(3, 0.2))
    page.give(*exports.files(tmp_path / "out"))
    page.complains("known, expected picture or image", "or one with --drill-down")


def test_files_of_another_export_are_refused(page, exports):
    page.give(exports.pictures / "map.onnx", exports.images / "weights.bin", exports.images / "card.json")
    page.complains("map.onnx: is damaged, or of another export")


def test_files_that_are_nothing_to_the_page_are_named(page, tmp_path):
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    page.give(tmp_path / "notes.txt")
    page.complains("notes.txt: neither a file of an export nor a picture")


def unfit_pictures(folder: Path, picture: Path) -> dict[str, tuple[Path, str]]:
    """Pictures that the page refuses, with the reason."""
    plain = Image.open(picture)
    content = picture.read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 8])
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    clear = plain.convert("RGBA")
    clear.putpixel((3, 5), (0, 0, 0, 254))
    clear.save(folder / "clear.png")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(folder / "deep.png")
    frames = [plain, plain.rotate(90)]
    frames[0].save(folder / "frames.gif", save_all=True, append_images=frames[1:])
    reasons = {
        "cut.png": "is no picture that this browser can read, or is damaged",
        "text.png": "is no picture that this browser can read",
        "clear.png": "has transparent pixels",
        "deep.png": "has 16 bits a channel",
        "frames.gif": "has 2 frames",
    }
    return {name: (folder / name, reason) for name, reason in reasons.items()}


def test_pictures_that_would_not_be_explained_as_they_are_are_refused(page, exports, tmp_path):
    page.give(*exports.files())
    for name, (path, reason) in unfit_pictures(tmp_path, exports.picture).items():
        page.give(path)
        page.complains(name, reason)
        assert page.page.is_disabled("#run")


@pytest.mark.slow
def test_each_kind_of_model_says_what_it_takes(page, exports, tmp_path):
    np.zeros(7, "<f4").tofile(tmp_path / "seven.bin")
    np.full((3, 224, 224), np.inf, "<f4").tofile(tmp_path / "infinite.bin")
    page.give(*exports.files(), tmp_path / "seven.bin")
    page.complains("seven.bin: the model takes pictures, not raw numbers")
    page.give(*exports.files(exports.images), exports.picture)
    page.complains("picture.png: the model takes raw numbers", "--preprocess")
    page.give(tmp_path / "seven.bin")
    page.complains("seven.bin: 28 bytes, expected 602112")
    page.give(tmp_path / "infinite.bin")
    page.complains("infinite.bin: holds numbers that are not finite")
    page.give(exports.images / "test-image.bin")
    page.status("Ready.")
    page.page.fill("#numbers", "1, 2")
    page.page.click("#run")
    page.complains('"1, 2" cannot cover: expected a number, or 3 numbers')


@pytest.mark.slow
@pytest.mark.parametrize("altered", [False, True])
def test_the_test_vector_is_compared(page, exports, tmp_path, altered):
    test_map = np.fromfile(exports.images / "test-map.bin", "<f4")
    if altered:
        test_map[np.flatnonzero(np.isfinite(test_map))[0]] += 0.01 * (np.nanmax(test_map) - np.nanmin(test_map))
    shutil.copytree(exports.images, tmp_path / "out")
    test_map.tofile(tmp_path / "out" / "test-map.bin")
    page.give(*(tmp_path / "out").iterdir())  # all of the folder, the card's page too
    page.run()
    page.expect(page.page.locator("#test")).to_contain_text("failed; expected at most 0.0001" if altered else "passed.")
    assert page.page.inner_text("#error") == ""


def test_the_page_works_without_a_network(opened, exports, page_folder):
    with served(page_folder, ISOLATION) as site:
        page = opened(site.url)
        page.page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        asked = len(site.asked)
    page.page.context.set_offline(True)
    page.page.reload()
    page.give(*exports.files(), exports.picture)
    page.run()
    assert_drivers_map(numbers(page.page), exports)
    assert len(site.asked) == asked > 0


@contextmanager
def requests_of(page) -> Iterator[list[str]]:
    """Addresses that the page, its workers and its service worker ask for."""
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    yield asked


def test_nothing_leaves_the_origin(opened, exports, isolated_site, tmp_path):
    page = opened(isolated_site.url)
    page.page.evaluate("navigator.serviceWorker.ready.then(() => null)")
    with served(tmp_path, {"Access-Control-Allow-Origin": "*"}) as foreign, requests_of(page.page) as asked:
        page.page.reload()
        page.give(*exports.files(), exports.picture)
        page.run()
        tried = f"fetch('{foreign.url}', {{ mode: 'no-cors' }}).then(() => 'sent', () => 'refused')"
        assert page.page.evaluate(tried) == "refused"
        assert [worker.evaluate(tried) for worker in page.page.workers[:1]] == ["refused"]
        assert foreign.asked == []
    own = (isolated_site.url, "blob:" + isolated_site.url)
    assert [url for url in asked if not url.startswith(own)] == [url for url in asked if url == foreign.url]
    assert any("heatmap.mjs" in url for url in asked)


def test_the_map_is_read_and_saved_by_keyboard(page, exports):
    page.give(*exports.files(), exports.picture)
    page.run()
    page.page.focus("#overlay")
    for key in ("ArrowUp", "ArrowDown", "ArrowDown", "ArrowRight"):
        page.page.keyboard.press(key)
    score = exports.expected.scores[2, 1]
    text = page.page.inner_text("#cursor").replace("\N{MINUS SIGN}", "-")
    assert text.startswith(f"Patch at row {2 * STRIDE}, column {STRIDE}: score ")
    assert float(re.search(r"score (\S+),", text).group(1)) == pytest.approx(score, rel=5e-3)
    page.page.focus("#save-picture")
    with page.page.expect_download() as download:
        page.page.keyboard.press("Enter")
    drawing = np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)
    top, left, bottom, right = json.loads((exports.picture.parent / "truth.json").read_text())["box"]
    lesion = drawing[36 + top : 36 + bottom, 12 + left : 12 + right]  # behind the margin and the line of text
    assert (lesion[..., 0] - lesion[..., 2]).max() > 80, "the lesion is red"
    assert drawing.shape[0] > 224 < drawing.shape[1]


def test_the_service_worker_keeps_all_files_of_the_page(page_folder):
    text = (page_folder / "service-worker.js").read_text(encoding="utf-8")
    kept = set(re.findall(r'"([\w./-]+\.(?:mjs|css|html|svg|wasm))"', text))
    there = {path.relative_to(page_folder).as_posix() for path in (*page_folder.glob("*.*"), *page_folder.glob("ort/*"))}
    assert kept == there - {"package.json", "package-lock.json", "copy-ort.mjs", "service-worker.js"}
    policy = re.search(r'Policy" content="([^"]*)"', (page_folder / "index.html").read_text(encoding="utf-8")).group(1)
    assert policy in re.sub(r'"\s*\+ "', "", text)
