"""A process of its own for what a stranger's model may break: ONNX's checker, ONNX Runtime's folding, runs of the source."""
