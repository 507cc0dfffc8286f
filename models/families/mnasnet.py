"""MnasNet-B1 of width 1 (Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le, 2019)."""

from torch import Tensor, nn

from models.families.layers import convolution

STAGES = ((3, 24, 3, 3, 2), (3, 40, 3, 5, 2), (6, 80, 3, 5, 2), (6, 96, 2, 3, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1))
"""Expansion, output channels, blocks, kernel, and stride of the first block."""

LAST_CHANNELS = 1280


class MNASNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        stages = []
        channels = 16
        for expansion, out_channels, blocks, kernel_size, first_stride in STAGES:
            stage = [InvertedResidual(channels, out_channels, expansion, kernel_size, first_stride)]
            stage += [InvertedResidual(out_channels, out_channels, expansion, kernel_size, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            channels = out_channels
        self.layers = nn.Sequential(
            *convolution(3, 32, stride=2),
            *convolution(32, 32, groups=32),
            *convolution(32, 16, kernel_size=1, activation=None),
            *stages,
            *convolution(channels, LAST_CHANNELS, kernel_size=1),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.layers(image).mean(dim=(2, 3)))
        return logits


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise and linear 1x1 convolution, around a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.layers = nn.Sequential(
            *convolution(in_channels, hidden, kernel_size=1),
            *convolution(hidden, hidden, kernel_size, stride, groups=hidden),
            *convolution(hidden, out_channels, kernel_size=1, activation=None),
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        residual: Tensor = self.layers(maps)
        return residual + maps if self.has_shortcut else residual
