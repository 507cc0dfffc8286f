"""Networks of the families that image classification is made with, one file a family.

Parameter and buffer names and shapes are torchvision's, where it has the network, so its state dicts load with
``strict=True``. Only evaluation is meant: dropout stands where it numbers the layers, stochastic depth is left out.
VGG and ResNet, of which there are trained models too, are in ``models`` itself.
"""
