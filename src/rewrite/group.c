/* SPDX-License-Identifier: Apache-2.0
 *
 * Which tensors share a block, and so a code. Tensors are put in order of their own entropy, those
 * of about the same one form a class, and neighbouring classes join as long as one code for both
 * costs less than a table more: by an estimate first, then, of the groups left, by their plans. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "entropy/tuples.h"
#include "rewrite/rewrite_internal.h"

#define CLASSES_A_BIT 4 /* classes for each bit of entropy */
#define CLASSES (16 * CLASSES_A_BIT + 1)
/* Tuples of 1 to 4 fill all blocks but the last: padding has its place at the end only. */
#define BLOCK_UNIT ((uint64_t)12)

typedef struct {
    double bits;
    size_t tensor;
} Ranked;

/* Tensors that are coded together so far: [first, end) of the order. */
typedef struct {
    size_t first, end;
    uint64_t n;      /* symbols */
    uint64_t *count; /* [levels] */
    double cost;     /* bytes */
} Group;

typedef struct {
    const uint16_t *symbol;
    const size_t *offset;
    size_t n_tensors;
    int levels;
    uint16_t skipped;
    size_t *order;
    Group group[CLASSES];
    double joint[CLASSES]; /* bytes of a group and the next as one */
    size_t n;
    uint64_t *spare; /* [levels] */
    uint16_t *block; /* [most symbols of a block] */
} Grouping;

