/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of products of quantized tensors, which are exact. These ops have no derivative. */
#include "ops/quantized_internal.h"
#include "ops/window_internal.h"

#include <string.h>

/* Input k less its zero point (input `zero`), which is one number, or one a row or column: of
 * `groups` that each hold `inner` elements and repeat. */
static int centred(const OpCall *call, int k, int zero, int64_t groups, int64_t inner,
                   int32_t **values)
{
    int status = op_require_integer(call, k);
    if (status)
        return status;
    const Value *x = call->in[k], *point = op_in(call, zero);
    double least, most;
    if (!quantized_range(x->dtype, &least, &most))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "products of %s are not handled",
                        dtype_name(x->dtype));
    if (point && (!dtype_is_integer(point->dtype) || (point->count != 1 && point->count != groups)))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "a zero point of this shape is not handled");
    int64_t low = (int64_t)least, high = (int64_t)most;
    int32_t *to = op_scratch(call, (size_t)x->count + 1, sizeof *to);
    if (!to)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < x->count; e++) {
        int64_t at = point && point->count > 1 ? e / inner % groups : 0;
        int64_t off = point ? point->i[at] : 0;
        to[e] = (int32_t)(x->i[e] - (off < low ? low : off > high ? high : off));
    }
    *values = to;
    return ONNXPRESS_OK;
}

/* y[m][n] = sum over k of a[m][k] b[k][n], modulo 2^32. */
static void integer_product(int64_t m, int64_t n, int64_t k, const int32_t *a, const int32_t *b,
                            uint32_t *row, int64_t *y)
{
    for (int64_t i = 0; i < m; i++, y += n, a += k) {
        memset(row, 0, (size_t)n * sizeof *row);
        for (int64_t l = 0; l < k; l++) {
            uint32_t factor = (uint32_t)a[l];
            const int32_t *from = b + l * n;
            for (int64_t j = 0; factor && j < n; j++)
                row[j] += factor * (uint32_t)from[j];
        }
        for (int64_t j = 0; j < n; j++)
            y[j] = (int32_t)row[j];
    }
}

typedef struct {
    Shape shape, batch;
    int64_t m, n, k, stride_a[TENSOR_MAX_RANK], stride_b[TENSOR_MAX_RANK];
} Products;

static int products_plan(const OpCall *call, const Shape *a, const Shape *b, Products *p)
{
    Shape batch_a = {.rank = a->rank - 2}, batch_b = {.rank = b->rank - 2};
    if (a->rank < 2 || b->rank < 2)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "products of vectors are not handled");
    memcpy(batch_a.dim, a->dim, (size_t)batch_a.rank * sizeof a->dim[0]);
    memcpy(batch_b.dim, b->dim, (size_t)batch_b.rank * sizeof b->dim[0]);
    p->m = a->dim[a->rank - 2];
    p->k = a->dim[a->rank - 1];
    p->n = b->dim[b->rank - 1];
    if (b->dim[b->rank - 2] != p->k || !shape_broadcast(&batch_a, &batch_b, &p->batch))
        return op_error(call, ONNXPRESS_FORMAT, "the matrices do not fit");
    p->shape = p->batch;
    p->shape.dim[p->shape.rank++] = p->m;
    p->shape.dim[p->shape.rank++] = p->n;
    shape_broadcast_strides(&batch_a, &p->batch, p->stride_a);
    shape_broadcast_strides(&batch_b, &p->batch, p->stride_b);
    return ONNXPRESS_OK;
}

