"""ResNet18 and ResNet50 (He, Zhang, Ren, Sun, 2016), and two of ResNet50's shape.

These are ResNeXt-50 32x4d (Xie, Girshick, Dollár, Tu, He, 2017) and Wide ResNet-50-2 (Zagoruyko and Komodakis, 2016).
Parameter and buffer names and shapes are torchvision's, so its state dicts load with ``strict=True``.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512)
"""Channels of each stage: the output of basic blocks, a quarter of the output of bottlenecks."""

EXPANSION = 4
"""Output channels of a bottleneck for each of its stage's width."""

BlockOf = Callable[[int, int, int], nn.Module]
"""A block's constructor, called with input channels, output channels and stride."""


class ResNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the papers."""

    def __init__(self, block: BlockOf, depths: Sequence[int], expansion: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages: list[nn.Module] = []
        channels = 64
        for width, depth in zip(WIDTHS, depths, strict=True):
            stages.append(_stage(block, channels, width * expansion, stride=2 if stages else 1, depth=depth))
            channels = width * expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


class ResNet18(ResNet):
    """Basic blocks, two a stage."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(BasicBlock, (2, 2, 2, 2), 1, num_classes)


class ResNet50(ResNet):
    """Bottlenecks, as wide inside as the stage; the others differ from it inside the bottlenecks only."""

    def __init__(self, num_classes: int = 1000, groups: int = 1, widening: int = 1) -> None:
        super().__init__(partial(Bottleneck, groups=groups, widening=widening), (3, 4, 6, 3), EXPANSION, num_classes)


class ResNeXt50(ResNet50):
    """Inner convolutions twice as wide, in 32 groups of 4 channels in the first stage."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(num_classes, groups=32, widening=2)


class WideResNet50(ResNet50):
    """Inner convolutions twice as wide."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(num_classes, widening=2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        return functional.relu(residual + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the 3x3 one strides, where the paper has the first one do so."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int, widening: int) -> None:
        super().__init__()
        inside = out_channels // EXPANSION * widening
        self.conv1 = nn.Conv2d(in_channels, inside, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, kernel_size=3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        residual = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps))))))
        return functional.relu(self.bn3(self.conv3(residual)) + shortcut)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut's convolution, where it needs one."""
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _stage(block: BlockOf, in_channels: int, out_channels: int, stride: int, depth: int) -> nn.Sequential:
    """Blocks of one resolution; only the first one strides."""
    followers = [block(out_channels, out_channels, 1) for _ in range(depth - 1)]
    return nn.Sequential(block(in_channels, out_channels, stride), *followers)
