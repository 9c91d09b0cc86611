/* SPDX-License-Identifier: Apache-2.0
 *
 * GridSample: a tensor read between its elements, at places that the second input names. Every axis
 * has up to four taps with weights that depend on the place along it alone; what an output reads is
 * their product over the axes. */
#include "ops/support_internal.h"

#include <string.h>

enum { AXES = 3, LINE_TAPS = 4, MOST_TAPS = 64 };
#define FARTHEST ((real)(1 << 30)) /* no axis is longer; places beyond, and NaN, are put here */

typedef enum { NEAREST, LINEAR, CUBIC } Mode;
typedef enum { ZEROS, BORDER, REFLECTION } Padding;

typedef struct {
    Mode mode;
    Padding padding;
    bool align;
} Params;

/* Number of the word in a list, -1 when it is not there. */
static int word_of(const char *word, const char *const *list, int n)
{
    while (n-- > 0)
        if (!strcmp(word, list[n]))
            break;
    return n;
}

static int read_sample(OpNode *node, Arena *arena, Error *err)
{
    static const char *const first_modes[] = {"nearest", "bilinear", "bicubic"};
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    bool first = node->opset < 20;
    Params *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    int mode = word_of(attribute_string(node, "mode", first ? "bilinear" : "linear"),
                       first ? first_modes : modes, 3);
    int padding = word_of(attribute_string(node, "padding_mode", "zeros"), paddings, 3);
    if (mode < 0 || padding < 0)
        return read_error(node, err, ONNXPRESS_FORMAT, "mode or padding_mode is not known");
    *params = (Params){(Mode)mode, (Padding)padding, attribute_int(node, "align_corners", 0) != 0};
    node->params = params;
    return ONNXPRESS_OK;
}

typedef struct {
    Shape out;
    int axes;
    int64_t samples, channels, places, in[AXES], in_size;
} Sampling;

static int sampling_of(const OpCall *call, Sampling *s)
{
    const Shape *x = &call->in[0]->shape, *grid = &call->in[1]->shape;
    int axes = x->rank - 2;
    if (axes < 1 || axes > AXES)
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "an input of rank %d (1 to 3 spatial axes are handled)", x->rank);
    if (grid->rank != x->rank || grid->dim[0] != x->dim[0] || grid->dim[axes + 1] != axes)
        return op_error(call, ONNXPRESS_FORMAT, "the grid does not fit the input");
    *s = (Sampling){.out = *x,
                    .axes = axes,
                    .samples = x->dim[0],
                    .channels = x->dim[1],
                    .places = dims_product(grid, 1, axes + 1),
                    .in_size = dims_product(x, 2, x->rank)};
    for (int a = 0; a < axes; a++) {
        s->in[a] = x->dim[2 + a];
        s->out.dim[2 + a] = grid->dim[1 + a];
        if (s->in[a] < 1 || s->in[a] > INT32_MAX / 2)
            return op_error(call, ONNXPRESS_FORMAT, "spatial axis %d has %lld elements", a,
                            (long long)s->in[a]);
    }
    return ONNXPRESS_OK;
}

/* Back and forth between the ends; *turn: the derivative, 1 or -1. */
static real reflect(real x, real low, real high, real *turn)
{
    real range = high - low, past = x < low ? low - x : x - high;
    *turn = 1;
    if (past <= 0)
        return x;
    *turn = 0;
    if (range <= 0)
        return low;
    real times = REAL_FLOOR(past / range), rest = past - times * range;
    bool even = REAL_FMOD(times, 2) == 0;
    *turn = even ? -1 : 1;
    return (x < low) == even ? low + rest : high - rest;
}

/* The taps of one axis; slope and bend are by the place as the grid names it. */
typedef struct {
    int n;
    int64_t at[LINE_TAPS];
    real w[LINE_TAPS], slope[LINE_TAPS], bend[LINE_TAPS];
} Line;

/* Keys' kernel, at the distance `x` of a tap from the place, and its derivatives. */
static void cubic_tap(real x, real *w, real *slope, real *bend)
{
    const real a = (real)-0.75;
    real d = REAL_ABS(x), side = x < 0 ? -1 : 1;
    if (d <= 1) {
        *w = ((a + 2) * d - (a + 3)) * d * d + 1;
        *slope = side * (3 * (a + 2) * d - 2 * (a + 3)) * d;
        *bend = 6 * (a + 2) * d - 2 * (a + 3);
    } else {
        *w = ((d - 5) * d + 8) * a * d - 4 * a;
        *slope = side * a * ((3 * d - 10) * d + 8);
        *bend = a * (6 * d - 10);
    }
}

/* Where an element beyond the ends is read; -1: nowhere. */
static int64_t inside(const Params *params, int64_t at, int64_t length, real low, real high)
{
    real turn;
    if (at >= 0 && at < length)
        return at;
    if (params->padding == ZEROS)
        return -1;
    if (params->padding == REFLECTION)
        at = (int64_t)reflect((real)at, low, high, &turn);
    return at < 0 ? 0 : at < length ? at : length - 1;
}

