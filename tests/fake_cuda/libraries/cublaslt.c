/* libcublasLt.so.13: products are recorded, descriptions of matrices are not.

   It cannot tell the sizes of a product, nor whether a real heuristic finds an algorithm for it. */
#include <stdlib.h>
#include <string.h>

#include "recorder.h"

#define DESCRIPTION_BYTES 256
#define ALGORITHM_BYTES 64
#define RESULT_BYTES 96 /* cublasLtMatmulHeuristicResult_t: an algorithm, its workspace, its status */

#define CREATES(function) \
    API int function(void **created) \
    { \
        *created = calloc(1, DESCRIPTION_BYTES); \
        return 0; \
    }

#define DESTROYS(function) \
    API int function(void *created) \
    { \
        free(created); \
        return 0; \
    }

CREATES(cublasLtCreate)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatrixTransformDescCreate)

DESTROYS(cublasLtDestroy)
DESTROYS(cublasLtMatmulDescDestroy)
DESTROYS(cublasLtMatmulPreferenceDestroy)
DESTROYS(cublasLtMatrixLayoutDestroy)
DESTROYS(cublasLtMatrixTransformDescDestroy)

SUCCEEDS(cublasLtMatmulDescSetAttribute)
SUCCEEDS(cublasLtMatmulPreferenceSetAttribute)
SUCCEEDS(cublasLtMatrixLayoutSetAttribute)
SUCCEEDS(cublasLtMatmulAlgoConfigSetAttribute)

API int cublasLtMatmulAlgoInit(void *handle, int compute, int scale, int a, int b, int c, int d, int id, void *algorithm)
{
    memset(algorithm, 0, ALGORITHM_BYTES);
    return 0;
}

API int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference,
                                       int most, void *results, int *count)
{
    memset(results, 0, RESULT_BYTES);
    *count = 1;
    return 0;
}

API int cublasLtMatmul(void *handle, void *product, const void *alpha, const void *a, void *a_layout, const void *b,
                       void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                       const void *algorithm, void *workspace, size_t workspace_bytes, void *stream)
{
    fake_library_call("cublasLtMatmul", NULL, stream);
    return 0;
}

API int cublasLtMatrixTransform(void *handle, void *transform, const void *alpha, const void *a, void *a_layout,
                                const void *beta, const void *b, void *b_layout, void *c, void *c_layout, void *stream)
{
    fake_library_call("cublasLtMatrixTransform", NULL, stream);
    return 0;
}
