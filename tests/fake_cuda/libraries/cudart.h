/* What the files of the stand-in for libcudart share, and the parts of the interface of CUDA 13 that they need:
   values of enumerations and layouts of structures, for 64-bit Linux. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "recorder.h"

enum error {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONFIGURATION = 9,
    MISSING_CONFIGURATION = 52,
    INVALID_DEVICE = 101,
    NO_KERNEL_IMAGE = 209,
    ILLEGAL_STATE = 401,
    SYMBOL_NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

/* cudaMemoryType */
enum memory { UNREGISTERED = 0, HOST = 1, DEVICE = 2 };

struct dim3 {
    uint32_t x, y, z;
};

#define DEVICE_BYTES 150754820096ull
#define MOST_THREADS 1024
#define MOST_SHARED_BYTES 232448

/* A copy of `height` rows of `width` bytes; the rows of each side lie `pitch` bytes apart. */
struct copy {
    void *target;
    size_t target_pitch;
    const void *source;
    size_t source_pitch;
    size_t width, height;
};

/* A node of a graph: its record, and what to do at replays. `copy.target` is null where there is nothing to do. */
struct node {
    struct record record;
    struct copy copy;
    int fill;
};

/* device */
int fail(int error); /* returns `error`, and leaves it for cudaGetLastError */
int compute_capability(void);

/* memory */
enum memory memory_of(const void *address);
void carry_out(const struct node *node); /* the copy or fill of a node */

/* streams */
bool is_captured(void *stream);
void add_to_graph(void *stream, struct node node);
int while_capturing(const char *name); /* the error, if a capture in progress forbids the call; 0 otherwise */
