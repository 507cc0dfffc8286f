"""Writes ``tests/kernels/``: the kernels that ONNX Runtime's execution providers register, read from installed packages.

    python tests/bench/kernels.py cpu                                   # of the installed onnxruntime
    python tests/bench/kernels.py wasm                                  # of onnxruntime in the version of onnxruntime-web
    python tests/bench/kernels.py cuda                                  # of onnxruntime-gpu, where its CUDA provider starts
    python tests/bench/kernels.py webgpu --plugin PROVIDER.so           # of onnxruntime-ep-webgpu, where it finds a device

A file has a line per operator: ranges of opset versions, and for each type constraint the number of a set of element types.
Left out are operators of other domains than ONNX's and com.microsoft, versions that no opset from 18 on has, and types that are
not tensors of numbers, truth values or text. ONNX Runtime makes docs/OperatorKernels.md of the same registries. They need no
device, only a provider that starts: the files were read with a software Vulkan device, and with libraries in place of CUDA's
whose functions do nothing. What an execution provider limits beside its kernels ("limits") is kept as it stands in the file.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

FOLDER = Path(__file__).parents[1] / "kernels"
PROVIDERS = {"cpu": "CPUExecutionProvider", "wasm": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider",
             "webgpu": "WebGpuExecutionProvider"}  # fmt: skip
PACKAGES = {"cpu": "onnxruntime", "wasm": "onnxruntime", "cuda": "onnxruntime-gpu", "webgpu": "onnxruntime-ep-webgpu"}
BEHIND = {"wasm": ", with whose kernels onnxruntime-web of that version is built", "webgpu": " in onnxruntime {onnxruntime}"}
"""What else the source of a file says."""
OLDEST, OPEN = 18, 2**31 - 1
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
TYPES = {"float", "double", "float16", "bfloat16", "bool", "string", *INTEGERS}


Types = Mapping[str, frozenset[str]]


def registered(stack: str, plugin: Path | None) -> Iterable[state.KernelDef]:
    """Definitions of the stack's kernels."""
    if stack != "webgpu":
        return [one for one in state.get_all_opkernel_def() if one.provider == PROVIDERS[stack]]
    onnxruntime.register_execution_provider_library("webgpu", str(plugin))
    return state.get_registered_ep_kernel_defs(PROVIDERS[stack])


def merged(kernels: list[Types]) -> list[Types]:
    """Kernels that differ in the types of one constraint alone, as one."""
    for at, one in enumerate(kernels):
        for other in kernels[at + 1 :]:
            differing = [name for name in one if one[name] != other.get(name)]
            if one.keys() == other.keys() and len(differing) <= 1:
                rest = [kernel for kernel in kernels if kernel is not one and kernel is not other]
                return merged([*rest, {name: one[name] | other[name] for name in one}])
    return kernels


def by_operator(definitions: Iterable[state.KernelDef]) -> dict[str, list[tuple[int, int | None, Types]]]:
    ranges: dict[tuple[str, int, int], list[Types]] = defaultdict(list)
    for one in definitions:
        first, last = one.version_range
        if one.domain == "com.microsoft" or (one.domain == "" and last >= OLDEST):
            kinds = {
                name: frozenset(kind.removeprefix("tensor(").removesuffix(")") for kind in allowed) & TYPES
                for name, allowed in one.type_constraints.items()
            }
            ranges[f"{one.domain}:{one.op_name}".lstrip(":"), first, last].append(kinds)
    operators: dict[str, list[tuple[int, int | None, Types]]] = defaultdict(list)
    for (operator, first, last), kernels in sorted(ranges.items()):
        operators[operator] += [(first, None if last == OPEN else last, kinds) for kinds in merged(kernels)]
    return operators


def write(path: Path, source: str, limits: object, operators: Mapping[str, list[tuple[int, int | None, Types]]]) -> None:
    numbers: dict[frozenset[str], int] = {}
    lines = []
    for operator, kernels in operators.items():
        rows = [
            [first, last, {name: numbers.setdefault(kinds, len(numbers)) for name, kinds in sorted(types.items())}]
            for first, last, types in kernels
        ]
        lines.append(f"  {json.dumps(operator)}: {json.dumps(rows)}")
    sets = ",\n".join(f"  {json.dumps(sorted(kinds))}" for kinds in numbers)
    head = f'{{\n "source": {json.dumps(source)},\n "limits": {json.dumps(limits)},\n'
    path.write_text(f'{head} "types": [\n{sets}\n ],\n "kernels": {{\n' + ",\n".join(lines) + "\n }\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack", choices=list(PROVIDERS))
    parser.add_argument("--plugin", type=Path, help="libonnxruntime_providers_webgpu.so of the installed onnxruntime-ep-webgpu")
    options = parser.parse_args()
    path = FOLDER / f"{options.stack}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"limits": {}}
    package = PACKAGES[options.stack]
    operators = by_operator(registered(options.stack, options.plugin))
    behind = BEHIND.get(options.stack, "").format(onnxruntime=onnxruntime.__version__)
    write(path, f"{package} {version(package)}{behind}", kept["limits"], operators)
    print(f"{path}: {len(operators)} operators")


if __name__ == "__main__":
    main()
