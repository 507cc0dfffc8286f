"""Coverage-guided fuzzing of what reads models before any process of its own: ``python -m tests.fuzz.atheris_models [-runs=N]``.

Needs atheris (``pip install atheris``), which no other test does. What it mutates are the bytes of tiny networks; what it calls
are the loaders that are Python's own: protobuf, bounds, external data, the choice of the image and of the output.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import atheris

with atheris.instrument_imports(include=["kcompiler"]):
    from kcompiler.passes.source import bounds, external, load, outputs, source_inputs

from kcompiler.runtime.errors import KCompilerError
from tests.fuzz import models

SCRATCH = Path(tempfile.mkdtemp(prefix="kcompiler-atheris-"))


def attempt(data: bytes) -> None:
    """Reads ``data`` as a model; only our own errors may come of it."""
    path = SCRATCH / models.MODEL
    path.write_bytes(data)
    with contextlib.suppress(KCompilerError):
        model = load.read(path)
        bounds.check_bounds(path, model)
        external.external_files(path, model)
        inputs = source_inputs.find_inputs(path, model.graph, {}, sized=False)
        source = load.Source(path, model, inputs.image.name, "NCHW", (1, 1, 1), "")
        outputs.select_output(source, None)


def main() -> None:
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    for name in models.networks.NETWORKS:
        (corpus / name).write_bytes(models.valid(name, 1, 18))
    atheris.Setup([*sys.argv, str(corpus)], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
