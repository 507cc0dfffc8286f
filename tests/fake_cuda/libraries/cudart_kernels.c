/* libcudart.so.13, kernels: a launch is checked, recorded, and computes nothing.

   Outputs of kernels hold what was in their memory before: zeros, mostly. It cannot tell whether a kernel is given the right
   arguments. A launch is refused for a grid, block or shared memory that no device takes, and where the provider was built
   without code for the device's compute capability. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cudart.h"

/* What nvcc puts into a binary: a wrapper that points to a sequence of images for compute capabilities. */
struct fat_binary_wrapper {
    uint32_t magic, version;
    const struct fat_binary *binary;
};

struct fat_binary {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes; /* of all images, after the header */
};

struct image {
    uint16_t kind; /* PTX or machine code */
    uint16_t version;
    uint32_t header_bytes;
    uint64_t bytes; /* after the header */
    uint32_t unused[3];
    uint32_t capability; /* such as 90 */
};

#define FAT_BINARY_MAGIC 0xBA55ED50u
#define PTX 1

struct kernel {
    const void *host_function; /* the key: what launches name */
    const char *name;
    bool runs; /* there is code for this device */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kernel *kernels; /* hash table, open addressing; its capacity is a power of two */
static size_t count;
static size_t capacity;

/* PTX is compiled for any later device, machine code runs on later devices of the same major number. */
static bool runs_here(const struct image *image)
{
    int device = compute_capability(), built = image->capability;
    return built <= device && (image->kind == PTX || built / 10 == device / 10);
}

static bool has_code(const struct fat_binary *binary)
{
    if (binary->magic != FAT_BINARY_MAGIC)
        return true;
    const char *at = (const char *)binary + binary->header_bytes, *end = at + binary->bytes;
    while (at < end) {
        const struct image *image = (const struct image *)at;
        if (runs_here(image))
            return true;
        at += image->header_bytes + image->bytes;
    }
    return false;
}

static struct kernel *slot(struct kernel *table, size_t size, const void *function)
{
    size_t i = ((uintptr_t)function * 0x9E3779B97F4A7C15ull >> 20) & (size - 1);
    while (table[i].host_function && table[i].host_function != function)
        i = (i + 1) & (size - 1);
    return &table[i];
}

static void grow(void)
{
    size_t size = capacity ? 2 * capacity : 1 << 16;
    struct kernel *table = calloc(size, sizeof *table);
    for (size_t i = 0; i < capacity; i++) {
        if (kernels[i].host_function)
            *slot(table, size, kernels[i].host_function) = kernels[i];
    }
    free(kernels);
    kernels = table;
    capacity = size;
}

static void add_kernel(struct kernel kernel)
{
    pthread_mutex_lock(&lock);
    if (2 * (count + 1) > capacity)
        grow();
    struct kernel *place = slot(kernels, capacity, kernel.host_function);
    count += !place->host_function;
    *place = kernel;
    pthread_mutex_unlock(&lock);
}

static struct kernel kernel_at(const void *function)
{
    struct kernel kernel = {0};
    pthread_mutex_lock(&lock);
    if (capacity)
        kernel = *slot(kernels, capacity, function);
    pthread_mutex_unlock(&lock);
    return kernel.host_function ? kernel : (struct kernel){function, "unregistered kernel", true};
}

/* Registration: called as the provider's library is loaded. A handle points to the fat binary. */

API const struct fat_binary **__cudaRegisterFatBinary(const struct fat_binary_wrapper *wrapper)
{
    const struct fat_binary **handle = malloc(sizeof *handle);
    *handle = wrapper->binary;
    return handle;
}

API void __cudaRegisterFunction(const struct fat_binary **handle, const void *host_function, char *device_function,
                                const char *name)
{
    add_kernel((struct kernel){host_function, name, has_code(*handle)});
}

SUCCEEDS(__cudaRegisterFatBinaryEnd)
SUCCEEDS(__cudaRegisterVar)
SUCCEEDS(__cudaUnregisterFatBinary)

/* Libraries of kernels that are loaded later name them by text. */

API int cudaLibraryLoadData(void **library)
{
    *library = calloc(1, 1);
    return SUCCESS;
}

API int cudaLibraryGetKernel(void **kernel, void *library, const char *name)
{
    *kernel = calloc(1, 1);
    add_kernel((struct kernel){*kernel, fake_text("%s", name), true});
    return SUCCESS;
}

SUCCEEDS(cudaLibraryUnload)

API int __cudaGetKernel(const void **kernel, const void *host_function)
{
    *kernel = host_function;
    return SUCCESS;
}

/* The <<<...>>> of a launch is pushed by the caller and popped by the function that nvcc makes of the kernel. */

struct configuration {
    struct dim3 grid, block;
    size_t shared_bytes;
    void *stream;
};

static __thread struct configuration pushed[32];
static __thread int pushed_count;

API unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared_bytes, void *stream)
{
    if (pushed_count == 32)
        return 1;
    pushed[pushed_count++] = (struct configuration){grid, block, shared_bytes, stream};
    return 0;
}

