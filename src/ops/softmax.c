/* SPDX-License-Identifier: Apache-2.0
 *
 * Softmax and LogSoftmax. Before opset 13 the axes from `axis` on are one axis; since, it is one.
 */
#include "ops/support_internal.h"

typedef struct {
    int64_t axis;
    bool flattens;
} Softmax;

typedef struct {
    int64_t outer, n, inner; /* element k of a row is at k * inner */
} Rows;

static int read_softmax(OpNode *node, Arena *arena, Error *err)
{
    Softmax *softmax = arena_array(arena, 1, sizeof *softmax);
    if (!softmax)
        return error_memory(err, "a node's parameters");
    softmax->flattens = node->opset < 13;
    softmax->axis = attribute_int(node, "axis", softmax->flattens ? 1 : -1);
    node->params = softmax;
    return ONNXPRESS_OK;
}

static int softmax_rows(const OpCall *call, Rows *rows)
{
    const Softmax *softmax = call->node->params;
    const Shape *shape = &call->in[0]->shape;
    int axis = 0;
    if (shape->rank == 0) {
        *rows = (Rows){1, 1, 1};
        return ONNXPRESS_OK;
    }
    if (softmax->flattens && softmax->axis == shape->rank) { /* rows of one element */
        *rows = (Rows){call->in[0]->count, 1, 1};
        return ONNXPRESS_OK;
    }
    int status = op_axis(call, softmax->axis, shape->rank, &axis);
    if (status)
        return status;
    int last = softmax->flattens ? shape->rank : axis + 1;
    *rows = (Rows){dims_product(shape, 0, axis), dims_product(shape, axis, last),
                   dims_product(shape, last, shape->rank)};
    return ONNXPRESS_OK;
}

static int softmax_start(const OpCall *call, Rows *rows)
{
    int status = op_require_real(call, 0);
    if (status || (status = op_require(call, 1)) || (status = softmax_rows(call, rows)))
        return status;
    return op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape);
}

static real row_maximum(const real *x, int64_t n, int64_t step)
{
    real most = x[0];
    for (int64_t k = 1; k < n; k++)
        if (x[k * step] > most)
            most = x[k * step];
    return most;
}

#define FOR_ROWS(rows, base)                                                                       \
    for (int64_t row_ = 0, base = 0; row_ < (rows).outer * (rows).inner;                           \
         row_++, base = row_ / (rows).inner * (rows).n * (rows).inner + row_ % (rows).inner)

static int softmax_forward(const OpCall *call)
{
    Rows rows;
    int status = softmax_start(call, &rows);
    if (status || call->in[0]->count == 0)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *x = call->in[0]->r + base;
        real *y = call->out[0]->r + base, most = row_maximum(x, rows.n, rows.inner);
        double sum = 0;
        for (int64_t k = 0; k < rows.n; k++)
            sum += (double)(y[k * rows.inner] = REAL_EXP(x[k * rows.inner] - most));
        for (int64_t k = 0; k < rows.n; k++)
            y[k * rows.inner] = (real)((double)y[k * rows.inner] / sum);
    }
    return ONNXPRESS_OK;
}

static int softmax_backward(const OpCall *call)
{
    Rows rows;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = softmax_rows(call, &rows);
    if (status)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *y = call->out[0]->r + base, *d_y = call->d_out[0] + base;
        real *d_x = call->d_in[0] + base;
        double mean = 0;
        for (int64_t k = 0; k < rows.n; k++)
            mean += (double)y[k * rows.inner] * (double)d_y[k * rows.inner];
        for (int64_t k = 0; k < rows.n; k++)
            d_x[k * rows.inner] += y[k * rows.inner] * (d_y[k * rows.inner] - (real)mean);
    }
    return ONNXPRESS_OK;
}

