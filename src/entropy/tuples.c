/* SPDX-License-Identifier: Apache-2.0 */
#include "entropy/tuples.h"

#include <string.h>

#define FIRST_SLOTS 1024

typedef struct {
    uint64_t key;
    uint32_t id; /* + 1; 0: free */
} Slot;

typedef struct {
    Slot *slot; /* open addressing, at most half full */
    size_t slots;
    int shift; /* 64 - log2(slots) */
} TupleTable;

static size_t slot_of(const TupleTable *table, uint64_t key)
{
    /* Multiplicative hashing, the high half folded in first so that all digits count. */
    uint64_t hash = (key ^ key >> 29) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash >> table->shift);
    while (table->slot[at].id && table->slot[at].key != key)
        at = (at + 1) & (table->slots - 1);
    return at;
}

/* Doubles table, key and count together: they hold half as many tuples as there are slots. */
static int table_grow(TupleTable *table, TupleCounts *counts, Arena *arena, Error *err)
{
    TupleTable larger = {NULL, table->slots ? table->slots * 2 : FIRST_SLOTS, 0};
    larger.slot = arena_array(arena, larger.slots, sizeof *larger.slot);
    larger.shift = 64 - __builtin_ctzll(larger.slots);
    uint64_t *key = arena_array(arena, larger.slots / 2, sizeof *key);
    uint64_t *count = arena_array(arena, larger.slots / 2, sizeof *count);
    if (!larger.slot || !key || !count)
        return error_memory(err, "the counts of symbol tuples");
    for (size_t i = 0; i < counts->distinct; i++) {
        key[i] = counts->key[i];
        count[i] = counts->count[i];
        larger.slot[slot_of(&larger, key[i])] = (Slot){key[i], (uint32_t)i + 1};
    }
    counts->key = key;
    counts->count = count;
    *table = larger;
    return ONNXPRESS_OK;
}

static int table_add(TupleTable *table, TupleCounts *counts, uint64_t key, uint32_t *id,
                     Arena *arena, Error *err)
{
    size_t at = slot_of(table, key);
    if (!table->slot[at].id) {
        if (counts->distinct >= table->slots / 2) {
            int status = table_grow(table, counts, arena, err);
            if (status)
                return status;
            at = slot_of(table, key);
        }
        counts->key[counts->distinct++] = key;
        table->slot[at] = (Slot){key, (uint32_t)counts->distinct};
    }
    *id = table->slot[at].id - 1;
    counts->count[*id]++;
    return ONNXPRESS_OK;
}

/* The most frequent tuple that begins with the `have` symbols at symbol, the smallest of equals;
 * with zeros behind them when no tuple does. */
static uint64_t last_tuple(const uint16_t *symbol, int have, int tuple, const TupleCounts *counts)
{
    int free_bits = 16 * (tuple - have);
    uint64_t prefix = 0, best = 0, best_count = 0;
    for (int j = 0; j < have; j++)
        prefix = prefix << 16 | symbol[j];
    for (size_t i = 0; i < counts->distinct; i++)
        if (counts->key[i] >> free_bits == prefix &&
            (counts->count[i] > best_count ||
             (counts->count[i] == best_count && counts->key[i] < best))) {
            best = counts->key[i];
            best_count = counts->count[i];
        }
    return best_count ? best : prefix << free_bits;
}

int tuples_count(const uint16_t *symbol, uint64_t n, int tuple, size_t max_distinct, uint32_t *id,
                 Arena *arena, TupleCounts *counts, Error *err)
{
    uint64_t whole = n / (uint64_t)tuple;
    int rest = (int)(n % (uint64_t)tuple);
    *counts = (TupleCounts){.tuple = tuple, .n_tuples = whole + (rest > 0)};
    TupleTable table = {0};
    int status = table_grow(&table, counts, arena, err);
    uint32_t largest = 0, one = 0;
    for (uint64_t i = 0; i < whole && !status && counts->distinct <= max_distinct; i++) {
        uint64_t key = 0;
        for (int j = 0; j < tuple; j++, symbol++) {
            key = key << 16 | *symbol;
            largest = *symbol > largest ? *symbol : largest;
        }
        status = table_add(&table, counts, key, &one, arena, err);
        if (id)
            id[i] = one;
    }
    if (rest > 0 && !status && counts->distinct <= max_distinct) {
        for (int j = 0; j < rest; j++)
            largest = symbol[j] > largest ? symbol[j] : largest;
        status =
            table_add(&table, counts, last_tuple(symbol, rest, tuple, counts), &one, arena, err);
        if (id)
            id[whole] = one;
    }
    counts->largest = (uint16_t)largest;
    return status;
}
