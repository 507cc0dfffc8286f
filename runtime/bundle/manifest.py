"""The manifest of a bundle: what was compiled, from what, and the checksums that guard it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.errors import BundleError
from kcompiler.runtime.exactness.squashing import Squashing
from kcompiler.runtime.inputs.elements import Element, ElementName
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.records import NotNegative, Positive, Record

FORMAT = 8
MANIFEST = "manifest.json"
FULL = "full.onnx"
BASELINE = "baseline.onnx"
INCREMENTAL = "incremental.onnx"
WEIGHTS = "weights.bin"
FILES = (FULL, BASELINE, INCREMENTAL, WEIGHTS)
POSITIONS = "positions"
FILL = "fill"
PATCH_KEY = "kcompiler.patch"
"""Metadata of the incremental model: the patch that its constants are made for."""
LARGEST_BATCH = 1 << 16
OWN_NAMES = (POSITIONS, FILL)
"""Inputs of the incremental model beside the cached activations."""
TABLE = "table/"
"""Prefix of the cached activations: outputs of the baseline model and inputs of the incremental model have one name."""

VARIANT_FILE = re.compile(r"(baseline|incremental)-[a-z0-9.]{1,40}\.onnx")
"""Models of the approximate variants."""


class FileRecord(Record):
    """Size and checksum of a file of the bundle."""

    bytes: int
    sha256: str


class Geometry(Record):
    """How large the regions of some values are, by the place of the patch: what the scheduler orders positions by.

    Attributes:
        work: FLOPs a cell, of all nodes that compute such a value.
        heights: of the region, by the patch's row.
        widths: by its column.
    """

    work: float
    heights: tuple[Positive, ...]
    widths: tuple[Positive, ...]


class Variant(Record):
    """A compiled form of the model. The first of a bundle is exact.

    Attributes:
        name: "exact", or what is approximate about it.
        threshold: share of a map's height and width that is recomputed at most (the paper's tau); 1 is exact.
        node_thresholds: other shares, by node name.
        integers: whether some products are of 8-bit integers.
        frozen_gates: how many numbers a channel, made of the whole map, are kept as for the uncovered image.
        whole: whether nothing is incremental: then full inference evaluates positions.
        baseline, incremental: names of its two models.
        batch: positions in a batch that were predicted fastest.
        few: for fewer positions of an image than this, full inference is predicted to take less time.
        weight_bytes: of the incremental model.
        bytes_per_position: estimate of the largest tensors alive at once, a position of a batch.
        bytes_per_batch: what a batch takes beside that, however small: the largest cached activation, copied.
        predicted_speedup: over full inference, on the machine that the choices were made for.
        geometries: of the regions that are recomputed.
    """

    name: str
    threshold: Annotated[float, Field(gt=0, le=1)]
    node_thresholds: Mapping[str, Annotated[float, Field(gt=0, le=1)]]
    integers: bool
    frozen_gates: NotNegative
    whole: bool
    baseline: str
    incremental: str
    batch: Positive
    few: NotNegative
    weight_bytes: NotNegative
    bytes_per_position: Positive
    bytes_per_batch: NotNegative
    predicted_speedup: float
    geometries: Annotated[tuple[Geometry, ...], Field(min_length=1)]


class Bound(Record):
    """The value that an input of the source was given when it was compiled.

    Attributes:
        type: as ONNX names it.
        shape: as the source takes it.
        values: the numbers in order, if they are few and finite.
        sha256: of their bytes.
    """

    type: str
    shape: tuple[NotNegative, ...]
    values: tuple[bool | int | float | str, ...] | None
    sha256: str


class Calibration(Record):
    """What was measured at compile time, on the machine that the choices are for.

    Attributes:
        threads: of the CPU; None is one for each physical core.
        products: FLOP/s of matrix products.
        moved: bytes/s of passes over activations.
        node: seconds that starting an operator takes.
        seconds: a position, by node and lowering, of those that were run.
    """

    threads: int | None
    products: float
    moved: float
    node: float
    seconds: Mapping[str, Mapping[str, float]]


class Manifest(Record):
    """Everything about a bundle but its numbers.

    Attributes:
        format: version of the bundle's layout.
        versions: of kcompiler, onnx, ONNX Runtime, numpy at compile time.
        model: file name of the source model; ``model_sha256`` of its content (external data included).
        image: name of the image input; ``layout`` of the source's input (the bundle's models are channels first);
            ``shape`` (C, H, W).
        element: type of the source's image: the bundle's models take the same numbers as float32.
        bound: what the source's other inputs were given, by name.
        output: name of the explained output; ``classes`` numbers in it.
        two_classes: whether its one number comes of a sigmoid, so that it speaks of two classes.
        reduction: of a dense output to one number a class, if it was asked for; ``classes`` counts those then.
        logits: name of what the final softmax or sigmoid reads, an output of the bundle's models too; None where there is none.
        squashing: that softmax or sigmoid; None likewise.
        largest_batch: images that the models take at once; 1 where the source's batch could not be freed.
        patch: (height, width) in pixels.
        variants: the exact one first.
        calibration: None where choices were made by predicted times.
        tuned: plans for approximate maps, none until the bundle is tuned.
    """

    format: int
    versions: Mapping[str, str]
    model: str
    model_sha256: str
    image: str
    layout: Literal["NCHW", "NHWC"]
    shape: tuple[Positive, Positive, Positive]
    element: ElementName
    bound: Mapping[str, Bound]
    output: str
    reduction: Reduction | None
    logits: str | None
    squashing: Squashing | None
    classes: Positive
    two_classes: bool
    largest_batch: Positive
    patch: tuple[Positive, Positive]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    calibration: Calibration | None
    tuned: tuple[Tuned, ...]
    extents: Literal["tight", "static"]
    convolution: Literal["auto", "direct"]
    preprocessing: Preprocessing | None
    files: Mapping[str, FileRecord]
    report: Report

    @property
    def exact(self) -> Variant:
        return self.variants[0]

    @property
    def image_element(self) -> Element:
        """The type of the source's image; the bundle's own models take float32."""
        return Element(self.element)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the models put out: the explained output, then the logits if there are any."""
        return (self.output,) if self.logits is None else (self.output, self.logits)

    @property
    def batch(self) -> int:
        """Positions in a batch of the exact variant."""
        return self.exact.batch

    @property
    def few(self) -> int:
        """Of the exact variant."""
        return self.exact.few


