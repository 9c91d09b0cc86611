/* SPDX-License-Identifier: Apache-2.0
 *
 * Package-merge (Larmore and Hirschberg 1990): a limit of L is L lists, each the leaves merged with
 * the pairs of the list before; the cheapest 2n-2 items of the last list are the code. Of each list
 * only its weights (until the next is made) and one bit an item, package or leaf, are kept.
 */
#include "entropy/package_merge.h"

#include <string.h>

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

void huff_sort_leaves(HuffLeaf *leaf, HuffLeaf *spare, size_t n)
{
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++)
        all |= leaf[i].count;
    HuffLeaf *from = leaf, *to = spare;
    for (int shift = 0; shift < 64 && all >> shift; shift += DIGIT_BITS) {
        size_t start[DIGITS + 1] = {0};
        for (size_t i = 0; i < n; i++)
            start[(from[i].count >> shift & (DIGITS - 1)) + 1]++;
        for (size_t d = 0; d < DIGITS; d++)
            start[d + 1] += start[d];
        for (size_t i = 0; i < n; i++)
            to[start[from[i].count >> shift & (DIGITS - 1)]++] = from[i];
        HuffLeaf *swap = from;
        from = to;
        to = swap;
    }
    if (from != leaf)
        memcpy(leaf, from, n * sizeof *leaf);
}

/* Merges the leaves with the pairs of `from` into `to`, at most `limit` items; bit i of package
 * says that item i is a pair. Returns the items made and their total weight. */
static size_t merge(const HuffLeaf *leaf, size_t n, const uint64_t *from, size_t n_from,
                    uint64_t *to, size_t limit, uint64_t *package, uint64_t *weight)
{
    size_t i = 0, pair = 0, pairs = n_from / 2, made = 0;
    uint64_t total = 0;
    while (made < limit && (i < n || pair < pairs)) {
        uint64_t sum = pair < pairs ? from[2 * pair] + from[2 * pair + 1] : UINT64_MAX;
        if (i < n && leaf[i].count <= sum) {
            to[made] = leaf[i++].count;
        } else {
            to[made] = sum;
            package[made >> 6] |= (uint64_t)1 << (made & 63);
            pair++;
        }
        total += to[made++];
    }
    *weight = total;
    return made;
}

static size_t count_bits(const uint64_t *word, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n >> 6; i++)
        count += (size_t)__builtin_popcountll(word[i]);
    if (n & 63)
        count += (size_t)__builtin_popcountll(word[n >> 6] & (((uint64_t)1 << (n & 63)) - 1));
    return count;
}

int huff_package_merge(const HuffLeaf *leaf, size_t n, int max_length, uint64_t *cost, size_t *used,
                       Arena *scratch, Error *err)
{
    size_t limit, words, all_words;
    if (!size_mul(n, 2, &limit))
        return error_memory(err, "a Huffman code");
    limit -= 2;
    words = limit / 64 + 1;
    if (!size_mul(words, (size_t)max_length + 1, &all_words))
        return error_memory(err, "a Huffman code");
    uint64_t *from = arena_array(scratch, limit, sizeof *from);
    uint64_t *to = arena_array(scratch, limit, sizeof *to);
    uint64_t *package = arena_array(scratch, all_words, sizeof *package);
    if (!from || !to || !package)
        return error_memory(err, "a Huffman code");

    size_t made = 0;
    for (int l = 1; l <= max_length; l++) {
        uint64_t weight;
        made = merge(leaf, n, from, made, to, limit, package + words * (size_t)l, &weight);
        cost[l] = made == limit ? weight : UINT64_MAX;
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    if (!used)
        return ONNXPRESS_OK;
    size_t take = limit;
    for (int l = max_length; l >= 1; l--) {
        size_t packages = count_bits(package + words * (size_t)l, take);
        used[l] = take - packages;
        take = 2 * packages;
    }
    return ONNXPRESS_OK;
}
