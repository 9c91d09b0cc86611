/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that make tensors out of attributes and shapes. */
#include "model/graph.h"
#include "model/inline.h"
#include "ops/support_internal.h"

#include <string.h>

#ifdef ONNXPRESS_F64
#define TENSOR_TO_REAL tensor_to_double
#else
#define TENSOR_TO_REAL tensor_to_float
#endif

/* A tensor attribute, or a value_* attribute, ready to be copied out. */
typedef struct {
    int dtype;
    Shape shape;
    int64_t count;
    real *r;
    int64_t *i;
} Literal;

/* The elements of a TensorProto that is held inline: raw bytes or the typed field. */
static bool literal_bytes(const Onnx__TensorProto *proto, Tensor *tensor, Arena *arena)
{
    size_t n = (size_t)tensor->count, width = dtype_bytes(tensor->dtype);
    if (proto->has_raw_data) {
        tensor->data = proto->raw_data.data;
        return proto->raw_data.len / width == n && proto->raw_data.len % width == 0;
    }
    switch (tensor->dtype) {
    case DTYPE_FLOAT:
        tensor->data = proto->float_data;
        return proto->n_float_data == n;
    case DTYPE_DOUBLE:
        tensor->data = proto->double_data;
        return proto->n_double_data == n;
    case DTYPE_INT64:
        tensor->data = proto->int64_data;
        return proto->n_int64_data == n;
    case DTYPE_UINT64:
    case DTYPE_UINT32:
        if (proto->n_uint64_data != n)
            return false;
        tensor->dtype = DTYPE_UINT64;
        tensor->data = proto->uint64_data;
        return true;
    default:
        break;
    }
    /* All narrower types lie in int32_data, the 16-bit floats as bit patterns. */
    if (proto->n_int32_data != n)
        return false;
    if (dtype_is_integer(tensor->dtype)) {
        tensor->dtype = DTYPE_INT32;
        tensor->data = proto->int32_data;
        return true;
    }
    uint16_t *bits = arena_array(arena, n, sizeof *bits);
    for (size_t e = 0; bits && e < n; e++)
        bits[e] = (uint16_t)proto->int32_data[e];
    tensor->data = bits;
    return bits != NULL;
}

static int read_tensor(const OpNode *node, const Onnx__TensorProto *proto, Arena *arena,
                       Literal *out, Error *err)
{
    Tensor tensor = {.name = proto->name, .dtype = proto->data_type};
    if (proto->n_dims > TENSOR_MAX_RANK)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "the tensor has rank %zu, above %d",
                          proto->n_dims, TENSOR_MAX_RANK);
    tensor.shape.rank = (int)proto->n_dims;
    for (size_t a = 0; a < proto->n_dims; a++)
        tensor.shape.dim[a] = proto->dims[a];
    if (!dtype_bytes(tensor.dtype))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "tensors of %s are not handled",
                          dtype_name(tensor.dtype));
    out->dtype = tensor.dtype;
    out->shape = tensor.shape;
    if (!shape_count(&tensor.shape, &tensor.count) || !literal_bytes(proto, &tensor, arena))
        return read_error(node, err, ONNXPRESS_FORMAT,
                          "the tensor's data does not fit its shape, or lies in another file");
    out->count = tensor.count;
    if (dtype_is_real(out->dtype)) {
        if (!(out->r = arena_array(arena, (size_t)tensor.count, sizeof *out->r)))
            return error_memory(err, "a constant");
        return TENSOR_TO_REAL(&tensor, out->r, err);
    }
    if (!(out->i = arena_array(arena, (size_t)tensor.count, sizeof *out->i)))
        return error_memory(err, "a constant");
    return tensor_to_int64(&tensor, out->i, err);
}

static int literal_allocate(Literal *out, int dtype, int rank, size_t n, Arena *arena, Error *err)
{
    out->dtype = dtype;
    out->shape = (Shape){.rank = rank, .dim = {(int64_t)n}};
    out->count = (int64_t)n;
    if (dtype_is_real(dtype))
        out->r = arena_array(arena, n, sizeof *out->r);
    else
        out->i = arena_array(arena, n, sizeof *out->i);
    return out->r || out->i ? ONNXPRESS_OK : error_memory(err, "a constant");
}

