"""What the families share: a normalised convolution, squeeze and excitation, attention, state dicts with old names."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = type[nn.Module]
"""An activation's class, built as ``activation()``."""


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = nn.ReLU,
    epsilon: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, padded to keep the map's size at stride 1; batch normalisation; activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=epsilon),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate that looks at all channels' means (Hu, Shen, Sun, 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: Activation = nn.ReLU, gate: Activation = nn.Sigmoid) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, channels, kernel_size=1)
        self.activation = activation()
        self.scale_activation = gate()

    def forward(self, maps: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        gates: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(maps)))))
        return gates * maps


class Permute(nn.Module):
    """Reorders the axes."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, maps: Tensor) -> Tensor:
        """Axis i of the result is axis ``axes[i]`` of ``maps``."""
        return maps.permute(self.axes)


def perceptron(channels: int, hidden: int) -> nn.Sequential:
    """The two linear layers of a transformer's block, over the last axis."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, channels), nn.Dropout(0))


def attend(projected: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Self-attention of ``heads`` heads: queries, keys, values [..., tokens, 3 * channels] to [..., tokens, channels].

    ``bias`` is added to the scores and broadcasts to [..., heads, tokens, tokens].
    """
    # Sizes as plain numbers and a free batch: the exporters then write each reshape as one node with a constant.
    *outer, width = (int(size) for size in projected.shape[1:])
    channels = width // 3
    queries, keys, values = (
        part.reshape(-1, *outer, heads, channels // heads).transpose(-3, -2) for part in torch.split(projected, channels, dim=-1)
    )
    # Written out, since the dynamo exporter takes torch's own function for tensors of four axes only.
    scores = (queries * (channels // heads) ** -0.5) @ keys.transpose(-2, -1)
    attended: Tensor = functional.softmax(scores if bias is None else scores + bias, dim=-1) @ values
    return attended.transpose(-3, -2).reshape(-1, *outer, channels)


def accept_old_names(network: nn.Module, renamed: Mapping[str, str]) -> None:
    """Let ``network`` load state dicts from before torchvision renamed entries: pattern of a name to replacement."""

    def rename(module: nn.Module, state: dict[str, Any], *others: object) -> None:
        for name in list(state):
            new = name
            for pattern, replacement in renamed.items():
                new = re.sub(pattern, replacement, new)
            state[new] = state.pop(name)

    network.register_load_state_dict_pre_hook(rename)  # type: ignore[no-untyped-call]
