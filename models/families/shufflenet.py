"""ShuffleNet V2 of width 1 (Ma, Zhang, Zheng, Sun, 2018)."""

import torch
from torch import Tensor, nn

from models.families.layers import convolution

STAGES = ((116, 4), (232, 8), (464, 4))
"""Output channels and units of each stage (table 5 of the paper)."""

FIRST_CHANNELS, LAST_CHANNELS = 24, 1024


class ShuffleNetV2(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = convolution(3, FIRST_CHANNELS, stride=2)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages = []
        channels = FIRST_CHANNELS
        for out_channels, units in STAGES:
            followers = [Unit(out_channels) for _ in range(units - 1)]
            stages.append(nn.Sequential(StridedUnit(channels, out_channels), *followers))
            channels = out_channels
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = convolution(channels, LAST_CHANNELS, kernel_size=1)
        self.fc = nn.Linear(LAST_CHANNELS, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        maps = self.maxpool(self.conv1(image))
        maps = self.conv5(self.stage4(self.stage3(self.stage2(maps))))
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits


class Unit(nn.Module):
    """Half of the channels pass by, the others are convolved (figure 3c of the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.passing = channels // 2
        self.branch2 = _branch(channels - self.passing, channels - self.passing, stride=1)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        passing, convolved = torch.split(maps, self.passing, dim=1)
        return shuffled(torch.cat([passing, self.branch2(convolved)], dim=1))


class StridedUnit(nn.Module):
    """Two branches over all channels, which halve the resolution (figure 3d of the paper)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(
            *convolution(in_channels, in_channels, stride=2, groups=in_channels, activation=None),
            *convolution(in_channels, out_channels // 2, kernel_size=1),
        )
        self.branch2 = _branch(in_channels, out_channels // 2, stride=2)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / 2), ceil(W / 2)]."""
        return shuffled(torch.cat([self.branch1(maps), self.branch2(maps)], dim=1))


def _branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *convolution(in_channels, out_channels, kernel_size=1),
        *convolution(out_channels, out_channels, stride=stride, groups=out_channels, activation=None),
        *convolution(out_channels, out_channels, kernel_size=1),
    )


def shuffled(maps: Tensor) -> Tensor:
    """Channels of the first and the second half in turns."""
    # Sizes as plain numbers and a free batch: the exporters then write each reshape as one node with a constant.
    channels, height, width = (int(size) for size in maps.shape[1:])
    halves = maps.reshape(-1, 2, channels // 2, height, width)
    return halves.transpose(1, 2).reshape(-1, channels, height, width)
