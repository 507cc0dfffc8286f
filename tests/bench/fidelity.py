"""Approximate heat maps of a trained classifier: how close to the exact ones, how fast, and how faithful.

python tests/bench/fidelity.py MODEL_FOLDER NETWORK DATA_SET [--calibration N] [--unseen N] [--work DIR] [--json FILE]

Tunes the classifier that ``models.train`` wrote into MODEL_FOLDER on calibration pictures and explains unseen ones by the
plan that was found. Full inference at its best batch is timed before and after everything that is timed, so each speed-up is
a ratio within seconds. The bundle and exact maps are kept in --work: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # for models, which is not installed: last, so that an installed kcompiler comes first

from faithfulness import faithfulness, probability_of  # noqa: E402
from fidelity_table import Judged, Pace, report  # noqa: E402

import kcompiler  # noqa: E402
from kcompiler.runtime.bundle.digests import file_record  # noqa: E402
from kcompiler.runtime.bundle.manifest_file import read_manifest  # noqa: E402
from kcompiler.runtime.bundle.plans import Tuned  # noqa: E402
from kcompiler.runtime.explainer import Explainer  # noqa: E402
from kcompiler.runtime.inference.spread import spread  # noqa: E402
from kcompiler.runtime.inference.workers import Workers  # noqa: E402
from kcompiler.runtime.inputs.images import FloatArray, fill_image  # noqa: E402
from kcompiler.runtime.inputs.positions import make_grid  # noqa: E402
from kcompiler.runtime.maps.heatmap import HeatMap  # noqa: E402
from kcompiler.runtime.measuring.timing import FULL_BATCHES, TimedFull, time_compiled  # noqa: E402
from kcompiler.runtime.sampling.quality import quality  # noqa: E402
from kcompiler.runtime.tuning.judging import split  # noqa: E402
from kcompiler.runtime.tuning.trials import Goal, Sample  # noqa: E402
from kcompiler.runtime.tuning.tuner import tune  # noqa: E402
from models.findings import DATA_SETS, Box, picture  # noqa: E402

PATCH, STRIDE, FILL = 16, 4, 0.0
FIRST_SEED = 7000
SAMPLED = 200
"""Positions on which the exact path is timed for each picture, about: whole batches, evenly spread."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture, as the model takes it (float32 [1, C, H, W]), and its exact map."""

    seed: int
    label: int
    box: Box | None
    image: FloatArray
    exact: HeatMap

    @property
    def right(self) -> bool:
        """Whether the classifier is: the map is of what it says."""
        return self.exact.target == self.label


