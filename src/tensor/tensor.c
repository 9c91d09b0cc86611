/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "tensor/small.h"

static const struct {
    const char *name;
    unsigned char bytes, real, integer;
} dtypes[] = {
    [DTYPE_UNDEFINED] = {"undefined", 0, 0, 0}, [DTYPE_FLOAT] = {"float32", 4, 1, 0},
    [DTYPE_UINT8] = {"uint8", 1, 0, 1},         [DTYPE_INT8] = {"int8", 1, 0, 1},
    [DTYPE_UINT16] = {"uint16", 2, 0, 1},       [DTYPE_INT16] = {"int16", 2, 0, 1},
    [DTYPE_INT32] = {"int32", 4, 0, 1},         [DTYPE_INT64] = {"int64", 8, 0, 1},
    [DTYPE_STRING] = {"string", 0, 0, 0},       [DTYPE_BOOL] = {"bool", 1, 0, 1},
    [DTYPE_FLOAT16] = {"float16", 2, 1, 0},     [DTYPE_DOUBLE] = {"float64", 8, 1, 0},
    [DTYPE_UINT32] = {"uint32", 4, 0, 1},       [DTYPE_UINT64] = {"uint64", 8, 0, 1},
    [DTYPE_BFLOAT16] = {"bfloat16", 2, 1, 0},
    [DTYPE_FLOAT8E4M3FN] = {"float8e4m3fn", 0, 1, 0},
    [DTYPE_FLOAT8E4M3FNUZ] = {"float8e4m3fnuz", 0, 1, 0},
    [DTYPE_FLOAT8E5M2] = {"float8e5m2", 0, 1, 0},
    [DTYPE_FLOAT8E5M2FNUZ] = {"float8e5m2fnuz", 0, 1, 0},
    [DTYPE_UINT4] = {"uint4", 0, 0, 1},
    [DTYPE_INT4] = {"int4", 0, 0, 1},
    [DTYPE_FLOAT4E2M1] = {"float4e2m1", 0, 1, 0},
    [DTYPE_FLOAT8E8M0] = {"float8e8m0", 0, 1, 0},
    [DTYPE_UINT2] = {"uint2", 0, 0, 1},
    [DTYPE_INT2] = {"int2", 0, 0, 1},
};
#define DTYPE_COUNT ((int)(sizeof dtypes / sizeof dtypes[0]))

static bool dtype_known(int dtype)
{
    return dtype >= 0 && dtype < DTYPE_COUNT && dtypes[dtype].name;
}

const char *dtype_name(int dtype)
{
    return dtype_known(dtype) ? dtypes[dtype].name : "a type unknown to this version";
}

size_t dtype_bytes(int dtype)
{
    return dtype_known(dtype) ? dtypes[dtype].bytes : 0;
}

bool dtype_is_real(int dtype)
{
    return dtype_known(dtype) && dtypes[dtype].real;
}

bool dtype_is_weight(int dtype)
{
    return dtype_is_real(dtype) && dtypes[dtype].bytes > 0;
}

bool dtype_is_integer(int dtype)
{
    return dtype_known(dtype) && dtypes[dtype].integer;
}

bool shape_count(const Shape *shape, int64_t *count)
{
    int64_t product = 1;
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] < 0 || !int64_mul(product, shape->dim[i], &product))
            return false;
    *count = product;
    return true;
}

bool shape_equal(const Shape *a, const Shape *b)
{
    return a->rank == b->rank &&
           memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

char *shape_text(const Shape *shape, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < shape->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ",%lld" : "%lld",
                                 (long long)shape->dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

float float16_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u,
             fraction = bits & 0x3ffu, word;
    float value;
    if (exponent == 31)
        word = sign | 0x7f800000u | fraction << 13;
    else if (exponent)
        word = sign | (exponent + 112u) << 23 | fraction << 13;
    else { /* zero and subnormals: fraction * 2^-24 is exact in float32 */
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    memcpy(&value, &word, sizeof value);
    return value;
}

uint16_t float_to_float16(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    uint16_t sign = (uint16_t)(word >> 16 & 0x8000u);
    uint32_t magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to a multiple of 2^-24 */
        float rounded;
        memcpy(&rounded, &magnitude, sizeof rounded);
        rounded += 0.5f;
        memcpy(&magnitude, &rounded, sizeof magnitude);
        return (uint16_t)(sign | (magnitude - 0x3f000000u));
    }
    uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | ((magnitude + 0xfffu + odd - 0x38000000u) >> 13));
}

