"""``kcompiler bench``: times compiled models against full inference; prints a table."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import kcompiler
from kcompiler.bundle import Bundle
from kcompiler.commands import options
from kcompiler.commands.reading import AS_DECLARED, Reading, with_reading
from kcompiler.commands.rivals import captum_seconds, torch_module, torch_seconds
from kcompiler.runtime.errors import CheckFailed, UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.sessions import Machine
from kcompiler.runtime.inference.spread import spread
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.bench import Benchmark, benchmark
from kcompiler.runtime.measuring.check import random_image
from kcompiler.runtime.measuring.memory import Memory
from kcompiler.runtime.measuring.profile import profile as profile_of


@with_reading
def bench_models(
    models: Annotated[list[Path], typer.Argument(help="ONNX models, or compiled bundles.", show_default=False)],
    patch: Annotated[
        list[str] | None, typer.Option(metavar="P | HxW", help="Patch of models to compile, default 16; repeat for several.")
    ] = None,
    stride: Annotated[list[int] | None, typer.Option(help="Pixels between positions, default 4; repeat for several.")] = None,
    positions: Annotated[int, typer.Option(help="About how many positions to sample in each round.")] = 160,
    rounds: Annotated[int, typer.Option(help="Rounds of full inference and compiled path in turn.")] = 8,
    against: Annotated[str, typer.Option(help="Besides full inference: torch, captum, separated by commas.")] = "full",
    module: Annotated[
        str | None,
        typer.Option("--torch-module", metavar="MODULE:FUNCTION", help="Makes the same network for --against torch or captum."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Print the time of each operator, too.")] = False,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in processes of its own.")] = True,
    calibrate: options.Calibrate = False,
    reading: Reading = AS_DECLARED,
    provider: options.Provider = None,
    threads: options.Threads = None,
    compiled_for: options.CompiledFor = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time the compiled path against full inference at its best batch size, in one run."""
    patches, strides = patch or ["16"], stride or [4]
    if min(*strides, positions, rounds) < 1:
        raise UsageError("--stride, --positions and --rounds are numbers of at least 1")
    from kcompiler.passes.choosing.calibrate import measured_rates

    rivals = _rivals(against, module)
    machine = Machine(tuple(provider) if provider else None, threads)
    peak = measured_rates(machine).products
    results: list[Benchmark] = []
    extra: list[dict[str, float]] = []
    for path, size in product(models, patches):
        bundle: Path | Bundle = path
        if path.is_dir() and (calibrate or patch is not None or reading.given):
            raise UsageError(
                f"{path}: is compiled already; --patch, --input-shape, --layout, --bind, --output, --reduce and --calibrate are "
                "for models"
            )
        tell = partial(_tell, path.name)
        if not path.is_dir():
            tell("compiling")
            bundle = kcompiler.compile(
                path,
                patch=options.patch_size(size),
                device=compiled_for or machine.device,
                calibrate=calibrate,
                threads=threads,
                progress=sys.stderr.isatty(),
                **reading.arguments,
            )
        explainer = kcompiler.load(bundle, providers=provider, threads=threads, compiled_for=compiled_for)
        for step in strides:
            results.append(benchmark(explainer, stride=step, sample=positions, rounds=rounds, memory=memory, tell=tell))
            extra.append({name: seconds(explainer, threads) for name, seconds in rivals.items()})
        if profile:
            _print_profile(explainer, positions, json)
    if json:
        records = [
            {**result.as_record(), "gemm_peak": peak, "against": seconds} for result, seconds in zip(results, extra, strict=True)
        ]
        typer.echo(json_format.dumps(records, indent=1))
    else:
        _console().print(table_of(results, extra, peak))
        _console().print(f"Gemm peak of this machine: {peak / 1e9:.0f} GFLOP/s")
    disagreeing = [result.model for result in results if not result.agrees]
    if disagreeing:
        raise CheckFailed(f"{', '.join(disagreeing)}: disagrees with full inference")


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = 220
    return console


