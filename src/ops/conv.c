/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <string.h>

#include "ops/conv_internal.h"
#include "ops/support_internal.h"

/* Y[n][m][p] = b[m] + sum over c, k of W[m][c][k] X[n][c][p's tap k].
 *
 * Output positions p are taken a tile of whole lines (the innermost axis) at a time: the taps of a
 * tile are laid out as a matrix `col` [c·k][p], and all three products (forward, by X, by W) are
 * matrix products with it. Depthwise convolutions, whose matrices would have one row, are in
 * depthwise.c. */

/* A tile's matrix should stay in the second-level cache beside W and the output. */
#define TILE_BYTES ((int64_t)192 << 10)

static int conv_shape(const OpCall *call, Conv *conv, Shape *out)
{
    const WindowParams *params = call->node->params;
    const Value *x = op_in(call, 0), *w = op_in(call, 1), *b = op_in(call, 2);
    const Shape *weight = &w->shape;
    if (x->shape.rank < 3 || weight->rank != x->shape.rank)
        return op_error(call, ONNXPRESS_FORMAT, "input and weight have ranks %d and %d",
                        x->shape.rank, weight->rank);
    for (int k = 0; params->has_kernel && k < params->rank && k < weight->rank - 2; k++)
        if (params->kernel[k] != weight->dim[2 + k])
            return op_error(call, ONNXPRESS_FORMAT, "kernel_shape and the weight's shape differ");
    int status = window_make(call, params, &x->shape, weight->dim + 2, &conv->window, out);
    if (status)
        return status;
    conv->samples = x->shape.dim[0];
    conv->groups = params->group;
    conv->in_channels = weight->dim[1];
    if (weight->dim[0] % conv->groups || x->shape.dim[1] % conv->groups ||
        x->shape.dim[1] / conv->groups != weight->dim[1])
        return op_error(call, ONNXPRESS_FORMAT,
                        "%lld input channels in %lld groups do not fit a weight for %lld to %lld",
                        (long long)x->shape.dim[1], (long long)conv->groups,
                        (long long)weight->dim[1], (long long)weight->dim[0]);
    conv->out_channels = weight->dim[0] / conv->groups;
    if (b && b->count != weight->dim[0])
        return op_error(call, ONNXPRESS_FORMAT, "%lld biases for %lld channels",
                        (long long)b->count, (long long)weight->dim[0]);
    out->dim[0] = conv->samples;
    out->dim[1] = weight->dim[0];
    const Window *window = &conv->window;
    conv->depthwise = conv->in_channels == 1 && conv->groups > 1;
    conv->plain = true; /* 1x1 and nothing around it: X is the matrix already */
    for (int k = 0; k < 3; k++)
        conv->plain &= window->kernel[k] == 1 && window->stride[k] == 1 && !window->begin[k] &&
                       !window->end[k];
    /* BLAS counts in int, and has no matrices without rows. */
    if (!int64_mul(conv->in_channels, window->kernel_size, &conv->taps) || conv->taps > INT32_MAX ||
        window->out_size > INT32_MAX || window->in_size > INT32_MAX ||
        conv->out_channels > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "more than 2^31 elements a channel");
    if (conv->taps < 1)
        return op_error(call, ONNXPRESS_FORMAT, "a weight without elements");
    int64_t lines = window->out[0] * window->out[1];
    int64_t fit = TILE_BYTES / (int64_t)sizeof(real) / conv->taps / window->out[2];
    conv->tile_lines = conv->plain || fit > lines ? lines : fit > 1 ? fit : 1;
    return ONNXPRESS_OK;
}

/* One line of taps, of which [first, last) are inside and come from `from` on; the others are 0.
 * Lines are short (8 to 32 elements, often), so these loops stand for memcpy and memset. */
static inline void gather_line(real *restrict to, const real *restrict from, int64_t n,
                               int64_t first, int64_t last, int64_t stride)
{
    for (int64_t o = 0; o < first; o++)
        to[o] = 0;
    to += first;
    n -= first;
    last -= first;
    if (stride == 1)
#pragma omp simd
        for (int64_t o = 0; o < last; o++)
            to[o] = from[o];
    else
        for (int64_t o = 0; o < last; o++)
            to[o] = from[o * stride];
    for (int64_t o = last; o < n; o++)
        to[o] = 0;
}

