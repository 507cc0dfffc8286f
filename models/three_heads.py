"""One trunk under a classifier for each data set: what the trained networks share while they are trained.

A network without pretrained weights needs thousands of steps to notice that a label depends on one small place. So a
scout is trained along, as Inception v3 has an auxiliary head: a 1x1 convolution over a map in the middle of the trunk
that names the finding at each cell. It is no part of the classifiers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks import NETWORKS
from models.vgg import HEAD_MAP

SCOUTED = {
    "resnet18": ("layer3", 256), "vgg16": ("features.33", 512), "inception_v3": ("Mixed_5d", 288),
    "efficientnet_b0": ("features.5", 112),
}  # fmt: skip
"""The layer under the scouts, whose cells are 16 pixels apart (Inception: 8, as deeper ones learn late), and its channels."""

DROPOUT = 0.2
"""Less than the papers' 0.5: a short training has little to forget."""


class ThreeHeads(nn.Module):
    """A reference network whose last linear layer is replaced by one for each data set."""

    def __init__(self, network: str, classes: Mapping[str, int]) -> None:
        super().__init__()
        # VGG16 does not start to learn in so few steps without batch normalisation; the export folds it.
        self.trunk = NETWORKS[network].build(**({"batch_norm": True} if network == "vgg16" else {}))
        name, last = [(name, module) for name, module in self.trunk.named_modules() if isinstance(module, nn.Linear)][-1]
        self.trunk.set_submodule(name, nn.Identity())
        layer, channels = SCOUTED[network]
        self.heads = nn.ModuleDict({key: nn.Linear(last.in_features, count) for key, count in classes.items()})
        self.scouts = nn.ModuleDict({key: nn.Conv2d(channels, count, kernel_size=1) for key, count in classes.items()})
        self._scouted = torch.empty(0)
        self.trunk.get_submodule(layer).register_forward_hook(self._keep)
        for module in self.trunk.modules():
            if isinstance(module, nn.Dropout):
                module.p = DROPOUT
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if network == "vgg16":
            _start_alike_at_all_places(self.trunk.get_submodule("classifier.0"))

    def dense_parameters(self) -> list[nn.Parameter]:
        """Weights and biases of the fully connected layers inside the trunk; only those of VGG16 are ever run."""
        layers = (module for module in self.trunk.modules() if isinstance(module, nn.Linear))
        return [parameter for layer in layers for parameter in layer.parameters()]

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], maps: Tensor) -> None:
        self._scouted = maps

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of every data set: logits [N, classes] of the head, and [N, classes, h, w] of the scout."""
        features = self.trunk(images)
        heads = {key: head(features) for key, head in self.heads.items()}
        return heads, {key: scout(self._scouted) for key, scout in self.scouts.items()}

    def classifier(self, data_set: str) -> nn.Module:
        """The network of one data set alone, sharing its weights with this one."""
        return nn.Sequential(self.trunk, self.heads[data_set])


def _start_alike_at_all_places(layer: nn.Module) -> None:
    """Let a fully connected layer over feature maps start as one over their average, so that no place is special.

    With weights of their own, each of the 49 places would have to see findings of every kind before it knows them.
    """
    assert isinstance(layer, nn.Linear)
    places = HEAD_MAP * HEAD_MAP
    one_place = torch.empty(layer.out_features, layer.in_features // places)
    nn.init.kaiming_normal_(one_place, nonlinearity="relu")
    with torch.no_grad():
        layer.weight.copy_((one_place / places).repeat_interleave(places, dim=1))
        layer.bias.zero_()


def head_loss(logits: Mapping[str, Tensor], owners: Tensor, labels: Tensor) -> Tensor:
    """Mean over a mixed batch of each picture's cross entropy under its own head; ``owners`` [N] number the heads."""
    losses = []
    for number, of_head in enumerate(logits.values()):
        chosen = owners == number
        losses.append(functional.cross_entropy(of_head[chosen].float(), labels[chosen], reduction="sum"))
    return torch.stack(losses).sum() / len(labels)


def scout_loss(logits: Mapping[str, Tensor], owners: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
    """Mean cross entropy of the cells that touch a finding, plus that of all others, whose answer is label 0.

    ``boxes`` [N, 4] are (top, left, bottom, right) as shares of the side, zeros where there is no finding.
    """
    cells, inside = [], []
    for number, of_scout in enumerate(logits.values()):
        chosen = owners == number
        touched = cells_in(boxes[chosen], of_scout.shape[-1])
        answers = touched * labels[chosen][:, None, None]
        cells.append(functional.cross_entropy(of_scout[chosen].float(), answers, reduction="none").flatten())
        inside.append(touched.flatten())
    loss, found = torch.cat(cells), torch.cat(inside)
    return (loss * found).sum() / found.sum().clamp(min=1) + (loss * ~found).sum() / (~found).sum()


def cells_in(boxes: Tensor, size: int) -> Tensor:
    """Which of size x size cells touch each box, bool [N, size, size]."""
    start = torch.arange(size) / size
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = ((start < last) & (start + 1 / size > first) for first, last in ((top, bottom), (left, right)))
    return rows[:, :, None] & columns[:, None, :]
