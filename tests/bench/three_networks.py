"""The README's table: exports VGG16, ResNet18 and InceptionV3 with random weights, and measures them and the demo model.

python tests/bench/three_networks.py [further options of ``kcompiler bench``]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORKS = ("vgg16", "resnet18", "inception_v3")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.onnx") for name in NETWORKS]
        for name, path in zip(NETWORKS, paths, strict=True):
            subprocess.run([sys.executable, "-m", "models.export", name, "-o", path], cwd=ROOT, check=True)
        models = [*paths, ROOT / "models" / "demo" / "demo.onnx"]
        command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", "bench", *map(str, models)]
        subprocess.run([*command, *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
