"""Train the demo classifier and write it, with a picture to explain: ``python -m models.train_demo``.

Training pictures come from the upper half of the photograph, all figures from the lower half (``demo_pictures``).
Takes about five minutes on two cores.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from kcompiler import Preprocessing
from models.demo_model import DEMO_FOLDER, MODEL, PICTURE, PREPROCESSING, TRUTH
from models.demo_network import DemoNetwork
from models.demo_pictures import DARKEST_RETINA, LABELS, SIDE, Split, picture
from models.onnx_export import export_classifier

TEST_SEEDS = range(1000, 1600)
PICTURE_SEEDS = range(9000, 9100)
"""Where the picture to explain is looked for; no figure is computed on these."""

BATCH = 32
PEAK_LEARNING_RATE = 4e-3
MOST_PATCHES = 4
LEAST_PATCH, MOST_PATCH = 8, 32


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Pixels uint8 [N, 224, 224, 3], labels [N], lesion boxes [N, 4] (empty boxes of zeros where healthy)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print the accuracy on unseen pictures, write the demo's files."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    started = time.monotonic()
    training = make_pictures("train", range(options.pictures))
    preprocessing = preprocessing_of(training)
    network = DemoNetwork(len(LABELS))
    train(network, training, preprocessing, options.epochs, np.random.default_rng(options.seed))
    network.fold_pooled_norm()
    minutes = (time.monotonic() - started) / 60
    test = make_pictures("test", TEST_SEEDS)
    predicted = predict(network, preprocessing.to_input(test.pixels))
    accuracy = {"overall": float(np.mean(predicted == test.labels))}
    for index, name in enumerate(LABELS):
        accuracy[name] = float(np.mean(predicted[test.labels == index] == index))
    figures: dict[str, object] = {"test_pictures": len(test.labels), "test_accuracy": accuracy}
    print(f"trained in {minutes:.1f} min; on {len(test.labels)} unseen pictures: {accuracy}")
    write_demo(options.output, network, preprocessing, figures)


def make_pictures(split: Split, seeds: range) -> PictureSet:
    """Pictures number ``seeds`` of ``split``, the labels taking turns."""
    made = [picture(seed, split) for seed in tqdm(seeds, desc=f"{split} pictures")]
    return PictureSet(
        np.stack([one.pixels for one in made]),
        np.array([one.label for one in made]),
        np.array([one.box or (0, 0, 0, 0) for one in made]),
    )


def preprocessing_of(pictures: PictureSet) -> Preprocessing:
    """Mean and deviation of the visible retina: with the black surround left out, the fill 0 looks like retina."""
    pixels = pictures.pixels[:300]
    retina = pixels[pixels[..., 0] > DARKEST_RETINA * 255] / 255
    mean, std = retina.mean(axis=0).round(4).tolist(), retina.std(axis=0).round(4).tolist()
    return Preprocessing(
        size=(SIDE, SIDE),
        resize="stretch",
        scale=1 / 255,
        mean=tuple(mean),
        std=tuple(std),
        channel_order="RGB",
        labels=LABELS,
    )


def train(network: nn.Module, pictures: PictureSet, preprocessing: Preprocessing, epochs: int, rng: np.random.Generator) -> None:
    """Minimise the cross entropy over ``epochs`` passes; augmentation is drawn afresh in each."""
    steps = epochs * (len(pictures.labels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    progress = tqdm(_batches(pictures, preprocessing, epochs, rng), total=steps, desc="training")
    for images, labels in progress:
        loss = functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _batches(
    pictures: PictureSet, preprocessing: Preprocessing, epochs: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    count = len(pictures.labels)
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = torch.from_numpy(preprocessing.to_input(pictures.pixels[chosen]))
            for image, box in zip(images, pictures.boxes[chosen], strict=True):
                _cover_healthy_places(image, box, rng)
            if rng.random() < 0.5:
                images = images.flip(3)
            images = torch.rot90(images, int(rng.integers(4)), dims=(2, 3))
            yield images.contiguous(memory_format=torch.channels_last), torch.from_numpy(pictures.labels[chosen])


def _cover_healthy_places(image: Tensor, box: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """Put up to four patches of the fill on [3, H, W], none on the lesion: a patch by itself is no finding.

    Without this the network meets its first patch when it is being explained, and answers to the patch's edges.
    """
    lesion_top, lesion_left, lesion_bottom, lesion_right = box
    for _ in range(rng.integers(0, MOST_PATCHES + 1)):
        side = rng.integers(LEAST_PATCH, MOST_PATCH + 1)
        top, left = rng.integers(0, SIDE - side + 1, size=2)
        beside_rows = top >= lesion_bottom or top + side <= lesion_top
        if beside_rows or left >= lesion_right or left + side <= lesion_left:
            image[:, top : top + side, left : left + side] = 0


def predict(network: nn.Module, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Index of the largest logit, [N]."""
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(chunk) for chunk in torch.split(torch.from_numpy(images), BATCH)])
    answer: npt.NDArray[np.int64] = logits.argmax(dim=1).numpy()
    return answer


def write_demo(folder: Path, network: nn.Module, preprocessing: Preprocessing, figures: dict[str, object]) -> None:
    """Write model, preprocessing, picture and truth; the picture is the first unseen one with a right answer."""
    for seed in PICTURE_SEEDS:
        example = picture(seed, "test")
        if example.box is not None and predict(network, preprocessing.to_input(example.pixels[None]))[0] == example.label:
            break
    else:
        raise RuntimeError(f"no lesion among pictures {PICTURE_SEEDS} is recognised: the training has failed")
    folder.mkdir(parents=True, exist_ok=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # Batch normalisation stays in the file, so that the demo shows a compiler that folds it.
    export_classifier(network, folder / MODEL, size=(SIDE, SIDE), dynamic_batch=True, keep_batch_norm=True)
    (folder / PREPROCESSING).write_text(preprocessing.model_dump_json(indent=2, exclude_none=True) + "\n")
    Image.fromarray(example.pixels).save(folder / PICTURE)
    truth = {"label": LABELS[example.label], "box": example.box, "picture_seed": seed, **figures}
    (folder / TRUTH).write_text(json.dumps(truth, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.train_demo", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("-o", "--output", type=Path, default=DEMO_FOLDER, metavar="DIR", help="default: %(default)s")
    add("--pictures", type=int, default=3600, metavar="N", help="training pictures (default: %(default)s)")
    add("--epochs", type=int, default=6, metavar="N", help="passes over them (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of weights and augmentation (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
