/* SPDX-License-Identifier: Apache-2.0
 *
 * The cheapest tuple and length limit, from counts alone: package-merge gives the bits of every
 * limit at once, and runs and tables do not depend on it.
 */
#include "entropy/entropy.h"

#include "entropy/package_merge.h"
#include "entropy/tuples.h"

#define SENSIBLE_SHARE 8 /* a table of more than n / 8 tuples costs more than it can save */
#define SMALL_TABLE 64   /* but small tables are always tried */

typedef struct {
    int tuple, max_length;
    uint64_t bytes;
} Choice;

static uint64_t runs_in(const TupleCounts *counts)
{
    uint64_t runs = 0;
    for (size_t i = 0; i < counts->distinct; i++)
        runs += (counts->count[i] + TUPLE_RUN_MAX - 1) / TUPLE_RUN_MAX;
    return runs;
}

static int choose_length(const TupleCounts *counts, Choice *best, Arena *scratch, Error *err)
{
    uint64_t runs = runs_in(counts), cost[WAVELET_MAX_LEVELS + 1];
    double bound = entropy_bits(counts->count, counts->distinct) / 8 +
                   (double)wavelet_table_bytes(runs, counts->tuple, 1, counts->largest);
    if (best->tuple && bound > (double)best->bytes)
        return ONNXPRESS_OK; /* cannot win, whatever the limit */

    size_t n = counts->distinct;
    HuffLeaf *leaf = arena_array(scratch, n, sizeof *leaf);
    HuffLeaf *spare = arena_array(scratch, n, sizeof *spare);
    if (!leaf || !spare)
        return error_memory(err, "the choice of a code");
    for (size_t i = 0; i < n; i++)
        leaf[i] = (HuffLeaf){counts->count[i], (uint32_t)i};
    huff_sort_leaves(leaf, spare, n);
    int status = huff_package_merge(leaf, n, WAVELET_MAX_LEVELS, cost, NULL, scratch, err);
    if (status)
        return status;
    for (int l = 1; l <= WAVELET_MAX_LEVELS; l++) {
        if (cost[l] == UINT64_MAX)
            continue;
        uint64_t bytes = cost[l] / 8 + (cost[l] % 8 != 0) +
                         wavelet_table_bytes(runs, counts->tuple, l, counts->largest);
        if (!best->tuple || bytes < best->bytes)
            *best = (Choice){counts->tuple, l, bytes};
    }
    return ONNXPRESS_OK;
}

/* Puts the tuple size into *best if it is cheaper; *largest is the largest symbol. */
static int consider(const uint16_t *symbol, uint64_t n, int tuple, Choice *best, int *largest,
                    Arena *scratch, Error *err)
{
    uint64_t sensible = n / SENSIBLE_SHARE > SMALL_TABLE ? n / SENSIBLE_SHARE : SMALL_TABLE;
    size_t max_distinct = tuple == 1 ? SIZE_MAX : (size_t)sensible;
    TupleCounts counts;
    int status = tuples_count(symbol, n, tuple, max_distinct, NULL, scratch, &counts, err);
    if (status)
        return status;
    *largest = counts.largest;
    if (counts.distinct > max_distinct)
        return ONNXPRESS_OK;
    if (counts.distinct == 1) { /* the encoder splits it in two */
        counts.count[1] = counts.count[0] - 1;
        counts.count[0] = 1;
        counts.distinct = 2;
    }
    return choose_length(&counts, best, scratch, err);
}

int wavelet_choose_length(const uint16_t *symbol, uint64_t n, int tuple, Arena *scratch,
                          int *max_length, uint64_t *bytes, Error *err)
{
    Choice best = {.bytes = UINT64_MAX};
    int largest, status = ONNXPRESS_OK;
    if (n > (uint64_t)tuple)
        status = consider(symbol, n, tuple, &best, &largest, scratch, err);
    *max_length = best.max_length;
    *bytes = best.tuple ? best.bytes : UINT64_MAX;
    return status;
}

int wavelet_choose(const uint16_t *symbol, uint64_t n, int levels_in_use, Arena *scratch,
                   int *tuple, int *max_length, uint64_t *bytes, Error *err)
{
    if (n < 2)
        return error_set(err, ONNXPRESS_USAGE, "wavelet code: at least two symbols are needed");
    Choice best = {0};
    for (int t = 1; t <= WAVELET_MAX_TUPLE && n > (uint64_t)t; t++) {
        int largest = 0, status = consider(symbol, n, t, &best, &largest, scratch, err);
        if (status)
            return status;
        if (largest >= levels_in_use)
            return error_set(err, ONNXPRESS_USAGE, "wavelet code: symbol %d of only %d", largest,
                             levels_in_use);
    }
    *tuple = best.tuple;
    *max_length = best.max_length;
    *bytes = best.bytes;
    return ONNXPRESS_OK;
}
