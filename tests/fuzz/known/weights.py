"""Weights: files of them in wrong places, sizes and types."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.fuzz.cases import Case, link_loop, sparse
from tests.fuzz.known.making import WEIGHTS, files, plain


def external_data() -> Iterator[Case]:
    """Places in files of weights."""
    long = "n" * 5000
    entries: dict[str, dict[str, str]] = {
        "negative offset": {"offset": "-4"},
        "textual offset": {"offset": "four"},
        "huge offset": {"offset": str(1 << 62)},
        "offset past 64 bits": {"offset": "9" * 30},
        "offset of 5,000 digits": {"offset": "9" * 5000},
        "negative length": {"length": "-432"},
        "textual length": {"length": "all"},
        "short length": {"length": "3"},
        "huge length": {"length": str(1 << 62)},
        "NUL": {"location": "weights\0.bin"},
        "no location": {"location": ""},
        "folder": {"location": "."},
        "root": {"location": "/"},
        "parent": {"location": "../weights.bin"},
        "device": {"location": "/dev/zero"},
        "long name": {"location": long},
        "deep name": {"location": "/".join(["n"] * 5000)},
        "surrogate": {"location": "wei\u202eghts.bin"},
        "newline": {"location": "wei\nghts.bin"},
        "unknown key": {"colour": "blue"},
    }
    for name, entry in entries.items():
        yield f"external data, {name}", files(external(**{"location": WEIGHTS, **entry}), weights_bin=bytes(432))
    made = external(location=WEIGHTS)
    yield "external data, link loop", files(made, weights_bin=link_loop)
    yield "external data, link", files(made, weights_bin=lambda path: path.symlink_to("/etc/hostname"))
    yield "external data, pipe", files(made, weights_bin=os.mkfifo)
    yield "external data, folder", files(made, weights_bin=Path.mkdir)
    yield "external data, too short", files(made, weights_bin=bytes(10))
    yield "external data, nothing", files(made, weights_bin=b"")
    yield "external data, absent", files(made)
    yield "external data, sparse", files(made, weights_bin=sparse(1 << 40))
    made = external(location=WEIGHTS)
    made.graph.initializer[0].dims[0] = 1 << 36
    yield "external data, sparse and read", files(made, weights_bin=sparse(1 << 40))
    made = external(location=WEIGHTS)
    made.graph.initializer[0].ClearField("external_data")
    yield "external data, no entries", files(made)
    made = external(location=WEIGHTS)
    made.graph.initializer[0].external_data.add(key="location", value="other.bin")
    yield "external data, two locations", files(made, weights_bin=bytes(432))


def external(**entries: str) -> onnx.ModelProto:
    made = plain()
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    return made


def weight_sizes() -> Iterator[Case]:
    for dims in (
        [-4, 3, 3, 3],
        [1 << 40, 3, 3, 3],
        [1 << 31, 1 << 31, 3, 3],
        [0, 3, 3, 3],
        [4, 0, 3, 3],
        [4, 3, 0, 3],
        [4, 3, 3],
        [4] * 100,
    ):
        made = plain()
        del made.graph.initializer[0].dims[:]
        made.graph.initializer[0].dims.extend(dims)
        yield f"weights of {str(dims)[:40]}", files(made)
    made = plain()  # its other sizes stay unknown to inference
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(108, np.float32), "weights"))
    made.graph.node[0].ClearField("attribute")
    yield "weights of an axis", files(made)
    for kind in (0, 8, 10, 14, 23, 99, -1):
        made = plain()
        made.graph.initializer[0].data_type = kind
        yield f"weights of type {kind}", files(made)
