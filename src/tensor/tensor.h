/* Stored tensors: a typed, shaped view of bytes in a file, and the numbers behind ONNX data types.
 *
 * A Tensor owns nothing: `data` points into an arena, a mapping or a protobuf message that lives
 * longer. Data is little-endian and dense, row-major, in the type's own width (bool one byte;
 * 4-bit and 2-bit types packed, low bits first). Nothing here allocates unless it takes an arena.
 */
#ifndef ONNXPRESS_TENSOR_TENSOR_H
#define ONNXPRESS_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/arena.h"
#include "tensor/error.h"

/* Numbers of TensorProto.DataType (onnx.proto); restated so that numeric code needs no protobuf. */
typedef enum {
    DTYPE_UNDEFINED = 0,
    DTYPE_FLOAT = 1,
    DTYPE_UINT8 = 2,
    DTYPE_INT8 = 3,
    DTYPE_UINT16 = 4,
    DTYPE_INT16 = 5,
    DTYPE_INT32 = 6,
    DTYPE_INT64 = 7,
    DTYPE_STRING = 8,
    DTYPE_BOOL = 9,
    DTYPE_FLOAT16 = 10,
    DTYPE_DOUBLE = 11,
    DTYPE_UINT32 = 12,
    DTYPE_UINT64 = 13,
    DTYPE_BFLOAT16 = 16,
    DTYPE_FLOAT8E4M3FN = 17, /* from here on: tensor/small.h */
    DTYPE_FLOAT8E4M3FNUZ = 18,
    DTYPE_FLOAT8E5M2 = 19,
    DTYPE_FLOAT8E5M2FNUZ = 20,
    DTYPE_UINT4 = 21,
    DTYPE_INT4 = 22,
    DTYPE_FLOAT4E2M1 = 23,
    DTYPE_FLOAT8E8M0 = 24,
    DTYPE_UINT2 = 25,
    DTYPE_INT2 = 26
} DType;

#define TENSOR_MAX_RANK 8

typedef struct {
    int rank; /* 0: a scalar */
    int64_t dim[TENSOR_MAX_RANK];
} Shape;

typedef struct {
    const char *name; /* may be NULL */
    int dtype;        /* DType, or a number this version does not know */
    Shape shape;
    int64_t count;    /* product of the dims */
    const void *data;
    size_t bytes;
} Tensor;

const char *dtype_name(int dtype);        /* "float32", "int64", ...; "type N" when unknown */
size_t dtype_bytes(int dtype);            /* bytes an element; 0 for strings, small and unknown */
bool dtype_is_real(int dtype);            /* float, double, float16, bfloat16, small floats */
bool dtype_is_weight(int dtype);          /* the first four of them: what can be coded */
bool dtype_is_integer(int dtype);         /* 2- to 64-bit integers and bool */

/* Product of the dims; false when a dim is negative or the product overflows. */
bool shape_count(const Shape *shape, int64_t *count);
bool shape_equal(const Shape *a, const Shape *b);
/* "[1,3,224,224]" into text; returns text. */
char *shape_text(const Shape *shape, char *text, size_t size);

/* Element-wise conversion of a real or integer tensor; ONNXPRESS_UNSUPPORTED for other types. */
int tensor_to_float(const Tensor *tensor, float *out, Error *err);
int tensor_to_double(const Tensor *tensor, double *out, Error *err);
int tensor_to_int64(const Tensor *tensor, int64_t *out, Error *err);

float float16_to_float(uint16_t bits);
uint16_t float_to_float16(float value); /* round to nearest even */

#endif