static inline void scatter_line(const real *restrict from, real *restrict to, int64_t n,
                                int64_t stride)
{
    if (stride == 1)
#pragma omp simd
        for (int64_t o = 0; o < n; o++)
            to[o] += from[o];
    else
        for (int64_t o = 0; o < n; o++)
            to[o * stride] += from[o];
}

/* The part of one row of the matrix (one channel and tap) that belongs to output depth `od`: lines
 * [oh, end). */
static void row_move(const Window *w, const int64_t tap[3], real *plane, real *col, int64_t od,
                     int64_t oh, int64_t end, bool add)
{
    int64_t length = w->out[2], low, high, first, last;
    int64_t depth = od * w->stride[0] + tap[0] * w->dilation[0] - w->begin[0];
    window_range(w, 1, tap[1], &low, &high);
    window_range(w, 2, tap[2], &first, &last);
    if (depth < 0 || depth >= w->in[0])
        high = low = end;
    low = low < oh ? oh : low < end ? low : end;
    high = high < low ? low : high < end ? high : end;
    if (!add) {
        memset(col, 0, (size_t)((low - oh) * length) * sizeof *col);
        memset(col + (high - oh) * length, 0, (size_t)((end - high) * length) * sizeof *col);
    }
    if (low == high)
        return;
    if (first == last) {
        if (!add)
            memset(col + (low - oh) * length, 0, (size_t)((high - low) * length) * sizeof *col);
        return;
    }
    int64_t line = depth * w->in[1] + low * w->stride[1] + tap[1] * w->dilation[1] - w->begin[1];
    plane += line * w->in[2] + first * w->stride[2] + tap[2] * w->dilation[2] - w->begin[2];
    col += (low - oh) * length;
    for (int64_t l = low; l < high; l++, col += length, plane += w->stride[1] * w->in[2])
        if (add)
            scatter_line(col + first, plane, last - first, w->stride[2]);
        else
            gather_line(col, plane, length, first, last, w->stride[2]);
}

/* Between one group's channels of one sample and the matrix of a tile of lines; with `add`, the
 * matrix is added back to the channels (the transpose of the copy). */
static void tile_move(const Conv *conv, real *x, real *col, int64_t line, int64_t n_lines, bool add)
{
    const Window *w = &conv->window;
    int64_t start = line / w->out[1], tap[3];
    for (int64_t c = 0; c < conv->in_channels; c++, x += w->in_size)
        for (tap[0] = 0; tap[0] < w->kernel[0]; tap[0]++)
            for (tap[1] = 0; tap[1] < w->kernel[1]; tap[1]++)
                for (tap[2] = 0; tap[2] < w->kernel[2]; tap[2]++)
                    for (int64_t left = n_lines, od = start, oh = line - od * w->out[1]; left > 0;
                         od++, oh = 0) {
                        int64_t end = w->out[1] - oh < left ? w->out[1] : oh + left;
                        row_move(w, tap, x, col, od, oh, end, add);
                        col += (end - oh) * w->out[2];
                        left -= end - oh;
                    }
}

/* Where a (sample, group, tile) lies in X, Y and W. */
typedef struct {
    int64_t x, y, w; /* offsets; y is of the tile's first position */
    int64_t line, lines, width;
} Tile;

static bool tile_next(const Conv *conv, Tile *t, int64_t sample, int64_t group)
{
    const Window *w = &conv->window;
    int64_t total = w->out[0] * w->out[1];
    t->line += t->lines;
    if (t->line >= total)
        return false;
    t->lines = total - t->line < conv->tile_lines ? total - t->line : conv->tile_lines;
    t->width = t->lines * w->out[2];
    t->x = (sample * conv->groups + group) * conv->in_channels * w->in_size;
    t->y = (sample * conv->groups + group) * conv->out_channels * w->out_size + t->line * w->out[2];
    t->w = group * conv->out_channels * conv->taps;
    return true;
}

static real *tile_buffer(const OpCall *call, const Conv *conv)
{
    return op_scratch(call, (size_t)(conv->taps * conv->tile_lines * conv->window.out[2]),
                      sizeof(real));
}

