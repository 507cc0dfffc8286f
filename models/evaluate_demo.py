"""Measure how well occlusion maps of the demo classifier point: ``python -m models.evaluate_demo``.

A map points right if the centre of the patch with the largest drop of the predicted class's logit lies in the
lesion's box; "grown" allows half a patch beyond it, as far as a patch that still touches the lesion can be. Only
unseen pictures with a lesion count, and only those that are classified right.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import kcompiler
from kcompiler import Preprocessing
from models.demo_model import DEMO_FOLDER, MODEL, PREPROCESSING
from models.demo_pictures import Box, Picture, picture

FIRST_SEED = 5000

Image = npt.NDArray[np.float32]
Explain = Callable[[Image, int], npt.NDArray[np.float32]]
"""Image [3, H, W] and target class to that class's logit per patch position, [rows, cols]."""


@dataclass(frozen=True, slots=True)
class Pointing:
    """How many pictures were explained, and how many maps pointed into the box, and into the grown box."""

    pictures: int
    strict: int
    grown: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile the demo classifier, and print the pointing accuracy of its heat maps."""
    options = _parser().parse_args(arguments)
    bundle = kcompiler.compile(options.demo / MODEL, patch=options.patch, preprocessing=options.demo / PREPROCESSING)
    explainer = kcompiler.load(bundle, threads=options.threads)
    recipe = bundle.manifest.preprocessing
    assert recipe is not None, "given above"
    full = explainer.full_inference()
    found = pointing(
        lambda image: full.run(image[None])[0],
        lambda image, target: explainer.explain(image, stride=options.stride, target=target).scores,
        recipe,
        options.pictures,
        options.patch,
        options.stride,
    )
    print(f"{found.pictures} unseen pictures with a lesion, patch {options.patch}, stride {options.stride}:")
    print(f"largest drop in the lesion's box       {found.strict / found.pictures:.1%}")
    print(f"... grown by half a patch on each side {found.grown / found.pictures:.1%}")


def pointing(
    classify: Callable[[Image], npt.NDArray[np.float32]],
    explain: Explain,
    preprocessing: Preprocessing,
    pictures: int,
    patch: int,
    stride: int,
) -> Pointing:
    """Explain the first ``pictures`` unseen lesions that ``classify`` (image to logits) gets right, and count."""
    strict = grown = 0
    for example, image in tqdm(_recognised(classify, preprocessing, pictures), total=pictures, desc="pictures"):
        assert example.box is not None
        # The target's own uncovered logit is the same for all positions: largest drop is lowest score.
        centre = patch_centre(explain(image, example.label), patch, stride)
        strict += _inside(centre, example.box, margin=0)
        grown += _inside(centre, example.box, margin=patch / 2)
    return Pointing(pictures, strict, grown)


def _recognised(
    classify: Callable[[Image], npt.NDArray[np.float32]], preprocessing: Preprocessing, pictures: int
) -> Iterator[tuple[Picture, Image]]:
    """The first ``pictures`` unseen pictures with a lesion that are classified right, and their model inputs."""
    seed = FIRST_SEED
    while pictures:
        example = picture(seed, "test")
        seed += 1
        if example.box is None:
            continue
        image = preprocessing.to_input(example.pixels)
        if classify(image).argmax() == example.label:
            pictures -= 1
            yield example, image


def patch_centre(scores: npt.NDArray[np.float32], patch: int, stride: int) -> tuple[float, float]:
    """Centre (y, x), in pixels, of the patch whose score is lowest."""
    row, column = np.unravel_index(scores.argmin(), scores.shape)
    return float(row) * stride + patch / 2, float(column) * stride + patch / 2


def _inside(point: tuple[float, float], box: Box, margin: float) -> bool:
    (y, x), (top, left, bottom, right) = point, box
    return top - margin <= y <= bottom + margin and left - margin <= x <= right + margin


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.evaluate_demo", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--demo",
        type=Path,
        default=DEMO_FOLDER,
        metavar="DIR",
        help="folder of the demo's files (default: %(default)s)",
    )
    add("--pictures", type=int, default=100, metavar="N", help="pictures to explain (default: %(default)s)")
    add("--patch", type=int, default=16, metavar="P", help="side of the patch in pixels (default: %(default)s)")
    add("--stride", type=int, default=8, metavar="S", help="pixels between positions (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
