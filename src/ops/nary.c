/* SPDX-License-Identifier: Apache-2.0
 *
 * Elementwise ops over any number of broadcast inputs (Sum, Mean, Max, Min), and Where. */
#include "ops/broadcast_internal.h"

#include <string.h>

typedef enum { NARY_SUM, NARY_MEAN, NARY_MOST, NARY_LEAST } NaryRule;

static int nary_shape(const OpCall *call, Shape *shape)
{
    int status = op_require(call, call->n_in > 1 ? call->n_in : 1);
    if (status)
        return status;
    *shape = call->in[0]->shape;
    for (int k = 1; k < call->n_in; k++) {
        if ((status = op_require_alike(call, 0, k)))
            return status;
        if (!shape_broadcast(shape, &call->in[k]->shape, shape))
            return op_error(call, ONNXPRESS_FORMAT, "input %d does not broadcast with the others",
                            k);
    }
    return ONNXPRESS_OK;
}

static bool input_walk(Walk *walk, const Shape *shape, const Value *in)
{
    int64_t dense[TENSOR_MAX_RANK], stride[TENSOR_MAX_RANK];
    shape_strides(shape, dense);
    shape_broadcast_strides(&in->shape, shape, stride);
    return walk_start(walk, shape, 2, (const int64_t *const[]){dense, stride});
}

static void take_real(NaryRule rule, bool first, int64_t n, real *y, const real *x, int64_t step)
{
    if (first)
        for (int64_t j = 0; j < n; j++)
            y[j] = x[j * step];
    else if (rule == NARY_MOST)
        for (int64_t j = 0; j < n; j++)
            y[j] = x[j * step] > y[j] || x[j * step] != x[j * step] ? x[j * step] : y[j];
    else if (rule == NARY_LEAST)
        for (int64_t j = 0; j < n; j++)
            y[j] = x[j * step] < y[j] || x[j * step] != x[j * step] ? x[j * step] : y[j];
    else
        for (int64_t j = 0; j < n; j++)
            y[j] += x[j * step];
}

static void take_integer(NaryRule rule, bool first, int64_t n, int64_t *y, const int64_t *x,
                         int64_t step)
{
    for (int64_t j = 0; j < n; j++) {
        int64_t v = x[j * step];
        if (first || (rule == NARY_MOST && v > y[j]) || (rule == NARY_LEAST && v < y[j]))
            y[j] = v;
    }
}

static int nary_forward(const OpCall *call, NaryRule rule)
{
    Shape shape;
    int status = nary_shape(call, &shape);
    bool additive = rule == NARY_SUM || rule == NARY_MEAN;
    if (status || (additive && (status = op_require_real(call, 0))) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)))
        return status;
    Value *y = call->out[0];
    for (int k = 0; k < call->n_in; k++) {
        const Value *x = call->in[k];
        Walk w;
        if (!input_walk(&w, &shape, x))
            return ONNXPRESS_OK;
        do
            if (dtype_is_real(x->dtype))
                take_real(rule, k == 0, w.inner, y->r + w.offset[0], x->r + w.offset[1], w.step[1]);
            else
                take_integer(rule, k == 0, w.inner, y->i + w.offset[0], x->i + w.offset[1],
                             w.step[1]);
        while (walk_next(&w));
    }
    if (rule == NARY_MEAN)
        for (int64_t e = 0; e < y->count; e++)
            y->r[e] /= (real)call->n_in;
    return ONNXPRESS_OK;
}

static int additive_backward(const OpCall *call, real scale)
{
    const Shape *shape = &call->out[0]->shape;
    for (int k = 0; call->d_out[0] && k < call->n_in; k++) {
        Walk w;
        if (!call->d_in[k] || !input_walk(&w, shape, call->in[k]))
            continue;
        do {
            real *d = call->d_in[k] + w.offset[1];
            const real *d_y = call->d_out[0] + w.offset[0];
            for (int64_t j = 0; j < w.inner; j++)
                d[j * w.step[1]] += scale * d_y[j];
        } while (walk_next(&w));
    }
    return ONNXPRESS_OK;
}

