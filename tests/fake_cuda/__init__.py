"""A CUDA device that computes nothing, for ONNX Runtime's CUDA execution provider on machines without a GPU.

``libraries/`` stands in for CUDA's libraries: sessions open, allocate, copy, launch and capture as on a device, and everything
that they do is recorded. What this shows is what a program asks of a device: kernels and where they run, copies,
synchronisations, cuDNN's plans, graphs and the addresses they replay on. It says nothing about time, and no output is right.

    environment.py   the libraries and onnxruntime-gpu in a cache folder, and the variables of a process that uses them
    recorder.py      the record, from within such a process
"""
