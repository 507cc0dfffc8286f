"""Plans carried out on a compiled model: what is evaluated, once, against the source file; what is left, known or cut short."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import Builder, save
from source_file import NEVER_DENSE, cover_by_hand, run_file

from kcompiler.options import Approximation, Options
from kcompiler.passes.regions.propagate import Thresholds
from kcompiler.pipeline import compile_file
from kcompiler.runtime.bundle.plans import ANYTIME, EVERYTHING, SamplingPlan
from kcompiler.runtime.bundle.targets import Column
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.explainer import Explainer
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.sampling.drill_down import coarse_cells
from kcompiler.runtime.sampling.exploration import Exploration
from kcompiler.runtime.sampling.sampling import make_sampler

SIZE, PATCH, FILL, TARGET, BATCH = (24, 28), (4, 6), (0.7, -1.2, 3.0), 2, 9
GRID = make_grid(SIZE, PATCH, 2)
CELLS = GRID.shape[0] * GRID.shape[1]
NEAR = {"rtol": 1e-4, "atol": 1e-5}
PLANS = {
    "everything": EVERYTHING,
    "anytime": ANYTIME,
    "kriging": SamplingPlan(step=3, share=0.6, round_share=0.1),
    "drill-down": SamplingPlan(method="drill-down", step=3, share=0.3),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("residual", tmp_path_factory.mktemp("model") / "model.onnx", *SIZE)


@pytest.fixture(scope="module")
def explainer(model):
    """Whose batches have BATCH positions."""
    capped = Approximation(Thresholds(0.15))
    bundle = compile_file(model, Options(patch=PATCH, dense_share=NEVER_DENSE, approximations=(capped,)))
    exact = bundle.manifest.exact
    memory = exact.bytes_per_batch + BATCH * exact.bytes_per_position
    return Explainer(bundle.folder, providers=["cpu"], threads=1, memory=memory, owner=bundle)


@pytest.fixture
def image():
    return np.random.default_rng(5).standard_normal((3, *SIZE), dtype=np.float32)


@pytest.fixture
def expected(model, image):
    """The score of every cell, by the source file."""
    return run_file(model, cover_by_hand(image, GRID.positions, FILL, PATCH))[:, TARGET]


def explore(explainer, image, plan, *, variant="exact", column=None, known=None, fill=FILL, target=TARGET):
    engine = explainer.engines[variant]
    return Exploration(
        engine, engine.baseline(image[None], fill), GRID, plan, output=explainer.manifest.output, target=target,
        column=column or Column(target), unoccluded=0.4, known=known,
    )  # fmt: skip


def half_known(expected):
    """Scores of every second cell, off by a hundred, so that they are told from what is evaluated."""
    return np.where(np.arange(CELLS) % 2 == 0, expected + 100, np.nan).astype(np.float32)


@pytest.mark.parametrize("name", PLANS)
def test_what_is_evaluated_is_the_source_s(name, explainer, image, expected):
    """Batch by batch, and as many in all as are evaluated in the end."""
    exploration = explore(explainer, image, PLANS[name])
    assert explainer.batch == BATCH
    assert np.isnan(exploration.scores).all()
    counts, known = [], []
    for count in exploration.run():
        counts.append(count)
        known.append(int(exploration.evaluated.sum()))
        assert not exploration.done
    assert exploration.done
    assert known == np.cumsum(counts).tolist(), "none twice"
    assert max(counts) <= BATCH
    assert len(counts) > 3
    evaluated = exploration.evaluated
    np.testing.assert_allclose(exploration.scores[evaluated], expected[evaluated], **NEAR)
    assert np.isnan(exploration.scores[~evaluated]).all()
    assert evaluated.sum() <= exploration.most <= CELLS
    assert evaluated.all() == (name in ("everything", "anytime"))
    surface = exploration.surface()
    assert surface.shape == GRID.shape
    assert np.isfinite(surface).all()
    np.testing.assert_array_equal(surface.ravel()[evaluated], exploration.scores[evaluated])


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_is_what_its_sampler_asks_for(name, explainer, image):
    """Round by round, on the scores that were found; and the map is what it makes of them."""
    exploration = explore(explainer, image, PLANS[name])
    list(exploration.run())
    sampler, asked = make_sampler(PLANS[name], GRID, PATCH, 0.4), []
    while len(cells := sampler.next()):
        assert exploration.evaluated[cells].all()
        sampler.tell(cells, exploration.scores[cells])
        asked.extend(cells.tolist())
    assert sorted(asked) == np.flatnonzero(exploration.evaluated).tolist()
    assert exploration.most == sampler.most
    np.testing.assert_array_equal(exploration.surface(), sampler.surface())


@pytest.mark.parametrize("name", PLANS)
def test_what_is_left_can_be_gone_on_with(name, explainer, image):
    """Nothing is evaluated twice, nor left out: the cells are those of a run in one go."""
    exploration, seen = explore(explainer, image, PLANS[name]), 0
    for _ in range(3):
        under_way = exploration.run()
        seen += next(under_way)
        under_way.close()
        assert not exploration.done
        assert exploration.evaluated.sum() == seen
    seen += sum(exploration.run())
    assert exploration.done
    whole = explore(explainer, image, PLANS[name])
    assert seen == exploration.evaluated.sum() == sum(whole.run())
    np.testing.assert_array_equal(exploration.evaluated, whole.evaluated)
    np.testing.assert_allclose(exploration.surface(), whole.surface(), **NEAR)
    assert list(exploration.run()) == [], "nothing is left"


@pytest.mark.parametrize("name", PLANS)
def test_after_the_deadline_no_batch_but_the_first_is_evaluated(name, explainer, image, expected):
    """There is a map, of what is known by then; and it can be gone on with."""
    exploration = explore(explainer, image, PLANS[name])
    (count,) = exploration.run(deadline=float("-inf"))
    assert 0 < count == exploration.evaluated.sum() <= BATCH
    assert not exploration.done
    surface, evaluated = exploration.surface().ravel(), exploration.evaluated
    np.testing.assert_allclose(surface[evaluated], expected[evaluated], **NEAR)
    if name == "everything":
        assert np.isnan(surface[~evaluated]).all()
    list(exploration.run())
    assert exploration.done


@pytest.mark.parametrize("name", PLANS)
def test_scores_that_are_known_are_kept_and_not_evaluated_again(name, explainer, image, expected):
    """Whether the plan asks for them or not."""
    known = half_known(expected)
    given = known.copy()
    exploration = explore(explainer, image, PLANS[name], known=given)
    np.testing.assert_array_equal(exploration.evaluated, ~np.isnan(known))
    counted = sum(exploration.run())
    fresh = exploration.evaluated & np.isnan(known)
    assert counted == fresh.sum() > 0
    np.testing.assert_array_equal(exploration.scores[~np.isnan(known)], known[~np.isnan(known)])
    np.testing.assert_allclose(exploration.scores[fresh], expected[fresh], **NEAR)
    np.testing.assert_array_equal(given, known, err_msg="the caller's own")
    np.testing.assert_array_equal(exploration.surface().ravel()[~np.isnan(known)], known[~np.isnan(known)])


def test_known_scores_count_where_the_plan_asks_for_them(explainer, image, expected):
    """Of the coarse cells one is said to be the most sensitive: what it stands for is evaluated, and nothing else."""
    coarse, chosen = coarse_cells(GRID.shape, 3), 6 * GRID.shape[1] + 6
    plan = SamplingPlan(method="drill-down", step=3, share=1 / len(coarse))
    known = np.full(CELLS, np.nan, np.float32)
    known[coarse] = 5.0
    known[chosen] = -5.0
    exploration = explore(explainer, image, plan, known=known)
    list(exploration.run())
    fresh = np.flatnonzero(exploration.evaluated & np.isnan(known))
    away = np.abs(np.stack(np.divmod(fresh, GRID.shape[1])) - np.array(divmod(chosen, GRID.shape[1]))[:, None])
    assert len(fresh) == 8
    assert away.max() == 1
    surface = exploration.surface().ravel()
    np.testing.assert_allclose(surface[fresh], expected[fresh], **NEAR)
    assert set(surface[np.setdiff1d(np.arange(CELLS), fresh)].tolist()) == {5.0, -5.0}


@pytest.mark.parametrize("rest_of", [None, 0.0, 1.0])
def test_the_score_is_read_from_its_column(rest_of, explainer, image, expected):
    exploration = explore(explainer, image, EVERYTHING, column=Column(TARGET, rest_of))
    list(exploration.run())
    np.testing.assert_allclose(exploration.scores, expected if rest_of is None else rest_of - expected, **NEAR)


def test_exact_scores_to_check_by_are_no_part_of_the_map(explainer, image, expected):
    """Of the exact variant, whichever the plan has; with the fill that covers."""
    cells = np.array([0, 17, CELLS - 1, 40])
    for variant in ("exact", "tau0.15"):
        exploration = explore(explainer, image, EVERYTHING, variant=variant)
        list(exploration.run())
        before = exploration.scores.copy()
        np.testing.assert_allclose(exploration.check(cells, explainer.exact, FILL), expected[cells], **NEAR)
        np.testing.assert_array_equal(exploration.scores, before)
        assert np.allclose(before, expected, **NEAR) == (variant == "exact")


@pytest.fixture(scope="module")
def rooted(tmp_path_factory):
    """A file that has no numbers for images that are dark on the whole."""
    builder, path = Builder(), tmp_path_factory.mktemp("rooted") / "model.onnx"
    x = builder.node("Add", builder.node("GlobalAveragePool", builder.conv("image", 3, 1)), builder.constant(3.0))
    onnx.save(builder.model(builder.node("Sqrt", x), *SIZE, classes=None), path)
    return path


def test_what_is_no_number_is_kept_where_everything_is_evaluated_and_else_refused(rooted):
    bundle = compile_file(rooted, Options(patch=PATCH, dense_share=NEVER_DENSE))
    explainer = Explainer(bundle.folder, providers=["cpu"], threads=1)
    image, fill = np.zeros((3, *SIZE), np.float32), np.zeros((3, *SIZE), np.float32)
    fill[:, :, :9] = np.random.default_rng(3).standard_normal((3, SIZE[0], 9)) * 4000
    expected = run_file(rooted, cover_by_hand(image, GRID.positions, fill, PATCH))
    share = np.isnan(expected).mean(axis=0)
    target = int(np.abs(share - share.mean()).argmin())
    assert 0 < share[target] < 1
    exploration = explore(explainer, image, EVERYTHING, fill=fill, target=target)
    list(exploration.run())
    np.testing.assert_allclose(exploration.scores, expected[:, target], rtol=1e-3)
    assert exploration.evaluated.all()
    for name in ("anytime", "kriging", "drill-down"):
        exploration = explore(explainer, image, PLANS[name], fill=fill, target=target)
        with pytest.raises(UsageError, match=f"output {target} is not finite at some positions, .*quality 'exact'"):
            list(exploration.run())
