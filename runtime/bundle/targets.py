"""Targets: the classes that a model's outputs speak of, and how the score of one is read from them.

Mostly a class is a column of the outputs. One number that a sigmoid gives speaks of two classes: it is the probability of class
1, one less it that of class 0; the logit of class 0 is the other's with its sign turned.
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
"""Labels or classes that an error lists."""


@dataclass(frozen=True, slots=True)
class Column:
    """How the score of a target is read from outputs.

    Attributes:
        number: of the column.
        rest_of: None: the score is that number. Else the score is this less that number: of the class that a sigmoid does not
            give, 1 in probabilities and 0 in logits.
    """

    number: int
    rest_of: float | None = None

    def of(self, outputs: FloatArray) -> FloatArray:
        """The scores [...] in outputs [..., K]."""
        column: FloatArray = outputs[..., self.number]
        return column if self.rest_of is None else np.float32(self.rest_of) - column


@dataclass(frozen=True, slots=True)
class Targets:
    """What can be explained of a bundle."""

    manifest: Manifest

    @property
    def count(self) -> int:
        """Of classes."""
        return 2 if self.manifest.two_classes else self.manifest.classes

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, empty if the bundle has none. One label for two classes is that of class 1."""
        recipe = self.manifest.preprocessing
        labels = recipe.labels if recipe is not None else ()
        return (f"not {labels[0]}", *labels) if self.manifest.two_classes and len(labels) == 1 else labels

    def index(self, target: int | str) -> int:
        """The class that ``target`` names.

        Raises:
            UsageError: an index out of range, or a label the bundle does not know or knows twice.
        """
        labels = self.labels
        if isinstance(target, str):
            found = [index for index, label in enumerate(labels) if label == target]
            if len(found) != 1:
                known = ", ".join(labels[:MANY]) + (", ..." if len(labels) > MANY else "") if labels else "none"
                raise UsageError(f"target {target!r} names {len(found)} outputs; labels in the bundle: {known}")
            return found[0]
        if not isinstance(target, int | np.integer) or not 0 <= target < self.count:
            raise UsageError(f"target is {target!r}, expected 0 to {self.count - 1}")
        return int(target)

    def scored(self, score: Score) -> tuple[str, str]:
        """What is scored ("output", "logit" or "drop"), and the name of the models' output that it is read from.

        Raises:
            UsageError: no such score, or the model has no logits behind its output.
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
        """Where the score of class ``target`` is in the model's ``output``, a name."""
        if not self.manifest.two_classes:
            return Column(target)
        return Column(0) if target == 1 else Column(0, 1.0 if output == self.manifest.output else 0.0)

    def scores(self, outputs: FloatArray, output: str) -> FloatArray:
        """The scores of all classes [..., count] in ``outputs`` [..., K], which are those of that name."""
        if not self.manifest.two_classes:
            return outputs
        return np.stack([self.column(target, output).of(outputs) for target in range(self.count)], axis=-1)

    def seen(self, scores: FloatArray) -> IntArray:
        """The classes that have cells to reduce over, by the scores [count] of the uncovered image; all where it is not that."""
        reduction = self.manifest.reduction
        by_driver = reduction is not None and reduction.by_driver
        return np.flatnonzero(~np.isnan(scores)) if by_driver else np.arange(self.count)

    def largest(self, scores: FloatArray) -> int:
        """The class whose score is largest of those that have cells; 0 where none has."""
        seen = self.seen(scores)
        return int(seen[scores[seen].argmax()]) if len(seen) else 0

    def check_seen(self, target: int, scores: FloatArray) -> None:
        """Whether class ``target`` has cells to reduce over, by the scores [count] of the uncovered image.

        Raises:
            UsageError: it has none.
        """
        seen = self.seen(scores)
        if target not in seen:
            there = ", ".join(map(str, seen[:MANY])) or "none"
            raise UsageError(
                f"class {target} has no cells in the uncovered image: there is nothing to reduce over; those that have: {there}"
            )
