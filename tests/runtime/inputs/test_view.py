"""Coordinates of the picture and of the model's image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kcompiler.runtime.inputs.preprocessing import Preprocessing, read_picture, view_of
from kcompiler.runtime.inputs.view import View

GIVEN = {"size": (40, 60), "scale": 1.0, "mean": (0.0,), "std": (1.0,), "channel_order": "gray"}
STRETCH = Preprocessing.model_validate({**GIVEN, "resize": "stretch"})
CROP = Preprocessing.model_validate({**GIVEN, "resize": "crop", "shorter_side": 64})
RECIPES = {
    "stretch": STRETCH,
    "crop": CROP,
    "crop to the pixel": Preprocessing.model_validate({**GIVEN, "resize": "crop", "shorter_side": 64, "crop_at": "round"}),
    "crop, rounded": Preprocessing.model_validate(
        {**GIVEN, "resize": "crop", "shorter_side": 64, "crop_at": "floor", "rounded": True}
    ),
    "crop of a share": Preprocessing.model_validate({**GIVEN, "resize": "crop", "crop_share": 0.7}),
    "crop wider than the picture": Preprocessing.model_validate({**GIVEN, "resize": "crop", "shorter_side": 41}),
    "the same to the pixel": Preprocessing.model_validate({**GIVEN, "resize": "crop", "shorter_side": 41, "crop_at": "floor"}),
    "stretch and crop": Preprocessing.model_validate({**GIVEN, "resize": "stretch", "resized": (51, 68)}),
    "stretch and pad": Preprocessing.model_validate({**GIVEN, "resize": "stretch", "resized": (37, 68)}),
    "letterbox": Preprocessing.model_validate({**GIVEN, "resize": "letterbox"}),
    "letterbox, top left": Preprocessing.model_validate({**GIVEN, "resize": "letterbox", "anchor": "top-left"}),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("size", [(200, 300), (300, 200), (37, 91)])
def test_a_bright_spot_lies_where_the_view_says(recipe, size, tmp_path):
    """Of a disc that the model sees, in the picture and in the model's image."""
    height, width = size
    y, x = height * 0.4, width * 0.55
    rows, columns = np.mgrid[:height, :width] + 0.5
    picture = 255 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (0.05 * min(size)) ** 2)
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "spot.png")
    read = read_picture(tmp_path / "spot.png", recipe)
    assert (read.source.shape, read.view.picture, read.view.model) == ((*size, 3), size, (40, 60))
    weights = read.tensor[0, 0] / read.tensor.sum()
    rows, columns = np.mgrid[:40, :60] + 0.5
    centre = float((rows * weights).sum()), float((columns * weights).sum())
    assert centre == pytest.approx(read.view.to_model(y, x), abs=0.3)
    assert read.view.to_picture(*read.view.to_model(y, x)) == pytest.approx((y, x))


def test_what_the_model_sees():
    assert view_of((200, 300), STRETCH).seen == (0, 0, 200, 300)
    top, left, bottom, right = view_of((200, 300), CROP).seen
    assert (bottom - top, right - left) == pytest.approx((40 * 200 / 64, 60 * 200 / 64))
    assert (top + bottom, left + right) == pytest.approx((200, 300))
    letterbox = view_of((200, 100), RECIPES["letterbox"])
    assert letterbox.seen == pytest.approx((0, 0, 200, 100))
    assert letterbox.scale == pytest.approx((5, 5))
    assert letterbox.box_in_model((0, 0, 200, 100)) == pytest.approx((0, 20, 40, 40))
    assert view_of((200, 100), RECIPES["letterbox, top left"]).offset == (0, 0)
    assert View((10, 20), (30, 30), (1.0, 1.0), (-10.0, -5.0)).seen == (0, 0, 10, 20), "padded"
    assert View.whole((5, 6)).box_in_picture((1, 2, 3, 4)) == View.whole((5, 6)).box_in_model((1, 2, 3, 4)) == (1, 2, 3, 4)
