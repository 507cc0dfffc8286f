"""A map while it is made, as Server-Sent Events."""

from __future__ import annotations

import base64
import json
import math

import numpy as np

from kcompiler.runtime.arrays import AnyArray
from kcompiler.serving.refining import State


def event(name: str, content: object) -> str:
    """An event in the format of text/event-stream."""
    return f"event: {name}\ndata: {json.dumps(content, allow_nan=False)}\n\n"


def base64_of(array: AnyArray) -> str:
    """The array's numbers, row by row, little-endian."""
    return base64.b64encode(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).decode()


def map_event(state: State, name: str) -> str:
    """A state of the map that is kept under ``name``.

    ``scores`` are float32 [rows, cols], ``sampled`` a byte for each position: 1 where the model was evaluated.
    """
    heat_map, progress = state.heat_map, state.progress
    record = {key: value for key, value in heat_map.record().items() if key not in ("sampled", "plan")}
    return event(
        "map",
        {
            **record, "name": name, "final": state.final, "most": progress.total,
            "unoccluded": finite(heat_map.unoccluded), "remaining": finite(progress.remaining),
            "method": heat_map.plan.method, "variant": heat_map.plan.variant,
            "scores": base64_of(heat_map.scores), "sampled": base64_of(heat_map.sampled.astype(np.uint8)),
        },
    )  # fmt: skip


def finite(number: float) -> float | None:
    """A number that JSON can hold; None in place of others."""
    return number if math.isfinite(number) else None
