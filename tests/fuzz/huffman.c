/* SPDX-License-Identifier: Apache-2.0
 *
 * Huffman codes: any lengths and stream are decoded or refused; what we encode comes back. */
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"
#include "fuzz/fuzz.h"

enum { MOST_SYMBOLS = 1 << 16 };

/* [number of lengths, number of symbols, lengths…, stream…] */
static void decode(Bytes bytes)
{
    Error err = {0};
    size_t n_lengths = bytes_size(&bytes), n = bytes_size(&bytes);
    if (n_lengths > bytes.left)
        n_lengths = bytes.left;
    if (n > MOST_SYMBOLS)
        n = MOST_SYMBOLS;
    uint16_t *symbol = malloc(n * sizeof *symbol + 1);
    FUZZ_CHECK(symbol);
    int status = huff_decode(bytes.at + n_lengths, bytes.left - n_lengths, bytes.at, n_lengths,
                             symbol, n, &err);
    fuzz_check_error(status, &err);
    for (size_t i = 0; i < n && !status; i++)
        FUZZ_CHECK(symbol[i] < n_lengths && bytes.at[symbol[i]] > 0);
    free(symbol);
}

/* [number of lengths, longest, symbols…] */
static void round_trip(Bytes bytes)
{
    Error err = {0};
    size_t alphabet = 1 + bytes_size(&bytes) % MOST_SYMBOLS, n = bytes.left / 2;
    int longest = 1 + bytes_u8(&bytes) % HUFF_MAX_LENGTH;
    Arena *arena = arena_create();
    uint64_t *count = arena_array(arena, alphabet, sizeof *count);
    uint8_t *length = arena_array(arena, alphabet, 1);
    uint32_t *code = arena_array(arena, alphabet, sizeof *code);
    uint16_t *symbol = arena_array(arena, n, sizeof *symbol);
    uint16_t *read = arena_array(arena, n, sizeof *read);
    for (size_t i = 0; i < n; i++) {
        symbol[i] = (uint16_t)(bytes_u16(&bytes) % alphabet);
        count[symbol[i]]++;
    }
    int status = huff_lengths(count, alphabet, longest, length, arena, &err);
    fuzz_check_error(status, &err);
    if (!status) {
        size_t size = huff_stream_bytes(count, length, alphabet);
        uint8_t *stream = malloc(size + 1);
        FUZZ_CHECK(stream);
        huff_canonical(length, alphabet, code);
        huff_encode(symbol, n, length, code, stream);
        status = huff_decode(stream, size, length, alphabet, read, n, &err);
        FUZZ_CHECK(!status && memcmp(symbol, read, n * sizeof *read) == 0);
        free(stream);
        PaperCount paper;
        int pruned = longest % 2 ? -1 : symbol[0];
        status = paper_count(symbol, n, alphabet, pruned, arena, &paper, &err);
        fuzz_check_error(status, &err);
    }
    arena_destroy(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Bytes bytes = {data, size};
    if (bytes_u8(&bytes) % 2)
        decode(bytes);
    else
        round_trip(bytes);
    return 0;
}
