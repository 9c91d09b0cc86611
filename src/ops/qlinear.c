/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's ops on quantized tensors: each computes in reals on what its inputs stand for, and
 * quantizes the result. They have no derivative. */
#include "ops/quantized_internal.h"
#include "ops/window_internal.h"

#include <string.h>

/* A tensor with its scale and zero point, which are the three inputs from one number on. */
typedef struct {
    const Value *x;
    real scale;
    int64_t zero;
} Quantized;

/* Inputs k and k + 1: a scale, and a zero point that may be omitted. */
static int read_scale(const OpCall *call, int k, real *scale, int64_t *zero)
{
    const Value *point = op_in(call, k + 1);
    int status = op_require_real(call, k);
    if (!status && point)
        status = op_require_integer(call, k + 1);
    if (!status && (call->in[k]->count != 1 || (point && point->count != 1)))
        status = op_error(call, ONNXPRESS_UNSUPPORTED, "input %d or %d is not one number", k,
                          k + 1);
    if (status)
        return status;
    *scale = call->in[k]->r[0];
    *zero = point ? point->i[0] : 0;
    return ONNXPRESS_OK;
}

static int read_input(const OpCall *call, int k, Quantized *q)
{
    int status = op_require_integer(call, k);
    if (!status)
        status = read_scale(call, k + 1, &q->scale, &q->zero);
    q->x = op_in(call, k);
    return status;
}

static inline real number_at(const Quantized *q, int64_t e)
{
    return (real)((double)q->x->i[e] - (double)q->zero) * q->scale;
}

/* How output 0 is quantized. */
typedef struct {
    real scale;
    int64_t zero;
    double least, most;
} Target;

/* By inputs k and k + 1, to the type of `like`. */
static int make_target(const OpCall *call, int k, const Value *like, const Shape *shape,
                       Target *target)
{
    int status = op_require(call, 1);
    if (status || (status = read_scale(call, k, &target->scale, &target->zero)))
        return status;
    int dtype = op_in(call, k + 1) ? call->in[k + 1]->dtype : like->dtype;
    if (!quantized_range(dtype, &target->least, &target->most))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "quantizing to %s is not handled",
                        dtype_name(dtype));
    return op_output(call, 0, dtype, shape);
}

static inline void put(const OpCall *call, const Target *t, int64_t e, real value)
{
    call->out[0]->i[e] =
        quantize_number((double)(value / t->scale), t->zero, t->least, t->most);
}

/* ---- of two tensors ---- */

static int binary_forward(const OpCall *call, bool product)
{
    Quantized a, b;
    Target target;
    Shape shape;
    int status = read_input(call, 0, &a);
    if (status || (status = read_input(call, 3, &b)))
        return status;
    if (!shape_broadcast(&a.x->shape, &b.x->shape, &shape))
        return op_error(call, ONNXPRESS_FORMAT, "the inputs' shapes do not broadcast");
    if ((status = make_target(call, 6, a.x, &shape, &target)))
        return status;
    int64_t dense[TENSOR_MAX_RANK], sa[TENSOR_MAX_RANK], sb[TENSOR_MAX_RANK];
    shape_strides(&shape, dense);
    shape_broadcast_strides(&a.x->shape, &shape, sa);
    shape_broadcast_strides(&b.x->shape, &shape, sb);
    Walk w;
    if (!walk_start(&w, &shape, 3, (const int64_t *const[]){dense, sa, sb}))
        return ONNXPRESS_OK;
    do
        for (int64_t j = 0; j < w.inner; j++) {
            real x = number_at(&a, w.offset[1] + j * w.step[1]);
            real y = number_at(&b, w.offset[2] + j * w.step[2]);
            put(call, &target, w.offset[0] + j, product ? x * y : x + y);
        }
    while (walk_next(&w));
    return ONNXPRESS_OK;
}

OP_FORWARD(add, binary_forward, false)
OP_FORWARD(multiply, binary_forward, true)

/* ---- of one tensor, element by element ---- */

static int unary_forward(const OpCall *call, real (*function)(real x, real alpha))
{
    Quantized q;
    Target target;
    int status = read_input(call, 0, &q);
    if (status || (status = make_target(call, 3, q.x, &q.x->shape, &target)))
        return status;
    real alpha = (real)attribute_float(call->node, "alpha", 0.01f);
    for (int64_t e = 0; e < q.x->count; e++)
        put(call, &target, e, function(number_at(&q, e), alpha));
    return ONNXPRESS_OK;
}

static real sigmoid(real x, real alpha)
{
    (void)alpha;
    return 1 / (1 + REAL_EXP(-x));
}

static real leaky(real x, real alpha)
{
    return x < 0 ? alpha * x : x;
}

OP_FORWARD(sigmoid, unary_forward, sigmoid)
OP_FORWARD(leaky, unary_forward, leaky)

/* ---- rows and planes ---- */

