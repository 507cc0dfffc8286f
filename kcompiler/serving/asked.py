"""What pages may ask for, validated before anything is computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kcompiler.runtime.bundle.manifest import Manifest
from kcompiler.runtime.bundle.targets import Score
from kcompiler.runtime.errors import UsageError
from kcompiler.runtime.inputs.fills import named
from kcompiler.runtime.inputs.images import Fill
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.request import Request

MOST_POSITIONS = 200_000
Name = Annotated[str, Field(max_length=64)]
Pixel = Annotated[float, Field(ge=0, le=255)]
Colour = Annotated[tuple[Pixel, ...], Field(min_length=1, max_length=3)]
Side = Annotated[int, Field(ge=0, le=1 << 16)]
Patch = tuple[Side, Side]
"""Height and width in pixels."""


class Asked(BaseModel):
    """Base of what is asked for: no unknown fields, no numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Covering(Asked):
    """A picture and what covers it.

    Attributes:
        picture: name of the picture, as the upload told it.
        fill: what covers: a colour in pixel values, the name of a fill, or None for 0 in model units.
        score: see :meth:`Explainer.explain`.
        patch: of those that the bundle is compiled for; None is the one that pages begin with.
    """

    picture: Name
    fill: Name | Colour | None = None
    score: Score = "auto"
    patch: Patch | None = None

    def resolved_fill(self, manifest: Manifest) -> Fill:
        """The fill as the driver takes it.

        Raises:
            UsageError: no such fill, or a colour for a bundle without preprocessing.
        """
        if self.fill is None:
            return 0.0
        if isinstance(self.fill, str):
            named(self.fill)
            return self.fill
        if manifest.preprocessing is None:
            raise UsageError("the bundle has no preprocessing to convert colours by; take another fill")
        return manifest.preprocessing.fill(self.fill)


class AskedOutputs(Covering):
    """The outputs with the patch's top-left corner at (y, x) of the model's image."""

    y: Side
    x: Side


class AskedMap(Covering):
    """A map; see :meth:`Explainer.explain` for what the attributes mean."""

    stride: Annotated[int, Field(ge=1, le=1 << 12)] = 4
    target: Annotated[int, Field(ge=0)] | None = None
    region: tuple[Side, Side, Side, Side] | None = None
    quality: Annotated[float, Field(gt=0, le=1)] | None = None
    budget: Annotated[float, Field(gt=0, le=86_400)] | None = None

    def request(self, manifest: Manifest) -> Request:
        """The request that the driver takes.

        Raises:
            UsageError: a setting does not fit the bundle, or there are too many positions.
        """
        grid = make_grid(manifest.shape[1:], manifest.patch, self.stride, self.region)
        count = grid.shape[0] * grid.shape[1]
        if count > MOST_POSITIONS:
            raise UsageError(f"{count} positions, expected at most {MOST_POSITIONS}: take a larger stride, or a box")
        return Request(
            stride=self.stride, target=self.target, fill=self.resolved_fill(manifest), region=self.region,
            quality="exact" if self.quality is None else self.quality, score=self.score, budget=self.budget,
        )  # fmt: skip


class AskedFiles(Asked):
    """Maps to save: that of the whole picture, and that of a box in it."""

    maps: Annotated[tuple[Name, ...], Field(min_length=1, max_length=2)]
