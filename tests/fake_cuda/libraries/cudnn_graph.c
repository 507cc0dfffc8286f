/* libcudnn.so.9, graphs of operations: descriptors keep their attributes, and plans are recorded when built and when executed.

   A heuristic offers two engines for every graph, of which the first takes tensor cores and the second does not; neither needs
   workspace. It cannot tell whether cuDNN has an engine for a graph, which, nor how many kernels that launches. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cudnn.h"

/* cudnnBackendDescriptorType_t */
enum descriptor_type {
    POINTWISE = 0,
    ENGINE = 2,
    ENGINE_CONFIGURATION = 3,
    HEURISTIC = 4,
    EXECUTION_PLAN = 5,
    CONVOLUTION = 10,
    CONVOLUTION_TO_FILTER = 11,
    CONVOLUTION_TO_DATA = 12,
    POINTWISE_OPERATION = 13,
    OPERATION_GRAPH = 15,
    MATRIX_PRODUCT = 19,
    REDUCTION = 22,
    RESAMPLING = 24,
};

/* cudnnBackendAttributeName_t */
enum attribute_name {
    POINTWISE_MODE = 0,
    HEURISTIC_GRAPH = 201,
    HEURISTIC_RESULTS = 202,
    CONFIGURATION_ENGINE = 300,
    CONFIGURATION_WORKSPACE = 303,
    CONFIGURATION_SHARED_MEMORY = 304,
    PLAN_CONFIGURATION = 401,
    PLAN_WORKSPACE = 402,
    CONVOLUTION_W = 703,
    CONVOLUTION_X = 704,
    CONVOLUTION_Y = 705,
    TO_DATA_DX = 710,
    TO_DATA_DY = 711,
    OPERATION_POINTWISE = 750,
    GRAPH_OPERATIONS = 801,
    GRAPH_ENGINE_COUNT = 802,
    TENSOR_DIMENSIONS = 902,
    TENSOR_STRIDES = 903,
    ENGINE_GRAPH = 1300,
    ENGINE_INDEX = 1301,
    ENGINE_NUMERICAL_NOTES = 1303,
};

/* cudnnBackendAttributeType_t */
enum attribute_type {
    HANDLE = 0,
    BOOLEAN = 2,
    INT64 = 3,
    DOUBLE = 5,
    POINTER = 6,
    NUMERICAL_NOTE = 11,
    DESCRIPTOR = 15,
    INT32 = 25,
    CHARACTER = 26,
};

#define ENGINES 2
#define NOTE_TENSOR_CORE 0 /* cudnnBackendNumericalNote_t */

struct attribute {
    int name;
    int64_t count;
    void *values;
    struct attribute *next;
};

/* Never freed: others may still refer to it. */
struct descriptor {
    uint64_t mark; /* tells descriptors from other pointers */
    int type;
    struct attribute *attributes;
};

#define MARK 0x726f747069726373ull

static size_t width(int type)
{
    switch (type) {
    case HANDLE:
    case INT64:
    case DOUBLE:
    case POINTER:
    case DESCRIPTOR: return 8;
    case BOOLEAN:
    case CHARACTER: return 1;
    default: return 4; /* enumerations, float, int32 */
    }
}

static struct attribute *attribute_of(const struct descriptor *descriptor, int name)
{
    struct attribute *found = descriptor ? descriptor->attributes : NULL;
    while (found && found->name != name)
        found = found->next;
    return found;
}

static void set(struct descriptor *descriptor, int name, int type, int64_t count, const void *values)
{
    struct attribute *attribute = attribute_of(descriptor, name);
    if (!attribute) {
        attribute = calloc(1, sizeof *attribute);
        attribute->name = name;
        attribute->next = descriptor->attributes;
        descriptor->attributes = attribute;
    }
    size_t bytes = width(type) * count;
    attribute->count = count;
    attribute->values = calloc(1, bytes + 1); /* earlier values are kept: copies of the descriptor share them */
    if (values)
        memcpy(attribute->values, values, bytes);
}

static struct descriptor *descriptor_at(const struct descriptor *descriptor, int name, int64_t index)
{
    struct attribute *attribute = attribute_of(descriptor, name);
    if (!attribute || index >= attribute->count)
        return NULL;
    struct descriptor *found = ((struct descriptor **)attribute->values)[index];
    return found && found->mark == MARK ? found : NULL;
}

static int int_at(const struct descriptor *descriptor, int name)
{
    struct attribute *attribute = attribute_of(descriptor, name);
    return attribute ? *(int *)attribute->values : -1;
}

/* The engine of a plan or configuration. */
static struct descriptor *engine_of(struct descriptor *descriptor)
{
    if (descriptor && descriptor->type == EXECUTION_PLAN)
        descriptor = descriptor_at(descriptor, PLAN_CONFIGURATION, 0);
    return descriptor && descriptor->type == ENGINE_CONFIGURATION ? descriptor_at(descriptor, CONFIGURATION_ENGINE, 0) : NULL;
}

/* A tensor as "2x64x14x14 NCHW". */
static void print_tensor(FILE *out, const char *name, const struct descriptor *tensor)
{
    struct attribute *dimensions = attribute_of(tensor, TENSOR_DIMENSIONS), *strides = attribute_of(tensor, TENSOR_STRIDES);
    if (!dimensions || !strides)
        return;
    int64_t *sizes = dimensions->values, *steps = strides->values;
    fprintf(out, " %s=", name);
    for (int64_t axis = 0; axis < dimensions->count; axis++)
        fprintf(out, "%s%ld", axis ? "x" : "", (long)sizes[axis]);
    if (dimensions->count > 2)
        fputs(steps[1] == 1 && sizes[1] > 1 ? " NHWC" : " NCHW", out);
}

