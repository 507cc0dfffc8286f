"""What ``kcompiler tune`` prints: the plans that were tried, what the one that is taken promises, and what else may help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.bundle.report import NO_VARIANT
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.tuning.judging import CHOOSING
from kcompiler.runtime.tuning.promise import images_needed

WIDTH = 160
"""Columns where the output is no terminal."""


def print_tuned(tuned: Tuned, manifest: Manifest, bundle: Path) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    console.print(plan_table(tuned, len(make_grid(manifest.shape[1:], manifest.patch, tuned.stride).positions)))
    for line in (summary(tuned), *advice(manifest, tuned)):
        console.print(f"{bundle}: {line}", soft_wrap=True, highlight=False)


def plan_table(tuned: Tuned, positions: int) -> Table:
    """All plans that were tried, then an exact map and the plan that is taken; a whole map has so many ``positions``."""
    evidence = tuned.evidence
    chose, held_out = evidence.images - evidence.held_out, dict(evidence.judged)
    table = Table(title=f"images that keep SSIM {tuned.ssim:g}", title_justify="right", box=None)
    for column in ("plan", "positions", "seconds", f"of {chose} that chose", f"of {evidence.held_out} held out"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    for name, count, seconds, kept in sorted(evidence.candidates, key=lambda candidate: candidate[2]):
        table.add_row(name, f"{count:.0f}", f"{seconds:.2f}", f"{kept:.0%}", f"{held_out.get(name, '')}")
    table.add_row("exact maps", f"{positions}", f"{evidence.exact_seconds:.2f}", "", "")
    taken, evaluated = f"taken: {described(tuned.plan)}", f"{evidence.evaluated * positions:.0f}"
    table.add_row(taken, evaluated, f"{evidence.seconds:.2f}", "", f"{evidence.kept}", style="bold")
    return table


def described(plan: SamplingPlan) -> str:
    """A plan in a few words."""
    if plan.everything:
        return "exact maps" if plan == EVERYTHING else f"every position, {plan.variant}"
    careful = f"to SSIM {plan.expected_ssim:g}" if plan.method == "kriging" else f"share {plan.share:g}"
    return f"{plan.method}, step {plan.step}, {careful}, {plan.variant}"


def summary(tuned: Tuned) -> str:
    """The result of tuning as a sentence."""
    evidence, plan = tuned.evidence, tuned.plan
    if plan.everything and plan.variant == "exact":
        return (
            f"no plan keeps SSIM {tuned.ssim:g} on {tuned.share:.0%} of the images in less time: exact maps will be used, "
            f"{evidence.exact_seconds:.2f} s each"
        )
    needed = images_needed(tuned.share, tuned.confidence)
    used = "" if evidence.images == evidence.given else f" ({evidence.images} of {evidence.given} images were used)"
    promise = (
        f"promised with {tuned.confidence:.0%} confidence"
        if tuned.promised
        else f"NOT promised: that takes {CHOOSING + needed} images at least, {needed} of them held out; "
        f"from these it is {evidence.least_share:.0%} of unseen images"
    )
    return (
        f"{plan.method} by the variant {plan.variant}, {evidence.evaluated:.1%} of the positions evaluated, "
        f"{evidence.seconds:.2f} s where an exact map takes {evidence.exact_seconds:.2f} s; "
        f"SSIM >= {tuned.ssim:g} on {evidence.kept} of {evidence.held_out} images that had no part in the choice{used}; "
        f"{tuned.share:.0%} of unseen images {promise}"
    )


def advice(manifest: Manifest, tuned: Tuned) -> Iterator[str]:
    """What else may make maps of this bundle faster, and what cannot."""
    approximate = [variant for variant in manifest.variants_on(tuned.device) if variant.name != EVERYTHING.variant]
    left_out = [note for note in manifest.report.notes if note.startswith(NO_VARIANT)]
    exact = manifest.variants_on(tuned.device)[0]
    if exact.whole and not approximate:
        yield "runs whole: plans evaluate part of the positions, each by full inference; nothing else makes its maps faster"
    elif not approximate and not left_out:
        yield "has the exact variant only; 'kcompiler compile --approximate' adds others, which may be faster"
    yield from left_out if not approximate else ()
