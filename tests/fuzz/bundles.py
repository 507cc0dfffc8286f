"""Hostile bundles: a valid one with numbers of its manifest or fields of its models changed, its digests made to fit or not."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))  # networks.py is no part of a package

import networks

import kcompiler
from kcompiler.runtime.bundle.manifest import MANIFEST, OWN_NAMES
from kcompiler.runtime.bundle.seal import OPEN, sealed
from kcompiler.runtime.measuring.check import check, sample_positions
from tests.fuzz.cases import Case
from tests.fuzz.changes import Rng, changed

SIZE, PATCH = (17, 24), 4
Files = dict[str, bytes]
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
    1 << 64,
    -(1 << 63),
    0.5,
    1e-300,
    1e300,
    1e999,
)
TEXTS = (
    "",
    "exact",
    "cpu",
    "cuda",
    "positions",
    "fill",
    "full.onnx",
    "../../etc/passwd",
    "\x1b[2J",
    "a\nb",
    "é" * 300,
    "NHWC",
    "1",
)
OTHERS: tuple[object, ...] = (None, True, False, [], {}, [[]], "1" * 50, [1] * 5000)
CUDA = 4
"""One in so many cases runs the variants for CUDA."""


@cache
def originals() -> dict[str, Files]:
    """Files of valid bundles, by the network."""
    found = {}
    with TemporaryDirectory() as folder:
        for name in ("residual", "chain", "concat"):
            builder = networks.Builder()
            onnx.save(builder.model(networks.NETWORKS[name](builder), *SIZE, batch="N"), Path(folder) / "model.onnx")
            recipe = kcompiler.Preprocessing(
                size=SIZE, resize="stretch", scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3, channel_order="RGB"
            )
            path = Path(folder) / "model.onnx"
            bundle = kcompiler.compile(path, patch=[PATCH, 3], device="cuda", preprocessing=recipe, thresholds=(0.6,))
            found[name] = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    return found


def places(content: object) -> Iterator[tuple[Any, Any]]:
    """All (container, key) within the JSON ``content``."""
    if isinstance(content, dict | list):
        for key, inner in list(content.items() if isinstance(content, dict) else enumerate(content)):
            yield content, key
            yield from places(inner)


def one_field(rng: Rng, content: dict[str, Any]) -> str:
    """Changes, removes, or copies a field of a manifest; in the report, of which there is most, seldom."""
    report = content.pop("report")
    found = [(content, key) for key in content] if rng.random() < 0.3 else list(places(content))
    content["report"] = report
    if rng.random() < 0.1:
        found = list(places(report))
    where, key = found[int(rng.integers(len(found)))]
    old = where[key]
    kind = rng.random()
    if kind < 0.12:
        del where[key]
    elif kind < 0.24:
        where[key] = OTHERS[int(rng.integers(len(OTHERS)))]
    elif kind < 0.36 and isinstance(old, list) and old:
        where[key] = old * int(rng.choice([0, 2, 500])) if rng.random() < 0.5 else old[:-1]
    elif isinstance(old, str):
        where[key] = TEXTS[int(rng.integers(len(TEXTS)))]
    elif isinstance(old, int | float) and rng.random() < 0.5:
        where[key] = type(old)(old + rng.choice([-1, 1, 2])) if not isinstance(old, bool) else not old
    else:
        where[key] = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return f"{key} from {str(old)[:20]!r} to {str(where.get(key) if isinstance(where, dict) else '')[:20]!r}"


def one_node(rng: Rng, model: onnx.ModelProto) -> str:
    """Changes a node, a weight, a shape or a name of a model."""
    graph = model.graph
    node = graph.node[int(rng.integers(len(graph.node)))]
    kind = int(rng.integers(7))
    if kind == 0:
        node.op_type = str(
            rng.choice(["Add", "Mul", "Relu", "Gather", "Concat", "Identity", "Reshape", "Loop", "Nothing", "Expand"])
        )
    elif kind == 1 and node.input:
        node.input[int(rng.integers(len(node.input)))] = str(rng.choice([*(one.name for one in graph.initializer), "", "image"]))
    elif kind == 2 and node.attribute:
        attribute = node.attribute[int(rng.integers(len(node.attribute)))]
        attribute.i = int(rng.choice([0, 1, -1, 7, 1 << 31]))
        attribute.ints[:] = [int(one) for one in rng.choice([0, 1, 2, -1, 100, 1 << 31], len(attribute.ints))]
    elif kind == 3 and graph.initializer:
        weight = graph.initializer[int(rng.integers(len(graph.initializer)))]
        values = np.frombuffer(weight.raw_data, np.uint8).copy()
        if len(values):
            values[int(rng.integers(len(values)))] = int(rng.integers(256))
            weight.raw_data = values.tobytes()
        for entry in weight.external_data:
            if rng.random() < 0.5:
                entry.value = str(rng.choice(["0", "4096", "-1", str(1 << 62), "../x", "/etc/passwd", "weights.bin"]))
    elif kind == 4:
        value = [*graph.input, *graph.output][int(rng.integers(len(graph.input) + len(graph.output)))]
        if rng.random() < 0.5:
            value.name = str(rng.choice(["x", "", *OWN_NAMES]))
        else:
            value.type.tensor_type.elem_type = int(rng.choice([1, 2, 7, 8, 10, 11]))
    elif kind == 5:
        del graph.node[int(rng.integers(len(graph.node)))]
    else:
        graph.node.insert(int(rng.integers(len(graph.node))), node)
    return f"{node.op_type} {node.name} ({kind})"


def resealed(files: Files, content: Mapping[str, Any]) -> bytes:
    """The manifest of ``content``, with the digests of what the files are now."""
    listed = content.get("files")
    for name, record in listed.items() if isinstance(listed, dict) else ():
        if name in files and isinstance(record, dict):
            record.update(bytes=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
    return sealed(json.dumps({**content, "manifest_sha256": OPEN}))


def by_manifest(rng: Rng, files: Files) -> str:
    content = json.loads(files[MANIFEST])
    how = "; ".join(one_field(rng, content) for _ in range(int(rng.integers(1, 3))))
    files[MANIFEST] = resealed({}, content)
    return how


def by_model(rng: Rng, files: Files) -> str:
    names = sorted(name for name in files if name.endswith(".onnx"))
    name = names[int(rng.integers(len(names)))]
    model = onnx.load_from_string(files[name])
    how = one_node(rng, model)
    files[name] = model.SerializeToString()
    files[MANIFEST] = resealed(files, json.loads(files[MANIFEST]))
    return f"{name}: {how}"


def by_bytes(rng: Rng, files: Files) -> str:
    """Changes bytes of a file; in half of the cases the manifest's digests are those of the changed files."""
    name = sorted(files)[int(rng.integers(len(files)))]
    how, files[name] = changed(rng, files[name])
    if name != MANIFEST and rng.random() < 0.5:
        files[MANIFEST] = resealed(files, json.loads(files[MANIFEST]))
    return f"{name}: {how}"


