/* Counting tuples of consecutive symbols: for entropy/, and for who guesses what it will write.
 *
 * A tuple is a 64-bit key, its first symbol in the most significant of `tuple` 16-bit digits, so
 * that keys sort as the tuples do. Results live in the arena given.
 */
#ifndef ONNXPRESS_ENTROPY_TUPLES_H
#define ONNXPRESS_ENTROPY_TUPLES_H

#include "entropy/entropy.h"

#define TUPLE_RUN_MAX 65535 /* members of one run: what 16 bits hold */

typedef struct {
    int tuple;
    uint64_t n_tuples;
    size_t distinct;  /* at most max_distinct + 1: counting stops beyond max_distinct */
    uint64_t *key;    /* [distinct], in order of first appearance */
    uint64_t *count;  /* [distinct] */
    uint16_t largest; /* symbol */
} TupleCounts;

/* id (NULL: not wanted) becomes each tuple's index in key. A last tuple that symbols do not fill is
 * completed as FORMAT.md says. */
int tuples_count(const uint16_t *symbol, uint64_t n, int tuple, size_t max_distinct, uint32_t *id,
                 Arena *arena, TupleCounts *counts, Error *err);

/* Bytes of a block's parts but the stream, `levels` being its longest codeword. */
uint64_t wavelet_table_bytes(uint64_t n_runs, int tuple, int levels, uint16_t largest);

#endif
