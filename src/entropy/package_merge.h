/* Length-limited Huffman costs, from counts that are already sorted: internal to entropy/.
 *
 * The lists of package-merge grow by one level at a time, and the list after l steps is the
 * solution for limit l: one pass answers for every limit. Scratch lives in the arena given.
 */
#ifndef ONNXPRESS_ENTROPY_PACKAGE_MERGE_H
#define ONNXPRESS_ENTROPY_PACKAGE_MERGE_H

#include "entropy/entropy.h"

typedef struct {
    uint64_t count;
    uint32_t symbol;
} HuffLeaf;

/* Sorts by count, stably; `spare` has room for n. The result is in leaf. */
void huff_sort_leaves(HuffLeaf *leaf, HuffLeaf *spare, size_t n);

/* leaf[0..n), n >= 2, sorted by count, all counts >= 1. cost[l], l = 1..max_length, becomes the
 * bits of the best code of limit l, UINT64_MAX when n symbols do not fit l bits. used[l] (NULL: not
 * wanted; else max_length + 1 entries) becomes, for limit max_length, how many of the leaves, least
 * frequent first, have a codeword of at least max_length + 1 - l bits' worth: leaf i's length is
 * the number of l with used[l] > i. */
int huff_package_merge(const HuffLeaf *leaf, size_t n, int max_length, uint64_t *cost, size_t *used,
                       Arena *scratch, Error *err);

#endif
