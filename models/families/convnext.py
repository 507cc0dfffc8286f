"""ConvNeXt-T (Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import Permute

STAGES = ((96, 3), (192, 3), (384, 9), (768, 3))
"""Channels and blocks of each stage."""

EPSILON = 1e-6
"""Of the layer normalisations."""

FIRST_SCALE = 1e-6
"""What the scale of every residual channel starts from in training."""


class ConvNeXtTiny(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 32, 224 in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, blocks in STAGES:
            layers.append(_patches(width) if not layers else _halving(channels, width))
            layers.append(nn.Sequential(*[Block(width) for _ in range(blocks)]))
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(ChannelNorm(channels, EPSILON), nn.Flatten(1), nn.Linear(channels, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(image)))
        return logits


class Block(nn.Module):
    """Depthwise 7x7 convolution, then two linear layers at each place, scaled, around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(channels, EPSILON),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
            Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), FIRST_SCALE))

    def forward(self, maps: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        residual: Tensor = self.block(maps)
        return self.layer_scale * residual + maps


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place of [N, C, H, W]."""

    def forward(self, maps: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        last = maps.permute(0, 2, 3, 1)
        return functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def _patches(out_channels: int) -> nn.Sequential:
    """Patches of 4 x 4 pixels to features."""
    return nn.Sequential(nn.Conv2d(3, out_channels, kernel_size=4, stride=4), ChannelNorm(out_channels, EPSILON))


def _halving(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ChannelNorm(in_channels, EPSILON), nn.Conv2d(in_channels, out_channels, kernel_size=2, stride=2))
