/* What resize.c and resize_axis.c share: one axis of a resize as a sparse matrix. */
#ifndef ONNXPRESS_OPS_RESIZE_INTERNAL_H
#define ONNXPRESS_OPS_RESIZE_INTERNAL_H

#include "ops/support_internal.h"

typedef enum { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC } ResizeMode;

typedef enum {
    HALF_PIXEL,
    HALF_PIXEL_SYMMETRIC,
    PYTORCH_HALF_PIXEL,
    ALIGN_CORNERS,
    ASYMMETRIC,
    TF_HALF_PIXEL_FOR_NN,
    TF_CROP_AND_RESIZE
} ResizeCoordinates;

typedef enum {
    ROUND_PREFER_FLOOR,
    ROUND_PREFER_CEIL,
    ROUND_DOWN,
    ROUND_UP,
    ROUND_BY_DIRECTION /* opset 10: up where the axis shrinks, else down */
} ResizeRounding;

typedef struct {
    ResizeMode mode;
    ResizeCoordinates coordinates;
    ResizeRounding rounding;
    bool exclude_outside, antialias;
    float cubic_a;
} ResizeRule;

/* One axis: how long it is before and after, and which part of it is read. */
typedef struct {
    int64_t in, out;
    float scale, start, end;
} ResizeAxis;

/* Output o is the sum over t < taps of weight[o * taps + t] times input index[o * taps + t]; no
 * input has two weights that are not 0. outside[o] (NULL: never): beyond the input, so
 * that the extrapolation value stands there. */
typedef struct {
    int64_t in, out;
    int taps;
    int64_t *index;
    real *weight;
    bool *outside;
} AxisTaps;

/* in >= 1, out >= 1 and scale > 0. Scratch memory of the call. */
int resize_taps(const OpCall *call, const ResizeRule *rule, const ResizeAxis *axis, AxisTaps *taps);

#endif
