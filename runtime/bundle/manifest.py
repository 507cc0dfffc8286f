"""The manifest of a bundle: the compiled variants, their source model and settings, and the checksums of all files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from kcompiler.runtime.bundle.consistent import (
    MOST_PATCHES,
    MOST_TUNED,
    wild_numbers,
    wrong_recipe,
    wrong_reduction,
    wrong_sizes,
    wrong_variants,
)
from kcompiler.runtime.bundle.digests import FileRecord, file_record
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.formats import check_format, what_is_wrong
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.bundle.reduction import Reduction
from kcompiler.runtime.bundle.report import Report
from kcompiler.runtime.bundle.seal import OPEN, digest_of, sealed
from kcompiler.runtime.bundle.variant import DeviceName, Variant
from kcompiler.runtime.errors import BundleError, UsageError
from kcompiler.runtime.exactness.squashing import Squashing
from kcompiler.runtime.inputs.elements import Element, ElementName
from kcompiler.runtime.inputs.files import text_of
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.records import NotNegative, Positive, Record

FORMAT = 9
"""The format that is written; see :mod:`formats` for what raises it."""
READABLE = range(8, FORMAT + 1)
"""The formats that are read. Its start rises where what was written before cannot be read any more."""
MANIFEST = "manifest.json"
FULL = "full.onnx"
BASELINE = "baseline.onnx"
INCREMENTAL = "incremental.onnx"
WEIGHTS = "weights.bin"
FILES = (FULL, BASELINE, INCREMENTAL, WEIGHTS)
POSITIONS = "positions"
FILL = "fill"
PATCH_KEY = "kcompiler.patch"
"""Metadata key of the incremental model: the patch that its constants are computed for."""
LARGEST_BATCH = 1 << 16
ROWS, COLUMNS = "class/rows", "class/columns"
"""Inputs of a device's index model: rows and columns of the patch whose regions give a class its extents."""
OWN_NAMES = (POSITIONS, FILL, ROWS, COLUMNS)
"""Inputs of the compiled models beside the cached activations."""
TABLE = "table/"
"""Prefix of the names of cached activations, which are outputs of the baseline model and inputs of the incremental model."""
INDEX, SHAPE = "index/", "shape/"
"""Prefixes of the names of what the index model computes for the incremental model: tensors on the device, and shapes, which
ONNX Runtime reads on the host."""
PREFIXES = (TABLE, INDEX, SHAPE)
"""Prefixes that no other tensor of a compiled model has."""

VARIANT_FILE = re.compile(r"(baseline|incremental|index)-[a-z0-9.]{1,40}\.onnx")
"""File names of the models of variants other than the first."""


class Bound(Record):
    """The value that was bound to an input of the source model at compile time.

    Attributes:
        type: element type, as ONNX names it.
        shape: shape of the source's input.
        values: the values in order; None if they are many or not finite.
        sha256: checksum of their bytes.
    """

    type: str
    shape: tuple[NotNegative, ...]
    values: tuple[bool | int | float | str, ...] | None
    sha256: str


class Calibration(Record):
    """Speeds measured at compile time on the machine that the compiler chooses lowerings for.

    Attributes:
        threads: CPU threads; None is as many as physical cores.
        products: FLOP/s of matrix products.
        moved: bytes/s of passes over activations.
        node: seconds to start an operator.
        seconds: measured seconds per position, by node name and lowering.
    """

    threads: int | None
    products: float
    moved: float
    node: float
    seconds: Mapping[str, Mapping[str, float]]


class PatchSet(Record):
    """What is compiled for a patch size.

    Attributes:
        patch: (height, width) in pixels.
        variants: see :class:`Manifest`.
        device_variants: see :class:`Manifest`.
        tuned: see :class:`Manifest`.
        report: see :class:`Manifest`.
    """

    patch: tuple[Positive, Positive]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    device_variants: tuple[Variant, ...] = ()
    tuned: tuple[Tuned, ...] = ()
    report: Report


