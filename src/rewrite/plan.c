/* SPDX-License-Identifier: Apache-2.0
 *
 * Chooses between tuples and gaps for a block. */
#include <math.h>

#include "rewrite/rewrite_internal.h"

/* Gaps cost an initializer and some nodes more than tuples. */
#define GAPS_BYTES 120

static const int gap_limits[] = {7, 15, 31, 63, 127};

uint16_t skipped_symbol(const float *codebook, int levels)
{
    int best = 0;
    for (int l = 1; l < levels; l++)
        if (fabsf(codebook[l]) < fabsf(codebook[best]))
            best = l;
    return (uint16_t)best;
}

static int plan_gaps(const uint16_t *symbol, uint64_t n, uint16_t skipped, int limit,
                     BlockPlan *best, Arena *scratch, Error *err)
{
    uint64_t pairs = gaps_split(symbol, n, skipped, limit, NULL), bytes;
    int max_length;
    /* With few skipped symbols pairs only double the sequence. */
    if (pairs < 2 || pairs > n / 2)
        return ONNXPRESS_OK;
    uint16_t *pair = arena_array(scratch, (size_t)pairs, 2 * sizeof *pair);
    if (!pair)
        return error_memory(err, "the choice of a code");
    gaps_split(symbol, n, skipped, limit, pair);
    int status = wavelet_choose_length(pair, 2 * pairs, 2, scratch, &max_length, &bytes, err);
    if (!status && bytes < best->bytes - GAPS_BYTES)
        *best = (BlockPlan){.tuple = 2,
                            .gap_limit = limit,
                            .skipped = skipped,
                            .max_length = max_length,
                            .bytes = bytes + GAPS_BYTES};
    return status;
}

int block_plan(const uint16_t *symbol, uint64_t n, uint16_t skipped, int levels, BlockPlan *plan,
               Error *err)
{
    *plan = (BlockPlan){0};
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "the choice of a code");
    int status = wavelet_choose(symbol, n, levels, scratch, &plan->tuple, &plan->max_length,
                                &plan->bytes, err);
    for (size_t i = 0; i < sizeof gap_limits / sizeof gap_limits[0] && !status; i++)
        status = plan_gaps(symbol, n, skipped, gap_limits[i], plan, scratch, err);
    arena_destroy(scratch);
    return status;
}

int rewrite_estimate(const uint16_t *symbol, const size_t *offset, size_t n_tensors,
                     const float *codebook, int levels, uint64_t *bytes, Error *err)
{
    uint16_t skipped = skipped_symbol(codebook, levels);
    Arena *scratch = arena_create();
    Groups groups = {0};
    *bytes = 0;
    int status = scratch ? groups_find(symbol, offset, n_tensors, codebook, levels, scratch, &groups,
                                       err)
                         : error_memory(err, "the choice of blocks");
    uint64_t most = 0;
    for (size_t b = 0; b < groups.n_blocks && !status; b++) {
        uint64_t count = groups.first[b + 1] - groups.first[b];
        most = count > most ? count : most;
    }
    uint16_t *block = status ? NULL : arena_array(scratch, most + 1, sizeof *block);
    if (!status && !block)
        status = error_memory(err, "the choice of blocks");
    for (size_t b = 0; b < groups.n_blocks && !status; b++) {
        BlockPlan plan = {0};
        uint64_t count = groups.first[b + 1] - groups.first[b];
        groups_gather(symbol, offset, &groups, b, block);
        if (count >= 2)
            status = block_plan(block, count, skipped, levels, &plan, err);
        *bytes += plan.bytes;
    }
    arena_destroy(scratch);
    return status;
}
