"""VGG16 and VGG19 (Simonyan and Zisserman, 2015), by default without batch normalisation as in the paper.

Parameter names and shapes are torchvision's, so its state dicts load with ``strict=True``: ``vgg16``'s, and with
``batch_norm`` those of ``vgg16_bn``; VGG19 likewise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Stages = Sequence[Sequence[int]]
"""Output channels of the 3x3 convolutions of each stage; a 2x2 max pool ends every stage."""

STAGES_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Configuration D of the paper."""

STAGES_19 = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))
"""Configuration E of the paper."""

HEAD_MAP = 7
"""Rows and columns of the feature map that the first fully connected layer was shaped for."""


class VGG(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 32, 224 in the paper."""

    def __init__(self, stages: Stages, num_classes: int, batch_norm: bool) -> None:
        super().__init__()
        self.features = _convolution_stages(stages, batch_norm)
        self.classifier = nn.Sequential(
            nn.Linear(stages[-1][-1] * HEAD_MAP * HEAD_MAP, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(adaptive_average_pool(self.features(image), HEAD_MAP).flatten(1))
        return logits


class VGG16(VGG):
    """Of 13 convolutions and three fully connected layers."""

    def __init__(self, num_classes: int = 1000, batch_norm: bool = False) -> None:
        super().__init__(STAGES_16, num_classes, batch_norm)


class VGG19(VGG):
    """Of 16 convolutions and three fully connected layers."""

    def __init__(self, num_classes: int = 1000, batch_norm: bool = False) -> None:
        super().__init__(STAGES_19, num_classes, batch_norm)


class VGG16GlobalPool(nn.Module):
    """VGG16's convolutions under a global average pool and one fully connected layer, for images of any size from 32.

    Image [N, 3, H, W] to logits [N, num_classes]. Parameters of the convolutions have torchvision's names.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = _convolution_stages(STAGES_16)
        self.classifier = nn.Linear(STAGES_16[-1][-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(self.features(image), 1).flatten(1))
        return logits


def _convolution_stages(stages: Stages, batch_norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 3
    for stage in stages:
        for out_channels in stage:
            layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            in_channels = out_channels
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def adaptive_average_pool(maps: Tensor, size: int) -> Tensor:
    """Average pool [N, C, H, W] to [N, C, size, size], exportable from any H and W.

    ONNX has no adaptive pool, and the exporters lower torch's only where ``size`` divides H and W (at 224 pixels it
    does). Elsewhere the same averages are two matrix products with constant weights.
    """
    height, width = maps.shape[-2:]
    if height % size == 0 and width % size == 0:
        return functional.adaptive_avg_pool2d(maps, size)
    return _averaging_matrix(height, size).to(maps) @ maps @ _averaging_matrix(width, size).to(maps).T


def _averaging_matrix(inputs: int, outputs: int) -> Tensor:
    """Weights [outputs, inputs] of torch's adaptive average: window i is floor(i*n/m) to ceil((i+1)*n/m)."""
    # Made from plain numbers: the TorchScript exporter crashes on a traced tensor that is filled in place.
    rows = []
    for row in range(outputs):
        start, stop = row * inputs // outputs, -(-(row + 1) * inputs // outputs)
        rows.append([float(start <= column < stop) / (stop - start) for column in range(inputs)])
    return torch.tensor(rows)
