/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that hand a value on: as it is, or as another type. */
#include "ops/support_internal.h"
#include "tensor/small.h"

#define R_2_63 ((real)0x1p63)

static int identity_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    return status ? status : op_alias(call, 0, call->in[0], &call->in[0]->shape);
}

/* At inference nothing is dropped; the mask says so. */
static int dropout_forward(const OpCall *call)
{
    if (!op_in(call, 0))
        return op_error(call, ONNXPRESS_FORMAT, "input 0 is missing");
    const Value *x = call->in[0], *training = op_in(call, 2);
    if (training && dtype_is_integer(training->dtype) && training->count == 1 && training->i[0])
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "dropout in training mode is random: export the model for inference");
    int status = ONNXPRESS_OK;
    if (call->n_out > 0 && call->out[0])
        status = op_alias(call, 0, x, &x->shape);
    if (!status && call->n_out > 1 && call->out[1]) {
        status = op_output(call, 1, DTYPE_BOOL, &x->shape);
        for (int64_t e = 0; !status && e < x->count; e++)
            call->out[1]->i[e] = 1;
    }
    return status;
}

/* Fractions are cut off; what does not fit a type becomes the type's low bits, what fits no 64-bit
 * integer 0. */
static int64_t integer_from_real(int dtype, real x)
{
    if (dtype == DTYPE_BOOL)
        return x != 0;
    if (dtype == DTYPE_UINT64 && x >= R_2_63 && x < 2 * R_2_63)
        return (int64_t)(uint64_t)x;
    return x >= -R_2_63 && x < R_2_63 ? integer_wrap(dtype, (int64_t)x) : 0;
}

static int cast_to(const OpCall *call, int to)
{
    const Value *x = call->in[0];
    bool from_real = dtype_is_real(x->dtype), to_real = dtype_is_real(to);
    int status;
    if (to == DTYPE_FLOAT8E8M0 && to != x->dtype)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "a cast to %s is not handled", dtype_name(to));
    if (from_real == to_real && (to_real ? !small_known(to) : to == x->dtype)) {
        status = op_alias(call, 0, x, &x->shape);
        if (!status)
            call->out[0]->dtype = to;
        return status;
    }
    if (!to_real && !dtype_is_integer(to))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "a cast to %s is not handled", dtype_name(to));
    if ((status = op_output(call, 0, to, &x->shape)))
        return status;
    Value *y = call->out[0];
    bool saturate = attribute_int(call->node, "saturate", 1) != 0;
    if (to_real && small_known(to))
        for (int64_t e = 0; e < x->count; e++)
            y->r[e] = (real)small_round(to, x->r ? (double)x->r[e] : (double)x->i[e], saturate);
    else if (to_real)
        for (int64_t e = 0; e < x->count; e++)
            y->r[e] = x->dtype == DTYPE_UINT64 ? (real)(uint64_t)x->i[e] : (real)x->i[e];
    else if (from_real)
        for (int64_t e = 0; e < x->count; e++)
            y->i[e] = integer_from_real(to, x->r[e]);
    else
        for (int64_t e = 0; e < x->count; e++)
            y->i[e] = integer_wrap(to, x->i[e]);
    return ONNXPRESS_OK;
}

static int cast_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    return status ? status : cast_to(call, (int)attribute_int(call->node, "to", DTYPE_UNDEFINED));
}

static int cast_like_forward(const OpCall *call)
{
    int status = op_require(call, 2);
    return status ? status : cast_to(call, call->in[1]->dtype);
}

/* Between real types; a cast to or from others has no derivative, and no gradient comes here. */
static int cast_backward(const OpCall *call)
{
    if (!dtype_is_real(call->in[0]->dtype) || !dtype_is_real(call->out[0]->dtype))
        return ONNXPRESS_OK;
    return same_backward(call);
}

static const OpRow rows[] = {
    {"", "Identity", 1, 0, .forward = identity_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Dropout", 7, 0, .forward = dropout_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Cast", 6, 0, .forward = cast_forward, .backward = cast_backward,
     .curvature = curvature_as_backward},
    {"", "CastLike", 15, 0, .forward = cast_like_forward, .backward = cast_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_cast = {rows, sizeof rows / sizeof rows[0]};
