/* SPDX-License-Identifier: Apache-2.0
 *
 * Coordinates are computed in float32, as the runtimes do: rounding decides which pixel is nearest.
 */
#include <string.h>

#include "ops/resize_internal.h"

#define MOST_TAPS (INT32_MAX / 4)

static float source(ResizeCoordinates how, const ResizeAxis *axis, int64_t o)
{
    float x = (float)o, in = (float)axis->in, out = (float)axis->out;
    switch (how) {
    case HALF_PIXEL_SYMMETRIC: {
        float part = out / (axis->scale * in); /* of the target that the output covers */
        return in / 2 * (1 - part) + (x + 0.5f) / axis->scale - 0.5f;
    }
    case PYTORCH_HALF_PIXEL:
        return axis->out > 1 ? (x + 0.5f) / axis->scale - 0.5f : 0;
    case ALIGN_CORNERS:
        return axis->out > 1 ? x * (in - 1) / (out - 1) : 0;
    case ASYMMETRIC:
        return x / axis->scale;
    case TF_HALF_PIXEL_FOR_NN:
        return (x + 0.5f) / axis->scale;
    case TF_CROP_AND_RESIZE:
        if (axis->out == 1)
            return 0.5f * (axis->start + axis->end) * (in - 1);
        return axis->start * (in - 1) + x * (axis->end - axis->start) * (in - 1) / (out - 1);
    default:
        return (x + 0.5f) / axis->scale - 0.5f;
    }
}

static float round_to_pixel(ResizeRounding how, float x, float scale)
{
    switch (how) {
    case ROUND_PREFER_FLOOR:
        return ceilf(x - 0.5f);
    case ROUND_PREFER_CEIL:
        return floorf(x + 0.5f);
    case ROUND_DOWN:
        return floorf(x);
    case ROUND_UP:
        return ceilf(x);
    default:
        return scale < 1 ? ceilf(x) : floorf(x);
    }
}

/* Kernels at distance x >= 0. */
static double triangle(double x)
{
    return x < 1 ? 1 - x : 0;
}

static double cubic(double x, double a)
{
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* The taps of output o, its weights adding up to 1. An index beyond the input stands for the border
 * pixel, or for none. */
static void place(const ResizeRule *rule, const ResizeAxis *axis, AxisTaps *taps, int64_t o,
                  float x, double stretch)
{
    int64_t *index = taps->index + o * taps->taps;
    real *weight = taps->weight + o * taps->taps;
    double sum = 0, base = floor((double)x);
    for (int t = 0; t < taps->taps; t++) {
        double at = base + t + 1 - taps->taps / 2;
        double distance = fabs(at - (double)x) * stretch;
        double w = rule->mode == RESIZE_LINEAR ? triangle(distance)
                                               : cubic(distance, (double)rule->cubic_a);
        bool inside = at >= 0 && at < (double)axis->in;
        if (!inside && rule->exclude_outside)
            w = 0;
        index[t] = at < 0 ? 0 : inside ? (int64_t)at : axis->in - 1;
        weight[t] = (real)w;
        sum += w;
    }
    for (int t = 0; t < taps->taps; t++) {
        weight[t] = sum != 0 ? (real)((double)weight[t] / sum) : 0;
        if (t && index[t] == index[t - 1]) { /* border pixels stand together */
            weight[t] += weight[t - 1];
            weight[t - 1] = 0;
        }
    }
}

int resize_taps(const OpCall *call, const ResizeRule *rule, const ResizeAxis *axis, AxisTaps *taps)
{
    int reach = rule->mode == RESIZE_NEAREST ? 0 : rule->mode == RESIZE_LINEAR ? 1 : 2;
    double stretch = rule->antialias && axis->scale < 1 ? (double)axis->scale : 1;
    double half = reach ? ceil(reach / stretch) : 0;
    *taps = (AxisTaps){.in = axis->in, .out = axis->out};
    if (half > MOST_TAPS)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "an axis is made %g times shorter",
                        1 / stretch);
    taps->taps = reach ? (int)(2 * half) : 1;
    size_t n;
    if (!size_mul((size_t)axis->out, (size_t)taps->taps, &n))
        return op_error(call, ONNXPRESS_MEMORY, "the axes are too long");
    taps->index = op_scratch(call, n, sizeof *taps->index);
    taps->weight = taps->index ? op_scratch(call, n, sizeof *taps->weight) : NULL;
    if (!taps->weight)
        return ONNXPRESS_MEMORY;
    if (rule->coordinates == TF_CROP_AND_RESIZE) {
        taps->outside = op_scratch(call, (size_t)axis->out, sizeof *taps->outside);
        if (!taps->outside)
            return ONNXPRESS_MEMORY;
    }
    for (int64_t o = 0; o < axis->out; o++) {
        float x = source(rule->coordinates, axis, o), last = (float)(axis->in - 1);
        if (taps->outside)
            taps->outside[o] = !(x >= 0 && x <= last);
        /* Far outside every tap is the border pixel. */
        float limit = last + 2 * (float)half + 2;
        x = x > limit ? limit : x >= -limit ? x : -limit;
        if (reach) {
            place(rule, axis, taps, o, x, stretch);
        } else {
            float pixel = round_to_pixel(rule->rounding, x, axis->scale);
            taps->index[o] = pixel >= last ? axis->in - 1 : pixel > 0 ? (int64_t)pixel : 0;
            taps->weight[o] = 1;
        }
    }
    return ONNXPRESS_OK;
}
