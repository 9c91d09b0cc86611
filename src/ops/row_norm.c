/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/row_norm_internal.h"

typedef struct {
    real mean, r;
} RowMoments;

static RowMoments row_moments(const RowNorm *norm, const real *x)
{
    double sum = 0, squares = 0;
    if (norm->centred)
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < norm->n; j++)
            sum += (double)x[j];
    double mean = norm->centred && norm->n ? sum / (double)norm->n : 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < norm->n; j++)
        squares += ((double)x[j] - mean) * ((double)x[j] - mean);
    double spread = (double)norm->share * squares + (double)norm->epsilon;
    /* A row of zeros without an epsilon stays a row of zeros. */
    return (RowMoments){(real)mean, spread > 0 ? (real)(1 / sqrt(spread)) : 0};
}

/* d_x += what g, the gradient by z, and those by the mean and by r give. */
static void row_gradient(const RowNorm *norm, RowMoments at, const real *x, const real *g,
                         real d_mean, real d_r, real *d_x)
{
    real sum = 0, product = 0, centre = norm->centred && norm->n ? 1 / (real)norm->n : 0;
    int64_t given = g ? norm->n : 0;
#pragma omp simd reduction(+ : sum, product)
    for (int64_t j = 0; j < given; j++) {
        sum += g[j];
        product += g[j] * (x[j] - at.mean) * at.r;
    }
    real shift = centre * (d_mean - sum * at.r);
    real slope = -at.r * norm->share * (product + at.r * d_r);
    for (int64_t i = 0; i < norm->n; i++)
        d_x[i] += (g ? at.r * g[i] : 0) + shift + slope * (x[i] - at.mean) * at.r;
}

/* d_x += the same of second derivatives: `bend` by z, with the first ones g (NULL: zero). */
static void row_bend(const RowNorm *norm, RowMoments at, const real *x, const real *bend,
                     const real *g, real *d_x)
{
    real w[3] = {0}, g0 = 0, g1 = 0, c = norm->centred && norm->n ? 1 / (real)norm->n : 0;
    for (int64_t j = 0; j < norm->n; j++) {
        real z = (x[j] - at.mean) * at.r;
        w[0] += bend[j];
        w[1] += bend[j] * z;
        w[2] += bend[j] * z * z;
        g0 += g ? g[j] : 0;
        g1 += g ? g[j] * z : 0;
    }
    real share = norm->share;
    for (int64_t i = 0; i < norm->n; i++) {
        real z = (x[i] - at.mean) * at.r, own = c + share * z * z;
        real sum = c * c * w[0] + 2 * c * share * z * w[1] + share * share * z * z * w[2];
        sum += bend[i] * (1 - 2 * own);
        if (g)
            sum += share * (g1 * (3 * share * z * z - 1 + c) - 2 * z * (g[i] - c * g0));
        d_x[i] += at.r * at.r * sum;
    }
}

/* The mean's and r's own part of it; bend[0] and g[0] by the mean, [1] by r. */
static void row_bend_moments(const RowNorm *norm, RowMoments at, const real *x, const real bend[2],
                             const real g[2], real *d_x)
{
    real c = norm->centred && norm->n ? 1 / (real)norm->n : 0, share = norm->share;
    for (int64_t i = 0; i < norm->n; i++) {
        real z = (x[i] - at.mean) * at.r, slope = at.r * at.r * share * z;
        d_x[i] += c * c * bend[0] + slope * slope * bend[1] -
                  at.r * at.r * at.r * share * (1 - c - 3 * share * z * z) * g[1];
    }
}

int spread_of(const OpCall *call, int k, Spread *spread)
{
    const Value *v = op_in(call, k);
    const Shape *x = &call->in[0]->shape;
    Shape joined;
    int64_t stride[TENSOR_MAX_RANK];
    int first = x->rank, last = -1;
    *spread = (Spread){1, 1};
    if (!v)
        return ONNXPRESS_OK;
    if (!shape_broadcast(&v->shape, x, &joined) || !shape_equal(&joined, x))
        return op_error(call, ONNXPRESS_FORMAT, "input %d does not broadcast to the first", k);
    shape_broadcast_strides(&v->shape, x, stride);
    for (int a = 0; a < x->rank; a++)
        if (stride[a] && x->dim[a] > 1) {
            first = a < first ? a : first;
            last = a;
        }
    if (last < 0)
        return ONNXPRESS_OK;
    *spread = (Spread){dims_product(x, last + 1, x->rank), dims_product(x, first, last + 1)};
    if (spread->channels != v->count)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is stretched along a middle axis",
                        k);
    return ONNXPRESS_OK;
}

/* Steps through a spread's numbers an element at a time, without divisions. */
typedef struct {
    int64_t at, left;
} SpreadStep;

static SpreadStep spread_start(const Spread *spread, int64_t element)
{
    return (SpreadStep){element / spread->inner % spread->channels,
                        spread->inner - element % spread->inner};
}

static inline int64_t spread_next(const Spread *spread, SpreadStep *step)
{
    int64_t at = step->at;
    if (--step->left == 0) {
        step->left = spread->inner;
        step->at = at + 1 == spread->channels ? 0 : at + 1;
    }
    return at;
}