static void print_operation(FILE *out, const struct descriptor *operation)
{
    switch (operation->type) {
    case CONVOLUTION:
        fputs("convolution", out);
        print_tensor(out, "x", descriptor_at(operation, CONVOLUTION_X, 0));
        print_tensor(out, "w", descriptor_at(operation, CONVOLUTION_W, 0));
        print_tensor(out, "y", descriptor_at(operation, CONVOLUTION_Y, 0));
        break;
    case CONVOLUTION_TO_DATA:
        fputs("transposed convolution", out);
        print_tensor(out, "x", descriptor_at(operation, TO_DATA_DY, 0));
        print_tensor(out, "y", descriptor_at(operation, TO_DATA_DX, 0));
        break;
    case POINTWISE_OPERATION:
        fprintf(out, "pointwise mode=%d", int_at(descriptor_at(operation, OPERATION_POINTWISE, 0), POINTWISE_MODE));
        break;
    case CONVOLUTION_TO_FILTER: fputs("convolution to filter", out); break;
    case MATRIX_PRODUCT: fputs("matrix product", out); break;
    case REDUCTION: fputs("reduction", out); break;
    case RESAMPLING: fputs("resampling", out); break;
    default: fprintf(out, "operation %d", operation->type);
    }
}

static const char *description(struct descriptor *plan)
{
    char *text;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    struct descriptor *engine = engine_of(plan), *graph = descriptor_at(engine, ENGINE_GRAPH, 0), *operation;
    for (int64_t i = 0; (operation = descriptor_at(graph, GRAPH_OPERATIONS, i)); i++) {
        fputs(i ? " + " : "", out);
        print_operation(out, operation);
    }
    struct attribute *notes = attribute_of(engine, ENGINE_NUMERICAL_NOTES);
    fputs(notes && notes->count ? ", tensor cores" : "", out);
    fclose(out);
    const char *kept = fake_text("%s", text);
    free(text);
    return kept;
}

API int cudnnBackendCreateDescriptor(int type, struct descriptor **created)
{
    *created = calloc(1, sizeof **created);
    (*created)->mark = MARK;
    (*created)->type = type;
    return CUDNN_SUCCESS;
}

SUCCEEDS(cudnnBackendDestroyDescriptor)
SUCCEEDS(cudnnBackendInitialize)

API int cudnnBackendSetAttribute(struct descriptor *descriptor, int name, int type, int64_t count, const void *values)
{
    set(descriptor, name, type, count, values);
    return CUDNN_SUCCESS;
}

API int cudnnBackendFinalize(struct descriptor *descriptor)
{
    if (descriptor->type == EXECUTION_PLAN)
        fake_record((struct record){.kind = PLAN, .name = "cudnnBackendFinalize", .detail = description(descriptor)});
    return CUDNN_SUCCESS;
}

/* Makes a configuration of engine number `index` for the heuristic's graph. */
static void configure(struct descriptor *configuration, struct descriptor *heuristic, int64_t index)
{
    struct descriptor *engine, *graph = descriptor_at(heuristic, HEURISTIC_GRAPH, 0);
    int note = NOTE_TENSOR_CORE;
    cudnnBackendCreateDescriptor(ENGINE, &engine);
    set(engine, ENGINE_GRAPH, DESCRIPTOR, 1, &graph);
    set(engine, ENGINE_INDEX, INT64, 1, &index);
    set(engine, ENGINE_NUMERICAL_NOTES, NUMERICAL_NOTE, index ? 0 : 1, &note);
    set(configuration, CONFIGURATION_ENGINE, DESCRIPTOR, 1, &engine);
}

static int get_results(struct descriptor *heuristic, int64_t most, int64_t *count, struct descriptor **configurations)
{
    int64_t given = most > 0 && most < ENGINES ? most : ENGINES;
    for (int64_t i = 0; most > 0 && configurations && i < given; i++)
        configure(configurations[i], heuristic, i);
    *count = given;
    return CUDNN_SUCCESS;
}

static int get_number(int64_t number, int type, int64_t *count, void *value)
{
    if (value)
        memcpy(value, &number, width(type));
    if (count)
        *count = 1;
    return CUDNN_SUCCESS;
}

API int cudnnBackendGetAttribute(struct descriptor *descriptor, int name, int type, int64_t most, int64_t *count, void *values)
{
    switch (name) {
    case HEURISTIC_RESULTS: return get_results(descriptor, most, count, values);
    case GRAPH_ENGINE_COUNT: return get_number(ENGINES, type, count, values);
    case PLAN_WORKSPACE:
    case CONFIGURATION_WORKSPACE:
    case CONFIGURATION_SHARED_MEMORY: return get_number(0, type, count, values);
    }
    struct attribute *attribute = attribute_of(descriptor, name);
    int64_t given = attribute ? attribute->count : 0;
    if (count)
        *count = given;
    if (given > most)
        given = most;
    for (int64_t i = 0; values && type == DESCRIPTOR && i < given; i++)
        *((struct descriptor **)values)[i] = *descriptor_at(descriptor, name, i); /* the caller made the descriptors */
    if (values && type != DESCRIPTOR && given > 0)
        memcpy(values, attribute->values, width(type) * given);
    return CUDNN_SUCCESS;
}

API int cudnnBackendExecute(struct cudnn_handle *handle, struct descriptor *plan, struct descriptor *pointers)
{
    fake_library_call("cudnnBackendExecute", description(plan), handle->stream);
    return CUDNN_SUCCESS;
}
