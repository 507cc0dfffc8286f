"""Lowering: each incremental node becomes standard ONNX operators on regions. One file per family, in one table."""
