"""The networks that can be exported, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.families.alexnet import AlexNet
from models.families.convnext import ConvNeXtTiny
from models.families.densenet import DenseNet121
from models.families.efficientnet import EfficientNetB0
from models.families.googlenet import GoogLeNet
from models.families.mnasnet import MNASNet
from models.families.mobilenet_v1 import MobileNetV1
from models.families.mobilenet_v2 import MobileNetV2
from models.families.mobilenet_v3 import MobileNetV3Small
from models.families.regnet import RegNetX400MF, RegNetY400MF
from models.families.shufflenet import ShuffleNetV2
from models.families.squeezenet import SqueezeNet
from models.families.swin import SwinTiny
from models.families.vision_transformer import ViTB16
from models.inception import InceptionV3
from models.resnet import ResNet18, ResNet50, ResNeXt50, WideResNet50
from models.vgg import VGG16, VGG19, VGG16GlobalPool


@dataclass(frozen=True, slots=True)
class Network:
    """A network's constructor, called as ``build(num_classes=K)``, and the image sides it takes, in pixels."""

    build: Callable[..., nn.Module]
    usual_side: int
    least_side: int


NETWORKS = {
    "alexnet": Network(AlexNet, usual_side=224, least_side=63),
    "vgg16": Network(VGG16, usual_side=224, least_side=32),
    "vgg16_gap": Network(VGG16GlobalPool, usual_side=224, least_side=32),
    "vgg19": Network(VGG19, usual_side=224, least_side=32),
    "resnet18": Network(ResNet18, usual_side=224, least_side=32),
    "resnet50": Network(ResNet50, usual_side=224, least_side=32),
    "resnext50_32x4d": Network(ResNeXt50, usual_side=224, least_side=32),
    "wide_resnet50_2": Network(WideResNet50, usual_side=224, least_side=32),
    "squeezenet1_0": Network(SqueezeNet, usual_side=224, least_side=21),
    "googlenet": Network(GoogLeNet, usual_side=224, least_side=15),
    "inception_v3": Network(InceptionV3, usual_side=299, least_side=75),
    "densenet121": Network(DenseNet121, usual_side=224, least_side=29),
    "mobilenet_v1": Network(MobileNetV1, usual_side=224, least_side=32),
    "mobilenet_v2": Network(MobileNetV2, usual_side=224, least_side=32),
    "mobilenet_v3_small": Network(MobileNetV3Small, usual_side=224, least_side=32),
    "shufflenet_v2_x1_0": Network(ShuffleNetV2, usual_side=224, least_side=32),
    "mnasnet1_0": Network(MNASNet, usual_side=224, least_side=32),
    "regnet_x_400mf": Network(RegNetX400MF, usual_side=224, least_side=32),
    "regnet_y_400mf": Network(RegNetY400MF, usual_side=224, least_side=32),
    "efficientnet_b0": Network(EfficientNetB0, usual_side=224, least_side=32),
    "convnext_tiny": Network(ConvNeXtTiny, usual_side=224, least_side=32),
    "vit_b_16": Network(ViTB16, usual_side=224, least_side=16),
    "swin_t": Network(SwinTiny, usual_side=224, least_side=32),
}
