"""Models that once made a traceback, a hang or the end of the process; each made anew, by a function of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.fuzz.cases import Case
from tests.fuzz.known.attributes import attribute_reference, groups, odd_attributes
from tests.fuzz.known.empty_maps import empty_maps
from tests.fuzz.known.names import opsets, own_names
from tests.fuzz.known.nesting import deep_bodies, doubling_functions, endless_loops, long_chains
from tests.fuzz.known.no_models import no_models
from tests.fuzz.known.operators import operators
from tests.fuzz.known.overflow import integer_division
from tests.fuzz.known.sizes import image_sizes, outputs
from tests.fuzz.known.structure import structure
from tests.fuzz.known.weights import external_data, weight_sizes

Maker = Callable[[], Iterator[Case]]
MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        attribute_reference, groups, odd_attributes, external_data, weight_sizes, image_sizes, outputs,
        doubling_functions, long_chains, deep_bodies, endless_loops, integer_division, own_names, opsets, structure,
        no_models, empty_maps, operators,
    )
}  # fmt: skip


def cases(seed: int = 0) -> Iterator[Case]:
    """All of them; the same for each seed."""
    for maker in MAKERS.values():
        yield from maker()
