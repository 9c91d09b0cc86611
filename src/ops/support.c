/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/support_internal.h"

#include <cblas.h>
#include <string.h>

int op_require(const OpCall *call, int needed)
{
    for (int k = 0; k < needed; k++)
        if (!op_in(call, k))
            return op_error(call, ONNXPRESS_FORMAT, "input %d is missing", k);
    if (call->n_out < 1 || !call->out[0])
        return op_error(call, ONNXPRESS_FORMAT, "the node has no output");
    return ONNXPRESS_OK;
}

static int require_type(const OpCall *call, int k, bool fits, const char *expected)
{
    if (fits)
        return ONNXPRESS_OK;
    return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is of %s, where %s is handled", k,
                    dtype_name(call->in[k]->dtype), expected);
}

int op_require_real(const OpCall *call, int k)
{
    if (!op_in(call, k))
        return op_error(call, ONNXPRESS_FORMAT, "input %d is missing", k);
    return require_type(call, k, dtype_is_real(call->in[k]->dtype), "a floating type");
}

int op_require_reals(const OpCall *call, int needed, int most)
{
    int status = op_require(call, needed);
    for (int k = 0; !status && k < most; k++)
        if (op_in(call, k))
            status = op_require_real(call, k);
    return status;
}

int op_require_integer(const OpCall *call, int k)
{
    if (!op_in(call, k))
        return op_error(call, ONNXPRESS_FORMAT, "input %d is missing", k);
    return require_type(call, k, dtype_is_integer(call->in[k]->dtype), "an integer type");
}

int op_require_alike(const OpCall *call, int a, int b)
{
    if (dtype_is_real(call->in[a]->dtype) == dtype_is_real(call->in[b]->dtype))
        return ONNXPRESS_OK;
    return op_error(call, ONNXPRESS_FORMAT, "inputs %d and %d are of %s and %s", a, b,
                    dtype_name(call->in[a]->dtype), dtype_name(call->in[b]->dtype));
}

int op_list(const OpCall *call, int k, int limit, const int64_t **values, int *n)
{
    int status = op_require_integer(call, k);
    if (status)
        return status;
    const Value *list = call->in[k];
    if (list->shape.rank > 1 || list->count > limit)
        return op_error(call, ONNXPRESS_FORMAT,
                        "input %d must be a list of at most %d numbers, it has rank %d and %lld", k,
                        limit, list->shape.rank, (long long)list->count);
    *values = list->i;
    *n = (int)list->count;
    return ONNXPRESS_OK;
}

int op_axis(const OpCall *call, int64_t axis, int rank, int *normal)
{
    *normal = shape_axis(axis, rank);
    if (*normal < 0)
        return op_error(call, ONNXPRESS_FORMAT, "axis %lld does not exist at rank %d",
                        (long long)axis, rank);
    return ONNXPRESS_OK;
}

int op_mark_axes(const OpCall *call, const int64_t *axes, int n, int rank, bool *marked)
{
    memset(marked, 0, TENSOR_MAX_RANK * sizeof *marked);
    for (int k = 0; k < n; k++) {
        int axis, status = op_axis(call, axes[k], rank, &axis);
        if (status)
            return status;
        if (marked[axis])
            return op_error(call, ONNXPRESS_FORMAT, "axis %d is named twice", axis);
        marked[axis] = true;
    }
    return ONNXPRESS_OK;
}

int64_t integer_wrap(int dtype, int64_t value)
{
    switch (dtype) {
    case DTYPE_BOOL:
        return value != 0;
    case DTYPE_INT8:
        return (int8_t)value;
    case DTYPE_UINT8:
        return (uint8_t)value;
    case DTYPE_INT16:
        return (int16_t)value;
    case DTYPE_UINT16:
        return (uint16_t)value;
    case DTYPE_INT32:
        return (int32_t)value;
    case DTYPE_UINT32:
        return (uint32_t)value;
    case DTYPE_UINT4:
        return value & 15;
    case DTYPE_INT4:
        return ((value + 8) & 15) - 8;
    case DTYPE_UINT2:
        return value & 3;
    case DTYPE_INT2:
        return ((value + 2) & 3) - 2;
    default:
        return value;
    }
}

#define MOVE(type)                                                                                 \
    do {                                                                                           \
        const type *source = (const type *)from + walk.offset[1];                                  \
        type *target = (type *)to + walk.offset[0];                                                \
        for (int64_t j = 0; j < walk.inner; j++)                                                   \
            target[j * walk.step[0]] = source[j * walk.step[1]];                                   \
    } while (0)

void move_strided(int dtype, const Shape *shape, void *to, const int64_t *to_stride,
                  const void *from, const int64_t *from_stride)
{
    int64_t element = (int64_t)(dtype_is_real(dtype) ? sizeof(real) : sizeof(int64_t));
    Walk walk;
    if (!walk_start(&walk, shape, 2, (const int64_t *const[]){to_stride, from_stride}))
        return;
    bool dense = walk.step[0] == 1 && walk.step[1] == 1;
    do {
        if (dense)
            memcpy((char *)to + walk.offset[0] * element, /* backwards too */
                   (const char *)from + walk.offset[1] * element,
                   (size_t)(walk.inner * element));
        else if (dtype_is_real(dtype))
            MOVE(real);
        else
            MOVE(int64_t);
    } while (walk_next(&walk));
}

