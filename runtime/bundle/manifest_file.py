"""The file of a bundle's manifest: written with its digest, read with all that it says of the bundle checked."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from kcompiler.runtime.bundle.consistent import wild_numbers
from kcompiler.runtime.bundle.digests import FileRecord, file_record
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import replace_files
from kcompiler.runtime.bundle.formats import check_format, what_is_wrong
from kcompiler.runtime.bundle.manifest import FILES, MANIFEST, READABLE, Manifest, is_own_file
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.bundle.seal import OPEN, digest_of, sealed
from kcompiler.runtime.errors import BundleError
from kcompiler.runtime.inputs.files import text_of


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
