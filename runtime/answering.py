"""What a compiled model says of an uncovered image, with nothing evaluated besides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kcompiler.runtime.arrays import FloatArray
from kcompiler.runtime.compiled import CompiledModel
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
    squashing = manifest.squashing
    plain = squashing is None or squashing.factor != 1 or manifest.reduction is not None
    magnitude = float(np.abs(scores[scored][np.isfinite(scores[scored])]).max(initial=0))
    kind = "output" if plain or squashing is None else KINDS[squashing.operator]
    return Answer(kind, output(target), tuple(output(int(index)) for index in largest), magnitude)
