"""Random weights under which a deep network still tells pictures apart.

torch's default initialisation shrinks activations from layer to layer until the logits no longer depend on the
image. Here every convolution and linear layer gets He initialisation, and every normalisation an affine part, every
batch normalisation running statistics too, that are far from the identity, so that folding it wrongly cannot go
unnoticed. Likewise no scale, token or position is left at the zero or the 1e-6 that a training would start from.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

CALIBRATION_IMAGES = 4
CALIBRATION_SIDE = 296  # statistics of much smaller images are mostly those of zero padding
NORM_BIAS = 0.8
"""Mean bias of the batch normalisations, in deviations of what they put out.

At 0 a random network is chaotic: each layer amplifies a disturbance by about 1.2, and the 47 layers of Inception v3
make 1e-4 of rounding. Trained networks are not like that, and such noise would hide real errors of a compiled model.
"""

FREE_DEVIATION = 0.3
"""Deviation of parameters that are no layer's: scales of residuals, class tokens, positions."""

WIDEST = 5.0
"""Deviation of the logits at most, in networks with batch normalisation. Residuals pile up where nothing was trained, and to a
tolerance for outputs near zero the rounding of logits as wide as RegNet's 15 would look like an error."""

STATISTICS_DRIFT = 0.2
"""How far running statistics are off the calibration images' own, relative to their deviation."""


SCHEMES: Mapping[str, Callable[..., Tensor]] = {
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_normal_,
    "orthogonal": nn.init.orthogonal_,
}
"""Textbook initialisations of convolutions and linear layers, under which nothing is kept on scale."""


def initialise(network: nn.Module, scheme: str, seed: int) -> None:
    """Draw the weights of ``network`` as ``scheme`` has it, the same for the same seed.

    Biases are normal with deviation 0.1. Batch normalisations hardly change anything: scale 1, shift 0, means normal with
    deviation 0.1, variances uniform between 0.8 and 1.2. So the deviation of the logits, and that of their rounding, is what the
    depth of the network makes of it (1.6 of InceptionV3, 1275 of ResNet50 by He): what compiles must not depend on it.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            SCHEMES[scheme](module.weight, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0.0, 0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.8, 1.2, generator=generator)


def randomise(network: nn.Module, seed: int) -> None:
    """Replace all weights and batch normalisation statistics of ``network``, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.1, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(NORM_BIAS, 0.2, generator=generator)
            elif isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0.0, 0.2, generator=generator)
            else:
                _randomise_own_parameters(module, generator)
        _calibrate(network, generator)


def _randomise_own_parameters(module: nn.Module, generator: torch.Generator) -> None:
    """Parameters that ``module`` has beside its layers; matrices are taken for weights."""
    for parameter in module.parameters(recurse=False):
        if parameter.ndim == 2:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            parameter.normal_(0.0, FREE_DEVIATION, generator=generator)


def _calibrate(network: nn.Module, generator: torch.Generator) -> None:
    """Set every running statistic from what reaches its layer, so that no depth of network drifts off scale.

    A last linear layer whose logits are wider than ``WIDEST`` is scaled down to that.
    """
    last: list[tuple[nn.Module, Tensor]] = []

    def calibrate(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        mean += STATISTICS_DRIFT * variance.sqrt() * torch.randn(mean.shape, generator=generator)
        variance *= 1 + STATISTICS_DRIFT * (2 * torch.rand(variance.shape, generator=generator) - 1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    def remember(layer: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        last[:] = [(layer, output)]

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    hooks = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    hooks += [layer.register_forward_hook(remember) for layer in network.modules() if isinstance(layer, nn.Linear)]
    was_training = network.training
    logits = network.eval()(smooth_noise(CALIBRATION_IMAGES, CALIBRATION_SIDE, generator))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    for layer, output in last:
        if output is logits and logits.std() > WIDEST:
            for parameter in layer.parameters():
                parameter.mul_(WIDEST / logits.std())


def smooth_noise(images: int, side: int, generator: torch.Generator) -> Tensor:
    """Noise [images, 3, side, side] of about unit deviation, mostly coarse, as photographs are."""
    coarse = torch.randn(images, 3, side // 8, side // 8, generator=generator)
    fine = torch.randn(images, 3, side, side, generator=generator)
    return 1.5 * functional.interpolate(coarse, size=(side, side), mode="bilinear") + 0.3 * fine