def _rivals(against: str, module_name: str | None) -> dict[str, Callable[[Explainer, int | None], float]]:
    """Functions that measure seconds per position, for each name in ``against`` other than "full"."""
    names = [name.strip() for name in against.split(",") if name.strip() not in ("", "full")]
    unknown = [name for name in names if name not in ("torch", "captum")]
    if unknown:
        raise UsageError(f"--against is {against!r}: {unknown[0]} is not known, expected full, torch or captum")
    if not names:
        return {}
    if module_name is None:
        raise UsageError("--against torch or captum needs --torch-module, a function that makes the same network in PyTorch")
    module = torch_module(module_name)

    def by_torch(explainer: Explainer, threads: int | None) -> float:
        return torch_seconds(module, random_image(explainer.manifest.shape, 0), threads)

    def by_captum(explainer: Explainer, threads: int | None) -> float:
        return captum_seconds(module, random_image(explainer.manifest.shape, 0), explainer.manifest.patch, threads)

    return {name: {"torch": by_torch, "captum": by_captum}[name] for name in names}


def _print_profile(explainer: Explainer, positions: int, json: bool) -> None:
    manifest = explainer.manifest
    if not any(node.incremental for node in manifest.report.nodes):
        _tell(manifest.model, "no profile: the model runs whole, as full inference does")
        return
    grid = make_grid(manifest.shape[1:], manifest.patch, 4).positions
    baseline = explainer.exact.baseline(random_image(manifest.shape, 0, element=manifest.image_element))
    table = Table(
        "operator", "nodes", "ms a position, a batch alone", "share", box=None, title=f"{manifest.model}: incremental model"
    )
    for timed in profile_of(explainer, baseline, spread(explainer.exact, grid, positions)):
        table.add_row(timed.operator, str(timed.count), f"{timed.seconds * 1e3:.3f}", f"{timed.share:.1%}")
    (Console(stderr=True) if json else _console()).print(table)


def _tell(name: str, line: str) -> None:
    print(f"{name}: {line}", file=sys.stderr, flush=True)


def table_of(results: list[Benchmark], extra: list[dict[str, float]], peak: float) -> Table:
    """A row per model, patch and stride; times in milliseconds per position. ``extra`` holds the rivals' seconds per position."""
    names = sorted({name for rivals in extra for name in rivals})
    table = Table("model", "image", "patch", "stride", "full, ms by batch", *(f"{name}, ms" for name in names),
                  "compiled, ms (batch)", "speed-up (range)", "undisturbed", "over full side by side", "R", "over R",
                  "of Gemm peak", "16 positions", "peak memory full / compiled (private)", "largest error", box=None)  # fmt: skip
    for result, rivals in zip(results, extra, strict=True):
        full = ", ".join(f"{size}: {measured.median * 1e3:.2f}" for size, measured in result.full.items())
        rate = result.flops / result.redundancy / result.compiled.median
        table.add_row(
            result.model,
            "x".join(map(str, result.shape[1:])),
            "x".join(map(str, result.patch)),
            str(result.stride),
            full,
            *(f"{rivals[name] * 1e3:.2f}" for name in names),
            f"{result.compiled.median * 1e3:.2f} ({result.batch})",
            f"{result.speedup:.2f}x ({result.slowest_speedup:.2f}-{result.fastest_speedup:.2f})",
            f"{result.undisturbed_speedup:.2f}x",
            "-" if result.speedup_side_by_side is None else f"{result.speedup_side_by_side:.2f}x",
            f"{result.redundancy:.2f}",
            f"{result.speedup / result.redundancy:.2f}",
            f"{rate / peak:.0%}",
            f"{result.drill_down:.2f}x",
            f"{_megabytes(result.memory_full)} / {_megabytes(result.memory_compiled)}",
            f"{result.largest_error:.2g}",
        )
    return table


def _megabytes(memory: Memory | None) -> str:
    return "-" if memory is None else f"{memory.peak / 1e6:.0f} ({memory.private / 1e6:.0f}) MB"
