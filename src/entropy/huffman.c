/* SPDX-License-Identifier: Apache-2.0
 *
 * Canonical, length-limited Huffman codes and the paper's stream: one codeword after another.
 */
#include "entropy/entropy.h"

#include <math.h>
#include <string.h>

#include "entropy/bitio.h"
#include "entropy/package_merge.h"

/* Counts whose sum times the longest code could overflow are refused. */
#define MAX_TOTAL (UINT64_MAX / 64)

int huff_lengths(const uint64_t *count, size_t n, int max_length, uint8_t *length, Arena *scratch,
                 Error *err)
{
    if (max_length < 1 || max_length > HUFF_MAX_LENGTH)
        return error_set(err, ONNXPRESS_USAGE, "Huffman code: the length limit %d is not in 1..%d",
                         max_length, HUFF_MAX_LENGTH);
    memset(length, 0, n);
    size_t symbols = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        symbols += count[i] > 0;
        if (__builtin_add_overflow(total, count[i], &total) || total > MAX_TOTAL)
            return error_set(err, ONNXPRESS_USAGE, "Huffman code: the counts are too large");
    }
    if (symbols > (size_t)1 << max_length)
        return error_set(err, ONNXPRESS_USAGE,
                         "Huffman code: %zu symbols do not fit codewords of at most %d bits",
                         symbols, max_length);
    if (symbols == 0)
        return ONNXPRESS_OK;

    HuffLeaf *leaf = arena_array(scratch, symbols, sizeof *leaf);
    HuffLeaf *spare = arena_array(scratch, symbols, sizeof *spare);
    if (!leaf || !spare)
        return error_memory(err, "a Huffman code");
    size_t used_symbols = 0;
    for (size_t i = 0; i < n; i++)
        if (count[i])
            leaf[used_symbols++] = (HuffLeaf){count[i], (uint32_t)i};
    if (symbols == 1) {
        length[leaf[0].symbol] = 1;
        return ONNXPRESS_OK;
    }
    huff_sort_leaves(leaf, spare, symbols);

    uint64_t cost[HUFF_MAX_LENGTH + 1];
    size_t used[HUFF_MAX_LENGTH + 1];
    int status = huff_package_merge(leaf, symbols, max_length, cost, used, scratch, err);
    if (status)
        return status;
    for (int l = 1; l <= max_length; l++)
        for (size_t i = 0; i < used[l]; i++)
            length[leaf[i].symbol]++;
    return ONNXPRESS_OK;
}

/* first[l]: the first codeword of length l; number[l]: how many there are. Returns the sum of
 * 2^(24-length), which is 2^24 for a complete code. */
static uint64_t canonical_starts(const uint8_t *length, size_t n,
                                 uint32_t first[HUFF_MAX_LENGTH + 1],
                                 uint32_t number[HUFF_MAX_LENGTH + 1])
{
    memset(number, 0, (HUFF_MAX_LENGTH + 1) * sizeof *number);
    for (size_t i = 0; i < n; i++)
        number[length[i]]++;
    number[0] = 0;
    uint64_t kraft = 0;
    uint32_t next = 0;
    for (int l = 1; l <= HUFF_MAX_LENGTH; l++) {
        next = (next + number[l - 1]) << 1;
        first[l] = next;
        kraft += (uint64_t)number[l] << (HUFF_MAX_LENGTH - l);
    }
    return kraft;
}

void huff_canonical(const uint8_t *length, size_t n, uint32_t *code)
{
    uint32_t next[HUFF_MAX_LENGTH + 1], number[HUFF_MAX_LENGTH + 1];
    canonical_starts(length, n, next, number);
    for (size_t i = 0; i < n; i++)
        code[i] = length[i] ? next[length[i]]++ : 0;
}

size_t huff_stream_bytes(const uint64_t *count, const uint8_t *length, size_t n)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits += count[i] * length[i];
    return (size_t)(bits / 8 + (bits % 8 != 0));
}

