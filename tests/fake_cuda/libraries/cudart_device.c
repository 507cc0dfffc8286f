/* libcudart.so.13, devices and errors: one device with the properties of an H200.

   It cannot tell how a device with less memory, or another number of multiprocessors, would be used.
   FAKE_CUDA_COMPUTE_CAPABILITY (90 by default) changes the compute capability alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "cudart.h"

#define VERSION 13000
#define MULTIPROCESSORS 132
#define WARP_THREADS 32
#define REGISTERS 65536
#define THREADS_PER_MULTIPROCESSOR 2048
#define BLOCKS_PER_MULTIPROCESSOR 32
#define SHARED_BYTES 49152
#define SHARED_BYTES_PER_MULTIPROCESSOR 233472
#define L2_BYTES 62914560
#define CONSTANT_BYTES 65536
#define MOST_GRID_X 2147483647
#define MOST_GRID 65535
#define MOST_BLOCK_Z 64

/* cudaDeviceProp, the fields that ONNX Runtime may read; the others are zero. */
struct properties {
    char name[256];
    char identifiers[32];
    size_t total_memory;
    size_t shared_bytes;
    int registers;
    int warp;
    size_t pitch;
    int threads;
    int block[3];
    int grid[3];
    size_t constant_bytes;
    int major, minor;
    size_t texture_alignment[2];
    int multiprocessors;
    int others[52];
    int l2_bytes;
    int persisting_l2_bytes;
    int threads_per_multiprocessor;
    int cache_flags[3];
    size_t shared_bytes_per_multiprocessor;
    int registers_per_multiprocessor;
    int flags[9];
    size_t most_shared_bytes;
    int further[2];
    int blocks_per_multiprocessor;
    char rest[316];
};
_Static_assert(offsetof(struct properties, total_memory) == 288, "as in driver_types.h");
_Static_assert(offsetof(struct properties, major) == 360, "as in driver_types.h");
_Static_assert(offsetof(struct properties, multiprocessors) == 384, "as in driver_types.h");
_Static_assert(offsetof(struct properties, l2_bytes) == 596, "as in driver_types.h");
_Static_assert(offsetof(struct properties, shared_bytes_per_multiprocessor) == 624, "as in driver_types.h");
_Static_assert(offsetof(struct properties, most_shared_bytes) == 672, "as in driver_types.h");
_Static_assert(offsetof(struct properties, blocks_per_multiprocessor) == 688, "as in driver_types.h");
_Static_assert(sizeof(struct properties) == 1008, "as in driver_types.h");

static __thread int last_error;

int fail(int error)
{
    return last_error = error;
}

API int cudaGetLastError(void)
{
    int error = last_error;
    last_error = SUCCESS;
    return error;
}

API int cudaPeekAtLastError(void)
{
    return last_error;
}

API const char *cudaGetErrorName(int error)
{
    switch (error) {
    case SUCCESS: return "cudaSuccess";
    case INVALID_VALUE: return "cudaErrorInvalidValue";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case INVALID_CONFIGURATION: return "cudaErrorInvalidConfiguration";
    case NO_KERNEL_IMAGE: return "cudaErrorNoKernelImageForDevice";
    case CAPTURE_UNSUPPORTED: return "cudaErrorStreamCaptureUnsupported";
    case CAPTURE_INVALIDATED: return "cudaErrorStreamCaptureInvalidated";
    default: return fake_text("cudaError %d", error);
    }
}

API const char *cudaGetErrorString(int error)
{
    switch (error) {
    case NO_KERNEL_IMAGE: return "no kernel image is available for execution on the device";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    default: return cudaGetErrorName(error);
    }
}

int compute_capability(void)
{
    const char *text = getenv("FAKE_CUDA_COMPUTE_CAPABILITY");
    return text ? atoi(text) : 90;
}

API int cudaGetDeviceCount(int *count)
{
    *count = 1;
    return SUCCESS;
}

API int cudaGetDevice(int *device)
{
    *device = 0;
    return SUCCESS;
}

API int cudaSetDevice(int device)
{
    return device ? fail(INVALID_DEVICE) : SUCCESS;
}

API int cudaDriverGetVersion(int *version)
{
    *version = VERSION;
    return SUCCESS;
}

API int cudaRuntimeGetVersion(int *version)
{
    *version = VERSION;
    return SUCCESS;
}

API int cudaGetDeviceProperties(struct properties *properties, int device)
{
    if (device)
        return fail(INVALID_DEVICE);
    *properties = (struct properties){
        .name = "fake CUDA device",
        .total_memory = DEVICE_BYTES,
        .shared_bytes = SHARED_BYTES,
        .registers = REGISTERS,
        .warp = WARP_THREADS,
        .pitch = INT32_MAX,
        .threads = MOST_THREADS,
        .block = {MOST_THREADS, MOST_THREADS, MOST_BLOCK_Z},
        .grid = {MOST_GRID_X, MOST_GRID, MOST_GRID},
        .constant_bytes = CONSTANT_BYTES,
        .major = compute_capability() / 10,
        .minor = compute_capability() % 10,
        .texture_alignment = {512, 32},
        .multiprocessors = MULTIPROCESSORS,
        .l2_bytes = L2_BYTES,
        .threads_per_multiprocessor = THREADS_PER_MULTIPROCESSOR,
        .shared_bytes_per_multiprocessor = SHARED_BYTES_PER_MULTIPROCESSOR,
        .registers_per_multiprocessor = REGISTERS,
        .most_shared_bytes = MOST_SHARED_BYTES,
        .blocks_per_multiprocessor = BLOCKS_PER_MULTIPROCESSOR,
    };
    return SUCCESS;
}

/* cudaDeviceAttr */
static int attribute_value(int attribute)
{
    switch (attribute) {
    case 1: return MOST_THREADS;
    case 2: return MOST_THREADS; /* x of a block */
    case 3: return MOST_THREADS; /* y of a block */
    case 4: return MOST_BLOCK_Z;
    case 5: return MOST_GRID_X;
    case 6: return MOST_GRID; /* y of a grid */
    case 7: return MOST_GRID; /* z of a grid */
    case 8: return SHARED_BYTES;
    case 9: return CONSTANT_BYTES;
    case 10: return WARP_THREADS;
    case 12: return REGISTERS; /* of a block */
    case 16: return MULTIPROCESSORS;
    case 31: return 1; /* concurrent kernels */
    case 38: return L2_BYTES;
    case 39: return THREADS_PER_MULTIPROCESSOR;
    case 41: return 1; /* unified addressing */
    case 75: return compute_capability() / 10;
    case 76: return compute_capability() % 10;
    case 81: return SHARED_BYTES_PER_MULTIPROCESSOR;
    case 82: return REGISTERS; /* of a multiprocessor */
    case 95: return 1;         /* cooperative launches */
    case 97: return MOST_SHARED_BYTES;
    case 106: return BLOCKS_PER_MULTIPROCESSOR;
    case 115: return 1; /* memory pools */
    default: return 0;
    }
}

API int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute_value(attribute);
    return device ? fail(INVALID_DEVICE) : SUCCESS;
}

/* ONNX Runtime asks for functions of the driver that cudart's users are not linked with. */
API int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, uint64_t flags, int *found)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    *function = driver ? dlsym(driver, name) : NULL;
    if (found)
        *found = *function ? 0 : 1;
    return *function ? SUCCESS : fail(SYMBOL_NOT_FOUND);
}
