"""What bundles ask of a CUDA device, found without one: kernels, copies, waits, plans and graphs on the fake device.

python tests/bench/rehearse_cuda.py BUNDLE... [--variant NAME] [--graphs] [--channels-last] [--images N] [--stride S]
                                    [--json FILE]

The bundles are compiled for CUDA. The first run builds the fake device and downloads onnxruntime-gpu into a cache folder
(``tests/fake_cuda/environment.py``). Nothing here is a time, and nothing depends on what the images show. In the table, figures
of a batch are the largest among the batches of the last image; figures divided by slashes are those of the images in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import onnx
import onnxruntime as ort

import kcompiler
from kcompiler.runtime.inference.cuda import NAME, CudaOptions
from kcompiler.runtime.inference.engine import Engine
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.measuring.check import random_image

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_cuda.environment import Unavailable, environment
from fake_cuda.recorder import Counts, Event, Kind, Recorder

T = TypeVar("T")
FILL = 0.5
INSIDE = "KCOMPILER_FAKE_CUDA"
"""Set in the process that has the fake device."""
HEAD = (
    "bundle", "batches", "kernels + library calls a batch", "graphs a batch", "plans built", "waits a batch",
    "MB to device", "MB to host", "MB allocated: opening, images", "nodes on the CPU", "Memcpy nodes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of positions.

    Attributes:
        early_waits: times that the host waited for the device before the batch's last computation.
    """

    positions: int
    counts: Counts
    early_waits: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its baseline pass, the position whose fill is the image itself, and the batches of the grid."""

    baseline: Counts
    unoccluded: Counts
    batches: tuple[Batch, ...]

    @property
    def total(self) -> Counts:
        return Counts.sum([self.baseline, self.unoccluded, *(batch.counts for batch in self.batches)])


@dataclass(frozen=True, slots=True)
class Placement:
    """Where ONNX Runtime places the nodes of a model.

    Attributes:
        on_cpu: operators of the nodes that it leaves to the CPU.
        copies: Memcpy nodes that it adds between the devices.
    """

    on_cpu: tuple[str, ...]
    copies: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a bundle asks of the device.

    Attributes:
        math: of cuBLAS's products, the modes that occurred.
        tensor_cores: whether cuDNN was allowed tensor cores, which for float32 are TF32.
    """

    bundle: str
    variant: str
    graphs: bool
    channels_last: bool
    placements: dict[str, Placement]
    opening: Counts
    images: tuple[Image, ...]
    math: tuple[str, ...]
    tensor_cores: bool


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if INSIDE not in os.environ:
        try:
            variables = environment()
        except Unavailable as why:
            print(f"the fake CUDA device cannot be set up: {why}", file=sys.stderr)
            return 1
        return subprocess.run([sys.executable, __file__, *arguments], env={**variables, INSIDE: "1"}).returncode
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD))))
    rehearsals = []
    for bundle in options.bundles:
        rehearsals.append(rehearsed(bundle, options))
        print(line(rehearsals[-1]), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(one) for one in rehearsals], indent=1) + "\n")
    return 0


class Watch:
    """Runs work, and keeps what reached the device."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._recorder = Recorder()

    def run(self, work: Callable[..., T], *arguments: object) -> tuple[T, list[Event]]:
        """The result of ``work``, and its events."""
        self._recorder.reset()
        result = work(*arguments)
        events = self._recorder.events()
        self.events += events
        return result, events


def rehearsed(bundle: Path, options: argparse.Namespace) -> Rehearsal:
    watch, cuda = Watch(), CudaOptions(graphs=options.graphs, channels_last=options.channels_last)
    explainer, opening = watch.run(partial(kcompiler.load, bundle, providers=["cuda"], cuda=cuda))
    engine = explainer.engines[options.variant]
    images = tuple(_image(engine, watch, seed, options.stride) for seed in range(options.images))
    placements = {
        name: placed(bundle / name, engine.machine.cuda) for name in (engine.variant.baseline, engine.variant.incremental)
    }
    details = [event.detail for event in watch.events if event.kind in (Kind.LIBRARY_CALL, Kind.PLAN)]
    math = {detail.rpartition("math=")[2] for detail in details if "math=" in detail}
    return Rehearsal(
        bundle.stem, options.variant, options.graphs, options.channels_last, placements, Counts.of(opening), images,
        tuple(sorted(math)), any("tensor cores" in detail for detail in details),
    )  # fmt: skip


def _image(engine: Engine, watch: Watch, seed: int, stride: int) -> Image:
    shape = engine.manifest.shape
    positions = make_grid(shape[1:], engine.manifest.patch, stride).positions
    baseline, first = watch.run(engine.baseline, random_image(shape, seed), FILL)
    _, second = watch.run(engine.unoccluded, baseline)
    batches = []
    for part in engine.batches(positions):
        _, events = watch.run(engine.evaluate, baseline, positions[part])
        batches.append(Batch(len(part), Counts.of(events), _early_waits(events)))
    return Image(Counts.of(first), Counts.of(second), tuple(batches))


def _early_waits(events: list[Event]) -> int:
    computed = [number for number, event in enumerate(events) if event.kind in (Kind.LAUNCH, Kind.LIBRARY_CALL)]
    return Counts.of(events[: computed[-1]] if computed else []).synchronisations


def placed(model: Path, cuda: CudaOptions) -> Placement:
    """How ONNX Runtime places ``model``, which a session of its own is opened on."""
    with tempfile.TemporaryDirectory() as scratch:
        optimised, options = Path(scratch) / "optimised.onnx", ort.SessionOptions()
        options.log_severity_level, options.optimized_model_filepath = 3, str(optimised)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = ort.InferenceSession(model, options, providers=[(NAME, cuda.provider_options), "CPUExecutionProvider"])
        parts = session.get_provider_graph_assignment_info()
        nodes = onnx.load(optimised, load_external_data=False).graph.node
    on_cpu = tuple(node.op_type for part in parts if part.ep_name != NAME for node in part.get_nodes())
    return Placement(on_cpu, sum(node.op_type.startswith("Memcpy") for node in nodes))


def line(rehearsal: Rehearsal) -> str:
    """A row of the table."""
    totals = [image.total for image in rehearsal.images]
    last = [batch.counts for batch in rehearsal.images[-1].batches]
    on_cpu = [node for placement in rehearsal.placements.values() for node in placement.on_cpu]
    cells = [
        rehearsal.bundle,
        len(last),
        max(counts.launches + counts.library_calls for counts in last),
        max(counts.replays for counts in last),
        " / ".join(str(counts.plans) for counts in totals),
        max(counts.synchronisations for counts in last),
        " / ".join(f"{counts.to_device / 1e6:.1f}" for counts in totals),
        " / ".join(f"{counts.to_host / 1e6:.2f}" for counts in totals),
        " / ".join(f"{counts.allocated / 1e6:.0f}" for counts in (rehearsal.opening, *totals)),
        len(on_cpu),
        sum(placement.copies for placement in rehearsal.placements.values()),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--variant", default="exact", metavar="NAME", help="of the bundles (default: %(default)s)")
    parser.add_argument("--graphs", action="store_true", help="capture batches as CUDA graphs")
    parser.add_argument("--channels-last", action="store_true", help="convolutions on channels-last tensors")
    parser.add_argument("--images", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--stride", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
