"""``kcompiler bench``: the compiled path against full inference, as a table."""

from __future__ import annotations

import json as json_format
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import kcompiler
from kcompiler.bundle import Bundle
from kcompiler.commands import options
from kcompiler.runtime.bench import Benchmark, benchmark
from kcompiler.runtime.errors import CheckFailed, UsageError


def bench_models(
    models: Annotated[list[Path], typer.Argument(help="ONNX models, or compiled bundles.", show_default=False)],
    patch: Annotated[str | None, typer.Option(metavar="P | HxW", help="Patch of models to compile; default 16.")] = None,
    stride: Annotated[int, typer.Option(help="Pixels between neighbouring positions.")] = 4,
    positions: Annotated[int, typer.Option(help="About how many positions to sample in each round.")] = 400,
    rounds: Annotated[int, typer.Option(help="Rounds of full inference and compiled path in turn.")] = 3,
    input_shape: options.InputShape = None,
    output: options.Output = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time the compiled path against full inference at its best batch size, in one run."""
    if min(stride, positions, rounds) < 1:
        raise UsageError("--stride, --positions and --rounds are numbers of at least 1")
    results = []
    for path in models:
        bundle: Path | Bundle = path
        if path.is_dir() and (patch is not None or input_shape is not None or output is not None):
            raise UsageError(f"{path}: is compiled already, --patch, --input-shape and --output are for models")
        if not path.is_dir():
            _tell(path.name, "compiling")
            bundle = kcompiler.compile(
                path, patch=options.patch_size(patch or "16"), input_shape=options.input_shape(input_shape), output=output
            )
        explainer = kcompiler.load(bundle, providers=provider, threads=threads)
        tell = partial(_tell, path.name)
        results.append(benchmark(explainer, stride=stride, sample=positions, rounds=rounds, tell=tell))
    if json:
        typer.echo(json_format.dumps([result.as_record() for result in results], indent=1))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 170
        console.print(table_of(results))
    wrong = [result.model for result in results if not result.agrees]
    if wrong:
        raise CheckFailed(f"{', '.join(wrong)}: disagrees with full inference")


def _tell(name: str, line: str) -> None:
    print(f"{name}: {line}", file=sys.stderr, flush=True)


def table_of(results: list[Benchmark]) -> Table:
    """One row a model; times in milliseconds a position."""
    table = Table("model", "image", "patch", "stride", "full inference, ms by batch", "compiled, ms (batch)", "speed-up (range)",
                  "R",                   "peak memory full / compiled", "largest error", box=None)  # fmt: skip
    for result in results:
        full = ", ".join(f"{size}: {measured.median * 1e3:.2f}" for size, measured in result.full.items())
        table.add_row(
            result.model,
            "x".join(map(str, result.shape[1:])),
            "x".join(map(str, result.patch)),
            str(result.stride),
            full,
            f"{result.compiled.median * 1e3:.2f} ({result.batch})",
            f"{result.speedup:.2f}x ({result.slowest_speedup:.2f}-{result.fastest_speedup:.2f})",
            f"{result.redundancy:.2f}",
            f"{_megabytes(result.peak_full)} / {_megabytes(result.peak_compiled)}",
            f"{result.largest_error:.2g}",
        )
    return table


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f} MB"
