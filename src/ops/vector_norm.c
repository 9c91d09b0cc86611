/* SPDX-License-Identifier: Apache-2.0
 *
 * Normalizations along any axes: MeanVarianceNormalization and LpNormalization. The axes are
 * brought to the end first, so that rows lie together. */
#include "ops/row_norm_internal.h"

#include <string.h>

typedef struct {
    bool moments;  /* mean 0 and variance 1; else a norm of 1 */
    bool absolute; /* the norm is the sum of absolute values, not the root of that of squares */
    int n_axes;
    int64_t axes[TENSOR_MAX_RANK];
} VectorNorm;

static int read_moments(OpNode *node, Arena *arena, Error *err)
{
    static const int64_t usual[] = {0, 2, 3};
    VectorNorm *params = arena_array(arena, 1, sizeof *params);
    const int64_t *axes;
    if (!params)
        return error_memory(err, "a node's parameters");
    int n = attribute_ints(node, "axes", &axes);
    if (n < 0) {
        axes = usual;
        n = 3;
    }
    if (n > TENSOR_MAX_RANK)
        return read_error(node, err, ONNXPRESS_FORMAT, "%d axes", n);
    params->moments = true;
    params->n_axes = n;
    memcpy(params->axes, axes, (size_t)n * sizeof *axes);
    node->params = params;
    return ONNXPRESS_OK;
}

static int read_norm(OpNode *node, Arena *arena, Error *err)
{
    VectorNorm *params = arena_array(arena, 1, sizeof *params);
    int64_t p = attribute_int(node, "p", 2);
    if (!params)
        return error_memory(err, "a node's parameters");
    if (p != 1 && p != 2)
        return read_error(node, err, ONNXPRESS_FORMAT, "p is %lld, not 1 or 2", (long long)p);
    params->absolute = p == 1;
    params->n_axes = 1;
    params->axes[0] = attribute_int(node, "axis", -1);
    node->params = params;
    return ONNXPRESS_OK;
}

typedef struct {
    TensorNorm norm;
    Shape moved;
    int64_t dense[TENSOR_MAX_RANK],
        given[TENSOR_MAX_RANK]; /* strides of `moved` and of the input */
} Moved;

static int describe(const OpCall *call, Moved *m)
{
    const VectorNorm *params = call->node->params;
    const Shape *x = &call->in[0]->shape;
    bool marked[TENSOR_MAX_RANK];
    int64_t own[TENSOR_MAX_RANK];
    int status = op_mark_axes(call, params->axes, params->n_axes, x->rank, marked), kept = 0;
    if (status)
        return status;
    shape_strides(x, own);
    m->moved.rank = 0;
    for (int end = 0; end < 2; end++)
        for (int a = 0; a < x->rank; a++)
            if (marked[a] == (end == 1)) {
                m->given[m->moved.rank] = own[a];
                m->moved.dim[m->moved.rank++] = x->dim[a];
                kept += end == 0;
            }
    shape_strides(&m->moved, m->dense);
    int64_t n = dims_product(&m->moved, kept, x->rank);
    real share = params->moments && n ? 1 / (real)n : 1;
    m->norm = (TensorNorm){.norm = {.n = n, .centred = params->moments, .share = share},
                           .rows = dims_product(&m->moved, 0, kept)};
    return ONNXPRESS_OK;
}

/* A copy with the axes moved; NULL: out of memory. */
static real *gather(const OpCall *call, const Moved *m, const real *from)
{
    real *to = op_scratch(call, (size_t)call->in[0]->count, sizeof *to);
    if (to)
        move_strided(call->in[0]->dtype, &m->moved, to, m->dense, from, m->given);
    return to;
}

static real absolute_sum(const real *x, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++)
        sum += REAL_ABS(x[j]);
    return sum;
}

/* y = x / sum |x|; a row of zeros stays. */
static void absolute_forward(const TensorNorm *norm, const real *x, real *y)
{
    int64_t n = norm->norm.n;
    for (int64_t row = 0; row < norm->rows; row++, x += n, y += n) {
        real sum = absolute_sum(x, n);
        for (int64_t j = 0; j < n; j++)
            y[j] = sum > 0 ? x[j] / sum : 0;
    }
}

