/* SPDX-License-Identifier: Apache-2.0
 *
 * LRN: y_c = x_c s_c^-beta with s_c = bias + alpha / size * the sum of x^2 over channels about c.
 */
#include "ops/support_internal.h"

typedef struct {
    int64_t size;
    real alpha, beta, bias;
} Lrn;

static int read_lrn(OpNode *node, Arena *arena, Error *err)
{
    Lrn *lrn = arena_array(arena, 1, sizeof *lrn);
    if (!lrn)
        return error_memory(err, "a node's parameters");
    lrn->size = attribute_int(node, "size", 0);
    lrn->alpha = (real)attribute_float(node, "alpha", 1e-4f);
    lrn->beta = (real)attribute_float(node, "beta", 0.75f);
    lrn->bias = (real)attribute_float(node, "bias", 1);
    if (lrn->size < 1 || lrn->size > INT32_MAX)
        return read_error(node, err, ONNXPRESS_FORMAT, "size is %lld", (long long)lrn->size);
    node->params = lrn;
    return ONNXPRESS_OK;
}

typedef struct {
    int64_t samples, channels, inner;
} LrnShape;

static int lrn_shape(const OpCall *call, LrnShape *s)
{
    const Shape *x = &call->in[0]->shape;
    if (x->rank < 2)
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d", x->rank);
    *s = (LrnShape){x->dim[0], x->dim[1], dims_product(x, 2, x->rank)};
    return ONNXPRESS_OK;
}

/* The channels [first, last) about one. */
static void about(const Lrn *lrn, const LrnShape *s, int64_t channel, int64_t *first, int64_t *last)
{
    int64_t low = channel - (lrn->size - 1) / 2, high = channel + lrn->size / 2 + 1;
    *first = low > 0 ? low : 0;
    *last = high < s->channels ? high : s->channels;
}

static real scale_at(const Lrn *lrn, const LrnShape *s, const real *x, int64_t channel)
{
    int64_t first, last;
    real sum = 0;
    about(lrn, s, channel, &first, &last);
    for (int64_t c = first; c < last; c++)
        sum += x[c * s->inner] * x[c * s->inner];
    return lrn->bias + lrn->alpha / (real)lrn->size * sum;
}

static int lrn_forward(const OpCall *call)
{
    const Lrn *lrn = call->node->params;
    LrnShape s = {0};
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) || (status = lrn_shape(call, &s)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape)))
        return status;
    for (int64_t n = 0; call->in[0]->count && n < s.samples; n++)
        for (int64_t i = 0; i < s.inner; i++) {
            const real *x = call->in[0]->r + n * s.channels * s.inner + i;
            real *y = call->out[0]->r + n * s.channels * s.inner + i;
            for (int64_t c = 0; c < s.channels; c++)
                y[c * s.inner] = x[c * s.inner] * REAL_POW(scale_at(lrn, &s, x, c), -lrn->beta);
        }
    return ONNXPRESS_OK;
}

/* dy_c/dx_i = d_ic u - b x_c x_i with u = s^-beta, b = 2 alpha beta / size u / s. */
static void column_backward(const Lrn *lrn, const LrnShape *s, const real *x, const real *d,
                            real *d_x)
{
    for (int64_t c = 0; c < s->channels; c++) {
        int64_t first, last;
        real scale = scale_at(lrn, s, x, c), u = REAL_POW(scale, -lrn->beta);
        real b = 2 * lrn->alpha * lrn->beta / (real)lrn->size * u / scale;
        about(lrn, s, c, &first, &last);
        d_x[c * s->inner] += d[c * s->inner] * u;
        for (int64_t i = first; i < last; i++)
            d_x[i * s->inner] -= d[c * s->inner] * b * x[c * s->inner] * x[i * s->inner];
    }
}

/* d2y_c/dx_i2 = -b x_c (1 + 2 d_ic - 2 alpha (beta + 1) / size x_i^2 / s). */
static void column_curvature(const Lrn *lrn, const LrnShape *s, const real *x, const real *dd,
                             const real *d, real *dd_x)
{
    real k = 2 * lrn->alpha / (real)lrn->size;
    for (int64_t c = 0; c < s->channels; c++) {
        int64_t first, last;
        real scale = scale_at(lrn, s, x, c), u = REAL_POW(scale, -lrn->beta);
        real b = k * lrn->beta * u / scale, xc = x[c * s->inner];
        about(lrn, s, c, &first, &last);
        for (int64_t i = first; i < last; i++) {
            real xi = x[i * s->inner], slope = (i == c ? u : 0) - b * xc * xi;
            real bend = -b * xc * ((i == c ? 3 : 1) - k * (lrn->beta + 1) * xi * xi / scale);
            dd_x[i * s->inner] +=
                slope * slope * dd[c * s->inner] + (d ? bend * d[c * s->inner] : 0);
        }
    }
}

/* `first` NULL: backward; else its first element is Y's gradient (NULL: zero). */
static int lrn_add(const OpCall *call, const real *const *first)
{
    const Lrn *lrn = call->node->params;
    LrnShape s = {0};
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = lrn_shape(call, &s);
    for (int64_t n = 0; !status && n < s.samples; n++)
        for (int64_t i = 0; i < s.inner; i++) {
            int64_t at = n * s.channels * s.inner + i;
            const real *x = call->in[0]->r + at, *d = call->d_out[0] + at;
            if (first)
                column_curvature(lrn, &s, x, d, first[0] ? first[0] + at : NULL,
                                 call->d_in[0] + at);
            else
                column_backward(lrn, &s, x, d, call->d_in[0] + at);
        }
    return status;
}

static int lrn_backward(const OpCall *call)
{
    return lrn_add(call, NULL);
}

static int lrn_curvature(const OpCall *call, const real *const *d_out)
{
    return lrn_add(call, d_out);
}

static const OpRow rows[] = {
    {"", "LRN", 1, OP_KEEP_INPUTS, .read = read_lrn, .forward = lrn_forward,
     .backward = lrn_backward, .curvature = lrn_curvature},
};

const OpFamily op_family_lrn = {rows, sizeof rows / sizeof rows[0]};
