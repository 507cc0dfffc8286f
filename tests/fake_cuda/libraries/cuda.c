/* libcuda.so.1, the driver: the one function that ONNX Runtime's CUDA provider is linked with.

   It cannot stand in for a driver of any version: whether a real one is recent enough shows on the machine alone. */
#include <string.h>

#include "recorder.h"

#define TENSOR_MAP_BYTES 128

/* Describes a tensor for kernels of Hopper; these compute nothing here. */
API int cuTensorMapEncodeTiled(void *map)
{
    memset(map, 0, TENSOR_MAP_BYTES);
    return 0;
}
