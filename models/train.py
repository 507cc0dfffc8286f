"""Train classifiers of local findings on a CPU: ``python -m models.train resnet18 -o FOLDER``.

One trunk a network is trained on all three data sets of ``models.findings`` together, with a head for each: every batch
mixes the data sets, and the loss is summed over each picture's own head. That costs a third of three trainings. The
result is three ONNX files all the same, trunk and one head each. ``models.three_heads`` says what else is trained along.

Most steps run on smaller pictures, the last ones on full ones. ``<network>.json`` says how long it took, pictures
included: 8 minutes for resnet18 and 27 for vgg16 on two AVX-512 cores that had other work besides; the recipe of
inception_v3 has been tried for its first steps only. On such shared cores set
``OMP_WAIT_POLICY=PASSIVE``: threads that wait spinning take the other work's time, and are ten times slower themselves.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.findings import DATA_SETS
from models.networks import NETWORKS
from models.onnx_export import export_classifier
from models.three_heads import ThreeHeads, head_loss, scout_loss
from models.training_pictures import Pool, batches, make_pool, resized


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: steps in all, share of them on small pictures, side of those, peak learning rate."""

    steps: int
    small_share: float
    small_side: int
    learning_rate: float

    def sides(self, steps: int, side: int) -> list[int]:
        """Side of the pictures at each of ``steps`` steps."""
        small = round(steps * self.small_share)
        return [min(self.small_side, side)] * small + [side] * (steps - small)


RECIPES = {
    "resnet18": Recipe(steps=460, small_share=0.74, small_side=128, learning_rate=1.5e-3),
    "vgg16": Recipe(steps=300, small_share=0.8, small_side=112, learning_rate=5e-4),
    "inception_v3": Recipe(steps=460, small_share=0.72, small_side=160, learning_rate=1.5e-3),
    "efficientnet_b0": Recipe(steps=600, small_share=0.74, small_side=128, learning_rate=2e-3),
}

BATCH = 16

DENSE_RATE = 0.07
"""Learning rate of fully connected layers, relative: AdamW's equal steps add up over their thousands of inputs."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write the files of each data set, then measure and write the accuracy on unseen pictures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    recipe = RECIPES[options.network]
    side, steps = options.side or NETWORKS[options.network].usual_side, options.steps or recipe.steps
    started = time.monotonic()
    pools = {name: make_pool(name, "train", options.pictures, side) for name in DATA_SETS}
    network = ThreeHeads(options.network, {name: len(data_set.labels) for name, data_set in DATA_SETS.items()})
    train(network, list(pools.values()), recipe.sides(steps, side), recipe.learning_rate, np.random.default_rng(options.seed))
    seconds = time.monotonic() - started
    write(network, options.network, pools, options.output)
    accuracy = {}
    for name, pool in pools.items():
        accuracy[name] = accuracy_of(network, name, make_pool(name, "test", options.tests, side, pool.preprocessing))
    figures = {"test_accuracy": accuracy, "test_pictures": options.tests, "steps": steps, "seconds": round(seconds)}
    text = json.dumps({**figures, "seed": options.seed, "side": side}, indent=2)
    (options.output / f"{options.network}.json").write_text(text + "\n")
    print(f"{options.network}: trained in {seconds / 60:.1f} min; accuracy on {options.tests} unseen pictures: {accuracy}")


def train(network: ThreeHeads, pools: Sequence[Pool], sides: Sequence[int], peak: float, rng: np.random.Generator) -> None:
    """One step for each of ``sides``, with a learning rate that rises to ``peak`` and falls to zero."""
    optimizer, peaks = _optimizer(network, peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=len(sides), pct_start=0.2)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    progress = tqdm(batches(pools, BATCH, sides, rng), total=len(sides), desc="training")
    average = 1.0
    # Without such units bfloat16 is no faster than float32, and slower in the backward pass.
    matrix_units = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    for batch in progress:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=matrix_units):
            heads, scouts = network(batch.images)
        loss = head_loss(heads, batch.owners, batch.labels)
        average += 0.1 * (loss.item() - average)
        loss = loss + scout_loss(scouts, batch.owners, batch.labels, batch.boxes)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{average:.3f}", side=batch.images.shape[-1], refresh=False)


def _optimizer(network: ThreeHeads, peak: float) -> tuple[torch.optim.AdamW, list[float]]:
    """The optimizer, and the peak learning rate of each of its groups."""
    dense = network.dense_parameters()
    others = [one for one in network.parameters() if all(one is not other for other in dense)]
    groups = [(others, peak), (dense, DENSE_RATE * peak)] if dense else [(others, peak)]
    optimizer = torch.optim.AdamW([{"params": parameters} for parameters, _ in groups], weight_decay=1e-2, fused=True)
    return optimizer, [rate for _, rate in groups]


def write(network: ThreeHeads, name: str, pools: Mapping[str, Pool], folder: Path) -> None:
    """An ONNX file and its preprocessing for each data set."""
    folder.mkdir(parents=True, exist_ok=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for data_set, pool in pools.items():
        recipe = pool.preprocessing
        export_classifier(network.classifier(data_set), folder / f"{name}-{data_set}.onnx", size=recipe.size, dynamic_batch=True)
        text = recipe.model_dump_json(indent=2, exclude_none=True)
        (folder / f"{name}-{data_set}.preprocessing.json").write_text(text + "\n")


def accuracy_of(network: ThreeHeads, data_set: str, pool: Pool) -> float:
    """Share of right answers, in float32 as the files have it."""
    classifier = network.classifier(data_set).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    answers = []
    with torch.no_grad():
        for start in range(0, len(pool.labels), BATCH):
            images = pool.inputs(slice(start, start + BATCH))
            answers.append(classifier(resized(images, images.shape[-1])).argmax(dim=1))
    return float((torch.cat(answers).numpy() == pool.labels).mean().round(4))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.train", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("network", choices=sorted(RECIPES), help="network")
    add("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the files are written")
    add("--steps", type=int, metavar="N", help="training steps (default: the network's recipe)")
    add("--side", type=int, metavar="N", help="side of the pictures (default: the network's usual one)")
    add("--pictures", type=int, default=900, metavar="N", help="training pictures of each data set (default: %(default)s)")
    add("--tests", type=int, default=204, metavar="N", help="unseen pictures of each data set (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of weights and augmentation (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
