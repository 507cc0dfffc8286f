"""Run time: deploys alone, on numpy and ONNX Runtime; never imports onnx, onnx-graphsurgeon or torch."""
