/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ops/support_internal.h"

/* The first length[b] steps of each sequence b in reverse; one permutation forwards and back. */
typedef struct {
    int64_t outer, middle, inner; /* before, between and behind the two axes */
    int64_t batch, steps;
    bool time_first;
    const int64_t *length;
} Sequences;

static int sequences_open(const OpCall *call, Sequences *s)
{
    const Shape *x = &call->in[0]->shape;
    int batch, time, n, status = op_axis(call, attribute_int(call->node, "batch_axis", 1), x->rank,
                                         &batch);
    if (!status)
        status = op_axis(call, attribute_int(call->node, "time_axis", 0), x->rank, &time);
    if (status)
        return status;
    if (batch == time)
        return op_error(call, ONNXPRESS_FORMAT, "batch and time are one axis, %d", time);
    int first = batch < time ? batch : time, second = batch < time ? time : batch;
    *s = (Sequences){.outer = dims_product(x, 0, first),
                     .middle = dims_product(x, first + 1, second),
                     .inner = dims_product(x, second + 1, x->rank),
                     .batch = x->dim[batch],
                     .steps = x->dim[time],
                     .time_first = time < batch};
    status = op_list(call, 1, INT32_MAX, &s->length, &n);
    if (status)
        return status;
    if (n != s->batch)
        return op_error(call, ONNXPRESS_FORMAT, "%d lengths for %lld sequences", n,
                        (long long)s->batch);
    for (int64_t b = 0; b < s->batch; b++)
        if (s->length[b] < 0 || s->length[b] > s->steps)
            return op_error(call, ONNXPRESS_DATA, "sequence %lld has %lld steps of %lld",
                            (long long)b, (long long)s->length[b], (long long)s->steps);
    return ONNXPRESS_OK;
}

/* Where the innermost elements of (outer o, batch b, time t, middle m) begin. */
static int64_t place(const Sequences *s, int64_t o, int64_t b, int64_t t, int64_t m)
{
    int64_t first = s->time_first ? t : b, second = s->time_first ? b : t;
    int64_t firsts = s->time_first ? s->steps : s->batch;
    int64_t seconds = s->time_first ? s->batch : s->steps;
    return (((o * firsts + first) * s->middle + m) * seconds + second) * s->inner;
}

typedef void MoveBlock(void *context, int64_t to, int64_t from, int64_t n);

static void each_block(const Sequences *s, MoveBlock *move, void *context)
{
    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t b = 0; b < s->batch; b++)
            for (int64_t t = 0; t < s->steps; t++)
                for (int64_t m = 0; m < s->middle; m++) {
                    int64_t other = t < s->length[b] ? s->length[b] - 1 - t : t;
                    move(context, place(s, o, b, t, m), place(s, o, b, other, m), s->inner);
                }
}

static void copy_block(void *context, int64_t to, int64_t from, int64_t n)
{
    const OpCall *call = context;
    size_t width = value_element(call->in[0]);
    memcpy((char *)value_data(call->out[0]) + (size_t)to * width,
           (const char *)value_data(call->in[0]) + (size_t)from * width, (size_t)n * width);
}

static void add_block(void *context, int64_t to, int64_t from, int64_t n)
{
    const OpCall *call = context;
    add_dense(n, call->d_in[0] + from, call->d_out[0] + to);
}

static int reverse_forward(const OpCall *call)
{
    Sequences s;
    int status = op_require(call, 2);
    if (!status)
        status = sequences_open(call, &s);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape);
    if (!status && call->in[0]->count > 0)
        each_block(&s, copy_block, (void *)(uintptr_t)call);
    return status;
}

static int reverse_backward(const OpCall *call)
{
    Sequences s;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = sequences_open(call, &s);
    if (!status)
        each_block(&s, add_block, (void *)(uintptr_t)call);
    return status;
}

static const OpRow rows[] = {
    {"", "ReverseSequence", 10, OP_KEEP_INPUTS, .forward = reverse_forward,
     .backward = reverse_backward, .curvature = curvature_as_backward},
};

const OpFamily op_family_reverse_sequence = {rows, sizeof rows / sizeof rows[0]};