static void line_of(const Params *params, real place, int64_t length, Line *line)
{
    real last = (real)(length - 1), low = params->align ? 0 : (real)-0.5, high = last - low;
    real step = (params->align ? last : (real)length) / 2, turn = 1;
    real x = (place + 1) * step + low;
    x = x >= FARTHEST ? FARTHEST : x > -FARTHEST ? x : -FARTHEST;
    if (params->mode == NEAREST)
        x = REAL_RINT(x);
    if (params->padding == BORDER && params->mode != CUBIC && (x < low || x > high)) {
        x = x < 0 ? 0 : last;
        turn = 0;
    }
    if (params->padding == REFLECTION)
        x = reflect(x, low, high, &turn);
    step *= turn;
    real base = REAL_FLOOR(x);
    int first = params->mode == CUBIC ? -1 : 0, n = params->mode == NEAREST ? 1 : 2 - 2 * first;
    *line = (Line){0};
    for (int k = first; k < first + n; k++) {
        int64_t at = inside(params, (int64_t)base + k, length, low, high);
        real far = x - base - (real)k, w = 1, slope = 0, bend = 0;
        if (at < 0)
            continue;
        if (params->mode == LINEAR) {
            w = k ? 1 + far : 1 - far;
            slope = k ? 1 : -1;
        } else if (params->mode == CUBIC) {
            cubic_tap(far, &w, &slope, &bend);
        }
        int t = 0; /* padding may read an element twice: its weights add up */
        while (t < line->n && line->at[t] != at)
            t++;
        line->n += t == line->n;
        line->at[t] = at;
        line->w[t] += w;
        line->slope[t] += slope * step;
        line->bend[t] += bend * step * step;
    }
}

/* What an output reads: places in a plane, weights, and their derivatives by each axis's place. */
typedef struct {
    int n;
    int64_t at[MOST_TAPS];
    real w[MOST_TAPS], slope[AXES][MOST_TAPS], bend[AXES][MOST_TAPS];
} Taps;

static void taps_extend(Taps *taps, int axis, int64_t length, const Line *line)
{
    const Taps old = *taps;
    taps->n = 0;
    for (int i = 0; i < old.n; i++)
        for (int j = 0; j < line->n; j++) {
            int k = taps->n++;
            taps->at[k] = old.at[i] * length + line->at[j];
            taps->w[k] = old.w[i] * line->w[j];
            for (int a = 0; a < axis; a++) {
                taps->slope[a][k] = old.slope[a][i] * line->w[j];
                taps->bend[a][k] = old.bend[a][i] * line->w[j];
            }
            taps->slope[axis][k] = old.w[i] * line->slope[j];
            taps->bend[axis][k] = old.w[i] * line->bend[j];
        }
}

static void taps_of(const OpCall *call, const Sampling *s, int64_t place, Taps *taps)
{
    const real *at = call->in[1]->r + place * s->axes;
    taps->n = 1;
    taps->at[0] = 0;
    taps->w[0] = 1;
    for (int a = 0; a < s->axes; a++) { /* the grid names the last axis first */
        Line line;
        line_of(call->node->params, at[s->axes - 1 - a], s->in[a], &line);
        taps_extend(taps, a, s->in[a], &line);
    }
}

static int sample_forward(const OpCall *call)
{
    Sampling s;
    Taps taps;
    int status = op_require_reals(call, 2, 2);
    if (status || (status = sampling_of(call, &s)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &s.out)))
        return status;
    for (int64_t place = 0; place < s.samples * s.places; place++) {
        int64_t plane = place / s.places * s.channels;
        taps_of(call, &s, place, &taps);
        for (int64_t c = 0; c < s.channels; c++) {
            const real *x = call->in[0]->r + (plane + c) * s.in_size;
            real sum = 0;
            for (int k = 0; k < taps.n; k++)
                sum += taps.w[k] * x[taps.at[k]];
            call->out[0]->r[(plane + c) * s.places + place % s.places] = sum;
        }
    }
    return ONNXPRESS_OK;
}

/* Adds to the derivatives by a place, given those by the output: `second` NULL for first ones. */
static void place_rule(const Taps *taps, int axes, const real *x, real first, const real *second,
                       real *d_place)
{
    for (int a = 0; a < axes; a++) {
        real slope = 0, bend = 0;
        for (int k = 0; k < taps->n; k++) {
            slope += taps->slope[a][k] * x[taps->at[k]];
            bend += taps->bend[a][k] * x[taps->at[k]];
        }
        d_place[axes - 1 - a] += second ? slope * slope * *second + bend * first : slope * first;
    }
}

/* `first` NULL: backward; else the second-order rule. */
static int sample_rule(const OpCall *call, const real *const *first)
{
    Sampling s;
    Taps taps;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    int status = sampling_of(call, &s);
    if (status)
        return status;
    for (int64_t place = 0; place < s.samples * s.places; place++) {
        int64_t plane = place / s.places * s.channels;
        taps_of(call, &s, place, &taps);
        for (int64_t c = 0; c < s.channels; c++) {
            int64_t at = (plane + c) * s.places + place % s.places, x = (plane + c) * s.in_size;
            const real *d = &call->d_out[0][at];
            real slope = !first ? *d : first[0] ? first[0][at] : 0;
            for (int k = 0; call->d_in[0] && k < taps.n; k++)
                call->d_in[0][x + taps.at[k]] += *d * taps.w[k] * (first ? taps.w[k] : 1);
            if (call->d_in[1])
                place_rule(&taps, s.axes, call->in[0]->r + x, slope, first ? d : NULL,
                           call->d_in[1] + place * s.axes);
        }
    }
    return ONNXPRESS_OK;
}

static int sample_backward(const OpCall *call)
{
    return sample_rule(call, NULL);
}

static const OpRow rows[] = {
    {"", "GridSample", 16, OP_KEEP_INPUTS, .read = read_sample, .forward = sample_forward,
     .backward = sample_backward, .curvature = sample_rule},
};

const OpFamily op_family_grid_sample = {rows, sizeof rows / sizeof rows[0]};
