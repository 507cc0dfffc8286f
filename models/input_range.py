"""Conversion of ImageNet-normalised pixels for networks whose published weights expect [-1, 1].

torchvision's weights of Inception v3 and GoogLeNet come from TensorFlow, whereas its preprocessing gives ImageNet mean
and deviation. It converts inside the network, exactly when it loads its published weights.
"""

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def input_range(transform_input: bool) -> nn.Module:
    """The conversion, or nothing; neither has entries in a state dict."""
    return FromImageNet() if transform_input else nn.Identity()


class FromImageNet(nn.Module):
    """Pixels less ImageNet's mean, over its deviation, to pixels in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        # Not persistent: torchvision's state dicts know nothing of these two.
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 2 * _per_channel(IMAGENET_STD), persistent=False)
        self.register_buffer("shift", 2 * _per_channel(IMAGENET_MEAN) - 1, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to the same shape."""
        return image * self.scale + self.shift


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(1, -1, 1, 1)
