/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops on the bits of integers. */
#include "ops/broadcast_internal.h"

#include <string.h>

/* A shift by less than nothing counts as one by more than the width. To the left bits beyond the
 * width are lost; to the right the sign of a signed type fills up. */
static int64_t shift_left(int64_t a, int64_t b)
{
    return b < 0 || b > 63 ? 0 : (int64_t)((uint64_t)a << b);
}

static int64_t shift_right(int dtype, int64_t a, int64_t b)
{
    bool fill = a < 0 && dtype != DTYPE_UINT64;
    if (b < 0 || b > 63)
        return fill ? -1 : 0;
    return fill ? ~(int64_t)((uint64_t)~a >> b) : (int64_t)((uint64_t)a >> b);
}

#define BITS(name, FORMULA)                                                                        \
    BINARY_INTEGER_RUN(name, FORMULA)                                                              \
    static int name##_forward(const OpCall *call)                                                  \
    {                                                                                              \
        static const Binary binary = {NULL, {NULL, NULL}, name##_integers};                        \
        int status = op_require(call, 2);                                                          \
        if (status || (status = op_require_integer(call, 0)))                                      \
            return status;                                                                         \
        return binary_forward(call, &binary);                                                      \
    }

BITS(bits_and, A &B)
BITS(bits_or, A | B)
BITS(bits_xor, A ^ B)
BITS(bits_left, shift_left(A, B))
BITS(bits_right, shift_right(dtype, A, B))

static int bits_not_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status || (status = op_require_integer(call, 0)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape)))
        return status;
    const Value *x = call->in[0];
    for (int64_t e = 0; e < x->count; e++)
        call->out[0]->i[e] = integer_wrap(x->dtype, ~x->i[e]);
    return ONNXPRESS_OK;
}

static int bit_shift_forward(const OpCall *call)
{
    const char *direction = attribute_string(call->node, "direction", "");
    if (strcmp(direction, "LEFT") == 0)
        return bits_left_forward(call);
    if (strcmp(direction, "RIGHT") == 0)
        return bits_right_forward(call);
    return op_error(call, ONNXPRESS_FORMAT, "the direction is neither LEFT nor RIGHT");
}

static const OpRow rows[] = {
    {"", "BitwiseAnd", 18, 0, .forward = bits_and_forward},
    {"", "BitwiseOr", 18, 0, .forward = bits_or_forward},
    {"", "BitwiseXor", 18, 0, .forward = bits_xor_forward},
    {"", "BitwiseNot", 18, 0, .forward = bits_not_forward},
    {"", "BitShift", 11, 0, .forward = bit_shift_forward},
};

const OpFamily op_family_bitwise = {rows, sizeof rows / sizeof rows[0]};
