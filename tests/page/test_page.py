"""The page of ``kcompiler serve``, as a user meets it."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import SECONDS, scores_of

from kcompiler.serving import app
from kcompiler.serving.refining import refined

DEMO = Path(__file__).parents[2] / "models" / "demo"
PICTURE = DEMO / "picture.png"
COLOURED = """() => {
    const map = document.querySelector(".map");
    const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data, found = [];
    for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at] - pixels[at + 2] > 80) found.push([Math.floor(at / 4 / map.width), at / 4 % map.width]);
    return found;
}"""


def says(page, name: str, text: str | re.Pattern, number: int = 0) -> None:
    """Waits until an element of a panel holds a text."""
    from playwright.sync_api import expect

    expect(page.locator(f".panel .{name}").nth(number)).to_contain_text(text, timeout=SECONDS * 1000)


def give(page, path=PICTURE, number: int = 0) -> None:
    page.locator(".panel .file").nth(number).set_input_files(str(path))
    says(page, "status", "Exact: all", number)


def point(page, y: float, x: float, number: int = 0) -> None:
    """Points at a place of the model's image."""
    box = page.locator(".panel .map").nth(number).bounding_box()
    page.mouse.move(box["x"] + x / 224 * box["width"], box["y"] + y / 224 * box["height"])


def read(page, number: int = 0) -> tuple[int, int, float]:
    """Row, column and score that the page tells of the patch's place."""
    says(page, "reading", re.compile(": output "), number)
    text = page.locator(".panel .reading").nth(number).inner_text().replace("\N{MINUS SIGN}", "-")
    row, column, score = re.search(r"row (\d+), column (\d+): output (\S+),", text).groups()
    return int(row), int(column), float(score)


def soon(holds) -> bool:
    end = time.monotonic() + SECONDS
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def page(opened):
    return opened()


def test_a_picture_is_explained(page, explainer):
    says(page, "hint", "or drop it here")
    assert "demo.onnx" in page.title()
    give(page)
    says(page, "title", "haemorrhage: output 4.28 uncovered")
    top, left, bottom, right = json.loads((DEMO / "truth.json").read_text())["box"]
    coloured = np.array(page.evaluate(COLOURED))
    middle = coloured.mean(axis=0)
    assert top - 8 < middle[0] < bottom + 8
    assert left - 8 < middle[1] < right + 8


@pytest.mark.parametrize(("y", "x"), [(0.5, 0.5), (90, 83), (223, 223)])
def test_the_pointer_s_number_is_the_map_s(page, explainer, y, x):
    give(page)
    point(page, y, x)
    row, column, score = read(page)
    assert abs(row + 8 - y) <= max(2.1, 8 - y, y - 216)
    assert abs(column + 8 - x) <= max(2.1, 8 - x, x - 216)
    tensor = explainer.read_image(PICTURE).tensor
    assert score == pytest.approx(explainer.outputs(tensor, [(row, column)])[0, 1], rel=5e-3)
    says(page, "explained", re.compile(re.escape(page.locator(".reading").inner_text().split("output ")[1].split(",")[0])))


def test_the_picture_as_the_model_saw_it_has_the_patch(page, explainer):
    give(page)
    point(page, 90, 83)
    row, column, _ = read(page)
    read_back = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 224, 224).data]"
    shown = np.array(page.eval_on_selector(".seen", read_back), np.uint8).reshape(224, 224, 4)[..., :3]
    pixels = np.array(explainer.read_image(PICTURE).pixels)
    mean = [207, 83, 59]  # what 0 in model units is
    assert (shown[row : row + 16, column : column + 16] == mean).all()
    around = np.ones((224, 224), bool)
    around[row - 2 : row + 18, column - 2 : column + 18] = False
    assert (shown[around] == pixels[around]).all()


def test_a_box_is_refined(page, explainer):
    give(page)
    with page.expect_response("**/api/maps") as answer:
        point(page, 60, 60)
        page.mouse.down()
        point(page, 80, 80)
        point(page, 100, 110)
        page.mouse.up()
    asked = answer.value.request.post_data_json
    assert asked["stride"] == 1
    assert np.abs(np.array(asked["region"]) - [52, 52, 108, 118]).max() <= 1
    says(page, "status", "Box: Exact: all")
    point(page, 90.3, 83.3)
    row, column, score = read(page)
    assert score == pytest.approx(explainer.outputs(explainer.read_image(PICTURE).tensor, [(row, column)])[0, 1], rel=5e-3)
    point(page, 91.3, 84.3)
    assert read(page)[:2] == (row + 1, column + 1)
    page.click(".unbox")
    assert page.is_hidden(".box")


def test_the_patch_is_pulled_about_by_hand(page, explainer):
    give(page)
    box = page.locator(".seen").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.375, box["y"] + box["height"] * 0.401, steps=4)
    page.mouse.up()
    says(page, "reading", "held")
    row, column, _ = read(page)
    expected = explainer.outputs(explainer.read_image(PICTURE).tensor, [(row, column)])[0]
    assert soon(lambda: read(page)[2] == pytest.approx(expected[1], rel=5e-3))
    covered = [text.replace("\N{MINUS SIGN}", "-") for text in page.locator("tbody td:nth-child(3)").all_inner_texts()]
    assert [float(text) for text in covered] == pytest.approx(expected.tolist(), rel=5e-3)


def test_everything_is_reached_by_keyboard(page):
    give(page)
    page.focus(".map")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    assert read(page)[:2] == (4, 4)
    page.keyboard.press("Enter")
    says(page, "reading", "held")
    page.focus(".seen")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    assert read(page)[:2] == (5, 20)
    page.focus(".refine")
    page.keyboard.press("Enter")
    says(page, "status", "Box: Exact: all")


