"""Verification finds small faults: in every tiny network, and whatever outputs are multiplied by."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, Subject, heavier_weights, wrong_transforms
from networks import NETWORKS, save
from source_file import NEVER_DENSE

from kcompiler.options import Options

SHAPE, PATCH = (20, 24), (4, 6)


def compiled(name, folder, **options):
    return Subject.of(save(name, folder / "model.onnx", *SHAPE), Options(patch=PATCH, dense_share=NEVER_DENSE, **options), folder)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "blended"])
def test_every_mutant_is_found(name, tmp_path):
    """Of "blended" a weight off by a thousandth is 0.85 of what is allowed: half of its maps is weighed by another half."""
    subject = compiled(name, tmp_path)
    assert subject.found(subject.mutant("nothing")) < 0.5, "as compiled it agrees"
    found = 0
    for mutate in MUTATIONS.values():
        for mutant in mutate(subject):
            refused = subject.found(mutant) > 1
            assert refused or (mutate is not heavier_weights and not subject.matters(mutant)), mutant.what
            found += refused
    assert found >= 4, "most of them make a difference"


@pytest.mark.parametrize("lowering", ["winograd 2", "winograd 4", "winograd 6", "winograd 3 of values"])
@pytest.mark.parametrize("name", ["chain", "residual", "strided", "concat", "bottleneck"])
def test_a_wrong_entry_of_a_transform_is_found(name, lowering, tmp_path):
    subject = compiled(name, tmp_path, prefer={"Conv": lowering})
    if not any(chosen.startswith("winograd") for chosen in subject.analysed.choice.layouts.lowerings.values()):
        pytest.skip("no convolution takes that")
    assert subject.found(subject.mutant("nothing")) < 1
    for mutant in wrong_transforms(subject):
        assert subject.found(mutant) > 1, mutant.what
