/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"

static uint64_t random_state;

static uint32_t draw(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)((uint64_t)draw() * n >> 32);
}

/* Geometric-like: each smaller symbol is `skew` percent likely to be taken first. */
static uint16_t skewed(uint32_t alphabet, uint32_t skew)
{
    uint32_t s = 0;
    while (s + 1 < alphabet && below(100) >= skew)
        s++;
    return (uint16_t)s;
}

static Arena *arena;
static Error error;

static void setup(void)
{
    arena = arena_create();
    error = (Error){0};
    random_state = 42;
}

static void teardown(void)
{
    arena_destroy(arena);
}

/* --- Huffman --- */

/* Total bits of an unlimited Huffman code, by repeatedly joining the two smallest. */
static uint64_t plain_huffman_bits(const uint64_t *count, size_t n)
{
    uint64_t weight[64], bits = 0;
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (count[i])
            weight[m++] = count[i];
    if (m == 1)
        return weight[0];
    while (m > 1) {
        for (size_t k = 0; k < 2; k++) { /* the two smallest to the end */
            size_t least = 0;
            for (size_t i = 1; i < m - k; i++)
                if (weight[i] < weight[least])
                    least = i;
            uint64_t w = weight[least];
            weight[least] = weight[m - 1 - k];
            weight[m - 1 - k] = w;
        }
        weight[m - 2] += weight[m - 1];
        m--;
        bits += weight[m - 1];
    }
    return bits;
}

static uint64_t total_bits(const uint64_t *count, const uint8_t *length, size_t n)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits += count[i] * length[i];
    return bits;
}

static double kraft(const uint8_t *length, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if (length[i])
            sum += ldexp(1, -length[i]);
    return sum;
}

START_TEST(huffman_is_optimal)
{
    for (int round = 0; round < 3000; round++) {
        uint64_t count[64] = {0};
        uint8_t length[64];
        size_t n = 1 + below(64), used = 0;
        for (size_t i = 0; i < n; i++) {
            count[i] = below(4) ? 1 + below(1u << below(18)) : 0;
            used += count[i] > 0;
        }
        ck_assert_int_eq(huff_lengths(count, n, HUFF_MAX_LENGTH, length, arena, &error), 0);
        for (size_t i = 0; i < n; i++)
            ck_assert_int_eq(length[i] > 0, count[i] > 0);
        if (used == 0)
            continue;
        ck_assert_uint_eq(total_bits(count, length, n), plain_huffman_bits(count, n));
        ck_assert(kraft(length, n) == (used == 1 ? 0.5 : 1.0));
        double entropy = entropy_bits(count, n), total = 0;
        for (size_t i = 0; i < n; i++)
            total += (double)count[i];
        ck_assert(entropy <= (double)total_bits(count, length, n) + 1e-6);
        ck_assert((double)total_bits(count, length, n) <= entropy + total);
    }
}
END_TEST

/* The least bits of any assignment of lengths 1..limit that satisfies Kraft, by trying all. */
static uint64_t least_bits(const uint64_t *count, size_t n, int limit, uint32_t budget)
{
    if (n == 0)
        return 0;
    uint64_t best = UINT64_MAX;
    for (int l = 1; l <= limit; l++) {
        uint32_t takes = 1u << (limit - l);
        if (takes > budget)
            continue;
        uint64_t rest = least_bits(count + 1, n - 1, limit, budget - takes);
        if (rest != UINT64_MAX && rest + count[0] * (uint64_t)l < best)
            best = rest + count[0] * (uint64_t)l;
    }
    return best;
}

START_TEST(limited_lengths_are_optimal)
{
    int tight = 0;
    for (int round = 0; round < 400; round++) {
        size_t n = 2 + below(6);
        int limit = 1 + (int)below(5);
        uint64_t count[8];
        uint8_t length[8];
        for (size_t i = 0; i < n; i++)
            count[i] = 1 + below(1u << below(12));
        int status = huff_lengths(count, n, limit, length, arena, &error);
        if (n > (size_t)1 << limit) {
            ck_assert_int_eq(status, ONNXPRESS_USAGE);
            error = (Error){0};
            continue;
        }
        ck_assert_int_eq(status, 0);
        ck_assert_uint_eq(total_bits(count, length, n), least_bits(count, n, limit, 1u << limit));
        ck_assert(kraft(length, n) == 1.0);
        for (size_t i = 0; i < n; i++)
            ck_assert_int_le(length[i], limit);
        tight += total_bits(count, length, n) > plain_huffman_bits(count, n);
    }
    ck_assert_int_gt(tight, 20); /* the limit mattered often enough */
}
END_TEST

