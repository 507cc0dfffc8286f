"""Which comparison decides whether a written bundle is exact enough."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kcompiler.runtime.exactness.compare import Comparison
from kcompiler.settled import VERIFIED_AT_ONCE, VERIFIED_SHARE, Verifiers


@dataclass
class Compared:
    """A verifier that finds an error of this share of what is allowed."""

    share: float
    devices: list[str] = field(default_factory=list)

    def compared(self, device):
        self.devices.append(device)
        return Comparison(1e-6, 1e-6, self.share, self.share, 0.0, agrees=self.share <= 1, reason="")


@pytest.mark.parametrize(
    ("share", "closely"),
    [
        (0.1, False),
        (VERIFIED_AT_ONCE, False),
        (VERIFIED_AT_ONCE + 0.01, True),
        (VERIFIED_SHARE, True),
        (0.9, False),
        (1.1, False),
    ],
)
def test_more_positions_are_compared_where_few_are_inconclusive(share, closely):
    """Each comparison is reported as one that begins."""
    quick, close, begun = Compared(share), Compared(0.7), []
    comparison = Verifiers(quick, close, lambda: begun.append(1)).compared("cpu")
    assert comparison.share == (0.7 if closely else share)
    assert (quick.devices, close.devices) == (["cpu"], ["cpu"] * closely)
    assert len(begun) == 1 + closely
