/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/support_internal.h"

/* BatchNormalization: y = (x - mean) * r * scale + bias with r = 1 / sqrt(var + eps), a channel
 * (axis 1) at a time. Inputs are x, scale, bias, mean, var. A call by batch takes mean and variance
 * from its x, and then they move with it. */

enum { X, SCALE, BIAS, MEAN, VARIANCE, INPUTS };

typedef struct {
    real epsilon;
} NormParams;

static int norm_read(OpNode *node, Arena *arena, Error *err)
{
    NormParams *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    params->epsilon = (real)attribute_float(node, "epsilon", 1e-5f);
    if (attribute_int(node, "training_mode", 0))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "training_mode is set");
    if (!attribute_int(node, "spatial", 1))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "spatial is 0");
    node->params = params;
    return ONNXPRESS_OK;
}

typedef struct {
    int64_t samples, channels, size; /* size: elements of one sample's channel */
} NormShape;

static int norm_shape(const OpCall *call, NormShape *s)
{
    const Shape *x = &call->in[X]->shape;
    if (x->rank < 1)
        return op_error(call, ONNXPRESS_FORMAT, "the input is a scalar");
    s->samples = x->dim[0];
    s->channels = x->rank > 1 ? x->dim[1] : 1;
    s->size = dims_product(x, 2, x->rank);
    for (int k = SCALE; k < INPUTS; k++)
        if (call->in[k]->count != s->channels)
            return op_error(call, ONNXPRESS_FORMAT, "input %d has %lld elements for %lld channels",
                            k, (long long)call->in[k]->count, (long long)s->channels);
    return ONNXPRESS_OK;
}

/* Sums over a channel's elements: of x - centre and its square; with d, of d and d (x - centre). */
typedef struct {
    double first, second;
} ChannelSums;

static ChannelSums channel_sums(const NormShape *s, int64_t c, const real *x, const real *d,
                                real centre)
{
    ChannelSums sums = {0, 0};
    for (int64_t row = c; row < s->samples * s->channels; row += s->channels) {
        const real *u = x + row * s->size, *f = d ? d + row * s->size : NULL;
        real first = 0, second = 0;
        if (d)
#pragma omp simd reduction(+ : first, second)
            for (int64_t i = 0; i < s->size; i++) {
                first += f[i];
                second += f[i] * (u[i] - centre);
            }
        else
#pragma omp simd reduction(+ : first, second)
            for (int64_t i = 0; i < s->size; i++) {
                real away = u[i] - centre;
                first += away;
                second += away * away;
            }
        sums.first += (double)first;
        sums.second += (double)second;
    }
    return sums;
}

/* What channel c is normalized by: its mean and r. The model's mean is where the sums are taken
 * about: far values lose no digits. */
static void channel_norm(const OpCall *call, const NormShape *s, int64_t c, real *mean, real *r)
{
    const NormParams *params = call->node->params;
    real variance = call->in[VARIANCE]->r[c];
    int64_t count = s->samples * s->size;
    *mean = call->in[MEAN]->r[c];
    if (call->by_batch && count > 0) {
        ChannelSums sums = channel_sums(s, c, call->in[X]->r, NULL, *mean);
        double shift = sums.first / (double)count;
        double spread = sums.second / (double)count - shift * shift;
        *mean += (real)shift;
        variance = spread > 0 ? (real)spread : 0;
    }
    *r = 1 / REAL_SQRT(variance + params->epsilon);
}

static int norm_forward(const OpCall *call)
{
    NormShape s;
    int status = op_require(call, INPUTS);
    for (int k = 0; !status && k < INPUTS; k++)
        status = op_require_real(call, k);
    for (int k = 1; !status && k < call->n_out; k++)
        if (call->out[k])
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "an output of training is asked for");
    if (!status)
        status = norm_shape(call, &s);
    if (!status)
        status = op_output(call, 0, call->in[X]->dtype, &call->in[X]->shape);
    if (status)
        return status;
    const real *x = call->in[X]->r;
    real *y = call->out[0]->r;
    for (int64_t c = 0; c < s.channels; c++) {
        real mean, r;
        channel_norm(call, &s, c, &mean, &r);
        real factor = call->in[SCALE]->r[c] * r, shift = call->in[BIAS]->r[c] - mean * factor;
        for (int64_t row = c; row < s.samples * s.channels; row += s.channels)
            for (int64_t i = row * s.size; i < (row + 1) * s.size; i++)
                y[i] = x[i] * factor + shift;
    }
    return ONNXPRESS_OK;
}

/* With u = (x - mean) r and n elements: dx = scale r (d - sum d / n - u sum (d u) / n). */
static int batch_backward(const OpCall *call, const NormShape *s)
{
    const real *x = call->in[X]->r, *d = call->d_out[0];
    real n = (real)(s->samples * s->size);
    for (int64_t c = 0; c < s->channels; c++) {
        real mean, r;
        channel_norm(call, s, c, &mean, &r);
        ChannelSums sums = channel_sums(s, c, x, d, mean);
        real by_bias = (real)sums.first, by_scale = (real)sums.second * r;
        if (call->d_in[BIAS])
            call->d_in[BIAS][c] += by_bias;
        if (call->d_in[SCALE])
            call->d_in[SCALE][c] += by_scale;
        real factor = call->in[SCALE]->r[c] * r, slope = -factor * by_scale * r / n;
        real shift = -factor * by_bias / n - slope * mean;
        for (int64_t row = c; call->d_in[X] && row < s->samples * s->channels; row += s->channels)
            for (int64_t i = row * s->size; i < (row + 1) * s->size; i++)
                call->d_in[X][i] += d[i] * factor + x[i] * slope + shift;
    }
    return ONNXPRESS_OK;
}