void add_strided(const Shape *shape, real *to, const int64_t *to_stride, const real *from,
                 const int64_t *from_stride)
{
    Walk walk;
    if (!walk_start(&walk, shape, 2, (const int64_t *const[]){to_stride, from_stride}))
        return;
    do {
        real *target = to + walk.offset[0];
        const real *source = from + walk.offset[1];
        if (walk.step[0] == 1 && walk.step[1] == 1) {
            add_dense(walk.inner, target, source);
        } else if (walk.step[0] == 0) {
            real sum = 0;
            for (int64_t j = 0; j < walk.inner; j++)
                sum += source[j * walk.step[1]];
            *target += sum;
        } else {
            for (int64_t j = 0; j < walk.inner; j++)
                target[j * walk.step[0]] += source[j * walk.step[1]];
        }
    } while (walk_next(&walk));
}

void add_dense(int64_t n, real *to, const real *from)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

int64_t dims_product(const Shape *shape, int first, int last)
{
    uint64_t product = 1;
    for (int a = first; a < last; a++)
        product *= (uint64_t)shape->dim[a];
    return (int64_t)product;
}

int same_backward(const OpCall *call)
{
    if (call->d_in[0] && call->d_out[0])
        add_dense(call->in[0]->count, call->d_in[0], call->d_out[0]);
    return ONNXPRESS_OK;
}

int curvature_as_backward(const OpCall *call, const real *const *d_out)
{
    (void)d_out;
    return call->node->row->backward(call);
}

int curvature_of_product(const OpCall *call, const real *const *d_out)
{
    enum { MOST = 3 };
    Value squared[2], *in[MOST] = {NULL};
    (void)d_out; /* linear in each factor */
    if (call->n_in < 2 || call->n_in > MOST)
        return op_error(call, ONNXPRESS_FORMAT, "%d inputs", call->n_in);
    for (int k = 0; k < call->n_in; k++)
        in[k] = call->in[k];
    for (int k = 0; k < 2; k++) {
        if (!call->d_in[1 - k])
            continue; /* only the other factor's derivative reads it */
        squared[k] = *call->in[k];
        const real *from = call->in[k]->r;
        real *to = op_scratch(call, (size_t)squared[k].count, sizeof *to);
        if (!to)
            return ONNXPRESS_MEMORY;
        for (int64_t e = 0; e < squared[k].count; e++)
            to[e] = from[e] * from[e];
        squared[k].r = to;
        in[k] = &squared[k];
    }
    OpCall same = *call;
    same.in = in;
    return call->node->row->backward(&same);
}

enum { SAMPLE_ARGUMENTS = 16 }; /* of an op, at most */

/* Sample n of a value with `samples` of them; any other value as it is. */
static Value sample_of(const Value *value, int64_t samples, int64_t n)
{
    Value one = *value;
    if (value->shape.rank < 1 || value->shape.dim[0] != samples)
        return one;
    one.shape.dim[0] = 1;
    one.count = value->count / samples;
    if (one.r)
        one.r += n * one.count;
    if (one.i)
        one.i += n * one.count;
    return one;
}

static int add_sample_square(const OpCall *call, unsigned data, int k, int64_t n, real *gradient,
                             real *acc)
{
    Value in[SAMPLE_ARGUMENTS], out[SAMPLE_ARGUMENTS], *ins[SAMPLE_ARGUMENTS] = {NULL},
                                                       *outs[SAMPLE_ARGUMENTS] = {NULL};
    const real *d_out[SAMPLE_ARGUMENTS] = {NULL};
    real *d_in[SAMPLE_ARGUMENTS] = {NULL};
    int64_t samples = call->out[0]->shape.dim[0];
    for (int j = 0; j < call->n_in; j++) {
        if (!call->in[j])
            continue;
        in[j] = data >> j & 1 ? sample_of(call->in[j], samples, n) : *call->in[j];
        ins[j] = &in[j];
    }
    for (int j = 0; j < call->n_out; j++) {
        if (!call->out[j])
            continue;
        out[j] = sample_of(call->out[j], samples, n);
        outs[j] = &out[j];
        d_out[j] = call->d_out[j] ? call->d_out[j] + n * out[j].count : NULL;
    }
    OpCall one = *call;
    one.in = ins;
    one.out = outs;
    one.d_out = d_out;
    one.d_in = d_in;
    d_in[k] = gradient;
    int64_t count = call->in[k]->count;
    memset(gradient, 0, (size_t)count * sizeof *gradient);
    int status = call->node->row->backward(&one);
    for (int64_t i = 0; !status && i < count; i++)
        acc[i] += gradient[i] * gradient[i];
    return status;
}

int square_by_sample(const OpCall *call, unsigned data, int k, real *acc)
{
    if (data >> k & 1 || call->n_in > SAMPLE_ARGUMENTS || call->n_out > SAMPLE_ARGUMENTS ||
        !call->out[0] || call->out[0]->shape.rank < 1)
        return ONNXPRESS_UNSUPPORTED;
    int64_t samples = call->out[0]->shape.dim[0];
    for (int j = 0; j < call->n_out; j++)
        if (call->out[j] && (call->out[j]->shape.rank < 1 || call->out[j]->shape.dim[0] != samples))
            return ONNXPRESS_UNSUPPORTED;
    if (!acc)
        return ONNXPRESS_OK;
    real *gradient = op_scratch(call, (size_t)call->in[k]->count, sizeof *gradient);
    int status = gradient ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
    for (int64_t n = 0; !status && n < samples; n++)
        status = add_sample_square(call, data, k, n, gradient, acc);
    return status;
}

static int row_length(int64_t ld)
{
    return ld > 0 ? (int)ld : 1; /* BLAS refuses 0 even where there is nothing */
}

void matrix_product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, real alpha,
                    const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                    int64_t ldc)
{
    REAL_GEMM(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
              trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
              row_length(lda), b, row_length(ldb), beta, c, row_length(ldc));
}