def test_settings_make_another_map(page, explainer):
    give(page)
    page.select_option("#target", label="exudate")
    page.select_option("#fill", "colour")
    page.fill("#colour", "#102030")
    page.fill("#stride", "16")
    says(page, "title", "exudate: output \N{MINUS SIGN}4.8 uncovered")
    says(page, "status", "Exact: all 196 positions")
    page.focus(".map")
    page.keyboard.press("ArrowRight")
    text = page.inner_text(".reading").replace("\N{MINUS SIGN}", "-")
    fill = explainer.manifest.preprocessing.fill((16.0, 32.0, 48.0))
    expected = explainer.outputs(explainer.read_image(PICTURE).tensor, [(0, 0)], fill)[0, 2]
    assert float(re.search(r"output (\S+),", text).group(1)) == pytest.approx(expected, rel=5e-3)


def test_the_page_switches_patches(opened, two_patches):
    page = opened(two_patches.address)
    facts = "Patch 16 \N{MULTIPLICATION SIGN} 16 or 24 \N{MULTIPLICATION SIGN} 8 pixels"
    assert soon(lambda: facts in page.inner_text("#facts"))
    page.fill("#stride", "16")
    give(page)
    point(page, 222, 222)
    assert read(page)[:2] == (208, 208)
    held = two_patches.service.patches.first
    for patch, shape in (((24, 8), (13, 14)), ((16, 16), (14, 14))):
        page.select_option("#patch", "x".join(map(str, patch)))
        says(page, "status", f"Exact: all {shape[0] * shape[1]} positions")
        point(page, 120, 100)
        row, column, score = read(page)
        assert (abs(row + patch[0] / 2 - 120) <= 8.1, abs(column + patch[1] / 2 - 100) <= 8.1) == (True, True)
        explainer = held.for_patch(patch)
        assert score == pytest.approx(explainer.outputs(explainer.read_image(PICTURE).tensor, [(row, column)])[0, 1], rel=5e-3)
        with page.expect_download() as download:
            page.click(".save")
        with zipfile.ZipFile(download.value.path()) as packed:
            assert np.load(io.BytesIO(packed.read("picture.npy"))).shape == shape
            assert json.loads(packed.read("picture.json"))["settings"]["patch"] == list(patch)


def test_two_pictures_are_compared(page, tmp_path):
    Image.open(PICTURE).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png")
    page.check("#compare")
    give(page)
    give(page, tmp_path / "flipped.png", number=1)
    point(page, 90, 83)
    assert soon(lambda: page.locator(".reading").nth(1).inner_text() != "")
    assert read(page, 0)[:2] == read(page, 1)[:2]
    bars = [page.locator(".bar").nth(number).get_attribute("aria-label") for number in range(2)]
    assert bars[0] == bars[1]
    page.uncheck("#compare")
    assert page.locator(".panel:visible").count() == 1


def test_what_is_saved_is_the_map(page, explainer):
    give(page)
    with page.expect_download() as download:
        page.click(".save")
    assert download.value.suggested_filename == "picture-maps.zip"
    with zipfile.ZipFile(download.value.path()) as packed:
        assert set(packed.namelist()) == {"picture.npy", "picture.png", "picture.json"}
        scores = np.load(io.BytesIO(packed.read("picture.npy")))
    expected = explainer.explain(explainer.read_image(PICTURE).tensor, budget=SECONDS).scores
    assert np.array_equal(scores, expected)


def test_bad_pictures_are_named(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with page.expect_response("**/api/pictures*"):
        page.set_input_files(".file", str(tmp_path / "notes.txt"))
    says(page, "error", "notes.txt: not a readable picture")


def test_two_tabs_work_at_once_and_a_closed_one_ends_its_map(opened, served, monkeypatch):
    def slowly(*arguments):
        for state in refined(*arguments):
            time.sleep(0.1)  # a map that is made before anybody can stop it ends by itself
            yield state

    monkeypatch.setattr(app, "refined", slowly)
    closing, staying = opened(), opened()
    for page in (closing, staying):
        page.fill("#stride", "1")
        page.set_input_files(".file", str(PICTURE))
    for page in (closing, staying):
        says(page, "status", "positions evaluated, about")
    assert served.service.desk.jobs == 2
    staying.click(".stop")
    says(staying, "status", "Stopped")
    assert soon(lambda: served.service.desk.jobs <= 1)
    closing.close()
    assert soon(lambda: served.service.desk.jobs == 0)


def test_a_wrong_address_is_explained(opened, served):
    page = opened()
    page.goto(f"{served.root}/?#wrong")
    assert soon(lambda: "lacks its token" in page.inner_text("#failure"))


def test_nothing_but_the_server_is_asked(opened, served):
    page = opened()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    give(page)
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((served.root, f"blob:{served.root}"))] == []
    assert not any(served.token in url for url in asked if "#" not in url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
def test_axe_finds_no_barrier(opened, axe, scheme, width):
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.check("#compare")
    give(page)
    point(page, 90, 83)
    page.click("summary")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    told = [(one["id"], one["help"], [node["html"] for node in one["nodes"]]) for one in found]
    assert told == []
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0, "nothing is beyond the right edge"


def test_the_map_on_the_page_is_the_server_s(page, served):
    give(page)
    name = served.give(PICTURE)
    *_, last = served.states(picture=name)
    scores = scores_of(last)
    page.focus(".map")
    for number, key in enumerate(["ArrowRight"] * 3 + ["ArrowDown"] * 3):
        page.keyboard.press(key)
        row, column, score = read(page)
        assert score == pytest.approx(scores[row // 4, column // 4], rel=5e-3), number
