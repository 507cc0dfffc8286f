"""The demo classifier's files, and how a picture becomes its input."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DEMO_FOLDER = Path(__file__).parent / "demo"
MODEL = "demo.onnx"
PICTURE = "picture.png"
PREPROCESSING = "preprocessing.json"
TRUTH = "truth.json"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Input = (pixel * scale - mean) / std, channels first; a pixel is 0 to 255, mean and std are one per channel."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: tuple[str, ...]
    scale: float = 1 / 255

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[H, W, 3] (or [N, H, W, 3]) of the model's own size to [3, H, W] (or [N, 3, H, W])."""
        normalised = (pixels * self.scale - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(np.moveaxis(normalised, -1, -3), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write the JSON that ``kcompiler`` reads."""
        fields: dict[str, Any] = {
            "size": self.size,
            "resize": "stretch",
            "scale": self.scale,
            "mean": self.mean,
            "std": self.std,
            "channel_order": "RGB",
            "labels": self.labels,
        }
        path.write_text(json.dumps(fields, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Preprocessing":
        """Read what ``save`` wrote."""
        fields = json.loads(path.read_text())
        height, width = fields["size"]
        lists = {name: tuple(fields[name]) for name in ("mean", "std", "labels")}
        return cls(size=(height, width), scale=fields["scale"], **lists)
