"""Spans against brute force, and against ONNX Runtime itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser
from onnxruntime import InferenceSession

from kcompiler.passes.normalising.pads import ceil_outputs
from kcompiler.passes.regions.geometry import Spans, Window


def spans_of(starts: list[int], stops: list[int], size: int) -> Spans:
    """Spans by themselves, the patch in their middles."""
    start, stop = np.array(starts), np.array(stops)
    return Spans(start, stop, size, (start + stop - 1) / 2)


@st.composite
def windows(draw):
    """A window that ONNX would accept, and the padding behind its input."""
    kernel, stride, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    reach = (kernel - 1) * dilation + 1
    before, after = draw(st.integers(0, reach - 1)), draw(st.integers(0, reach - 1))
    inputs = draw(st.integers(max(1, reach - before - after), 40))
    ceil_mode = draw(st.booleans())
    outputs = (inputs + before + after - reach) // stride + 1
    if ceil_mode:
        outputs = ceil_outputs(inputs, reach, stride, before, after)
    return Window(inputs, outputs, kernel, stride, dilation, before)


@st.composite
def windows_and_spans(draw):
    window = draw(windows())
    start = draw(st.integers(0, window.inputs - 1))
    return window, start, draw(st.integers(start + 1, window.inputs))


def touching(window: Window, start: int, stop: int) -> list[int]:
    """Outputs that read a cell of [start, stop), one tap at a time."""
    return [
        output
        for output in range(window.outputs)
        if any(start <= output * window.stride - window.pad + tap * window.dilation < stop for tap in range(window.kernel))
    ]


@settings(max_examples=3000, deadline=None)
@given(windows_and_spans())
def test_changed_spans_cover_exactly_what_windows_touch(case):
    window, start, stop = case
    spans = window.changed(spans_of([start], [stop], window.inputs))
    predicted = range(int(spans.start[0]), int(spans.stop[0]))
    touched = touching(window, start, stop)
    assert set(touched) <= set(predicted)
    assert 0 <= predicted.start <= predicted.stop <= window.outputs
    if window.dilation == 1 or stop - start >= window.dilation:
        assert len(predicted) == len(touched), "no cell too many, where windows have no holes that the span fits into"


@settings(max_examples=500, deadline=None)
@given(windows_and_spans())
def test_windows_of_changed_outputs_lie_in_their_input_extent(case):
    window, start, stop = case
    spans = window.changed(spans_of([start], [stop], window.inputs)).at_least_one()
    first, count = int(spans.start[0]), int(spans.lengths[0])
    taps = [o * window.stride + t * window.dilation for o in range(first, first + count) for t in range(window.kernel)]
    assert max(taps) - min(taps) + 1 == window.input_extent(count)
    assert window.pads or (min(taps) >= 0 and max(taps) < window.inputs + window.pad)


@settings(max_examples=500, deadline=None)
@given(windows(), st.integers(0, 3), st.integers(0, 3))
def test_counted_taps_against_one_by_one(window, before, after):
    counted = [
        sum(-before <= o * window.stride - window.pad + t * window.dilation < window.inputs + after for t in range(window.kernel))
        for o in range(window.outputs)
    ]
    assert window.counted_taps(before, after).tolist() == counted


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_union_is_the_smallest_span_over_both(cases):
    first = spans_of([min(a, b) for a, b, _, _ in cases], [max(a, b) for a, b, _, _ in cases], 9)
    second = spans_of([min(c, d) for *_, c, d in cases], [max(c, d) for *_, c, d in cases], 9)
    union = first.union(second)
    for index in range(len(cases)):
        cells = {*range(first.start[index], first.stop[index]), *range(second.start[index], second.stop[index])}
        expected = (min(cells), max(cells) + 1) if cells else None
        found = (int(union.start[index]), int(union.stop[index]))
        assert found == expected if expected else found[0] == found[1]


@settings(max_examples=500, deadline=None)
@given(windows_and_spans(), st.integers(1, 12))
def test_capped_spans_are_the_part_nearest_to_the_projected_centre(case, limit):
    window, start, stop = case
    spans = window.changed(spans_of([start], [stop], window.inputs))
    capped = spans.capped(limit)
    cells = range(int(spans.start[0]), int(spans.stop[0]))
    kept = range(int(capped.start[0]), int(capped.stop[0]))
    assert len(kept) == min(limit, len(cells))
    assert set(kept) <= set(cells)
    if kept:
        farthest = max(abs(cell - spans.centre[0]) for cell in kept)
        assert all(abs(cell - spans.centre[0]) >= farthest - 1 for cell in set(cells) - set(kept))
    whole = spans.capped(window.outputs)
    assert (whole.start, whole.stop) == (spans.start, spans.stop)


def test_centres_are_projected_through_strides_and_pads():
    """An output's window is centred on the input cell that projects to it."""
    window = Window(40, 20, 3, 2, 1, 1)
    for output in range(20):
        centre = output * 2 - 1 + 1.0
        spans = Spans(np.array([0]), np.array([1]), 40, np.array([centre]))
        assert window.changed(spans).centre[0] == output


