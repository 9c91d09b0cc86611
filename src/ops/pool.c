/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/support_internal.h"
#include "ops/window_internal.h"

/* Every plane (one sample's channel) is pooled by itself. */

static int pool_shape(const OpCall *call, Window *window, Shape *out)
{
    const WindowParams *params = call->node->params;
    const Shape *x = &call->in[0]->shape;
    if (!params->has_kernel)
        return op_error(call, ONNXPRESS_FORMAT, "kernel_shape is missing");
    int status = window_make(call, params, x, params->kernel, window, out);
    for (int k = 0; !status && k < 3; k++)
        if (window->begin[k] > (window->kernel[k] - 1) * window->dilation[k] ||
            window->end[k] > (window->kernel[k] - 1) * window->dilation[k])
            return op_error(call, ONNXPRESS_FORMAT, "the padding is wider than the window");
    out->dim[0] = x->dim[0];
    out->dim[1] = x->dim[1];
    return status;
}

static int pool_begin(const OpCall *call, Window *window)
{
    Shape shape;
    int status = op_require(call, 1);
    if (!status)
        status = op_require_real(call, 0);
    if (!status)
        status = pool_shape(call, window, &shape);
    return status ? status : op_output(call, 0, call->in[0]->dtype, &shape);
}

/* Taps of one output along one axis that lie inside the input: input first, first + dilation, …,
 * below last. */
typedef struct {
    int64_t first, last;
} Taps;

static Taps taps_at(const Window *w, int axis, int64_t out)
{
    int64_t start = out * w->stride[axis] - w->begin[axis], dilation = w->dilation[axis];
    int64_t end = start + (w->kernel[axis] - 1) * dilation + 1;
    int64_t skip = start < 0 ? (-start + dilation - 1) / dilation : 0;
    return (Taps){start + skip * dilation, end < w->in[axis] ? end : w->in[axis]};
}

/* Position of the largest element under an output, the first of equals; -1 when no tap is inside.
 */
static int64_t largest(const Window *w, const real *x, Taps d, Taps h, Taps v)
{
    int64_t best = -1;
    for (int64_t i = d.first; i < d.last; i += w->dilation[0])
        for (int64_t j = h.first; j < h.last; j += w->dilation[1]) {
            int64_t row = (i * w->in[1] + j) * w->in[2];
            for (int64_t k = v.first; k < v.last; k += w->dilation[2])
                if (best < 0 || x[row + k] > x[best])
                    best = row + k;
        }
    return best;
}

/* The common 2-D window of 2x2 without padding: no bounds to keep. */
static bool is_two_by_two(const Window *w)
{
    return w->kernel[0] == 1 && w->kernel[1] == 2 && w->kernel[2] == 2 && w->in[0] == 1 &&
           w->dilation[1] == 1 && w->dilation[2] == 1 && !w->begin[1] && !w->begin[2] &&
           (w->out[1] - 1) * w->stride[1] + 2 <= w->in[1] &&
           (w->out[2] - 1) * w->stride[2] + 2 <= w->in[2];
}

/* Without branches: which of the four is largest cannot be predicted. */
static inline int64_t largest_of_four(const real *x, int64_t at, int64_t width)
{
    int64_t top = at + (x[at + 1] > x[at]);
    int64_t bottom = at + width + (x[at + width + 1] > x[at + width]);
    return top + (bottom - top) * (x[bottom] > x[top]);
}

/* Calls for every output of one plane: y gets the maximum and `index`, unless it is NULL, its place;
 * or d_x gets the gradient. */
static void max_plane(const Window *w, const real *x, real *y, int64_t *index, const real *d_y,
                      real *d_x)
{
    bool small = is_two_by_two(w);
    int64_t p = 0;
    for (int64_t a = 0; a < w->out[0]; a++) {
        Taps d = taps_at(w, 0, a);
        for (int64_t b = 0; b < w->out[1]; b++) {
            Taps h = taps_at(w, 1, b);
            int64_t row = b * w->stride[1] * w->in[2];
            for (int64_t c = 0; c < w->out[2]; c++, p++) {
                int64_t best = small ? largest_of_four(x, row + c * w->stride[2], w->in[2])
                                     : largest(w, x, d, h, taps_at(w, 2, c));
                if (index)
                    index[p] = best;
                if (y)
                    y[p] = best < 0 ? -INFINITY : x[best];
                else if (best >= 0)
                    d_x[best] += d_y[p];
            }
        }
    }
}

