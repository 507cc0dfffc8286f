"""What the records of a manifest have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """A part of the manifest: no unknown keys, not changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
