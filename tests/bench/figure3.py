"""The paper's figure 3 for the same networks: redundancy by patch size, and how regions grow over depth.

python tests/bench/figure3.py PICTURE

Exports the networks with random weights; ``kcompiler inspect`` draws and prints.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORKS = (
    "alexnet", "vgg16", "vgg19", "squeezenet1_0", "resnet18", "resnet50", "mobilenet_v1", "densenet121", "inception_v3",
)  # fmt: skip


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: figure3.py PICTURE")
    picture = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.onnx") for name in NETWORKS]
        for name, path in zip(NETWORKS, paths, strict=True):
            subprocess.run([sys.executable, "-m", "models.export", name, "-o", path], cwd=ROOT, check=True)
        command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", "inspect"]
        subprocess.run([*command, *map(str, paths), "--picture", str(picture), "--force"], check=True)


if __name__ == "__main__":
    main()
