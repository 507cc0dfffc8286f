"""Swin-T (Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, 2021)."""

import torch
from torch import Tensor, nn

from models.families.layers import Permute, perceptron
from models.families.window_attention import WINDOW, WindowAttention, padded

STAGES = ((96, 3, 2), (192, 6, 2), (384, 12, 6), (768, 24, 2))
"""Channels, attention heads and blocks of each stage."""

PATCH = 4
"""Rows and columns of a patch, in pixels."""


class SwinTiny(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = STAGES[0][0]
        patches = nn.Conv2d(3, channels, kernel_size=PATCH, stride=PATCH)
        layers: list[nn.Module] = [nn.Sequential(patches, Permute(0, 2, 3, 1), nn.LayerNorm(channels))]
        for width, heads, blocks in STAGES:
            if width != channels:
                layers.append(PatchMerging(channels))
            layers.append(nn.Sequential(*[Block(width, heads, shift=number % 2 * (WINDOW // 2)) for number in range(blocks)]))
            channels = width
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(channels)
        self.permute = Permute(0, 3, 1, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.head(self.avgpool(self.permute(self.norm(self.features(image)))).flatten(1))
        return logits


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the channels: 2 x 2 places become one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, H, W, channels] to [N, ceil(H / 2), ceil(W / 2), 2 * channels]."""
        maps = padded(maps, 2)
        corners = [maps[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


class Block(nn.Module):
    """Attention inside windows and two linear layers, each behind its normalisation and around a shortcut."""

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = perceptron(channels, 4 * channels)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, H, W, channels] to the same shape."""
        maps = maps + self.attn(self.norm1(maps))
        residual: Tensor = self.mlp(self.norm2(maps))
        return maps + residual