START_TEST(fibonacci_counts_meet_the_limit)
{
    uint64_t count[60];
    uint8_t length[60];
    count[0] = count[1] = 1;
    for (size_t i = 2; i < 60; i++)
        count[i] = count[i - 1] + count[i - 2];
    ck_assert_int_eq(huff_lengths(count, 60, 16, length, arena, &error), 0);
    int longest = 0;
    for (size_t i = 0; i < 60; i++)
        longest = length[i] > longest ? length[i] : longest;
    ck_assert_int_eq(longest, 16);
    ck_assert(kraft(length, 60) == 1.0);
    count[0] = UINT64_MAX / 2;
    ck_assert_int_eq(huff_lengths(count, 60, 16, length, arena, &error), ONNXPRESS_USAGE);
    error = (Error){0};
    ck_assert_int_eq(huff_lengths(count, 60, 25, length, arena, &error), ONNXPRESS_USAGE);
}
END_TEST

START_TEST(canonical_codes_are_prefix_free_and_ordered)
{
    static const uint8_t length[6] = {2, 0, 3, 2, 3, 2};
    static const uint32_t expected[6] = {0, 0, 6, 1, 7, 2};
    uint32_t code[6];
    huff_canonical(length, 6, code);
    for (size_t i = 0; i < 6; i++)
        ck_assert_uint_eq(code[i], expected[i]);
}
END_TEST

typedef struct {
    size_t n, bytes;
    uint16_t symbol[5000];
    uint64_t count[300];
    uint8_t length[300];
    uint8_t stream[20000];
} Coded;

static void huffman_code(Coded *c, size_t n, uint32_t alphabet, uint32_t skew, int limit)
{
    uint32_t code[300];
    memset(c, 0, sizeof *c);
    c->n = n;
    for (size_t i = 0; i < n; i++)
        c->count[c->symbol[i] = skewed(alphabet, skew)]++;
    ck_assert_int_eq(huff_lengths(c->count, 300, limit, c->length, arena, &error), 0);
    huff_canonical(c->length, 300, code);
    c->bytes = huff_stream_bytes(c->count, c->length, 300);
    ck_assert_uint_le(c->bytes, sizeof c->stream);
    huff_encode(c->symbol, n, c->length, code, c->stream);
}

START_TEST(huffman_stream_returns_its_symbols)
{
    static Coded c;
    static uint16_t out[5000];
    for (int round = 0; round < 200; round++) {
        huffman_code(&c, 1 + below(5000), 1 + below(300), 1 + below(60), 9 + (int)below(16));
        memset(out, 0xFF, sizeof out);
        ck_assert_int_eq(huff_decode(c.stream, c.bytes, c.length, 300, out, c.n, &error), 0);
        ck_assert_mem_eq(out, c.symbol, c.n * sizeof *out);
    }
}
END_TEST

START_TEST(huffman_stream_survives_damage)
{
    static Coded c;
    static uint16_t out[5000];
    huffman_code(&c, 500, 40, 20, 12);
    for (int round = 0; round < 3000; round++) {
        uint8_t length[300];
        memcpy(length, c.length, sizeof length);
        size_t bytes = below((uint32_t)c.bytes + 1);
        uint8_t *copy = malloc(bytes ? bytes : 1); /* exact, so that a sanitizer sees an overrun */
        memcpy(copy, c.stream, bytes);
        if (bytes && below(2))
            copy[below((uint32_t)bytes)] ^= (uint8_t)(1u << below(8));
        if (below(2))
            length[below(300)] = (uint8_t)draw();
        error = (Error){0};
        int status = huff_decode(copy, bytes, length, 300, out, c.n, &error);
        ck_assert(status == 0 || status == ONNXPRESS_FORMAT);
        if (bytes < c.bytes && !memcmp(length, c.length, sizeof length))
            ck_assert_int_eq(status, ONNXPRESS_FORMAT);
        free(copy);
    }
    error = (Error){0};
    c.stream[c.bytes] = 0; /* a byte too many */
    ck_assert_int_eq(huff_decode(c.stream, c.bytes + 1, c.length, 300, out, c.n, &error),
                     ONNXPRESS_FORMAT);
    uint8_t over[3] = {1, 1, 1}, under[3] = {1, 2, 3}, none[3] = {0, 0, 0};
    const uint8_t *bad[3] = {over, under, none};
    for (size_t i = 0; i < 3; i++) {
        error = (Error){0};
        ck_assert_int_eq(huff_decode(c.stream, 1, bad[i], 3, out, 3, &error), ONNXPRESS_FORMAT);
    }
}
END_TEST

/* --- Wavelet blocks --- */

