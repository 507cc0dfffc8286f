"""What is timed stands for all that it is said of."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from networks import save
from source_file import NEVER_DENSE

from kcompiler.options import Options
from kcompiler.pipeline import compile_file
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inference.spread import spread
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.timing import between, in_turn, ratios


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    model = save("residual", tmp_path_factory.mktemp("timing") / "model.onnx", 96, 128)
    return compile_file(model, Options(patch=(9, 9), dense_share=NEVER_DENSE))


@pytest.mark.parametrize("sample", [60, 200, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_of_batches_has_the_mean_work_of_the_grid(bundle, sample, threads):
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=threads)
    positions = make_grid((96, 128), (9, 9), 1).positions
    everything = [positions[part] for part in explainer.exact.batches(positions)]
    chosen = spread(explainer.exact, positions, sample)

    def mean(batches):
        return np.average([explainer.exact.work(batch) for batch in batches], weights=[len(batch) for batch in batches])

    assert abs(sum(map(len, chosen)) - sample) <= explainer.batch * explainer.exact.workers.count
    assert len(chosen) % explainer.exact.workers.count == 0
    assert len(np.unique(np.concatenate(chosen), axis=0)) == sum(map(len, chosen)), "no batch is there twice"
    assert mean(chosen) == pytest.approx(mean(everything), rel=0.01)


def test_a_sample_of_more_than_there_is_is_everything(bundle):
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    positions = make_grid((96, 128), (9, 9), 16).positions
    chosen = np.concatenate(spread(explainer.exact, positions, 10_000))
    assert sorted(map(tuple, chosen)) == sorted(map(tuple, positions))


def test_rounds_run_in_turn_and_the_first_does_not_count():
    clock = count()
    assert in_turn([lambda: float(next(clock)), lambda: float(next(clock))], 2) == [[2, 4], [3, 5]]


def test_speed_is_over_what_came_before_and_after():
    assert between([1.0, 3.0, 7.0]) == [2, 5]
    assert ratios(between([1.0, 3.0, 7.0]), [2.0, 1.0]) == [1, 5]
