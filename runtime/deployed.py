"""The card of a map model: what goes in, what comes out, and how to tell that it runs right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kcompiler.runtime.bundle.digests import FileRecord
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.records import NotNegative, Positive, Record

CARD, MODEL, WEIGHTS, PAGE = "card.json", "map.onnx", "weights.bin", "card.txt"
TEST_IMAGE, TEST_MAP = "test-image.bin", "test-map.bin"
CARD_FORMAT = 2

IMAGE, PICTURE, COLOUR, TARGET, BATCHES, KNOWN = "image", "picture", "fill", "target", "batches", "known"
"""Names of the inputs."""
MAP, DROP, CHOSEN, UNCOVERED, EVALUATED, SEEN = "map", "drop", "class", "uncovered", "evaluated", "seen"
"""Names of the outputs."""


class Tensor(Record):
    """An input or output of the model.

    Attributes:
        name: in the model.
        type: element type, as NumPy names it.
        shape: sizes, by name where they differ from call to call.
        meaning: what the numbers are.
    """

    name: str
    type: Literal["float32", "int64", "uint8"]
    shape: tuple[Positive | str, ...]
    meaning: str


class DrillDown(Record):
    """A coarse grid, refined around its most sensitive cells; the others take the score of the nearest coarse cell.

    Attributes:
        step: of the coarse grid, in cells of the map.
        share: of the coarse cells that are refined.
        coarse_batches: number of the first batches, which evaluate the coarse grid. The others need the scores of all of them.
    """

    step: Positive
    share: float
    coarse_batches: Positive


class TestVector(Record):
    """An input and the map that the Python driver makes of it: raw little-endian numbers, row by row.

    Attributes:
        image: file of the image, float32, or of the picture, uint8, in ``image_shape``.
        image_shape: sizes.
        map: file of the map, float32, in the shape of the output; NaN where no batch was evaluated.
        fill: the fill of every channel.
        target: the class that was asked for; -1 is the largest.
        batches: (first, count) of the batches evaluated.
        chosen: the class that was explained.
        tolerance: largest difference to expect from another machine or runtime, as a share of the map's range.
    """

    image: str
    image_shape: tuple[Positive, ...]
    map: str
    fill: float
    target: int
    batches: tuple[NotNegative, NotNegative]
    chosen: NotNegative
    tolerance: float


class Card(Record):
    """What a map model is.

    Attributes:
        format: of this card.
        kcompiler: version that wrote it.
        model, model_sha256: the source model.
        variant: of the bundle; "exact", or the name of an approximation.
        score: what is scored: the "output", or the "logit" in front of its softmax or sigmoid.
        largest_error: of the exact variant against full inference, at compile time; None if it was not measured.
        opset: version of ONNX's standard operators.
        domains: of the operators; "ai.onnx" are the standard ones.
        operators: how often each occurs, in the body of the Loop too.
        inputs, outputs: of the model.
        patch: (height, width) in pixels.
        ys, xs: top-left corners of the patch, in pixels, by the map's rows and columns.
        batches: positions of each batch, in order of evaluation; at most, where a drill-down refines.
        drill_down: which positions are evaluated; None for all of them.
        tuned: the promise of a tuned plan that this model carries out, and its evidence; None if there is none.
        labels: names of the classes; empty if there are none.
        layout: of the source model's image. The map model's image is channels first, whichever that is.
        preprocessing: how pictures become images; None if that was not said at compile time.
        preprocesses: whether the model does that itself.
        files: sizes and checksums of the files beside the card.
        test: a test vector.
    """

    format: int
    kcompiler: str
    model: str
    model_sha256: str
    variant: str
    score: Literal["output", "logit"]
    largest_error: float | None
    opset: Positive
    domains: tuple[str, ...]
    operators: Mapping[str, Positive]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    patch: tuple[Positive, Positive]
    ys: tuple[int, ...]
    xs: tuple[int, ...]
    batches: tuple[Positive, ...]
    drill_down: DrillDown | None
    tuned: Tuned | None
    labels: tuple[str, ...]
    layout: Literal["NCHW", "NHWC"]
    preprocessing: Preprocessing | None
    preprocesses: bool
    files: Mapping[str, FileRecord]
    test: TestVector


def is_of_export(name: str) -> bool:
    """Whether a folder that an export wrote may hold a file of that name."""
    return name in (CARD, MODEL, WEIGHTS, PAGE, TEST_IMAGE, TEST_MAP)
