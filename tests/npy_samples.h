/* Arrays to write and read, for the tests of .npy, .npz and datasets. */
#ifndef ONNXPRESS_TESTS_NPY_SAMPLES_H
#define ONNXPRESS_TESTS_NPY_SAMPLES_H

#include <math.h>

#include "suite.h"
#include "tensor/npy.h"

/* A .npy file: version, header text padded to `align` (0: not at all), data. */
static const char *write_npy(int version, const char *dict, int align, const void *data,
                             size_t bytes)
{
    const char *path = scratch_path("array.npy");
    FILE *file = fopen(path, "wb");
    size_t prefix = version == 1 ? 10 : 12, length = strlen(dict) + 1;
    if (align)
        length += ((size_t)align - (prefix + length) % (size_t)align) % (size_t)align;
    fprintf(file, "\x93NUMPY%c%c", version, 0);
    for (int i = 0; i < (version == 1 ? 2 : 4); i++)
        fputc((int)(length >> 8 * i & 0xff), file);
    fprintf(file, "%-*s\n", (int)length - 1, dict);
    fwrite(data, 1, bytes, file);
    fclose(file);
    return path;
}

static const float numbers[6] = {0.0f, 1.5f, -3.0f, 1e-30f, INFINITY, 7.0f};
static const int64_t more_numbers[2] = {-1, INT64_MAX};
static const Tensor pair[2] = {
    {"conv.weight", DTYPE_FLOAT, {2, {2, 3}}, 6, numbers, sizeof numbers},
    {"steps/2", DTYPE_INT64, {1, {2}}, 2, more_numbers, sizeof more_numbers},
};

#endif
