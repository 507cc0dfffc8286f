"""The file as given: what ONNX Runtime makes of it, its image, its other inputs, what is explained."""
