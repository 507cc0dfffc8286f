"""The head of a model: the explained output, its logits, its reduction, and notes on these for the user."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from kcompiler.passes.normalising.logits import Logits, ends_in_sigmoid, expose_logits
from kcompiler.passes.normalising.reduce import Reducing, described, numbers_of, reduce_outputs, reduction_of
from kcompiler.passes.source.outputs import Explained
from kcompiler.runtime.bundle.reduction import Reduction

DENSE_NUMBERS = 10_000
SUGGESTION = (
    "the output has {:,} numbers an image, each a class of its own; --reduce mean, max or sum makes one number a class of them"
)
TWO_CLASSES = "the one output is a sigmoid's, so it speaks of two classes: target 1 is the output, target 0 what is left to one"


@dataclass(frozen=True, slots=True)
class Head:
    """The outputs of a normalised model.

    Attributes:
        output: name of the explained tensor of the source.
        logits: the input of the final softmax or sigmoid, if the output is computed by such.
        sigmoid: whether the output is that of a sigmoid.
        reduction: reduction of a dense output, if requested.
        notes: what a user should know about the explained output.
    """

    output: str
    logits: Logits | None
    sigmoid: bool
    reduction: Reduction | None
    notes: tuple[str, ...]

    def two_classes(self, classes: int) -> bool:
        """Whether the output is a single probability, which scores two classes; ``classes`` is the number of its columns."""
        return self.sigmoid and classes == 1 and (self.reduction is None or self.reduction.how == "mean")


def explained_head(normalised: gs.Graph, explained: Explained, reducing: Reducing | None) -> Head:
    """Adds the logits to the outputs of ``normalised`` and reduces dense outputs to a number per class, both in place."""
    logits, sigmoid = expose_logits(normalised), ends_in_sigmoid(normalised)
    notes = list(explained.notes)
    reduction = None
    if reducing is not None:
        reduction = reduction_of(normalised, reducing, sigmoid=sigmoid)
        notes.append(described(normalised, reduction))
        reduce_outputs(normalised, reduction)
        logits = Logits(str(normalised.outputs[1].name)) if len(normalised.outputs) > 1 else None
    elif (numbers := numbers_of(normalised) or 0) > DENSE_NUMBERS:
        notes.append(SUGGESTION.format(numbers))
    elif sigmoid and numbers == 1:
        notes.append(TWO_CLASSES)
    return Head(explained.tensor, logits, sigmoid, reduction, tuple(notes))
