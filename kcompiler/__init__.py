"""Occlusion explanations of ONNX image models, compiled: exact heat maps at a fraction of the work of full inference.

>>> bundle = kcompiler.compile("model.onnx", patch=16)
>>> explainer = kcompiler.load(bundle)
>>> heat_map = explainer.explain(image, stride=4)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.bundle.plans import SamplingPlan
from kcompiler.runtime.compiled import MEMORY
from kcompiler.runtime.errors import (
    BundleError,
    CheckFailed,
    ImageError,
    KCompilerError,
    LimitExceeded,
    MachineError,
    ModelError,
    ProviderError,
    UsageError,
    WorkersLost,
)
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.explanation import Interrupted
from kcompiler.runtime.inference.cuda import CudaOptions
from kcompiler.runtime.inputs.preprocessing import Preprocessing
from kcompiler.runtime.limits import explain_within
from kcompiler.runtime.maps.heatmap import HeatMap
from kcompiler.runtime.progress import Progress, ProgressCallback, Stages
from kcompiler.runtime.scratch import scratch_folder

if TYPE_CHECKING:
    import onnx

    from kcompiler.bundle import Bundle
    from kcompiler.runtime.deployed import Card

__all__ = [
    "BundleError",
    "CheckFailed",
    "CudaOptions",
    "Explainer",
    "HeatMap",
    "ImageError",
    "Interrupted",
    "KCompilerError",
    "LimitExceeded",
    "MachineError",
    "ModelError",
    "Preprocessing",
    "Progress",
    "ProviderError",
    "SamplingPlan",
    "UsageError",
    "WorkersLost",
    "compile",
    "explain_within",
    "export",
    "load",
]


def compile(
    model: str | Path | onnx.ModelProto,
    *,
    patch: int | tuple[int, int] | list[int | tuple[int, int]] = 16,
    input_shape: Sequence[int] | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    bind: Mapping[str, bool | float | str | Sequence[Any] | AnyArray] | None = None,
    output: str | None = None,
    reduce: Literal["mean", "max", "sum"] | None = None,
    reduce_over: Literal["everything", "class"] = "everything",
    reduce_box: Sequence[int] | None = None,
    class_axis: int | None = None,
    extents: Literal["tight", "static"] = "tight",
    convolution: Literal["auto", "direct"] = "auto",
    thresholds: Sequence[float | Mapping[str, float]] = (),
    int8: bool = False,
    freeze_gates: bool = False,
    calibrate: bool = False,
    threads: int | None = None,
    preprocessing: Preprocessing | str | Path | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["float32", "tf32"] = "float32",
    progress: ProgressCallback | bool | None = None,
) -> Bundle:
    """Compiles an ONNX image model for a patch size, and verifies the result against full inference.

    Args:
        model: path of an ONNX file that ONNX Runtime runs, or the model itself. Its image is the input with four axes, of any
            numeric type; declared shapes are hints.
        patch: side of the square patch, or (height, width), in pixels; a list compiles for each of several, weights once.
        input_shape: ([1,] channels, height, width) in the axis order of the model's input; needed where the model leaves sizes
            open.
        layout: layout of the image input, needed where it does not follow from Transposes or convolutions that read the image.
        bind: values of the other inputs, by name: numbers, booleans, lists or arrays. A number fills its input. An array may
            omit the batch axis; all images get the same values.
        output: name of the output to explain, needed where outputs are computed from different numbers; or of a tensor inside
            the graph. Labels, indices and class maps are traced back to the tensor of numbers that they are computed from.
        reduce: reduces a dense output (segmentation, detection rows, sequences) to a number per class: the mean, maximum or sum
            over all axes but the class axis. Logits of a final softmax or sigmoid are reduced the same way.
        reduce_over: "everything", or "class": the cells that the uncovered image assigns to each class.
        reduce_box: a box of the output's cells to reduce over, (top, left, bottom, right), half-open; for rows (first, last).
        class_axis: class axis of the output, where axis 0 is the batch. None takes the axis of a final softmax; the last axis of
            rows (three axes), or of maps where a Transpose moves the classes there; else axis 1.
        extents: "tight" recomputes the extent that each batch of positions needs; "static" that of the worst position, in
            constant shapes.
        convolution: "auto", or "direct" for direct convolutions only.
        thresholds: adds an approximate variant for each item, which caps regions at this share of each map's height and width
            (the paper's tau); a mapping caps nodes by name, and no others.
        int8: adds variants with 8-bit integer products, of the exact model and of each of ``thresholds``, where integers are
            predicted to be faster.
        freeze_gates: adds variants, of the exact model and of each of ``thresholds``, whose gates (a number per channel computed
            from the whole map, as in squeeze and excite) keep the uncovered image's values, if the model has gates.
        calibrate: whether to measure the candidate algorithms of each layer on this machine, instead of predicting their time.
        threads: CPU threads while measuring; None is as many as physical cores.
        preprocessing: how pictures become inputs, and the labels: a :class:`Preprocessing`, or the path of its JSON file; a
            preset ("imagenet", "unit", "minus-one-one", "caffe"); a preprocessor_config.json of Hugging Face, a config.json of
            timm, or a folder with one.
        device: "cuda" adds variants for CUDA to those for the CPU: constant shapes, and indices that are computed once for all
            images. They are verified on the CPU, so no GPU is needed to compile.
        precision: "tf32" adds approximate variants for CUDA, whose float32 products round their operands to 10 bits of mantissa.
        progress: True shows a bar with the stage and a forecast; a callable is called with a :class:`Progress`, whose ``done``
            and ``total`` are parts of the work.

    Raises:
        ModelError: the model is not valid or cannot be compiled.
        UsageError: a parameter does not fit the model.
        CheckFailed: the compiled model disagrees with full inference.
        MachineError: the folder for temporary files is full, or cannot be written.
    """
    from kcompiler.passes.isolation import process

    process.begin()  # it loads its libraries while this one does
    from kcompiler.answered import answered
    from kcompiler.options import options_of
    from kcompiler.passes.source.model_file import as_file
    from kcompiler.pipeline import compile_file
    from kcompiler.stages import SHARES

    options = options_of(
        patch=patch, input_shape=input_shape, layout=layout, bind=bind, output=output, reduce=reduce, reduce_over=reduce_over,
        reduce_box=reduce_box, class_axis=class_axis, extents=extents, convolution=convolution, thresholds=thresholds,
        int8=int8, freeze_gates=freeze_gates, calibrate=calibrate, threads=threads, preprocessing=preprocessing,
        device=device, precision=precision,
    )  # fmt: skip
    with scratch_folder("model") as scratch:
        path = as_file(model, scratch)
        with Stages(progress, SHARES) as stages, answered(path):
            return compile_file(path, options, stages)


def load(
    bundle: str | Path | Bundle,
    *,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    memory: int = MEMORY,
    patch: int | tuple[int, int] | None = None,
    cuda: CudaOptions | None = None,
    compiled_for: Literal["cpu", "cuda"] | None = None,
) -> Explainer:
    """Opens a compiled bundle. Needs neither onnx nor the compiler.

    Threads may share what is returned, forked children too; ``with`` or ``close()`` ends it (docs/service.md).

    Args:
        bundle: path of a bundle, or a bundle that :func:`compile` returned.
        providers: ONNX Runtime execution providers in order of preference ("cpu" and "cuda" for short). None: CUDA where
            this ONNX Runtime has it and it starts, else the CPU.
        threads: CPU threads; None is as many as physical cores that this process may use.
        memory: bytes that all concurrent batches of positions together may take, beside weights and cached activations.
        patch: side, or (height, width), of those that the bundle is compiled for; None is the first.
        cuda: how sessions use CUDA, where they run there; None is float32 without TF32, and no CUDA graphs.
        compiled_for: device whose variants are run; None is that of the providers. Variants for CUDA run on the CPU, too, more
            slowly: to verify them.

    Raises:
        BundleError: not a bundle, incomplete, altered, or of another format version.
        ProviderError: ONNX Runtime or a requested provider is absent, or CUDA does not start.
    """
    folder = Path(bundle) if isinstance(bundle, (str, Path)) else bundle.folder
    explainer = Explainer(
        folder, providers=providers, threads=threads, memory=memory, patch=(patch, patch) if isinstance(patch, int) else patch,
        cuda=cuda, compiled_for=compiled_for, owner=bundle,
    )  # fmt: skip
    return explainer.open()


def export(
    bundle: str | Path | Bundle,
    out: str | Path,
    *,
    stride: int | tuple[int, int] = 4,
    region: tuple[int, int, int, int] | None = None,
    edges: Literal["valid", "inward", "cut", "centred"] = "valid",
    score: Literal["auto", "output", "logit"] = "auto",
    variant: str = "exact",
    drill_down: tuple[int, float] | None = None,
    quality: float | None = None,
    preprocess: bool = False,
    single_file: bool = False,
    patch: int | tuple[int, int] | None = None,
    force: bool = False,
) -> Card:
    """Writes a bundle and a grid of positions as one ONNX model, image in, heat map out, for any program with ONNX Runtime.

    Args:
        bundle: path of a bundle, or one just compiled.
        out: folder for the model, its weights, its card and a test vector; written whole or not at all.
        stride, region, edges, score: see :meth:`Explainer.explain`.
        variant: of the bundle: "exact", or the name of an approximate one.
        drill_down: (step, share): every ``step``-th row and column of the map is evaluated, then all positions around the
            ``share`` of these where the score falls most; the others take the nearest score. None evaluates all positions.
        quality: SSIM of a plan that was tuned for export, which brings its own variant and drill-down.
        preprocess: whether the model takes pictures, uint8 [height, width, 3] of any size, and preprocesses them itself.
        single_file: whether weights stand in the model, which then takes at most 2 GB, not in a file beside it.
        patch: side, or (height, width), of those that the bundle is compiled for; None is the first.
        force: replace an earlier export.

    Returns:
        the card, which describes the model.

    Raises:
        BundleError: not an intact bundle.
        UsageError: a parameter is out of its range, or ``out`` may not be replaced.
        CheckFailed: the model disagrees with the driver; nothing is written.
    """
    from kcompiler.deployment import Deployment, export_map

    settings = Deployment(
        stride=stride, region=region, edges=edges, score=score, variant=variant, drill_down=drill_down, quality=quality,
        preprocess=preprocess, single_file=single_file, patch=(patch, patch) if isinstance(patch, int) else patch,
    )  # fmt: skip
    return export_map(Path(bundle) if isinstance(bundle, (str, Path)) else bundle.folder, Path(out), settings, force=force)
