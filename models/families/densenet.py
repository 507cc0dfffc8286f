"""DenseNet-121 (Huang, Liu, van der Maaten, Weinberger, 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import accept_old_names

BLOCKS = (6, 12, 24, 16)
"""Layers of each dense block; between two blocks a transition halves channels and resolution."""

GROWTH = 32
"""Channels that a layer adds."""

FIRST_CHANNELS = 64

OLD_NAMES = {r"(denselayer\d+\.(?:norm|conv))\.([12])\.": r"\1\2."}
"""The entries' names in torchvision's published file, which is older than its module names."""


class DenseNet121(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 29, 224 in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, FIRST_CHANNELS, kernel_size=7, stride=2, padding=3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(FIRST_CHANNELS))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
        channels = FIRST_CHANNELS
        for number, layers in enumerate(BLOCKS, start=1):
            self.features.add_module(f"denseblock{number}", DenseBlock(channels, layers))
            channels += layers * GROWTH
            if number < len(BLOCKS):
                self.features.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        accept_old_names(self, OLD_NAMES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        maps = functional.relu(self.features(image))
        logits: Tensor = self.classifier(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return logits


class DenseBlock(nn.Module):
    """Layers of which each reads the block's input and the outputs of all layers before it."""

    def __init__(self, in_channels: int, layers: int) -> None:
        super().__init__()
        for number in range(layers):
            self.add_module(f"denselayer{number + 1}", DenseLayer(in_channels + number * GROWTH))

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, in_channels + layers * GROWTH, H, W]."""
        features = [maps]
        for layer in self.children():
            features.append(layer(torch.cat(features, dim=1)))
        return torch.cat(features, dim=1)


class DenseLayer(nn.Module):
    """A 1x1 convolution to a few channels and a 3x3 one, each behind its normalisation and ReLU."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * GROWTH, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, kernel_size=3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, GROWTH, H, W]."""
        added: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(maps))))))
        return added


class Transition(nn.Module):
    """Halves channels, by a 1x1 convolution, and resolution, by an average pool."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, in_channels // 2, H // 2, W // 2]."""
        halved: Tensor = self.pool(self.conv(functional.relu(self.norm(maps))))
        return halved
