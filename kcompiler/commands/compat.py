"""``kcompiler explain --compat``: maps as other tools make them, by the tools' rules for positions and aggregation."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import typer

from kcompiler.commands.explaining import Call
from kcompiler.commands.input_files import read_input
from kcompiler.commands.pictures import Job
from kcompiler.commands.request import machine_record, settings_record
from kcompiler.runtime import peers
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.positions import stride_pair
from kcompiler.runtime.maps.stored import SCORES, write_recorded
from kcompiler.runtime.request import Request

Tool = Literal["captum", "monai", "xplique"]


def explain_as(tool: Tool, call: Call, job: Job) -> None:
    """Writes the map that ``tool`` makes, by the tool's rules for positions and aggregation."""
    explainer, request, path = call.explainer, call.request, job.path
    if call.top is not None or call.resume:
        raise UsageError(f"--compat {tool} makes one map anew; leave out --top and --resume")
    plain = Request(stride=request.stride, target=request.target, fill=request.fill, selection=request.selection)
    if request != plain or call.region is not None:
        raise UsageError(f"--compat {tool} has its own rules: of the other settings, --stride, --target and --fill apply")
    tensor, target = read_input(explainer, path, request.selection), request.target
    if target is None:
        outputs = explainer.full_inference().run(explainer.check_image(tensor))[0]
        target = explainer.targets.largest(explainer.targets.scores(outputs, explainer.manifest.output))
    if tool == "captum":
        pixels = peers.captum(explainer, tensor, target, strides=request.stride, baselines=request.fill)
    elif tool == "xplique":
        pixels = peers.xplique(explainer, tensor, target, patch_stride=request.stride, occlusion_value=request.fill)
    else:
        mode, overlap = as_monai_says(request, explainer.manifest.patch)
        pixels, _ = peers.monai(explainer, tensor, mode=mode, overlap=overlap)
    content = io.BytesIO()
    np.save(content, pixels)
    record = {
        "compat": tool,
        "target": target,
        "settings": settings_record(explainer.manifest, request, path),
        "machine": machine_record(explainer),
    }
    written = write_recorded(job.folder, job.stem, {SCORES: content.getvalue()}, record, force=call.force)
    typer.echo(f"{path}: as {tool} makes it, {list(pixels.shape)}; {', '.join(map(str, written))}")


def as_monai_says(request: Request, patch: tuple[int, int]) -> tuple[Literal["gaussian"] | float, float]:
    """MONAI's ``mode`` and ``overlap`` for a fill and a stride.

    Raises:
        UsageError: MONAI has none for them.
    """
    mode: Literal["gaussian"] | float = "gaussian"
    if isinstance(request.fill, tuple):
        if len(set(request.fill)) != 1:
            raise UsageError("--compat monai covers with one number in model units; this colour has another in each channel")
        mode = request.fill[0]
    elif not isinstance(request.fill, float):
        raise UsageError("--compat monai covers with a bell by default, or with one number (--fill V)")
    steps = stride_pair(request.stride)
    overlap = max(0.0, 1 - (steps[0] + 0.5) / patch[0])  # half a pixel more, because MONAI rounds the step down
    monai_steps = tuple(max(int(side * (1 - overlap)), 1) for side in patch)
    if monai_steps != steps:
        raise UsageError(f"--compat monai has one overlap for y and x: no stride {list(steps)} of patches {list(patch)}")
    return mode, overlap
