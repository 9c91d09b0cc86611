/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/conv_internal.h"
#include "ops/product_internal.h"
#include "ops/support_internal.h"

#include <string.h>

/* One sample's rows, and all of a tile's, should stay in the second-level cache. */
#define SAMPLE_BYTES ((int64_t)256 << 10)
#define TILE_BYTES ((int64_t)640 << 10)
/* Output positions from which on the sums over them are well used. */
#define ENOUGH_POSITIONS 1024
/* Taller kernels would cost more in lines of zeros than copies do. */
#define MOST_SHARED 16

static void place_taps(Tiling *t)
{
    const Conv *conv = t->conv;
    const Window *w = &conv->window;
    int64_t own = t->copied.kernel[1], width = w->kernel[2], k = 0;
    for (int64_t c = 0; c < conv->in_channels * w->kernel[0]; c++)
        for (int64_t h = 0; h < w->kernel[1]; h++)
            for (int64_t v = 0; v < width; v++)
                t->at[k++] = own == 1 ? (c * width + v) * t->block + h * w->out[2]
                                      : ((c * own + h) * width + v) * t->block;
}

int tiling_make(const OpCall *call, const Conv *conv, bool share, int64_t most, Tiling *t)
{
    const Window *w = &conv->window;
    *t = (Tiling){.conv = conv, .copied = *w, .height = 1};
    if (share && w->stride[1] == 1 && w->dilation[1] == 1 && w->kernel[1] <= MOST_SHARED) {
        t->height = w->kernel[1];
        t->copied.kernel[1] = 1;
        t->copied.out[1] = w->out[1] + t->height - 1;
    }
    t->blocks = conv->taps / t->height;
    /* Gradients of the output are copied too, see conv.c. */
    int64_t wide = t->blocks > conv->out_channels ? t->blocks : conv->out_channels;
    int64_t fit = SAMPLE_BYTES / (int64_t)sizeof(real) / wide / w->out[2] - (t->height - 1);
    t->lines = fit < 1 ? 1 : fit < w->out[1] ? fit : w->out[1];
    t->block = (t->lines + t->height - 1) * w->out[2];
    t->samples = 1;
    if (t->lines == w->out[1]) {
        int64_t positions = t->lines * w->out[2], rows = t->blocks + conv->out_channels;
        int64_t enough = (ENOUGH_POSITIONS + positions - 1) / positions;
        fit = TILE_BYTES / (int64_t)sizeof(real) / rows / t->block;
        most = most < enough ? most : enough;
        most = most < fit ? most : fit;
        t->samples = most > 1 ? most : 1;
    }
    t->of_sample = conv->groups * w->out[0] * ((w->out[1] + t->lines - 1) / t->lines);
    t->count = (conv->samples + t->samples - 1) / t->samples * t->of_sample;
    size_t size = (size_t)(t->samples * t->blocks * t->block);
    t->rows = op_scratch(call, size + PRODUCT_SLACK, sizeof *t->rows);
    t->at = t->rows ? op_scratch(call, (size_t)conv->taps, sizeof *t->at) : NULL;
    if (!t->at)
        return ONNXPRESS_MEMORY;
    memset(t->rows + size, 0, PRODUCT_SLACK * sizeof *t->rows);
    place_taps(t);
    return ONNXPRESS_OK;
}

bool tiling_at(const Tiling *tiling, int64_t k, Tile *t)
{
    const Conv *conv = tiling->conv;
    const Window *w = &conv->window;
    if (k >= tiling->count)
        return false;
    int64_t bands = (w->out[1] + tiling->lines - 1) / tiling->lines;
    int64_t group = k / bands / w->out[0] % conv->groups;
    t->sample = k / tiling->of_sample * tiling->samples;
    t->samples = conv->samples - t->sample;
    t->samples = t->samples < tiling->samples ? t->samples : tiling->samples;
    t->depth = k / bands % w->out[0];
    t->line = k % bands * tiling->lines;
    t->lines = w->out[1] - t->line;
    t->lines = t->lines < tiling->lines ? t->lines : tiling->lines;
    t->n = t->lines * w->out[2];
    t->channel = group * conv->out_channels;
    t->x = (t->sample * conv->groups + group) * conv->in_channels * w->in_size;
    t->y = (t->sample * conv->groups * conv->out_channels + t->channel) * w->out_size +
           (t->depth * w->out[1] + t->line) * w->out[2];
    t->w = t->channel * conv->taps;
    return true;
}

/* One line of a row, of which [first, last) are inside and come from `from` on; the others are 0.
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

/* Lines [line, end) of one row: one channel and tap. */
static void row_move(const Window *w, const int64_t tap[3], real *plane, real *row, int64_t od,
                     int64_t line, int64_t end, bool add)
{
    int64_t length = w->out[2], low, high, first, last;
    int64_t depth = od * w->stride[0] + tap[0] * w->dilation[0] - w->begin[0];
    window_range(w, 1, tap[1], &low, &high);
    window_range(w, 2, tap[2], &first, &last);
    if (depth < 0 || depth >= w->in[0] || first == last)
        high = low = end;
    low = low < line ? line : low < end ? low : end;
    high = high < low ? low : high < end ? high : end;
    if (!add) {
        memset(row, 0, (size_t)((low - line) * length) * sizeof *row);
        memset(row + (high - line) * length, 0, (size_t)((end - high) * length) * sizeof *row);
    }
    if (low == high)
        return;
    int64_t from = depth * w->in[1] + low * w->stride[1] + tap[1] * w->dilation[1] - w->begin[1];
    plane += from * w->in[2] + first * w->stride[2] + tap[2] * w->dilation[2] - w->begin[2];
    row += (low - line) * length;
    for (int64_t l = low; l < high; l++, row += length, plane += w->stride[1] * w->in[2])
        if (add)
            scatter_line(row + first, plane, last - first, w->stride[2]);
        else
            gather_line(row, plane, length, first, last, w->stride[2]);
}

void tiling_move(const Tiling *tiling, const Tile *tile, int64_t s, real *x, bool add)
{
    const Window *w = &tiling->copied;
    const Conv *conv = tiling->conv;
    real *row = tiling->rows + s * tiling->blocks * tiling->block;
    int64_t end = tile->line + tile->lines + tiling->height - 1, tap[3];
    x += tile->x + s * conv->groups * conv->in_channels * w->in_size;
    for (int64_t c = 0; c < conv->in_channels; c++, x += w->in_size)
        for (tap[0] = 0; tap[0] < w->kernel[0]; tap[0]++)
            for (tap[1] = 0; tap[1] < w->kernel[1]; tap[1]++)
                for (tap[2] = 0; tap[2] < w->kernel[2]; tap[2]++, row += tiling->block)
                    row_move(w, tap, x, row, tile->depth, tile->line, end, add);
}
