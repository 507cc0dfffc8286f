"""ResNet18 (He, Zhang, Ren, Sun, 2016).

Parameter and buffer names and shapes are torchvision's, so its state dicts load with ``strict=True``.
"""

from torch import Tensor, nn
from torch.nn import functional

BLOCKS_PER_STAGE = 2


class ResNet18(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, stride=1)
        self.layer2 = _stage(64, 128, stride=2)
        self.layer3 = _stage(128, 256, stride=2)
        self.layer4 = _stage(256, 512, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a strided 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        return functional.relu(residual + shortcut)


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Blocks of one resolution; only the first one strides."""
    followers = [BasicBlock(out_channels, out_channels, stride=1) for _ in range(BLOCKS_PER_STAGE - 1)]
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride), *followers)