/* What standard tensor ops do (FORMAT.md), written with their own definitions: cumulative sums, a
 * concatenation, a gather that takes negative indices from the end. */
static void tensor_op_decode(const WaveletBlock *b, uint16_t *symbol)
{
    size_t n = b->n_tuples;
    int32_t *leaf = calloc(n, sizeof *leaf), *x = calloc(n, sizeof *x), *y = calloc(n, sizeof *y);
    uint8_t *bits = calloc(b->stream_bytes, 8);
    for (size_t i = 0; i < b->stream_bytes * 8; i++)
        bits[i] = b->stream[i / 8] >> (7 - i % 8) & 1;
    for (size_t r = 0, at = 0; r < b->n_runs; r++)
        for (size_t i = 0; i < b->run[r]; i++)
            leaf[at++] = (int32_t)r;
    size_t tail_at = b->tail[0], have = b->tail[0], end = 0;
    for (int l = 0; l < b->levels; l++)
        end += b->level_bits[l];
    memcpy(x, leaf, have * sizeof *x);
    for (int step = 0; step < b->levels; step++) {
        size_t m = b->level_bits[b->levels - 1 - step], tail = b->tail[step + 1];
        ck_assert_uint_eq(have + tail, m);
        memcpy(y, x, have * sizeof *y); /* Concat */
        memcpy(y + have, leaf + tail_at, tail * sizeof *y);
        int32_t ones = 0, zeros = 0; /* CumSum, CumSum(exclusive) */
        bool inside = true;
        for (size_t i = 0; i < m; i++) {
            int bit = bits[end - m + i];
            ones += bit;
            int32_t index = bit ? -ones : zeros; /* Where */
            zeros += !bit;
            inside = inside && index < (int32_t)m && index >= -(int32_t)m;
            x[i] = y[index < 0 ? index + (int32_t)m : index]; /* Gather */
        }
        ck_assert(inside);
        end -= m;
        tail_at += tail;
        have = m;
    }
    ck_assert_uint_eq(have, n);
    for (size_t i = 0; i < b->n; i++)
        symbol[i] =
            b->table[(size_t)x[i / (size_t)b->tuple] * (size_t)b->tuple + i % (size_t)b->tuple];
    free(leaf);
    free(x);
    free(y);
    free(bits);
}

static size_t distinct_tuples(const uint16_t *symbol, size_t n, size_t tuple)
{
    size_t distinct = 0, whole = n / tuple;
    for (size_t i = 0; i < whole; i++) {
        size_t j = 0;
        while (j < i && memcmp(symbol + i * tuple, symbol + j * tuple, 2 * tuple))
            j++;
        distinct += j == i;
    }
    return distinct;
}

START_TEST(wavelet_returns_its_symbols)
{
    static uint16_t symbol[5000], out[5000];
    int empty_tails = 0, padded = 0;
    for (int round = 0; round < 400; round++) {
        int tuple = 1 + (int)below(WAVELET_MAX_TUPLE);
        uint64_t n = (uint64_t)tuple + 1 + below(below(2) ? 60 : 4900);
        uint32_t alphabet = 1 + below(1u << below(9)), skew = 1 + below(95);
        uint16_t base = below(4) ? 0 : (uint16_t)(65536 - alphabet);
        for (size_t i = 0; i < n; i++)
            symbol[i] = (uint16_t)(base + skewed(alphabet, skew));
        int limit = 13 + (int)below(8); /* 5,000 tuples fit 13 bits */
        WaveletBlock block;
        ck_assert_int_eq(wavelet_encode(symbol, n, tuple, limit, arena, &block, &error), 0);
        ck_assert_int_le(block.levels, limit);
        ck_assert_uint_eq(block.n, n);
        memset(out, 0xA5, sizeof out);
        ck_assert_int_eq(wavelet_decode(&block, out, &error), 0);
        ck_assert_mem_eq(out, symbol, n * sizeof *out);
        memset(out, 0xA5, sizeof out);
        tensor_op_decode(&block, out);
        ck_assert_mem_eq(out, symbol, n * sizeof *out);
        for (int l = 0; l <= block.levels; l++)
            empty_tails += block.tail[l] == 0;
        padded += n % (uint64_t)tuple != 0;
        arena_destroy(arena);
        arena = arena_create();
    }
    ck_assert_int_gt(empty_tails, 0);
    ck_assert_int_gt(padded, 50);
}
END_TEST

