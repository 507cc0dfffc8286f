"""GoogLeNet (Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, 2015).

torchvision's has batch normalisation, and 3x3 convolutions where the paper has 5x5. Its two auxiliary heads take part
in training only: here they hold their weights and are never run. ``transform_input`` is that of ``models.inception``.
"""

import torch
from torch import Tensor, nn

from models.inception_block import ConvBNReLU
from models.input_range import input_range

Widths = tuple[int, int, int, int, int, int]
"""Output channels: of the 1x1 branch, of both layers of the 3x3 and of the "5x5" branch, of the pooled branch."""

STAGES: dict[str, Widths | None] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": None,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": None,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
"""Blocks and, as None, max pools in the order in which they run."""


class GoogLeNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 15, 224 in the paper."""

    def __init__(self, num_classes: int = 1000, transform_input: bool = False) -> None:
        super().__init__()
        self.input_range = input_range(transform_input)
        self.conv1 = ConvBNReLU(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = _max_pool(3)
        self.conv2 = ConvBNReLU(64, 64, kernel_size=1)
        self.conv3 = ConvBNReLU(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = _max_pool(3)
        channels = 192
        for name, widths in STAGES.items():
            self.add_module(name, _max_pool(2 if name == "maxpool4" else 3) if widths is None else Inception(channels, widths))
            channels = channels if widths is None else _out_channels(widths)
        self.aux1 = AuxiliaryHead(512, num_classes)
        self.aux2 = AuxiliaryHead(528, num_classes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes], in training mode too: there are no auxiliary logits and no dropout here."""
        maps = self.maxpool1(self.conv1(self.input_range(image)))
        maps = self.maxpool2(self.conv3(self.conv2(maps)))
        for name in STAGES:
            maps = self.get_submodule(name)(maps)
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


class Inception(nn.Module):
    """Four branches over the same maps, concatenated along the channels (figure 2b of the paper)."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        one, three_reduced, three, five_reduced, five, pooled = widths
        self.branch1 = ConvBNReLU(in_channels, one, kernel_size=1)
        self.branch2 = _reduced_3x3(in_channels, three_reduced, three)
        self.branch3 = _reduced_3x3(in_channels, five_reduced, five)
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1), ConvBNReLU(in_channels, pooled, kernel_size=1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, sum of the branches' channels, H, W]."""
        return torch.cat([self.branch1(maps), self.branch2(maps), self.branch3(maps), self.branch4(maps)], dim=1)


class AuxiliaryHead(nn.Module):
    """Weights of a head that trained the 14 x 14 maps; a place for a state dict's entries, without ``forward``."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.fc2 = nn.Linear(1024, num_classes)


def _out_channels(widths: Widths) -> int:
    one, _, three, _, five, pooled = widths
    return one + three + five + pooled


def _reduced_3x3(in_channels: int, reduced: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBNReLU(in_channels, reduced, kernel_size=1), ConvBNReLU(reduced, out_channels, kernel_size=3, padding=1)
    )


def _max_pool(kernel_size: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)
