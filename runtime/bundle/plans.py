"""Sampling plans, and what tuning found out about them: records that travel in the manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcompiler.runtime.records import NotNegative, Positive, Record


class SamplingPlan(Record):
    """Which positions of a grid are evaluated, by which variant of the model.

    Attributes:
        method: "kriging" (coarse grid, smooth field, refinement where the map's SSIM gains most) or "drill-down" (the
            paper's: coarse grid held constant, the most sensitive share refined).
        variant: name of the variant that evaluates.
        step: coarse grid, in cells of the grid that was asked for.
        share: of the positions that are evaluated at most; in a drill-down, of the coarse cells that are refined. At 1
            every position is evaluated.
        expected_ssim: kriging ends when the map's SSIM is expected to be this.
        round_share: of the positions that one round of kriging evaluates.
        gradual: whether to choose an order even where every position is evaluated in the end.
        correlation: length over which scores are correlated, in sides of the patch.
    """

    method: Literal["kriging", "drill-down"] = "kriging"
    variant: str = "exact"
    step: Positive = 4
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    expected_ssim: Annotated[float, Field(gt=0, le=1)] = 1.0
    round_share: Annotated[float, Field(gt=0, le=1)] = 0.025
    correlation: Annotated[float, Field(gt=0, le=100)] = 0.5
    gradual: bool = False

    @property
    def everything(self) -> bool:
        """Whether no position is left out."""
        return not self.gradual and self.share == 1.0 and (self.method == "drill-down" or self.expected_ssim == 1.0)


EVERYTHING = SamplingPlan()
"""Exact: every position, by the exact variant."""
ANYTIME = SamplingPlan(step=8, gradual=True)
"""Exact as well, in an order that makes the map good early: for as long as there is time."""


class Evidence(Record):
    """What a tuned plan was chosen from, and what it did on the images that had no part in the choice.

    Attributes:
        given: calibration images there were; more than ``images`` were not needed, or there was no time for them.
        images: that were used; ``held_out`` of them had no part in the choice of the plan.
        kept: held-out images on which the plan met the SSIM that was asked for; where it is not promised, on which the plan
            did that was chosen without them, which is no more careful.
        least_share: lower confidence bound on the share of unseen images on which it does (Clopper and Pearson 1934).
        ssim: of each held-out image, ascending; ``pearson``, ``top_overlap``, ``rendered_ssim`` their medians.
        evaluated: mean share of the positions evaluated.
        seconds: median of some explanations by the plan; ``exact_seconds`` of exact ones.
        spot_error: largest error found at positions of spot checks, rms over the map's range.
        candidates: other plans that were measured: (what it is, mean share evaluated, predicted seconds, share of images kept).
    """

    given: Positive
    images: Positive
    held_out: NotNegative
    kept: NotNegative
    least_share: float
    ssim: tuple[float, ...]
    pearson: float
    top_overlap: float
    rendered_ssim: float
    evaluated: float
    seconds: float
    exact_seconds: float
    spot_error: float
    candidates: tuple[tuple[str, float, float, float], ...]


class Tuned(Record):
    """A plan that keeps a quality, for explanations with these settings.

    Attributes:
        ssim: that the plan is to reach, on ``share`` of all images.
        confidence: that it does.
        promised: whether the evidence suffices for that; if not, more images were needed.
        stride: of the grid, pixels.
        score: what was scored.
        fill: that covered: one number a channel in model units, a name, or a picture's digest; None if nothing tells it.
        target: index of the output; None was each image's largest.
        plan: the fastest that kept the quality.
        evidence: see there.
    """

    ssim: Annotated[float, Field(gt=0, le=1)]
    share: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    promised: bool
    stride: Positive
    score: str
    fill: tuple[float, ...] | str | None
    target: NotNegative | None
    plan: SamplingPlan
    evidence: Evidence
