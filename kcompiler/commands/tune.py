"""``kcompiler tune``: finds the fastest plan that reaches an SSIM on calibration images, and writes it into the bundle."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.request import fill_record, model_record, parse_fill, parse_target, read_input
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.manifest import add_tuned
from kcompiler.runtime.bundle.plans import Tuned
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.sampling.tuned import check_budget
from kcompiler.runtime.tuning.judging import CHOOSING
from kcompiler.runtime.tuning.promise import images_needed
from kcompiler.runtime.tuning.trials import Goal, Sample
from kcompiler.runtime.tuning.tuner import check_images, tune

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")


def tune_bundle(
    bundle: options.BundlePath,
    images: Annotated[Path, typer.Option(help="Folder of calibration images: pictures, or preprocessed arrays (.npy).")],
    ssim: Annotated[float, typer.Option(help="SSIM with the exact map that is to be kept, above 0, up to 1.")] = 0.9,
    share: Annotated[float, typer.Option(help="Share of all images on which it is to be kept.")] = 0.9,
    confidence: Annotated[float, typer.Option(help="Confidence that it is.")] = 0.95,
    stride: Annotated[int, typer.Option(help="Pixels between neighbouring positions.")] = 4,
    score: options.ScoreOption = "auto",
    target: options.Target = None,
    fill: options.FillOption = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds for exact maps: once they are over, the images done by then are used.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder where exact maps are kept, so that nothing is computed twice. Default: BUNDLE.tuning"),
    ] = None,
    for_export: Annotated[
        bool, typer.Option("--for-export", help="Only plans that 'export --quality' can carry out: no kriging.")
    ] = False,
    provider: options.Provider = None,
    threads: options.Threads = None,
    patch: options.OfPatch = None,
) -> None:
    """Find the fastest approximate plan that keeps an SSIM on a share of all images; 'explain --quality' then uses it."""
    explainer = kcompiler.load(bundle, providers=provider, threads=threads, patch=options.of_patch(patch))
    goal = Goal(
        ssim=ssim, share=share, confidence=confidence, stride=stride, score="auto" if score == "drop" else score,
        target=parse_target(explainer, target),
        fill=parse_fill(explainer, bundle, fill), for_export=for_export,
    )  # fmt: skip
    console = Console(stderr=True)
    if budget is not None:
        check_budget(budget)
    inputs = {path.name: read_input(explainer, path) for path in _image_files(images)}
    check_images(explainer, inputs)
    folder = work if work is not None else bundle.absolute().with_name(bundle.absolute().name + ".tuning")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    ) as progress:  # fmt: skip
        tell = Teller(progress)
        samples = Samples(explainer, inputs, goal, folder)
        tuned = tune(explainer, samples, goal, tell, deadline=np.inf if budget is None else time.perf_counter() + budget)
        tell.close()
    add_tuned(bundle, tuned, explainer.manifest.patch)
    _print(tuned, bundle, Console())
    if len(explainer.engines) == 1:
        typer.echo(f"{bundle}: has the exact variant only; 'kcompiler compile --approximate' adds others, which may be faster")


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; expected one with calibration images")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


class Teller:
    """Shows the progress of each step on its own line, with a forecast."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lines = progress, dict[str, TaskID]()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._lines:
            self._lines[what] = self._progress.add_task(what)
        for line in self._lines.values():
            if line != self._lines[what]:  # only starts are reported, so a new step means that the others are done
                self._progress.update(line, completed=self._progress.tasks[line].total)
        if done == 0:
            self._progress.reset(self._lines[what])
        self._progress.update(self._lines[what], completed=done, total=total)

    def close(self) -> None:
        """Marks all steps as done."""
        for line in self._lines.values():
            self._progress.update(line, completed=self._progress.tasks[line].total)


class Samples(Sequence[Sample]):
    """Calibration images and their exact maps; a map is computed on first access, unless an earlier call saved it."""

    def __init__(self, explainer: kcompiler.Explainer, inputs: dict[str, FloatArray], goal: Goal, folder: Path) -> None:
        """``inputs`` are images by name; maps are saved in ``folder``."""
        self.explainer, self.inputs, self.goal, self.folder = explainer, list(inputs.values()), goal, folder

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        image = self.inputs[number]
        goal, checked = self.goal, self.explainer.check_image(image)
        record = self.folder / f"{_key(self.explainer, checked, goal)}.json"
        if record.is_file():
            return Sample(checked, HeatMap.load(record))
        exact = self.explainer.explain(image, stride=goal.stride, target=goal.target, fill=goal.fill, score=goal.score)
        exact.save(self.folder, record.stem, force=True)
        return Sample(checked, exact)


def _key(explainer: kcompiler.Explainer, image: FloatArray, goal: Goal) -> str:
    """File name of an exact map: a digest of model, image and settings."""
    settings = [
        version("kcompiler"),
        model_record(explainer.manifest),
        goal.stride,
        goal.score,
        None if goal.target is None else explainer.targets.index(goal.target),
        fill_record(goal.fill),
        explainer.machine.threads,
        explainer.device,
    ]
    return hashlib.sha256(json.dumps(settings).encode() + image.tobytes()).hexdigest()[:32]


def _print(tuned: Tuned, bundle: Path, console: Console) -> None:
    table = Table("plans tried", "positions", "seconds", f"images with SSIM >= {tuned.ssim:g}", box=None)
    for name, positions, seconds, kept in sorted(tuned.evidence.candidates, key=lambda candidate: candidate[2]):
        table.add_row(name, f"{positions:.0f}", f"{seconds:.2f}", f"{kept:.0%}")
    console.print(table)
    console.print(f"{bundle}: {summary(tuned)}", soft_wrap=True)


def summary(tuned: Tuned) -> str:
    """The result of tuning as a sentence."""
    evidence, plan = tuned.evidence, tuned.plan
    if plan.everything and plan.variant == "exact":
        return f"no plan keeps SSIM {tuned.ssim:g} on {tuned.share:.0%} of the images in less time: exact maps will be used"
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