/* From places in one plane to places in the whole, counted as storage_order says. */
static void settle_indices(const OpCall *call, const Window *w, int64_t planes)
{
    bool columns = attribute_int(call->node, "storage_order", 0) != 0;
    int64_t *index = call->out[1]->i;
    for (int64_t e = 0; e < planes * w->out_size; e++) {
        int64_t at = index[e], line = at / w->in[2], d = line / w->in[1], h = line % w->in[1];
        if (at < 0)
            continue; /* no tap is inside */
        if (columns)
            at = d + w->in[0] * (h + w->in[1] * (at % w->in[2]));
        index[e] = e / w->out_size * w->in_size + at;
    }
}

/* Pools of 8-bit integers go through reals, which hold them exactly. */
static int max_of_integers(const OpCall *call, const real **x, real **y)
{
    const Value *from = call->in[0];
    if (from->dtype != DTYPE_INT8 && from->dtype != DTYPE_UINT8)
        return op_require_real(call, 0);
    real *copy = op_scratch(call, (size_t)from->count + 1, sizeof *copy);
    *y = op_scratch(call, (size_t)call->out[0]->count + 1, sizeof **y);
    if (!copy || !*y)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < from->count; e++)
        copy[e] = (real)from->i[e];
    *x = copy;
    return ONNXPRESS_OK;
}

static int max_forward(const OpCall *call)
{
    Window w;
    Shape shape;
    bool indices = call->n_out > 1 && call->out[1];
    int status = op_require(call, 1);
    if (status || (status = pool_shape(call, &w, &shape)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)) ||
        (indices && (status = op_output(call, 1, DTYPE_INT64, &shape))))
        return status;
    const real *x = call->in[0]->r;
    real *y = call->out[0]->r;
    if (!x && (status = max_of_integers(call, &x, &y)))
        return status;
    int64_t planes = shape.dim[0] * shape.dim[1];
    for (int64_t plane = 0; plane < planes; plane++)
        max_plane(&w, x + plane * w.in_size, y + plane * w.out_size,
                  indices ? call->out[1]->i + plane * w.out_size : NULL, NULL, NULL);
    for (int64_t e = 0; !call->out[0]->r && e < call->out[0]->count; e++)
        call->out[0]->i[e] = y[e] > -256 ? (int64_t)y[e] : 0;
    if (indices)
        settle_indices(call, &w, planes);
    return ONNXPRESS_OK;
}

static int max_backward(const OpCall *call)
{
    Window w;
    Shape shape;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = pool_shape(call, &w, &shape);
    if (status)
        return status;
    for (int64_t plane = 0; plane < shape.dim[0] * shape.dim[1]; plane++)
        max_plane(&w, call->in[0]->r + plane * w.in_size, NULL, NULL,
                  call->d_out[0] + plane * w.out_size, call->d_in[0] + plane * w.in_size);
    return ONNXPRESS_OK;
}

/* What the sum under an output is divided by: its taps inside the input, or inside the padded one.
 */
static int64_t tap_count(const Window *w, int axis, int64_t out, Taps inside, bool padded)
{
    int64_t first = inside.first, last = inside.last, dilation = w->dilation[axis];
    if (padded) {
        int64_t limit = w->in[axis] + w->end[axis];
        first = out * w->stride[axis] - w->begin[axis];
        last = first + (w->kernel[axis] - 1) * dilation + 1;
        last = last < limit ? last : limit;
    }
    return last > first ? (last - first + dilation - 1) / dilation : 0;
}

/* y gets the averages, or d_x the gradient; `square`: by the square of each derivative. */
static void average_plane(const Window *w, bool padded, const real *x, real *y, const real *d_y,
                          real *d_x, bool square)
{
    int64_t p = 0;
    for (int64_t a = 0; a < w->out[0]; a++)
        for (int64_t b = 0; b < w->out[1]; b++)
            for (int64_t c = 0; c < w->out[2]; c++, p++) {
                Taps d = taps_at(w, 0, a), h = taps_at(w, 1, b), v = taps_at(w, 2, c);
                int64_t count = tap_count(w, 0, a, d, padded) * tap_count(w, 1, b, h, padded) *
                                tap_count(w, 2, c, v, padded);
                real sum = 0, part = count > 0 && d_y ? d_y[p] / (real)count : 0;
                if (square && count > 0)
                    part /= (real)count;
                for (int64_t i = d.first; i < d.last; i += w->dilation[0])
                    for (int64_t j = h.first; j < h.last; j += w->dilation[1]) {
                        int64_t row = (i * w->in[1] + j) * w->in[2];
                        for (int64_t k = v.first; k < v.last; k += w->dilation[2])
                            if (d_x)
                                d_x[row + k] += part;
                            else
                                sum += x[row + k];
                    }
                if (y)
                    y[p] = count > 0 ? sum / (real)count : 0;
            }
}

