"""What tuning prints: which images kept the SSIM, times measured side by side, and advice that fits the bundle."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rich.console import Console

from kcompiler.commands.tune_report import advice, described, plan_table, summary
from kcompiler.runtime.bundle.plans import EVERYTHING, Evidence, SamplingPlan, Tuned

KRIGING = SamplingPlan(step=6, expected_ssim=0.9, share=0.6)
EVIDENCE = Evidence(
    given=20, images=14, held_out=8, kept=7, least_share=0.53, ssim=(0.9,) * 8, pearson=1.0, top_overlap=1.0, rendered_ssim=1.0,
    evaluated=0.25, seconds=1.25, exact_seconds=8.5, spot_error=0.01,
    candidates=(("drill-down, step 2, exact", 700.0, 3.0, 0.5), ("kriging, step 6, exact", 400.0, 1.5, 1.0)),
    judged=(("kriging, step 6, exact", 8),),
)  # fmt: skip
TUNED = Tuned(
    ssim=0.9, share=0.9, confidence=0.95, promised=False, stride=4, score="logit", fill=(0.0,), target=None, plan=KRIGING,
    evidence=EVIDENCE,
)  # fmt: skip


def printed(table):
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
    return [line.strip() for line in capture.get().splitlines()]


def test_the_table_counts_the_images_that_chose_and_those_that_judged():
    _, columns, *rows = printed(plan_table(TUNED, 1600))
    assert columns.split("  ")[-1].strip() == "of 8 held out"
    assert "of 6 that chose" in columns
    assert [row.split()[-4:] for row in rows[:1]] == [["400", "1.50", "100%", "8"]]
    assert rows[1].split()[-3:] == ["700", "3.00", "50%"], "the drill-down was not judged"
    assert rows[2].split() == ["exact", "maps", "1600", "8.50"]
    assert rows[3].startswith("taken: kriging, step 6, to SSIM 0.9, exact")
    assert rows[3].split()[-3:] == ["400", "1.25", "7"]


def test_plans_in_a_few_words():
    assert described(EVERYTHING) == "exact maps"
    assert described(SamplingPlan(variant="tau0.5")) == "every position, tau0.5"
    drill_down = SamplingPlan(method="drill-down", step=2, share=0.4, variant="int8")
    assert described(drill_down) == "drill-down, step 2, share 0.4, int8"


def test_the_summary_says_what_exact_maps_take_when_they_are_taken():
    exact = TUNED.model_copy(update={"plan": EVERYTHING})
    assert summary(exact).endswith("exact maps will be used, 8.50 s each")
    assert "1.25 s where an exact map takes 8.50 s" in summary(TUNED)


def variant(name, *, whole=False):
    return SimpleNamespace(name=name, whole=whole)


COMPILE = "has the exact variant only; 'kcompiler compile --approximate' adds others, which may be faster"
WHOLE = "runs whole: plans evaluate part of the positions, each by full inference; nothing else makes its maps faster"
LEFT_OUT = "no variant tau0.5, tau0.4: its regions would be the exact variant's"


@pytest.mark.parametrize(
    ("variants", "notes", "expected"),
    [
        (
            [variant("exact")],
            (),
            [COMPILE],
        ),
        ([variant("exact")], (LEFT_OUT, "takes no transforms"), [LEFT_OUT]),
        ([variant("exact"), variant("int8")], (LEFT_OUT,), []),
        (
            [variant("exact", whole=True)],
            (LEFT_OUT,),
            [
                "runs whole: plans evaluate part of the positions, each by full inference; nothing else makes its maps faster",
                LEFT_OUT,
            ],
        ),
        ([variant("exact", whole=True), variant("gates")], (), []),
    ],
)
def test_advice_fits_the_bundle(variants, notes, expected):
    manifest = SimpleNamespace(variants_on=lambda device: variants, report=SimpleNamespace(notes=notes))
    assert list(advice(manifest, TUNED)) == expected
