/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/broadcast_internal.h"

#include <string.h>

int unary_forward(const OpCall *call, void (*run)(const Unary), void (*integers)(const Unary))
{
    int status = op_require(call, 1);
    if (status || (!integers && (status = op_require_real(call, 0))))
        return status;
    const Value *x = call->in[0];
    if ((status = op_output(call, 0, x->dtype, &x->shape)))
        return status;
    const Value *y = call->out[0];
    Unary unary = {.n = x->count, .p = call->node->params, .dtype = x->dtype};
    if (dtype_is_real(x->dtype)) {
        unary.x = x->r;
        unary.y = y->r;
        run(unary);
    } else {
        unary.xi = x->i;
        unary.yi = y->i;
        integers(unary);
    }
    return ONNXPRESS_OK;
}

bool unary_backward(const OpCall *call, Unary *unary)
{
    if (!call->d_in[0] || !call->d_out[0])
        return false;
    *unary = (Unary){.n = call->in[0]->count,
                     .x = call->in[0]->r,
                     .y = call->out[0]->r,
                     .d_x = call->d_in[0],
                     .d_y = call->d_out[0],
                     .p = call->node->params,
                     .dtype = call->in[0]->dtype};
    return true;
}

int unary_curvature(const OpCall *call, const real *const *d_out, void (*second)(const Unary))
{
    Unary unary;
    if (!unary_backward(call, &unary))
        return ONNXPRESS_OK;
    size_t n = (size_t)unary.n;
    real *ones = op_scratch(call, n, sizeof *ones);
    real *slope = ones ? op_scratch(call, n, sizeof *slope) : NULL;
    if (!slope)
        return ONNXPRESS_MEMORY;
    for (size_t e = 0; e < n; e++) {
        ones[e] = 1;
        slope[e] = 0;
    }
    OpCall unit = *call;
    unit.d_out = (const real *const[]){ones};
    unit.d_in = (real *const[]){slope, NULL, NULL}; /* Clip has three inputs */
    int status = call->node->row->backward(&unit);
    if (status)
        return status;
    for (size_t e = 0; e < n; e++)
        unary.d_x[e] += unary.d_y[e] * slope[e] * slope[e];
    unary.d_y = d_out[0];
    if (second && d_out[0])
        second(unary);
    return ONNXPRESS_OK;
}

typedef struct {
    Shape shape;
    int64_t out[TENSOR_MAX_RANK], in[2][TENSOR_MAX_RANK];
} BinaryShapes;

static bool binary_shapes(const OpCall *call, BinaryShapes *s)
{
    if (!shape_broadcast(&call->in[0]->shape, &call->in[1]->shape, &s->shape))
        return false;
    shape_strides(&s->shape, s->out);
    for (int k = 0; k < 2; k++)
        shape_broadcast_strides(&call->in[k]->shape, &s->shape, s->in[k]);
    return true;
}

int binary_forward(const OpCall *call, const Binary *binary)
{
    int status = op_require(call, 2);
    if (status || (status = op_require_alike(call, 0, 1)) ||
        (!binary->integers && (status = op_require_real(call, 0))))
        return status;
    const Value *a = call->in[0], *b = call->in[1];
    BinaryShapes s;
    if (!binary_shapes(call, &s)) {
        char text_a[100], text_b[100];
        return op_error(call, ONNXPRESS_FORMAT, "shapes %s and %s do not broadcast",
                        shape_text(&a->shape, text_a, sizeof text_a),
                        shape_text(&b->shape, text_b, sizeof text_b));
    }
    if ((status = op_output(call, 0, a->dtype, &s.shape)))
        return status;
    const Value *y = call->out[0];
    Walk w;
    if (!walk_start(&w, &s.shape, 3, (const int64_t *const[]){s.out, s.in[0], s.in[1]}))
        return ONNXPRESS_OK;
    do {
        if (dtype_is_real(a->dtype))
            binary->forward(w.inner, y->r + w.offset[0], a->r + w.offset[1], w.step[1],
                            b->r + w.offset[2], w.step[2]);
        else
            binary->integers(w.inner, y->i + w.offset[0], a->dtype, a->i + w.offset[1], w.step[1],
                             b->i + w.offset[2], w.step[2]);
    } while (walk_next(&w));
    return ONNXPRESS_OK;
}

/* Inputs that are not kept are never read by the formulas, but their pointers move. */
static const real *advance(const real *p, int64_t offset)
{
    return p ? p + offset : NULL;
}

static void add_derivative(const OpCall *call, const Binary *binary, int k, const Shape *shape,
                           const BinaryShapes *s, int first_axis, int64_t sample, real *d)
{
    const real *a = call->in[0]->r, *b = call->in[1]->r, *d_y = call->d_out[0];
    if (first_axis) {
        a = advance(a, sample * s->in[0][0]);
        b = advance(b, sample * s->in[1][0]);
        d += sample * s->in[k][0];
        d_y += sample * s->out[0];
    }
    Walk w;
    if (!walk_start(&w, shape, 3,
                    (const int64_t *const[]){s->out + first_axis, s->in[0] + first_axis,
                                             s->in[1] + first_axis}))
        return;
    do
        binary->derivative[k](w.inner, d + w.offset[1 + k], d_y + w.offset[0],
                              advance(a, w.offset[1]), w.step[1], advance(b, w.offset[2]),
                              w.step[2]);
    while (walk_next(&w));
}

int binary_backward(const OpCall *call, const Binary *binary)
{
    BinaryShapes s;
    if (!call->d_out[0] || !binary_shapes(call, &s))
        return ONNXPRESS_OK;
    for (int k = 0; k < 2; k++)
        if (call->d_in[k])
            add_derivative(call, binary, k, &s.shape, &s, 0, 0, call->d_in[k]);
    return ONNXPRESS_OK;
}

/* Reduce each sample's gradient over the broadcast axes first, then square: the sum of squares over
 * those axes would be another number. */
int binary_square(const OpCall *call, const Binary *binary, int k, real *acc)
{
    BinaryShapes s;
    if (!binary_shapes(call, &s) || s.shape.rank == 0 ||
        call->in[1 - k]->shape.rank != s.shape.rank)
        return ONNXPRESS_UNSUPPORTED; /* the samples are not along axis 0 of the output */
    if (!acc || !call->d_out[0])
        return ONNXPRESS_OK;
    int64_t count = call->in[k]->count;
    real *g = op_scratch(call, (size_t)count, sizeof *g);
    if (!g)
        return ONNXPRESS_MEMORY;
    Shape sample_shape = {.rank = s.shape.rank - 1};
    memcpy(sample_shape.dim, s.shape.dim + 1, (size_t)sample_shape.rank * sizeof s.shape.dim[0]);
    for (int64_t sample = 0; sample < s.shape.dim[0]; sample++) {
        memset(g, 0, (size_t)count * sizeof *g);
        add_derivative(call, binary, k, &sample_shape, &s, 1, sample, g);
        for (int64_t i = 0; i < count; i++)
            acc[i] += g[i] * g[i];
    }
    return ONNXPRESS_OK;
}
