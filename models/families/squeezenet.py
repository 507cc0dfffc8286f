"""SqueezeNet 1.0 (Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, 2016)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRE_STAGES = (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),))
"""Channels (squeezed, of either expansion) of the fire modules between the max pools."""


class SqueezeNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 21, 224 in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 96, kernel_size=7, stride=2), nn.ReLU(inplace=True)]
        channels = 96
        for stage in FIRE_STAGES:
            layers.append(nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
            for squeezed, expanded in stage:
                layers.append(Fire(channels, squeezed, expanded))
                channels = 2 * expanded
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(channels, num_classes, kernel_size=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes], none of them negative."""
        logits: Tensor = self.classifier(self.features(image)).flatten(1)
        return logits


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 convolutions of these side by side."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, kernel_size=1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, kernel_size=1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, kernel_size=3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, 2 * expanded, H, W]."""
        few = functional.relu(self.squeeze(maps))
        return torch.cat([functional.relu(self.expand1x1(few)), functional.relu(self.expand3x3(few))], dim=1)
