"""The command: a table of outcomes, and the first lines of what went wrong."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its thread would be lost in forked children

from tests.fuzz.cases import Case, write
from tests.fuzz.kinds import KINDS
from tests.fuzz.runner import BATCH, ERROR, OUTCOMES, RIGHT, Limits, Outcome, outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=None, help="cases; default all, where there is an end")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=Limits.seconds)
    parser.add_argument("--memory", type=int, default=Limits.memory, help="bytes")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--keep", type=Path, help="folder for the files of what went wrong")
    parser.add_argument("--verbose", action="store_true", help="print each outcome")
    asked = parser.parse_args()
    limits = Limits(asked.seconds, asked.memory)
    cases = (case for case in itertools.islice(KINDS[asked.kind].cases(asked.seed), asked.count) if asked.only in case[0])
    counts: Counter[str] = Counter()
    slowest = Outcome("", RIGHT)
    with ThreadPoolExecutor(asked.jobs) as pool:
        while batch := list(itertools.islice(cases, BATCH * asked.jobs)):
            parts = [batch[part :: asked.jobs] for part in range(asked.jobs) if batch[part :: asked.jobs]]
            for part, found in zip(parts, pool.map(lambda part: list(outcomes(asked.kind, part, limits)), parts), strict=True):
                for case, outcome in zip(part, found, strict=True):
                    counts[outcome.kind] += 1
                    slowest = max(slowest, outcome, key=lambda one: one.seconds)
                    _tell(case, outcome, asked)
    print(f"{asked.kind}, seed {asked.seed}: {sum(counts.values())} cases; slowest {slowest.name} {slowest.seconds:.1f} s")
    for kind in OUTCOMES:
        print(f"| {kind} | {counts[kind]} |")
    return int(sum(counts[kind] for kind in OUTCOMES if kind not in (RIGHT, ERROR)) > 0)


def _tell(case: Case, outcome: Outcome, asked: argparse.Namespace) -> None:
    wrong = outcome.kind not in (RIGHT, ERROR)
    if wrong or asked.verbose:
        print(f"{outcome.kind}: {outcome.name} ({outcome.seconds:.2f} s): {outcome.why}", flush=True)
    if wrong and asked.keep:
        folder = asked.keep / "".join(letter if letter.isalnum() else "-" for letter in outcome.name)[:100]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(case[1], folder)


if __name__ == "__main__":
    sys.exit(main())
