"""What a compiled model says of an uncovered image, with nothing evaluated besides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.compiled import CompiledModel
from kcompiler.runtime.exactness.compare import OUTPUT_SHARE
from kcompiler.runtime.inference.baseline import Baseline
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.maps.answer import Answer, Output

TOP = 5
"""Largest outputs that an answer lists."""
KINDS = {"Softmax": "probability", "Sigmoid": "probability", "LogSoftmax": "log-probability"}


def uncovered(model: CompiledModel, engine: Engine, baseline: Baseline) -> dict[str, FloatArray]:
    """The scores of all classes, float32 [count], by the name of the model output that they are read from."""
    names = model.manifest.outputs
    parts = np.split(engine.unoccluded(baseline, *names), len(names))
    return {name: model.targets.scores(part, name) for name, part in zip(names, parts, strict=True)}


def answer_of(model: CompiledModel, scores: Mapping[str, FloatArray], scored: str, target: int) -> Answer:
    """The answer to what :func:`uncovered` gives; ``scored`` is the name of the output that is explained."""
    manifest = model.manifest
    outputs, logits = scores[manifest.output], scores[manifest.logits] if manifest.logits is not None else None

    def output(index: int) -> Output:
        return Output(model.label(index), float(outputs[index]), None if logits is None else float(logits[index]))

    seen = model.targets.seen(outputs)
    largest = seen[np.argsort(-outputs[seen], kind="stable")][:TOP]
    squashing = manifest.squashing if manifest.reduction is None else None
    kind = "output" if squashing is None or squashing.factor != 1 else KINDS[squashing.operator]
    off_by = OUTPUT_SHARE * _magnitude(scores[scored])
    if squashing is not None and logits is not None and scored == manifest.output and np.isfinite(outputs[target]):
        allowed = np.full((1, len(outputs)), OUTPUT_SHARE * _magnitude(logits))
        off_by += float(squashing.passed_on(outputs[None], allowed)[0, target])
    return Answer(kind, output(target), tuple(output(int(index)) for index in largest), off_by)


def _magnitude(scores: FloatArray) -> float:
    """The largest magnitude of the finite ones."""
    return float(np.abs(scores[np.isfinite(scores)]).max(initial=0))