/* The matrix of a tile and its leading dimension; X itself for plain convolutions. */
static const real *tile_matrix(const Conv *conv, const Tile *t, const real *x, real *col, int *ld)
{
    *ld = (int)(conv->plain ? conv->window.in_size : t->width);
    if (conv->plain)
        return x + t->x;
    tile_move(conv, (real *)(uintptr_t)x + t->x, col, t->line, t->lines, false);
    return col;
}

static int conv_forward(const OpCall *call)
{
    Conv conv;
    Shape shape;
    int status = op_require(call, 2);
    for (int k = 0; !status && k < 3; k++)
        if (op_in(call, k))
            status = op_require_real(call, k);
    if (!status)
        status = conv_shape(call, &conv, &shape);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &shape);
    if (status)
        return status;
    const Value *b = op_in(call, 2);
    const real *x = call->in[0]->r, *w = call->in[1]->r;
    real *y = call->out[0]->r;
    int64_t positions = conv.window.out_size, channels = conv.groups * conv.out_channels;
    for (int64_t row = 0; row < conv.samples * channels; row++) {
        real start = b ? b->r[row % channels] : 0;
        for (int64_t p = 0; p < positions; p++)
            y[row * positions + p] = start;
    }
    if (conv.depthwise) {
        depthwise_forward(&conv, x, w, y);
        return ONNXPRESS_OK;
    }
    real *col = conv.plain ? NULL : tile_buffer(call, &conv);
    if (!col && !conv.plain)
        return ONNXPRESS_MEMORY;
    for (int64_t n = 0; n < conv.samples; n++)
        for (int64_t g = 0; g < conv.groups; g++)
            for (Tile t = {0}; tile_next(&conv, &t, n, g);) {
                int ld;
                const real *matrix = tile_matrix(&conv, &t, x, col, &ld);
                REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)conv.out_channels,
                          (int)t.width, (int)conv.taps, 1, w + t.w, (int)conv.taps, matrix, ld, 1,
                          y + t.y, (int)positions);
            }
    return ONNXPRESS_OK;
}

static int add_input_gradient(const OpCall *call, const Conv *conv, real *d_x)
{
    const real *w = call->in[1]->r, *d_y = call->d_out[0];
    int positions = (int)conv->window.out_size;
    real *col = conv->plain ? NULL : tile_buffer(call, conv);
    if (!col && !conv->plain)
        return ONNXPRESS_MEMORY;
    for (int64_t n = 0; n < conv->samples; n++)
        for (int64_t g = 0; g < conv->groups; g++)
            for (Tile t = {0}; tile_next(conv, &t, n, g);) {
                REAL_GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)conv->taps, (int)t.width,
                          (int)conv->out_channels, 1, w + t.w, (int)conv->taps, d_y + t.y,
                          positions, conv->plain ? 1 : 0, conv->plain ? d_x + t.x : col,
                          conv->plain ? positions : (int)t.width);
                if (!conv->plain)
                    tile_move(conv, d_x + t.x, col, t.line, t.lines, true);
            }
    return ONNXPRESS_OK;
}

/* Adds one sample's gradient by W. */
static void add_weight_gradient(const OpCall *call, const Conv *conv, int64_t sample, real *col,
                                real *d_w)
{
    const real *x = call->in[0]->r, *d_y = call->d_out[0];
    for (int64_t g = 0; g < conv->groups; g++)
        for (Tile t = {0}; tile_next(conv, &t, sample, g);) {
            int ld;
            const real *matrix = tile_matrix(conv, &t, x, col, &ld);
            REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)conv->out_channels,
                      (int)conv->taps, (int)t.width, 1, d_y + t.y, (int)conv->window.out_size,
                      matrix, ld, 1, d_w + t.w, (int)conv->taps);
        }
}

/* Sum over positions of one sample and channel. */
static real row_sum(const real *row, int64_t n)
{
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t p = 0; p < n; p++)
        sum += row[p];
    return sum;
}

