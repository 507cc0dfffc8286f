"""EfficientNet-B0 (Tan and Le, 2019)."""

from torch import Tensor, nn

from models.families.inverted_residual import InvertedResidual
from models.families.layers import SqueezeExcitation, convolution

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion, output channels, blocks, kernel, and stride of the first block (table 1 of the paper)."""

FIRST_CHANNELS, LAST_CHANNELS = 32, 1280


class EfficientNetB0(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers = [convolution(3, FIRST_CHANNELS, stride=2, activation=nn.SiLU)]
        channels = FIRST_CHANNELS
        for expansion, out_channels, blocks, kernel_size, first_stride in STAGES:
            stage = [_block(channels, expansion, out_channels, kernel_size, first_stride)]
            stage += [_block(out_channels, expansion, out_channels, kernel_size, stride=1) for _ in range(blocks - 1)]
            layers.append(nn.Sequential(*stage))
            channels = out_channels
        layers.append(convolution(channels, LAST_CHANNELS, kernel_size=1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(image)).flatten(1))
        return logits


def _block(in_channels: int, expansion: int, out_channels: int, kernel_size: int, stride: int) -> InvertedResidual:
    hidden = in_channels * expansion
    gates = SqueezeExcitation(hidden, in_channels // 4, activation=nn.SiLU)
    return InvertedResidual(in_channels, hidden, out_channels, kernel_size, stride, nn.SiLU, gates)
