"""Places against their definition, computed position by position."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from emitting import regions

from kcompiler.passes.emission.places import Places
from kcompiler.passes.graphs.emit import Emitter
from kcompiler.passes.regions.geometry import Spans, Window
from kcompiler.passes.rewriting.store import WeightsFile, write_model

SIZE, PATCH = 24, 5


def axes():
    """Spans of the image axis, of a strided convolution behind it, and of another behind that."""
    image = Spans.of_patch(SIZE, PATCH)
    first = Window(SIZE, 12, kernel=3, stride=2, pad=1).changed(image).at_least_one()
    return [image, first, Window(12, 12, kernel=5, pad=2).changed(first)]


def test_a_model_with_hundreds_of_numbers_by_place_can_be_loaded(tmp_path):
    image, _, _ = axes()
    emit = Emitter(gs.Graph(name="many", opset=20))
    places = Places(emit, emit.input("positions", np.int64, ["batch"]), image.before, len(image.start), "tight")
    number = places.number(image)
    emit.graph.outputs = [emit("Sum", *(emit("Cast", places.origins(number, 3, offset=n), to=1) for n in range(300)))]
    emit.graph.outputs[0].dtype, emit.graph.outputs[0].shape = np.dtype(np.float32), ["batch", 1, 1]
    places.finish()
    with WeightsFile(tmp_path) as weights:
        write_model(emit.graph.cleanup().toposort(), tmp_path / "many.onnx", weights)
    session = onnxruntime.InferenceSession(str(tmp_path / "many.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"positions": np.array([4])})
    assert found.item() == 300 * 4 + sum(range(300))


@pytest.mark.parametrize("extents", ["tight", "static"])
@pytest.mark.parametrize("batch", [[0], [-4, 3, 19], [23, 7], list(range(-4, 24))])
def test_numbers_by_place(extents, batch):
    image, first, second = axes()
    emit = Emitter(gs.Graph(opset=20))
    positions = emit.input("positions", np.int64, ["batch"])
    places = Places(emit, positions, image.before, len(image.start), extents)
    one, two = places.number(first), places.number(second)
    assert places.number(first) == one != two
    asked = {
        "origins": places.origins(two, rank=3, factor=2, offset=-1),
        "distance": places.differences(two, one, rank=5, factor=1, offset=10),
        "from the start": places.differences(None, one, rank=3, factor=1, offset=7),
        "cells": places.largest(two, factor=2, offset=1),
        "tiles": places.largest(two, tile=4),
        "ramp": places.ramp(3),
    }
    assert places.origins(two, rank=3, factor=2, offset=-1) is asked["origins"], "asked for twice, computed once"
    emit.graph.outputs = [emit("Identity", value) for value in asked.values()]
    for value in emit.graph.outputs:
        value.dtype = np.dtype(np.int32)
    places.finish()
    model = gs.export_onnx(emit.graph.cleanup().toposort(), do_type_check=False, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(asked, session.run(None, {"positions": np.array(batch)}), strict=True))

    places_of = np.array(batch)
    (origin_one, _), (origin_two, extent) = (regions(spans, places_of, extents) for spans in (first, second))
    shape = [len(batch), 1, 1]
    np.testing.assert_array_equal(found["origins"], (origin_two * 2 - 1).reshape(shape))
    np.testing.assert_array_equal(found["distance"], (origin_two + 10 - origin_one).reshape([*shape, 1, 1]))
    np.testing.assert_array_equal(found["from the start"], (7 - origin_one).reshape(shape))
    np.testing.assert_array_equal(found["ramp"], np.arange(len(batch)).reshape(shape))
    assert found["cells"].tolist() == [extent * 2 + 1]
    assert found["tiles"].tolist() == [-(-extent // 4)]
