"""Options that limit what a command may take; with either it runs in a process of its own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from kcompiler.runtime.limits import naming, within_limits

MaxSeconds = Annotated[
    float | None, typer.Option("--max-seconds", help="End the command after so many seconds: for bundles of strangers.")
]
MaxMemory = Annotated[
    float | None, typer.Option("--max-memory", metavar="GB", help="Memory that the command may take, in GB (Linux).")
]


def limited(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the two options."""
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in (("max_seconds", MaxSeconds), ("max_memory", MaxMemory))
    ]

    @functools.wraps(command)
    def run(*arguments: Any, max_seconds: float | None, max_memory: float | None, **given: Any) -> None:
        if max_seconds is None and max_memory is None:
            command(*arguments, **given)
            return
        memory = None if max_memory is None else int(max_memory * 1e9)
        with naming(given.get("bundle", command.__name__)):
            within_limits(command, *arguments, max_seconds=max_seconds, max_memory=memory, **given)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    return run