static float bfloat16_to_float(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* One loop a source type, instantiated for each target type. */
#define CONVERT_CASE(DTYPE, ctype, target, expression)                                             \
    case DTYPE: {                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                          \
            ctype x;                                                                               \
            memcpy(&x, bytes + (size_t)i * sizeof x, sizeof x);                                    \
            out[i] = (target)(expression);                                                         \
        }                                                                                          \
        return ONNXPRESS_OK;                                                                       \
    }

#define DEFINE_CONVERT(function, target)                                                               \
    int function(const Tensor *tensor, target *out, Error *err)                                        \
    {                                                                                              \
        const unsigned char *bytes = tensor->data;                                                 \
        int64_t n = tensor->count;                                                                 \
        switch (tensor->dtype) {                                                                   \
            CONVERT_CASE(DTYPE_FLOAT, float, target, x)                                            \
            CONVERT_CASE(DTYPE_DOUBLE, double, target, x)                                          \
            CONVERT_CASE(DTYPE_FLOAT16, uint16_t, target, float16_to_float(x))                     \
            CONVERT_CASE(DTYPE_BFLOAT16, uint16_t, target, bfloat16_to_float(x))                   \
            CONVERT_CASE(DTYPE_UINT8, uint8_t, target, x)                                          \
            CONVERT_CASE(DTYPE_INT8, int8_t, target, x)                                            \
            CONVERT_CASE(DTYPE_BOOL, uint8_t, target, x != 0)                                      \
            CONVERT_CASE(DTYPE_UINT16, uint16_t, target, x)                                        \
            CONVERT_CASE(DTYPE_INT16, int16_t, target, x)                                          \
            CONVERT_CASE(DTYPE_UINT32, uint32_t, target, x)                                        \
            CONVERT_CASE(DTYPE_INT32, int32_t, target, x)                                          \
            CONVERT_CASE(DTYPE_UINT64, uint64_t, target, x)                                        \
            CONVERT_CASE(DTYPE_INT64, int64_t, target, x)                                          \
        default:                                                                                   \
            if (small_known(tensor->dtype)) {                                                      \
                for (int64_t i = 0; i < n; i++)                                                    \
                    out[i] = (target)small_read(tensor->dtype, bytes, i);                          \
                return ONNXPRESS_OK;                                                               \
            }                                                                                      \
            return error_set(err, ONNXPRESS_UNSUPPORTED, "%s: tensors of %s cannot be read here",  \
                             tensor->name ? tensor->name : "tensor", dtype_name(tensor->dtype));   \
        }                                                                                          \
    }

DEFINE_CONVERT(tensor_to_float, float)
DEFINE_CONVERT(tensor_to_double, double)

/* Out of range or NaN becomes 0: a cast that C leaves undefined must not be reached by a file. */
static int64_t int64_from_double(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : 0;
}

int tensor_to_int64(const Tensor *tensor, int64_t *out, Error *err)
{
    const unsigned char *bytes = tensor->data;
    int64_t n = tensor->count;
    switch (tensor->dtype) {
        CONVERT_CASE(DTYPE_FLOAT, float, int64_t, int64_from_double(x))
        CONVERT_CASE(DTYPE_DOUBLE, double, int64_t, int64_from_double(x))
        CONVERT_CASE(DTYPE_FLOAT16, uint16_t, int64_t, int64_from_double(float16_to_float(x)))
        CONVERT_CASE(DTYPE_BFLOAT16, uint16_t, int64_t, int64_from_double(bfloat16_to_float(x)))
        CONVERT_CASE(DTYPE_UINT8, uint8_t, int64_t, x)
        CONVERT_CASE(DTYPE_INT8, int8_t, int64_t, x)
        CONVERT_CASE(DTYPE_BOOL, uint8_t, int64_t, x != 0)
        CONVERT_CASE(DTYPE_UINT16, uint16_t, int64_t, x)
        CONVERT_CASE(DTYPE_INT16, int16_t, int64_t, x)
        CONVERT_CASE(DTYPE_UINT32, uint32_t, int64_t, x)
        CONVERT_CASE(DTYPE_INT32, int32_t, int64_t, x)
        CONVERT_CASE(DTYPE_UINT64, uint64_t, int64_t, x)
        CONVERT_CASE(DTYPE_INT64, int64_t, int64_t, x)
    default:
        if (small_known(tensor->dtype)) {
            for (int64_t i = 0; i < n; i++)
                out[i] = int64_from_double(small_read(tensor->dtype, bytes, i));
            return ONNXPRESS_OK;
        }
        return error_set(err, ONNXPRESS_UNSUPPORTED, "%s: tensors of %s cannot be read here",
                         tensor->name ? tensor->name : "tensor", dtype_name(tensor->dtype));
    }
}
