/* SPDX-License-Identifier: Apache-2.0
 *
 * A coded sequence as the literature counts it: see "The paper's stream" in FORMAT.md. */
#include "entropy/entropy.h"

#define FARTHEST 255    /* difference that a codeword stands for; 0 is that many without an end */
#define DIFFERENCE_BITS 8 /* of one in the table of codewords */

/* Bits of the codewords of a sequence, and of a table with each codeword once. */
static int add_code(const uint64_t *count, size_t n, Arena *scratch, double *payload,
                    double *codewords, Error *err)
{
    uint8_t *length = arena_array(scratch, n, 1);
    int status = length ? huff_lengths(count, n, HUFF_MAX_LENGTH, length, scratch, err)
                        : error_memory(err, "the paper's count");
    for (size_t i = 0; i < n && !status; i++) {
        *payload += (double)count[i] * length[i];
        *codewords += length[i];
    }
    return status;
}

static void count_differences(const uint16_t *symbol, uint64_t n, int pruned, uint64_t *count)
{
    uint64_t gap = 0;
    for (uint64_t i = 0; i < n; i++) {
        gap++;
        if (symbol[i] == pruned)
            continue;
        for (; gap > FARTHEST; gap -= FARTHEST)
            count[0]++;
        count[gap]++;
        gap = 0;
    }
}

static int count_bits_of_index(size_t levels)
{
    int bits = 0;
    while ((size_t)1 << bits < levels)
        bits++;
    return bits;
}

int paper_count(const uint16_t *symbol, uint64_t n, size_t levels, int pruned, Arena *scratch,
                PaperCount *result, Error *err)
{
    *result = (PaperCount){0};
    uint64_t *count = arena_array(scratch, levels, sizeof *count);
    uint64_t *difference = arena_array(scratch, FARTHEST + 1, sizeof *difference);
    if (!count || !difference)
        return error_memory(err, "the paper's count");
    for (uint64_t i = 0; i < n; i++)
        count[symbol[i]]++;
    if (pruned >= 0)
        count[pruned] = 0;
    for (size_t l = 0; l < levels; l++) {
        result->values += count[l];
        result->levels += count[l] > 0;
    }
    double codewords = 0, differences = 0;
    int status = add_code(count, levels, scratch, &result->value_bits, &codewords, err);
    if (!status && pruned >= 0) {
        count_differences(symbol, n, pruned, difference);
        status = add_code(difference, FARTHEST + 1, scratch, &result->position_bits, &differences,
                          err);
        for (size_t d = 0; d <= FARTHEST; d++)
            differences += difference[d] ? DIFFERENCE_BITS : 0;
    }
    double centres = 32.0 * (double)result->levels;
    result->table_bits = codewords + centres + differences;
    result->fixed_bits = (double)result->values * count_bits_of_index(result->levels) +
                         result->position_bits + centres + differences;
    return status;
}
