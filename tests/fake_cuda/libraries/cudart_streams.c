/* libcudart.so.13, streams, events and graphs: everything is executed at once, in the order of the host's calls.

   It cannot find a race between streams. A capture refuses what a capture in global mode refuses. A replay records the graph's
   nodes again, and carries out its copies and fills from and to the addresses that were captured. Streams, events and graphs are
   never freed: a late use then shows in the record instead of crashing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "cudart.h"

#define RELAXED 2 /* cudaStreamCaptureModeRelaxed: nothing is forbidden */

struct graph {
    struct node *nodes;
    size_t count;
    size_t capacity;
    bool invalid;
};

struct stream {
    struct graph *graph; /* that it is captured into; null unless it is */
};

struct event {
    struct graph *graph; /* that its record was captured into */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stream legacy_stream;
static struct graph *capture; /* in progress, in this process */
static bool forbidding;

/* Null, 1 and 2 stand for the default streams. */
static struct stream *stream_at(void *handle)
{
    return (uintptr_t)handle <= 2 ? &legacy_stream : handle;
}

bool is_captured(void *stream)
{
    return stream_at(stream)->graph;
}

void add_to_graph(void *stream, struct node node)
{
    struct graph *graph = stream_at(stream)->graph;
    pthread_mutex_lock(&lock);
    if (graph->count == graph->capacity) {
        graph->capacity = graph->capacity ? 2 * graph->capacity : 64;
        graph->nodes = realloc(graph->nodes, graph->capacity * sizeof *graph->nodes);
    }
    graph->nodes[graph->count++] = node;
    pthread_mutex_unlock(&lock);
}

API void fake_library_call(const char *name, const char *detail, void *stream)
{
    struct record record = {.kind = LIBRARY_CALL, .name = name, .detail = detail, .stream = stream};
    if (is_captured(stream)) {
        record.flags = CAPTURED;
        add_to_graph(stream, (struct node){.record = record});
    }
    fake_record(record);
}

static int refuse(const char *name, struct graph *graph)
{
    fake_record((struct record){.kind = REFUSAL, .name = name, .flags = CAPTURED});
    graph->invalid = true;
    return fail(CAPTURE_UNSUPPORTED);
}

int while_capturing(const char *name)
{
    return capture && forbidding ? refuse(name, capture) : SUCCESS;
}

API int cudaStreamCreateWithFlags(void **stream, unsigned flags)
{
    *stream = calloc(1, sizeof(struct stream));
    return SUCCESS;
}

API int cudaStreamCreate(void **stream)
{
    return cudaStreamCreateWithFlags(stream, 0);
}

SUCCEEDS(cudaStreamDestroy)

API int cudaStreamSynchronize(void *stream)
{
    if (is_captured(stream))
        return refuse("cudaStreamSynchronize", stream_at(stream)->graph);
    fake_record((struct record){.kind = SYNCHRONISATION, .name = "cudaStreamSynchronize", .stream = stream});
    return SUCCESS;
}

API int cudaDeviceSynchronize(void)
{
    int error = while_capturing("cudaDeviceSynchronize");
    if (error)
        return error;
    fake_record((struct record){.kind = SYNCHRONISATION, .name = "cudaDeviceSynchronize"});
    return SUCCESS;
}

API int cudaEventCreateWithFlags(void **event, unsigned flags)
{
    *event = calloc(1, sizeof(struct event));
    return SUCCESS;
}

API int cudaEventCreate(void **event)
{
    return cudaEventCreateWithFlags(event, 0);
}

SUCCEEDS(cudaEventDestroy)

API int cudaEventRecordWithFlags(struct event *event, void *stream, unsigned flags)
{
    event->graph = stream_at(stream)->graph;
    return SUCCESS;
}

API int cudaEventRecord(struct event *event, void *stream)
{
    return cudaEventRecordWithFlags(event, stream, 0);
}

API int cudaEventSynchronize(struct event *event)
{
    if (event->graph && event->graph == capture)
        return refuse("cudaEventSynchronize", capture);
    fake_record((struct record){.kind = SYNCHRONISATION, .name = "cudaEventSynchronize"});
    return SUCCESS;
}

/* All that is timed takes equally long: a search among algorithms takes the first. */
API int cudaEventElapsedTime(float *milliseconds, struct event *start, struct event *stop)
{
    *milliseconds = 1.0f;
    return SUCCESS;
}

/* A stream that waits for captured work joins its capture. */
API int cudaStreamWaitEvent(void *stream, struct event *event, unsigned flags)
{
    if (event->graph && event->graph == capture)
        stream_at(stream)->graph = event->graph;
    return SUCCESS;
}

API int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *argument)
{
    if (!is_captured(stream))
        function(argument);
    return SUCCESS;
}

API int cudaStreamBeginCapture(void *stream, int mode)
{
    struct stream *begun = stream_at(stream);
    if (begun == &legacy_stream || begun->graph)
        return fail(ILLEGAL_STATE);
    begun->graph = capture = calloc(1, sizeof(struct graph));
    forbidding = mode != RELAXED;
    return SUCCESS;
}

API int cudaStreamEndCapture(void *stream, struct graph **captured)
{
    struct stream *ended = stream_at(stream);
    struct graph *graph = ended->graph;
    ended->graph = capture = NULL;
    *captured = NULL;
    if (!graph)
        return fail(ILLEGAL_STATE);
    if (graph->invalid)
        return fail(CAPTURE_INVALIDATED);
    *captured = graph;
    fake_record((struct record){.kind = GRAPH_CAPTURE, .name = "cudaStreamEndCapture", .stream = stream});
    return SUCCESS;
}

/* cudaStreamCaptureStatus: 0 none, 1 active, 2 invalidated */
API int cudaStreamIsCapturing(void *stream, int *status)
{
    struct graph *graph = stream_at(stream)->graph;
    *status = !graph ? 0 : graph->invalid ? 2 : 1;
    return SUCCESS;
}

API int cudaGraphInstantiate(struct graph **executable, struct graph *graph, uint64_t flags)
{
    *executable = graph;
    return SUCCESS;
}

static bool is_stale(const struct node *node)
{
    bool target = memory_of(node->copy.target) != UNREGISTERED;
    bool source = node->record.kind == FILL || memory_of(node->copy.source) != UNREGISTERED;
    return !target || !source;
}

API int cudaGraphLaunch(struct graph *graph, void *stream)
{
    fake_record((struct record){.kind = GRAPH_LAUNCH, .name = "cudaGraphLaunch", .stream = stream});
    for (size_t i = 0; i < graph->count; i++) {
        struct node *node = &graph->nodes[i];
        struct record record = node->record;
        record.flags = (record.flags & ~CAPTURED) | REPLAYED;
        record.stream = stream;
        fake_record(record);
        if (!node->copy.target)
            continue;
        if (is_stale(node))
            fake_record((struct record){.kind = REFUSAL, .flags = REPLAYED, .name = "replay on pageable or freed memory"});
        else
            carry_out(node);
    }
    return SUCCESS;
}

SUCCEEDS(cudaGraphDestroy)
SUCCEEDS(cudaGraphExecDestroy)
