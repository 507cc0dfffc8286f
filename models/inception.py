"""Inception v3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, 2016).

Parameter and buffer names and shapes are torchvision's, auxiliary head included, so its state dicts load with
``strict=True``. The auxiliary head takes part in training only: here it holds its weights and is never run, so an
export does not contain it.

With ``transform_input=True`` the network itself converts ImageNet-normalised pixels to the [-1, 1] that torchvision's
published weights expect; ``models.export`` switches it on when it is given ``--weights``.
"""

from torch import Tensor, nn
from torch.nn import functional

from models.inception_block import ConvBNReLU, InceptionBlock, Step
from models.input_range import input_range


class InceptionV3(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; H and W at least 75, 299 in the paper."""

    def __init__(self, num_classes: int = 1000, transform_input: bool = False) -> None:
        super().__init__()
        self.input_range = input_range(transform_input)
        self.Conv2d_1a_3x3 = ConvBNReLU(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = ConvBNReLU(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = ConvBNReLU(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = ConvBNReLU(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = ConvBNReLU(80, 192, kernel_size=3)
        self.Mixed_5b = _block_35(192, pool_channels=32)
        self.Mixed_5c = _block_35(256, pool_channels=64)
        self.Mixed_5d = _block_35(288, pool_channels=64)
        self.Mixed_6a = _reduction_35_to_17(288)
        self.Mixed_6b = _block_17(768, narrow=128)
        self.Mixed_6c = _block_17(768, narrow=160)
        self.Mixed_6d = _block_17(768, narrow=160)
        self.Mixed_6e = _block_17(768, narrow=192)
        self.AuxLogits = AuxiliaryHead(768, num_classes)
        self.Mixed_7a = _reduction_17_to_8(768)
        self.Mixed_7b = _block_8(1280)
        self.Mixed_7c = _block_8(2048)
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes], in training mode too: there are no auxiliary logits and no dropout here."""
        maps = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(self.input_range(image))))
        maps = functional.max_pool2d(maps, kernel_size=3, stride=2)
        maps = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(maps))
        maps = functional.max_pool2d(maps, kernel_size=3, stride=2)
        maps = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(maps)))
        maps = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(maps)))))
        maps = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(maps)))
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(maps, 1).flatten(1))
        return logits


class AuxiliaryHead(nn.Module):
    """Weights of the head that trained the 17 x 17 maps; a place for a state dict's entries, without ``forward``."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvBNReLU(in_channels, 128, kernel_size=1)
        self.conv1 = ConvBNReLU(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes)


def _block_35(in_channels: int, pool_channels: int) -> InceptionBlock:
    """Block for 35 x 35 maps (figure 5 of the paper; sizes here and below at an input of 299)."""
    return InceptionBlock(
        in_channels,
        chains=(
            (Step("branch1x1", 64),),
            (Step("branch5x5_1", 48), Step("branch5x5_2", 64, 5)),
            (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3)),
        ),
        pool_channels=pool_channels,
    )


def _reduction_35_to_17(in_channels: int) -> InceptionBlock:
    """Halve the resolution with strided convolutions and a max pool side by side (figure 10)."""
    return InceptionBlock(
        in_channels,
        chains=(
            (Step("branch3x3", 384, 3, stride=2),),
            (Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, 3), Step("branch3x3dbl_3", 96, 3, stride=2)),
        ),
    )


def _block_17(in_channels: int, narrow: int) -> InceptionBlock:
    """Block for 17 x 17 maps, 7 x 7 convolutions as 1 x 7 and 7 x 1 (figure 6); ``narrow`` channels inside."""
    return InceptionBlock(
        in_channels,
        chains=(
            (Step("branch1x1", 192),),
            (Step("branch7x7_1", narrow), Step("branch7x7_2", narrow, (1, 7)), Step("branch7x7_3", 192, (7, 1))),
            (
                Step("branch7x7dbl_1", narrow),
                Step("branch7x7dbl_2", narrow, (7, 1)),
                Step("branch7x7dbl_3", narrow, (1, 7)),
                Step("branch7x7dbl_4", narrow, (7, 1)),
                Step("branch7x7dbl_5", 192, (1, 7)),
            ),
        ),
        pool_channels=192,
    )


def _reduction_17_to_8(in_channels: int) -> InceptionBlock:
    return InceptionBlock(
        in_channels,
        chains=(
            (Step("branch3x3_1", 192), Step("branch3x3_2", 320, 3, stride=2)),
            (
                Step("branch7x7x3_1", 192),
                Step("branch7x7x3_2", 192, (1, 7)),
                Step("branch7x7x3_3", 192, (7, 1)),
                Step("branch7x7x3_4", 192, 3, stride=2),
            ),
        ),
    )


def _block_8(in_channels: int) -> InceptionBlock:
    """Block for 8 x 8 maps, whose chains end in two convolutions side by side (figure 7)."""
    return InceptionBlock(
        in_channels,
        chains=(
            (Step("branch1x1", 320),),
            (Step("branch3x3_1", 384), (Step("branch3x3_2a", 384, (1, 3)), Step("branch3x3_2b", 384, (3, 1)))),
            (
                Step("branch3x3dbl_1", 448),
                Step("branch3x3dbl_2", 384, 3),
                (Step("branch3x3dbl_3a", 384, (1, 3)), Step("branch3x3dbl_3b", 384, (3, 1))),
            ),
        ),
        pool_channels=192,
    )