class Manifest(Record):
    """Everything about a bundle but the models and weights themselves.

    Attributes:
        format: version of the bundle format.
        versions: versions of kcompiler, onnx, ONNX Runtime and numpy at compile time.
        model: file name of the source model.
        model_sha256: SHA-256 digest of the source model's content, with external data.
        image: name of the image input.
        layout: axes of the source's image; the image of the bundle's models is channels first, whichever that is.
        shape: (C, H, W) of the image.
        element: element type of the source's image; the bundle's models take the same values as float32.
        bound: values bound to the source's other inputs, by name.
        output: name of the explained output.
        reduction: how a dense output is reduced to a number per class, if requested.
        logits: name of the input of the final softmax or sigmoid, also an output of the bundle's models; None without such.
        squashing: that softmax or sigmoid; None if ``logits`` is.
        classes: columns of the output, after the reduction.
        two_classes: whether the output is a single sigmoid, which scores two classes.
        largest_batch: largest batch size of the models; 1 where the source's batch size could not be made free.
        patch: (height, width) in pixels.
        variants: compiled forms of the model, the exact one first.
        device_variants: the same for other devices than the CPU; for each device the exact one first.
        calibration: measured speeds; None where lowerings were chosen by predicted times.
        tuned: plans for approximate maps; empty until the bundle is tuned.
        extents: whether regions have the extent of the largest in a batch ("tight"), or of the largest there is ("static").
        convolution: the algorithms of convolutions to choose from: "auto", or "direct" for no transforms.
        preprocessing: how pictures become images; None if that was not said at compile time.
        files: sizes and checksums of the files beside the manifest.
        report: how each node was compiled, and what that gives.
        further: the same for further patch sizes; ``patch``, the variants, ``tuned`` and ``report`` are those of the first.
        manifest_sha256: SHA-256 digest of the manifest's own file, in hexadecimal, computed with zeros for these 64 digits; None
            in bundles of earlier versions, whose manifests nothing guards.
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
    device_variants: tuple[Variant, ...] = ()
    calibration: Calibration | None
    tuned: tuple[Tuned, ...]
    extents: Literal["tight", "static"]
    convolution: Literal["auto", "direct"]
    preprocessing: Preprocessing | None
    files: Mapping[str, FileRecord]
    report: Report
    further: tuple[PatchSet, ...] = ()
    manifest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @property
    def patches(self) -> tuple[tuple[int, int], ...]:
        """The patch sizes that it is compiled for, the first one first."""
        return (self.patch, *(compiled.patch for compiled in self.further))

    def for_patch(self, patch: tuple[int, int] | None) -> Manifest:
        """This manifest as that of a bundle for ``patch`` alone; None is the first patch.

        Raises:
            UsageError: the bundle is not compiled for that patch.
        """
        if patch is not None and patch not in self.patches:
            listed = ", ".join(map(patch_text, self.patches))
            raise UsageError(f"patch {patch_text(patch)}: the bundle is compiled for {listed}")
        compiled = next((compiled for compiled in self.further if compiled.patch == patch), self)
        fields = {name: getattr(compiled, name) for name in PatchSet.model_fields}
        return self.model_copy(update={**fields, "further": ()})

    @property
    def all_variants(self) -> tuple[Variant, ...]:
        """The variants for all patches and devices."""
        sets: tuple[Manifest | PatchSet, ...] = (self, *self.further)
        return tuple(variant for compiled in sets for variant in (*compiled.variants, *compiled.device_variants))

    def disagreements(self) -> Iterator[str]:
        """Says which parts do not fit each other; nothing in manifests that the compiler wrote."""
        numbers = (
            self.reduction.numbers if self.reduction is not None and 0 <= self.reduction.axis < len(self.reduction.shape) else 0
        )
        sets: tuple[Manifest | PatchSet, ...] = (self, *self.further)
        if len(sets) > MOST_PATCHES or len({one.patch for one in sets}) < len(sets):
            yield f"there are {len(sets)} patches, expected different ones, {MOST_PATCHES} at most"
        for one in sets:
            yield from wrong_sizes(self.shape, one.patch, max(self.classes, numbers))
            yield from wrong_variants(one.variants, one.device_variants, self.shape, one.patch)
            if len(one.tuned) > MOST_TUNED:
                yield f"there are {len(one.tuned)} tuned plans, expected at most {MOST_TUNED}"
        yield from wrong_recipe(self.preprocessing, self.shape, self.classes, two_classes=self.two_classes)
        yield from wrong_reduction(self.reduction, self.classes)
        if self.two_classes and self.classes != 1:
            yield f"a single sigmoid scores two classes, but there are {self.classes} columns"
        if self.largest_batch > LARGEST_BATCH:
            yield f"largest_batch is {self.largest_batch}, expected at most {LARGEST_BATCH}"

    @property
    def exact(self) -> Variant:
        return self.variants[0]

    def variants_on(self, device: DeviceName) -> tuple[Variant, ...]:
        """The variants that run on a device, the exact one first: those compiled for it, else the CPU's."""
        return tuple(variant for variant in self.device_variants if variant.device == device) or self.variants

    @property
    def image_element(self) -> Element:
        """The element type of the source's image; the bundle's own models take float32."""
        return Element(self.element)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the models' outputs: the explained output, then the logits if the model has any."""
        return (self.output,) if self.logits is None else (self.output, self.logits)

    @property
    def batch(self) -> int:
        """Positions in a batch of the exact variant."""
        return self.exact.batch

    @property
    def few(self) -> int:
        """Number of positions below which full inference is predicted to take less time than the exact variant."""
        return self.exact.few