def test_patch_spans():
    spans = Spans.of_patch(10, 4)
    assert spans.before == 3
    assert spans.start[spans.whole].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert spans.lengths[spans.whole].tolist() == [4] * 7
    assert spans.start.tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert spans.lengths.tolist() == [1, 2, 3, *[4] * 7, 3, 2, 1]


def test_paper_widths_of_the_first_layers_of_vgg16():
    """Patch 16 on 224 pixels: 18 and 20 after two 3x3 convolutions, then a 2x2 pool (SIGMOD 2019, section 3)."""
    convolution, pool = Window(224, 224, 3, 1, 1, 1), Window(224, 112, 2, 2, 1, 0)
    assert convolution.padded_width(16) == 18
    assert pool.padded_width(20) == 11


ONE_NODE = {
    "conv 3": "Conv <pads=[1,1,1,1]> (image, w3)",
    "conv 3 stride 2": "Conv <pads=[1,1,1,1], strides=[2,2]> (image, w3)",
    "conv 3 dilation 2": "Conv <pads=[2,2,2,2], dilations=[2,2]> (image, w3)",
    "conv 2 stride 3": "Conv <strides=[3,3]> (image, w2)",
    "average pool, ceil": "AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (image)",
}


@pytest.mark.parametrize("row", range(9))
@pytest.mark.parametrize("name", ONE_NODE)
def test_rows_that_move_lie_inside_the_predicted_span(name, row):
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 18]>
        one (float[1,1,9,9] image, float[1,1,3,3] w3, float[1,1,2,2] w2) => (float[1,1,H,W] out) {{ out = {ONE_NODE[name]} }}
    """)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(row)
    feeds = {"image": rng.random((1, 1, 9, 9)), "w3": rng.random((1, 1, 3, 3)) + 0.1, "w2": rng.random((1, 1, 2, 2)) + 0.1}
    feeds = {key: value.astype(np.float32) for key, value in feeds.items()}
    before = session.run(None, feeds)[0]
    feeds["image"][:, :, row] += 10.0
    moved = np.flatnonzero((session.run(None, feeds)[0] != before).any(axis=(0, 1, 3))).tolist()
    pads, stride, dilation = (
        [int("conv 3" in name)] * 1,
        1 + ("stride 2" in name or "pool" in name) + 2 * ("stride 3" in name),
        1 + ("dilation" in name),
    )
    window = Window(9, before.shape[2], 2 if "conv 2" in name else 3, stride, dilation, pads[0] * dilation)
    spans = window.changed(spans_of([row], [row + 1], 9))
    predicted = list(range(int(spans.start[0]), int(spans.stop[0])))
    assert set(moved) <= set(predicted)
    assert dilation > 1 or moved == predicted
