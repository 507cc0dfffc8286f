"""Every model that once made a traceback, a hang or the end of a process is right, or refused in a line, within limits."""

from __future__ import annotations

import os
import re

import pytest

from tests.fuzz import known
from tests.fuzz.runner import ERROR, RIGHT, Limits, outcomes

PATIENT = Limits(seconds=30.0)
"""Tests assert no times: a hang is what takes far longer than it should."""
SLOW = re.compile(r"(\d+ Relus.*|image of 4096 x 4096|endless loop.*|\d+ bodies.*|.* (-1|2147483648|-9223372036854775808))$")
VALID = re.compile(r"(2000 Relus side by side|300 Relus|.* named .*|batch of 2\^12|name of .*|names of newlines|10 bodies.*)$")
SAID = {
    "group 0": r"node conv \(Conv\): attribute group is 0, expected 1 to",
    "attribute reference group": r"attribute group refers to outer of a function, and this is none",
    "external data, negative offset": r"weight weights has the offset '-4', expected a number of bytes",
    "external data, textual offset": r"has the offset 'four'",
    "external data, negative length": r"has the length '-432'",
    "external data, NUL": r"which is no file name \(embedded null byte\)",
    "external data, long name": r"weight weights lies in 'nnn.* \.\.\. ",
    "external data, link loop": r"which is no file name",
    "external data, sparse": r"has 1,099,511,627,776 bytes, of which weights take 432",
    "image of 2147483648 x 1": r"expected at most 32,768 along an axis and",
    "functions that double 25 times": r"has more than 20,000 nodes, functions expanded",
    "functions that call each other": r"function f\d calls itself",
    "Div int64 -9223372036854775808 by -1, folded": r"ends the process that loads it \(SIGFPE\)",
    "Div int64 -9223372036854775808 by -1, of the image": r"ends the process that loads it \(SIGFPE\)",
    "Div of a shape": r"ends the process that loads it \(SIGFPE\)",
    "empty output [1, 0]": r"output scores has no numbers",
    "opsets (('', 18), ('', 11))": r"imports the versions 11 and 18 of the operators of ONNX",
    "weights of [-4, 3, 3, 3]": r"weight weights has the shape \[-4, 3, 3, 3\]",
    "sparse file": r"protobuf reads less than",
}
"""What is said of some of them, by name."""


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    """Its thread would be lost in forked children."""
    monkeypatch.setitem(os.environ, "ORT_DISABLE_TELEMETRY", "1")


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("maker", sorted(known.MAKERS))
def test_known_models_are_right_or_refused_in_a_line(maker, slow):
    cases = [case for case in known.MAKERS[maker]() if slow == (SLOW.match(case[0]) is not None and case[0] not in SAID)]
    found = {outcome.name: outcome for outcome in outcomes("known-models", cases, PATIENT)}
    assert {name: outcome for name, outcome in found.items() if outcome.kind not in (RIGHT, ERROR)} == {}
    assert [name for name, outcome in found.items() if VALID.match(name) and outcome.kind != RIGHT] == []
    assert [name for name in SAID.keys() & found.keys() if not re.search(SAID[name], found[name].why)] == []


def test_what_is_said_is_said_of_known_models():
    assert SAID.keys() <= {name for name, _ in known.cases()}
