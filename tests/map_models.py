"""Map models of small networks, for tests: compiled, exported, opened and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from networks import NETWORKS, Builder
from onnxruntime import InferenceSession, SessionOptions

import kcompiler
from kcompiler.deployment import Deployment, export_map
from kcompiler.runtime.deployed import Card
from kcompiler.runtime.explainer import Explainer

SIZE, FILL = (17, 24), (0.7, -1.2, 3.0)


def two_classes(b: Builder) -> str:
    x = b.node("GlobalAveragePool", b.relu(b.conv("image", 4, pads=[1, 1, 1, 1])))
    return b.node("Sigmoid", b.node("Gemm", b.node("Flatten", x), b.weight(4, 1), b.weight(1)))


def softmax(b: Builder) -> str:
    x = b.node("GlobalAveragePool", b.relu(b.conv("image", 4, pads=[1, 1, 1, 1])))
    return b.node("Softmax", b.node("Gemm", b.node("Flatten", x), b.weight(4, 5), b.weight(5)))


OF = {**NETWORKS, "two classes": two_classes, "softmax": softmax}


def compiled(folder: Path, network: str, size: tuple[int, int] = SIZE, **options: object) -> Path:
    b = Builder()
    classes = 5 if network in NETWORKS else None
    onnx.save(b.model(OF[network](b), *size, classes=classes, batch="N"), folder / "model.onnx")
    return kcompiler.compile(folder / "model.onnx", patch=5, **options).save(folder / "model.kc")


def session(folder: Path) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern, options.log_severity_level = 1, False, 3
    return InferenceSession(folder / "map.onnx", options, providers=["CPUExecutionProvider"])


def run(opened: InferenceSession, image: np.ndarray, target: int = -1, batches=(0, 1), fill=FILL, known=None):
    """All outputs by name; ``image`` may be a picture, ``known`` are scores that a drill-down has already."""
    feeds = {"fill": np.array(fill, np.float32), "target": np.array([target]), "batches": np.array(batches)}
    feeds |= {} if known is None else {"known": known}
    feeds["picture" if image.dtype == np.uint8 else "image"] = image
    names = [value.name for value in opened.get_outputs()]
    return dict(zip(names, opened.run(None, feeds), strict=True))


def exported(bundle: Path, **options: object) -> tuple[InferenceSession, Card, Explainer]:
    """The map model's session, its card, and the driver that it is compared with."""
    out = bundle.parent / "out"
    card = export_map(bundle, out, Deployment(**options))
    return session(out), card, Explainer(bundle, providers=["cpu"], threads=1, graphs=True)
