"""Options of the commands that read ONNX models: what the image is, what other inputs are bound to, what is explained."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from kcompiler.commands import options


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model is read. Attributes are command-line options, as their texts."""

    input_shape: options.InputShape = None
    layout: options.Layout = None
    bind: options.Bind = None
    output: options.Output = None
    reduce: options.Reduce = None
    reduce_over: options.ReduceOver = "everything"
    reduce_box: options.ReduceBox = None
    class_axis: options.ClassAxis = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments of :func:`kcompiler.compile`.

        Raises:
            UsageError: a text has another form than its option.
        """
        texts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            **texts,
            "input_shape": options.input_shape(self.input_shape),
            "bind": options.bound(self.bind),
            "reduce_box": options.reduce_box(self.reduce_box),
        }

    @property
    def given(self) -> list[str]:
        """Names of the fields that are not at their defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


AS_DECLARED = Reading()
"""By what the model says itself."""


def with_reading(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the parameter ``reading`` of a command by an option for each field of :class:`Reading`."""
    signature, read = (inspect.signature(of, eval_str=True) for of in (command, Reading))
    before = [parameter.name for parameter in signature.parameters.values()]
    place = before.index("reading")
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "reading"]
    parameters[place:place] = read.parameters.values()

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> None:
        reading = Reading(**{name: given.pop(name) for name in read.parameters})
        command(*arguments, reading=reading, **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run
