"""Reports: what a reader finds in them, in a browser that has no network."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from npm import npm

from kcompiler.runtime.inputs.view import View
from kcompiler.runtime.maps.answer import Answer, Output
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.page import page
from kcompiler.runtime.maps.style import Style

VIEW = View((100, 160), (20, 24), (5.0, 5.0), (0.0, 20.0))
AXE = "axe-core@4.14.1"
HOSTILE = '<img src=x onerror="document.title=1"></script><script>document.title=2</script>'
PICTURE = np.random.default_rng(0).integers(0, 256, (100, 160, 3)).astype(np.uint8)


def heat_map(seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((5, 6)).astype(np.float32)
    sampled = np.ones((5, 6), np.bool_)
    sampled[0, 1] = False
    scores[4, 5] = np.inf
    return HeatMap(
        scores=scores, unoccluded=1.5, target=2, label=HOSTILE, ys=np.arange(5) * 3,
        xs=np.arange(6) * 4, patch=(4, 4), image=(20, 24), seconds=0.25, sampled=sampled, score="logit", warnings=("be careful",),
        answer=Answer("probability", Output("a", 0.75, 1.5), (Output("a", 0.75, 1.5), Output("b", float("nan"), 0.1)), 1e-5),
    )  # fmt: skip


def shown(seed=0, name="one.png"):
    return heat_map(seed).in_report(name, PICTURE, VIEW, {"settings: stride": "[3, 4]", "note": HOSTILE})


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page from disk in a browser without network; fails where the page complains."""
    contexts, complaints = [], []

    def opens(html: str, **settings):
        (tmp_path / "report.html").write_text(html, encoding="utf-8")
        context = browser.new_context(offline=True, **settings)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto((tmp_path / "report.html").as_uri())
        return tab

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []


def one_map(**changes):
    return replace(heat_map(), **changes).to_html(PICTURE, view=VIEW, name="one.png")


def many():
    maps = [shown(seed, f"{name}.png") for seed, name in enumerate("cab")]
    return "".join(page("three", [each.row for each in maps], iter(maps), Style(), [{"picture": HOSTILE, "error": HOSTILE}]))


def test_the_numbers_under_the_pointer_are_the_maps(opened):
    tab, expected = opened(one_map()), heat_map()
    stage = tab.locator(".stage .picture").bounding_box()
    for row, col in ((0, 0), (2, 3), (3, 5), (0, 1), (4, 5)):
        y, x = VIEW.to_picture(expected.ys[row] + 2, expected.xs[col] + 2)
        tab.mouse.move(stage["x"] + x / 160 * stage["width"], stage["y"] + y / 100 * stage["height"])
        text = tab.inner_text(".cursor").replace("\N{MINUS SIGN}", "-")
        score, drop = re.search(r"logit (\S+), drop ([-\w.]+\w)", text).groups()
        assert float(score) == pytest.approx(float(expected.scores[row, col]), rel=1e-5)
        assert float(drop) == pytest.approx(float(expected.drop[row, col]), rel=1e-5)
        assert f"(y {expected.ys[row]}, x {expected.xs[col]} of the model's image)" in text
        assert ("(estimated)" in text) == (not expected.sampled[row, col])
    tab.mouse.move(stage["x"] + 2, stage["y"] + 2)
    assert "no patch covered it" in tab.inner_text(".cursor")
    assert tab.is_hidden(".patch")


def test_the_map_is_read_by_keyboard(opened):
    tab = opened(one_map())
    tab.focus(".stage")
    for key in ("ArrowUp", "ArrowDown", "ArrowDown", "ArrowRight"):
        tab.keyboard.press(key)
    assert f"logit {heat_map().scores[2, 1]:.6g}" in tab.inner_text(".cursor").replace("\N{MINUS SIGN}", "-")


def test_the_slider_goes_from_map_to_picture(opened):
    tab = opened(one_map())
    tab.focus(".control input")
    tab.keyboard.press("Home")
    assert tab.eval_on_selector(".overlay", "image => getComputedStyle(image).opacity") == "0"
    tab.keyboard.press("End")
    assert tab.eval_on_selector(".overlay", "image => getComputedStyle(image).opacity") == "1"


def test_the_page_says_what_the_overlay_says(opened):
    tab = opened(one_map())
    text = tab.inner_text("main")
    for part in (heat_map().words.made, heat_map().words.approximate, "be careful", "Crossed: one position", "Hatched:", "0.75"):
        assert part in text
    assert HOSTILE in text
    assert tab.title().endswith(HOSTILE)


def test_in_a_notebook_it_is_a_frame(opened):
    tab = opened(f'<!doctype html><html lang="en"><title>notebook</title>{heat_map()._repr_html_()}</html>')
    frame = tab.frame_locator("iframe")
    frame.locator(".stage").focus()
    assert f"logit {heat_map().scores[0, 0]:.6g}" in frame.locator(".cursor").inner_text().replace("\N{MINUS SIGN}", "-")


def test_the_index_is_sorted_by_any_column_and_opens_maps(opened):
    tab = opened(many())
    column = "[...document.querySelectorAll('main > .wide tbody tr')].map(row => row.cells[{}].innerText)"
    assert tab.evaluate(column.format(0)) == ["c.png", "a.png", "b.png"]
    tab.click("text=picture")
    assert tab.evaluate(column.format(0)) == ["a.png", "b.png", "c.png"]
    tab.click("text=largest drop")
    ascending = [float(text) for text in tab.evaluate(column.format(4))]
    assert ascending == sorted(ascending)
    tab.focus("text=largest drop")
    tab.keyboard.press("Enter")
    assert [float(text) for text in tab.evaluate(column.format(4))] == ascending[::-1]
    assert tab.get_attribute("th:nth-child(5)", "aria-sort") == "descending"
    tab.click("text=b.png")
    assert tab.is_visible("#map-3 .stage")
    assert tab.is_hidden("#map-1 .stage")
    tab.hover("#map-3 .stage")
    assert "logit" in tab.inner_text("#map-3 .cursor")


def test_labels_and_names_are_text(opened):
    tab = opened(many())
    assert tab.title() == "three"
    assert tab.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE in tab.inner_text(".failures")


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("axe")
    with tarfile.open(folder / npm("pack", "--silent", "--pack-destination", folder, package=AXE)) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("html", [one_map, many])
def test_everybody_can_use_it(opened, axe, scheme, html):
    tab = opened(html(), color_scheme=scheme, bypass_csp=True)
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    tab.evaluate(axe)
    found = tab.evaluate("axe.run()")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_nothing_is_asked_of_a_network():
    html = many()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", re.sub(r"&lt;.*?&gt;", "", html))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy.startswith("default-src &#39;none&#39;") or policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
