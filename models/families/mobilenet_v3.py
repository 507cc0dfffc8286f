"""MobileNetV3-Small (Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, 2019)."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.families.inverted_residual import InvertedResidual
from models.families.layers import Activation, SqueezeExcitation, convolution

EPSILON = 0.001
"""Of the batch normalisations, as in TensorFlow."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of table 2 of the paper, which is one block."""

    kernel_size: int
    hidden: int
    out_channels: int
    gated: bool
    activation: Activation
    stride: int


BLOCKS = (
    Row(3, 16, 16, True, nn.ReLU, 2),
    Row(3, 72, 24, False, nn.ReLU, 2),
    Row(3, 88, 24, False, nn.ReLU, 1),
    Row(5, 96, 40, True, nn.Hardswish, 2),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 120, 48, True, nn.Hardswish, 1),
    Row(5, 144, 48, True, nn.Hardswish, 1),
    Row(5, 288, 96, True, nn.Hardswish, 2),
    Row(5, 576, 96, True, nn.Hardswish, 1),
    Row(5, 576, 96, True, nn.Hardswish, 1),
)

FIRST_CHANNELS, LAST_CHANNELS, HEAD_CHANNELS = 16, 576, 1024


class MobileNetV3Small(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = FIRST_CHANNELS
        layers: list[nn.Module] = [convolution(3, channels, stride=2, activation=nn.Hardswish, epsilon=EPSILON)]
        for row in BLOCKS:
            layers.append(_block(channels, row))
            channels = row.out_channels
        layers.append(convolution(channels, LAST_CHANNELS, 1, activation=nn.Hardswish, epsilon=EPSILON))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(LAST_CHANNELS, HEAD_CHANNELS), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(HEAD_CHANNELS, num_classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(image)).flatten(1))
        return logits


def _block(in_channels: int, row: Row) -> InvertedResidual:
    gates = SqueezeExcitation(row.hidden, _eights(row.hidden / 4), gate=nn.Hardsigmoid) if row.gated else None
    return InvertedResidual(
        in_channels, row.hidden, row.out_channels, row.kernel_size, row.stride, row.activation, gates, EPSILON
    )


def _eights(channels: float) -> int:
    """The nearest multiple of 8, at least 8, but the next one where that takes away more than 10%."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