/* Inputs a and b (with their zero points' numbers) multiplied into *sums, laid out as p->shape. */
static int integer_matmul(const OpCall *call, int a, int zero_a, int b, int zero_b, Products *p,
                          int64_t **sums)
{
    int32_t *x, *w;
    int64_t count;
    if (!op_in(call, a) || !op_in(call, b))
        return op_error(call, ONNXPRESS_FORMAT, "an input is missing");
    int status = products_plan(call, &call->in[a]->shape, &call->in[b]->shape, p);
    if (status)
        return status;
    if (!shape_count(&p->shape, &count))
        return op_error(call, ONNXPRESS_MEMORY, "the product is too large");
    if ((status = centred(call, a, zero_a, p->m, p->k, &x)) ||
        (status = centred(call, b, zero_b, p->n, 1, &w)))
        return status;
    uint32_t *row = op_scratch(call, (size_t)p->n + 1, sizeof *row);
    *sums = op_scratch(call, (size_t)count + 1, sizeof **sums);
    if (!row || !*sums)
        return ONNXPRESS_MEMORY;
    int64_t *y = *sums;
    Walk walk;
    if (count == 0 || !walk_start(&walk, &p->batch, 2,
                                  (const int64_t *const[]){p->stride_a, p->stride_b}))
        return ONNXPRESS_OK;
    do
        for (int64_t j = 0; j < walk.inner; j++, y += p->m * p->n)
            integer_product(p->m, p->n, p->k,
                            x + (walk.offset[0] + j * walk.step[0]) * p->m * p->k,
                            w + (walk.offset[1] + j * walk.step[1]) * p->k * p->n, row, y);
    while (walk_next(&walk));
    return ONNXPRESS_OK;
}

static int matmul_integer_forward(const OpCall *call)
{
    Products p;
    int64_t *sums;
    int status = op_require(call, 2);
    if (status || (status = integer_matmul(call, 0, 2, 1, 3, &p, &sums)) ||
        (status = op_output(call, 0, DTYPE_INT32, &p.shape)))
        return status;
    memcpy(call->out[0]->i, sums, (size_t)call->out[0]->count * sizeof *sums);
    return ONNXPRESS_OK;
}

/* A scale of one number, or one for each of `columns`. */
static int check_scale(const OpCall *call, int k, int64_t columns)
{
    int status = op_require_real(call, k);
    if (!status && call->in[k]->count != 1 && call->in[k]->count != columns)
        status = op_error(call, ONNXPRESS_UNSUPPORTED, "input %d's shape is not handled", k);
    return status;
}

static real scale_at(const OpCall *call, int k, int64_t column)
{
    return call->in[k]->r[call->in[k]->count > 1 ? column : 0];
}

/* Sums back to a quantized type: output 0 of the type of the zero point at input `zero`. */
typedef struct {
    int scale_a, scale_b, scale_y, zero;
    int64_t columns, inner; /* an element's column is at / inner % columns */
    const Value *bias;      /* int32, one a column; NULL: none */
} Requantize;

static int requantize(const OpCall *call, const Requantize *r, const Shape *shape,
                      const int64_t *sums)
{
    double least, most;
    int status;
    if ((status = check_scale(call, r->scale_a, 1)) ||
        (status = check_scale(call, r->scale_b, r->columns)) ||
        (status = check_scale(call, r->scale_y, 1)) ||
        (status = op_require_integer(call, r->zero)))
        return status;
    const Value *zero = call->in[r->zero];
    if (zero->count != 1 || !quantized_range(zero->dtype, &least, &most))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "quantizing to %s is not handled",
                        dtype_name(zero->dtype));
    if ((status = op_output(call, 0, zero->dtype, shape)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++) {
        int64_t column = e / r->inner % r->columns;
        int64_t sum = sums[e] + (r->bias ? r->bias->i[column] : 0);
        real scale = scale_at(call, r->scale_a, 0) * scale_at(call, r->scale_b, column) /
                     scale_at(call, r->scale_y, 0);
        call->out[0]->i[e] = quantize_number((double)((real)sum * scale), zero->i[0], least, most);
    }
    return ONNXPRESS_OK;
}

static int qlinear_matmul_forward(const OpCall *call)
{
    Products p;
    int64_t *sums;
    int status = op_require(call, 8);
    if (status || (status = integer_matmul(call, 0, 2, 3, 5, &p, &sums)))
        return status;
    return requantize(call,
                      &(Requantize){.scale_a = 1, .scale_b = 4, .scale_y = 6, .zero = 7,
                                    .columns = p.n, .inner = 1},
                      &p.shape, sums);
}

