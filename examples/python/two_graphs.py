"""A heat map from a bundle's two graphs, with onnxruntime and numpy alone.

python two_graphs.py BUNDLE.kc IMAGE.bin [--stride N] [--threads N] [-o map.bin]

docs/format.md describes the bundle. The image is raw little-endian float32, preprocessed, channels first; zeros cover it.
"""

import argparse
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort


def opened(folder: Path) -> tuple[dict, ort.InferenceSession, ort.InferenceSession]:
    """The manifest and the exact variant's two sessions, after the files' checksums have been verified."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != 9:
            sys.exit(f"{folder}: bundle format {manifest['format']!r}, expected 9; compile again or copy a newer program")
        for name, record in manifest["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != record["sha256"]:
                sys.exit(f"{folder / name}: damaged; copy the bundle again")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        sys.exit(f"{folder}: is not a compiled bundle ({error})")
    if manifest["reduction"] is not None and manifest["reduction"]["over"] == "class":
        sys.exit(f"{folder}: its outputs are to be reduced over the cells of each class, which this example does not do")
    options = ort.SessionOptions()  # batches run at the same time, a thread each, and differ in shape inside
    options.intra_op_num_threads, options.enable_mem_pattern = 1, False
    files = [folder / manifest["variants"][0][name] for name in ("baseline", "incremental")]
    return manifest, *(ort.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files)


def heat_map(folder: Path, file: Path, stride: int, threads: int) -> tuple[np.ndarray, int]:
    """The map [rows, cols] of raw scores, and the class with the largest score of the uncovered image."""
    manifest, baseline, incremental = opened(folder)
    (channels, height, width), patch = manifest["shape"], manifest["patch"]
    image = np.fromfile(file, "<f4")
    if image.size != channels * height * width:
        sys.exit(f"{file}: {image.size} numbers, expected float32 {[channels, height, width]}")
    ys, xs = (np.arange(0, size - side + 1, stride) for size, side in zip((height, width), patch, strict=True))
    positions = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)

    names = [value.name for value in baseline.get_outputs()]
    cached = dict(zip(names, baseline.run(names, {manifest["image"]: image.reshape(1, channels, height, width)}), strict=True))
    output = manifest["logits"] or manifest["output"]

    def evaluated(positions: np.ndarray, fill: np.ndarray) -> np.ndarray:
        """Scores [positions, classes]; ``fill`` [H * W, C] is the picture that shows through the patch."""
        values = incremental.run([output], {**cached, "fill": fill, "positions": positions})[0]
        scores = values.reshape(len(positions), -1).astype(np.float32)
        if manifest["two_classes"]:  # a single sigmoid: class 0 is what class 1 leaves
            scores = np.concatenate([np.float32(0 if manifest["logits"] else 1) - scores, scores], axis=1)
        return scores

    uncovered = evaluated(np.zeros((1, 2), np.int64), np.ascontiguousarray(image.reshape(channels, -1).T))
    target, zeros = int(uncovered[0].argmax()), np.zeros((height * width, channels), np.float32)
    size = min(manifest["variants"][0]["batch"], manifest["largest_batch"])
    batches = [positions[start : start + size] for start in range(0, len(positions), size)]  # any order is exact
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda batch: evaluated(batch, zeros)[:, target], batches)
        return np.concatenate(list(parts)).reshape(len(ys), len(xs)), target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    scores, target = heat_map(given.bundle, given.image, given.stride, given.threads)
    print(f"class {target}, {scores.size} positions, {scores.min():.6g} to {scores.max():.6g}")
    if given.out is not None:
        given.out.write_bytes(scores.astype("<f4").tobytes())