START_TEST(wavelet_costs_what_huffman_costs)
{
    static uint16_t symbol[4000];
    for (int round = 0; round < 100; round++) {
        uint64_t n = 2 + below(3999), count[64] = {0};
        uint32_t alphabet = 2 + below(62);
        for (size_t i = 0; i < n; i++)
            count[symbol[i] = skewed(alphabet, 30)]++;
        uint8_t length[64];
        int limit = 6 + (int)below(10);
        WaveletBlock block;
        ck_assert_int_eq(huff_lengths(count, 64, limit, length, arena, &error), 0);
        ck_assert_int_eq(wavelet_encode(symbol, n, 1, limit, arena, &block, &error), 0);
        ck_assert_uint_eq(block.stream_bytes, (total_bits(count, length, 64) + 7) / 8);
        size_t used = 0;
        for (size_t i = 0; i < 64; i++)
            used += count[i] > 0;
        ck_assert_uint_eq(block.n_runs, used > 1 ? used : 2);
    }
}
END_TEST

START_TEST(padding_takes_a_frequent_tuple)
{
    /* (1,2,3) twice, (1,2,4) thrice, (1,2): completed to (1,2,4), no new leaf. */
    static const uint16_t symbol[17] = {1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 4, 1, 2, 4, 1, 2};
    WaveletBlock block;
    ck_assert_int_eq(wavelet_encode(symbol, 17, 3, 16, arena, &block, &error), 0);
    ck_assert_uint_eq(block.n_runs, 2);
    ck_assert_uint_eq(block.run[0], 2);
    ck_assert_uint_eq(block.run[1], 4);
    /* Of equally frequent ones the smallest. */
    static const uint16_t tie[9] = {4, 3, 4, 2, 4, 2, 4, 3, 4};
    ck_assert_int_eq(wavelet_encode(tie, 9, 2, 16, arena, &block, &error), 0);
    ck_assert_uint_eq(block.n_runs, 2);
    ck_assert_uint_eq(block.table[1], 2);
    ck_assert_uint_eq(block.run[0], 3);
    /* (1,2,3) and then (5): no tuple begins with 5, so zeros follow. */
    static const uint16_t odd[7] = {1, 2, 3, 1, 2, 3, 5};
    ck_assert_int_eq(wavelet_encode(odd, 7, 3, 16, arena, &block, &error), 0);
    ck_assert_uint_eq(block.n_runs, 2);
    ck_assert_uint_eq(block.table[3], 5);
    ck_assert_uint_eq(block.table[4], 0);
    ck_assert_uint_eq(block.table[5], 0);
}
END_TEST

START_TEST(long_runs_are_split)
{
    size_t n = 400000;
    uint16_t *symbol = calloc(n, sizeof *symbol), *out = calloc(n, sizeof *out);
    for (int kind = 0; kind < 3; kind++) { /* one symbol, one and a rare one, two equal halves */
        for (size_t i = 0; i < n; i++)
            symbol[i] = (uint16_t)(kind == 0 ? 9 : kind == 1 ? (below(1000) ? 9 : 700) : below(2));
        for (int tuple = 1; tuple <= 4; tuple += 3) {
            WaveletBlock block;
            ck_assert_int_eq(wavelet_encode(symbol, n, tuple, 20, arena, &block, &error), 0);
            uint64_t members = 0;
            for (size_t r = 0; r < block.n_runs; r++)
                members += block.run[r];
            ck_assert_uint_eq(members, block.n_tuples);
            ck_assert_uint_gt(block.tail[0], 0);
            ck_assert_uint_gt(block.tail[1], 0);
            ck_assert_int_eq(wavelet_decode(&block, out, &error), 0);
            ck_assert_mem_eq(out, symbol, n * sizeof *out);
            memset(out, 0xA5, n * sizeof *out);
            tensor_op_decode(&block, out);
            ck_assert_mem_eq(out, symbol, n * sizeof *out);
        }
    }
    free(symbol);
    free(out);
}
END_TEST

START_TEST(wavelet_encode_says_what_does_not_fit)
{
    uint16_t symbol[16];
    for (size_t i = 0; i < 16; i++)
        symbol[i] = (uint16_t)i;
    static const struct {
        uint64_t n;
        int tuple, limit;
    } bad[] = {{0, 1, 8},
               {1, 1, 8},
               {2, 2, 8},
               {4, 4, 8},
               {3, 3, 8},
               {16, 0, 8},
               {16, 5, 8},
               {16, 1, 3},
               {16, 1, 0},
               {16, 1, 21},
               {(uint64_t)1 << 40, 1, 8}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        WaveletBlock block;
        error = (Error){0};
        ck_assert_int_eq(
            wavelet_encode(symbol, bad[i].n, bad[i].tuple, bad[i].limit, arena, &block, &error),
            ONNXPRESS_USAGE);
        ck_assert_uint_gt(strlen(error.message), 0);
    }
}
END_TEST

/* A block whose arrays are exactly as long as it says, in malloc'ed memory that a sanitizer guards.
 */
