/* The record of what a process does with the fake device. */
#pragma once
#include <stdint.h>

#define API __attribute__((visibility("default")))

/* A function that does nothing and succeeds. The caller removes its arguments, so it need not declare them. */
#define SUCCEEDS(function) \
    API int function(void) \
    { \
        return 0; \
    }

/* The numbers are those of Kind in recorder.py. */
enum kind {
    LAUNCH = 1,      /* of a kernel */
    LIBRARY_CALL,    /* a computation by cuBLAS, cuDNN or cuFFT */
    COPY,            /* name: HtoD, DtoH, DtoD or HtoH */
    FILL,            /* memset */
    ALLOCATION,
    RELEASE,         /* of memory */
    SYNCHRONISATION, /* the host waits for the device */
    GRAPH_CAPTURE,   /* the end of a capture */
    GRAPH_LAUNCH,    /* records of the graph's nodes follow, flagged REPLAYED */
    PLAN,            /* cuDNN builds an execution plan */
    REFUSAL,         /* an error that a device would return */
};

/* The bits are those of Flag in recorder.py. */
enum flag {
    CAPTURED = 1,        /* recorded into a CUDA graph, not executed */
    REPLAYED = 2,        /* executed by a graph launch */
    PAGEABLE = 4,        /* a copy whose host side is not page-locked */
    BLOCKING = 8,        /* the host waits for the copy */
    WRONG_DIRECTION = 16 /* a copy whose stated direction is not that of its addresses */
};

struct record {
    int32_t kind;
    int32_t flags;
    uint64_t bytes;
    const char *name;   /* never freed */
    const char *detail; /* never freed; may be null */
    const void *stream;
    const void *target;
    const void *source;
    uint32_t grid[3];
    uint32_t block[3];
};

void fake_record(struct record record);

/* A copy of the formatted text that is never freed; equal texts have the same address. */
const char *fake_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A computation of a library on a stream: recorded, and added to the graph that the stream is captured into, if any.
   Defined by libcudart, which knows the streams. */
void fake_library_call(const char *name, const char *detail, void *stream);
