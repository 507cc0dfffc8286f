"""Tuning as if models were slow: in tiny networks choosing the positions takes longer than evaluating all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from kcompiler.runtime.tuning import racing, tuner
from kcompiler.runtime.tuning.measured import Times, measured_costs
from kcompiler.runtime.tuning.trials import Costs

SLOWER = 1e4
TIMES = Times(plan=1.0, exact=10.0)
"""Of the plan that is chosen, and of an exact map."""


def _slowly(*arguments: object) -> dict[str, Costs]:
    measured = measured_costs(*arguments)  # type: ignore[arg-type]
    return {name: Costs(one.once * SLOWER, one.counts, one.seconds * SLOWER) for name, one in measured.items()}


@contextmanager
def slow_model(times: Times = TIMES) -> Iterator[None]:
    """Variants take :data:`SLOWER` times what they do, all are worth a race, and the chosen plan takes ``times``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "measured_costs", _slowly)
        patch.setattr(tuner, "side_by_side", lambda *_: times)
        patch.setattr(racing, "WORTHWHILE", np.inf)
        yield
