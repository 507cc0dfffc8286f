"""MobileNet (Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, 2017), of width 1.

torchvision has no such network; the names are this project's own.
"""

from torch import Tensor, nn

from models.families.layers import convolution

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""Output channels and stride of each depthwise separable convolution."""


class MobileNetV1(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers = [convolution(3, 32, stride=2)]
        channels = 32
        for out_channels, stride in BLOCKS:
            depthwise = convolution(channels, channels, stride=stride, groups=channels)
            layers.append(nn.Sequential(depthwise, convolution(channels, out_channels, kernel_size=1)))
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(image)).flatten(1))
        return logits
