"""Export a reference network to ONNX: ``python -m models.export resnet18 -o resnet18.onnx``.

Without ``--weights`` the weights are random but seeded: good for measuring speed and exactness, not for explaining.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from models.checkpoint import CheckpointError, load_checkpoint
from models.networks import NETWORKS
from models.onnx_export import export_classifier
from models.random_weights import SCHEMES, initialise, randomise

USAGE_ERROR = 2

CONVERTING = ("googlenet", "inception_v3")
"""Networks whose published weights expect other pixels than torchvision's preprocessing gives."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the file is written, 2 (with a message) when it cannot be."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        size = _image_size(options.name, options.size)
        _check_output(options.output, options.force)
        network = build_network(options)
        export_classifier(
            network,
            options.output,
            size=size,
            exporter=options.exporter,
            output_name="probabilities" if options.softmax else "logits",
            dynamic_batch=options.dynamic_batch,
            keep_batch_norm=options.keep_batch_norm,
        )
    except (_UsageError, CheckpointError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    megabytes = options.output.stat().st_size / 1e6
    print(f"{options.output}: {options.name}, image 3 x {size[0]} x {size[1]}, {options.exporter}, {megabytes:.1f} MB")
    return 0


def build_network(options: argparse.Namespace) -> nn.Module:
    """Network with the weights that the command line asks for, and a softmax behind it if asked for."""
    arguments: dict[str, int | bool] = {"num_classes": options.classes}
    if options.name in CONVERTING:
        published = options.weights is not None
        arguments["transform_input"] = published if options.transform_input is None else options.transform_input
    elif options.transform_input is not None:
        raise _UsageError(f"--transform-input is for {' and '.join(CONVERTING)} only, {options.name} has no such switch")
    network = NETWORKS[options.name].build(**arguments)
    if options.weights is not None and options.initialisation is not None:
        raise _UsageError("--initialisation is for random weights, --weights gives others")
    if options.initialisation is not None:
        initialise(network, options.initialisation, options.seed)
    elif options.weights is None:
        randomise(network, options.seed)
    else:
        load_checkpoint(network, options.weights)
    return nn.Sequential(network, nn.Softmax(dim=1)) if options.softmax else network


class _UsageError(Exception):
    """Arguments that do not go together, or a file that may not be written."""


def _image_size(name: str, given: list[int] | None) -> tuple[int, int]:
    network = NETWORKS[name]
    if given is None:
        return network.usual_side, network.usual_side
    if len(given) > 2:
        raise _UsageError(f"--size takes a height and perhaps a width, got {len(given)} numbers")
    height, width = given[0], given[-1]
    if min(height, width) < network.least_side:
        raise _UsageError(f"--size {height} {width}: {name} takes at least {network.least_side} pixels a side")
    return height, width


def _check_output(path: Path, force: bool) -> None:
    if path.is_dir():
        raise _UsageError(f"{path}: is a folder, expected the name of the ONNX file to write")
    if path.exists() and not force:
        raise _UsageError(f"{path}: exists already; --force replaces it")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.export", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("name", choices=sorted(NETWORKS), help="network")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="ONNX file to write")
    add("--force", action="store_true", help="replace FILE if it exists")
    add("--weights", type=Path, metavar="STATE_DICT", help="torch state dict file (default: seeded random weights)")
    add("--seed", type=int, default=0, metavar="N", help="seed of the random weights (default: %(default)s)")
    add(
        "--initialisation",
        choices=sorted(SCHEMES),
        metavar="SCHEME",
        help=f"textbook weights: {', '.join(sorted(SCHEMES))} (default: random weights that keep every layer on scale)",
    )
    add("--classes", type=_positive, default=1000, metavar="K", help="number of classes (default: %(default)s)")
    add("--size", type=_positive, nargs="+", metavar=("H", "W"), help="image size (default: the network's usual one)")
    add("--dynamic-batch", action="store_true", help="leave the batch size free (default: 1)")
    add("--keep-batch-norm", action="store_true", help="do not fold batch normalisation into the convolutions")
    add("--exporter", choices=("torchscript", "dynamo"), default="torchscript", help="default: %(default)s")
    add(
        "--transform-input",
        action=argparse.BooleanOptionalAction,
        help="googlenet, inception_v3: convert ImageNet-normalised input to [-1, 1], as torchvision's published weights need "
        "(default: with --weights yes, else no)",
    )
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument("--logits", action="store_true", help="output raw scores (default)")
    outputs.add_argument("--softmax", action="store_true", help="output probabilities")
    return parser


if __name__ == "__main__":
    sys.exit(main())