static int average_forward(const OpCall *call)
{
    const WindowParams *params = call->node->params;
    Window w;
    int status = pool_begin(call, &w);
    if (status)
        return status;
    const Shape *shape = &call->in[0]->shape;
    for (int64_t plane = 0; plane < shape->dim[0] * shape->dim[1]; plane++)
        average_plane(&w, params->count_include_pad, call->in[0]->r + plane * w.in_size,
                      call->out[0]->r + plane * w.out_size, NULL, NULL, false);
    return ONNXPRESS_OK;
}

static int average_add(const OpCall *call, bool square)
{
    const WindowParams *params = call->node->params;
    Window w;
    Shape shape;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = pool_shape(call, &w, &shape);
    if (status)
        return status;
    for (int64_t plane = 0; plane < shape.dim[0] * shape.dim[1]; plane++)
        average_plane(&w, params->count_include_pad, NULL, NULL,
                      call->d_out[0] + plane * w.out_size, call->d_in[0] + plane * w.in_size,
                      square);
    return ONNXPRESS_OK;
}

static int average_backward(const OpCall *call)
{
    return average_add(call, false);
}

static int average_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out;
    return average_add(call, true);
}

/* Global pools: planes and elements a plane. */
static int global_sizes(const OpCall *call, Shape *out, int64_t *planes, int64_t *size)
{
    const Shape *x = &call->in[0]->shape;
    if (x->rank < 2)
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d", x->rank);
    *out = *x;
    *planes = x->dim[0] * x->dim[1];
    *size = dims_product(x, 2, x->rank);
    for (int k = 2; k < x->rank; k++)
        out->dim[k] = 1;
    if (*size < 1)
        return op_error(call, ONNXPRESS_FORMAT, "an input without elements");
    return ONNXPRESS_OK;
}

static int global_begin(const OpCall *call, int64_t *planes, int64_t *size)
{
    Shape shape;
    int status = op_require(call, 1);
    if (!status)
        status = op_require_real(call, 0);
    if (!status)
        status = global_sizes(call, &shape, planes, size);
    return status ? status : op_output(call, 0, call->in[0]->dtype, &shape);
}

static int global_average_forward(const OpCall *call)
{
    int64_t planes, size;
    int status = global_begin(call, &planes, &size);
    for (int64_t p = 0; !status && p < planes; p++) {
        const real *x = call->in[0]->r + p * size;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < size; i++)
            sum += x[i];
        call->out[0]->r[p] = sum / (real)size;
    }
    return status;
}

static int global_average_add(const OpCall *call, bool square)
{
    Shape shape;
    int64_t planes, size;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = global_sizes(call, &shape, &planes, &size);
    for (int64_t p = 0; !status && p < planes; p++)
        for (int64_t i = 0; i < size; i++)
            call->d_in[0][p * size + i] +=
                call->d_out[0][p] / (real)size / (square ? (real)size : 1);
    return status;
}

static int global_average_backward(const OpCall *call)
{
    return global_average_add(call, false);
}

static int global_average_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out;
    return global_average_add(call, true);
}

static int64_t first_largest(const real *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static int global_max_forward(const OpCall *call)
{
    int64_t planes, size;
    int status = global_begin(call, &planes, &size);
    for (int64_t p = 0; !status && p < planes; p++) {
        const real *x = call->in[0]->r + p * size;
        call->out[0]->r[p] = x[first_largest(x, size)];
    }
    return status;
}

static int global_max_backward(const OpCall *call)
{
    Shape shape;
    int64_t planes, size;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = global_sizes(call, &shape, &planes, &size);
    for (int64_t p = 0; !status && p < planes; p++)
        call->d_in[0][p * size + first_largest(call->in[0]->r + p * size, size)] +=
            call->d_out[0][p];
    return status;
}

static const OpRow rows[] = {
    {"", "MaxPool", 1, OP_KEEP_INPUTS, window_read, max_forward, max_backward,
     .curvature = curvature_as_backward},
    {"", "AveragePool", 1, 0, window_read, average_forward, average_backward,
     .curvature = average_curvature},
    {"", "GlobalAveragePool", 1, 0, NULL, global_average_forward, global_average_backward,
     .curvature = global_average_curvature},
    {"", "GlobalMaxPool", 1, OP_KEEP_INPUTS, NULL, global_max_forward, global_max_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_pool = {rows, sizeof rows / sizeof rows[0]};
