/* SPDX-License-Identifier: Apache-2.0
 *
 * The uniform grid. Cells are numbered as they are met, in a hash table, since a few outliers may
 * stretch the grid over far more cells than are in use.
 */
#include "quantize/quantize_internal.h"

#include <math.h>
#include <string.h>

#define FIRST_SLOTS 4096

typedef struct {
    double *multiple; /* [QUANTIZE_MAX_LEVELS] of the step, a whole number, by cell */
    uint32_t cells;
    uint32_t *slot; /* cell + 1; 0: free. Open addressing, at most half full */
    size_t slots;
    int shift; /* 64 - log2(slots) */
} Grid;

static size_t slot_of(const Grid *grid, double multiple)
{
    uint64_t bits;
    memcpy(&bits, &multiple, sizeof bits);
    size_t at = (size_t)((bits ^ bits >> 32) * 0x9E3779B97F4A7C15u >> grid->shift);
    while (grid->slot[at] && grid->multiple[grid->slot[at] - 1] != multiple)
        at = (at + 1) & (grid->slots - 1);
    return at;
}

static int grid_grow(Grid *grid, Arena *scratch, Error *err)
{
    grid->slots = grid->slots ? grid->slots * 2 : FIRST_SLOTS;
    grid->shift = 64 - __builtin_ctzll(grid->slots);
    grid->slot = arena_array(scratch, grid->slots, sizeof *grid->slot);
    if (!grid->slot)
        return error_memory(err, "a uniform grid");
    for (uint32_t c = 0; c < grid->cells; c++)
        grid->slot[slot_of(grid, grid->multiple[c])] = c + 1;
    return ONNXPRESS_OK;
}

static int grid_add(Grid *grid, double multiple, size_t at, float step, Arena *scratch, Error *err)
{
    if (grid->cells == QUANTIZE_MAX_LEVELS)
        return error_set(err, ONNXPRESS_GOAL,
                         "uniform quantization with step %g needs more than %d levels; "
                         "a coarser goal is needed",
                         (double)step, QUANTIZE_MAX_LEVELS);
    if (2 * ((size_t)grid->cells + 1) > grid->slots) {
        int status = grid_grow(grid, scratch, err);
        if (status)
            return status;
        at = slot_of(grid, multiple);
    }
    grid->multiple[grid->cells++] = multiple;
    grid->slot[at] = grid->cells;
    return ONNXPRESS_OK;
}

/* To the nearest whole number, halves to the even one, never to -0; without a call of rint for each
 * weight. */
static double nearest(double x)
{
    const double magic = 0x1.8p52; /* here doubles are the whole numbers */
    return fabs(x) < 0x1p51 ? (x + magic) - magic : x;
}

static int assign_cells(const QuantizeInput *in, float step, const float *relative, Grid *grid,
                        uint16_t *symbol, bool *has_zero, Arena *scratch, Error *err)
{
    for (size_t t = 0; t < in->n_tensors; t++) {
        double width = (double)step * (relative ? (double)relative[t] : 1.0);
        if (!(width > 0) || !isfinite(width))
            return error_set(err, ONNXPRESS_USAGE,
                             "uniform quantization: the step %g of tensor %zu is not above 0",
                             width, t);
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            double multiple = nearest((double)in->w[i] / width);
            *has_zero |= in->w[i] == 0;
            size_t at = slot_of(grid, multiple);
            if (grid->slot[at] == 0) {
                int status = grid_add(grid, multiple, at, step, scratch, err);
                if (status)
                    return status;
                at = slot_of(grid, multiple);
            }
            symbol[i] = (uint16_t)(grid->slot[at] - 1);
        }
    }
    return ONNXPRESS_OK;
}

static int grid_cells(const QuantizeInput *in, float step, const float *relative, Arena *scratch,
                      uint16_t *symbol, int *cells, int *zero_cell, Error *err)
{
    Grid grid = {.multiple = arena_array(scratch, QUANTIZE_MAX_LEVELS, sizeof *grid.multiple)};
    if (!grid.multiple)
        return error_memory(err, "a uniform grid");
    bool has_zero = false;
    int status = grid_grow(&grid, scratch, err);
    if (!status)
        status = assign_cells(in, step, relative, &grid, symbol, &has_zero, scratch, err);
    if (status)
        return status;
    if (grid.cells > 0) /* without any weights it stays at one level: no codebook is empty */
        *cells = (int)grid.cells;
    if (has_zero)
        *zero_cell = (int)grid.slot[slot_of(&grid, 0.0)] - 1;
    return ONNXPRESS_OK;
}

int quantize_uniform(const QuantizeInput *in, float step, const float *relative,
                     QuantizeScope scope, bool weighted, Arena *arena, Quantized *out, Error *err)
{
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    *out = (Quantized){.symbol = arena_array(arena, n, sizeof *out->symbol)};
    Arena *scratch = arena_create();
    if (!out->symbol || !scratch) {
        arena_destroy(scratch);
        return error_memory(err, "a uniform grid");
    }
    int cells = 1, zero_cell = -1;
    const float *steps = scope == QUANTIZE_SCOPE_TENSOR ? relative : NULL;
    int status = grid_cells(in, step, steps, scratch, out->symbol, &cells, &zero_cell, err);
    arena_destroy(scratch);
    if (status)
        return status;
    return quantize_fit(in, relative, scope, weighted, cells, zero_cell, arena, out, err);
}
