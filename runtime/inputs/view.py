"""Where the model's pixels lie in the picture that they were made of: an affine map along each axis, which can be inverted."""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""(top, left, bottom, right), half-open, in pixels."""


@dataclass(frozen=True, slots=True)
class View:
    """How a model sees a picture that was scaled, cropped or padded to its image.

    Coordinates are of edges: 0 is the first pixel's first edge, so that pixel i reaches from i to i + 1. The coordinate of the
    picture is ``offset + scale * coordinate of the model's image``, along y and along x.

    Attributes:
        picture: (height, width) in pixels, upright.
        model: (height, width) of the model's image.
        scale: (y, x) pixels of the picture per pixel of the model's image.
        offset: (y, x) of the model's first pixel in the picture; negative where the picture was padded.
    """

    picture: tuple[int, int]
    model: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def whole(cls, size: tuple[int, int]) -> View:
        """Of a picture that is the model's image itself."""
        return cls(size, size, (1.0, 1.0), (0.0, 0.0))

    def to_picture(self, y: float, x: float) -> tuple[float, float]:
        """A point of the model's image in the picture."""
        return self.offset[0] + self.scale[0] * y, self.offset[1] + self.scale[1] * x

    def to_model(self, y: float, x: float) -> tuple[float, float]:
        """A point of the picture in the model's image; outside of it where the model does not see the point."""
        return (y - self.offset[0]) / self.scale[0], (x - self.offset[1]) / self.scale[1]

    def box_in_picture(self, box: Box) -> Box:
        """A box of the model's image in the picture."""
        return (*self.to_picture(*box[:2]), *self.to_picture(*box[2:]))

    def box_in_model(self, box: Box) -> Box:
        """A box of the picture in the model's image."""
        return (*self.to_model(*box[:2]), *self.to_model(*box[2:]))

    @property
    def seen(self) -> Box:
        """The part of the picture that the model sees."""
        (top, left), (bottom, right) = self.to_picture(0, 0), self.to_picture(*self.model)
        height, width = self.picture
        return max(top, 0.0), max(left, 0.0), min(bottom, height), min(right, width)
