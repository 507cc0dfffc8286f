"""The block of MobileNetV3 and of EfficientNet: an inverted residual with squeeze and excitation inside."""

from torch import Tensor, nn

from models.families.layers import Activation, SqueezeExcitation, convolution


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, gates, and linear 1x1 convolution, around a shortcut where the shape stays."""

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        activation: Activation,
        gates: SqueezeExcitation | None,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers.append(convolution(in_channels, hidden, 1, activation=activation, epsilon=epsilon))
        layers.append(convolution(hidden, hidden, kernel_size, stride, hidden, activation, epsilon))
        if gates is not None:
            layers.append(gates)
        layers.append(convolution(hidden, out_channels, 1, activation=None, epsilon=epsilon))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        residual: Tensor = self.block(maps)
        return residual + maps if self.has_shortcut else residual
