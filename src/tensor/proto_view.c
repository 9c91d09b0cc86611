/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/proto_view.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is used as it lies in the file: a little-endian machine is needed"
#endif

#define TYPE(NAME) ONNX__TENSOR_PROTO__DATA_TYPE__##NAME

/* Which typed field holds a type's elements. */
typedef enum {
    FIELD_NONE,
    FIELD_FLOAT,
    FIELD_INT32,
    FIELD_INT64,
    FIELD_DOUBLE,
    FIELD_UINT64
} Field;

/* How a data type is stored. `bits` 0: strings, or unknown to this version. */
typedef struct {
    unsigned bits;
    Field field;
} Storage;

static const Storage storages[] = {
    [TYPE(FLOAT)] = {32, FIELD_FLOAT},         [TYPE(UINT8)] = {8, FIELD_INT32},
    [TYPE(INT8)] = {8, FIELD_INT32},           [TYPE(UINT16)] = {16, FIELD_INT32},
    [TYPE(INT16)] = {16, FIELD_INT32},         [TYPE(INT32)] = {32, FIELD_INT32},
    [TYPE(INT64)] = {64, FIELD_INT64},         [TYPE(BOOL)] = {8, FIELD_INT32},
    [TYPE(FLOAT16)] = {16, FIELD_INT32},       [TYPE(DOUBLE)] = {64, FIELD_DOUBLE},
    [TYPE(UINT32)] = {32, FIELD_UINT64},       [TYPE(UINT64)] = {64, FIELD_UINT64},
    [TYPE(COMPLEX64)] = {64, FIELD_FLOAT},     [TYPE(COMPLEX128)] = {128, FIELD_DOUBLE},
    [TYPE(BFLOAT16)] = {16, FIELD_INT32},      [TYPE(FLOAT8E4M3FN)] = {8, FIELD_INT32},
    [TYPE(FLOAT8E4M3FNUZ)] = {8, FIELD_INT32}, [TYPE(FLOAT8E5M2)] = {8, FIELD_INT32},
    [TYPE(FLOAT8E5M2FNUZ)] = {8, FIELD_INT32}, [TYPE(UINT4)] = {4, FIELD_INT32},
    [TYPE(INT4)] = {4, FIELD_INT32},           [TYPE(FLOAT4E2M1)] = {4, FIELD_INT32},
    [TYPE(FLOAT8E8M0)] = {8, FIELD_INT32},     [TYPE(UINT2)] = {2, FIELD_INT32},
    [TYPE(INT2)] = {2, FIELD_INT32},
};

static Storage storage_of(int dtype)
{
    size_t known = sizeof storages / sizeof storages[0];
    return dtype > 0 && (size_t)dtype < known ? storages[dtype] : (Storage){0, FIELD_NONE};
}

static int bad_tensor(const char *file, const Tensor *tensor, const char *what, Error *err)
{
    return error_set(err, ONNXPRESS_FORMAT, "%s: tensor '%s': %s", file, tensor->name, what);
}

bool proto_is_external(const Onnx__TensorProto *proto)
{
    return proto->has_data_location &&
           proto->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

int proto_view_shape(const Onnx__TensorProto *proto, const char *file, Tensor *tensor,
                     uint64_t *bytes, bool *known, Error *err)
{
    tensor->dtype = proto->has_data_type ? proto->data_type : DTYPE_UNDEFINED;
    tensor->data = NULL;
    tensor->bytes = 0;
    if (tensor->dtype == DTYPE_UNDEFINED)
        return bad_tensor(file, tensor, "has no data type", err);
    if (proto->n_dims > TENSOR_MAX_RANK)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: tensor '%s': has %zu axes, at most %d are handled", file,
                         tensor->name, proto->n_dims, TENSOR_MAX_RANK);
    tensor->shape = (Shape){.rank = (int)proto->n_dims};
    for (size_t i = 0; i < proto->n_dims; i++)
        tensor->shape.dim[i] = proto->dims[i];
    if (!shape_count(&tensor->shape, &tensor->count))
        return bad_tensor(file, tensor, "has a negative or an impossibly large dimension", err);
    Storage storage = storage_of(tensor->dtype);
    uint64_t bits;
    if (__builtin_mul_overflow((uint64_t)tensor->count, (uint64_t)storage.bits, &bits) ||
        bits > SIZE_MAX - 7)
        return bad_tensor(file, tensor, "is impossibly large", err);
    *bytes = (bits + 7) / 8; /* elements below a byte are packed */
    *known = storage.bits != 0;
    return ONNXPRESS_OK;
}

