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

import kcompiler
from kcompiler.commands import options
from kcompiler.commands.exact_maps import make_exact_maps
from kcompiler.commands.input_files import read_input
from kcompiler.commands.pictures import PICTURES
from kcompiler.commands.request import fill_record, model_record, parse_fill, parse_target
from kcompiler.commands.tune_progress import progress
from kcompiler.commands.tune_report import print_tuned, summary
from kcompiler.pool.crew import Opening, gathered
from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.bundle.exchange import recover
from kcompiler.runtime.bundle.files import check_writable
from kcompiler.runtime.bundle.manifest import add_tuned
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.maps.stored import is_whole
from kcompiler.runtime.sampling.tuned import check_budget
from kcompiler.runtime.tuning.trials import Goal, Sample
from kcompiler.runtime.tuning.tuner import check_images, tune


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
    log: Annotated[Path | None, typer.Option(help="File that a line is added to whenever a step begins.")] = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
    patch: options.OfPatch = None,
    ray: options.Ray = None,
    processes: options.Processes = None,
) -> None:
    """Find the fastest approximate plan that keeps an SSIM on a share of all images; 'explain --quality' then uses it."""
    opening = Opening(bundle, None if provider is None else tuple(provider), threads, options.of_patch(patch))
    if budget is not None and (ray is not None or processes is not None):
        raise UsageError("--budget is of exact maps that are made here one by one; leave out --ray and --processes")
    explainer = opening.load()
    goal = Goal(
        ssim=ssim, share=share, confidence=confidence, stride=stride, score="auto" if score == "drop" else score,
        target=parse_target(explainer, target),
        fill=parse_fill(explainer, bundle, fill), for_export=for_export,
    )  # fmt: skip
    if budget is not None:
        check_budget(budget)
    inputs = {path.name: read_input(explainer, path) for path in _image_files(images)}
    check_images(explainer, inputs)
    folder = work if work is not None else bundle.absolute().with_name(bundle.absolute().name + ".tuning")
    for written in (folder, bundle):
        check_writable(written)
    with progress(log) as (tell, say):
        samples = Samples(explainer, inputs, goal, folder)
        with gathered(opening, ray=ray, processes=processes) as crew:
            if crew is not None:
                make_exact_maps(crew, samples.missing(), goal, folder, tell)
        tuned = tune(explainer, samples, goal, tell, deadline=np.inf if budget is None else time.perf_counter() + budget)
        say(summary(tuned))
    add_tuned(bundle, tuned, explainer.manifest.patch)
    print_tuned(tuned, explainer.manifest, bundle)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder; expected one with calibration images")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


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
        record = self._record(checked)
        recover(self.folder)
        if is_whole(record):
            return Sample(checked, HeatMap.load(record))
        exact = self.explainer.explain(image, stride=goal.stride, target=goal.target, fill=goal.fill, score=goal.score)
        exact.save(self.folder, record.stem, force=True)
        return Sample(checked, exact)

    def missing(self) -> dict[str, FloatArray]:
        """Images whose maps no call has saved, by the name to save them by."""
        records = [self._record(self.explainer.check_image(image)) for image in self.inputs]
        return {record.stem: image for record, image in zip(records, self.inputs, strict=True) if not is_whole(record)}

    def _record(self, checked: FloatArray) -> Path:
        """The record of an image's map, of what :meth:`Explainer.check_image` returns."""
        return self.folder / f"{_key(self.explainer, checked, self.goal)}.json"


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
