"""Random networks over the whole operator set equal full inference; a failing one is shrunk and saved."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from random_networks import networks

from kcompiler.options import Options
from kcompiler.passes import verify
from kcompiler.pipeline import VERIFIED_POSITIONS, compile_file
from kcompiler.runtime.check import check, random_image, sample_positions
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.images import cover, fill_image
from kcompiler.runtime.sessions import Machine, open_session

FAILED = Path(tempfile.gettempdir()) / "kcompiler-failed-network.onnx"
"""The last network that failed, which hypothesis leaves to be the smallest."""
CHECKED, FILL, IMAGE_SEED = 10, 0.3, 1
TOLD_APART = 3e-3
"""Range of a map over its magnitude, below which rounding decides whether maps agree."""
NEVER_DENSE = 2.0
PHASES = [Phase.generate, Phase.shrink]
PATIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def well_conditioned(path: Path, patch: tuple[int, int]) -> bool:
    """Whether full inference tells the positions apart by more than rounding, on the images that are compared."""
    session = open_session(path, Machine(("cpu",), 1))
    shape = tuple(session.get_inputs()[0].shape[1:])
    for seed, fill, count in ((verify.SEED, 0.5, VERIFIED_POSITIONS), (IMAGE_SEED, FILL, CHECKED)):
        positions = sample_positions(shape[1:], patch, count, seed if seed == verify.SEED else 0)
        covered = cover(random_image(shape, seed), fill_image(fill, shape), positions, patch)
        outputs = np.concatenate([session.run(None, {"image": one[None]})[0] for one in covered])
        if not (np.ptp(outputs, axis=0) > TOLD_APART * np.abs(outputs).max(axis=0)).all():
            return False
    return True


def equals_full_inference(model: onnx.ModelProto, patch: tuple[int, int], extents: str, folder: Path) -> None:
    path = folder / "model.onnx"
    onnx.save(model, path)
    assume(well_conditioned(path, patch))
    try:
        bundle = compile_file(path, Options(patch=patch, extents=extents, dense_share=NEVER_DENSE))
        explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True)
        positions = sample_positions(explainer.manifest.shape[1:], patch, CHECKED, seed=0)
        comparison = check(explainer, positions, fill=FILL, seed=IMAGE_SEED)
        assert comparison.agrees, comparison.reason
    except Exception as error:
        onnx.save(model, FAILED)
        error.add_note(f"the network is {FAILED}, the patch {patch}, extents {extents}")
        raise


PATCHES = st.tuples(st.integers(1, 7), st.integers(1, 7))
EXTENTS = st.sampled_from(["tight", "static"])


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=PATIENT, database=None, phases=PHASES)
@given(networks(), PATCHES, EXTENTS)
def test_random_networks_equal_full_inference(model, patch, extents):
    with tempfile.TemporaryDirectory() as folder:
        equals_full_inference(model, patch, extents, Path(folder))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=PATIENT, phases=PHASES, print_blob=True)
@given(networks(), PATCHES, EXTENTS)
def test_many_random_networks_equal_full_inference(model, patch, extents):
    with tempfile.TemporaryDirectory() as folder:
        equals_full_inference(model, patch, extents, Path(folder))