/* Sums times both scales, plus a bias: com.microsoft's MatMulIntegerToFloat. */
static int scaled_product(const OpCall *call, const Products *p, const int64_t *sums, real scale_a,
                          int scale_b, const Value *bias)
{
    int status = check_scale(call, scale_b, p->n);
    if (bias && (!dtype_is_real(bias->dtype) || bias->count != p->n))
        return op_error(call, ONNXPRESS_FORMAT, "the bias does not fit");
    if (status || (status = op_output(call, 0, DTYPE_FLOAT, &p->shape)))
        return status;
    for (int64_t e = 0; e < call->out[0]->count; e++)
        call->out[0]->r[e] = (real)sums[e] * (scale_a * scale_at(call, scale_b, e % p->n)) +
                             (bias ? bias->r[e % p->n] : 0);
    return ONNXPRESS_OK;
}

static int to_float_forward(const OpCall *call)
{
    Products p;
    int64_t *sums;
    int status = op_require(call, 4);
    if (status || (status = check_scale(call, 2, 1)) ||
        (status = integer_matmul(call, 0, 4, 1, 5, &p, &sums)))
        return status;
    return scaled_product(call, &p, sums, call->in[2]->r[0], 3, op_in(call, 6));
}

/* DynamicQuantizeMatMul: A is quantized here, as DynamicQuantizeLinear does it. */
static int dynamic_matmul_forward(const OpCall *call)
{
    Products p;
    int64_t *sums;
    int status = op_require(call, 3);
    if (status || (status = op_require_real(call, 0)))
        return status;
    const Value *x = call->in[0];
    int64_t zero;
    real scale;
    dynamic_scale(x, &scale, &zero);
    Value whole = {.dtype = DTYPE_UINT8, .shape = x->shape, .count = x->count};
    Value point = {.dtype = DTYPE_UINT8, .count = 1, .i = &zero};
    if (!(whole.i = op_scratch(call, (size_t)x->count + 1, sizeof *whole.i)))
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < x->count; e++)
        whole.i[e] = quantize_number((double)(x->r[e] / scale), zero, 0, 255);
    OpCall inner = *call;
    inner.n_in = 4;
    inner.in = (Value *const[]){&whole, call->in[1], &point, op_in(call, 3)};
    if ((status = integer_matmul(&inner, 0, 2, 1, 3, &p, &sums)))
        return status;
    return scaled_product(call, &p, sums, scale, 2, op_in(call, 4));
}

/* Convolution of centred integers: y[n][m][…], modulo 2^32. */
static void integer_convolution(const Window *w, int64_t samples, int64_t group, int64_t in_each,
                                int64_t out_each, const int32_t *x, const int32_t *weight,
                                int64_t *y)
{
    memset(y, 0, (size_t)(samples * group * out_each * w->out_size) * sizeof *y);
    for (int64_t plane = 0; plane < samples * group * out_each; plane++) {
        int64_t m = plane % (group * out_each), n = plane / (group * out_each);
        for (int64_t c = 0; c < in_each; c++) {
            const int32_t *from =
                x + ((n * group + m / out_each) * in_each + c) * w->in_size;
            const int32_t *taps = weight + (m * in_each + c) * w->kernel_size;
            int64_t *to = y + plane * w->out_size;
            for (int64_t t = 0; t < w->kernel_size; t++) {
                int64_t k[3] = {t / (w->kernel[1] * w->kernel[2]),
                                t / w->kernel[2] % w->kernel[1], t % w->kernel[2]};
                int64_t first[3], last[3], tap = taps[t];
                for (int a = 0; a < 3; a++)
                    window_range(w, a, k[a], &first[a], &last[a]);
                for (int64_t d = first[0]; d < last[0]; d++)
                    for (int64_t h = first[1]; h < last[1]; h++) {
                        int64_t z = d * w->stride[0] + k[0] * w->dilation[0] - w->begin[0];
                        int64_t v = h * w->stride[1] + k[1] * w->dilation[1] - w->begin[1];
                        const int32_t *line = from + (z * w->in[1] + v) * w->in[2] +
                                              k[2] * w->dilation[2] - w->begin[2];
                        int64_t *row = to + (d * w->out[1] + h) * w->out[2];
                        for (int64_t o = first[2]; o < last[2]; o++)
                            row[o] += tap * line[o * w->stride[2]];
                    }
            }
        }
    }
    for (int64_t e = 0; e < samples * group * out_each * w->out_size; e++)
        y[e] = (int32_t)(uint32_t)(uint64_t)y[e];
}