def add_tuned(folder: Path, tuned: Tuned) -> Manifest:
    """Writes a tuned plan into the manifest of the bundle at ``folder``, in place of one for the same settings.

    Raises:
        BundleError: no bundle.
        UsageError: it cannot be written.
    """
    manifest = read_manifest(folder)

    def settings(one: Tuned) -> tuple[object, ...]:
        return one.ssim, one.share, one.confidence, one.stride, one.score, one.fill, one.target

    others = tuple(one for one in manifest.tuned if settings(one) != settings(tuned))
    manifest = manifest.model_copy(update={"tuned": (*others, tuned)})
    replace_files(folder, {MANIFEST: manifest.model_dump_json(indent=1).encode()}, force=True)
    return manifest


def is_own_file(name: str) -> bool:
    """Whether a bundle may hold a file of that name."""
    return name in (*FILES, MANIFEST) or VARIANT_FILE.fullmatch(name) is not None


def patch_text(patch: tuple[int, int]) -> str:
    """A patch as the metadata of the incremental model has it."""
    return f"{patch[0]}x{patch[1]}"


def file_record(path: Path) -> FileRecord:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return FileRecord(bytes=path.stat().st_size, sha256=digest.hexdigest())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle at ``folder``, after checking that every file of the bundle is as it was written.

    Raises:
        BundleError: no bundle, of another format, incomplete, or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder}: not a compiled bundle (no {MANIFEST}); make one with 'kcompiler compile MODEL.onnx'")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged ({error}); compile the model again") from error
    if version != FORMAT:
        raise BundleError(f"{path}: bundle format {version!r}, this kcompiler reads format {FORMAT}; compile the model again")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors()[:5])
        raise BundleError(f"{path}: damaged (wrong or missing: {wrong}); compile the model again") from error
    expected = {*FILES, *(name for variant in manifest.variants for name in (variant.baseline, variant.incremental))}
    if set(manifest.files) != expected or not all(map(is_own_file, expected)):
        raise BundleError(
            f"{path}: lists the files {sorted(manifest.files)}, expected {sorted(expected)}; compile the model again"
        )
    for name, record in manifest.files.items():
        _check_file(folder / name, record)
    return manifest


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing, the bundle is incomplete; copy it whole or compile the model again")
    if path.stat().st_size != record.bytes:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, expected {record.bytes}; copy it again or compile the model again"
        )
    found = file_record(path).sha256
    if found != record.sha256:
        raise BundleError(
            f"{path}: altered since it was compiled (sha256 {found[:12]}, expected {record.sha256[:12]}); compile the model again"
        )
