"""Deployment: a bundle and a grid of positions as a single ONNX model, image in, heat map out."""
