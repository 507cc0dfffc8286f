"""The source file: loading and checks, the image input, other inputs, and the tensor to explain."""
