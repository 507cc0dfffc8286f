"""How fast quantised models are: exports networks with random weights, quantises them to 8 bits, and measures them.

python tests/bench/quantised.py [further options of ``kcompiler bench``]

Scales are constants, taken from random pictures; weights have one for each channel.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

ROOT = Path(__file__).parents[2]
NETWORKS = ("resnet18", "mobilenet_v2", "googlenet", "densenet121")
SIDE, PICTURES = 224, 4


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Random images, standard normal."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._images = iter([rng.standard_normal((1, 3, SIDE, SIDE), dtype=np.float32) for _ in range(PICTURES)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def quantised(name: str, folder: Path) -> Path:
    """The network ``name`` with QuantizeLinear and DequantizeLinear around its operators, activations unsigned."""
    floats, path = folder / f"{name}-float.onnx", folder / f"{name}.onnx"
    command = [sys.executable, "-m", "models.export", name, "--size", str(SIDE), "--dynamic-batch", "-o", floats]
    subprocess.run(command, cwd=ROOT, check=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(floats, path, Pictures(), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = [quantised(name, Path(folder)) for name in NETWORKS]
        command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", "bench", *map(str, models)]
        subprocess.run([*command, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
