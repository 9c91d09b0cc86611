/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <string.h>

#include "ops/conv_internal.h"
#include "ops/product_internal.h"
#include "ops/support_internal.h"

/* Y[n][m][p] = b[m] + sum over c, k of W[m][c][k] X[n][c][p's tap k].
 *
 * The output is taken a tile at a time (conv_internal.h), and all three products (forward, by X, by
 * W) are products of the tile's rows (product_internal.h). 1x1 convolutions have nothing to copy and
 * are left to BLAS. Depthwise convolutions, whose matrices would have one row, are in depthwise.c. */

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
    return ONNXPRESS_OK;
}

/* Every position of channel m begins with b[m]; NULL: zeros. */
static void fill_bias(const real *b, int64_t channels, int64_t positions, real *y)
{
    for (int64_t m = 0; m < channels; m++)
        for (int64_t p = 0; p < positions; p++)
            *y++ = b ? b[m] : 0;
}

/* What convolving without copies is: for every sample and group one matrix product. */
static void plain_forward(const Conv *conv, const real *x, const real *w, real *y)
{
    int64_t m = conv->out_channels, n = conv->window.out_size;
    for (int64_t s = 0; s < conv->samples; s++)
        for (int64_t g = 0; g < conv->groups; g++, x += conv->taps * n, y += m * n)
            REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)conv->taps, 1,
                      w + g * m * conv->taps, (int)conv->taps, x, (int)n, 1, y, (int)n);
}

static void plain_input_gradient(const Conv *conv, const real *w, const real *d_y, real *d_x)
{
    int64_t m = conv->out_channels, n = conv->window.out_size;
    for (int64_t s = 0; s < conv->samples; s++)
        for (int64_t g = 0; g < conv->groups; g++, d_x += conv->taps * n, d_y += m * n)
            REAL_GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)conv->taps, (int)n, (int)m, 1,
                      w + g * m * conv->taps, (int)conv->taps, d_y, (int)n, 1, d_x, (int)n);
}

static void plain_weight_gradient(const Conv *conv, int64_t sample, const real *x, const real *d_y,
                                  real *d_w)
{
    int64_t m = conv->out_channels, n = conv->window.out_size;
    for (int64_t g = 0; g < conv->groups; g++)
        REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)conv->taps, (int)n, 1,
                  d_y + (sample * conv->groups + g) * m * n, (int)n,
                  x + (sample * conv->groups + g) * conv->taps * n, (int)n, 1,
                  d_w + g * m * conv->taps, (int)conv->taps);
}

static void plain_moment(const Conv *conv, const real *x, real *acc)
{
    int taps = (int)conv->taps, n = (int)conv->window.out_size;
    for (int64_t s = 0; s < conv->samples; s++)
        for (int64_t g = 0; g < conv->groups; g++, x += conv->taps * n)
            REAL_SYRK(CblasRowMajor, CblasLower, CblasNoTrans, taps, n, 1, x, n, 1,
                      acc + g * conv->taps * conv->taps, taps);
}

static int tiled_forward(const OpCall *call, const Conv *conv, const real *b, real *y)
{
    Tiling tiling;
    int status = tiling_make(call, conv, true, 1, &tiling);
    if (status)
        return status;
    int64_t *a_tap = op_scratch(call, (size_t)conv->taps, sizeof *a_tap);
    int64_t *a_row =
        a_tap ? op_scratch(call, (size_t)conv->out_channels, sizeof *a_row) : NULL;
    if (!a_row)
        return ONNXPRESS_MEMORY;
    for (int64_t t = 0; t < conv->taps; t++)
        a_tap[t] = t;
    for (int64_t m = 0; m < conv->out_channels; m++)
        a_row[m] = m * conv->taps;
    Tile tile;
    for (int64_t k = 0; tiling_at(&tiling, k, &tile); k++) {
        tiling_move(&tiling, &tile, 0, call->in[0]->r, false);
        product_rows(&(RowsProduct){.rows = conv->out_channels,
                                    .taps = conv->taps,
                                    .n = tile.n,
                                    .a = call->in[1]->r + tile.w,
                                    .a_row = a_row,
                                    .a_tap = a_tap,
                                    .b = tiling.rows,
                                    .b_tap = tiling.at,
                                    .start = b ? b + tile.channel : NULL,
                                    .out = y + tile.y,
                                    .out_step = conv->window.out_size});
    }
    return ONNXPRESS_OK;
}

/* The output's gradient in a tile, [samples][channels][row]: before and after the tile's lines are
 * lines of zeros, since the first and the last lines of the input are reached by fewer taps. */
typedef struct {
    int64_t before, row; /* elements */
    real *data;
} TileGradient;

