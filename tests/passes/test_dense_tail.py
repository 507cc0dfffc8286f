"""The dense tail takes maps in the layout that full inference would have them in."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from everywhere import assert_exact_everywhere
from networks import Builder

from kcompiler.options import Options


def tail(path: Path, reader: str, channels: int) -> Path:
    """Regions up to a Relu, behind which everything is dense."""
    builder = Builder()
    x = builder.relu(builder.conv("image", channels, pads=[1, 1, 1, 1]))
    y = builder.conv(x, channels, (20, 24), pads=[9, 11, 10, 12])
    if reader == "Concat":
        y = builder.node("Concat", x, y, axis=1, channels=2 * channels)
    elif reader != "Conv":
        y = builder.node(reader, x, y)
    onnx.save(builder.model(builder.relu(y), 20, 24), path)
    return path


@pytest.mark.parametrize(
    ("reader", "channels", "expected"),
    [
        *(("Add", 16, 1), ("Add", 12, 0), ("Conv", 16, 0)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("Concat", 32, 1), ("Mul", 16, 1), ("Max", 16, 0))),
    ],
)
def test_pasted_maps_enter_the_blocked_layout_where_what_reads_them_goes_on_in_it(reader, channels, expected, tmp_path):
    explainer = assert_exact_everywhere(
        tail(tmp_path / "model.onnx", reader, channels), Options(patch=(4, 6), dense_share=0.5, device="cuda")
    )
    report = explainer.manifest.report
    assert [node.operator for node in report.nodes if node.incremental] == ["Conv", "Relu"]
    assert report.incremental_operators.get("AveragePool", 0) == expected


def test_infinities_enter_as_they_are(tmp_path):
    builder = Builder()
    x = builder.node("Log", builder.relu(builder.conv("image", 16, pads=[1, 1, 1, 1])))
    y = builder.conv("image", 16, 11, pads=[5, 5, 5, 5])
    onnx.save(builder.model(builder.node("Add", x, y), 12, 12, classes=None), tmp_path / "model.onnx")
    explainer = assert_exact_everywhere(tmp_path / "model.onnx", Options(patch=(4, 4), dense_share=0.5))
    assert explainer.manifest.report.incremental_operators["AveragePool"] == 1