/* With r = 1 / sum |x| and t the sign of x_i: dy_j/dx_i = r (d_ij - t y_j), and its derivative by
 * x_i is -2 r t times that. `dd`: second derivatives instead, with the first ones d (NULL: zero).
 */
static void absolute_backward(const TensorNorm *norm, const real *x, const real *dd, const real *d,
                              real *d_x)
{
    int64_t n = norm->norm.n;
    for (int64_t row = 0; row < norm->rows; row++) {
        const real *at = x + row * n, *d_y = d ? d + row * n : NULL;
        const real *dd_y = dd ? dd + row * n : NULL;
        real total = absolute_sum(at, n), r = total > 0 ? 1 / total : 0, mean = 0, squares = 0;
        for (int64_t j = 0; j < n; j++) {
            mean += d_y ? d_y[j] * at[j] * r : 0;
            squares += dd_y ? dd_y[j] * at[j] * r * at[j] * r : 0;
        }
        for (int64_t i = 0; i < n; i++) {
            real t = at[i] > 0 ? 1 : at[i] < 0 ? -1 : 0, y = at[i] * r;
            real slope = d_y ? r * (d_y[i] - t * mean) : 0;
            d_x[row * n + i] +=
                dd_y ? r * r * (squares + dd_y[i] * (1 - 2 * t * y)) - 2 * r * t * slope : slope;
        }
    }
}

static int vector_forward(const OpCall *call)
{
    const VectorNorm *params = call->node->params;
    Moved m;
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) || (status = describe(call, &m)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape)) ||
        call->in[0]->count == 0)
        return status;
    const real *x = gather(call, &m, call->in[0]->r);
    real *y = x ? op_scratch(call, (size_t)call->in[0]->count, sizeof *y) : NULL;
    if (!y)
        return ONNXPRESS_MEMORY;
    if (params->absolute)
        absolute_forward(&m.norm, x, y);
    else
        status = tensor_norm_forward(call, &m.norm, &(NormTensors){.x = x, .y = y});
    move_strided(call->in[0]->dtype, &m.moved, call->out[0]->r, m.given, y, m.dense);
    return status;
}

/* `first` NULL: backward; else its first element is Y's gradient (NULL: zero). */
static int vector_add(const OpCall *call, const real *const *first)
{
    const VectorNorm *params = call->node->params;
    Moved m;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = describe(call, &m);
    if (status)
        return status;
    NormTensors t = {.x = gather(call, &m, call->in[0]->r),
                     .d_y = gather(call, &m, call->d_out[0])};
    t.first[0] = first && first[0] ? gather(call, &m, first[0]) : NULL;
    t.d_x = op_scratch(call, (size_t)call->in[0]->count, sizeof(real));
    if (!t.x || !t.d_y || !t.d_x || (first && first[0] && !t.first[0]))
        return ONNXPRESS_MEMORY;
    memset(t.d_x, 0, (size_t)call->in[0]->count * sizeof(real));
    if (params->absolute)
        absolute_backward(&m.norm, t.x, first ? t.d_y : NULL, first ? t.first[0] : t.d_y, t.d_x);
    else
        status = first ? tensor_norm_curvature(call, &m.norm, &t)
                       : tensor_norm_backward(call, &m.norm, &t);
    add_strided(&m.moved, call->d_in[0], m.given, t.d_x, m.dense);
    return status;
}

static int vector_backward(const OpCall *call)
{
    return vector_add(call, NULL);
}

static int vector_curvature(const OpCall *call, const real *const *d_out)
{
    return vector_add(call, d_out);
}

static const OpRow rows[] = {
    {"", "MeanVarianceNormalization", 9, OP_KEEP_INPUTS, .read = read_moments,
     .forward = vector_forward, .backward = vector_backward, .curvature = vector_curvature},
    {"", "LpNormalization", 1, OP_KEEP_INPUTS, .read = read_norm, .forward = vector_forward,
     .backward = vector_backward, .curvature = vector_curvature},
};

const OpFamily op_family_vector_norm = {rows, sizeof rows / sizeof rows[0]};
