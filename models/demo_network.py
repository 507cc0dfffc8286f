"""The demo classifier: a small residual network whose units see a few lesions' widths, averaged over the picture.

Its convolutions stop at 28 x 28 maps. A unit of the last map sees about 80 of the 224 pixels, so a patch of 16 changes
a small part of every map, and the logits are means of local evidence, which is what an occlusion map can show best.
"""

import torch
from torch import Tensor, nn

from models.resnet import BasicBlock


class DemoNetwork(nn.Module):
    """Image [N, 3, 224, 224] to logits [N, num_classes]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2),
            BasicBlock(16, 32, stride=1),
            nn.MaxPool2d(kernel_size=2),
            BasicBlock(32, 64, stride=1),
            nn.Conv2d(64, 128, kernel_size=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        # A lesion moves the mean over 784 places by little: without a scale for those means the head learns slowly.
        self.pooled_norm: nn.Module = nn.BatchNorm1d(128)
        self.head = nn.Linear(128, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.head(self.pooled_norm(self.pool(self.features(image)).flatten(1)))
        return logits

    def fold_pooled_norm(self) -> None:
        """Put the norm of the pooled features into the head's weights; the outputs of evaluation mode stay the same."""
        norm = self.pooled_norm
        if not isinstance(norm, nn.BatchNorm1d):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            self.head.bias.add_(self.head.weight @ (norm.bias - norm.running_mean * scale))
            self.head.weight.mul_(scale)
        self.pooled_norm = nn.Identity()
