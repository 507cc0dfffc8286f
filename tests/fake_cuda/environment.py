"""The environment of a process that uses the fake device: the stand-ins for CUDA's libraries, and onnxruntime-gpu.

Both are kept in a cache folder, ``~/.cache/kcompiler-fake-cuda`` unless XDG_CACHE_HOME says otherwise: the libraries by a digest
of their sources, onnxruntime-gpu by its version and Python's. It is put before the installed onnxruntime in the path of modules,
so everything else is that of the running interpreter. CUDA's own libraries, where they are installed, are not found: ONNX Runtime
looks for those of Python packages beside itself, and the stand-ins come first in the path of libraries.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "libraries"
RECORDER = "libfake_cuda.so"
CUDART = "libcudart.so.13"
LIBRARIES = {
    CUDART: ("cudart_device.c", "cudart_kernels.c", "cudart_memory.c", "cudart_streams.c"),
    "libcuda.so.1": ("cuda.c",),
    "libcublas.so.13": ("cublas.c",),
    "libcublasLt.so.13": ("cublaslt.c",),
    "libcudnn.so.9": ("cudnn_functions.c", "cudnn_graph.c"),
    "libcufft.so.12": ("cufft.c",),
    "libcurand.so.10": ("curand.c",),
}
"""The sources of each library, by the name that the CUDA provider loads it by. The others are linked with the first."""
VERSIONED = {CUDART, "libcublas.so.13", "libcublasLt.so.13"}
"""Libraries whose symbols carry the library's name as their version."""
FLAGS = ("-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-Wall", "-Werror", "-Wl,-rpath,$ORIGIN")
ONNXRUNTIME = "onnxruntime-gpu==1.31.1"
"""The provider that the stand-ins have the symbols of."""


class Unavailable(Exception):
    """The fake device cannot be set up on this machine; the message says why."""


def environment() -> dict[str, str]:
    """The variables of a process in which ONNX Runtime finds the fake device. The first call takes minutes and downloads 250 MB.

    Raises:
        Unavailable: there is no C compiler, or pip cannot install onnxruntime-gpu.
    """
    found = {**os.environ, "LD_LIBRARY_PATH": str(libraries()), "PYTHONPATH": str(onnxruntime_gpu())}
    for name in ("LD_LIBRARY_PATH", "PYTHONPATH"):
        if os.environ.get(name):
            found[name] += os.pathsep + os.environ[name]
    return found


def libraries() -> Path:
    """The folder of the libraries, built unless the cache has them."""
    if sys.platform != "linux":
        raise Unavailable(f"the fake CUDA device is for Linux, not {sys.platform}")
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    return _cached(f"libraries-{digest.hexdigest()[:16]}", _build)


def onnxruntime_gpu() -> Path:
    """The folder that onnxruntime-gpu alone is installed in, for this Python."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return _cached(f"{ONNXRUNTIME.replace('==', '-')}-{python}", _install)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name`` of the cache, filled by ``make`` if it is not there. Safe among processes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kcompiler-fake-cuda"
    folder = cache / name
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / name
            made.mkdir()
            make(made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster
                    raise
    return folder


def _build(folder: Path) -> None:
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise Unavailable(f"the C compiler {compiler} is not found; install one, or set CC")
    for name, sources in {RECORDER: ("recorder.c",), **LIBRARIES}.items():
        command = [compiler, *FLAGS, "-o", str(folder / name), f"-Wl,-soname,{name}"]
        command += [str(SOURCES / source) for source in sources]
        if name in VERSIONED:
            versions = folder / f"{name}.map"
            versions.write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
            command.append(f"-Wl,--version-script={versions}")
        others = [f"-l:{other}" for other in (RECORDER, CUDART) if (folder / other).exists()]
        _run([*command, f"-L{folder}", *others, "-ldl", "-lpthread"], f"{compiler} cannot build {name}")


def _install(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), ONNXRUNTIME]
    _run(command, f"pip cannot install {ONNXRUNTIME}")


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Unavailable(f"{failure}: {' / '.join(done.stdout.strip().splitlines()[-3:])}")
