"""What a model says of the uncovered image: the target's output and logit, the largest outputs, and how exact they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the model.

    Attributes:
        label: name of the class, or its index as text.
        output: the number that the model gives.
        logit: the number that the final softmax or sigmoid makes it of; None without such.
    """

    label: str
    output: float
    logit: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of the uncovered image.

    Attributes:
        kind: what outputs are: "probability", "log-probability", or "output".
        target: the output that is explained.
        top: the largest outputs, largest first.
        off_by: how far rounding may put the target's score off, by docs/exactness.md.
    """

    kind: str
    target: Output
    top: tuple[Output, ...]
    off_by: float

    @classmethod
    def read(cls, record: dict[str, Any] | None) -> Answer | None:
        """The answer in the record of a map; None where it has none."""
        if record is None:
            return None
        target, top = Output(**record["target"]), tuple(Output(**each) for each in record["top"])
        return cls(record["kind"], target, top, float(record["off_by"]))

    @property
    def text(self) -> str:
        """The target's output and logit, in words."""
        logit = "" if self.target.logit is None else f", logit {self.target.logit:.4g}"
        return f"{self.kind} {self.target.output:.4g}{logit}"
