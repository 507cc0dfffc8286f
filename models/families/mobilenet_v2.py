"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, 2018), of width 1."""

from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import convolution

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, blocks, and stride of the first block (table 2 of the paper)."""

LAST_CHANNELS = 1280


class MobileNetV2(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, stride=2, activation=nn.ReLU6)]
        channels = 32
        for expansion, out_channels, blocks, first_stride in STAGES:
            for number in range(blocks):
                layers.append(InvertedResidual(channels, out_channels, expansion, stride=1 if number else first_stride))
                channels = out_channels
        layers.append(convolution(channels, LAST_CHANNELS, kernel_size=1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(self.features(image), 1).flatten(1))
        return logits


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 and linear 1x1 convolution, around a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [convolution(in_channels, hidden, kernel_size=1, activation=nn.ReLU6)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            convolution(hidden, hidden, stride=stride, groups=hidden, activation=nn.ReLU6),
            nn.Conv2d(hidden, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        residual: Tensor = self.conv(maps)
        return maps + residual if self.has_shortcut else residual
