/* SPDX-License-Identifier: Apache-2.0
 *
 * Comparisons and logic: broadcasting, with a bool result and no derivative. */
#include "ops/support_internal.h"

typedef enum {
    LOGIC_EQUAL,
    LOGIC_LESS,
    LOGIC_GREATER,
    LOGIC_LESS_EQUAL,
    LOGIC_GREATER_EQUAL,
    LOGIC_AND,
    LOGIC_OR,
    LOGIC_XOR
} LogicRule;

#define COMPARE(type)                                                                              \
    static bool compare_##type(LogicRule rule, type a, type b)                                     \
    {                                                                                              \
        switch (rule) {                                                                            \
        case LOGIC_EQUAL:                                                                          \
            return a == b;                                                                         \
        case LOGIC_LESS:                                                                           \
            return a < b;                                                                          \
        case LOGIC_GREATER:                                                                        \
            return a > b;                                                                          \
        case LOGIC_LESS_EQUAL:                                                                     \
            return a <= b;                                                                         \
        case LOGIC_GREATER_EQUAL:                                                                  \
            return a >= b;                                                                         \
        case LOGIC_AND:                                                                            \
            return a != 0 && b != 0;                                                               \
        case LOGIC_OR:                                                                             \
            return a != 0 || b != 0;                                                               \
        case LOGIC_XOR:                                                                            \
            break;                                                                                 \
        }                                                                                          \
        return (a != 0) != (b != 0);                                                               \
    }

COMPARE(real)
COMPARE(int64_t)

static int logic_forward(const OpCall *call, LogicRule rule)
{
    int status = op_require(call, 2);
    if (status || (status = op_require_alike(call, 0, 1)))
        return status;
    const Value *a = call->in[0], *b = call->in[1];
    Shape shape;
    if (!shape_broadcast(&a->shape, &b->shape, &shape))
        return op_error(call, ONNXPRESS_FORMAT, "the inputs' shapes do not broadcast");
    if ((status = op_output(call, 0, DTYPE_BOOL, &shape)))
        return status;
    int64_t dense[TENSOR_MAX_RANK], sa[TENSOR_MAX_RANK], sb[TENSOR_MAX_RANK];
    shape_strides(&shape, dense);
    shape_broadcast_strides(&a->shape, &shape, sa);
    shape_broadcast_strides(&b->shape, &shape, sb);
    Walk w;
    if (!walk_start(&w, &shape, 3, (const int64_t *const[]){dense, sa, sb}))
        return ONNXPRESS_OK;
    do
        for (int64_t j = 0; j < w.inner; j++) {
            int64_t ia = w.offset[1] + j * w.step[1], ib = w.offset[2] + j * w.step[2];
            call->out[0]->i[w.offset[0] + j] = dtype_is_real(a->dtype)
                                                   ? compare_real(rule, a->r[ia], b->r[ib])
                                                   : compare_int64_t(rule, a->i[ia], b->i[ib]);
        }
    while (walk_next(&w));
    return ONNXPRESS_OK;
}

OP_FORWARD(equal, logic_forward, LOGIC_EQUAL)
OP_FORWARD(less, logic_forward, LOGIC_LESS)
OP_FORWARD(greater, logic_forward, LOGIC_GREATER)
OP_FORWARD(less_equal, logic_forward, LOGIC_LESS_EQUAL)
OP_FORWARD(greater_equal, logic_forward, LOGIC_GREATER_EQUAL)
OP_FORWARD(and, logic_forward, LOGIC_AND)
OP_FORWARD(or, logic_forward, LOGIC_OR)
OP_FORWARD(xor, logic_forward, LOGIC_XOR)

static int not_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status || (status = op_require_integer(call, 0)) ||
        (status = op_output(call, 0, DTYPE_BOOL, &call->in[0]->shape)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++)
        call->out[0]->i[e] = call->in[0]->i[e] == 0;
    return ONNXPRESS_OK;
}

static int is_nan_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) ||
        (status = op_output(call, 0, DTYPE_BOOL, &call->in[0]->shape)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++)
        call->out[0]->i[e] = isnan(call->in[0]->r[e]) != 0;
    return ONNXPRESS_OK;
}

static int is_infinite_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    bool positive = attribute_int(call->node, "detect_positive", 1) != 0;
    bool negative = attribute_int(call->node, "detect_negative", 1) != 0;
    if (status || (status = op_require_real(call, 0)) ||
        (status = op_output(call, 0, DTYPE_BOOL, &call->in[0]->shape)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++) {
        real x = call->in[0]->r[e];
        call->out[0]->i[e] = isinf(x) && (x > 0 ? positive : negative);
    }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Equal", 7, 0, .forward = equal_forward},
    {"", "Less", 7, 0, .forward = less_forward},
    {"", "Greater", 7, 0, .forward = greater_forward},
    {"", "LessOrEqual", 12, 0, .forward = less_equal_forward},
    {"", "GreaterOrEqual", 12, 0, .forward = greater_equal_forward},
    {"", "And", 7, 0, .forward = and_forward},
    {"", "Or", 7, 0, .forward = or_forward},
    {"", "Xor", 7, 0, .forward = xor_forward},
    {"", "Not", 1, 0, .forward = not_forward},
    {"", "IsNaN", 9, 0, .forward = is_nan_forward},
    {"", "IsInf", 10, 0, .forward = is_infinite_forward},
};

const OpFamily op_family_logic = {rows, sizeof rows / sizeof rows[0]};
