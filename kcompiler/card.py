"""The card of a map model, as a record and as a page of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx

from kcompiler.passes.deployment.map_model import Asked
from kcompiler.runtime import deployed
from kcompiler.runtime.bundle.digests import file_record
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.plans import EVERYTHING, SamplingPlan, Tuned
from kcompiler.runtime.bundle.variant import Variant
from kcompiler.runtime.deployed import Card, DrillDown, Tensor, TestVector
from kcompiler.runtime.explainer import Explainer

TOLERANCE = 1e-4
"""Largest difference from the test vector, as a share of its range: other processors and runtimes add up in other orders."""


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A map model that is exported, and where it comes from.

    Attributes:
        explainer: of the bundle.
        variant: of the bundle.
        plan: that the model carries out.
        tuned: the record of a tuned plan; None if the plan is none.
        score: what is scored: "output" or "logit".
        asked: what the model is to do.
    """

    explainer: Explainer
    variant: Variant
    plan: SamplingPlan
    tuned: Tuned | None
    score: str
    asked: Asked


def card_of(exported: Exported, test: TestVector, folder: Path) -> Card:
    """The card of the map model in ``folder``, whose test vector is ``test``."""
    explainer, scheduled = exported.explainer, exported.asked.scheduled
    manifest, plan = explainer.manifest, exported.plan
    model = onnx.load(folder / deployed.MODEL, load_external_data=False)
    exact = exported.variant.name == EVERYTHING.variant and plan.everything
    drill_down = None
    if scheduled.refinement is not None:
        drill_down = DrillDown(step=plan.step, share=plan.share, coarse_batches=len(scheduled.parts))
    return Card(
        format=deployed.CARD_FORMAT, kcompiler=version("kcompiler"), model=manifest.model, model_sha256=manifest.model_sha256,
        variant=exported.variant.name, score=exported.score, largest_error=manifest.report.largest_error if exact else None,
        opset=next(one.version for one in model.opset_import if one.domain == ""),
        domains=tuple(sorted(one.domain or "ai.onnx" for one in model.opset_import)),
        operators=dict(sorted(Counter(node.op_type for node in nodes_of(model.graph)).items())),
        inputs=_described(model.graph.input, _inputs(exported)), outputs=_described(model.graph.output, OUTPUTS),
        patch=manifest.patch, ys=tuple(scheduled.grid.ys.tolist()), xs=tuple(scheduled.grid.xs.tolist()),
        batches=tuple(scheduled.batches), drill_down=drill_down, tuned=exported.tuned, labels=explainer.labels,
        layout=manifest.layout, preprocessing=manifest.preprocessing, preprocesses=exported.asked.recipe is not None,
        files={name: file_record(folder / name) for name in FILES if (folder / name).exists()}, test=test,
    )  # fmt: skip


FILES = (deployed.MODEL, deployed.WEIGHTS, deployed.TEST_IMAGE, deployed.TEST_MAP)
OUTPUTS = {
    deployed.MAP: "the score with the patch at (ys[row], xs[col]); NaN where no batch of this call evaluated it",
    deployed.DROP: "how far the score falls, at the image's size, linear between the patches' centres; NaN beside a NaN",
    deployed.UNCOVERED: "scores of all classes, nothing covered",
    deployed.CHOSEN: "the class that is explained",
    deployed.EVALUATED: "the map where it was evaluated, NaN where it takes the score of the nearest coarse cell",
    deployed.SEEN: "what the model sees of the picture: top, left, bottom, right in its pixels",
}
"""What the numbers of each output are."""


def _inputs(exported: Exported) -> dict[str, str]:
    """What the numbers of each input are."""
    manifest, asked = exported.explainer.manifest, exported.asked
    gray = asked.recipe is not None and asked.recipe.picture_channels == 1
    units = "in the picture's pixel values, 0 to 255" if asked.recipe is not None else "as in the image"
    return {
        deployed.IMAGE: f"the image, channels first, {_units(manifest)}",
        deployed.PICTURE: "the picture, gray" if gray else "the picture, in the order red, green, blue",
        deployed.COLOUR: f"what covers, a number per channel, {units}",
        deployed.TARGET: f"the class, 0 to {asked.scored.classes - 1}; -1 is the largest",
        deployed.BATCHES: f"first batch and number of batches to evaluate, of {len(asked.scheduled.batches)} in all",
        deployed.KNOWN: "scores that earlier calls evaluated, NaN elsewhere; batches after the coarse ones need all of those",
    }


