/* What conv.c and depthwise.c share: the sizes of one convolution. */
#ifndef ONNXPRESS_OPS_CONV_INTERNAL_H
#define ONNXPRESS_OPS_CONV_INTERNAL_H

#include "ops/window_internal.h"

typedef struct {
    Window window;
    int64_t samples, groups;
    int64_t in_channels, out_channels; /* of one group */
    int64_t taps;                      /* in_channels * kernel size: rows of a tile's matrix */
    int64_t tile_lines;
    bool depthwise, plain;
} Conv;

/* One input channel a group; Y must hold the bias; gradients are added. */
void depthwise_forward(const Conv *conv, const real *x, const real *w, real *y);
void depthwise_input_gradient(const Conv *conv, const real *w, const real *d_y, real *d_x);
void depthwise_weight_gradient(const Conv *conv, int64_t sample, const real *x, const real *d_y,
                               real *d_w);

#endif