void huff_encode(const uint16_t *symbol, size_t n, const uint8_t *length, const uint32_t *code,
                 uint8_t *stream)
{
    BitWriter writer = {stream, 0, 0};
    for (size_t i = 0; i < n; i++)
        bits_put(&writer, code[symbol[i]], length[symbol[i]]);
    bits_flush(&writer);
}

typedef struct {
    uint32_t first[HUFF_MAX_LENGTH + 1], number[HUFF_MAX_LENGTH + 1];
    uint32_t offset[HUFF_MAX_LENGTH + 1]; /* of a length's first symbol in sorted */
    const uint16_t *sorted;               /* symbols in codeword order */
} HuffDecoder;

static int decode_symbols(const HuffDecoder *decoder, const uint8_t *stream, size_t bytes,
                          uint16_t *symbol, size_t n, Error *err)
{
    uint64_t position = 0, bits = (uint64_t)bytes * 8;
    for (size_t i = 0; i < n; i++) {
        uint32_t code = 0;
        for (int l = 1;; l++) {
            if (position == bits)
                return error_set(err, ONNXPRESS_FORMAT,
                                 "Huffman stream: ends after %zu of %zu symbols", i, n);
            if (l > HUFF_MAX_LENGTH)
                return error_set(err, ONNXPRESS_FORMAT, "Huffman stream: symbol %zu is no codeword",
                                 i);
            code = code << 1 | bit_at(stream, position++);
            if (code >= decoder->first[l] && code - decoder->first[l] < decoder->number[l]) {
                symbol[i] = decoder->sorted[decoder->offset[l] + code - decoder->first[l]];
                break;
            }
        }
    }
    if (position / 8 + (position % 8 != 0) != bytes)
        return error_set(err, ONNXPRESS_FORMAT, "Huffman stream: %zu bytes where %llu are used",
                         bytes, (unsigned long long)(position / 8 + (position % 8 != 0)));
    for (; position < bits; position++)
        if (bit_at(stream, position))
            return error_set(err, ONNXPRESS_FORMAT, "Huffman stream: the padding is not zero");
    return ONNXPRESS_OK;
}

int huff_decode(const uint8_t *stream, size_t bytes, const uint8_t *length, size_t n_lengths,
                uint16_t *symbol, size_t n, Error *err)
{
    if (n_lengths > (size_t)UINT16_MAX + 1)
        return error_set(err, ONNXPRESS_FORMAT, "Huffman code: %zu symbols are more than 65536",
                         n_lengths);
    for (size_t i = 0; i < n_lengths; i++)
        if (length[i] > HUFF_MAX_LENGTH)
            return error_set(err, ONNXPRESS_FORMAT, "Huffman code: a codeword of %d bits",
                             length[i]);
    HuffDecoder decoder;
    uint64_t kraft = canonical_starts(length, n_lengths, decoder.first, decoder.number);
    uint32_t used = 0;
    for (int l = 1; l <= HUFF_MAX_LENGTH; l++) {
        decoder.offset[l] = used;
        used += decoder.number[l];
    }
    bool single = used == 1 && decoder.number[1] == 1;
    if (used == 0 ? n > 0 : !single && kraft != (uint64_t)1 << HUFF_MAX_LENGTH)
        return error_set(err, ONNXPRESS_FORMAT, "Huffman code: the lengths are not a whole code");

    Arena *arena = arena_create();
    uint16_t *sorted = arena ? arena_array(arena, used, sizeof *sorted) : NULL;
    if (!sorted) {
        arena_destroy(arena);
        return error_memory(err, "a Huffman code");
    }
    uint32_t next[HUFF_MAX_LENGTH + 1];
    memcpy(next, decoder.offset, sizeof next);
    for (size_t i = 0; i < n_lengths; i++)
        if (length[i])
            sorted[next[length[i]]++] = (uint16_t)i;
    decoder.sorted = sorted;
    int status = decode_symbols(&decoder, stream, bytes, symbol, n, err);
    arena_destroy(arena);
    return status;
}

double entropy_bits(const uint64_t *count, size_t n)
{
    double total = 0, bits = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)count[i];
    for (size_t i = 0; i < n; i++)
        if (count[i])
            bits += (double)count[i] * log2(total / (double)count[i]);
    return bits;
}
