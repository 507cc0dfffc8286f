"""Targets: the classes that a model's outputs score, and how to read the score of a class from an output.

Usually a class is a column of the output. A single sigmoid output p scores two classes: p is the probability of class 1, and
1 - p that of class 0; the logit of class 0 is the negated logit of class 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from kcompiler.runtime.arrays import FloatArray, IntArray
from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.errors import UsageError

Score = Literal["auto", "output", "logit", "drop"]
SCORES = get_args(Score)
MANY = 10
"""Largest number of labels or classes that an error lists."""


@dataclass(frozen=True, slots=True)
class Column:
    """How the score of a target is read from an output.

    Attributes:
        number: index of the column.
        rest_of: None: the score is the column. Otherwise the score is ``rest_of`` less the column: for class 0 of a sigmoid,
            1 for probabilities and 0 for logits.
    """

    number: int
    rest_of: float | None = None

    def of(self, outputs: FloatArray) -> FloatArray:
        """The target's scores [...] in outputs [..., K]."""
        column: FloatArray = outputs[..., self.number]
        return column if self.rest_of is None else np.float32(self.rest_of) - column


@dataclass(frozen=True, slots=True)
class Targets:
    """The classes of a bundle that can be explained."""

    manifest: Manifest

    @property
    def count(self) -> int:
        """Number of classes."""
        return 2 if self.manifest.two_classes else self.manifest.classes

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty if the bundle has none. A single label for two classes names class 1."""
        recipe = self.manifest.preprocessing
        labels = recipe.labels if recipe is not None else ()
        return (f"not {labels[0]}", *labels) if self.manifest.two_classes and len(labels) == 1 else labels

    def index(self, target: int | str) -> int:
        """The index of the class ``target``, an index or a label.

        Raises:
            UsageError: an index out of range, or a label that no class, or more than one class, has.
        """
        labels = self.labels
        if isinstance(target, str):
            indices = [index for index, label in enumerate(labels) if label == target]
            if len(indices) != 1:
                listed = ", ".join(labels[:MANY]) + (", ..." if len(labels) > MANY else "") if labels else "none"
                raise UsageError(f"target {target!r} names {len(indices)} outputs; labels in the bundle: {listed}")
            return indices[0]
        if not isinstance(target, int | np.integer) or not 0 <= target < self.count:
            raise UsageError(f"target is {target!r}, expected 0 to {self.count - 1}")
        return int(target)

    def scored(self, score: Score) -> tuple[str, str]:
        """Resolves ``score`` to "output", "logit" or "drop", and the name of the model output that it is read from.

        Raises:
            UsageError: no such score, or the model does not end in a softmax or sigmoid and so has no logits.
        """
        manifest = self.manifest
        if score not in SCORES:
            raise UsageError(f"score is {score!r}, expected one of {', '.join(SCORES)}")
        if score == "logit" and manifest.logits is None:
            raise UsageError(f"score 'logit': {manifest.model} does not end in a softmax or sigmoid; ask for 'output'")
        if score == "output" or manifest.logits is None:
            return "drop" if score == "drop" else "output", manifest.output
        return "drop" if score == "drop" else "logit", manifest.logits

    def column(self, target: int, output: str) -> Column:
        """The column of class ``target`` in the model output named ``output``."""
        if not self.manifest.two_classes:
            return Column(target)
        return Column(0) if target == 1 else Column(0, 1.0 if output == self.manifest.output else 0.0)

    def scores(self, outputs: FloatArray, output: str) -> FloatArray:
        """The scores of all classes [..., count] in ``outputs`` [..., K], the values of the model output named ``output``."""
        if not self.manifest.two_classes:
            return outputs
        return np.stack([self.column(target, output).of(outputs) for target in range(self.count)], axis=-1)

    def seen(self, scores: FloatArray) -> IntArray:
        """Classes with cells to reduce over, by the uncovered image's scores [count]; all classes unless the driver reduces."""
        reduction = self.manifest.reduction
        by_driver = reduction is not None and reduction.by_driver
        return np.flatnonzero(~np.isnan(scores)) if by_driver else np.arange(self.count)

    def largest(self, scores: FloatArray) -> int:
        """The class with the largest score, of those with cells; 0 if no class has any."""
        seen = self.seen(scores)
        return int(seen[scores[seen].argmax()]) if len(seen) else 0

    def check_seen(self, target: int, scores: FloatArray) -> None:
        """Checks that class ``target`` has cells to reduce over, by the uncovered image's scores [count].

        Raises:
            UsageError: it has none.
        """
        seen = self.seen(scores)
        if target not in seen:
            listed = ", ".join(map(str, seen[:MANY])) or "none"
            raise UsageError(
                f"class {target} has no cells in the uncovered image: there is nothing to reduce over; those that have: {listed}"
            )
