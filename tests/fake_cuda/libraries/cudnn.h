/* What the two files of the stand-in for libcudnn share. */
#pragma once
#include "recorder.h"

struct cudnn_handle {
    void *stream;
};

#define CUDNN_SUCCESS 0
#define CUDNN_NOT_SUPPORTED 3000
