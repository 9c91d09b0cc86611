/* SPDX-License-Identifier: Apache-2.0
 *
 * RoiAlign: boxes of a map, each pooled to one size from points between the elements. The boxes get
 * no gradient, as in the frameworks that train such models. */
#include "ops/support_internal.h"

#include <string.h>

#define MOST_POINTS 65536 /* along one side of a bin, or all of a bin */

typedef struct {
    int64_t height, width, points; /* of the output; points 0: as many as a bin has elements */
    real scale, shift;
    bool most; /* the largest instead of the mean */
} Params;

static int read_align(OpNode *node, Arena *arena, Error *err)
{
    Params *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    const char *mode = attribute_string(node, "mode", "avg");
    const char *place = attribute_string(node, "coordinate_transformation_mode",
                                         node->opset < 16 ? "output_half_pixel" : "half_pixel");
    bool half = !strcmp(place, "half_pixel");
    *params = (Params){.height = attribute_int(node, "output_height", 1),
                       .width = attribute_int(node, "output_width", 1),
                       .points = attribute_int(node, "sampling_ratio", 0),
                       .scale = (real)attribute_float(node, "spatial_scale", 1),
                       .shift = half ? (real)0.5 : 0,
                       .most = !strcmp(mode, "max")};
    if ((!params->most && strcmp(mode, "avg")) || (!half && strcmp(place, "output_half_pixel")))
        return read_error(node, err, ONNXPRESS_FORMAT,
                          "mode or coordinate_transformation_mode is not known");
    if (params->height < 1 || params->width < 1 || params->points < 0 ||
        params->points > MOST_POINTS)
        return read_error(node, err, ONNXPRESS_FORMAT, "%lld points of %lld x %lld bins",
                          (long long)params->points, (long long)params->height,
                          (long long)params->width);
    node->params = params;
    return ONNXPRESS_OK;
}

static int align_shape(const OpCall *call, Shape *shape)
{
    const Params *params = call->node->params;
    const Shape *x = &call->in[0]->shape, *rois = &call->in[1]->shape;
    const Value *batch = call->in[2];
    if (x->rank != 4 || rois->rank != 2 || rois->dim[1] != 4 || batch->count != rois->dim[0])
        return op_error(call, ONNXPRESS_FORMAT, "the shapes of map, boxes and indices do not fit");
    for (int64_t k = 0; k < batch->count; k++)
        if (batch->i[k] < 0 || batch->i[k] >= x->dim[0])
            return op_error(call, ONNXPRESS_DATA, "a box of image %lld of %lld",
                            (long long)batch->i[k], (long long)x->dim[0]);
    *shape = (Shape){.rank = 4,
                     .dim = {rois->dim[0], x->dim[1], params->height, params->width}};
    return ONNXPRESS_OK;
}

/* A box along one side: where it begins, what a bin measures, and points a bin. */
typedef struct {
    real begin, bin;
    int64_t points, length;
} Side;

static int side_of(const OpCall *call, int64_t box, int side, Side *s)
{
    const Params *params = call->node->params;
    const real *roi = call->in[1]->r + 4 * box + side;
    int64_t bins = side ? params->height : params->width;
    real size = (roi[2] - roi[0]) * params->scale;
    if (params->shift == 0 && !(size > 1))
        size = 1;
    real bin = size / (real)bins, points = params->points ? (real)params->points : REAL_CEIL(bin);
    if (!(points <= MOST_POINTS))
        return op_error(call, ONNXPRESS_DATA, "box %lld is too large", (long long)box);
    *s = (Side){.begin = roi[0] * params->scale - params->shift,
                .bin = bin,
                .points = points > 0 ? (int64_t)points : 0,
                .length = call->in[0]->shape.dim[side ? 2 : 3]};
    return ONNXPRESS_OK;
}

/* The two elements beside point `k` of a bin, and their weights; none when it is outside. */
static void side_point(const Side *s, int64_t bin, int64_t k, int64_t at[2], real w[2])
{
    real x = s->begin + s->bin * ((real)bin + ((real)k + (real)0.5) / (real)s->points);
    at[0] = at[1] = 0;
    w[0] = w[1] = 0;
    if (!(x >= -1 && x <= (real)s->length) || s->length < 1)
        return;
    x = x < 0 ? 0 : x;
    at[0] = (int64_t)x < s->length - 1 ? (int64_t)x : s->length - 1;
    at[1] = at[0] < s->length - 1 ? at[0] + 1 : at[0];
    w[1] = at[0] < s->length - 1 ? x - (real)at[0] : 0;
    w[0] = 1 - w[1];
}

