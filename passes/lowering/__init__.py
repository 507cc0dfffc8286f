"""How an incremental node becomes standard ONNX operators on regions: one file a lowering, entered in one table."""
