"""VGG16, ResNet18 and InceptionV3 with random weights, from both exporters, with logits and with softmax."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kcompiler
from kcompiler.runtime.measuring.check import check, sample_positions

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
CASES = [
    pytest.param(name, exporter, head, marks=pytest.mark.slow if exporter == "dynamo" else ())
    for name in ("resnet18", "inception_v3", "vgg16")
    for exporter, head in (("torchscript", "--logits"), ("dynamo", "--softmax"))
]


BY_CUDA = [(name, "torchscript") for name in ("resnet18", "inception_v3")] + [("vgg16", "dynamo")]
"""Those that are compiled for CUDA, too: VGG16's takes minutes."""
PAPER = {"vgg16": {4: 8.59, 16: 6.52, 32: 5.04}}
"""Redundancy by patch in figure 3 of the paper (SIGMOD 2019)."""


def export(folder, name, exporter, head):
    """In a process of its own: the exporters warn, and keep memory."""
    path = folder / f"{name}.onnx"
    command = [sys.executable, "-m", "models.export", name, "-o", path, "--exporter", exporter, head]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(("name", "exporter", "head"), CASES)
def test_64_positions_equal_full_inference(name, exporter, head, tmp_path):
    path = export(tmp_path, name, exporter, head)
    device = "cuda" if (name, exporter) in BY_CUDA else "cpu"
    bundle = kcompiler.compile(path, patch=16, device=device)
    for compiled_for in {"cpu", device}:
        explainer = kcompiler.load(bundle, providers=["cpu"], compiled_for=compiled_for)
        assert (explainer.exact.variant.device, explainer.exact.variant.whole) == (compiled_for, False)
        positions = sample_positions(explainer.manifest.shape[1:], (16, 16), 64, seed=1)
        comparison = check(explainer, positions, seed=1)
        assert comparison.agrees, f"{compiled_for}: {comparison.reason}"
    convolutions = [node for node in bundle.report.nodes if node.operator == "Conv"]
    assert sum(node.incremental for node in convolutions) > len(convolutions) / 3
    counted = {one.patch: one.paper for one in bundle.report.redundancies}  # as inspect prints it
    for patch, redundancy in PAPER.get(name, {}).items():
        assert counted[patch] == pytest.approx(redundancy, rel=0.01)


@pytest.mark.parametrize("patch", [pytest.param((1, 1), marks=pytest.mark.slow), (8, 40)])
def test_static_extents_and_other_patches(patch, tmp_path):
    path = export(tmp_path, "resnet18", "torchscript", "--logits")
    bundle = kcompiler.compile(path, patch=patch, extents="static")
    explainer = kcompiler.load(bundle, providers=["cpu"])
    comparison = check(explainer, sample_positions((224, 224), patch, 64, seed=2), seed=2)
    assert comparison.agrees, comparison.reason