static int gradient_make(const OpCall *call, const Tiling *tiling, TileGradient *g)
{
    int64_t width = tiling->conv->window.out[2];
    g->before = (tiling->height - 1) * width;
    int64_t after = g->before > PRODUCT_SLACK ? g->before : PRODUCT_SLACK;
    g->row = g->before + tiling->lines * width + after;
    size_t size = (size_t)(tiling->samples * tiling->conv->out_channels * g->row) + PRODUCT_SLACK;
    g->data = op_scratch(call, size, sizeof *g->data);
    if (!g->data)
        return ONNXPRESS_MEMORY;
    memset(g->data, 0, size * sizeof *g->data);
    return ONNXPRESS_OK;
}

static void gradient_copy(const Tiling *tiling, const Tile *tile, const TileGradient *g,
                          const real *d_y)
{
    const Conv *conv = tiling->conv;
    int64_t size = conv->window.out_size, most = tiling->lines * conv->window.out[2];
    real *to = g->data + g->before;
    for (int64_t s = 0; s < tile->samples; s++)
        for (int64_t m = 0; m < conv->out_channels; m++, to += g->row) {
            const real *from = d_y + tile->y + (s * conv->groups * conv->out_channels + m) * size;
            memcpy(to, from, (size_t)tile->n * sizeof *to);
            memset(to + tile->n, 0, (size_t)(most - tile->n) * sizeof *to);
        }
}

/* The tables of the product that makes the gradient of a tile's rows: out of channel m and shared
 * line h comes W[m][row, h] times the output's gradient h lines further up. */
typedef struct {
    int64_t *a_row, *a_tap, *b_tap;
} InputTables;

static int input_tables(const OpCall *call, const Tiling *tiling, const TileGradient *g,
                        InputTables *tables)
{
    const Conv *conv = tiling->conv;
    int64_t height = tiling->height, width = conv->window.kernel[2];
    size_t taps = (size_t)(conv->out_channels * height);
    tables->a_row = op_scratch(call, (size_t)tiling->blocks, sizeof(int64_t));
    tables->a_tap = tables->a_row ? op_scratch(call, taps, sizeof(int64_t)) : NULL;
    tables->b_tap = tables->a_tap ? op_scratch(call, taps, sizeof(int64_t)) : NULL;
    if (!tables->b_tap)
        return ONNXPRESS_MEMORY;
    for (int64_t r = 0; r < tiling->blocks; r++)
        tables->a_row[r] = r / width * height * width + r % width;
    for (int64_t m = 0; m < conv->out_channels; m++)
        for (int64_t h = 0; h < height; h++) {
            tables->a_tap[m * height + h] = m * conv->taps + h * width;
            tables->b_tap[m * height + h] =
                m * g->row + (height - 1 - h) * conv->window.out[2];
        }
    return ONNXPRESS_OK;
}

/* Adds a tile's part to the input's gradient. What was copied to the tile's rows is lost. */
static void tile_input_gradient(const Tiling *tiling, const Tile *tile, const TileGradient *g,
                                const InputTables *tables, const real *w, real *d_x)
{
    const Conv *conv = tiling->conv;
    int64_t first = tile->line, last = tile->line + tile->lines + tiling->height - 1, low, high;
    if (tiling->height > 1) { /* lines outside the input are of no use */
        window_range(&tiling->copied, 1, 0, &low, &high);
        first = first > low ? first : low;
        last = last < high ? last : high;
    }
    int64_t skip = (first - tile->line) * conv->window.out[2];
    for (int64_t s = 0; s < tile->samples; s++) {
        product_rows(&(RowsProduct){.rows = tiling->blocks,
                                    .taps = conv->out_channels * tiling->height,
                                    .n = (last - first) * conv->window.out[2],
                                    .a = w + tile->w,
                                    .a_row = tables->a_row,
                                    .a_tap = tables->a_tap,
                                    .b = g->data + s * conv->out_channels * g->row + skip,
                                    .b_tap = tables->b_tap,
                                    .out = tiling->rows + s * tiling->blocks * tiling->block + skip,
                                    .out_step = tiling->block});
        tiling_move(tiling, tile, s, d_x, true);
    }
}

static void tile_weight_gradient(const Tiling *tiling, const Tile *tile, const TileGradient *g,
                                 const real *x, real *d_w)
{
    const Conv *conv = tiling->conv;
    for (int64_t s = 0; s < tile->samples; s++)
        tiling_move(tiling, tile, s, (real *)(uintptr_t)x, false);
    product_dots(&(DotsProduct){.rows = conv->out_channels,
                                .taps = conv->taps,
                                .n = tile->n,
                                .samples = tile->samples,
                                .a = g->data + g->before,
                                .a_row = g->row,
                                .a_sample = conv->out_channels * g->row,
                                .b = tiling->rows,
                                .b_tap = tiling->at,
                                .b_sample = tiling->blocks * tiling->block,
                                .out = d_w + tile->w});
}