typedef struct {
    WaveletBlock block;
    uint16_t *run, *table;
    uint64_t *level_bits, *tail;
    uint8_t *stream;
} Guarded;

static void *copy_of(const void *data, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, data, bytes);
    return copy;
}

static Guarded guard(const WaveletBlock *b)
{
    Guarded g = {.block = *b};
    g.block.run = g.run = copy_of(b->run, b->n_runs * 2);
    g.block.table = g.table = copy_of(b->table, b->n_runs * (size_t)b->tuple * 2);
    g.block.level_bits = g.level_bits = copy_of(b->level_bits, (size_t)b->levels * 8);
    g.block.tail = g.tail = copy_of(b->tail, (size_t)(b->levels + 1) * 8);
    g.block.stream = g.stream = copy_of(b->stream, b->stream_bytes);
    return g;
}

static void unguard(Guarded *g)
{
    free(g->run);
    free(g->table);
    free(g->level_bits);
    free(g->tail);
    free(g->stream);
}

static uint64_t damaged(uint64_t value)
{
    switch (below(5)) {
    case 0:
        return value + 1;
    case 1:
        return value - 1;
    case 2:
        return value ^ (uint64_t)1 << below(64);
    case 3:
        return 0;
    default:
        return UINT64_MAX - below(100);
    }
}

START_TEST(wavelet_decode_refuses_damage)
{
    uint16_t symbol[997], out[997];
    int refused = 0;
    for (int round = 0; round < 4000; round++) {
        if (round % 100 == 0) {
            arena_destroy(arena);
            arena = arena_create();
        }
        int tuple = 1 + round % 4;
        for (size_t i = 0; i < 997; i++)
            symbol[i] = skewed(12, 35);
        WaveletBlock block;
        ck_assert_int_eq(wavelet_encode(symbol, 997, tuple, 12, arena, &block, &error), 0);
        Guarded g = guard(&block);
        WaveletBlock *b = &g.block;
        bool must_refuse = true;
        uint32_t where = below(11);
        /* The arrays stay as long as the sound block says where a field only shrinks or is refused
         * before use: a decoder can check fields against each other, not against malloc. */
        switch (where) {
        case 0:
            b->tuple = b->tuple % 4 + 1 == tuple ? 0 : (int)below(2) * 5;
            break;
        case 1:
            b->levels = below(2) ? 0 : (below(2) ? -1 : WAVELET_MAX_LEVELS + 1);
            break;
        case 2:
            b->n_tuples = damaged(b->n_tuples);
            must_refuse = b->n_tuples != block.n_tuples;
            break;
        case 3:
            b->n_runs = below((uint32_t)block.n_runs);
            break;
        case 4: {
            size_t at = below((uint32_t)b->n_runs);
            uint16_t old = g.run[at];
            g.run[at] = (uint16_t)damaged(old);
            must_refuse = g.run[at] != old;
            break;
        }
        case 5: {
            size_t at = below((uint32_t)b->levels);
            uint64_t old = g.level_bits[at];
            g.level_bits[at] = damaged(old);
            must_refuse = g.level_bits[at] != old;
            break;
        }
        case 6: {
            size_t at = below((uint32_t)b->levels + 1);
            uint64_t old = g.tail[at];
            g.tail[at] = damaged(old);
            must_refuse = g.tail[at] != old;
            break;
        }
        case 7:
            b->stream_bytes = below((uint32_t)block.stream_bytes);
            break;
        case 8: /* any bits decode to something, except padding that is not zero */
            g.stream[below((uint32_t)b->stream_bytes)] ^= (uint8_t)(1u << below(8));
            must_refuse = false;
            break;
        case 9:
            g.table[below((uint32_t)b->n_runs * (uint32_t)tuple)] ^= (uint16_t)(1u << below(16));
            must_refuse = false;
            break;
        default: /* never more symbols than the caller has room for */
            b->n = block.n + (uint64_t)tuple + below(100);
            break;
        }
        error = (Error){0};
        int status = wavelet_decode(b, out, &error);
        ck_assert(status == 0 || status == ONNXPRESS_FORMAT);
        if (must_refuse)
            ck_assert_msg(status == ONNXPRESS_FORMAT, "field %u", where);
        refused += status != 0;
        unguard(&g);
        error = (Error){0};
    }
    ck_assert_int_gt(refused, 2500);
}
END_TEST

