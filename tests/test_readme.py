"""The README says what is true: its commands are those of the CI, its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_setup_commands_install_what_ci_installs():
    commands = re.findall(r"python3 -m venv .venv && (.*)", README)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands:
        install, run = (part.strip().replace(".venv/bin/", "") for part in command.split("&&"))
        assert re.fullmatch(r'pip install -e "\.\[[a-z,]+\]"', install)
        assert f'"$venv/bin/{run.split()[0]}" {" ".join(run.split()[1:])}'.strip() in ci


def test_there_is_python_to_run():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_of_the_readme_runs(number, tmp_path):
    """Each block runs after those before it, on the demo's files under the names that the README uses."""
    demo = ROOT / "models" / "demo"
    for source, name in (("demo.onnx", "model.onnx"), ("preprocessing.json", "preprocessing.json"), ("picture.png", "scan.png")):
        (tmp_path / name).write_bytes((demo / source).read_bytes())
    code = "\n".join(BLOCKS[: number + 1])
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
