/* libcublas.so.13: products are recorded with their sizes and math mode, and compute nothing.

   It cannot tell how many kernels a product takes on a device, nor which: one call is one record. */
#include <stdlib.h>

#include "recorder.h"

struct handle {
    void *stream;
    int math_mode;
};

/* cublasMath_t, its lower four bits */
static const char *math_name(int mode)
{
    switch (mode & 15) {
    case 0: return "default";
    case 1: return "tensor-op";
    case 2: return "pedantic";
    case 3: return "tf32";
    default: return "unknown";
    }
}

API int cublasCreate_v2(struct handle **handle)
{
    *handle = calloc(1, sizeof **handle);
    return 0;
}

API int cublasDestroy_v2(struct handle *handle)
{
    free(handle);
    return 0;
}

API int cublasSetStream_v2(struct handle *handle, void *stream)
{
    handle->stream = stream;
    return 0;
}

API int cublasSetMathMode(struct handle *handle, int mode)
{
    handle->math_mode = mode;
    return 0;
}

API int cublasGetMathMode(struct handle *handle, int *mode)
{
    *mode = handle->math_mode;
    return 0;
}

API const char *cublasGetStatusName(int status)
{
    return fake_text("cuBLAS status %d", status);
}

API const char *cublasGetStatusString(int status)
{
    return cublasGetStatusName(status);
}

/* All products begin with these arguments; those that follow are not read. */
#define PRODUCT(function) \
    API int function(struct handle *handle, int transpose_a, int transpose_b, int m, int n, int k) \
    { \
        const char *sizes = fake_text("%c%c m=%d n=%d k=%d math=%s", transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, \
                                      math_name(handle->math_mode)); \
        fake_library_call(#function, sizes, handle->stream); \
        return 0; \
    }

PRODUCT(cublasSgemm_v2)
PRODUCT(cublasDgemm_v2)
PRODUCT(cublasGemmEx)
PRODUCT(cublasSgemmBatched)
PRODUCT(cublasDgemmBatched)
PRODUCT(cublasGemmBatchedEx)
PRODUCT(cublasSgemmStridedBatched)
PRODUCT(cublasDgemmStridedBatched)
PRODUCT(cublasGemmStridedBatchedEx)

#define OTHER(function) \
    API int function(struct handle *handle) \
    { \
        fake_library_call(#function, NULL, handle->stream); \
        return 0; \
    }

OTHER(cublasSgeam)
OTHER(cublasDgeam)
OTHER(cublasScopy_v2)
OTHER(cublasSscal_v2)
OTHER(cublasSgetrfBatched)
OTHER(cublasDgetrfBatched)
OTHER(cublasSgetriBatched)
OTHER(cublasDgetriBatched)
