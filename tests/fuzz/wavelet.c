/* SPDX-License-Identifier: Apache-2.0
 *
 * Coded blocks (a wavelet tree over tuples of symbols) and gaps: any block is decoded or refused,
 * what we encode comes back. */
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"
#include "fuzz/fuzz.h"

enum { MOST_RUNS = 4096, MOST_TUPLES = 1 << 16 };

/* [tuple, levels, tails…, number of runs, runs…, table…, stream…]: sizes that follow from others are
 * made to fit, but for those that the first byte spoils. */
static void decode(Bytes bytes)
{
    Error err = {0};
    uint64_t level_bits[WAVELET_MAX_LEVELS + 2] = {0}, tail[WAVELET_MAX_LEVELS + 3] = {0};
    uint8_t spoilt = bytes_u8(&bytes);
    WaveletBlock block = {.tuple = bytes_u8(&bytes) % 6, .levels = bytes_u8(&bytes) % 23};
    int levels = block.levels > WAVELET_MAX_LEVELS + 1 ? WAVELET_MAX_LEVELS + 1 : block.levels;
    for (int l = 0; l <= levels; l++)
        block.n_tuples += tail[l] = bytes_size(&bytes) % MOST_TUPLES;
    uint64_t left = block.n_tuples, bits = 0;
    for (int l = 0; l < levels; l++) {
        level_bits[l] = left;
        bits += left;
        left -= tail[levels - l];
    }
    block.n_runs = bytes_size(&bytes) % MOST_RUNS;
    uint16_t *run = calloc(block.n_runs + 1, sizeof *run);
    size_t entries = block.n_runs * (size_t)(block.tuple ? block.tuple : 1);
    uint16_t *table = calloc(entries + 1, sizeof *table);
    block.stream_bytes = bits / 8 + (bits % 8 != 0);
    uint8_t *stream = calloc(block.stream_bytes + 1, 1);
    FUZZ_CHECK(run && table && stream);
    uint64_t members = 0;
    for (uint64_t r = 0; r < block.n_runs; r++) {
        uint64_t rest = block.n_tuples - members, size = 1 + bytes_size(&bytes) % UINT16_MAX;
        run[r] = (uint16_t)(r + 1 == block.n_runs && rest <= UINT16_MAX ? rest
                            : size < rest                               ? size
                                                                        : rest % UINT16_MAX);
        members += run[r];
    }
    for (size_t i = 0; i < entries; i++)
        table[i] = bytes_u8(&bytes);
    for (uint64_t i = 0; i < block.stream_bytes; i++)
        stream[i] = bytes_u8(&bytes);
    if (bits % 8)
        stream[block.stream_bytes - 1] &= (uint8_t)(0xff << (8 - bits % 8));
    block.n = block.n_tuples * (uint64_t)(block.tuple ? block.tuple : 1);
    block.n -= spoilt & 1 && block.n ? 1 : 0;
    block.n_tuples += spoilt >> 1 & 1;
    block.stream_bytes -= spoilt >> 2 & 1 && block.stream_bytes ? 1 : 0;
    level_bits[0] += spoilt >> 3 & 1;
    tail[0] -= spoilt >> 4 & 1;
    block.run = run;
    block.table = table;
    block.level_bits = level_bits;
    block.tail = tail;
    block.stream = stream;
    uint16_t *symbol = malloc(block.n * sizeof *symbol + 1);
    FUZZ_CHECK(symbol);
    fuzz_check_error(wavelet_decode(&block, symbol, &err), &err);
    free(symbol);
    free(stream);
    free(table);
    free(run);
}

static void block_round_trip(const uint16_t *symbol, uint64_t n, int tuple, int longest)
{
    Error err = {0};
    Arena *arena = arena_create();
    uint16_t *read = malloc(n * sizeof *read + 1);
    FUZZ_CHECK(read);
    WaveletBlock block;
    int status = n < 2 ? ONNXPRESS_USAGE
                       : wavelet_encode(symbol, n, tuple, longest, arena, &block, &err);
    if (!status) {
        status = wavelet_decode(&block, read, &err);
        FUZZ_CHECK(!status && memcmp(read, symbol, n * sizeof *read) == 0);
        int best, length;
        uint64_t bytes;
        fuzz_check_error(wavelet_choose(symbol, n, 256, arena, &best, &length, &bytes, &err), &err);
    }
    free(read);
    arena_destroy(arena);
}

static void gaps_round_trip(const uint16_t *symbol, uint64_t n, uint16_t skipped, int limit)
{
    Error err = {0};
    uint64_t pairs = gaps_split(symbol, n, skipped, limit, NULL);
    uint16_t *pair = malloc(2 * pairs * sizeof *pair + 1), *read = malloc(n * sizeof *read + 1);
    FUZZ_CHECK(pair && read);
    FUZZ_CHECK(gaps_split(symbol, n, skipped, limit, pair) == pairs);
    int status = gaps_join(pair, pairs, skipped, read, n, &err);
    FUZZ_CHECK(!status && memcmp(read, symbol, n * sizeof *read) == 0);
    free(read);
    free(pair);
}

/* [mode, tuple, longest, symbols…] */
static void symbols(Bytes bytes, int mode)
{
    uint8_t first = bytes_u8(&bytes), second = bytes_u8(&bytes);
    uint64_t n = bytes.left;
    uint16_t *symbol = malloc(n * sizeof *symbol + 1);
    FUZZ_CHECK(symbol);
    for (uint64_t i = 0; i < n; i++)
        symbol[i] = bytes_u8(&bytes);
    if (mode == 1) {
        block_round_trip(symbol, n, 1 + first % WAVELET_MAX_TUPLE, 1 + second % WAVELET_MAX_LEVELS);
    } else if (mode == 2 && n > 0) {
        gaps_round_trip(symbol, n, symbol[0], 1 + first % GAPS_MAX_LIMIT);
    } else { /* pairs that nobody made */
        Error err = {0};
        uint64_t room = first * 16u + second;
        uint16_t *out = malloc(room * sizeof *out + 1);
        FUZZ_CHECK(out);
        fuzz_check_error(gaps_join(symbol, n / 2, second, out, room, &err), &err);
        free(out);
    }
    free(symbol);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Bytes bytes = {data, size};
    int mode = bytes_u8(&bytes) % 4;
    if (mode == 0)
        decode(bytes);
    else
        symbols(bytes, mode);
    return 0;
}
