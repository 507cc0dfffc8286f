"""The one block that all of Inception v3 is made of: chains of convolutions side by side, then a concatenation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Step:
    """One convolution of a chain: its name in the state dict, output channels, kernel and stride.

    The padding keeps the map's size at stride 1 and is absent at stride 2.
    """

    name: str
    channels: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


Fork = tuple[Step, ...]
"""Steps that read the same input; their outputs are concatenated along the channels."""

Chain = Sequence[Step | Fork]


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch normalisation with Inception's epsilon, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H', W']."""
        return functional.relu(self.bn(self.conv(maps)))


class InceptionBlock(nn.Module):
    """All chains and one pooled branch over the same maps, concatenated along the channels.

    With ``pool_channels`` the pooled branch is a 3x3 average pool and a 1x1 convolution (resolution kept); without, it
    is a strided 3x3 max pool (resolution halved, as by the chains' strided last steps).
    """

    def __init__(self, in_channels: int, chains: Sequence[Chain], pool_channels: int | None = None) -> None:
        super().__init__()
        for chain in chains:
            channels = in_channels
            for link in chain:
                for step in _steps(link):
                    self.add_module(step.name, _convolution(channels, step))
                channels = sum(step.channels for step in _steps(link))
        self.branch_pool = None if pool_channels is None else ConvBNReLU(in_channels, pool_channels, kernel_size=1)
        self._chains = [[[step.name for step in _steps(link)] for link in chain] for chain in chains]

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, sum of the branches' channels, H', W']."""
        return torch.cat([*(self._follow(chain, maps) for chain in self._chains), self._pooled(maps)], dim=1)

    def _follow(self, chain: list[list[str]], maps: Tensor) -> Tensor:
        for names in chain:
            outputs = [self.get_submodule(name)(maps) for name in names]
            maps = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return maps

    def _pooled(self, maps: Tensor) -> Tensor:
        if self.branch_pool is None:
            return functional.max_pool2d(maps, kernel_size=3, stride=2)
        pooled: Tensor = self.branch_pool(functional.avg_pool2d(maps, kernel_size=3, stride=1, padding=1))
        return pooled


def _steps(link: Step | Fork) -> Fork:
    return (link,) if isinstance(link, Step) else link


def _convolution(in_channels: int, step: Step) -> ConvBNReLU:
    height, width = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
    padding = (height // 2, width // 2) if step.stride == 1 else 0
    return ConvBNReLU(in_channels, step.channels, (height, width), step.stride, padding)
