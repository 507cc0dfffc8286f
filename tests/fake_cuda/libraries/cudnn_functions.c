/* libcudnn.so.9, its handle and the functions of its older interface: calls are recorded, and compute nothing.

   It cannot tell how many kernels a call launches, nor refuse what cuDNN has no kernel for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cudnn.h"

#define VERSION 91900
#define MOST_AXES 8

/* Of every kind; only tensors are read again. */
struct description {
    int type;
    int axes;
    int sizes[MOST_AXES];
    int strides[MOST_AXES];
};

/* cudnnConvolutionFwdAlgoPerf_t */
struct performance {
    int algorithm, status;
    float milliseconds;
    size_t workspace;
    int deterministic, math, reserved[3];
};

API size_t cudnnGetVersion(void)
{
    return VERSION;
}

API size_t cudnnGetCudartVersion(void)
{
    return 13000;
}

API const char *cudnnGetErrorString(int status)
{
    return status ? fake_text("cuDNN status %d", status) : "CUDNN_STATUS_SUCCESS";
}

API void cudnnGetLastErrorString(char *message, size_t bytes)
{
    if (bytes)
        *message = 0;
}

API int cudnnCreate(struct cudnn_handle **handle)
{
    *handle = calloc(1, sizeof **handle);
    return CUDNN_SUCCESS;
}

API int cudnnDestroy(struct cudnn_handle *handle)
{
    free(handle);
    return CUDNN_SUCCESS;
}

API int cudnnSetStream(struct cudnn_handle *handle, void *stream)
{
    handle->stream = stream;
    return CUDNN_SUCCESS;
}

API int cudnnGetStream(struct cudnn_handle *handle, void **stream)
{
    *stream = handle->stream;
    return CUDNN_SUCCESS;
}

#define DESCRIBES(Kind) \
    API int cudnnCreate##Kind##Descriptor(struct description **created) \
    { \
        *created = calloc(1, sizeof **created); \
        return CUDNN_SUCCESS; \
    } \
    API int cudnnDestroy##Kind##Descriptor(struct description *created) \
    { \
        free(created); \
        return CUDNN_SUCCESS; \
    }

DESCRIBES(Activation)
DESCRIBES(Convolution)
DESCRIBES(Filter)
DESCRIBES(LRN)
DESCRIBES(Pooling)
DESCRIBES(ReduceTensor)
DESCRIBES(Tensor)

SUCCEEDS(cudnnSetActivationDescriptor)
SUCCEEDS(cudnnSetConvolutionGroupCount)
SUCCEEDS(cudnnSetConvolutionMathType)
SUCCEEDS(cudnnSetConvolutionNdDescriptor)
SUCCEEDS(cudnnSetFilter4dDescriptor)
SUCCEEDS(cudnnSetFilterNdDescriptor)
SUCCEEDS(cudnnSetLRNDescriptor)
SUCCEEDS(cudnnSetPoolingNdDescriptor)
SUCCEEDS(cudnnSetReduceTensorDescriptor)

API int cudnnSetTensorNdDescriptor(struct description *tensor, int type, int axes, const int *sizes, const int *strides)
{
    if (axes > MOST_AXES)
        return CUDNN_NOT_SUPPORTED;
    tensor->type = type;
    tensor->axes = axes;
    memcpy(tensor->sizes, sizes, axes * sizeof *sizes);
    memcpy(tensor->strides, strides, axes * sizeof *strides);
    return CUDNN_SUCCESS;
}

API int cudnnSetTensor4dDescriptor(struct description *tensor, int layout, int type, int n, int c, int h, int w)
{
    int sizes[] = {n, c, h, w}, strides[] = {c * h * w, h * w, w, 1};
    return cudnnSetTensorNdDescriptor(tensor, type, 4, sizes, strides);
}

API int cudnnGetTensorNdDescriptor(const struct description *tensor, int most, int *type, int *axes, int *sizes, int *strides)
{
    int given = tensor->axes < most ? tensor->axes : most;
    *type = tensor->type;
    *axes = tensor->axes;
    memcpy(sizes, tensor->sizes, given * sizeof *sizes);
    memcpy(strides, tensor->strides, given * sizeof *strides);
    return CUDNN_SUCCESS;
}

/* The scales of a batch normalisation: one for each channel. */
API int cudnnDeriveBNTensorDescriptor(struct description *scales, const struct description *input, int mode)
{
    *scales = *input;
    for (int axis = 0; axis < scales->axes; axis++) {
        if (axis != 1)
            scales->sizes[axis] = 1;
    }
    return CUDNN_SUCCESS;
}

API int cudnnGetReductionWorkspaceSize(void *handle, void *reduction, void *a, void *c, size_t *bytes)
{
    *bytes = 1024;
    return CUDNN_SUCCESS;
}

API int cudnnGetReductionIndicesSize(void *handle, void *reduction, void *a, void *c, size_t *bytes)
{
    *bytes = 0;
    return CUDNN_SUCCESS;
}

API int cudnnGetConvolutionForwardWorkspaceSize(void *handle, void *x, void *w, void *convolution, void *y, int algorithm,
                                                size_t *bytes)
{
    *bytes = 0;
    return CUDNN_SUCCESS;
}

API int cudnnGetConvolutionForwardAlgorithm_v7(void *handle, void *x, void *w, void *convolution, void *y, int most, int *count,
                                               struct performance *found)
{
    *found = (struct performance){.algorithm = 1};
    *count = 1;
    return CUDNN_SUCCESS;
}

#define COMPUTES(function) \
    API int function(struct cudnn_handle *handle) \
    { \
        fake_library_call(#function, NULL, handle->stream); \
        return CUDNN_SUCCESS; \
    }

COMPUTES(cudnnActivationForward)
COMPUTES(cudnnAddTensor)
COMPUTES(cudnnBatchNormalizationForwardInference)
COMPUTES(cudnnConvolutionBiasActivationForward)
COMPUTES(cudnnConvolutionForward)
COMPUTES(cudnnLRNCrossChannelForward)
COMPUTES(cudnnPoolingForward)
COMPUTES(cudnnReduceTensor)
COMPUTES(cudnnSoftmaxForward)
