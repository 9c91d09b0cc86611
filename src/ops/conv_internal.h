/* What conv.c, conv_tile.c and depthwise.c share: the sizes of one convolution and its tiles.
 *
 * A tile is some whole lines (the innermost axis) of the output, at one depth, of one group of one
 * sample or of a few. Its input is copied to `blocks` rows, one for a channel and each tap that needs
 * an own copy: taps that differ in their place along the line, so that a row of a tap lines up with
 * the output. Where the kernel steps and strides by one line, taps below each other read one copy,
 * a line apart: then `height` of them share a row. A copy is thus [blocks][lines + height - 1][width],
 * and tap t of the weight begins at at[t] in it.
 */
#ifndef ONNXPRESS_OPS_CONV_INTERNAL_H
#define ONNXPRESS_OPS_CONV_INTERNAL_H

#include "ops/window_internal.h"

typedef struct {
    Window window;
    int64_t samples, groups;
    int64_t in_channels, out_channels; /* of one group */
    int64_t taps;                      /* in_channels * kernel size */
    bool depthwise, plain;
} Conv;

typedef struct {
    const Conv *conv;
    Window copied; /* that reads the rows: `window`, one line high when rows are shared */
    int64_t height, blocks, block; /* block: elements of a row */
    int64_t lines, samples;        /* of a tile, at most */
    int64_t count, of_sample;      /* tiles; tiles of `samples` samples */
    real *rows;                    /* [samples][blocks][block], and slack */
    int64_t *at;                   /* [taps] */
} Tiling;

typedef struct {
    int64_t sample, samples, depth, line, lines, n; /* n: output positions */
    int64_t x, y, w, channel;                       /* offsets in X, Y, W and the bias */
} Tile;

/* With `share`, rows are shared where they can be; a tile has `most` samples at most. */
int tiling_make(const OpCall *call, const Conv *conv, bool share, int64_t most, Tiling *tiling);
/* Tile k; those of a sample (or of `samples`) follow each other. False past the last one. */
bool tiling_at(const Tiling *tiling, int64_t k, Tile *tile);
/* Copies sample s of the tile from x, or with `add` adds the rows to x (the transpose of the copy). */
void tiling_move(const Tiling *tiling, const Tile *tile, int64_t s, real *x, bool add);

/* One input channel a group; Y must hold the bias; gradients are added. */
void depthwise_forward(const Conv *conv, const real *x, const real *w, real *y);
void depthwise_input_gradient(const Conv *conv, const real *w, const real *d_y, real *d_x);
void depthwise_weight_gradient(const Conv *conv, int64_t sample, const real *x, const real *d_y,
                               real *d_w);

#endif
