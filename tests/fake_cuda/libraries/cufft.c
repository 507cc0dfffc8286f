/* libcufft.so.12: transforms are recorded, and compute nothing. It cannot tell how many kernels a transform takes. */
#include <stddef.h>

#include "recorder.h"

#define MOST_PLANS 4096

static void *streams[MOST_PLANS]; /* by plan; more plans than this share entries */

API int cufftCreate(int *plan)
{
    static int created;
    *plan = ++created;
    return 0;
}

SUCCEEDS(cufftDestroy)

API int cufftSetStream(int plan, void *stream)
{
    streams[plan % MOST_PLANS] = stream;
    return 0;
}

API int cufftXtMakePlanMany(int plan, int rank, long long *sizes, long long *input_embed, long long input_stride,
                            long long input_distance, int input_type, long long *output_embed, long long output_stride,
                            long long output_distance, int output_type, long long batch, size_t *workspace, int type)
{
    *workspace = 0;
    return 0;
}

API int cufftXtExec(int plan)
{
    fake_library_call("cufftXtExec", NULL, streams[plan % MOST_PLANS]);
    return 0;
}
