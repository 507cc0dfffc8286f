"""A heat map from an exported model, with onnxruntime and numpy alone.

python heatmap.py FOLDER [IMAGE.bin] [--threads N] [-o map.bin], where FOLDER is what `kcompiler export` wrote. The image is raw
little-endian float32, preprocessed, channels first. Without one, the folder's own test image and test map are compared.
"""

import argparse
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort


def opened(folder: Path) -> tuple[dict, ort.InferenceSession]:
    """The card and a session, after the files' checksums have been verified."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        if card["format"] != 2:
            sys.exit(f"{folder}: card format {card['format']!r}, expected 2; export again or copy a newer program")
        if [one["name"] for one in card["inputs"]] != ["image", "fill", "target", "batches"]:
            sys.exit(f"{folder}: takes other inputs; export without --preprocess and --drill-down")
        files = card["files"].items()
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        sys.exit(f"{folder}: is not an exported model ({error})")
    for name, record in files:
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
            sys.exit(f"{path}: missing or damaged; copy the folder again")
    options = ort.SessionOptions()  # batches are shared out over threads instead, and differ in shape
    options.intra_op_num_threads, options.enable_mem_pattern = 1, False
    return card, ort.InferenceSession(folder / "map.onnx", options, providers=["CPUExecutionProvider"])


def heat_map(session: ort.InferenceSession, image: np.ndarray, fill: np.ndarray, batches: int, threads: int) -> tuple:
    """The map [rows, cols] of the first batches for the class with the largest score, and that class."""

    def share(edges: tuple[int, int]) -> list[np.ndarray]:
        span = np.array([edges[0], edges[1] - edges[0]])
        return session.run(["map", "class"], {"image": image, "fill": fill, "target": np.array([-1]), "batches": span})

    with ThreadPoolExecutor(threads) as pool:
        shares = list(pool.map(share, pairwise(np.linspace(0, batches, threads + 1).round().astype(int))))
    scores = shares[0][0]
    for other, _ in shares[1:]:
        scores = np.where(np.isnan(scores), other, scores)
    return scores, int(shares[0][1][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path)
    given = parser.parse_args()
    card, session = opened(given.folder)
    shape, test = card["inputs"][0]["shape"], card["test"]
    image = np.fromfile(given.image or given.folder / test["image"], "<f4")
    if image.size != np.prod(shape):
        sys.exit(f"{given.image}: {image.size} numbers, expected float32 {shape}")
    fill = np.full(shape[1], test["fill"] if given.image is None else 0, np.float32)
    batches = test["batches"][1] if given.image is None else len(card["batches"])
    scores, chosen = heat_map(session, image.reshape(shape), fill, batches, given.threads)
    print(f"class {chosen}, {int(np.isfinite(scores).sum())} positions, {np.nanmin(scores):.6g} to {np.nanmax(scores):.6g}")
    if given.out is not None:
        given.out.write_bytes(scores.astype("<f4").tobytes())
    if given.image is None:
        expected = np.fromfile(given.folder / test["map"], "<f4").reshape(scores.shape)
        difference = np.nanmax(np.abs(scores - expected)) / (np.nanmax(expected) - np.nanmin(expected))
        print(f"largest difference from the test map: {difference:.2g} of its range")
        sys.exit(0 if difference <= test["tolerance"] and chosen == test["chosen"] else 1)


if __name__ == "__main__":
    main()