START_TEST(wavelet_decode_refuses_missing_parts)
{
    const uint16_t symbol[6] = {1, 2, 1, 3, 1, 1};
    uint16_t out[6];
    WaveletBlock block;
    ck_assert_int_eq(wavelet_encode(symbol, 6, 1, 8, arena, &block, &error), 0);
    for (int part = 0; part < 5; part++) {
        WaveletBlock b = block;
        if (part == 0)
            b.run = NULL;
        if (part == 1)
            b.table = NULL;
        if (part == 2)
            b.level_bits = NULL;
        if (part == 3)
            b.tail = NULL;
        if (part == 4)
            b.stream = NULL;
        error = (Error){0};
        ck_assert_int_eq(wavelet_decode(&b, out, &error), ONNXPRESS_FORMAT);
    }
}
END_TEST

/* Numbers that agree with one another only modulo 2^64, and what no encoder writes. */
START_TEST(wavelet_decode_refuses_craft)
{
    static const uint16_t run[2] = {2, 2}, with_empty[3] = {2, 0, 2}, table[3] = {1, 2, 3};
    static const uint64_t bits[2] = {4, UINT64_MAX}, tail[3] = {1, UINT64_MAX - 1, 5};
    static const uint64_t flat_bits[1] = {4}, flat_tail[2] = {2, 2};
    static const uint8_t stream[1] = {0x40}, padded[1] = {0x41};
    uint16_t out[4];
    WaveletBlock sound = {1, 1, 4, 4, 2, run, table, flat_bits, flat_tail, stream, 1};
    ck_assert_int_eq(wavelet_decode(&sound, out, &error), 0);
    WaveletBlock wrapped = {1, 2, 4, 4, 2, run, table, bits, tail, stream, 1};
    ck_assert_int_eq(wavelet_decode(&wrapped, out, &error), ONNXPRESS_FORMAT);
    WaveletBlock empty_run = sound;
    empty_run.run = with_empty;
    empty_run.n_runs = 3;
    error = (Error){0};
    ck_assert_int_eq(wavelet_decode(&empty_run, out, &error), ONNXPRESS_FORMAT);
    WaveletBlock padding = sound;
    padding.stream = padded;
    error = (Error){0};
    ck_assert_int_eq(wavelet_decode(&padding, out, &error), ONNXPRESS_FORMAT);
}
END_TEST

/* --- The choice --- */

START_TEST(choice_is_what_encoding_gives)
{
    static uint16_t symbol[5000];
    int tuples_chosen[5] = {0};
    for (int round = 0; round < 40; round++) {
        uint64_t n = 2 + below(round < 15 ? 30 : 2999);
        uint32_t alphabet = 1 + below(40), skew = 1 + below(98);
        int largest = 0;
        for (size_t i = 0; i < n; i++) {
            symbol[i] = skewed(alphabet, skew);
            largest = symbol[i] > largest ? symbol[i] : largest;
        }
        int tuple, limit;
        uint64_t bytes, least = UINT64_MAX;
        ck_assert_int_eq(
            wavelet_choose(symbol, n, largest + 1, arena, &tuple, &limit, &bytes, &error), 0);
        WaveletBlock block;
        ck_assert_int_eq(wavelet_encode(symbol, n, tuple, limit, arena, &block, &error), 0);
        ck_assert_uint_eq(wavelet_bytes(&block), bytes);
        tuples_chosen[tuple]++;
        for (int t = 1; t <= 4 && n > (uint64_t)t; t++) {
            uint64_t sensible = n / 8 > 64 ? n / 8 : 64;
            if (t > 1 && distinct_tuples(symbol, n, (size_t)t) + 1 > sensible)
                continue;
            for (int l = 1; l <= WAVELET_MAX_LEVELS; l++) {
                Error ignored = {0};
                if (!wavelet_encode(symbol, n, t, l, arena, &block, &ignored) &&
                    wavelet_bytes(&block) < least)
                    least = wavelet_bytes(&block);
            }
        }
        ck_assert_uint_le(bytes, least);
        arena_destroy(arena);
        arena = arena_create();
    }
    ck_assert_int_gt(tuples_chosen[1], 0);
    ck_assert_int_gt(tuples_chosen[2] + tuples_chosen[3] + tuples_chosen[4], 0);
    int tuple, limit;
    uint64_t bytes;
    ck_assert_int_eq(wavelet_choose(symbol, 1, 9, arena, &tuple, &limit, &bytes, &error),
                     ONNXPRESS_USAGE);
    error = (Error){0};
    symbol[0] = 9;
    ck_assert_int_eq(wavelet_choose(symbol, 5, 9, arena, &tuple, &limit, &bytes, &error),
                     ONNXPRESS_USAGE);
}
END_TEST

