"""Write pictures of one data set: ``python -m models.findings chest -o FOLDER --count 30``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from PIL import Image

from models.findings import DATA_SETS, Split, picture
from models.findings.drawing import UNIT_SIDE


def main(arguments: Sequence[str] | None = None) -> None:
    """Write ``<label>-<seed>.png`` for each seed, the labels taking turns, and truth.json: label and box of each file."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    truth = {}
    for seed in range(options.first_seed, options.first_seed + options.count):
        made = picture(options.data_set, options.split, seed, side=options.side)
        label = DATA_SETS[options.data_set].labels[made.label]
        Image.fromarray(made.pixels).save(options.output / f"{label}-{seed}.png")
        truth[f"{label}-{seed}.png"] = {"label": label, "box": made.box}
    (options.output / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.findings", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("data_set", choices=sorted(DATA_SETS), help="data set")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the pictures are written")
    add("--count", type=int, default=30, metavar="N", help="pictures (default: %(default)s)")
    add("--split", choices=get_args(Split), default="test", help="default: %(default)s")
    add("--first-seed", type=int, default=0, metavar="N", help="seed of the first picture (default: %(default)s)")
    add("--side", type=int, default=UNIT_SIDE, metavar="N", help="rows and columns (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
