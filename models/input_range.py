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
    """Pixels less ImageNet's mean, over its deviation, to pixels in [-1, 1]: channel by channel, as torchvision writes it."""

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to the same shape."""
        scales_and_shifts = [(2 * std, 2 * mean - 1) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
        channels = [torch.unsqueeze(image[:, n], 1) * scale + shift for n, (scale, shift) in enumerate(scales_and_shifts)]
        return torch.cat(channels, 1)