static int softmax_forward(const OpCall *call)
{
    Quantized q;
    Target target;
    int axis, status = read_input(call, 0, &q);
    if (status)
        return status;
    const Shape *s = &q.x->shape;
    if ((status = op_axis(call, attribute_int(call->node, "axis", -1), s->rank, &axis)) ||
        (status = make_target(call, 3, q.x, s, &target)) || q.x->count == 0)
        return status;
    /* Before opset 13 a row is all axes from this one on. */
    bool flat = attribute_int(call->node, "opset", 13) < 13;
    int64_t n = dims_product(s, axis, flat ? s->rank : axis + 1);
    int64_t step = flat ? 1 : dims_product(s, axis + 1, s->rank);
    for (int64_t row = 0; row < q.x->count / n; row++) {
        int64_t first = row / step * n * step + row % step;
        real most = -INFINITY, sum = 0;
        for (int64_t k = 0; k < n; k++)
            most = number_at(&q, first + k * step) > most ? number_at(&q, first + k * step) : most;
        for (int64_t k = 0; k < n; k++)
            sum += REAL_EXP(number_at(&q, first + k * step) - most);
        for (int64_t k = 0; k < n; k++)
            put(call, &target, first + k * step,
                REAL_EXP(number_at(&q, first + k * step) - most) / sum);
    }
    return ONNXPRESS_OK;
}

static int global_average_forward(const OpCall *call)
{
    Quantized q;
    Target target;
    int status = read_input(call, 0, &q);
    if (status)
        return status;
    Shape shape = q.x->shape;
    if (shape.rank < 3)
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d", shape.rank);
    bool last = attribute_int(call->node, "channels_last", 0) != 0;
    int first = last ? 1 : 2, end = last ? shape.rank - 1 : shape.rank;
    int64_t n = dims_product(&shape, first, end), step = last ? shape.dim[end] : 1;
    for (int a = first; a < end; a++)
        shape.dim[a] = 1;
    if (n < 1)
        return op_error(call, ONNXPRESS_FORMAT, "an input without elements");
    if ((status = make_target(call, 3, q.x, &shape, &target)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++) {
        int64_t from = last ? e / step * n * step + e % step : e * n;
        real sum = 0;
        for (int64_t k = 0; k < n; k++)
            sum += number_at(&q, from + k * step);
        put(call, &target, e, sum / (real)n);
    }
    return ONNXPRESS_OK;
}

static int average_forward(const OpCall *call)
{
    const WindowParams *params = call->node->params;
    Quantized q;
    Target target;
    Window w;
    Shape shape;
    int status = read_input(call, 0, &q);
    if (status)
        return status;
    if (attribute_int(call->node, "channels_last", 0) ||
        (params->ceil_mode && params->count_include_pad) || !params->has_kernel)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "these attributes are not handled");
    if ((status = window_make(call, params, &q.x->shape, params->kernel, &w, &shape)))
        return status;
    shape.dim[0] = q.x->shape.dim[0];
    shape.dim[1] = q.x->shape.dim[1];
    if ((status = make_target(call, 3, q.x, &shape, &target)))
        return status;
    real *plane = op_scratch(call, (size_t)w.in_size + 1, sizeof *plane);
    real *columns = op_scratch(call, (size_t)w.kernel_size, (size_t)w.out_size * sizeof *columns);
    real *counts = op_scratch(call, (size_t)w.out_size, sizeof *counts);
    if (!plane || !columns || !counts)
        return ONNXPRESS_MEMORY;
    for (int64_t k = -1; k < shape.dim[0] * shape.dim[1]; k++) { /* -1: counts the taps inside */
        for (int64_t e = 0; e < w.in_size; e++)
            plane[e] = k < 0 ? 1 : number_at(&q, k * w.in_size + e);
        window_unfold(&w, plane, columns);
        for (int64_t o = 0; o < w.out_size; o++) {
            real sum = 0;
            for (int64_t t = 0; t < w.kernel_size; t++)
                sum += columns[t * w.out_size + o];
            if (k < 0)
                counts[o] = params->count_include_pad ? (real)w.kernel_size : sum > 0 ? sum : 1;
            else
                put(call, &target, k * w.out_size + o, sum / counts[o]);
        }
    }
    return ONNXPRESS_OK;
}

/* ---- of many tensors ---- */

