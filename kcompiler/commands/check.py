"""``kcompiler check``: compares a bundle with full inference."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.runtime.errors import CheckFailed, UsageError
from kcompiler.runtime.measuring.check import COMPARE, check, sample_positions
from kcompiler.runtime.progress import Stages


def check_bundle(
    bundle: options.BundlePath,
    positions: Annotated[int, typer.Option(help="How many positions, the four corners among them.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the random image and positions.")] = 0,
    provider: options.Provider = None,
    threads: options.Threads = None,
    compiled_for: options.CompiledFor = None,
    patch: options.OfPatch = None,
) -> None:
    """Compare a compiled bundle with full inference, after checking its files against their checksums."""
    if positions < 1:
        raise UsageError(f"--positions is {positions}, expected at least 1")
    explainer = kcompiler.load(
        bundle, providers=provider, threads=threads, compiled_for=compiled_for, patch=options.of_patch(patch)
    )
    manifest = explainer.manifest
    sample = sample_positions(manifest.shape[1:], manifest.patch, positions, seed)
    with Stages(sys.stderr.isatty(), {COMPARE: 1000}) as stages:
        stages.enter(COMPARE)
        comparison = check(explainer, sample, seed=seed, tell=stages.within)
    device = explainer.exact.variant.device
    variants = f" by the variant for {device}" if device != explainer.device else ""
    figures = f"{len(sample)} positions on {explainer.device}{variants}, largest error {comparison.largest_error:.3g}"
    if not comparison.agrees:
        raise CheckFailed(f"{bundle}: disagrees with full inference: {comparison.reason} ({figures})")
    typer.echo(f"OK {bundle}: {figures}, largest map error {comparison.map_error:.0%} of what is allowed")