/* The scale or bias of each element of a row; itself when they lie so already. */
static const real *row_of(const Spread *spread, const real *values, int64_t row, int64_t n,
                          real *room)
{
    if (!values || (spread->inner == 1 && spread->channels == n))
        return values;
    SpreadStep step = spread_start(spread, row * n);
    for (int64_t j = 0; j < n; j++)
        room[j] = values[spread_next(spread, &step)];
    return room;
}

static void add_row(const Spread *spread, int64_t row, int64_t n, const real *from, real *to)
{
    SpreadStep step = spread_start(spread, row * n);
    for (int64_t j = 0; j < n; j++)
        to[spread_next(spread, &step)] += from[j];
}

int tensor_norm_forward(const OpCall *call, const TensorNorm *norm, const NormTensors *t)
{
    int64_t n = norm->norm.n;
    real *room = op_scratch(call, (size_t)(2 * n), sizeof *room);
    if (!room)
        return ONNXPRESS_MEMORY;
    for (int64_t row = 0; row < norm->rows; row++) {
        const real *x = t->x + row * n;
        const real *scale = row_of(&norm->scale, t->scale, row, n, room);
        const real *bias = row_of(&norm->bias, t->bias, row, n, room + n);
        RowMoments at = row_moments(&norm->norm, x);
        real *y = t->y + row * n;
        for (int64_t j = 0; j < n; j++)
            y[j] = (x[j] - at.mean) * at.r;
        for (int64_t j = 0; scale && j < n; j++)
            y[j] *= scale[j];
        for (int64_t j = 0; bias && j < n; j++)
            y[j] += bias[j];
        if (t->mean)
            t->mean[row] = at.mean;
        if (t->r)
            t->r[row] = at.r;
    }
    return ONNXPRESS_OK;
}

int tensor_norm_backward(const OpCall *call, const TensorNorm *norm, const NormTensors *t)
{
    int64_t n = norm->norm.n;
    real *room = op_scratch(call, (size_t)(2 * n), sizeof *room);
    if (!room)
        return ONNXPRESS_MEMORY;
    for (int64_t row = 0; row < norm->rows; row++) {
        const real *x = t->x + row * n, *d = t->d_y ? t->d_y + row * n : NULL, *g = d;
        RowMoments at = row_moments(&norm->norm, x);
        if (d && t->d_bias)
            add_row(&norm->bias, row, n, d, t->d_bias);
        for (int64_t j = 0; d && t->d_scale && j < n; j++)
            room[j] = d[j] * (x[j] - at.mean) * at.r;
        if (d && t->d_scale)
            add_row(&norm->scale, row, n, room, t->d_scale);
        if (!t->d_x)
            continue;
        const real *scale = row_of(&norm->scale, t->scale, row, n, room + n);
        for (int64_t j = 0; d && scale && j < n; j++)
            room[j] = d[j] * scale[j];
        if (d && scale)
            g = room;
        row_gradient(&norm->norm, at, x, g, t->d_mean ? t->d_mean[row] : 0,
                     t->d_r ? t->d_r[row] : 0, t->d_x + row * n);
    }
    return ONNXPRESS_OK;
}

/* What follows from y's second derivatives in one row; room holds 3 n numbers. */
static void bend_row(const TensorNorm *norm, const NormTensors *t, int64_t row, RowMoments at,
                     real *room)
{
    int64_t n = norm->norm.n;
    const real *x = t->x + row * n, *dd = t->d_y + row * n;
    const real *first = t->first[0] ? t->first[0] + row * n : NULL;
    if (t->d_bias)
        add_row(&norm->bias, row, n, dd, t->d_bias);
    for (int64_t j = 0; t->d_scale && j < n; j++) {
        real z = (x[j] - at.mean) * at.r;
        room[j] = dd[j] * z * z;
    }
    if (t->d_scale)
        add_row(&norm->scale, row, n, room, t->d_scale);
    if (!t->d_x)
        return;
    const real *scale = row_of(&norm->scale, t->scale, row, n, room + 2 * n);
    for (int64_t j = 0; j < n; j++) {
        real s = scale ? scale[j] : 1;
        room[j] = dd[j] * s * s;
        room[n + j] = first ? first[j] * s : 0;
    }
    row_bend(&norm->norm, at, x, room, first ? room + n : NULL, t->d_x + row * n);
}

int tensor_norm_curvature(const OpCall *call, const TensorNorm *norm, const NormTensors *t)
{
    int64_t n = norm->norm.n;
    real *room = op_scratch(call, (size_t)(3 * n), sizeof *room);
    if (!room)
        return ONNXPRESS_MEMORY;
    for (int64_t row = 0; row < norm->rows; row++) {
        RowMoments at = row_moments(&norm->norm, t->x + row * n);
        if (t->d_y)
            bend_row(norm, t, row, at, room);
        if (!t->d_x || (!t->d_mean && !t->d_r))
            continue;
        real bend[2] = {t->d_mean ? t->d_mean[row] : 0, t->d_r ? t->d_r[row] : 0};
        real g[2] = {0, t->first[2] ? t->first[2][row] : 0};
        row_bend_moments(&norm->norm, at, t->x + row * n, bend, g, t->d_x + row * n);
    }
    return ONNXPRESS_OK;
}
