"""A map model that takes pictures: preprocessing in front of an export, by an ONNX graph of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import kcompiler

NODES = """
    pixels = Cast<to=1>(picture)
    first = Transpose<perm=[2, 0, 1]>(pixels)
    batch = Unsqueeze(first, pre_axis)
    resized = Resize<mode="linear", antialias=1, coordinate_transformation_mode="half_pixel">(batch, , , pre_sizes)
    scaled = Mul(resized, pre_scale)
    centred = Sub(scaled, pre_mean)
    image = Div(centred, pre_std)
    colour = Mul(fill, pre_scale)
    moved = Sub(colour, pre_mean_1d)
    pre_fill = Div(moved, pre_std_1d)
    shape = Shape(picture)
    sides = Gather(shape, pre_sides)
    corner = Cast<to=1>(sides)
    seen = Concat<axis=0>(pre_origin, corner)
"""


def export_for_pictures(bundle: Path, folder: Path, stride: int) -> None:
    """Exports ``bundle``, whose preprocessing stretches RGB pictures, as a map model of pictures, with its card."""
    kcompiler.export(bundle, folder, stride=stride)
    _put_preprocessing_in_front(folder)


def _put_preprocessing_in_front(folder: Path) -> None:
    path, card_path = folder / "map.onnx", folder / "card.json"
    card = json.loads(card_path.read_text(encoding="utf-8"))
    model = onnx.load(path, load_external_data=False)
    front = onnx.parser.parse_graph(f"front (uint8[H, W, 3] picture, float[3] fill) => (float image) {{ {NODES} }}")
    for node in model.graph.node:
        node.input[:] = ["pre_fill" if name == "fill" else name for name in node.input]
    kept = [value for value in model.graph.input if value.name != "image"]
    nodes = [*front.node, *model.graph.node]
    del model.graph.input[:], model.graph.node[:]
    model.graph.input.extend([front.input[0], *kept])
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [4]))
    recipe, (height, width) = card["preprocessing"], card["preprocessing"]["size"]
    mean, std = (np.array(recipe[name], np.float32) for name in ("mean", "std"))
    constants = {
        "pre_axis": np.array([0]), "pre_sizes": np.array([1, 3, height, width]), "pre_sides": np.array([0, 1]),
        "pre_scale": np.array(recipe["scale"], np.float32), "pre_origin": np.zeros(2, np.float32),
        "pre_mean": mean[:, None, None], "pre_std": std[:, None, None], "pre_mean_1d": mean, "pre_std_1d": std,
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)
    content = path.read_bytes()
    card["files"]["map.onnx"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card_path.write_text(json.dumps(card), encoding="utf-8")


def copy_with(folder: Path, to: Path, name: str, content: bytes | None) -> Path:
    """A copy of an export in which the file ``name`` has another content, or is missing."""
    shutil.copytree(folder, to)
    if content is None:
        (to / name).unlink()
    else:
        (to / name).write_bytes(content)
    return to