class Clock:
    """Times explanations between runs of full inference, at the batch size that is best at the start."""

    def __init__(self, explainer: Explainer, image: FloatArray) -> None:
        manifest = explainer.manifest
        self.explainer, self.full, self.image = explainer, explainer.full_inference(), image
        self.fill = fill_image(FILL, manifest.shape)
        self.positions = make_grid(manifest.shape[1:], manifest.patch, STRIDE).positions
        self.chosen = spread(explainer.exact, self.positions, SAMPLED)
        self.ticks: list[float] = []
        sizes = [size for size in FULL_BATCHES["cpu"] if size <= manifest.largest_batch] or [1]
        times = {size: [self._full(size) for _ in range(3)] for size in sizes}  # the first of the three is for warming up
        self.size = min(sizes, key=lambda size: min(times[size][1:]))
        time_compiled(explainer, explainer.exact.baseline(image, FILL), self.chosen)
        self.tick()

    def tick(self) -> float:
        """Seconds a position of full inference, now."""
        self.ticks.append(self._full(self.size))
        return self.ticks[-1]

    def _full(self, size: int) -> float:
        timed = TimedFull(self.full, size, Workers(1))
        return timed.seconds(self.image, self.fill, self.positions, self.explainer.manifest.patch)

    def speedup(self, seconds: float) -> float:
        """Of something that took ``seconds`` just now, and for all positions, over full inference before and after it."""
        return len(self.positions) * statistics.fmean((self.ticks[-1], self.tick())) / seconds

    def exact_seconds(self, image: FloatArray) -> float:
        """Of an exact explanation: the baseline pass, and all positions at the pace of some batches."""
        start = time.perf_counter()
        baseline = self.explainer.exact.baseline(image, FILL)
        self.explainer.exact.unoccluded(baseline)
        once = time.perf_counter() - start
        return once + time_compiled(self.explainer, baseline, self.chosen) * len(self.positions)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.calibration < 2 or options.unseen < 1:
        parser.error("--calibration takes 2 pictures or more, --unseen 1 or more")
    explainer = open_bundle(options)
    first_unseen = FIRST_SEED + options.calibration
    goal = Goal(ssim=options.ssim, share=options.share, confidence=options.confidence, stride=STRIDE, fill=FILL)
    with tqdm(desc="plans", unit="image") as bar:

        def tell(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.update()

        known = Calibration(explainer, options, range(FIRST_SEED, first_unseen))
        if options.maps_only:
            every = [known[number] for part in split(len(known), goal) for number in part]
        else:
            start = time.perf_counter()
            tuned = tune(explainer, known, goal, tell)
            spent = time.perf_counter() - start + known.saved
    unseen = [
        example(explainer, options, seed) for seed in tqdm(range(first_unseen, first_unseen + options.unseen), "exact maps")
    ]
    if options.maps_only:
        print(f"{len(every)} + {len(unseen)} exact maps are in {options.work / 'maps'}")
        return
    clock = Clock(explainer, unseen[0].image)
    judged = [judge(explainer, one, tuned, clock) for one in tqdm(unseen, desc="unseen pictures")]
    every = [*known.taken, *unseen]
    pace = Pace(len(clock.positions), clock.size, clock.ticks)
    right = [one.right for one in every]
    report(explainer.manifest.model, pace, tuned, judged, right, DATA_SETS[options.data_set].labels)
    print(
        f"tuning on {tuned.evidence.images} of {tuned.evidence.given} pictures: {spent:.0f} s with all exact maps, "
        f"{spent / tuned.evidence.exact_seconds:.1f} times an exact map"
    )
    if options.json is not None:
        content = {
            "network": options.network, "data_set": options.data_set, "threads": options.threads,
            "model_sha256": explainer.manifest.model_sha256, "positions": len(clock.positions), "batch": explainer.batch,
            "full_batch": clock.size, "full_seconds_a_position": clock.ticks, "tuned": tuned.model_dump(mode="json"),
            "tuning_seconds": spent, "right": {one.seed: one.right for one in every}, "unseen": [asdict(one) for one in judged],
        }  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def open_bundle(options: argparse.Namespace) -> Explainer:
    """The compiled model, from --work if it was compiled there from the same file for the same variants."""
    stem = f"{options.network}-{options.data_set}"
    model, place = options.model_folder / f"{stem}.onnx", options.work / f"{stem}{'-int8' if options.int8 else ''}.kc"
    if place.exists() and reusable(place, model, options.tau):
        return kcompiler.load(place, threads=options.threads)
    recipe = options.model_folder / f"{stem}.preprocessing.json"
    bundle = kcompiler.compile(
        model, patch=PATCH, thresholds=options.tau, int8=options.int8, threads=options.threads, preprocessing=recipe
    )
    return kcompiler.load(bundle.save(place, force=True), threads=options.threads)


def reusable(place: Path, model: Path, taus: Sequence[float]) -> bool:
    try:
        found = read_manifest(place)
    except kcompiler.BundleError as error:  # of an earlier version, say
        print(f"{error}: now", file=sys.stderr)
        return False
    thresholds = [one.threshold for one in found.variants[1:] if not one.integers]
    return (found.model_sha256, found.patch, thresholds) == (file_record(model).sha256, (PATCH, PATCH), taus)


class Calibration(Sequence[Sample]):
    """Pictures to tune on, as tuning asks for them.

    Attributes:
        taken: those that it did ask for.
        saved: seconds that the exact maps of those took which were there already.
    """

    def __init__(self, explainer: Explainer, options: argparse.Namespace, seeds: range) -> None:
        self.explainer, self.options, self.seeds = explainer, options, seeds
        self.taken: list[Example] = []
        self.saved = 0.0

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        start = time.perf_counter()
        found = example(self.explainer, self.options, self.seeds[number])
        self.taken.append(found)
        self.saved += max(0.0, found.exact.seconds - (time.perf_counter() - start))
        return Sample(found.image, found.exact)


def example(explainer: Explainer, options: argparse.Namespace, seed: int) -> Example:
    manifest = explainer.manifest
    assert manifest.preprocessing is not None, "compiled with one"
    made = picture(options.data_set, "test", seed, side=manifest.shape[1])
    image = explainer.check_image(manifest.preprocessing.to_input(made.pixels))
    # With the pixels in its name, no map of an earlier drawing is taken for this one's.
    name = f"{manifest.model_sha256[:12]}-{seed}-{hashlib.sha256(image.tobytes()).hexdigest()[:12]}"
    place = options.work / "maps" / f"{name}.json"
    if not place.is_file():
        explainer.explain(image, stride=STRIDE, fill=FILL).save(place.parent, name, picture=made.pixels)
    return Example(seed, made.label, made.box, image, HeatMap.load(place))


def judge(explainer: Explainer, example: Example, quality_kept: Tuned, clock: Clock) -> Judged:
    exact, image = example.exact, example.image
    clock.tick()
    tuned = explainer.explain(image, stride=STRIDE, fill=FILL, target=exact.target, quality=quality_kept)
    speedup = clock.speedup(tuned.seconds)
    exact_seconds = clock.exact_seconds(image)
    exact_speedup = clock.speedup(exact_seconds)
    box = example.box if example.right else None
    probability = probability_of(clock.full, exact.target, explainer.manifest.logits)
    return Judged(
        seed=example.seed, label=example.label, right=example.right,
        quality=quality(tuned.scores, exact.scores, exact.unoccluded), share=tuned.evaluated / tuned.scores.size,
        seconds=tuned.seconds, exact_seconds=exact_seconds, speedup=speedup, exact_speedup=exact_speedup,
        faithful=faithfulness(tuned, image, clock.fill, probability, box),
        exact_faithful=faithfulness(exact, image, clock.fill, probability, box),
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("model_folder", type=Path, metavar="MODEL_FOLDER", help="where models.train wrote its files")
    add("network", metavar="NETWORK")
    add("data_set", choices=DATA_SETS, metavar="DATA_SET", help=", ".join(DATA_SETS))
    add("--calibration", type=int, default=30, metavar="N", help="pictures to tune on (default: %(default)s)")
    add("--unseen", type=int, default=30, metavar="N", help="pictures to judge the plan on (default: %(default)s)")
    add("--work", type=Path, default=Path("fidelity"), metavar="DIR", help="keeps bundle and exact maps (default: %(default)s)")
    add("--tau", type=float, nargs="*", default=[0.7], metavar="T", help="thresholds of approximate variants (default: 0.7)")
    add("--int8", action="store_true", help="variants in 8-bit integers, too")
    add("--ssim", type=float, default=0.9, metavar="Q", help="that is to be kept (default: %(default)s)")
    add("--share", type=float, default=0.9, metavar="P", help="of all images on which it is (default: %(default)s)")
    add("--confidence", type=float, default=0.95, metavar="P", help="that it is (default: %(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: %(default)s)")
    add("--maps-only", action="store_true", help="compute the exact maps, which takes longest, and no more")
    add("--json", type=Path, metavar="FILE", help="write all figures, of each picture too")
    return parser


if __name__ == "__main__":
    main()
