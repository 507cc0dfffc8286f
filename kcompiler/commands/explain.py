"""``kcompiler explain``: pictures in; raw maps, overlays and records out."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import typer

import kcompiler
from kcompiler.commands import options
from kcompiler.runtime import peers
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explanation import Quality, Score
from kcompiler.runtime.files import check_replaceable, replace_files
from kcompiler.runtime.fills import NAMED
from kcompiler.runtime.heatmap import HeatMap
from kcompiler.runtime.images import Fill, check_image
from kcompiler.runtime.manifest import Manifest
from kcompiler.runtime.positions import Edges, Stride, stride_pair

SUFFIXES = (".npy", ".png", ".json")


def explain_images(
    bundle: options.BundlePath,
    images: Annotated[list[Path], typer.Argument(help="Pictures, or preprocessed float32 arrays (.npy).", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)],
    stride: options.StrideOption = "4",
    target: options.Target = None,
    top: Annotated[int | None, typer.Option(help="Maps of this many of the largest outputs, instead of one.")] = None,
    fill: options.FillOption = None,
    region: Annotated[str | None, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Only patches inside this box.")] = None,
    edges: options.EdgesOption = "valid",
    channel: Annotated[int | None, typer.Option(help="The only channel that is covered. Default: all.")] = None,
    quality: Annotated[
        str, typer.Option(metavar="exact | SSIM", help="'exact', or an SSIM that the bundle has been tuned for.")
    ] = "exact",
    score: options.ScoreOption = "auto",
    budget: Annotated[
        float | None, typer.Option(help="Seconds an image: then the best map so far is written, whatever the quality asked for.")
    ] = None,
    compat: Annotated[
        Literal["captum", "monai", "xplique"] | None,
        typer.Option(help="Make the map as this tool does, at image size: raw numbers (.npy) and a record (.json)."),
    ] = None,
    provider: options.Provider = None,
    threads: options.Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted call with the same settings stopped.")
    ] = False,
    force: options.Force = False,
) -> None:
    """Explain pictures: per image a raw map (.npy), an overlay (.png) and a record of everything (.json)."""
    _check_places(images, out, replace=force or resume)
    if force or resume:
        _keep_inputs(images, out)
    explainer = kcompiler.load(bundle, providers=provider, threads=threads)
    request = Request(
        explainer,
        stride=options.stride(stride),
        target=parse_target(explainer, target),
        fill=parse_fill(explainer, bundle, fill),
        region=_box(region),
        edges=edges,
        channel=channel,
        quality=_quality(quality),
        score=score,
        budget=budget,
    )
    for path in images:
        request.inputs(path)  # all pictures are read once before the first is explained, so that a bad one costs nothing
    for path in images:
        if compat is not None:
            _explain_as(compat, request, path, out, top=top, resume=resume, force=force)
        elif top is not None:
            _explain_largest(request, path, top, out, force=force)
        else:
            _explain_one(request, path, out, resume=resume, force=force)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every image."""

    explainer: kcompiler.Explainer
    stride: Stride
    target: int | str | None
    fill: Fill
    region: tuple[int, int, int, int] | None
    edges: Edges
    channel: int | None
    quality: Quality
    score: Score
    budget: float | None

    def inputs(self, path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Model input, in the model's own layout, and picture to draw over [H, W, 3]."""
        if path.suffix == ".npy":
            return _array(path, self.explainer.manifest)
        picture = self.explainer.read_image(path)
        return picture.tensor, picture.pixels

    def settings(self, path: Path) -> dict[str, object]:
        """Everything that decides the scores, JSON-ready: two maps of equal settings are the same map."""
        manifest = self.explainer.manifest
        return {
            "model": manifest.model,
            "model_sha256": manifest.model_sha256,
            "output": manifest.output,
            "patch": list(manifest.patch),
            "shape": list(manifest.shape),
            "preprocessing": manifest.preprocessing.model_dump(mode="json") if manifest.preprocessing is not None else None,
            "image": path.name,
            "image_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "stride": list(stride_pair(self.stride)),
            "target": self.target,
            "fill_model_units": fill_record(self.fill),
            "region": list(self.region) if self.region is not None else None,
            "edges": self.edges,
            "channel": self.channel,
            "quality": self.quality,
            "score": self.score,
        }


def read_input(explainer: kcompiler.Explainer, path: Path) -> npt.NDArray[np.float32]:
    """A picture or .npy file as model input, in the model's own layout."""
    return _array(path, explainer.manifest)[0] if path.suffix == ".npy" else explainer.read_image(path).tensor


def _explain_one(request: Request, path: Path, out: Path, *, resume: bool, force: bool) -> None:
    settings = request.settings(path)
    earlier = _earlier(out, path.stem, settings) if resume else None
    force = force or earlier is not None
    for suffix in SUFFIXES:
        check_replaceable(out / f"{path.stem}{suffix}", force=force)
    if earlier is not None and earlier.complete:
        typer.echo(f"{path}: complete already")
        return
    tensor, pixels = request.inputs(path)
    details = {"settings": settings, "machine": _machine(request.explainer)}
    try:
        heat_map = request.explainer.explain(
            tensor,
            stride=request.stride,
            target=request.target,
            fill=request.fill,
            region=request.region,
            edges=request.edges,
            channel=request.channel,
            quality=request.quality,
            score=request.score,
            budget=request.budget,
            progress=True,
            resume=earlier,
        )
    except kcompiler.Interrupted as interrupted:
        interrupted.heat_map.save(out, path.stem, picture=pixels, details=details, force=True)
        typer.echo(
            f"{path}: {interrupted.heat_map.evaluated} positions kept in {out}; the same call with --resume goes on",
            err=True,
        )
        raise
    files = heat_map.save(out, path.stem, picture=pixels, details=details, force=force)
    typer.echo(f"{path}: {heat_map.title}; {_how(heat_map)} in {heat_map.seconds:.1f} s; {', '.join(map(str, files))}")
    for warning in heat_map.warnings:
        typer.echo(f"{path}: warning: {warning}", err=True)


def _explain_largest(request: Request, path: Path, count: int, out: Path, *, force: bool) -> None:
    """Maps of the largest outputs, each in files of its own."""
    if request.target is not None or request.quality != "exact" or request.budget is not None:
        raise UsageError("--top makes exact maps of the largest outputs; leave out --target, --quality and --budget")
    tensor, pixels = request.inputs(path)
    details = {"settings": {**request.settings(path), "top": count}, "machine": _machine(request.explainer)}
    heat_maps = request.explainer.explain_targets(
        tensor, count, stride=request.stride, fill=request.fill, region=request.region, edges=request.edges,
        channel=request.channel, score=request.score, progress=True,
    )  # fmt: skip
    for heat_map in heat_maps:
        files = heat_map.save(out, f"{path.stem}.{heat_map.target}", picture=pixels, details=details, force=force)
        typer.echo(f"{path}: {heat_map.title}; {', '.join(map(str, files))}")


def _explain_as(tool: str, request: Request, path: Path, out: Path, *, top: int | None, resume: bool, force: bool) -> None:
    """The map that ``tool`` makes, by its own rules for positions and aggregation."""
    if top is not None or resume:
        raise UsageError(f"--compat {tool} makes one map anew; leave out --top and --resume")
    plain = Request(request.explainer, request.stride, request.target, request.fill, None, "valid", None, "exact", "auto", None)
    if request != plain:
        raise UsageError(f"--compat {tool} has its own rules: of the other settings, --stride, --target and --fill apply")
    explainer, (tensor, _) = request.explainer, request.inputs(path)
    target = request.target
    if target is None:
        target = int(explainer.full_inference().run(explainer.check_image(tensor))[0].argmax())
    if tool == "captum":
        found = peers.captum(explainer, tensor, target, strides=request.stride, baselines=request.fill)
    elif tool == "xplique":
        found = peers.xplique(explainer, tensor, target, patch_stride=request.stride, occlusion_value=request.fill)
    else:
        mode, overlap = _as_monai_says(request)
        found, _ = peers.monai(explainer, tensor, mode=mode, overlap=overlap)
    content = io.BytesIO()
    np.save(content, found)
    record = {"compat": tool, "target": target, "settings": request.settings(path), "machine": _machine(explainer)}
    files = {f"{path.stem}.npy": content.getvalue(), f"{path.stem}.json": json.dumps(record, indent=1).encode()}
    written = replace_files(out, files, force=force)
    typer.echo(f"{path}: as {tool} makes it, {list(found.shape)}; {', '.join(map(str, written))}")


def _as_monai_says(request: Request) -> tuple[Literal["gaussian"] | float, float]:
    """MONAI's mode and overlap for a fill and a stride.

    Raises:
        UsageError: it has none for them.
    """
    mode: Literal["gaussian"] | float = "gaussian"
    if isinstance(request.fill, tuple):
        if len(set(request.fill)) != 1:
            raise UsageError("--compat monai covers with one number in model units; this colour has another in each channel")
        mode = request.fill[0]
    elif not isinstance(request.fill, float):
        raise UsageError("--compat monai covers with a bell by default, or with one number (--fill V)")
    patch, steps = request.explainer.manifest.patch, stride_pair(request.stride)
    overlap = max(0.0, 1 - (steps[0] + 0.5) / patch[0])  # half a pixel more, because MONAI rounds the step down
    made = tuple(max(int(side * (1 - overlap)), 1) for side in patch)
    if made != steps:
        raise UsageError(f"--compat monai has one overlap for y and x: no stride {list(steps)} of patches {list(patch)}")
    return mode, overlap


def fill_record(fill: Fill) -> object:
    """What covers, JSON-ready: numbers and names as they are, a picture by its digest."""
    if isinstance(fill, np.ndarray):
        return {"sha256": hashlib.sha256(fill.tobytes()).hexdigest()}
    return list(fill) if isinstance(fill, tuple) else fill


def _how(heat_map: HeatMap) -> str:
    """How many positions were evaluated, by what."""
    if heat_map.exact:
        return f"{heat_map.evaluated} positions"
    plan = heat_map.plan
    end = "" if heat_map.complete else ", ended by the budget"
    return (
        f"{heat_map.evaluated} of {heat_map.scores.size} positions by the variant {plan.variant}, chosen by {plan.method}{end},"
    )


def _quality(text: str) -> Quality:
    try:
        return "exact" if text == "exact" else float(text)
    except ValueError as error:
        raise UsageError(f"--quality is {text!r}, expected 'exact' or an SSIM") from error


def parse_target(explainer: kcompiler.Explainer, text: str | None) -> int | str | None:
    """An index, or a label: which of the two where a label looks like a number is for the bundle to say."""
    return int(text) if text is not None and text.isdecimal() and text not in explainer.labels else text


def _machine(explainer: kcompiler.Explainer) -> dict[str, object]:
    found = {}
    for name in ("kcompiler", "numpy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"versions": found, "python": platform.python_version(), "device": explainer.device, "batch": explainer.batch,
            "threads": explainer.machine.threads}  # fmt: skip


def _keep_inputs(images: list[Path], out: Path) -> None:
    """Results may replace results, never what is to be explained."""
    results = {(out / f"{path.stem}{suffix}").absolute() for path in images for suffix in SUFFIXES}
    for path in images:
        if path.absolute() in results or any(result.exists() and result.samefile(path) for result in results if path.exists()):
            raise UsageError(f"{path}: would be overwritten by its own results; choose another folder")


def _check_places(images: list[Path], out: Path, *, replace: bool) -> None:
    twice = [stem for stem, count in Counter(path.stem for path in images).items() if count > 1]
    if twice:
        raise UsageError(f"two images are named {twice[0]!r} and would write the same files; explain them into different folders")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not replace:
        raise UsageError(f"{out}: exists and is not empty; choose another folder, or allow overwriting (--force)")


def parse_fill(explainer: kcompiler.Explainer, bundle: Path, text: str | None) -> Fill:
    """A colour in pixel values, a name, or a picture file, in model units."""
    if text is None:
        return 0.0
    if text in NAMED:
        return text
    if Path(text).is_file():
        picture: npt.NDArray[np.float32] = explainer.check_image(read_input(explainer, Path(text)))[0]
        return picture
    recipe = explainer.manifest.preprocessing
    if recipe is None:
        raise UsageError(
            f"--fill is in pixel values, but {bundle} has no preprocessing to convert them by; compile with --preprocessing"
        )
    return recipe.fill(options.colour(text))


def _box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    numbers = options.whole_numbers(text, "--region", ",")
    if len(numbers) != 4:
        raise UsageError(f"--region is {text!r}, expected top,left,bottom,right")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _array(path: Path, manifest: Manifest) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A preprocessed input from a .npy file, and its channel mean stretched to 0..255 to draw over."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: not a readable .npy array ({error})") from error
    image = check_image(array, manifest.shape, manifest.layout, str(path))
    gray = image[0].mean(axis=0)
    stretched = (gray - gray.min()) / max(float(np.ptp(gray)), 1e-12) * 255
    return array, np.repeat(np.rint(stretched).astype(np.uint8)[..., None], 3, axis=-1)


def _earlier(out: Path, stem: str, settings: dict[str, object]) -> HeatMap | None:
    """The map that an earlier call left, if it is of the same settings."""
    record_file = out / f"{stem}.json"
    if not (record_file.is_file() and (out / f"{stem}.npy").is_file()):
        return None
    heat_map = HeatMap.load(record_file)
    if json.loads(record_file.read_text(encoding="utf-8")).get("settings") != json.loads(json.dumps(settings)):
        raise UsageError(f"{record_file}: is of other settings, so it cannot be resumed; choose another folder, or drop --resume")
    return heat_map
