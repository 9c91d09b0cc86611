/* SPDX-License-Identifier: Apache-2.0
 *
 * LpPool and GlobalLpPool: the p-th root of the sum of p-th powers of absolute values. */
#include "ops/support_internal.h"
#include "ops/window_internal.h"

#include <string.h>

typedef struct {
    WindowParams window;
    real p;
} LpPool;

static int read_p(OpNode *node, Arena *arena, bool global, Error *err)
{
    LpPool *pool = arena_array(arena, 1, sizeof *pool);
    if (!pool)
        return error_memory(err, "a node's parameters");
    int status = global ? ONNXPRESS_OK : window_read(node, arena, err);
    if (status)
        return status;
    if (!global)
        pool->window = *(const WindowParams *)node->params;
    int64_t p = attribute_int(node, "p", 2);
    if (p < 1 || p > INT16_MAX)
        return read_error(node, err, ONNXPRESS_FORMAT, "p is %lld", (long long)p);
    pool->p = (real)p;
    node->params = pool;
    return ONNXPRESS_OK;
}

static int read_pool(OpNode *node, Arena *arena, Error *err)
{
    return read_p(node, arena, false, err);
}

static int read_global(OpNode *node, Arena *arena, Error *err)
{
    return read_p(node, arena, true, err);
}

/* One plane's window, or for a global pool all of the plane as one line. */
static int pool_shape(const OpCall *call, Window *w, Shape *out, int64_t *planes)
{
    const LpPool *pool = call->node->params;
    const Shape *x = &call->in[0]->shape;
    int status = ONNXPRESS_OK;
    if (x->rank < 2)
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d", x->rank);
    *planes = x->dim[0] * x->dim[1];
    if (call->node->row->type[0] == 'G') {
        int64_t size = dims_product(x, 2, x->rank);
        if (size < 1)
            return op_error(call, ONNXPRESS_FORMAT, "an input without elements");
        *out = *x;
        for (int a = 2; a < x->rank; a++)
            out->dim[a] = 1;
        *w = (Window){.in = {1, 1, size},
                      .out = {1, 1, 1},
                      .kernel = {1, 1, size},
                      .stride = {1, 1, 1},
                      .dilation = {1, 1, 1},
                      .in_size = size,
                      .out_size = 1,
                      .kernel_size = size};
        return ONNXPRESS_OK;
    }
    if (!pool->window.has_kernel)
        return op_error(call, ONNXPRESS_FORMAT, "kernel_shape is missing");
    status = window_make(call, &pool->window, x, pool->window.kernel, w, out);
    out->dim[0] = x->dim[0];
    out->dim[1] = x->dim[1];
    return status;
}

typedef enum { SUM, SLOPE, BEND } Pass;

/* A plane's outputs take in its taps: SUM adds |x|^p to y, SLOPE passes d on by the derivative
 * x |x|^(p-2) y^(1-p), BEND passes dd on by its square and d by
 * (p-1) (|x|^(p-2) y^(1-p) - |x|^(2p-2) y^(1-2p)). */
static void plane_pass(const Window *w, real p, Pass pass, const real *x, real *y, const real *d,
                       const real *dd, real *d_x)
{
    int64_t tap[3], first[3], last[3], at[3];
    for (tap[0] = 0; tap[0] < w->kernel[0]; tap[0]++)
        for (tap[1] = 0; tap[1] < w->kernel[1]; tap[1]++)
            for (tap[2] = 0; tap[2] < w->kernel[2]; tap[2]++) {
                for (int a = 0; a < 3; a++)
                    window_range(w, a, tap[a], &first[a], &last[a]);
                for (at[0] = first[0]; at[0] < last[0]; at[0]++)
                    for (at[1] = first[1]; at[1] < last[1]; at[1]++)
                        for (at[2] = first[2]; at[2] < last[2]; at[2]++) {
                            int64_t from = 0, to = 0;
                            for (int a = 0; a < 3; a++) {
                                from = from * w->in[a] + at[a] * w->stride[a] +
                                       tap[a] * w->dilation[a] - w->begin[a];
                                to = to * w->out[a] + at[a];
                            }
                            real size = REAL_ABS(x[from]), all = y[to];
                            if (pass == SUM) {
                                y[to] += REAL_POW(size, p);
                                continue;
                            }
                            if (!(all > 0) || !(size > 0)) /* flat, or a kink */
                                continue;
                            real slope = REAL_POW(size / all, p - 1);
                            if (pass == SLOPE)
                                d_x[from] += d[to] * (x[from] < 0 ? -slope : slope);
                            else
                                d_x[from] +=
                                    dd[to] * slope * slope +
                                    (d ? d[to] * (p - 1) * (slope / size - slope * slope / all)
                                       : 0);
                        }
            }
}

static int lp_forward(const OpCall *call)
{
    const LpPool *pool = call->node->params;
    Window w;
    Shape shape;
    int64_t planes;
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) ||
        (status = pool_shape(call, &w, &shape, &planes)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)))
        return status;
    real *y = call->out[0]->r;
    memset(y, 0, (size_t)call->out[0]->count * sizeof *y);
    for (int64_t k = 0; k < planes; k++)
        plane_pass(&w, pool->p, SUM, call->in[0]->r + k * w.in_size, y + k * w.out_size, NULL, NULL,
                   NULL);
    for (int64_t e = 0; e < call->out[0]->count; e++)
        y[e] = REAL_POW(y[e], 1 / pool->p);
    return ONNXPRESS_OK;
}

static int lp_add(const OpCall *call, Pass pass, const real *d, const real *dd)
{
    const LpPool *pool = call->node->params;
    Window w;
    Shape shape;
    int64_t planes;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = pool_shape(call, &w, &shape, &planes);
    for (int64_t k = 0; !status && k < planes; k++) {
        int64_t in = k * w.in_size, out = k * w.out_size;
        plane_pass(&w, pool->p, pass, call->in[0]->r + in, call->out[0]->r + out,
                   d ? d + out : NULL, dd ? dd + out : NULL, call->d_in[0] + in);
    }
    return status;
}

static int lp_backward(const OpCall *call)
{
    return lp_add(call, SLOPE, call->d_out[0], NULL);
}

static int lp_curvature(const OpCall *call, const real *const *d_out)
{
    return lp_add(call, BEND, d_out[0], call->d_out[0]);
}

static const OpRow rows[] = {
    {"", "LpPool", 2, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, .read = read_pool, .forward = lp_forward,
     .backward = lp_backward, .curvature = lp_curvature},
    {"", "GlobalLpPool", 2, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, .read = read_global,
     .forward = lp_forward, .backward = lp_backward, .curvature = lp_curvature},
};

const OpFamily op_family_lp_pool = {rows, sizeof rows / sizeof rows[0]};
