/* libcurand.so.10: ONNX Runtime's CUDA provider is linked with it and calls nothing in it. */
#include "recorder.h"

SUCCEEDS(curandGetVersion)