static int concat_forward(const OpCall *call)
{
    int n = (call->n_in - 2) / 3, axis, status;
    if (n < 1 || call->n_in != 2 + 3 * n || !op_in(call, 2))
        return op_error(call, ONNXPRESS_FORMAT, "%d inputs", call->n_in);
    Shape shape = call->in[2]->shape;
    if ((status = op_axis(call, attribute_int(call->node, "axis", 0), shape.rank, &axis)))
        return status;
    int64_t total = 0;
    Quantized q;
    for (int k = 0; k < n; k++) {
        if ((status = read_input(call, 2 + 3 * k, &q)))
            return status;
        Shape same = q.x->shape;
        if (same.rank == shape.rank)
            same.dim[axis] = shape.dim[axis];
        if (!shape_equal(&same, &shape) ||
            __builtin_add_overflow(total, q.x->shape.dim[axis], &total))
            return op_error(call, ONNXPRESS_FORMAT, "input %d does not fit", 2 + 3 * k);
    }
    Target target;
    shape.dim[axis] = total;
    if ((status = make_target(call, 0, call->in[2], &shape, &target)) || call->out[0]->count == 0)
        return status;
    int64_t inner = dims_product(&shape, axis + 1, shape.rank), at = 0;
    for (int k = 0; k < n; k++) {
        read_input(call, 2 + 3 * k, &q);
        int64_t run = q.x->shape.dim[axis] * inner;
        for (int64_t e = 0; e < q.x->count; e++)
            put(call, &target, e / run * total * inner + at + e % run, number_at(&q, e));
        at += run;
    }
    return ONNXPRESS_OK;
}

/* ---- QGemm ---- */

static int gemm_plan(const OpCall *call, int64_t *m, int64_t *n, int64_t *k)
{
    for (int i = 0; i < 6; i++) {
        int status = i % 3 == 1 ? op_require_real(call, i) : op_require_integer(call, i);
        if (status)
            return status;
    }
    const Value *a = call->in[0], *b = call->in[3], *c = op_in(call, 6);
    int trans_a = attribute_int(call->node, "transA", 0) != 0;
    int trans_b = attribute_int(call->node, "transB", 0) != 0;
    if (a->shape.rank != 2 || b->shape.rank != 2 || call->in[1]->count != 1 ||
        call->in[2]->count != 1)
        return op_error(call, ONNXPRESS_FORMAT, "the shapes are not handled");
    *m = a->shape.dim[trans_a];
    *k = a->shape.dim[1 - trans_a];
    *n = b->shape.dim[1 - trans_b];
    bool fits = b->shape.dim[trans_b] == *k;
    for (int i = 4; i < 6; i++)
        fits = fits && (call->in[i]->count == 1 || call->in[i]->count == *n);
    if (c)
        fits = fits && dtype_is_integer(c->dtype) &&
               (c->count == 1 || c->count == *n || c->count == *m * *n);
    return fits ? ONNXPRESS_OK : op_error(call, ONNXPRESS_FORMAT, "the matrices do not fit");
}

static int gemm_forward(const OpCall *call)
{
    int64_t m = 0, n = 0, depth = 0;
    Target target = {0};
    int status = gemm_plan(call, &m, &n, &depth);
    if (status)
        return status;
    const Value *a = call->in[0], *b = call->in[3], *c = op_in(call, 6);
    Shape shape = {.rank = 2, .dim = {m, n}};
    bool real_result = !op_in(call, 7);
    if ((status = real_result ? op_output(call, 0, DTYPE_FLOAT, &shape)
                              : make_target(call, 7, a, &shape, &target)))
        return status;
    bool trans_a = attribute_int(call->node, "transA", 0) != 0;
    bool trans_b = attribute_int(call->node, "transB", 0) != 0;
    real alpha = (real)attribute_float(call->node, "alpha", 1) * call->in[1]->r[0];
    int64_t zero_a = call->in[2]->i[0];
    for (int64_t e = 0; e < m * n; e++) {
        int64_t i = e / n, j = e % n;
        uint64_t sum = c ? (uint64_t)c->i[c->count == 1 ? 0 : c->count == n ? j : e] : 0;
        uint64_t zero_b = (uint64_t)call->in[5]->i[call->in[5]->count > 1 ? j : 0];
        for (int64_t k = 0; k < depth; k++) {
            uint64_t x = (uint64_t)a->i[trans_a ? k * m + i : i * depth + k] - (uint64_t)zero_a;
            sum += x * ((uint64_t)b->i[trans_b ? j * depth + k : k * n + j] - zero_b);
        }
        real y = (real)(int64_t)sum * alpha * call->in[4]->r[call->in[4]->count > 1 ? j : 0];
        if (real_result)
            call->out[0]->r[e] = y;
        else
            put(call, &target, e, y);
    }
    return ONNXPRESS_OK;
}

#define MS "com.microsoft"
static const OpRow rows[] = {
    {MS, "QLinearAdd", 1, 0, .forward = add_forward},
    {MS, "QLinearMul", 1, 0, .forward = multiply_forward},
    {MS, "QLinearSigmoid", 1, 0, .forward = sigmoid_forward},
    {MS, "QLinearLeakyRelu", 1, 0, .forward = leaky_forward},
    {MS, "QLinearSoftmax", 1, 0, .forward = softmax_forward},
    {MS, "QLinearGlobalAveragePool", 1, 0, .forward = global_average_forward},
    {MS, "QLinearAveragePool", 1, 0, .read = window_read, .forward = average_forward},
    {MS, "QLinearConcat", 1, 0, .forward = concat_forward},
    {MS, "QGemm", 1, 0, .forward = gemm_forward},
};

const OpFamily op_family_qlinear = {rows, sizeof rows / sizeof rows[0]};
