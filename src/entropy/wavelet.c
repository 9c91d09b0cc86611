/* SPDX-License-Identifier: Apache-2.0
 *
 * The Huffman-shaped wavelet matrix of FORMAT.md, written top-down and read bottom-up.
 */
#include "entropy/entropy.h"

#include <stdlib.h>
#include <string.h>

#include "entropy/bitio.h"
#include "entropy/tuples.h"

/* The decoder's positions are int32 tensors. */
#define MAX_TUPLES ((uint64_t)INT32_MAX)

#define FIXED_BYTES 400 /* tensors' names and shapes, the decode node itself */
#define RUN_BYTES 2

typedef struct {
    uint64_t key, count;
    uint32_t id;   /* in TupleCounts */
    uint32_t code; /* left-aligned: the bit of level l is bit 32 - l */
    uint8_t length;
} WaveletLeaf;

typedef struct {
    size_t n;
    WaveletLeaf *leaf; /* ascending by key */
    int levels;
    size_t of_length[WAVELET_MAX_LEVELS + 1]; /* leaves */
    uint32_t *tail_leaf;                      /* leaves, deepest level first, in tail order */
    uint64_t members[WAVELET_MAX_LEVELS + 1]; /* of the leaves of a length */
} WaveletTree;

static int compare_leaves(const void *a, const void *b)
{
    const WaveletLeaf *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static int leaves_create(const TupleCounts *counts, int max_length, WaveletTree *tree,
                         Arena *scratch, Error *err)
{
    size_t n = tree->n = counts->distinct;
    tree->leaf = arena_array(scratch, n, sizeof *tree->leaf);
    uint64_t *count = arena_array(scratch, n, sizeof *count);
    uint8_t *length = arena_array(scratch, n, sizeof *length);
    if (!tree->leaf || !count || !length)
        return error_memory(err, "a wavelet tree");
    for (size_t i = 0; i < n; i++)
        tree->leaf[i] =
            (WaveletLeaf){.key = counts->key[i], .count = counts->count[i], .id = (uint32_t)i};
    qsort(tree->leaf, n, sizeof *tree->leaf, compare_leaves);
    for (size_t i = 0; i < n; i++)
        count[i] = tree->leaf[i].count;
    int status = huff_lengths(count, n, max_length, length, scratch, err);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++) {
        tree->leaf[i].length = length[i];
        tree->of_length[length[i]]++;
        tree->members[length[i]] += count[i];
        if (length[i] > tree->levels)
            tree->levels = length[i];
    }
    return ONNXPRESS_OK;
}

/* Gives the leaves their codewords: at each level the children in the order of FORMAT.md, of which
 * the last are this level's leaves, taken in ascending order. */
static int tree_shape(WaveletTree *tree, Arena *scratch, Error *err)
{
    size_t n = tree->n, start[WAVELET_MAX_LEVELS + 2] = {0}, next[WAVELET_MAX_LEVELS + 2];
    uint32_t *by_length = arena_array(scratch, n, sizeof *by_length);
    uint32_t *group = arena_array(scratch, n, sizeof *group);
    uint32_t *child = arena_array(scratch, n, sizeof *child);
    tree->tail_leaf = arena_array(scratch, n, sizeof *tree->tail_leaf);
    if (!by_length || !group || !child || !tree->tail_leaf)
        return error_memory(err, "a wavelet tree");
    for (int l = tree->levels; l >= 1; l--) /* deepest first: the order of the tails */
        start[l - 1] = start[l] + tree->of_length[l];
    memcpy(next, start, sizeof next);
    for (size_t i = 0; i < n; i++)
        tree->tail_leaf[next[tree->leaf[i].length]++] = (uint32_t)i;

    size_t groups = 1; /* group[0] is the root, the empty prefix */
    for (int l = 1; l <= tree->levels; l++) {
        for (size_t g = 0; g < groups; g++) {
            child[g] = group[g];
            child[2 * groups - 1 - g] = group[g] | 1u << (32 - l);
        }
        size_t leaves = tree->of_length[l], inner = 2 * groups - leaves;
        for (size_t i = 0; i < leaves; i++)
            tree->leaf[tree->tail_leaf[start[l] + i]].code = child[inner + i];
        groups = inner;
        memcpy(group, child, groups * sizeof *group);
    }
    return ONNXPRESS_OK;
}

static uint64_t runs_of(uint64_t members)
{
    return members / TUPLE_RUN_MAX + (members % TUPLE_RUN_MAX != 0);
}

/* Runs, table, level sizes and tails: all that is known without the sequence. */
static int block_tables(const WaveletTree *tree, Arena *arena, WaveletBlock *block, Error *err)
{
    block->levels = tree->levels;
    for (size_t i = 0; i < tree->n; i++)
        block->n_runs += runs_of(tree->leaf[i].count);
    size_t entries;
    if (!size_mul(block->n_runs, (size_t)block->tuple, &entries))
        return error_memory(err, "a coded block");
    uint16_t *run = arena_array(arena, block->n_runs, sizeof *run);
    uint16_t *table = arena_array(arena, entries, sizeof *table);
    uint64_t *level_bits = arena_array(arena, (size_t)tree->levels, sizeof *level_bits);
    uint64_t *tail = arena_array(arena, (size_t)tree->levels + 1, sizeof *tail);
    if (!run || !table || !level_bits || !tail)
        return error_memory(err, "a coded block");
    size_t r = 0;
    for (size_t i = 0; i < tree->n; i++) {
        const WaveletLeaf *leaf = &tree->leaf[tree->tail_leaf[i]];
        for (uint64_t left = leaf->count; left > 0; left -= run[r++]) {
            run[r] = (uint16_t)(left < TUPLE_RUN_MAX ? left : TUPLE_RUN_MAX);
            for (int j = 0; j < block->tuple; j++)
                table[r * (size_t)block->tuple + (size_t)j] =
                    (uint16_t)(leaf->key >> 16 * (block->tuple - 1 - j));
        }
    }
    tail[0] = run[0];
    tail[1] = tree->members[tree->levels] - run[0];
    uint64_t bits = 0, below = 0;
    for (int l = tree->levels; l >= 1; l--) {
        if (l < tree->levels)
            tail[tree->levels - l + 1] = tree->members[l];
        below += tree->members[l];
        level_bits[l - 1] = below;
        bits += below;
    }
    block->run = run;
    block->table = table;
    block->level_bits = level_bits;
    block->tail = tail;
    block->stream_bytes = bits / 8 + (bits % 8 != 0);
    return ONNXPRESS_OK;
}