static int compare_ranked(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    if (x->bits != y->bits)
        return x->bits < y->bits ? -1 : 1;
    return (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static void add_counts(const uint16_t *symbol, size_t first, size_t end, uint64_t *count)
{
    for (size_t i = first; i < end; i++)
        count[symbol[i]]++;
}

/* Bytes of symbols with these counts in a block of their own. */
static double block_cost(const uint64_t *count, int levels)
{
    uint64_t runs = 0, total = 0;
    uint16_t largest = 0;
    for (int l = 0; l < levels; l++) {
        runs += (count[l] + TUPLE_RUN_MAX - 1) / TUPLE_RUN_MAX;
        total += count[l];
        largest = count[l] ? (uint16_t)l : largest;
    }
    uint64_t blocks = 1 + (total - 1) / REWRITE_BLOCK;
    int depth = (int)fmin(ceil(log2((double)runs + 1)) + 2, WAVELET_MAX_LEVELS);
    double table = (double)wavelet_table_bytes(runs, 1, depth, largest);
    return entropy_bits(count, (size_t)levels) / 8 + (double)blocks * table;
}

/* Bytes of groups [first, last] as one, by estimate or, `exact`, as they would be coded. Large ones
 * fill blocks by themselves and never join then. */
static int joint_cost(Grouping *g, size_t first, size_t last, bool exact, double *cost, Error *err)
{
    uint64_t n = 0;
    memset(g->spare, 0, (size_t)g->levels * sizeof *g->spare);
    for (size_t k = first; k <= last; k++) {
        n += g->group[k].n;
        for (int l = 0; l < g->levels && !exact; l++)
            g->spare[l] += g->group[k].count[l];
    }
    *cost = exact ? INFINITY : block_cost(g->spare, g->levels);
    if (!exact || n > REWRITE_BLOCK || n < 2)
        return ONNXPRESS_OK;
    BlockPlan plan;
    uint16_t *at = g->block;
    for (size_t k = g->group[first].first; k < g->group[last].end; k++) {
        size_t t = g->order[k], count = g->offset[t + 1] - g->offset[t];
        memcpy(at, g->symbol + g->offset[t], count * sizeof *at);
        at += count;
    }
    int status = block_plan(g->block, n, g->skipped, g->levels, &plan, err);
    *cost = (double)plan.bytes;
    return status;
}

/* What joining a group with the next saves. */
static double saving(const Grouping *g, size_t k)
{
    return isfinite(g->joint[k]) ? g->group[k].cost + g->group[k + 1].cost - g->joint[k]
                                 : -INFINITY;
}

/* Joins neighbours, the best pair first, as long as that saves. */
static int join_groups(Grouping *g, bool exact, Error *err)
{
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < g->n && !status; k++)
        status = joint_cost(g, k, k, exact, &g->group[k].cost, err);
    for (size_t k = 0; k + 1 < g->n && !status; k++)
        status = joint_cost(g, k, k + 1, exact, &g->joint[k], err);
    while (g->n > 1 && !status) {
        size_t best = 0;
        for (size_t k = 1; k + 1 < g->n; k++)
            best = saving(g, k) > saving(g, best) ? k : best;
        if (!(saving(g, best) >= 0))
            break;
        Group *left = &g->group[best], *right = left + 1;
        for (int l = 0; l < g->levels; l++)
            left->count[l] += right->count[l];
        left->end = right->end;
        left->n += right->n;
        left->cost = g->joint[best];
        g->n--;
        memmove(right, right + 1, (g->n - best - 1) * sizeof *right);
        memmove(&g->joint[best], &g->joint[best + 1], (g->n - best - 1) * sizeof *g->joint);
        for (size_t k = best ? best - 1 : 0; k <= best && k + 1 < g->n && !status; k++)
            status = joint_cost(g, k, k + 1, exact, &g->joint[k], err);
    }
    return status;
}

/* Order, and classes of it; counts are made for each class. */
static bool make_classes(Grouping *g, Arena *scratch)
{
    Ranked *ranked = arena_array(scratch, g->n_tensors, sizeof *ranked);
    if (!ranked)
        return false;
    for (size_t t = 0; t < g->n_tensors; t++) {
        memset(g->spare, 0, (size_t)g->levels * sizeof *g->spare);
        add_counts(g->symbol, g->offset[t], g->offset[t + 1], g->spare);
        double elements = (double)(g->offset[t + 1] - g->offset[t]);
        ranked[t] = (Ranked){entropy_bits(g->spare, (size_t)g->levels) / elements, t};
    }
    qsort(ranked, g->n_tensors, sizeof *ranked, compare_ranked);
    int last = -1;
    for (size_t k = 0; k < g->n_tensors; k++) {
        size_t t = g->order[k] = ranked[k].tensor;
        int class = (int)(CLASSES_A_BIT * ranked[k].bits);
        Group *group = &g->group[class != last ? g->n++ : g->n - 1];
        if (class != last) {
            group->first = k;
            group->count = arena_array(scratch, (size_t)g->levels, sizeof *group->count);
            if (!group->count)
                return false;
        }
        last = class;
        add_counts(g->symbol, g->offset[t], g->offset[t + 1], group->count);
        group->n += g->offset[t + 1] - g->offset[t];
        group->end = k + 1;
    }
    return true;
}

/* Where blocks begin: near the groups' ends, and within large groups. */
static bool cut_blocks(const Grouping *g, Arena *arena, Groups *groups)
{
    size_t total = g->offset[g->n_tensors];
    groups->first = arena_array(arena, g->n + total / REWRITE_BLOCK + 2, sizeof *groups->first);
    if (!groups->first)
        return false;
    uint64_t at = 0, end = 0;
    groups->n_blocks = 0;
    for (size_t k = 0; k < g->n; k++) {
        end += g->group[k].n;
        uint64_t cut = k + 1 < g->n ? end / BLOCK_UNIT * BLOCK_UNIT : total;
        while (at < cut) {
            groups->first[groups->n_blocks++] = at;
            at += rewrite_block(cut, at);
        }
    }
    groups->first[groups->n_blocks] = total;
    return true;
}

int groups_find(const uint16_t *symbol, const size_t *offset, size_t n_tensors,
                const float *codebook, int levels, Arena *arena, Groups *groups, Error *err)
{
    size_t most = offset[n_tensors] < REWRITE_BLOCK ? offset[n_tensors] : REWRITE_BLOCK;
    Arena *scratch = arena_create();
    Grouping *g = scratch ? arena_array(scratch, 1, sizeof *g) : NULL;
    if (!g) {
        arena_destroy(scratch);
        return error_memory(err, "the choice of blocks");
    }
    groups->order = arena_array(arena, n_tensors, sizeof *groups->order);
    *g = (Grouping){.symbol = symbol,
                    .offset = offset,
                    .n_tensors = n_tensors,
                    .levels = levels,
                    .skipped = skipped_symbol(codebook, levels),
                    .order = groups->order,
                    .spare = arena_array(scratch, (size_t)levels, sizeof *g->spare),
                    .block = arena_array(scratch, most + 1, sizeof *g->block)};
    bool made = g->order && g->spare && g->block && make_classes(g, scratch);
    int status = made ? join_groups(g, false, err) : error_memory(err, "the choice of blocks");
    if (!status && g->n > 1)
        status = join_groups(g, true, err);
    if (!status && !cut_blocks(g, arena, groups))
        status = error_memory(err, "the choice of blocks");
    arena_destroy(scratch);
    return status;
}

void groups_gather(const uint16_t *symbol, const size_t *offset, const Groups *groups, size_t block,
                   uint16_t *out)
{
    uint64_t first = groups->first[block], end = groups->first[block + 1], at = 0;
    for (size_t k = 0; at < end; k++) {
        size_t from = offset[groups->order[k]], count = offset[groups->order[k] + 1] - from;
        uint64_t skip = first > at ? first - at : 0, stop = end - at < count ? end - at : count;
        if (skip < stop) {
            memcpy(out, symbol + from + skip, (stop - skip) * sizeof *out);
            out += stop - skip;
        }
        at += count;
    }
}
