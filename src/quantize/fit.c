/* SPDX-License-Identifier: Apache-2.0
 *
 * Centres and scales for given cells. Both are weighted least squares and need only the sums of h
 * and h w of each tensor's part of each cell, which one pass over the weights collects.
 */
#include "quantize/quantize_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define ROUNDS 3 /* of centres and scales in turns; the third changes distortion by under 1 % */

typedef struct {
    uint32_t cell;
    double h, hw; /* sums over one tensor's members of one cell */
} Part;

typedef struct {
    const QuantizeInput *in;
    const uint16_t *cell;
    const float *relative; /* NULL: 1 */
    bool weighted;
    size_t cells;
    int zero_cell;
    Part *part;
    size_t *first_part;    /* [n_tensors + 1] */
    double *scale;         /* [n_tensors] */
    double *centre;        /* [cells] */
    double *above, *below; /* [cells] of a centre's quotient */
} Fit;

static double relative_step(const Fit *fit, size_t tensor)
{
    return fit->relative ? (double)fit->relative[tensor] : 1.0;
}

static int fit_allocate(Fit *fit, Arena *scratch, Error *err)
{
    size_t tensors = fit->in->n_tensors, parts = 0;
    for (size_t t = 0; t < tensors; t++) {
        size_t count = fit->in->offset[t + 1] - fit->in->offset[t];
        parts += count < fit->cells ? count : fit->cells;
    }
    fit->part = arena_array(scratch, parts, sizeof *fit->part);
    fit->first_part = arena_array(scratch, tensors + 1, sizeof *fit->first_part);
    fit->scale = arena_array(scratch, tensors, sizeof *fit->scale);
    fit->centre = arena_array(scratch, fit->cells, sizeof *fit->centre);
    fit->above = arena_array(scratch, fit->cells, sizeof *fit->above);
    fit->below = arena_array(scratch, fit->cells, sizeof *fit->below);
    if (!fit->part || !fit->first_part || !fit->scale || !fit->centre || !fit->above || !fit->below)
        return error_memory(err, "the centres of a quantizer");
    return ONNXPRESS_OK;
}

static int collect_parts(Fit *fit, Arena *scratch, Error *err)
{
    const QuantizeInput *in = fit->in;
    size_t *part_of = arena_array(scratch, fit->cells, sizeof *part_of); /* + 1 */
    if (!part_of)
        return error_memory(err, "the centres of a quantizer");
    const float *h = fit->weighted ? in->h : NULL;
    size_t parts = 0;
    for (size_t t = 0; t < in->n_tensors; t++) {
        /* Unweighted means are of w / relative, each member counted once. */
        double r = relative_step(fit, t), one = fit->weighted ? 1 : 1 / (r * r);
        fit->first_part[t] = parts;
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            size_t cell = fit->cell[i];
            if (part_of[cell] <= fit->first_part[t]) { /* none yet in this tensor */
                fit->part[parts].cell = (uint32_t)cell;
                part_of[cell] = ++parts;
            }
            Part *part = &fit->part[part_of[cell] - 1];
            double weight = h ? (double)h[i] : one;
            part->h += weight;
            part->hw += weight * (double)in->w[i];
        }
    }
    fit->first_part[in->n_tensors] = parts;
    return ONNXPRESS_OK;
}

/* Centres of cells whose members all have h = 0: plain means of w / relative. */
static void plain_centres(Fit *fit)
{
    const QuantizeInput *in = fit->in;
    for (size_t c = 0; c < fit->cells; c++)
        if (!(fit->below[c] > 0))
            fit->above[c] = 0;
    for (size_t t = 0; t < in->n_tensors; t++) {
        double r = relative_step(fit, t);
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            size_t c = fit->cell[i];
            if (fit->below[c] <= 0) { /* counted downwards, so as not to be taken for a weight */
                fit->above[c] += (double)in->w[i] / r;
                fit->below[c] -= 1;
            }
        }
    }
    for (size_t c = 0; c < fit->cells; c++)
        if (fit->below[c] < 0)
            fit->centre[c] = fit->above[c] / -fit->below[c];
}

static void fit_centres(Fit *fit)
{
    bool all = true;
    for (size_t c = 0; c < fit->cells; c++)
        fit->above[c] = fit->below[c] = 0;
    for (size_t t = 0; t < fit->in->n_tensors; t++) {
        double s = fit->scale[t];
        for (size_t p = fit->first_part[t]; p < fit->first_part[t + 1]; p++) {
            fit->above[fit->part[p].cell] += s * fit->part[p].hw;
            fit->below[fit->part[p].cell] += s * s * fit->part[p].h;
        }
    }
    for (size_t c = 0; c < fit->cells; c++) {
        if (fit->below[c] > 0)
            fit->centre[c] = fit->above[c] / fit->below[c];
        else
            all = false;
    }
    if (!all)
        plain_centres(fit);
    if (fit->zero_cell >= 0)
        fit->centre[fit->zero_cell] = 0;
}

