/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/importance.h"

#include <math.h>
#include <stdlib.h>

/* A tensor's share of the error is at least that of one so many times smaller than the typical: finer
 * steps than these gain nothing, and a grid holds only so many cells. */
#define SMALLEST 256.0

static int compare_counts(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Elements of the tensor that the middle one of all weights is in. */
static int typical_count(const Program *program, Arena *arena, double *count, Error *err)
{
    int n = program_weights(program);
    double total = 0, before = 0;
    int64_t *counts = arena_array(arena, (size_t)n + 1, sizeof *counts);
    if (!counts)
        return error_memory(err, "the importance of the weights");
    for (int w = 0; w < n; w++)
        total += (double)(counts[w] = program_weight(program, w)->count);
    qsort(counts, (size_t)n, sizeof *counts, compare_counts);
    *count = 1;
    for (int w = 0; w < n && before <= total / 2; w++) {
        before += (double)counts[w];
        *count = (double)counts[w];
    }
    return ONNXPRESS_OK;
}

int importance_from_weights(const Program *program, bool small_finer, Arena *arena, float **h,
                            Error *err)
{
    double typical = 1;
    int status = typical_count(program, arena, &typical, err);
    for (int w = 0; w < program_weights(program) && !status; w++) {
        const Weight *weight = program_weight(program, w);
        h[w] = NULL;
        double square = 0;
        for (int64_t i = 0; i < weight->count; i++)
            square += (double)weight->data[i] * (double)weight->data[i];
        if (weight->count == 0 || !isfinite(square))
            continue;
        double smaller =
            small_finer ? fmin(fmax(typical / (double)weight->count, 1), SMALLEST) : 1;
        /* All zeros: nothing to round, so nothing that matters. */
        double level = square > 0 ? smaller * (double)weight->count / square : 0.0;
        h[w] = arena_array(arena, (size_t)weight->count, sizeof **h);
        if (!h[w])
            return error_memory(err, "the importance of the weights");
        for (int64_t i = 0; i < weight->count; i++)
            h[w][i] = (float)fmin(level, 1e30);
    }
    return status;
}
