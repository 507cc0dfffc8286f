"""Is a compiled model ever slower? Light models of the onnx wheel, a MobileNetV2 and the networks of the README.

python tests/bench/never_slower.py [--rounds N]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from networks import Builder  # noqa: E402 - the tests' own

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NETWORKS = ("vgg16", "resnet18", "inception_v3")
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block. Sandler et al., CVPR 2018, table 2."""


def mobilenet_v2(path: Path) -> Path:
    """MobileNetV2 at 224 pixels, random weights, batch normalisation folded."""
    builder = Builder()

    def clip(x: str) -> str:
        return builder.node("Clip", x, builder.constant(0.0), builder.constant(6.0))

    def conv(x: str, channels: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        pad, depth = kernel // 2, builder.channels[x] // group
        weights = builder.weight(channels, depth, kernel, kernel, scale=(2 / (depth * kernel**2)) ** 0.5)
        return builder.node("Conv", x, weights, builder.weight(channels, scale=0.3), channels=channels, group=group,
                            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad, pad, pad, pad])  # fmt: skip

    x = clip(conv("image", 32, 3, 2))
    for expansion, channels, blocks, first_stride in STAGES:
        for number in range(blocks):
            stride, before, skip = first_stride if number == 0 else 1, builder.channels[x], x
            wide = before * expansion
            x = clip(conv(x, wide, 1)) if expansion > 1 else x
            x = conv(clip(conv(x, wide, 3, stride, group=wide)), channels, 1)
            x = builder.node("Add", x, skip) if stride == 1 and before == channels else x
    x = builder.node("GlobalAveragePool", clip(conv(x, 1280, 1)))
    onnx.save(builder.model(x, 224, 224, classes=1000), path)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        models = [
            mobilenet_v2(Path(folder, "mobilenet_v2.onnx")),
            ROOT / "models" / "demo" / "demo.onnx",
            *sorted(LIGHT.glob("*.onnx")),
        ]
        for name in NETWORKS:
            models.append(Path(folder, f"{name}.onnx"))
            subprocess.run([sys.executable, "-m", "models.export", name, "-o", models[-1]], cwd=ROOT, check=True)
        ratios = {}
        for model in models:
            command = [sys.executable, "-P", "-c", "from kcompiler.cli import main; main()", "bench", str(model), "--json"]
            done = subprocess.run(
                [*command, "--no-memory", "--positions", "200", *sys.argv[1:]], stdout=subprocess.PIPE, check=False
            )
            if done.returncode:
                print(f"{model.name}: exit code {done.returncode}")
                continue
            (record,) = json.loads(done.stdout)
            ratios[model.name] = record["speedup"]
            print(
                f"{model.name}: {record['speedup']:.2f}x, R {record['redundancy']:.2f}, error {record['largest_error']:.1e}",
                flush=True,
            )
    worst = min(ratios, key=ratios.__getitem__)
    print(f"least: {worst} {ratios[worst]:.2f}x")


if __name__ == "__main__":
    main()
