/* SPDX-License-Identifier: Apache-2.0
 *
 * The uniform grid with error compensation. Rows are independent of each other: a few of them are
 * taken at a time, so that a row of the factor is read once for all, and tiles run in parallel. */
#include "quantize/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TILE_ROWS 8
/* Compensation may push a weight beyond the largest cell of its tensor; more than this many cells
 * beyond would cost the alphabet more than it gains. */
#define CELLS_BEYOND 1
/* Cells on each side of zero: a few outliers may stretch the grid over far more than are in use. */
#define FARTHEST_CELL (1 << 20)

typedef struct {
    const float *w;
    int32_t *cell;
    const QuantizeMatrix *matrix;
    float step, zero_half;
    int32_t low, high; /* cells in use by plain rounding, widened */
    float *value;      /* not NULL: nothing is rounded, but these are zeros where they have been */
} Layer;

static inline float nearest_cell(float x, float zero_half)
{
    float cell = rintf(x);
    return cell == 0 && fabsf(x) > zero_half ? copysignf(1, x) : cell;
}

/* What x, which the element at `at` has come to, is made. */
static inline float settle_element(const Layer *layer, size_t at, float x)
{
    if (layer->value)
        return layer->value[at] = layer->value[at] == 0 ? 0 : x;
    float cell = nearest_cell(x / layer->step, layer->zero_half);
    cell = fminf(fmaxf(cell, (float)layer->low), (float)layer->high);
    /* An exact zero stays one (it may have been pruned), whatever it was to take up. */
    cell = layer->w[at] == 0 ? 0 : cell;
    layer->cell[at] = (int32_t)cell;
    return cell * layer->step;
}

/* Rounds rows [first, first + n) of a group; `tile` holds n rows of the matrix. */
static void round_tile(const Layer *layer, size_t group, size_t first, size_t n, float *tile)
{
    const QuantizeMatrix *m = layer->matrix;
    size_t columns = m->columns;
    const float *factor = m->factor + group * columns * columns;
    size_t base = (group * m->rows + first) * m->row_stride;
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < columns; c++)
            tile[r * columns + c] = layer->w[base + r * m->row_stride + c * m->column_stride];
    for (size_t c = 0; c < columns; c++) {
        const float *u = factor + c * columns;
        for (size_t r = 0; r < n; r++) {
            float *row = tile + r * columns;
            size_t at = base + r * m->row_stride + c * m->column_stride;
            float error = (row[c] - settle_element(layer, at, row[c])) / u[c];
#pragma omp simd
            for (size_t k = c + 1; k < columns; k++)
                row[k] -= error * u[k];
        }
    }
}

static int round_layer(const Layer *layer, int threads)
{
    const QuantizeMatrix *m = layer->matrix;
    size_t tiles = (m->rows + TILE_ROWS - 1) / TILE_ROWS;
    bool failed = false;
#pragma omp parallel num_threads(threads)
    {
        float *tile = malloc(TILE_ROWS * m->columns * sizeof *tile);
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < m->groups * tiles; i++) {
            size_t first = i % tiles * TILE_ROWS;
            size_t n = m->rows - first < TILE_ROWS ? m->rows - first : TILE_ROWS;
            if (tile)
                round_tile(layer, i / tiles, first, n, tile);
            else
#pragma omp atomic write
                failed = true;
        }
        free(tile);
    }
    return failed ? ONNXPRESS_MEMORY : ONNXPRESS_OK;
}

int quantize_pruned(const QuantizeInput *in, const QuantizeMatrix *matrix, int threads,
                    float *values, Error *err)
{
    for (size_t t = 0; t < in->n_tensors; t++) {
        size_t first = in->offset[t];
        Layer layer = {.w = in->w + first, .matrix = &matrix[t], .value = values + first};
        if (matrix[t].factor && round_layer(&layer, threads) != ONNXPRESS_OK)
            return error_memory(err, "the pruning");
    }
    return ONNXPRESS_OK;
}

