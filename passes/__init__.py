"""The compiler's passes, from an ONNX file to the two graphs of a bundle, in the order load, normalise, plan, rewrite, store."""
