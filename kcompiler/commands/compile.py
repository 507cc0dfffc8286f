"""``kcompiler compile``: compiles an ONNX model and writes the bundle."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.reading import AS_DECLARED, Reading, with_reading
from kcompiler.runtime.bundle.files import check_folder_replaceable
from kcompiler.runtime.bundle.manifest import is_own_file, patch_text
from kcompiler.runtime.bundle.report import ONLY_SAMPLING
from kcompiler.runtime.deployed import is_of_export
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.recipes import PRESETS

if TYPE_CHECKING:
    from kcompiler.bundle import Bundle

TAUS = (0.6, 0.5, 0.4)


@with_reading
def compile_model(
    model: options.Model,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Bundle to write; default is MODEL.kc (or .map) beside the model.")
    ] = None,
    patch: Annotated[
        list[str] | None,
        typer.Option(metavar="P | HxW", help="Patch in pixels: a side, or height x width; default 16; repeat for several."),
    ] = None,
    reading: Reading = AS_DECLARED,
    extents: Annotated[
        Literal["tight", "static"], typer.Option(help="Regions as each batch needs, or in constant shapes.")
    ] = "tight",
    convolution: Annotated[Literal["auto", "direct"], typer.Option(help="Convolution algorithms to choose from.")] = "auto",
    approximate: Annotated[
        bool,
        typer.Option("--approximate", help=f"Add variants for 'tune' to choose from: tau {', '.join(map(str, TAUS))}, int8."),
    ] = False,
    tau: Annotated[
        list[float] | None,
        typer.Option(help="Add a variant that recomputes at most this share of each map's height and width; repeat for several."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Add variants in 8-bit integers, where those pay.")] = False,
    freeze_gates: Annotated[
        bool, typer.Option("--freeze-gates", help="Add variants that keep squeeze-and-excite gates as for the uncovered image.")
    ] = False,
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Add variants for CUDA to those for the CPU; needs no GPU.")
    ] = "cpu",
    precision: Annotated[
        Literal["float32", "tf32"], typer.Option(help="Of CUDA variants; tf32 adds approximate ones, in products of TF32.")
    ] = "float32",
    calibrate: options.Calibrate = False,
    threads: options.Threads = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET | FILE",
            help=f"How pictures become inputs, and the labels: {', '.join(PRESETS)}; a recipe; Hugging Face's "
            "preprocessor_config.json, timm's config.json, or a folder with one.",
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write no bundle, but one model, image in, heat map out (see 'export').")
    ] = False,
    force: options.Force = False,
) -> None:
    """Compile an ONNX model for one patch size, and verify it against full inference."""
    target = out if out is not None else model.with_suffix(".map" if single_file else ".kc")
    if target.is_dir() and model.resolve().is_relative_to(target.resolve()):
        raise UsageError(f"{target}: holds the model {model.name}, it will not be replaced; choose another place (-o)")
    check_folder_replaceable(target, is_of_export if single_file else is_own_file, force=force)
    start = time.perf_counter()
    bundle = kcompiler.compile(
        model,
        patch=[options.patch_size(text) for text in patch or ["16"]],
        **reading.arguments,
        extents=extents,
        convolution=convolution,
        thresholds=tau or (TAUS if approximate else ()),
        int8=int8 or approximate,
        freeze_gates=freeze_gates,
        calibrate=calibrate,
        threads=threads,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
        progress=sys.stderr.isatty(),
    )
    if single_file:
        bundle.export(target, preprocess=preprocessing is not None, single_file=True, force=force)
    else:
        bundle.save(target, force=force)
    for line in _result(bundle, model, target, time.perf_counter() - start):
        typer.echo(line)


def _result(bundle: Bundle, model: Path, target: Path, seconds: float) -> Iterator[str]:
    """What was compiled, and with what to expect: each further patch, each variant for a device, notes, the exact variant."""
    report, manifest = bundle.report, bundle.manifest
    for compiled in manifest.further:
        found = compiled.report
        yield (
            f"{target}: patch {patch_text(compiled.patch)}: redundancy R {found.redundancy_tight:.2f}, predicted speed-up "
            f"{found.predicted_speedup:.1f}x, largest error {found.largest_error:.2g}"
        )
    for variant in manifest.device_variants:
        speed = f"batches of {variant.batch}, predicted speed-up {variant.predicted_speedup:.1f}x"
        yield f"{target}: {variant.name} for {variant.device}: {'runs whole' if variant.whole else speed}"
    yield from (f"{model}: {note}" for note in report.notes)
    exact, *approximations = manifest.variants
    if exact.whole:
        left = f"; {ONLY_SAMPLING}" if not approximations else "; the approximate variants recompute less"
        yield f"{model}: runs whole: {report.nodes[0].reason}{left}"
    if manifest.preprocessing is None:
        yield f"{target}: {_without_recipe(manifest.shape)}"
    incremental = sum(node.incremental for node in report.nodes)
    yield (
        f"{target}: {incremental} of {len(report.nodes)} nodes incremental, redundancy R {report.redundancy_tight:.2f} "
        f"(paper's counting {report.redundancy_paper:.2f}), "
        f"predicted speed-up {report.predicted_speedup:.1f}x, largest error {report.largest_error:.2g}, {seconds:.1f} s"
    )


def _without_recipe(shape: tuple[int, int, int]) -> str:
    """What a bundle without a recipe takes, and the recipes that most models have."""
    return (
        f"takes preprocessed float32 arrays {list(shape)} (channels, height, width), no pictures: for these add --preprocessing "
        "imagenet (torchvision: resized, cropped, less mean, by std), unit (0 to 1), minus-one-one (-1 to 1), or a FILE"
    )
