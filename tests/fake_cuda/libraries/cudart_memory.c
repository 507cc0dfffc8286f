/* libcudart.so.13, memory: device memory is host memory, and copies and fills are carried out at once.

   The host may not touch a device address: each allocation has two mappings, and the one whose address is handed out faults, as
   an access to a device's memory would. It cannot tell what a copy costs, nor find one that overtakes another stream's work. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cudart.h"

#define PAGE 4096ull

struct block {
    char *address;
    char *view; /* where the host may read and write it */
    size_t bytes;
    size_t mapped; /* bytes of each of two mappings; 0 for host memory */
    enum memory memory;
};

/* cudaPointerAttributes */
struct pointer_attributes {
    int memory;
    int device;
    const void *device_address;
    const void *host_address;
    uint64_t reserved[8];
};
_Static_assert(sizeof(struct pointer_attributes) == 88, "as in driver_types.h");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block *blocks;
static size_t count;
static size_t capacity;
static size_t used;

/* The block that holds an address, the latest first; {.memory = UNREGISTERED} if there is none. */
static struct block block_of(const void *address)
{
    struct block found = {.memory = UNREGISTERED};
    pthread_mutex_lock(&lock);
    for (size_t i = count; i-- > 0;) {
        const char *first = blocks[i].address;
        size_t bytes = blocks[i].bytes ? blocks[i].bytes : 1;
        if ((const char *)address >= first && (const char *)address < first + bytes) {
            found = blocks[i];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

enum memory memory_of(const void *address)
{
    return block_of(address).memory;
}

static char *host_view(const void *address)
{
    struct block block = block_of(address);
    return block.memory == UNREGISTERED ? (char *)address : block.view + ((const char *)address - block.address);
}

static bool fits(const void *address, size_t bytes)
{
    struct block block = block_of(address);
    return block.memory == UNREGISTERED || (const char *)address + bytes <= block.address + block.bytes;
}

static bool map_device(struct block *block)
{
    block->mapped = block->bytes ? (block->bytes + PAGE - 1) / PAGE * PAGE : PAGE;
    int file = memfd_create("fake CUDA device", 0);
    if (file < 0 || ftruncate(file, block->mapped))
        return false;
    block->address = mmap(NULL, block->mapped, PROT_NONE, MAP_SHARED, file, 0);
    block->view = mmap(NULL, block->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return block->address != MAP_FAILED && block->view != MAP_FAILED;
}

static bool map_host(struct block *block)
{
    void *address;
    if (posix_memalign(&address, PAGE, block->bytes ? block->bytes : 1))
        return false;
    block->address = block->view = address;
    return true;
}

static int allocate(void **address, size_t bytes, enum memory memory, const char *name)
{
    struct block block = {.bytes = bytes, .memory = memory};
    bool refused = memory == DEVICE && used + bytes > DEVICE_BYTES;
    if (refused || !(memory == DEVICE ? map_device(&block) : map_host(&block))) {
        fake_record((struct record){.kind = REFUSAL, .name = name, .bytes = bytes});
        return fail(OUT_OF_MEMORY);
    }
    pthread_mutex_lock(&lock);
    if (count == capacity) {
        capacity = capacity ? 2 * capacity : 256;
        blocks = realloc(blocks, capacity * sizeof *blocks);
    }
    blocks[count++] = block;
    if (memory == DEVICE)
        used += bytes;
    pthread_mutex_unlock(&lock);
    fake_record((struct record){.kind = ALLOCATION, .name = name, .bytes = bytes, .target = block.address});
    *address = block.address;
    return SUCCESS;
}

static int release(void *address)
{
    struct block block = {.memory = UNREGISTERED};
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].address == address) {
            block = blocks[i];
            memmove(blocks + i, blocks + i + 1, (count - i - 1) * sizeof *blocks);
            count--;
            break;
        }
    }
    if (block.memory == DEVICE)
        used -= block.bytes;
    pthread_mutex_unlock(&lock);
    if (block.memory == UNREGISTERED)
        return fail(INVALID_VALUE);
    const char *name = block.memory == DEVICE ? "cudaFree" : "cudaFreeHost";
    fake_record((struct record){.kind = RELEASE, .name = name, .bytes = block.bytes, .target = address});
    if (block.mapped) {
        munmap(block.address, block.mapped);
        munmap(block.view, block.mapped);
    } else {
        free(block.address);
    }
    return SUCCESS;
}

API int cudaMalloc(void **address, size_t bytes)
{
    int error = while_capturing("cudaMalloc");
    return error ? error : allocate(address, bytes, DEVICE, "cudaMalloc");
}

API int cudaMallocFromPoolAsync(void **address, size_t bytes, void *pool, void *stream)
{
    return allocate(address, bytes, DEVICE, "cudaMallocFromPoolAsync");
}

API int cudaMallocHost(void **address, size_t bytes)
{
    int error = while_capturing("cudaMallocHost");
    return error ? error : allocate(address, bytes, HOST, "cudaMallocHost");
}

API int cudaHostAlloc(void **address, size_t bytes, unsigned flags)
{
    int error = while_capturing("cudaHostAlloc");
    return error ? error : allocate(address, bytes, HOST, "cudaHostAlloc");
}

API int cudaFree(void *address)
{
    int error = address ? while_capturing("cudaFree") : SUCCESS;
    return error || !address ? error : release(address);
}

API int cudaFreeAsync(void *address, void *stream)
{
    return release(address);
}

API int cudaFreeHost(void *address)
{
    int error = address ? while_capturing("cudaFreeHost") : SUCCESS;
    return error || !address ? error : release(address);
}

API int cudaMemGetInfo(size_t *available, size_t *total)
{
    *available = DEVICE_BYTES - used;
    *total = DEVICE_BYTES;
    return SUCCESS;
}

API int cudaPointerGetAttributes(struct pointer_attributes *attributes, const void *address)
{
    enum memory memory = memory_of(address);
    *attributes = (struct pointer_attributes){
        .memory = memory,
        .device = memory == UNREGISTERED ? -2 : 0,
        .device_address = memory == UNREGISTERED ? NULL : address,
        .host_address = memory == DEVICE ? NULL : address,
    };
    return SUCCESS;
}

/* Pools are never exhausted and keep nothing. */
static int pool;

API int cudaMemPoolCreate(void **created, const void *properties)
{
    *created = &pool;
    return SUCCESS;
}

API int cudaMemPoolGetAttribute(void *of, int attribute, uint64_t *value)
{
    *value = 0;
    return SUCCESS;
}

SUCCEEDS(cudaMemPoolDestroy)
SUCCEEDS(cudaMemPoolSetAttribute)
SUCCEEDS(cudaMemPoolTrimTo)

void carry_out(const struct node *node)
{
    const struct copy *copy = &node->copy;
    char *target = host_view(copy->target);
    if (node->record.kind == FILL) {
        memset(target, node->fill, copy->width);
        return;
    }
    const char *source = host_view(copy->source);
    for (size_t row = 0; row < copy->height; row++)
        memmove(target + row * copy->target_pitch, source + row * copy->source_pitch, copy->width);
}

static int refuse(const char *name, size_t bytes, void *stream)
{
    fake_record((struct record){.kind = REFUSAL, .name = name, .bytes = bytes, .stream = stream});
    return fail(INVALID_VALUE);
}

/* Records a copy or fill, and carries it out unless the stream is captured. */
static int enqueue(struct node node, void *stream)
{
    node.record.stream = stream;
    if (is_captured(stream)) {
        node.record.flags |= CAPTURED;
        add_to_graph(stream, node);
    } else {
        carry_out(&node);
    }
    fake_record(node.record);
    return SUCCESS;
}

/* `direction` is a cudaMemcpyKind: 2 if the source lies on the device, plus 1 if the target does; 4 leaves it open. */
static int copy(struct copy copy, int direction, void *stream, bool blocking, const char *name)
{
    static const char *const names[2][2] = {{"HtoH", "HtoD"}, {"DtoH", "DtoD"}};
    if (!copy.width || !copy.height)
        return SUCCESS;
    size_t bytes = copy.width * copy.height;
    if (!fits(copy.target, (copy.height - 1) * copy.target_pitch + copy.width) ||
        !fits(copy.source, (copy.height - 1) * copy.source_pitch + copy.width))
        return refuse("copy beyond an allocation", bytes, stream);
    int error = blocking ? while_capturing(name) : SUCCESS;
    if (error)
        return error;
    enum memory target = memory_of(copy.target), source = memory_of(copy.source);
    int actual = 2 * (source == DEVICE) + (target == DEVICE);
    struct record record = {
        .kind = COPY,
        .flags = blocking ? BLOCKING : 0,
        .bytes = bytes,
        .name = names[source == DEVICE][target == DEVICE],
        .detail = name,
        .target = copy.target,
        .source = copy.source,
    };
    if (target == UNREGISTERED || source == UNREGISTERED)
        record.flags |= PAGEABLE;
    if (direction != 4 && direction != actual)
        record.flags |= WRONG_DIRECTION;
    return enqueue((struct node){.record = record, .copy = copy}, stream);
}

API int cudaMemcpy(void *target, const void *source, size_t bytes, int direction)
{
    return copy((struct copy){target, bytes, source, bytes, bytes, 1}, direction, NULL, true, "cudaMemcpy");
}

API int cudaMemcpyAsync(void *target, const void *source, size_t bytes, int direction, void *stream)
{
    return copy((struct copy){target, bytes, source, bytes, bytes, 1}, direction, stream, false, "cudaMemcpyAsync");
}

API int cudaMemcpy2DAsync(void *target, size_t target_pitch, const void *source, size_t source_pitch, size_t width, size_t height,
                          int direction, void *stream)
{
    struct copy rows = {target, target_pitch, source, source_pitch, width, height};
    return copy(rows, direction, stream, false, "cudaMemcpy2DAsync");
}

/* Variables of kernels have no values here: zero. */
API int cudaMemcpyFromSymbol(void *target, const void *symbol, size_t bytes, size_t offset, int direction)
{
    int error = while_capturing("cudaMemcpyFromSymbol");
    if (error)
        return error;
    struct record record = {.kind = COPY, .flags = BLOCKING, .bytes = bytes, .name = "DtoH", .detail = "cudaMemcpyFromSymbol"};
    fake_record(record);
    memset(host_view(target), 0, bytes);
    return SUCCESS;
}

static int fill(void *target, int value, size_t bytes, void *stream, bool blocking, const char *name)
{
    if (!bytes)
        return SUCCESS;
    if (!fits(target, bytes))
        return refuse("fill beyond an allocation", bytes, stream);
    int error = blocking ? while_capturing(name) : SUCCESS;
    if (error)
        return error;
    struct node node = {
        .record = {.kind = FILL, .flags = blocking ? BLOCKING : 0, .bytes = bytes, .name = name, .target = target},
        .copy = {.target = target, .width = bytes, .height = 1},
        .fill = value,
    };
    return enqueue(node, stream);
}

API int cudaMemset(void *target, int value, size_t bytes)
{
    return fill(target, value, bytes, NULL, true, "cudaMemset");
}

API int cudaMemsetAsync(void *target, int value, size_t bytes, void *stream)
{
    return fill(target, value, bytes, stream, false, "cudaMemsetAsync");
}