def add_tuned(folder: Path, tuned: Tuned, patch: tuple[int, int] | None = None) -> Manifest:
    """Writes a plan that was tuned for ``patch`` (None is the first) into a bundle, replacing any plan for the same settings.

    Raises:
        BundleError: ``folder`` is not an intact bundle.
        UsageError: the manifest cannot be written.
    """
    manifest = read_manifest(folder)

    def settings(plan: Tuned) -> tuple[object, ...]:
        return plan.ssim, plan.share, plan.confidence, plan.stride, plan.score, plan.fill, plan.target, plan.device

    def added(plans: tuple[Tuned, ...]) -> dict[str, tuple[Tuned, ...]]:
        return {"tuned": (*(plan for plan in plans if settings(plan) != settings(tuned)), tuned)}

    if patch in (None, manifest.patch):
        manifest = manifest.model_copy(update=added(manifest.tuned))
    else:
        further = (one.model_copy(update=added(one.tuned)) if one.patch == patch else one for one in manifest.further)
        manifest = manifest.model_copy(update={"further": tuple(further)})
    replace_files(folder, {MANIFEST: manifest_bytes(manifest)}, force=True)
    return manifest


def manifest_bytes(manifest: Manifest) -> bytes:
    """The content of a bundle's manifest file, with its digest."""
    return sealed(manifest.model_copy(update={"manifest_sha256": OPEN}).model_dump_json(indent=1))


def is_own_file(name: str) -> bool:
    """Whether a bundle may hold a file of that name."""
    return name in (*FILES, MANIFEST) or VARIANT_FILE.fullmatch(name) is not None


def patch_text(patch: tuple[int, int]) -> str:
    """The patch as written in the incremental model's metadata: "HxW"."""
    return f"{patch[0]}x{patch[1]}"


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of the bundle at ``folder`` and verifies the checksum of every file.

    Raises:
        BundleError: not a bundle, of another format version, incomplete, or altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        recover(folder.absolute().parent)  # a process that died while it put the bundle there
    if not path.is_file():
        raise BundleError(f"{folder}: not a compiled bundle (no {MANIFEST}); make one with 'kcompiler compile MODEL.onnx'")
    try:
        text = text_of(path, "a manifest", BundleError)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: damaged ({error}); compile the model again") from error
    check_format(path, content, READABLE)
    try:
        manifest = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BundleError(f"{path}: {what_is_wrong(error, content)}; compile the model again") from error
    _check_seal(path, text, manifest)
    if wrong := next(wild_numbers(content), None) or next(manifest.disagreements(), None):
        raise BundleError(f"{path}: damaged ({wrong}); compile the model again")
    expected = {*FILES, *(name for variant in manifest.all_variants for name in variant.files)}
    if set(manifest.files) != expected or not all(map(is_own_file, expected)):
        raise BundleError(
            f"{path}: lists the files {sorted(manifest.files)}, expected {sorted(expected)}; compile the model again"
        )
    for name, record in manifest.files.items():
        _check_file(folder / name, record)
    return manifest


def _check_seal(path: Path, text: str, manifest: Manifest) -> None:
    if manifest.manifest_sha256 is None:
        return
    found = digest_of(text, manifest.manifest_sha256)
    if found != manifest.manifest_sha256:
        raise BundleError(
            f"{path}: altered since it was written (sha256 {found[:12]}, expected {manifest.manifest_sha256[:12]}); copy it "
            "again or compile the model again"
        )


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(f"{path}: missing, the bundle is incomplete; copy it whole or compile the model again")
    if path.stat().st_size != record.bytes:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, expected {record.bytes}; copy it again or compile the model again"
        )
    sha = file_record(path).sha256
    if sha != record.sha256:
        raise BundleError(
            f"{path}: altered since it was compiled (sha256 {sha[:12]}, expected {record.sha256[:12]}); compile the model again"
        )
