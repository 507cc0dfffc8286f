"""Pictures that once took all memory, or for ever, and pictures and bundles changed at random: right, or refused in a line."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.fuzz import bundles, known_pictures, pictures
from tests.fuzz.runner import ERROR, RIGHT, Limits, outcomes
from tests.fuzz.test_known import no_telemetry  # noqa: F401

PATIENT = Limits(seconds=60.0)
SLOW = re.compile(r".*(as large as may be|bomb|scans|lies.dcm).*")
"""Seconds to make, or to read."""
SAID = {
    "10^12 numbers.npy": "declares 1000000 x 1000000 numbers, expected from 1 to",
    "5,000 digits.npy": "declares 9{40} x 3 numbers",
    "below zero.npy": "declares -4 x -4 numbers",
    "large items.npy": "expected numbers",
    "large texts.npy": "expected numbers",
    "of the largest size.npy": "ends after 64 of 512000000 bytes",
    "lies.nii": "declares 30000 x 30000 x 30000 x 1 bytes",
    "deep.dcm": "maximum recursion depth",
    "a pipe.png": "is a pipe or a device",
    "a pipe.npy": "is a pipe or a device",
    "a device.png": "is a pipe or a device",
    "a folder.dcm": "is a folder",
    "a bomb of one column.png": "declares 89000000 pixels along an axis, expected from 1 to 131072",
    "a bomb of one row.png": "declares 89000000 pixels along an axis",
    "a bomb below Pillow's limit.png": "declares 13300 x 13400 pixels, expected from 1 to 89478485 in all",
    "a deep bomb of gray.png": "declares 9400 x 9400 x 1 samples of 4 bytes, expected from 1 to 67108864 in all",
    "a thousand scans.jpg": "declares 4096 x 4096 x 1005 pixels in scans",
    "a bomb of an array.npz": "declares 23000 x 23000 numbers",
    "a larger bomb.nii.gz": "declares 2048 x 2048 x 2000 x 1 bytes",
    "a bomb.dcm": "unpacks to more than 268435456 bytes",
    "lies.dcm": r"frame 0 is of \(9000, 9000\) pixels, but the header says \(19, 27\)",
    "a bomb.tif": "parts that unpack to more than",
    "a bomb of another kind.tif": "parts that unpack to more than",
}
"""What is said of some of them."""


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.fuzz)])
def test_known_pictures_are_right_or_refused_in_a_line(slow):
    names = [name for name in known_pictures.MAKERS if slow == (SLOW.match(name) is not None)]
    cases = [(name, {name.replace(" ", "-"): known_pictures.MAKERS[name]()}) for name in names]
    found = {outcome.name: outcome for outcome in outcomes("known-pictures", cases, PATIENT)}
    assert {name: outcome for name, outcome in found.items() if outcome.kind not in (RIGHT, ERROR)} == {}
    assert [(name, found[name].why) for name in SAID.keys() & found.keys() if not re.search(SAID[name], found[name].why)] == []


def test_what_is_said_is_said_of_known_pictures():
    assert SAID.keys() <= known_pictures.MAKERS.keys()


@pytest.mark.parametrize(("kind", "few", "many"), [("pictures", 120, 2000), ("bundles", 30, 2000)])
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.fuzz)])
def test_changed_files_are_right_or_refused_in_a_line(kind, few, many, long):
    count, made = many if long else few, {"pictures": pictures.cases, "bundles": bundles.cases}[kind]
    found = list(outcomes(kind, list(itertools.islice(made(2019), count)), PATIENT))
    assert len(found) == count
    assert [outcome for outcome in found if outcome.kind not in (RIGHT, ERROR)] == []
    refused = {outcome.name for outcome in found if outcome.name.endswith("as it is") and outcome.kind != RIGHT}
    assert refused == ({"cmyk.jpg as it is", "two.npz as it is"} if kind == "pictures" else set())


def test_cases_are_those_of_their_seed():
    first, again, other = (list(itertools.islice(pictures.cases(seed), 80)) for seed in (1, 1, 2))
    assert [name for name, _ in first] == [name for name, _ in again]
    assert [name for name, _ in first] != [name for name, _ in other]