static int conv_backward(const OpCall *call)
{
    Conv conv;
    Shape shape;
    int status = conv_shape(call, &conv, &shape);
    if (status || !call->d_out[0])
        return status;
    const real *d_y = call->d_out[0];
    real *d_x = op_d_in(call, 0), *d_w = op_d_in(call, 1), *d_b = op_d_in(call, 2);
    int64_t channels = conv.groups * conv.out_channels;
    if (d_b)
        for (int64_t row = 0; row < conv.samples * channels; row++)
            d_b[row % channels] += row_sum(d_y + row * conv.window.out_size, conv.window.out_size);
    if (conv.depthwise) {
        if (d_x)
            depthwise_input_gradient(&conv, call->in[1]->r, d_y, d_x);
        for (int64_t n = 0; d_w && n < conv.samples; n++)
            depthwise_weight_gradient(&conv, n, call->in[0]->r, d_y, d_w);
        return ONNXPRESS_OK;
    }
    if (d_x)
        status = add_input_gradient(call, &conv, d_x);
    if (status || !d_w)
        return status;
    real *col = conv.plain ? NULL : tile_buffer(call, &conv);
    if (!col && !conv.plain)
        return ONNXPRESS_MEMORY;
    for (int64_t n = 0; n < conv.samples; n++)
        add_weight_gradient(call, &conv, n, col, d_w);
    return ONNXPRESS_OK;
}

static int conv_square(const OpCall *call, int k, real *acc)
{
    Conv conv;
    Shape shape;
    if (k < 1)
        return ONNXPRESS_UNSUPPORTED;
    if (!acc || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = conv_shape(call, &conv, &shape);
    if (status)
        return status;
    const real *d_y = call->d_out[0];
    int64_t channels = conv.groups * conv.out_channels;
    if (k == 2) {
        for (int64_t row = 0; row < conv.samples * channels; row++) {
            real g = row_sum(d_y + row * conv.window.out_size, conv.window.out_size);
            acc[row % channels] += g * g;
        }
        return ONNXPRESS_OK;
    }
    int64_t count = call->in[1]->count;
    real *g = op_scratch(call, (size_t)count, sizeof *g);
    real *col = conv.plain || conv.depthwise ? g : tile_buffer(call, &conv);
    if (!g || !col)
        return ONNXPRESS_MEMORY;
    for (int64_t n = 0; n < conv.samples; n++) {
        memset(g, 0, (size_t)count * sizeof *g);
        if (conv.depthwise)
            depthwise_weight_gradient(&conv, n, call->in[0]->r, d_y, g);
        else
            add_weight_gradient(call, &conv, n, col, g);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            acc[i] += g[i] * g[i];
    }
    return ONNXPRESS_OK;
}

static bool conv_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const WindowParams *params = node->params;
    int64_t count;
    if (k != 1 || weight->rank < 3 || !shape_count(weight, &count) || params->group < 1 ||
        weight->dim[0] < 1 || weight->dim[0] % params->group)
        return false;
    int64_t columns = count / weight->dim[0];
    *matrix = (OpMatrix){.groups = params->group,
                         .rows = weight->dim[0] / params->group,
                         .columns = columns,
                         .row_stride = columns,
                         .column_stride = 1};
    return columns > 0;
}

static int conv_moment(const OpCall *call, int k, real *acc)
{
    Conv conv;
    Shape shape;
    (void)k;
    int status = conv_shape(call, &conv, &shape);
    if (status)
        return status;
    real *col = conv.plain ? NULL : tile_buffer(call, &conv);
    if (!col && !conv.plain)
        return ONNXPRESS_MEMORY;
    for (int64_t n = 0; n < conv.samples; n++)
        for (int64_t g = 0; g < conv.groups; g++)
            for (Tile t = {0}; tile_next(&conv, &t, n, g);) {
                int ld;
                const real *matrix = tile_matrix(&conv, &t, call->in[0]->r, col, &ld);
                REAL_SYRK(CblasRowMajor, CblasLower, CblasNoTrans, (int)conv.taps, (int)t.width, 1,
                          matrix, ld, 1, acc + g * conv.taps * conv.taps, (int)conv.taps);
            }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Conv", 1, OP_KEEP_INPUTS, window_read, conv_forward, conv_backward, conv_square,
     conv_matrix, conv_moment, .curvature = curvature_of_product},
};

const OpFamily op_family_conv = {rows, sizeof rows / sizeof rows[0]};
