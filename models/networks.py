"""The networks that can be exported, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.inception import InceptionV3
from models.resnet import ResNet18
from models.vgg import VGG16, VGG16GlobalPool


@dataclass(frozen=True, slots=True)
class Network:
    """A network's constructor, called as ``build(num_classes=K)``, and the image sides it takes, in pixels."""

    build: Callable[..., nn.Module]
    usual_side: int
    least_side: int


NETWORKS = {
    "vgg16": Network(VGG16, usual_side=224, least_side=32),
    "vgg16_gap": Network(VGG16GlobalPool, usual_side=224, least_side=32),
    "resnet18": Network(ResNet18, usual_side=224, least_side=32),
    "inception_v3": Network(InceptionV3, usual_side=299, least_side=75),
}