/* The gradient goes to the first input that attains the extreme. */
static int extreme_backward(const OpCall *call)
{
    const Value *y = call->out[0];
    if (!call->d_out[0] || y->count == 0)
        return ONNXPRESS_OK;
    bool *given = op_scratch(call, (size_t)y->count, sizeof *given);
    if (!given)
        return ONNXPRESS_MEMORY;
    memset(given, 0, (size_t)y->count * sizeof *given);
    for (int k = 0; k < call->n_in; k++) {
        Walk w;
        if (!input_walk(&w, &y->shape, call->in[k]))
            continue;
        do
            for (int64_t j = 0; j < w.inner; j++) {
                int64_t o = w.offset[0] + j, i = w.offset[1] + j * w.step[1];
                if (given[o] || call->in[k]->r[i] != y->r[o])
                    continue;
                given[o] = true;
                if (call->d_in[k])
                    call->d_in[k][i] += call->d_out[0][o];
            }
        while (walk_next(&w));
    }
    return ONNXPRESS_OK;
}

OP_FORWARD(sum, nary_forward, NARY_SUM)
OP_FORWARD(mean, nary_forward, NARY_MEAN)
OP_FORWARD(most, nary_forward, NARY_MOST)
OP_FORWARD(least, nary_forward, NARY_LEAST)

static int sum_backward(const OpCall *call)
{
    return additive_backward(call, 1);
}

static int mean_backward(const OpCall *call)
{
    return additive_backward(call, 1 / (real)call->n_in);
}

static int mean_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out;
    return additive_backward(call, 1 / ((real)call->n_in * (real)call->n_in));
}

/* Where: operands of the walk are the result, the condition and the two choices. */
static int where_walk(const OpCall *call, Shape *shape, Walk *walk, bool *any)
{
    int64_t stride[4][TENSOR_MAX_RANK];
    *shape = call->in[0]->shape;
    for (int k = 1; k < 3; k++)
        if (!shape_broadcast(shape, &call->in[k]->shape, shape))
            return op_error(call, ONNXPRESS_FORMAT, "input %d does not broadcast with the others",
                            k);
    shape_strides(shape, stride[0]);
    for (int k = 0; k < 3; k++)
        shape_broadcast_strides(&call->in[k]->shape, shape, stride[k + 1]);
    *any = walk_start(walk, shape, 4,
                      (const int64_t *const[]){stride[0], stride[1], stride[2], stride[3]});
    return ONNXPRESS_OK;
}

static int where_forward(const OpCall *call)
{
    Shape shape;
    Walk w;
    bool any;
    int status = op_require(call, 3);
    if (status || (status = op_require_integer(call, 0)) ||
        (status = op_require_alike(call, 1, 2)) || (status = where_walk(call, &shape, &w, &any)) ||
        (status = op_output(call, 0, call->in[1]->dtype, &shape)) || !any)
        return status;
    const Value *a = call->in[1], *b = call->in[2], *y = call->out[0];
    do {
        const int64_t *condition = call->in[0]->i + w.offset[1];
        for (int64_t j = 0; j < w.inner; j++) {
            int64_t ia = w.offset[2] + j * w.step[2], ib = w.offset[3] + j * w.step[3];
            if (dtype_is_real(a->dtype))
                y->r[w.offset[0] + j] = condition[j * w.step[1]] ? a->r[ia] : b->r[ib];
            else
                y->i[w.offset[0] + j] = condition[j * w.step[1]] ? a->i[ia] : b->i[ib];
        }
    } while (walk_next(&w));
    return ONNXPRESS_OK;
}

static int where_backward(const OpCall *call)
{
    Shape shape;
    Walk w;
    bool any;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    int status = where_walk(call, &shape, &w, &any);
    if (status || !any)
        return status;
    do
        for (int64_t j = 0; j < w.inner; j++) {
            int k = call->in[0]->i[w.offset[1] + j * w.step[1]] ? 1 : 2;
            if (call->d_in[k])
                call->d_in[k][w.offset[k + 1] + j * w.step[k + 1]] +=
                    call->d_out[0][w.offset[0] + j];
        }
    while (walk_next(&w));
    return ONNXPRESS_OK;
}

#define BOTH (OP_KEEP_INPUTS | OP_KEEP_OUTPUTS)
static const OpRow rows[] = {
    {"", "Sum", 6, 0, .forward = sum_forward, .backward = sum_backward,
     .curvature = curvature_as_backward},
    {"", "Mean", 6, 0, .forward = mean_forward, .backward = mean_backward,
     .curvature = mean_curvature},
    {"", "Max", 6, BOTH, .forward = most_forward, .backward = extreme_backward,
     .curvature = curvature_as_backward},
    {"", "Min", 6, BOTH, .forward = least_forward, .backward = extreme_backward,
     .curvature = curvature_as_backward},
    {"", "Where", 9, OP_KEEP_INPUTS, .forward = where_forward, .backward = where_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_nary = {rows, sizeof rows / sizeof rows[0]};