static int integer_conv(const OpCall *call, int zero_x, int weight, int zero_w, Shape *shape,
                        int64_t **sums)
{
    const WindowParams *params = call->node->params;
    const Value *x = op_in(call, 0), *w = op_in(call, weight);
    Window window;
    int32_t *from, *taps;
    int64_t count;
    if (!x || !w)
        return op_error(call, ONNXPRESS_FORMAT, "an input is missing");
    int64_t group = params->group;
    bool fits = x->shape.rank >= 3 && x->shape.rank <= 5 && w->shape.rank == x->shape.rank &&
                group > 0 && w->shape.dim[0] % group == 0 && x->shape.dim[1] % group == 0 &&
                x->shape.dim[1] / group == w->shape.dim[1];
    if (!fits)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "these shapes are not handled");
    int status = window_make(call, params, &x->shape, w->shape.dim + 2, &window, shape);
    if (status)
        return status;
    shape->dim[0] = x->shape.dim[0];
    shape->dim[1] = w->shape.dim[0];
    if (!shape_count(shape, &count))
        return op_error(call, ONNXPRESS_MEMORY, "the result is too large");
    int64_t each = dims_product(&w->shape, 1, w->shape.rank);
    if ((status = centred(call, 0, zero_x, 1, 1, &from)) ||
        (status = centred(call, weight, zero_w, w->shape.dim[0], each, &taps)))
        return status;
    if (!(*sums = op_scratch(call, (size_t)count + 1, sizeof **sums)))
        return ONNXPRESS_MEMORY;
    if (count > 0)
        integer_convolution(&window, x->shape.dim[0], group, w->shape.dim[1],
                            w->shape.dim[0] / group, from, taps, *sums);
    return ONNXPRESS_OK;
}

static int conv_integer_forward(const OpCall *call)
{
    Shape shape;
    int64_t *sums;
    int status = op_require(call, 2);
    if (status || (status = integer_conv(call, 2, 1, 3, &shape, &sums)) ||
        (status = op_output(call, 0, DTYPE_INT32, &shape)))
        return status;
    memcpy(call->out[0]->i, sums, (size_t)call->out[0]->count * sizeof *sums);
    return ONNXPRESS_OK;
}

static int qlinear_conv_forward(const OpCall *call)
{
    Shape shape;
    int64_t *sums;
    int status = op_require(call, 8);
    if (status || (status = integer_conv(call, 2, 3, 5, &shape, &sums)))
        return status;
    const Value *bias = op_in(call, 8);
    if (bias && (!dtype_is_integer(bias->dtype) || bias->count != shape.dim[1]))
        return op_error(call, ONNXPRESS_FORMAT, "the bias does not fit");
    return requantize(call,
                      &(Requantize){.scale_a = 1, .scale_b = 4, .scale_y = 6, .zero = 7,
                                    .columns = shape.dim[1],
                                    .inner = dims_product(&shape, 2, shape.rank),
                                    .bias = bias},
                      &shape, sums);
}

static const OpRow rows[] = {
    {"", "MatMulInteger", 10, 0, .forward = matmul_integer_forward},
    {"", "QLinearMatMul", 10, 0, .forward = qlinear_matmul_forward},
    {"", "ConvInteger", 10, 0, .read = window_read, .forward = conv_integer_forward},
    {"", "QLinearConv", 10, 0, .read = window_read, .forward = qlinear_conv_forward},
    {"com.microsoft", "MatMulIntegerToFloat", 1, 0, .forward = to_float_forward},
    {"com.microsoft", "DynamicQuantizeMatMul", 1, 0, .forward = dynamic_matmul_forward},
};

const OpFamily op_family_quantized = {rows, sizeof rows / sizeof rows[0]};
