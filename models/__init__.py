"""Reference networks, their export to ONNX, and the demo classifier; torch lives only on this floor."""
