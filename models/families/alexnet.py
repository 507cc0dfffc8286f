"""AlexNet on one GPU's worth of channels (Krizhevsky, "One weird trick for parallelizing convolutional networks", 2014)."""

from torch import Tensor, nn

from models.vgg import adaptive_average_pool

HEAD_MAP = 6
"""Rows and columns of the feature map that the first fully connected layer was shaped for."""


class AlexNet(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 63, 224 in the paper."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * HEAD_MAP * HEAD_MAP, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        logits: Tensor = self.classifier(adaptive_average_pool(self.features(image), HEAD_MAP).flatten(1))
        return logits