START_TEST(choice_is_best_where_tables_are_cheap)
{
    size_t n = 40000;
    uint16_t *symbol = calloc(n, sizeof *symbol);
    int tuples_chosen[5] = {0};
    for (uint32_t skew = 30; skew < 95; skew += 4) {
        for (size_t i = 0; i < n; i++)
            symbol[i] = skewed(5, skew);
        int tuple, limit;
        uint64_t bytes, least = UINT64_MAX;
        ck_assert_int_eq(wavelet_choose(symbol, n, 5, arena, &tuple, &limit, &bytes, &error), 0);
        for (int t = 1; t <= 4; t++)
            for (int l = limit - 2; l <= limit + 2; l++) {
                Error ignored = {0};
                WaveletBlock block;
                if (l >= 1 && !wavelet_encode(symbol, n, t, l, arena, &block, &ignored) &&
                    wavelet_bytes(&block) < least)
                    least = wavelet_bytes(&block);
            }
        ck_assert_uint_le(bytes, least);
        tuples_chosen[tuple]++;
    }
    ck_assert_int_gt(tuples_chosen[2], 0);
    ck_assert_int_gt(tuples_chosen[3], 0);
    ck_assert_int_gt(tuples_chosen[4], 0);
    free(symbol);
}
END_TEST

START_TEST(large_alphabets_work)
{
    size_t n = 200000;
    uint16_t *symbol = calloc(n, sizeof *symbol), *out = calloc(n, sizeof *out);
    for (size_t i = 0; i < n; i++)
        symbol[i] = (uint16_t)below(65536);
    int tuple, limit;
    uint64_t bytes;
    ck_assert_int_eq(wavelet_choose(symbol, n, 65536, arena, &tuple, &limit, &bytes, &error), 0);
    ck_assert_int_eq(tuple, 1);
    for (tuple = 1; tuple <= 4; tuple++) {
        WaveletBlock block;
        ck_assert_int_eq(wavelet_encode(symbol, n, tuple, 20, arena, &block, &error), 0);
        ck_assert_int_eq(wavelet_decode(&block, out, &error), 0);
        ck_assert_mem_eq(out, symbol, n * sizeof *out);
    }
    free(symbol);
    free(out);
}
END_TEST

/* --- FORMAT.md --- */

/* The vectors of src/entropy/FORMAT.md; a change here is a change of the format. */
typedef struct {
    uint64_t n, n_runs;
    int tuple, levels;
    uint16_t symbol[13], run[5], table[6];
    uint64_t level_bits[3], tail[4];
    uint64_t stream_bytes;
    uint8_t stream[3];
    uint32_t crc;
} FormatVector;

static const FormatVector format_vectors[] = {
    {11,
     5,
     1,
     3,
     {0, 1, 4, 0, 2, 0, 3, 0, 1, 4, 0},
     {2, 1, 1, 2, 5},
     {1, 2, 3, 4, 0},
     {11, 6, 6},
     {2, 4, 0, 5},
     3,
     {0x95, 0x26, 0x2C},
     0xF59F4CCE},
    {13,
     3,
     2,
     2,
     {3, 3, 3, 5, 3, 3, 5, 3, 3, 3, 3, 5, 3},
     {2, 1, 4},
     {3, 5, 5, 3, 3, 3},
     {7, 3},
     {2, 1, 4},
     2,
     {0xAA, 0x80},
     0xF889C5BC},
    {8,
     4,
     1,
     2,
     {0, 1, 2, 3, 3, 2, 1, 0},
     {2, 2, 2, 2},
     {0, 1, 2, 3},
     {8, 8},
     {2, 6, 0},
     2,
     {0x66, 0x66},
     0xD6AF1AB3},
    {5, 2, 1, 1, {7, 7, 7, 7, 7}, {1, 4}, {7, 7}, {5}, {1, 4}, 1, {0x78}, 0x8CDC1683},
};