/* A tensor keeps its scale when nothing of it tells a better one. */
static void fit_scales(Fit *fit)
{
    for (size_t t = 0; t < fit->in->n_tensors; t++) {
        double above = 0, below = 0;
        for (size_t p = fit->first_part[t]; p < fit->first_part[t + 1]; p++) {
            double c = fit->centre[fit->part[p].cell];
            above += c * fit->part[p].hw;
            below += c * c * fit->part[p].h;
        }
        if (above > 0 && below > 0)
            fit->scale[t] = above / below;
    }
}

typedef struct {
    float centre;
    uint32_t cell;
} RankedCell;

static int compare_ranked(const void *a, const void *b)
{
    const RankedCell *x = a, *y = b;
    if (x->centre != y->centre)
        return x->centre < y->centre ? -1 : 1;
    return (x->cell > y->cell) - (x->cell < y->cell);
}

static float to_float(double value)
{
    return (float)fmin(fmax(value, -(double)FLT_MAX), (double)FLT_MAX) + 0.0f; /* -0 becomes 0 */
}

/* Writes centres in ascending order, equal ones as one, and renumbers the symbols. */
static int write_result(const Fit *fit, QuantizeScope scope, Arena *arena, Arena *scratch,
                        Quantized *out, Error *err)
{
    const QuantizeInput *in = fit->in;
    out->centre = arena_array(arena, fit->cells, sizeof *out->centre);
    out->scale = arena_array(arena, in->n_tensors, sizeof *out->scale);
    RankedCell *ranked = arena_array(scratch, fit->cells, sizeof *ranked);
    uint16_t *symbol_of = arena_array(scratch, fit->cells, sizeof *symbol_of);
    if (!out->centre || !out->scale || !ranked || !symbol_of)
        return error_memory(err, "the centres of a quantizer");
    for (size_t c = 0; c < fit->cells; c++)
        ranked[c] = (RankedCell){to_float(fit->centre[c]), (uint32_t)c};
    qsort(ranked, fit->cells, sizeof *ranked, compare_ranked);
    out->levels = 0;
    for (size_t c = 0; c < fit->cells; c++) {
        if (c == 0 || ranked[c].centre != ranked[c - 1].centre)
            out->centre[out->levels++] = ranked[c].centre;
        symbol_of[ranked[c].cell] = (uint16_t)(out->levels - 1);
    }
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    for (size_t i = 0; i < n; i++)
        out->symbol[i] = symbol_of[out->symbol[i]];
    out->distortion = 0;
    for (size_t t = 0; t < in->n_tensors; t++) {
        out->scale[t] = scope == QUANTIZE_SCOPE_TENSOR ? to_float(fit->scale[t]) : 1;
        out->distortion += quantize_distortion(in, out, t);
    }
    return ONNXPRESS_OK;
}

static int fit_with(Fit *fit, QuantizeScope scope, Arena *arena, Arena *scratch, Quantized *out,
                    Error *err)
{
    int status = fit_allocate(fit, scratch, err);
    if (!status)
        status = collect_parts(fit, scratch, err);
    if (status)
        return status;
    for (size_t t = 0; t < fit->in->n_tensors; t++)
        fit->scale[t] = relative_step(fit, t);
    fit_centres(fit);
    if (scope == QUANTIZE_SCOPE_TENSOR) {
        for (int round = 0; round < ROUNDS; round++) {
            if (round > 0)
                fit_centres(fit);
            fit_scales(fit);
        }
    }
    return write_result(fit, scope, arena, scratch, out, err);
}

int quantize_fit(const QuantizeInput *in, const float *relative, QuantizeScope scope, bool weighted,
                 int cells, int zero_cell, Arena *arena, Quantized *out, Error *err)
{
    Fit fit = {.in = in,
               .cell = out->symbol,
               .relative = scope == QUANTIZE_SCOPE_TENSOR ? relative : NULL,
               .weighted = weighted,
               .cells = (size_t)cells,
               .zero_cell = zero_cell};
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "the centres of a quantizer");
    int status = fit_with(&fit, scope, arena, scratch, out, err);
    arena_destroy(scratch);
    return status;
}
