"""The demo classifier's files."""

from pathlib import Path

DEMO_FOLDER = Path(__file__).parent / "demo"
MODEL = "demo.onnx"
PICTURE = "picture.png"
PREPROCESSING = "preprocessing.json"
TRUTH = "truth.json"