/* One row's (sample's channel's) gradient by each parameter: all follow from two sums. */
static void row_gradients(const OpCall *call, const NormShape *s, int64_t row, real *out)
{
    const NormParams *params = call->node->params;
    int64_t c = row % s->channels;
    const real *x = call->in[X]->r + row * s->size, *d = call->d_out[0] + row * s->size;
    real mean = call->in[MEAN]->r[c], scale = call->in[SCALE]->r[c];
    real r = 1 / REAL_SQRT(call->in[VARIANCE]->r[c] + params->epsilon), sum = 0, sum_x = 0;
#pragma omp simd reduction(+ : sum, sum_x)
    for (int64_t i = 0; i < s->size; i++) {
        sum += d[i];
        sum_x += d[i] * (x[i] - mean);
    }
    out[SCALE] = sum_x * r;
    out[BIAS] = sum;
    out[MEAN] = -sum * scale * r;
    out[VARIANCE] = sum_x * scale * r * r * r / -2;
}

static int norm_backward(const OpCall *call)
{
    const NormParams *params = call->node->params;
    NormShape s;
    int status = norm_shape(call, &s);
    if (status || !call->d_out[0])
        return status;
    if (call->by_batch)
        return batch_backward(call, &s);
    bool by_parameter = false;
    for (int k = SCALE; k < INPUTS; k++)
        by_parameter |= call->d_in[k] != NULL;
    for (int64_t row = 0; row < s.samples * s.channels; row++) {
        int64_t c = row % s.channels;
        real gradient[INPUTS];
        if (by_parameter)
            row_gradients(call, &s, row, gradient);
        for (int k = SCALE; k < INPUTS; k++)
            if (call->d_in[k])
                call->d_in[k][c] += gradient[k];
        if (!call->d_in[X])
            continue;
        real factor = call->in[SCALE]->r[c] / REAL_SQRT(call->in[VARIANCE]->r[c] + params->epsilon);
        for (int64_t i = row * s.size; i < (row + 1) * s.size; i++)
            call->d_in[X][i] += call->d_out[0][i] * factor;
    }
    return ONNXPRESS_OK;
}

static int norm_square(const OpCall *call, int k, real *acc)
{
    NormShape s;
    if (k == X)
        return ONNXPRESS_UNSUPPORTED;
    if (!acc || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = norm_shape(call, &s);
    for (int64_t row = 0; !status && row < s.samples * s.channels; row++) {
        real gradient[INPUTS];
        row_gradients(call, &s, row, gradient);
        acc[row % s.channels] += gradient[k] * gradient[k];
    }
    return status;
}

/* Linear in all but the variance: with u = x - mean, dy/dv = -scale u r^3 / 2 and
 * d2y/dv2 = 3/4 scale u r^5. */
static void row_curvature(const OpCall *call, const NormShape *s, int64_t row, const real *d_y,
                          real *out)
{
    const NormParams *params = call->node->params;
    int64_t c = row % s->channels;
    const real *x = call->in[X]->r + row * s->size, *dd = call->d_out[0] + row * s->size;
    real mean = call->in[MEAN]->r[c], scale = call->in[SCALE]->r[c];
    real r = 1 / REAL_SQRT(call->in[VARIANCE]->r[c] + params->epsilon);
    real sum = 0, squares = 0, first = 0;
    for (int64_t i = 0; i < s->size; i++) {
        real u = x[i] - mean;
        sum += dd[i];
        squares += dd[i] * u * u;
        first += d_y ? d_y[row * s->size + i] * u : 0;
    }
    real slope = scale * r * r * r / 2;
    out[SCALE] = squares * r * r;
    out[BIAS] = sum;
    out[MEAN] = sum * scale * scale * r * r;
    out[VARIANCE] = squares * slope * slope + first * (real)1.5 * slope * r * r;
}

static int norm_curvature(const OpCall *call, const real *const *d_out)
{
    const NormParams *params = call->node->params;
    NormShape s;
    int status = norm_shape(call, &s);
    if (status || !call->d_out[0])
        return status;
    for (int64_t row = 0; row < s.samples * s.channels; row++) {
        int64_t c = row % s.channels;
        real second[INPUTS];
        row_curvature(call, &s, row, d_out[0], second);
        for (int k = SCALE; k < INPUTS; k++)
            if (call->d_in[k])
                call->d_in[k][c] += second[k];
        if (!call->d_in[X])
            continue;
        real factor = call->in[SCALE]->r[c] / REAL_SQRT(call->in[VARIANCE]->r[c] + params->epsilon);
        for (int64_t i = row * s.size; i < (row + 1) * s.size; i++)
            call->d_in[X][i] += call->d_out[0][i] * factor * factor;
    }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "BatchNormalization", 7, OP_KEEP_INPUTS, norm_read, norm_forward, norm_backward,
     norm_square, .curvature = norm_curvature},
};

const OpFamily op_family_normalization = {rows, sizeof rows / sizeof rows[0]};
