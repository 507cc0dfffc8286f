"""The image classifiers of Hugging Face transformers, random weights: another maker's graphs in the table of families.

python tests/bench/hugging_face.py [CLASS...] [--exporter torchscript dynamo] [--rounds N]

Needs transformers, which is no dependency of the project. Configurations are the library's own defaults.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from families import line, measured
from torch import nn

from models.onnx_export import export_classifier
from models.random_weights import randomise

CLASSES = ("ResNet", "RegNet", "MobileNetV1", "MobileNetV2", "ConvNext", "ConvNextV2", "EfficientNet", "ViT")
SIDE = 224


class Logits(nn.Module):
    """The logits alone of what a transformers model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image).logits
        return logits


def build(name: str) -> nn.Module:
    """The classifier of the family ``name`` with the default configuration, for pictures of 224 x 224."""
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=1000)
    if hasattr(config, "image_size"):
        config.image_size = SIDE
    network = Logits(getattr(transformers, f"{name}ForImageClassification")(config))
    randomise(network, 0)
    return network


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=CLASSES, metavar="CLASS", help=f"(default: {', '.join(CLASSES)})")
    parser.add_argument("--exporter", nargs="+", choices=("torchscript", "dynamo"), default=["torchscript"])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args()
    agrees = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            for exporter in options.exporter:
                path = Path(folder, f"{name}-{exporter}.onnx")
                export_classifier(build(name), path, size=(SIDE, SIDE), exporter=exporter)
                row = measured(name, f"transformers, {exporter}", path, options.rounds)
                print(line(row), flush=True)
                agrees &= row.agrees
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