API int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared_bytes, void **stream)
{
    if (!pushed_count)
        return fail(MISSING_CONFIGURATION);
    struct configuration last = pushed[--pushed_count];
    *grid = last.grid;
    *block = last.block;
    *shared_bytes = last.shared_bytes;
    *stream = last.stream;
    return SUCCESS;
}

static bool is_launchable(struct configuration launch)
{
    struct dim3 grid = launch.grid, block = launch.block;
    bool grid_fits = grid.x && grid.y && grid.z && grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535;
    bool block_fits = block.x && block.y && block.z && (uint64_t)block.x * block.y * block.z <= MOST_THREADS && block.z <= 64;
    return grid_fits && block_fits && launch.shared_bytes <= MOST_SHARED_BYTES;
}

static int launch(const void *function, struct configuration launch)
{
    struct kernel kernel = kernel_at(function);
    struct record record = {
        .kind = LAUNCH,
        .name = kernel.name,
        .stream = launch.stream,
        .grid = {launch.grid.x, launch.grid.y, launch.grid.z},
        .block = {launch.block.x, launch.block.y, launch.block.z},
    };
    int error = !kernel.runs ? NO_KERNEL_IMAGE : is_launchable(launch) ? SUCCESS : INVALID_CONFIGURATION;
    if (error) {
        record.kind = REFUSAL;
    } else if (is_captured(launch.stream)) {
        record.flags = CAPTURED;
        add_to_graph(launch.stream, (struct node){.record = record});
    }
    fake_record(record);
    return error ? fail(error) : SUCCESS;
}

API int cudaLaunchKernel(const void *function, struct dim3 grid, struct dim3 block, void **arguments, size_t shared_bytes,
                         void *stream)
{
    return launch(function, (struct configuration){grid, block, shared_bytes, stream});
}

API int __cudaLaunchKernel(const void *kernel, struct dim3 grid, struct dim3 block, void **arguments, size_t shared_bytes,
                           void *stream)
{
    return launch(kernel, (struct configuration){grid, block, shared_bytes, stream});
}

API int cudaLaunchCooperativeKernel(const void *function, struct dim3 grid, struct dim3 block, void **arguments,
                                    size_t shared_bytes, void *stream)
{
    return launch(function, (struct configuration){grid, block, shared_bytes, stream});
}

/* cudaLaunchConfig_t begins as struct configuration does. */
API int cudaLaunchKernelExC(const struct configuration *configuration, const void *function, void **arguments)
{
    return launch(function, *configuration);
}

/* cudaFuncAttributes */
struct function_attributes {
    size_t shared_bytes, constant_bytes, local_bytes;
    int most_threads;
    int registers;
    int ptx_version, binary_version;
    int cache_mode;
    int most_shared_bytes;
    int reserved[24];
};
_Static_assert(offsetof(struct function_attributes, most_shared_bytes) == 44, "as in driver_types.h");
_Static_assert(sizeof(struct function_attributes) == 144, "as in driver_types.h");

API int cudaFuncGetAttributes(struct function_attributes *attributes, const void *function)
{
    *attributes = (struct function_attributes){
        .most_threads = MOST_THREADS,
        .registers = 32,
        .ptx_version = compute_capability(),
        .binary_version = compute_capability(),
        .most_shared_bytes = MOST_SHARED_BYTES,
    };
    return SUCCESS;
}

API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads)
{
    int most = threads > 0 ? 2048 / threads : 1;
    *blocks = most < 1 ? 1 : most > 32 ? 32 : most;
    return SUCCESS;
}

SUCCEEDS(cudaFuncSetAttribute)
SUCCEEDS(cudaKernelSetAttributeForDevice)