START_TEST(format_vectors_hold)
{
    for (size_t v = 0; v < sizeof format_vectors / sizeof *format_vectors; v++) {
        const FormatVector *f = &format_vectors[v];
        WaveletBlock b;
        ck_assert_int_eq(wavelet_encode(f->symbol, f->n, f->tuple, 20, arena, &b, &error), 0);
        ck_assert_int_eq(b.levels, f->levels);
        ck_assert_uint_eq(b.n_runs, f->n_runs);
        ck_assert_uint_eq(b.stream_bytes, f->stream_bytes);
        ck_assert_mem_eq(b.run, f->run, f->n_runs * sizeof *b.run);
        ck_assert_mem_eq(b.table, f->table, f->n_runs * (size_t)f->tuple * sizeof *b.table);
        ck_assert_mem_eq(b.level_bits, f->level_bits, (size_t)f->levels * sizeof *b.level_bits);
        ck_assert_mem_eq(b.tail, f->tail, (size_t)(f->levels + 1) * sizeof *b.tail);
        ck_assert_mem_eq(b.stream, f->stream, f->stream_bytes);
        ck_assert_uint_eq(entropy_crc32(b.stream, b.stream_bytes), f->crc);
        uint16_t out[13];
        ck_assert_int_eq(wavelet_decode(&b, out, &error), 0);
        ck_assert_mem_eq(out, f->symbol, f->n * sizeof *out);
    }
    ck_assert_uint_eq(entropy_crc32("123456789", 9), 0xCBF43926);
    ck_assert_uint_eq(entropy_crc32("", 0), 0);

    static const uint64_t count[5] = {5, 2, 1, 1, 2};
    static const uint8_t paper[3] = {0x4E, 0xAC, 0x9C};
    uint8_t length[5], stream[3];
    uint32_t code[5];
    ck_assert_int_eq(huff_lengths(count, 5, 20, length, arena, &error), 0);
    huff_canonical(length, 5, code);
    ck_assert_uint_eq(huff_stream_bytes(count, length, 5), 3);
    huff_encode(format_vectors[0].symbol, 11, length, code, stream);
    ck_assert_mem_eq(stream, paper, 3);

    PaperCount counted;
    ck_assert_int_eq(
        paper_count(format_vectors[0].symbol, 11, 5, -1, arena, &counted, &error), 0);
    ck_assert_double_eq(counted.value_bits + counted.table_bits, 196);
    ck_assert_double_eq(counted.fixed_bits, 11 * 3 + 5 * 32);
    ck_assert_int_eq(
        paper_count(format_vectors[0].symbol, 11, 5, 0, arena, &counted, &error), 0);
    ck_assert_double_eq(counted.position_bits, 6); /* 2 1 2 2 2 1 */
    ck_assert_double_eq(counted.value_bits, 12);
    ck_assert_double_eq(counted.table_bits, 8 + 4 * 32 + 2 + 2 * 8);
    ck_assert_double_eq(counted.fixed_bits, 6 * 2 + 6 + 4 * 32 + 2 + 2 * 8);
}
END_TEST

/* Differences beyond what a byte holds, the ends, and sequences without any survivor. */
START_TEST(paper_count_of_long_gaps)
{
    static uint16_t symbol[2000];
    PaperCount counted;
    memset(symbol, 0, sizeof symbol);
    ck_assert_int_eq(paper_count(symbol, 2000, 3, 0, arena, &counted, &error), 0);
    ck_assert_double_eq(counted.position_bits + counted.value_bits + counted.table_bits, 0);
    symbol[254] = 2;  /* 255 */
    symbol[510] = 2;  /* 256 = 255 + 1 */
    symbol[1530] = 1; /* 1020 = 3 * 255 + 255 */
    ck_assert_int_eq(paper_count(symbol, 2000, 3, 0, arena, &counted, &error), 0);
    /* Codewords: four of 0 (1 bit), two of 255 and one of 1 (2 bits each). */
    ck_assert_double_eq(counted.position_bits, 4 + 4 + 2);
    ck_assert_double_eq(counted.value_bits, 3);
    ck_assert_double_eq(counted.table_bits, 2 + 2 * 32 + 5 + 3 * 8);
    ck_assert_uint_eq(counted.values, 3);
    ck_assert_uint_eq(counted.levels, 2);
}
END_TEST

static Suite *entropy_suite(void)
{
    Suite *suite = suite_create("entropy");
    const struct {
        const char *name;
        const TTest *tests[9]; /* up to the first NULL */
    } cases[] = {
        {"huffman",
         {huffman_is_optimal, limited_lengths_are_optimal, fibonacci_counts_meet_the_limit,
          canonical_codes_are_prefix_free_and_ordered, huffman_stream_returns_its_symbols,
          huffman_stream_survives_damage}},
        {"wavelet",
         {wavelet_returns_its_symbols, wavelet_costs_what_huffman_costs,
          padding_takes_a_frequent_tuple, long_runs_are_split,
          wavelet_encode_says_what_does_not_fit, wavelet_decode_refuses_damage,
          wavelet_decode_refuses_missing_parts, wavelet_decode_refuses_craft}},
        {"choice",
         {choice_is_what_encoding_gives, choice_is_best_where_tables_are_cheap,
          large_alphabets_work}},
        {"format", {format_vectors_hold, paper_count_of_long_gaps}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        TCase *tcase = tcase_create(cases[c].name);
        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, setup, teardown);
        for (size_t t = 0; cases[c].tests[t]; t++)
            tcase_add_test(tcase, cases[c].tests[t]);
        suite_add_tcase(suite, tcase);
    }
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(entropy_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
