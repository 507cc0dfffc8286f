"""Random networks over the whole operator set equal full inference; a failing one is shrunk and saved."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS, Mutant, Subject
from random_networks import networks

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.measuring.check import check, sample_positions

FAILED = Path(tempfile.gettempdir()) / "kcompiler-failed-network.onnx"
"""The last network that failed, which hypothesis leaves to be the smallest."""
CHECKED, IMAGE_SEED = 10, 1
NEVER_DENSE = 2.0
PHASES = [Phase.generate, Phase.shrink]
PATIENT = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def equals_full_inference(model: onnx.ModelProto, patch: tuple[int, int], extents: str, folder: Path) -> None:
    path = folder / "model.onnx"
    onnx.save(model, path)
    try:
        options = Options(patch=patch, dense_share=NEVER_DENSE)
        options = replace(options, device="cuda") if extents == "classes" else replace(options, extents=extents)
        bundle = compile_file(path, options)
        explainer = Explainer(bundle.folder, providers=["cpu"], threads=1, graphs=True, compiled_for=options.device)
        positions = sample_positions(explainer.manifest.shape[1:], patch, CHECKED, seed=0)
        comparison = check(explainer, positions, seed=IMAGE_SEED)
        assert comparison.agrees, comparison.reason
        assert not [node for node in bundle.report.nodes if "with regions recomputed" in node.reason], "a false refusal"
    except Exception as error:
        onnx.save(model, FAILED)
        error.add_note(f"the network is {FAILED}, the patch {patch}, extents {extents}")
        raise


def mutant_is_found(path: Path, options: Options, kind: str, number: int) -> None:
    """The mutant of that ``number``, or the last one, of a kind."""
    scratch = path.parent / "scratch"
    scratch.mkdir()
    subject = Subject.of(path, options, scratch)
    mutant: Mutant | None = None
    for mutant in itertools.islice(MUTATIONS[kind](subject), number + 1):  # noqa: B007 - the last one counts
        pass
    if mutant is not None:
        assert subject.found(mutant) > 1 or not subject.matters(mutant), f"missed: {mutant.what}"


PATCHES = st.tuples(st.integers(1, 7), st.integers(1, 7))
EXTENTS = st.sampled_from(["tight", "static", "classes"])
"""The last of the variant for CUDA, the others of that for the CPU."""


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=PATIENT, database=None, phases=PHASES)
@given(networks(), PATCHES, EXTENTS)
def test_random_networks_equal_full_inference(model, patch, extents):
    with tempfile.TemporaryDirectory() as folder:
        equals_full_inference(model, patch, extents, Path(folder))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=PATIENT, phases=PHASES, print_blob=True)
@given(networks(), PATCHES, EXTENTS, st.sampled_from(sorted(MUTATIONS)), st.integers(0, 4))
def test_many_random_networks_equal_full_inference_and_their_mutants_do_not(model, patch, extents, kind, number):
    with tempfile.TemporaryDirectory() as folder:
        equals_full_inference(model, patch, extents, Path(folder))
        options = Options(patch=patch, extents="tight" if extents == "classes" else extents, dense_share=NEVER_DENSE)
        mutant_is_found(Path(folder) / "model.onnx", options, kind, number)
