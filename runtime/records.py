"""The base class of the manifest's records, and types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A part of the manifest: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