static int read_constant(OpNode *node, Arena *arena, Error *err)
{
    Literal *literal = arena_array(arena, 1, sizeof *literal);
    if (!literal)
        return error_memory(err, "a node's parameters");
    node->params = literal;
    const Onnx__AttributeProto *a;
    int status;
    if ((a = node_attribute(node->proto, "value")) && a->t)
        return read_tensor(node, a->t, arena, literal, err);
    if ((a = node_attribute(node->proto, "value_float"))) {
        if (!(status = literal_allocate(literal, DTYPE_FLOAT, 0, 1, arena, err)))
            literal->r[0] = (real)a->f;
        return status;
    }
    if ((a = node_attribute(node->proto, "value_int"))) {
        if (!(status = literal_allocate(literal, DTYPE_INT64, 0, 1, arena, err)))
            literal->i[0] = a->i;
        return status;
    }
    if ((a = node_attribute(node->proto, "value_floats"))) {
        status = literal_allocate(literal, DTYPE_FLOAT, 1, a->n_floats, arena, err);
        for (size_t e = 0; !status && e < a->n_floats; e++)
            literal->r[e] = (real)a->floats[e];
        return status;
    }
    if ((a = node_attribute(node->proto, "value_ints"))) {
        status = literal_allocate(literal, DTYPE_INT64, 1, a->n_ints, arena, err);
        for (size_t e = 0; !status && e < a->n_ints; e++)
            literal->i[e] = a->ints[e];
        return status;
    }
    return read_error(
        node, err, ONNXPRESS_UNSUPPORTED,
        "only constants of numbers (value, value_float(s), value_int(s)) are handled");
}

static int constant_forward(const OpCall *call)
{
    const Literal *literal = call->node->params;
    int status = op_require(call, 0);
    if (status || (status = op_output(call, 0, literal->dtype, &literal->shape)))
        return status;
    Value *y = call->out[0];
    if (literal->count && literal->r)
        memcpy(y->r, literal->r, (size_t)literal->count * sizeof *y->r);
    else if (literal->count)
        memcpy(y->i, literal->i, (size_t)literal->count * sizeof *y->i);
    return ONNXPRESS_OK;
}

static int read_constant_of_shape(OpNode *node, Arena *arena, Error *err)
{
    Literal *literal = arena_array(arena, 1, sizeof *literal);
    if (!literal)
        return error_memory(err, "a node's parameters");
    node->params = literal;
    const Onnx__AttributeProto *a = node_attribute(node->proto, "value");
    if (!a || !a->t)
        return literal_allocate(literal, DTYPE_FLOAT, 0, 1, arena, err); /* zero */
    int status = read_tensor(node, a->t, arena, literal, err);
    if (!status && literal->count != 1)
        return read_error(node, err, ONNXPRESS_FORMAT, "the value is not one number");
    return status;
}

static int constant_of_shape_forward(const OpCall *call)
{
    const Literal *literal = call->node->params;
    const int64_t *dims;
    Shape shape;
    int status = op_require(call, 1);
    if (status || (status = op_list(call, 0, TENSOR_MAX_RANK, &dims, &shape.rank)))
        return status;
    for (int a = 0; a < shape.rank; a++)
        if ((shape.dim[a] = dims[a]) < 0)
            return op_error(call, ONNXPRESS_FORMAT, "a dimension is negative");
    if ((status = op_output(call, 0, literal->dtype, &shape)))
        return status;
    Value *y = call->out[0];
    for (int64_t e = 0; e < y->count; e++)
        if (literal->r)
            y->r[e] = literal->r[0];
        else
            y->i[e] = literal->i[0];
    return ONNXPRESS_OK;
}

static int range_forward(const OpCall *call)
{
    int status = op_require(call, 3);
    for (int k = 0; !status && k < 3; k++) {
        if (call->in[k]->count != 1)
            return op_error(call, ONNXPRESS_FORMAT, "input %d is not one number", k);
        status = op_require_alike(call, 0, k);
    }
    if (status)
        return status;
    int dtype = call->in[0]->dtype;
    bool is_real = dtype_is_real(dtype);
    double number[3]; /* start, limit, step: the length alone is counted in floating point */
    for (int k = 0; k < 3; k++)
        number[k] = is_real ? (double)call->in[k]->r[0] : (double)call->in[k]->i[0];
    double length = ceil((number[1] - number[0]) / number[2]);
    if (number[2] == 0 || !(length < 0x1p53))
        return op_error(call, ONNXPRESS_DATA, "start, limit and step make no finite range");
    Shape shape = {.rank = 1, .dim = {length > 0 ? (int64_t)length : 0}};
    if ((status = op_output(call, 0, dtype, &shape)))
        return status;
    Value *y = call->out[0];
    for (int64_t e = 0; e < y->count; e++)
        if (is_real)
            y->r[e] = (real)(number[0] + (double)e * number[2]);
        else
            y->i[e] = integer_wrap(dtype, (int64_t)((uint64_t)call->in[0]->i[0] +
                                                    (uint64_t)e * (uint64_t)call->in[2]->i[0]));
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Constant", 1, 0, .read = read_constant, .forward = constant_forward},
    {INLINE_EXACT, "Constant", 1, 0, .read = read_constant, .forward = constant_forward},
    {"", "ConstantOfShape", 9, 0, .read = read_constant_of_shape,
     .forward = constant_of_shape_forward},
    {"", "Range", 11, 0, .forward = range_forward},
};

const OpFamily op_family_constant = {rows, sizeof rows / sizeof rows[0]};