/* Plain cells of one tensor, and their range; false when one is beyond the farthest. */
static bool round_plain(const float *w, size_t n, float step, float zero_half, int32_t *cell,
                        int32_t *low, int32_t *high)
{
    *low = *high = 0;
    for (size_t i = 0; i < n; i++) {
        float c = nearest_cell(w[i] / step, zero_half);
        if (!(fabsf(c) <= FARTHEST_CELL - CELLS_BEYOND))
            return false;
        cell[i] = (int32_t)c;
        *low = cell[i] < *low ? cell[i] : *low;
        *high = cell[i] > *high ? cell[i] : *high;
    }
    return true;
}

/* Cells to symbols: those in use, ascending. ONNXPRESS_GOAL: too many. */
static int number_cells(const QuantizeInput *in, const int32_t *cell, float step,
                        const float *relative, QuantizeScope scope, Arena *arena, Quantized *out)
{
    size_t n = in->offset[in->n_tensors], used = 0;
    uint16_t *number = calloc(2 * FARTHEST_CELL + 1, sizeof *number);
    for (size_t i = 0; i < n && number; i++) {
        used += !number[cell[i] + FARTHEST_CELL];
        number[cell[i] + FARTHEST_CELL] = 1;
    }
    if (used > QUANTIZE_MAX_LEVELS) {
        free(number);
        return ONNXPRESS_GOAL;
    }
    out->symbol = arena_array(arena, n, sizeof *out->symbol);
    out->centre = arena_array(arena, used + 1, sizeof *out->centre);
    out->scale = arena_array(arena, in->n_tensors, sizeof *out->scale);
    if (!number || !out->symbol || !out->centre || !out->scale) {
        free(number);
        return ONNXPRESS_MEMORY;
    }
    for (int c = 0; c <= 2 * FARTHEST_CELL; c++)
        if (number[c]) {
            out->centre[out->levels] =
                (float)(c - FARTHEST_CELL) * (scope == QUANTIZE_SCOPE_MODEL ? step : 1);
            number[c] = (uint16_t)out->levels++;
        }
    for (size_t i = 0; i < n; i++)
        out->symbol[i] = number[cell[i] + FARTHEST_CELL];
    for (size_t t = 0; t < in->n_tensors; t++)
        out->scale[t] = scope == QUANTIZE_SCOPE_MODEL ? 1 : step * relative[t];
    free(number);
    return ONNXPRESS_OK;
}

int quantize_compensated(const QuantizeInput *in, const QuantizeMatrix *matrix, float step,
                         const float *relative, float zero_half, QuantizeScope scope, int threads,
                         Arena *arena, Quantized *out, Error *err)
{
    memset(out, 0, sizeof *out);
    if (!(step > 0) || !isfinite(step))
        return error_set(err, ONNXPRESS_USAGE, "the step %g is not above 0", (double)step);
    if (!(zero_half > 0 && zero_half <= 0.5f))
        return error_set(err, ONNXPRESS_USAGE, "half of the cell at zero is %g steps",
                         (double)zero_half);
    size_t n = in->offset[in->n_tensors];
    int32_t *cell = malloc((n + 1) * sizeof *cell);
    if (!cell)
        return error_memory(err, "the quantization");
    int rc = ONNXPRESS_OK;
    for (size_t t = 0; t < in->n_tensors && !rc; t++) {
        size_t first = in->offset[t], count = in->offset[t + 1] - first;
        Layer layer = {.w = in->w + first,
                       .cell = cell + first,
                       .matrix = &matrix[t],
                       .zero_half = zero_half,
                       .step = scope == QUANTIZE_SCOPE_MODEL ? step : step * relative[t]};
        if (!round_plain(layer.w, count, layer.step, zero_half, layer.cell, &layer.low,
                         &layer.high))
            rc = ONNXPRESS_GOAL;
        layer.low -= CELLS_BEYOND;
        layer.high += CELLS_BEYOND;
        if (!rc && matrix[t].factor)
            rc = round_layer(&layer, threads);
    }
    if (!rc)
        rc = number_cells(in, cell, step, relative, scope, arena, out);
    free(cell);
    if (rc == ONNXPRESS_GOAL)
        return error_set(err, ONNXPRESS_GOAL, "the step %g needs more than %d levels", (double)step,
                         QUANTIZE_MAX_LEVELS);
    if (rc == ONNXPRESS_MEMORY)
        return error_memory(err, "the quantization");
    if (!rc)
        for (size_t t = 0; t < in->n_tensors; t++)
            out->distortion += quantize_distortion(in, out, t);
    return rc;
}