def _units(manifest: Manifest) -> str:
    return "in the units of the source model's input" + ("" if manifest.layout == "NCHW" else ", whose channels are last")


TYPES: dict[int, Literal["float32", "int64", "uint8"]] = {
    onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.UINT8: "uint8"
}  # fmt: skip


def _described(values: list[onnx.ValueInfoProto], meanings: dict[str, str]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            name=value.name,
            type=TYPES[value.type.tensor_type.elem_type],
            shape=tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim),
            meaning=meanings[value.name],
        )
        for value in values
    )


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from nodes_of(body)


def page(card: Card) -> str:
    """The card on a page of text."""
    rows = [f"{deployed.MODEL}: occlusion heat maps of {card.model}, variant {card.variant}, by kcompiler {card.kcompiler}", ""]
    for title, tensors in (("Inputs, all of them required", card.inputs), ("Outputs", card.outputs)):
        rows += [f"{title}:", *(f"  {one.name}: {one.type} {_sizes(one.shape)}, {one.meaning}" for one in tensors), ""]
    test = card.test
    beside = f"Files: keep {deployed.WEIGHTS} beside {deployed.MODEL}. " if deployed.WEIGHTS in card.files else ""
    rows += [
        f"Patch: {card.patch[0]} x {card.patch[1]} pixels; {len(card.ys)} x {len(card.xs)} positions",
        f"(ys and xs in {deployed.CARD}).",
        "",
        *_promise(card),
        *_batches(card),
        "Switch memory patterns off: batches differ in shape.",
        "",
        f"{beside}Opset {card.opset}; operators of {', '.join(card.domains)}.",
        "",
        f"Test: {test.image} {_sizes(test.image_shape)} with fill {test.fill:g} for every channel, target {test.target} and",
        f"batches {list(test.batches)} gives {test.map} and class {test.chosen}, to {test.tolerance:g} of the largest number.",
        "Both files are little-endian, row by row.",
        "",
    ]
    return "\n".join(rows)


def _sizes(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _promise(card: Card) -> list[str]:
    """What the map is an approximation of, and what is known of its quality."""
    if card.drill_down is None and card.variant == EVERYTHING.variant:
        return ["Exact: every position is evaluated.", ""]
    rows = [f"Approximate: variant {card.variant}."]
    if card.drill_down is not None:
        rows = [
            f"Approximate: variant {card.variant}, drill-down: every {card.drill_down.step}. row and column of the map, and all",
            f"positions around {card.drill_down.share:.0%} of these, where the score falls most.",
        ]
    if (tuned := card.tuned) is not None:
        evidence = tuned.evidence
        kind = "Promised" if tuned.promised else "Aimed at, with too few images to promise it"
        target = "the largest output" if tuned.target is None else f"output {tuned.target}"
        rows += [
            f"{kind}: SSIM {tuned.ssim:g} with the exact map on {tuned.share:.0%} of images like those it was tuned on,",
            f"at {tuned.confidence:.0%} confidence, with the fill {tuned.fill}, for {target};",
            f"{evidence.kept} of {evidence.held_out} held-out images kept it.",
        ]
    return [*rows, ""]


def _batches(card: Card) -> list[str]:
    """How calls share the batches out."""
    rows = [
        f"Batches: {len(card.batches)}. To use several threads, open one session with one thread, and share the batches out over",
        "concurrent calls: the map of each is NaN where another has numbers. Fewer batches a call show progress, and can be",
        "cancelled in between.",
    ]
    if card.drill_down is not None:
        rows += [
            f"The first {card.drill_down.coarse_batches} batches are the coarse grid. A call that begins after them takes their",
            f"scores as {deployed.KNOWN} ({deployed.EVALUATED} of the earlier calls, put together); one that begins with batch 0",
            "takes NaN there.",
        ]
    return rows
