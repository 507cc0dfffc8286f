"""docs/examples.md: the examples' text, quoted. ``python -m tests.quoted`` writes it; a test compares it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "examples.md"
HEADERS = """With the three headers beside it: [runtime.h](../examples/cpp/runtime.h) loads the library,
[checksums.h](../examples/cpp/checksums.h) verifies files, [arrays.h](../examples/cpp/arrays.h) reads them."""
EXAMPLES = {
    "Python": ("python/heatmap.py", "ONNX Runtime and NumPy alone."),
    "Node.js": ("node/heatmap.mjs", "onnxruntime-node, worker threads."),
    "C++": ("cpp/heatmap.cpp", HEADERS),
    "Browser": ("browser/heatmap.mjs", "onnxruntime-web; the page around it is in [examples/browser/](../examples/browser/)."),
    "Two graphs, in Python": ("python/two_graphs.py", "A driver of a bundle's own two models ([format.md](format.md))."),
}
LANGUAGES = {".py": "text", ".mjs": "js", ".cpp": "cpp"}
"""By file name. Blocks marked as Python are run in the order of the page by another test, where these are whole programs."""


def page() -> str:
    """The page."""
    head = "Programs to copy, as they stand in `examples/`, where tests run them and compare their maps with the driver's."
    parts = ["# Examples", "", head, ""]
    for heading, (name, remark) in EXAMPLES.items():
        text = (ROOT / "examples" / name).read_text(encoding="utf-8").rstrip()
        parts += [f"## {heading}", "", f"`examples/{name}`. {remark}", "", f"```{LANGUAGES[Path(name).suffix]}", text, "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
