"""RegNetX and RegNetY of 400 million multiply-adds (Radosavovic, Kosaraju, Girshick, He, Dollár, 2020)."""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import SqueezeExcitation, convolution

STEM_CHANNELS = 32


@dataclass(frozen=True, slots=True)
class Design:
    """Channels and blocks of each stage, channels of a convolution's group, and whether blocks have gates (Y)."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    group_width: int
    gated: bool


X_400MF = Design((32, 64, 160, 400), (1, 2, 7, 12), group_width=16, gated=False)
Y_400MF = Design((48, 104, 208, 440), (1, 3, 6, 6), group_width=8, gated=True)


class RegNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, design: Design, num_classes: int) -> None:
        super().__init__()
        self.stem = convolution(3, STEM_CHANNELS, stride=2)
        self.trunk_output = nn.Sequential()
        channels = STEM_CHANNELS
        for number, (width, depth) in enumerate(zip(design.widths, design.depths, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(depth):
                stage.add_module(f"block{number}-{block}", Bottleneck(channels, width, 1 if block else 2, design))
                channels = width
            self.trunk_output.add_module(f"block{number}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.fc(self.avgpool(self.trunk_output(self.stem(image))).flatten(1))
        return logits


class RegNetX400MF(RegNet):
    """RegNetX: grouped convolutions alone."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(X_400MF, num_classes)


class RegNetY400MF(RegNet):
    """RegNetY: with squeeze and excitation."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(Y_400MF, num_classes)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution of the same channels, around a shortcut, which is convolved where it must be."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, design: Design) -> None:
        super().__init__()
        self.proj: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.proj = convolution(in_channels, out_channels, kernel_size=1, stride=stride, activation=None)
        groups = out_channels // design.group_width
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["a"] = convolution(in_channels, out_channels, kernel_size=1)
        layers["b"] = convolution(out_channels, out_channels, stride=stride, groups=groups)
        if design.gated:
            layers["se"] = SqueezeExcitation(out_channels, in_channels // 4)
        layers["c"] = convolution(out_channels, out_channels, kernel_size=1, activation=None)
        self.f = nn.Sequential(layers)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        shortcut = maps if self.proj is None else self.proj(maps)
        return functional.relu(shortcut + self.f(maps))
