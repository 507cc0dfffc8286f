"""The documents say what is true: their commands run, those that set up are those of the CI, their code runs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from quoted import PAGE, page

ROOT = Path(__file__).parents[1]
PATHS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
README = DOCUMENTS["README.md"]
BLOCKS = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in DOCUMENTS.items()}
COMMANDS = {name: re.findall(r"^    (kcompiler .*)$", text, re.MULTILINE) for name, text in DOCUMENTS.items()}
PICTURES = 8
SECONDS = 600
NET = """<ir_version: 9, opset_import: ["" : 18]>
net (float[batch, 3, height, width] image, float[1] age, bool training, float[3] notes) => (float[batch, 3] scores)
<float[4, 3, 3, 3] weights, float[3, 4] head>
{
    maps = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(image, weights)
    positive = Relu(maps)
    means = ReduceMean<keepdims=0>(positive, axes)
    logits = Gemm<transB=1>(means, head)
    aged = Mul(logits, age)
    noted = Add(aged, notes)
    scores = Where(training, logits, noted)
}"""
DETECTOR = """<ir_version: 9, opset_import: ["" : 18]>
detector (float[batch, 3, 64, 64] image) => (float[batch, 4] boxes, float[batch, 3] scores)
<float[4, 3, 3, 3] weights, float[3, 4] head>
{
    maps = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(image, weights)
    positive = Relu(maps)
    boxes = ReduceMean<keepdims=0>(positive, axes)
    scores = Gemm<transB=1>(boxes, head)
}"""
SEGMENTATION = """<ir_version: 9, opset_import: ["" : 18]>
segmentation (float[batch, 3, 160, 200] image) => (float[batch, 4, 160, 200] classes)
<float[4, 3, 3, 3] weights>
{
    maps = Conv<pads=[1, 1, 1, 1]>(image, weights)
    classes = Softmax<axis=1>(maps)
}"""


def test_setup_commands_install_what_ci_installs():
    commands = re.findall(r"python3 -m venv .venv && (.*)", README)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands:
        install, run = (part.strip().replace(".venv/bin/", "") for part in command.split("&&"))
        assert re.fullmatch(r'pip install -e "\.\[[a-z,]+\]"', install)
        assert f'"$venv/bin/{run.split()[0]}" {" ".join(run.split()[1:])}'.strip() in ci


def test_the_readme_can_be_read_at_once():
    assert len(README.splitlines()) <= 150
    assert not [name for name, text in DOCUMENTS.items() if "@@" in text], "figures are to be filled in"


def test_the_examples_are_quoted_as_they_are():
    assert PAGE.read_text(encoding="utf-8") == page(), "run 'python -m tests.quoted'"


def test_links_lead_somewhere():
    for name, text in DOCUMENTS.items():
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([\w-]+))?\)", text):
            path = (ROOT / name).parent / target if target else ROOT / name
            assert path.exists(), f"{name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{name}: #{anchor}"


def stand_ins(folder: Path) -> None:
    """The demo's files under the names that the documents use, and small models of the kinds that they speak of."""
    demo = ROOT / "models" / "demo"
    for name in ("model.onnx", "a.onnx", "b.onnx"):
        (folder / name).write_bytes((demo / "demo.onnx").read_bytes())
    (folder / "preprocessing.json").write_bytes((demo / "preprocessing.json").read_bytes())
    (folder / "scan.png").write_bytes((demo / "picture.png").read_bytes())
    rng = np.random.default_rng(0)
    (folder / "scans").mkdir()
    picture = np.asarray(Image.open(demo / "picture.png").convert("RGB")).astype(int)
    for number in range(PICTURES):
        noisy = np.clip(np.roll(picture, 16 * number, axis=1) + rng.integers(-8, 9, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "scans" / f"{number}.png")
    (folder / "models").symlink_to(ROOT / "models")
    np.save(folder / "vector.npy", np.arange(3, dtype=np.float32))
    for text in (NET, DETECTOR, SEGMENTATION):
        model = onnx.parser.parse_model(text)
        weights = {"weights": rng.standard_normal((4, 3, 3, 3)), "head": rng.standard_normal((3, 4))}
        del model.graph.initializer[:]
        for name, values in weights.items():
            if any(name in node.input for node in model.graph.node):
                model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        if any("axes" in node.input for node in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
        onnx.save(model, folder / f"{model.graph.name}.onnx")


def arguments(command: str) -> list[str]:
    """Of a command as documented, without the comment behind it; what it wrote before is replaced."""
    words = shlex.split(command, comments=True)[1:]
    if words[0] == "compile" and "net.onnx" in words:
        bound = [] if "--bind" in words else ["--bind", "age=57", "--bind", "training=false", "--bind", "notes=vector.npy"]
        shape = [] if "--input-shape" in words else ["--input-shape", "3,64,64"]
        words += [*bound, *shape]
    takes_force = words[0] in ("compile", "explain", "export") or "--picture" in words
    return [*words, "--force"] if takes_force and "--resume" not in words else words


def run_all(commands: list[str], folder: Path) -> None:
    for command in commands:
        words = arguments(command)
        if "--provider cuda" in command:
            continue  # tests/fake_cuda runs it
        if words[0] == "serve":
            run_server([word for word in words if word != "--open"], folder)
            continue
        code = "from kcompiler.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run_server(words: list[str], folder: Path) -> None:
    """Runs the command until it tells its address, and ends it as Ctrl-C does."""
    code = "from kcompiler.cli import main; main()"
    command = [sys.executable, "-u", "-P", "-c", code, *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as served:
        told = served.stdout.readline()
        served.send_signal(signal.SIGINT)
        rest, _ = served.communicate(timeout=SECONDS)
    assert served.returncode == 0, f"{words}\n{told}{rest}"


def test_commands_of_the_readme_run(tmp_path):
    assert len(COMMANDS["README.md"]) > 5
    stand_ins(tmp_path)
    run_all(COMMANDS["README.md"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, commands in COMMANDS.items() if name != "README.md" and commands])
def test_commands_of_the_documents_run(name, tmp_path):
    pytest.importorskip("captum")
    stand_ins(tmp_path)
    export = [sys.executable, "-m", "models.export", "resnet18", "--size", "64", "-o", tmp_path / "resnet18.onnx"]
    subprocess.run(export, cwd=ROOT, check=True, capture_output=True)
    run_all(COMMANDS[name], tmp_path)


@pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if blocks])
def test_python_of_the_documents_runs(name, tmp_path):
    """The blocks of a document, one after the other, on the demo's files under the names that it uses."""
    stand_ins(tmp_path)
    code = "\n".join(BLOCKS[name])
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