typedef enum { FORWARD, BACKWARD, CURVATURE } Pass;

/* One bin of one channel: y gets the result, or d_x what d is worth to each element. */
static void bin_pass(const Side *sides, const int64_t bin[2], bool most, Pass pass, const real *x,
                     real *y, real d, real *d_x)
{
    int64_t points = sides[0].points * sides[1].points, best_at = 0;
    real sum = 0, best = -INFINITY, best_w = 0;
    for (int64_t p = 0; p < points; p++) {
        int64_t row[2], column[2];
        real v[2], h[2];
        side_point(&sides[1], bin[1], p / sides[0].points, row, v);
        side_point(&sides[0], bin[0], p % sides[0].points, column, h);
        for (int c = 0; c < 4; c++) {
            int64_t at = row[c / 2] * sides[0].length + column[c % 2];
            real w = v[c / 2] * h[c % 2], part = w / (real)points;
            if (pass == FORWARD || most) {
                sum += part * x[at];
                if (w * x[at] > best) {
                    best = w * x[at];
                    best_at = at;
                    best_w = w;
                }
            } else {
                d_x[at] += d * part;
            }
        }
    }
    if (pass == FORWARD)
        *y = !most ? sum : points > 0 ? best : 0;
    else if (most && points > 0)
        d_x[best_at] += d * (pass == CURVATURE ? best_w * best_w : best_w);
}

/* The mean's second derivatives: an element may be read by several points of a bin, whose weights
 * add up before they are squared. */
static void mean_curvature(const Side *sides, const int64_t bin[2], real dd, real *weights,
                           real *dd_x)
{
    int64_t n = sides[0].length * sides[1].length;
    memset(weights, 0, (size_t)n * sizeof *weights);
    bin_pass(sides, bin, false, BACKWARD, NULL, NULL, 1, weights);
    for (int64_t e = 0; e < n; e++)
        dd_x[e] += dd * weights[e] * weights[e];
}

static int align_pass(const OpCall *call, Pass pass, const Shape *shape)
{
    const Params *params = call->node->params;
    int64_t channels = shape->dim[1], bins = params->height * params->width;
    int64_t plane = call->in[0]->shape.dim[2] * call->in[0]->shape.dim[3];
    real *weights = pass == CURVATURE ? op_scratch(call, (size_t)plane + 1, sizeof *weights) : NULL;
    if (pass == CURVATURE && !weights)
        return ONNXPRESS_MEMORY;
    for (int64_t box = 0; box < shape->dim[0]; box++) {
        Side sides[2];
        int status = side_of(call, box, 0, &sides[0]);
        if (status || (status = side_of(call, box, 1, &sides[1])))
            return status;
        if (sides[0].points * sides[1].points > MOST_POINTS || plane < 1)
            return op_error(call, ONNXPRESS_DATA, "box %lld is too large", (long long)box);
        for (int64_t k = 0; k < channels * bins; k++) {
            int64_t from = (call->in[2]->i[box] * channels + k / bins) * plane;
            int64_t to = box * channels * bins + k;
            int64_t bin[2] = {k % bins % params->width, k % bins / params->width};
            if (pass == FORWARD)
                bin_pass(sides, bin, params->most, pass, call->in[0]->r + from,
                         call->out[0]->r + to, 0, NULL);
            else if (pass == CURVATURE && !params->most)
                mean_curvature(sides, bin, call->d_out[0][to], weights, call->d_in[0] + from);
            else
                bin_pass(sides, bin, params->most, pass, call->in[0]->r + from, NULL,
                         call->d_out[0][to], call->d_in[0] + from);
        }
    }
    return ONNXPRESS_OK;
}

static int align_forward(const OpCall *call)
{
    Shape shape;
    int status = op_require_reals(call, 3, 2);
    if (status || (status = op_require_integer(call, 2)) ||
        (status = align_shape(call, &shape)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)))
        return status;
    return align_pass(call, FORWARD, &shape);
}

static int align_backward(const OpCall *call)
{
    Shape shape;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = align_shape(call, &shape);
    return status ? status : align_pass(call, BACKWARD, &shape);
}

static int align_curvature(const OpCall *call, const real *const *d_out)
{
    Shape shape;
    (void)d_out; /* linear, or piecewise so */
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = align_shape(call, &shape);
    return status ? status : align_pass(call, CURVATURE, &shape);
}

static const OpRow rows[] = {
    {"", "RoiAlign", 10, OP_KEEP_INPUTS, .read = read_align, .forward = align_forward,
     .backward = align_backward, .curvature = align_curvature},
};

const OpFamily op_family_roi_align = {rows, sizeof rows / sizeof rows[0]};