def by_swap(rng: Rng, files: Files) -> str:
    """Puts one file in the place of another."""
    one, other = (sorted(files)[int(number)] for number in rng.integers(0, len(files), 2))
    files[one] = files[other]
    if MANIFEST not in (one, other):
        files[MANIFEST] = resealed(files, json.loads(files[MANIFEST]))
    return f"{one} is {other}"


WAYS: tuple[Callable[[Rng, Files], str], ...] = (by_manifest, by_manifest, by_manifest, by_model, by_model, by_bytes, by_swap)


def cases(seed: int) -> Iterator[Case]:
    """The valid bundles, and then changes to them without end."""
    for name, files in originals().items():
        yield f"{name} as it is", files
    rng, number = np.random.default_rng(seed), 0
    while True:
        name = list(originals())[int(rng.integers(len(originals())))]
        files = dict(originals()[name])
        how = WAYS[int(rng.integers(len(WAYS)))](rng, files)
        yield f"{name} {number} {how}", files
        number += 1


def attempt(folder: Path) -> None:
    """Loads, checks and explains, as ``kcompiler check`` and ``explain`` do."""
    on_cuda = sum((folder / MANIFEST).read_bytes()[:4000]) % CUDA == 0 if (folder / MANIFEST).is_file() else False
    with kcompiler.load(folder, threads=2, providers=["cpu"], compiled_for="cuda" if on_cuda else None) as explainer:
        manifest = explainer.manifest
        check(explainer, sample_positions(manifest.shape[1:], manifest.patch, 20, 0))
        image = np.zeros(manifest.shape, np.float32)
        image = image if manifest.layout == "NCHW" else np.moveaxis(image, 0, -1)
        heat_map = explainer.explain(image, stride=3)
        assert heat_map.complete
        assert heat_map.scores.shape == (len(heat_map.ys), len(heat_map.xs))
