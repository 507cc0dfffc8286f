"""Labels in any script: drawn by a font that has their letters, or spelt out; never as empty boxes without a word."""

from __future__ import annotations

import numpy as np
import pytest

from kcompiler.runtime.maps import fonts
from kcompiler.runtime.maps.fonts import USUAL, readable


@pytest.fixture
def only_the_usual(monkeypatch):
    monkeypatch.setattr(fonts, "_families", dict)


@pytest.mark.parametrize("text", ["cat", "\u00c4rger", "\u0437\u0434\u043e\u0440\u043e\u0432", "e\u0301t\u00e9", "$x$"])
def test_what_the_usual_font_has_is_left_alone(text, only_the_usual):
    assert readable(text).families == (USUAL,)
    assert readable(text).note == ""
    assert len(readable(text).text) <= len(text)


@pytest.mark.parametrize(
    ("text", "spelt", "script"),
    [
        ("\u5065\u5eb7 1", "\\u{5065}\\u{5eb7} 1", "Chinese"),
        ("\ud55c", "\\u{d55c}", "Hangul"),
        ("a\nb", "a\\u{a}b", "Control"),
        ("\U0001f9ff", "\\u{1f9ff}", "Nazar"),
    ],
)
def test_what_no_font_has_is_spelt_and_said(text, spelt, script, only_the_usual):
    found = readable(text)
    assert found.text == spelt
    assert script in found.note


def test_another_font_is_taken_where_it_has_the_letters(monkeypatch):
    glyphs = {USUAL: frozenset(range(128)), "One": frozenset({0x5065}), "Two": frozenset({0x5EB7})}
    monkeypatch.setattr(fonts, "_families", lambda: {"One": "one.ttf", "Two": "two.ttf"})
    monkeypatch.setattr(fonts, "_glyphs", glyphs.__getitem__)
    found = readable("\u5065\u5eb7!")
    assert (found.text, found.families, found.note) == ("\u5065\u5eb7!", (USUAL, "One", "Two"), "")


def test_scripts_that_want_shaping_are_spelt_where_matplotlib_does_not_shape(monkeypatch):
    text = "\u0645\u0631\u062d\u0628\u0627"
    monkeypatch.setattr(fonts, "_matplotlib", lambda: (3, 10))
    assert readable(text).text.startswith("\\u{645}")
    monkeypatch.setattr(fonts, "_matplotlib", lambda: (3, 11))
    assert readable(text).text == text


def test_fonts_that_only_draw_boxes_are_not_taken():
    assert not any(name.startswith("Last Resort") for name in fonts._families())
    assert np.all([ord("a") in fonts._glyphs(USUAL)])