/* Elements of `width` bytes, each kept in a wider little-endian integer: their low bytes. */
static void *narrow(Arena *arena, const void *wide, size_t n, size_t wide_bytes, size_t width)
{
    unsigned char *out = arena_array(arena, n, width);
    for (size_t i = 0; out && i < n; i++)
        memcpy(out + i * width, (const unsigned char *)wide + i * wide_bytes, width);
    return out;
}

static int view_typed(const Onnx__TensorProto *proto, const char *file, Arena *arena,
                      uint64_t expected, Tensor *tensor, Error *err)
{
    Storage storage = storage_of(tensor->dtype);
    const void *array = NULL;
    size_t n = 0, element = 0;
    switch (storage.field) {
    case FIELD_FLOAT:
        array = proto->float_data;
        n = proto->n_float_data;
        element = sizeof(float);
        break;
    case FIELD_INT32:
        array = proto->int32_data;
        n = proto->n_int32_data;
        element = sizeof(int32_t);
        break;
    case FIELD_INT64:
        array = proto->int64_data;
        n = proto->n_int64_data;
        element = sizeof(int64_t);
        break;
    case FIELD_DOUBLE:
        array = proto->double_data;
        n = proto->n_double_data;
        element = sizeof(double);
        break;
    case FIELD_UINT64:
        array = proto->uint64_data;
        n = proto->n_uint64_data;
        element = sizeof(uint64_t);
        break;
    case FIELD_NONE:
        break;
    }
    size_t width = storage.bits < 8 ? 1 : storage.bits / 8; /* below a byte: packed, byte by byte */
    if (width > element)
        width = element; /* complex types: two numbers an element */
    uint64_t stored;
    if (__builtin_mul_overflow((uint64_t)n, (uint64_t)width, &stored) || stored != expected)
        return bad_tensor(file, tensor,
                          n ? "the number of its values does not match its shape" : "has no data",
                          err);
    tensor->bytes = (size_t)expected;
    tensor->data = n == 0 || width == element ? array : narrow(arena, array, n, element, width);
    return n > 0 && !tensor->data ? error_memory(err, "a tensor") : ONNXPRESS_OK;
}

int proto_view(const Onnx__TensorProto *proto, const char *file, Arena *arena, Tensor *tensor,
               Error *err)
{
    uint64_t expected = 0;
    bool known = false;
    int status = proto_view_shape(proto, file, tensor, &expected, &known, err);
    if (status)
        return status;
    if (tensor->dtype == DTYPE_STRING)
        return (uint64_t)tensor->count == proto->n_string_data
                   ? ONNXPRESS_OK
                   : bad_tensor(file, tensor, "the number of its strings does not match its shape",
                                err);
    if (!proto->has_raw_data)
        return known ? view_typed(proto, file, arena, expected, tensor, err) : ONNXPRESS_OK;
    if (known && proto->raw_data.len != expected)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': has %zu bytes of data, its shape needs %llu", file,
                         tensor->name, proto->raw_data.len, (unsigned long long)expected);
    tensor->data = proto->raw_data.len ? proto->raw_data.data : NULL;
    tensor->bytes = proto->raw_data.len;
    return ONNXPRESS_OK;
}
