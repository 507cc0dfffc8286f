"""What the incremental graphs for CUDA are made of, without a device: kernels a batch, indices, and what classes of extents keep.

    python tests/bench/launches.py [NETWORK...]          # default: those of docs/cuda.md

Prints a line a network: kernels launched in a batch by the CPU's graph, if CUDA ran it, and by that for CUDA; outputs of the
index graph and their bytes a position; the share of the redundancy ratio with tight extents that 1, 4, 8, 12 and 16 classes of
extents keep, at stride 4; the batch size chosen, and the speed-up predicted from the assumed rates of ``passes/assumed.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from cuda_graphs import BATCH, indices, launched, network

from kcompiler.passes.choosing.choice import Chooser
from kcompiler.passes.rewriting.rewrite import incremental_graph

NETWORKS = ("demo", "resnet18", "vgg16", "inception_v3", "mobilenet_v2")
CLASSES = (1, 4, 8, 12, 16)
COLUMNS = ("network", "kernels, CPU's graph", "kernels", "index tensors", "bytes a position",
           *(f"{count} classes" for count in CLASSES), "batch", "predicted")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", default=NETWORKS, help=f"of models.export, or demo; default: {', '.join(NETWORKS)}"
    )
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in parser.parse_args(arguments).networks:
        print("| " + " | ".join(line(name)) + " |", flush=True)
    return 0


def line(name: str) -> list[str]:
    given = network(name)
    analysed, choice = given.analysed, given.analysed.choice
    on_cpu = Chooser(analysed.graph, given.patch, prefer={}, direct=False).choose(1e-4)
    graph = incremental_graph(analysed.graph, on_cpu.plan, "tight", on_cpu.layouts).graph
    values = indices(given, len(given.classes) - 1).values()
    return [
        name, str(sum(launched(graph).values())), str(sum(launched(given.parts.incremental).values())), str(len(values)),
        f"{sum(value.nbytes for value in values) / BATCH:,.0f}", *(f"{given.kept(count):.2f}" for count in CLASSES),
        str(choice.batch), f"{choice.full_seconds / choice.seconds:.1f}x",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
