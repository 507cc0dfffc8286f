"""Write a torch image classifier as one ONNX file, by either of torch's exporters."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import nn

Exporter = Literal["torchscript", "dynamo"]

OPSET = 18
INPUT_NAME = "image"


def export_classifier(
    network: nn.Module,
    path: Path,
    *,
    size: tuple[int, int],
    exporter: Exporter = "torchscript",
    output_name: str = "logits",
    dynamic_batch: bool = False,
    keep_batch_norm: bool = False,
) -> None:
    """Write ``network`` in evaluation mode to ``path``, with input ``image`` [1 or batch, 3, height, width].

    Both exporters fold batch normalisation into the convolutions; with ``keep_batch_norm`` they leave it, as other
    tools and older torch versions do. The weights are inside the file. It is written in a folder beside ``path`` and
    then renamed, so that ``path`` never holds half a model.
    """
    # Two images where the batch is free: torch.export takes an example's 1 for a constant.
    example = torch.zeros(2 if dynamic_batch else 1, 3, *size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        with _quiet_exporters():
            settings = (_dynamo if exporter == "dynamo" else _torchscript)(output_name, dynamic_batch, keep_batch_norm)
            torch.onnx.export(
                network.eval(), (example,), unfinished, opset_version=OPSET, input_names=[INPUT_NAME],
                output_names=[output_name], **settings,
            )  # fmt: skip
        os.replace(unfinished, path)


def _torchscript(output_name: str, dynamic_batch: bool, keep_batch_norm: bool) -> dict[str, Any]:
    """Arguments of torch.onnx.export."""
    return {
        "dynamo": False,
        # PRESERVE is the one mode that keeps the layers; the network itself is in evaluation mode already.
        "training": torch.onnx.TrainingMode.PRESERVE if keep_batch_norm else torch.onnx.TrainingMode.EVAL,
        "dynamic_axes": {INPUT_NAME: {0: "batch"}, output_name: {0: "batch"}} if dynamic_batch else None,
    }


def _dynamo(output_name: str, dynamic_batch: bool, keep_batch_norm: bool) -> dict[str, Any]:
    """Arguments of torch.onnx.export."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    return {"dynamo": True, "optimize": not keep_batch_norm, "external_data": False, "verbose": False, "dynamic_shapes": shapes}


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    """Silence what both exporters say about themselves; their failures are exceptions and still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