/* dy_j/dx_i = y_j (d_ij - y_i); d2y_j/dx_i2 = y_j (d_ij (1 - 2 y_i) + y_i (2 y_i - 1)). */
static int softmax_curvature(const OpCall *call, const real *const *d_out)
{
    Rows rows;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = softmax_rows(call, &rows);
    if (status)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *y = call->out[0]->r + base, *dd_y = call->d_out[0] + base;
        const real *d_y = d_out[0] ? d_out[0] + base : NULL;
        double squares = 0, mean = 0;
        for (int64_t k = 0; k < rows.n; k++) {
            double p = (double)y[k * rows.inner];
            squares += p * p * (double)dd_y[k * rows.inner];
            mean += d_y ? p * (double)d_y[k * rows.inner] : 0;
        }
        for (int64_t k = 0; k < rows.n; k++) {
            double p = (double)y[k * rows.inner], left = 1 - 2 * p;
            double sum = p * p * (squares + left * (double)dd_y[k * rows.inner]);
            if (d_y)
                sum += p * left * ((double)d_y[k * rows.inner] - mean);
            call->d_in[0][base + k * rows.inner] += (real)sum;
        }
    }
    return ONNXPRESS_OK;
}

static int log_softmax_forward(const OpCall *call)
{
    Rows rows;
    int status = softmax_start(call, &rows);
    if (status || call->in[0]->count == 0)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *x = call->in[0]->r + base;
        real *y = call->out[0]->r + base, most = row_maximum(x, rows.n, rows.inner);
        double sum = 0;
        for (int64_t k = 0; k < rows.n; k++)
            sum += (double)REAL_EXP(x[k * rows.inner] - most);
        real log_sum = (real)log(sum);
        for (int64_t k = 0; k < rows.n; k++)
            y[k * rows.inner] = x[k * rows.inner] - most - log_sum;
    }
    return ONNXPRESS_OK;
}

static int log_softmax_backward(const OpCall *call)
{
    Rows rows;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = softmax_rows(call, &rows);
    if (status)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *y = call->out[0]->r + base, *d_y = call->d_out[0] + base;
        real *d_x = call->d_in[0] + base;
        double sum = 0;
        for (int64_t k = 0; k < rows.n; k++)
            sum += (double)d_y[k * rows.inner];
        for (int64_t k = 0; k < rows.n; k++)
            d_x[k * rows.inner] += d_y[k * rows.inner] - REAL_EXP(y[k * rows.inner]) * (real)sum;
    }
    return ONNXPRESS_OK;
}

/* With p = exp(y): dy_j/dx_i = d_ij - p_i; d2y_j/dx_i2 = -p_i (1 - p_i). */
static int log_softmax_curvature(const OpCall *call, const real *const *d_out)
{
    Rows rows;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = softmax_rows(call, &rows);
    if (status)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *y = call->out[0]->r + base, *dd_y = call->d_out[0] + base;
        const real *d_y = d_out[0] ? d_out[0] + base : NULL;
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < rows.n; k++) {
            squares += (double)dd_y[k * rows.inner];
            sum += d_y ? (double)d_y[k * rows.inner] : 0;
        }
        for (int64_t k = 0; k < rows.n; k++) {
            double p = exp((double)y[k * rows.inner]);
            call->d_in[0][base + k * rows.inner] +=
                (real)(p * p * squares + (1 - 2 * p) * (double)dd_y[k * rows.inner] -
                       p * (1 - p) * sum);
        }
    }
    return ONNXPRESS_OK;
}

/* 1 for the first of a row's largest, 0 for the others: a choice, without a derivative. */
static int hardmax_forward(const OpCall *call)
{
    Rows rows;
    int status = softmax_start(call, &rows);
    if (status || call->in[0]->count == 0)
        return status;
    FOR_ROWS(rows, base)
    {
        const real *x = call->in[0]->r + base;
        real *y = call->out[0]->r + base;
        int64_t best = 0;
        for (int64_t k = 0; k < rows.n; k++) {
            best = x[k * rows.inner] > x[best * rows.inner] ? k : best;
            y[k * rows.inner] = 0;
        }
        y[best * rows.inner] = 1;
    }
    return ONNXPRESS_OK;
}

static const OpRow table[] = {
    {"", "Softmax", 1, OP_KEEP_OUTPUTS, .read = read_softmax, .forward = softmax_forward,
     .backward = softmax_backward, .curvature = softmax_curvature},
    {"", "LogSoftmax", 1, OP_KEEP_OUTPUTS, .read = read_softmax, .forward = log_softmax_forward,
     .backward = log_softmax_backward, .curvature = log_softmax_curvature},
    {"", "Hardmax", 1, 0, .read = read_softmax, .forward = hardmax_forward},
};

const OpFamily op_family_softmax = {table, sizeof table / sizeof table[0]};