/* Writes the levels; sequence holds tuple ids and is overwritten. */
static int block_stream(const WaveletTree *tree, uint32_t *sequence, Arena *arena, Arena *scratch,
                        WaveletBlock *block, Error *err)
{
    uint8_t *stream = arena_array(arena, block->stream_bytes, 1);
    uint32_t *next = arena_array(scratch, block->n_tuples, sizeof *next);
    uint32_t *code = arena_array(scratch, tree->n, sizeof *code); /* by tuple id */
    if (!stream || !next || !code)
        return error_memory(err, "a coded block");
    for (size_t i = 0; i < tree->n; i++)
        code[tree->leaf[i].id] = tree->leaf[i].code;
    BitWriter writer = {stream, 0, 0};
    for (int l = 0; l < block->levels; l++) {
        uint64_t m = block->level_bits[l], zeros = 0, ones = m; /* ones fill from the end */
        for (uint64_t i = 0; i < m; i++) {
            uint32_t bit = code[sequence[i]] >> (31 - l) & 1;
            bits_put(&writer, bit, 1);
            ones -= bit;
            next[bit ? ones : zeros] = sequence[i];
            zeros += !bit;
        }
        uint32_t *swap = sequence;
        sequence = next;
        next = swap;
    }
    bits_flush(&writer);
    block->stream = stream;
    return ONNXPRESS_OK;
}

/* A sequence of one tuple again and again gets two leaves of that tuple, its first place and the
 * others, so that there is a level. */
static void split_only_tuple(TupleCounts *counts, uint32_t *id)
{
    counts->key[1] = counts->key[0];
    counts->count[1] = counts->count[0] - 1;
    counts->count[0] = 1;
    counts->distinct = 2;
    for (uint64_t i = 1; i < counts->n_tuples; i++)
        id[i] = 1;
}

static int encode_with(const uint16_t *symbol, uint64_t n, int max_length, Arena *arena,
                       Arena *scratch, WaveletBlock *block, Error *err)
{
    uint32_t *id = arena_array(scratch, block->n_tuples, sizeof *id);
    if (!id)
        return error_memory(err, "a coded block");
    TupleCounts counts;
    WaveletTree tree = {0};
    int status =
        tuples_count(symbol, n, block->tuple, (size_t)MAX_TUPLES, id, scratch, &counts, err);
    if (status)
        return status;
    if (counts.distinct == 1)
        split_only_tuple(&counts, id);
    if ((status = leaves_create(&counts, max_length, &tree, scratch, err)) ||
        (status = tree_shape(&tree, scratch, err)) ||
        (status = block_tables(&tree, arena, block, err)))
        return status;
    return block_stream(&tree, id, arena, scratch, block, err);
}

int wavelet_encode(const uint16_t *symbol, uint64_t n, int tuple, int max_length, Arena *arena,
                   WaveletBlock *block, Error *err)
{
    if (tuple < 1 || tuple > WAVELET_MAX_TUPLE)
        return error_set(err, ONNXPRESS_USAGE, "wavelet code: tuples of %d symbols; 1 to %d work",
                         tuple, WAVELET_MAX_TUPLE);
    if (max_length < 1 || max_length > WAVELET_MAX_LEVELS)
        return error_set(err, ONNXPRESS_USAGE, "wavelet code: the length limit %d is not in 1..%d",
                         max_length, WAVELET_MAX_LEVELS);
    *block = (WaveletBlock){.tuple = tuple, .n = n};
    block->n_tuples = n / (uint64_t)tuple + (n % (uint64_t)tuple != 0);
    if (block->n_tuples < 2 || block->n_tuples > MAX_TUPLES)
        return error_set(err, ONNXPRESS_USAGE,
                         "wavelet code: %llu symbols in tuples of %d; from 2 tuples to %llu work",
                         (unsigned long long)n, tuple, (unsigned long long)MAX_TUPLES);
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "a coded block");
    int status = encode_with(symbol, n, max_length, arena, scratch, block, err);
    arena_destroy(scratch);
    return status;
}

uint64_t wavelet_table_bytes(uint64_t n_runs, int tuple, int levels, uint16_t largest)
{
    return n_runs * RUN_BYTES + (n_runs + 1) * (uint64_t)tuple * (largest < 256 ? 1 : 2) +
           (uint64_t)levels * WAVELET_LEVEL_BYTES + FIXED_BYTES;
}

uint64_t wavelet_bytes(const WaveletBlock *block)
{
    uint16_t largest = 0;
    for (uint64_t i = 0; i < block->n_runs * (uint64_t)block->tuple; i++)
        largest = block->table[i] > largest ? block->table[i] : largest;
    return block->stream_bytes +
           wavelet_table_bytes(block->n_runs, block->tuple, block->levels, largest);
}