static int tiled_backward(const OpCall *call, const Conv *conv, real *d_x, real *d_w)
{
    Tiling tiling;
    Tile tile;
    TileGradient g;
    InputTables tables;
    int status = tiling_make(call, conv, true, d_w ? conv->samples : 1, &tiling);
    if (!status)
        status = gradient_make(call, &tiling, &g);
    if (!status)
        status = input_tables(call, &tiling, &g, &tables);
    for (int64_t k = 0; !status && tiling_at(&tiling, k, &tile); k++) {
        gradient_copy(&tiling, &tile, &g, call->d_out[0]);
        if (d_w)
            tile_weight_gradient(&tiling, &tile, &g, call->in[0]->r, d_w);
        if (d_x)
            tile_input_gradient(&tiling, &tile, &g, &tables, call->in[1]->r, d_x);
    }
    return status;
}

static int conv_forward(const OpCall *call)
{
    Conv conv;
    Shape shape;
    int status = op_require_reals(call, 2, 3);
    if (!status)
        status = conv_shape(call, &conv, &shape);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &shape);
    if (status)
        return status;
    const Value *bias = op_in(call, 2);
    const real *x = call->in[0]->r, *w = call->in[1]->r, *b = bias ? bias->r : NULL;
    real *y = call->out[0]->r;
    if (!conv.depthwise && !conv.plain)
        return tiled_forward(call, &conv, b, y);
    int64_t channels = conv.groups * conv.out_channels, size = channels * conv.window.out_size;
    for (int64_t n = 0; n < conv.samples; n++)
        fill_bias(b, channels, conv.window.out_size, y + n * size);
    if (conv.depthwise)
        depthwise_forward(&conv, x, w, y);
    else
        plain_forward(&conv, x, w, y);
    return ONNXPRESS_OK;
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
    if (!conv.depthwise && !conv.plain)
        return d_x || d_w ? tiled_backward(call, &conv, d_x, d_w) : ONNXPRESS_OK;
    if (d_x)
        (conv.depthwise ? depthwise_input_gradient : plain_input_gradient)(&conv, call->in[1]->r,
                                                                           d_y, d_x);
    for (int64_t n = 0; d_w && n < conv.samples; n++)
        (conv.depthwise ? depthwise_weight_gradient
                        : plain_weight_gradient)(&conv, n, call->in[0]->r, d_y, d_w);
    return ONNXPRESS_OK;
}

static void sample_weight_gradient(const Tiling *tiling, int64_t sample, const TileGradient *g,
                                   const real *x, const real *d_y, real *d_w)
{
    Tile tile;
    for (int64_t t = 0; t < tiling->of_sample; t++)
        if (tiling_at(tiling, sample * tiling->of_sample + t, &tile)) {
            gradient_copy(tiling, &tile, g, d_y);
            tile_weight_gradient(tiling, &tile, g, x, d_w);
        }
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
    bool tiled = !conv.depthwise && !conv.plain;
    real *sum = op_scratch(call, (size_t)count, sizeof *sum);
    if (!sum)
        return ONNXPRESS_MEMORY;
    Tiling tiling;
    TileGradient g;
    if (tiled && ((status = tiling_make(call, &conv, true, 1, &tiling)) ||
                  (status = gradient_make(call, &tiling, &g))))
        return status;
    for (int64_t n = 0; n < conv.samples; n++) {
        memset(sum, 0, (size_t)count * sizeof *sum);
        if (tiled)
            sample_weight_gradient(&tiling, n, &g, call->in[0]->r, d_y, sum);
        else
            (conv.depthwise ? depthwise_weight_gradient
                            : plain_weight_gradient)(&conv, n, call->in[0]->r, d_y, sum);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            acc[i] += sum[i] * sum[i];
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
    if (conv.plain) {
        plain_moment(&conv, call->in[0]->r, acc);
        return ONNXPRESS_OK;
    }
    Tiling tiling;
    Tile tile;
    status = tiling_make(call, &conv, false, 1, &tiling);
    for (int64_t t = 0; !status && tiling_at(&tiling, t, &tile); t++) {
        tiling_move(&tiling, &tile, 0, call->in[0]->r, false);
        int64_t group = tile.channel / conv.out_channels;
        REAL_SYRK(CblasRowMajor, CblasLower, CblasNoTrans, (int)conv.taps, (int)tile.n, 1,
                  tiling.rows, (int)tiling.block, 1, acc + group * conv.taps * conv.taps,
                  (int)conv.taps);
    }
    return status;
}

static const OpRow rows[] = {
    {"", "Conv", 1, OP_KEEP_INPUTS, window_read, conv_forward, conv_backward, conv_square,
     conv_matrix, conv_moment, .curvature = curvature_of_product},
};

const OpFamily op_family_conv = {rows, sizeof rows / sizeof rows[0]};
