"""Sampling plans and the evidence for tuned ones: records of the manifest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcompiler.runtime.bundle.variant import DeviceName
from kcompiler.runtime.records import NotNegative, Positive, Record


class SamplingPlan(Record):
    """Which positions of a grid are evaluated, and by which variant of the model.

    Attributes:
        method: "kriging" (coarse grid, Gaussian process, refinement where the map's SSIM gains most) or "drill-down" (the
            paper's: coarse grid held constant, the most sensitive share refined).
        variant: name of the variant that evaluates positions.
        step: step of the coarse grid, in cells of the requested grid.
        share: for kriging, largest share of the positions to evaluate; for drill-down, share of the coarse cells to refine.
            1 evaluates every position.
        expected_ssim: kriging stops when the expected SSIM of the map reaches this.
        round_share: share of the positions evaluated in a round of kriging.
        gradual: whether the sampler orders positions by usefulness even if all of them will be evaluated.
        correlation: correlation length of the scores, in patch sides.
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
        """Whether the plan evaluates every position."""
        return not self.gradual and self.share == 1.0 and (self.method == "drill-down" or self.expected_ssim == 1.0)


EVERYTHING = SamplingPlan()
"""Exact: every position, by the exact variant."""
ANYTIME = SamplingPlan(step=8, gradual=True)
"""Exact if it runs to the end; positions are ordered so that the map is good early, for explanations with a time budget."""


class Evidence(Record):
    """What a tuned plan was chosen from, and its results on the held-out images, which had no part in the choice.

    Attributes:
        given: number of calibration images; those beyond ``images`` were not needed, or time ran out.
        images: images used.
        held_out: images of these that had no part in the choice of the plan.
        kept: held-out images on which the plan reached the requested SSIM. For a plan that is not promised, at most those on
            which the plan chosen without them did, which is no more careful.
        least_share: lower confidence bound on the share of unseen images on which the plan does (Clopper and Pearson 1934).
        ssim: SSIM on each held-out image, ascending.
        pearson: Pearson's correlation with the exact map, median over the held-out images.
        top_overlap: share of the exact map's 5% largest cells that are also the plan's, median over the held-out images.
        rendered_ssim: SSIM of the maps as colour pictures, median over the held-out images.
        evaluated: mean share of the positions evaluated.
        seconds: median time of a few explanations by the plan.
        exact_seconds: median time of an exact explanation, predicted from batches that were timed in turn with the plan.
        spot_error: largest rms error at the positions of a spot check, over the map's range.
        candidates: all measured plans: (name, mean number of positions evaluated, predicted seconds, share of the images that
            chose on which the plan reached the SSIM).
        judged: of the candidates that ran on the held-out images, the best ones: (name, held-out images on which it did). Empty
            in bundles tuned by earlier versions.
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
    judged: tuple[tuple[str, int], ...] = ()


class Tuned(Record):
    """A plan that reaches an SSIM in explanations with these settings.

    Attributes:
        ssim: SSIM to reach on ``share`` of all images.
        share: share of all images.
        confidence: confidence level of that statement.
        promised: whether the evidence suffices for it; if not, tuning had too few images.
        stride: stride of the grid, in pixels.
        score: "output" or "logit".
        fill: a number per channel in model units, a name, or a picture's digest; None if the fill cannot be identified.
        target: index of the output; None is each image's largest.
        plan: the fastest plan that reached the SSIM.
        evidence: results on the calibration images.
        device: whose variants the plan was tuned with; those for another device may recompute other regions.
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
    device: DeviceName = "cpu"
