/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
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

/* Of exactly n elements on the heap, so that the sanitizer sees a step beyond either end. */
static uint16_t *exactly(uint64_t n)
{
    uint16_t *data = malloc(n ? n * sizeof *data : 1);
    ck_assert_ptr_nonnull(data);
    return data;
}

static void sparse(uint16_t *symbol, uint64_t n, uint32_t alphabet, uint16_t skipped,
                   uint32_t percent)
{
    for (uint64_t i = 0; i < n; i++)
        symbol[i] = below(100) < percent ? skipped : (uint16_t)below(alphabet);
}

/* How many pairs there must be, by another way of counting: stretch by stretch. */
static uint64_t pairs_expected(const uint16_t *symbol, uint64_t n, uint16_t skipped, uint64_t limit)
{
    uint64_t pairs = 0, stretch = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (symbol[i] == skipped) {
            stretch++;
            continue;
        }
        pairs += stretch / (limit + 1) + 1;
        stretch = 0;
    }
    return pairs + stretch / (limit + 1) + (stretch % (limit + 1) != 0);
}

static void assert_returns(const uint16_t *symbol, uint64_t n, uint16_t skipped, int limit)
{
    uint64_t pairs = gaps_split(symbol, n, skipped, limit, NULL), covered = 0;
    ck_assert_uint_eq(pairs, pairs_expected(symbol, n, skipped, (uint64_t)limit));
    uint16_t *pair = exactly(2 * pairs), *joined = exactly(n);
    ck_assert_uint_eq(gaps_split(symbol, n, skipped, limit, pair), pairs);
    for (uint64_t i = 0; i < pairs; i++) {
        if (pair[2 * i] > limit)
            ck_abort_msg("a gap of %d over the limit %d", pair[2 * i], limit);
        /* A skipped symbol ends a pair only where the limit or the sequence does. */
        if (pair[2 * i + 1] == skipped && pair[2 * i] < limit && i + 1 < pairs)
            ck_abort_msg("a gap of %d ends early", pair[2 * i]);
        covered += pair[2 * i] + 1u;
    }
    ck_assert_uint_eq(covered, n);
    ck_assert_int_eq(gaps_join(pair, pairs, skipped, joined, n, &error), ONNXPRESS_OK);
    ck_assert_mem_eq(joined, symbol, n * sizeof *symbol);
    free(pair);
    free(joined);
}

START_TEST(join_undoes_split)
{
    static const uint32_t percents[] = {0, 10, 50, 80, 90, 97, 99, 100};
    for (size_t p = 0; p < sizeof percents / sizeof percents[0]; p++)
        for (int round = 0; round < 300; round++) {
            uint64_t n = 2 + below(round % 3 ? 60 : 3000);
            uint32_t alphabet = 1 + below(round % 2 ? 5 : 65536);
            uint16_t skipped = (uint16_t)below(alphabet), *symbol = exactly(n);
            sparse(symbol, n, alphabet, skipped, percents[p]);
            assert_returns(symbol, n, skipped, 1 + (int)below(GAPS_MAX_LIMIT));
            free(symbol);
        }
}
END_TEST

START_TEST(every_limit_works)
{
    uint16_t *symbol = exactly(2500);
    for (int limit = 1; limit <= GAPS_MAX_LIMIT; limit++) {
        sparse(symbol, 2500, 17, 8, 92);
        memset(symbol + 1000, 0, 700 * sizeof *symbol); /* a stretch beyond every limit */
        assert_returns(symbol, 2500, 8, limit);
        assert_returns(symbol, 2500, 0, limit);
        assert_returns(symbol, 2500, 40, limit); /* of which there is none */
    }
    free(symbol);
}
END_TEST

/* Stretches of every length around multiples of limit + 1: at the end, at the beginning before
 * another symbol, and alone. */
START_TEST(stretches_around_the_limit)
{
    static const int limits[] = {1, 2, 3, 7, 15, 31, 63, 127, GAPS_MAX_LIMIT};
    for (size_t k = 0; k < sizeof limits / sizeof limits[0]; k++)
        for (uint64_t length = 0; length <= 3 * ((uint64_t)limits[k] + 1) + 2; length++) {
            uint64_t n = length + 2;
            uint16_t *symbol = exactly(n);
            memset(symbol, 0, n * sizeof *symbol);
            assert_returns(symbol, n, 0, limits[k]); /* all skipped */
            symbol[0] = symbol[1] = 5;
            assert_returns(symbol, n, 0, limits[k]);
            symbol[0] = symbol[1] = 0;
            symbol[n - 1] = 5;
            assert_returns(symbol, n, 0, limits[k]);
            free(symbol);
        }
}
END_TEST

START_TEST(all_or_nothing_skipped)
{
    static uint16_t symbol[512], pair[1024];
    ck_assert_uint_eq(gaps_split(symbol, 512, 0, 127, pair), 4);
    for (int i = 0; i < 4; i++) {
        ck_assert_uint_eq(pair[2 * i], 127);
        ck_assert_uint_eq(pair[2 * i + 1], 0);
    }
    ck_assert_uint_eq(gaps_split(symbol, 512, 1, 127, pair), 512);
    for (int i = 0; i < 1024; i++)
        ck_assert_uint_eq(pair[i], 0);
    ck_assert_uint_eq(gaps_split(symbol, 0, 0, 127, pair), 0);
}
END_TEST

static void assert_join_refused(const uint16_t *from, uint64_t pairs, uint64_t n, const char *part)
{
    uint16_t *pair = exactly(2 * pairs), *symbol = exactly(n);
    memcpy(pair, from, 2 * pairs * sizeof *pair);
    error = (Error){0};
    ck_assert_int_eq(gaps_join(pair, pairs, 9, symbol, n, &error), ONNXPRESS_FORMAT);
    ck_assert_msg(strstr(error.message, part) != NULL, "%s", error.message);
    free(pair);
    free(symbol);
}

START_TEST(pairs_that_do_not_fit)
{
    static const uint16_t pair[] = {2, 7, 0, 8, 3, 9}; /* 3, 1 and 4 symbols */
    uint16_t symbol[8];
    ck_assert_int_eq(gaps_join(pair, 3, 9, symbol, 8, &error), ONNXPRESS_OK);
    ck_assert_mem_eq(symbol, ((uint16_t[]){9, 9, 7, 8, 9, 9, 9, 9}), sizeof symbol);
    for (uint64_t n = 0; n < 8; n++)
        assert_join_refused(pair, 3, n, "past the end");
    for (uint64_t n = 9; n < 300; n++)
        assert_join_refused(pair, 3, n, "too early");
    assert_join_refused(pair, 0, 1, "too early");
    static const uint16_t wide[] = {UINT16_MAX, 1, UINT16_MAX, 1};
    for (uint64_t n = 1; n <= UINT16_MAX; n += 4095)
        assert_join_refused(wide, 1, n, "past the end");
    assert_join_refused(wide, 2, 2 * UINT16_MAX + 1, "past the end");
    assert_join_refused(wide, 2, 2 * UINT16_MAX + 3, "too early");
}
END_TEST

START_TEST(hostile_pairs)
{
    int refused = 0, joined = 0;
    for (int round = 0; round < 20000; round++) {
        uint64_t pairs = below(12), n = below(60), sum = 0;
        uint16_t *pair = exactly(2 * pairs), *symbol = exactly(n);
        for (uint64_t i = 0; i < 2 * pairs; i++)
            pair[i] = (uint16_t)below(below(20) ? 6 : 65536);
        for (uint64_t i = 0; i < pairs; i++)
            sum += pair[2 * i] + 1u;
        if (round % 4 == 0 && sum < 60) {
            free(symbol);
            symbol = exactly(n = sum);
        }
        error = (Error){0};
        int status = gaps_join(pair, pairs, 3, symbol, n, &error);
        ck_assert_int_eq(status, sum == n ? ONNXPRESS_OK : ONNXPRESS_FORMAT);
        joined += !status;
        refused += status != 0;
        free(pair);
        free(symbol);
    }
    ck_assert_int_gt(joined, 1000);
    ck_assert_int_gt(refused, 1000);
}
END_TEST

/* For the pairs of sparse sequences and for tuples of other sizes. */
START_TEST(length_is_what_encoding_gives)
{
    static uint16_t symbol[6000], pair[12000];
    int tried[WAVELET_MAX_TUPLE + 1] = {0}, refused = 0;
    for (int round = 0; round < 120; round++) {
        uint64_t n = 2 + below(round % 3 ? 5998 : 40), bytes, least = UINT64_MAX;
        uint32_t alphabet = 1 + below(round % 10 ? 30 : 1000);
        sparse(symbol, n, alphabet, 0, below(100));
        int tuple = 1 + round / 2 % WAVELET_MAX_TUPLE, max_length;
        const uint16_t *coded = symbol;
        if (round % 2) {
            n = 2 * gaps_split(symbol, n, 0, 1 + (int)below(60), pair);
            coded = pair;
            tuple = 2;
        }
        ck_assert_int_eq(wavelet_choose_length(coded, n, tuple, arena, &max_length, &bytes, &error),
                         0);
        if (bytes == UINT64_MAX) {
            refused++;
            continue;
        }
        WaveletBlock block;
        for (int l = 1; l <= WAVELET_MAX_LEVELS; l++) {
            Error ignored = {0};
            if (wavelet_encode(coded, n, tuple, l, arena, &block, &ignored))
                continue;
            if (l == max_length)
                ck_assert_uint_eq(wavelet_bytes(&block), bytes);
            least = wavelet_bytes(&block) < least ? wavelet_bytes(&block) : least;
        }
        ck_assert_uint_eq(bytes, least); /* so that the chosen limit was one of them */
        tried[tuple]++;
        arena_destroy(arena);
        arena = arena_create();
    }
    for (int t = 1; t <= WAVELET_MAX_TUPLE; t++)
        ck_assert_int_gt(tried[t], 3);
    ck_assert_int_gt(refused, 3);
}
END_TEST

START_TEST(lengths_that_make_no_sense)
{
    static uint16_t symbol[4000];
    int max_length;
    uint64_t bytes;
    for (int tuple = 1; tuple <= WAVELET_MAX_TUPLE; tuple++)
        for (uint64_t n = 0; n <= (uint64_t)tuple; n++) {
            ck_assert_int_eq(
                wavelet_choose_length(symbol, n, tuple, arena, &max_length, &bytes, &error), 0);
            ck_assert_uint_eq(bytes, UINT64_MAX);
        }
    for (int i = 0; i < 4000; i++) /* no pair twice */
        symbol[i] = (uint16_t)i;
    ck_assert_int_eq(wavelet_choose_length(symbol, 4000, 2, arena, &max_length, &bytes, &error), 0);
    ck_assert_uint_eq(bytes, UINT64_MAX);
}
END_TEST

/* The example of src/entropy/FORMAT.md, its decoding as it is written there. */
START_TEST(format_example_holds)
{
    static const uint16_t symbol[21] = {1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1,
                                        0, 1, 1, 1, 1, 1, 1, 2, 1, 1};
    static const uint16_t pairs[14] = {2, 2, 3, 1, 2, 2, 1, 0, 3, 1, 2, 2, 1, 1};
    static const uint16_t run[4] = {1, 1, 2, 3}, table[8] = {1, 0, 1, 1, 3, 1, 2, 2};
    static const uint64_t level_bits[3] = {7, 4, 2}, tail[4] = {1, 1, 2, 3};
    static const uint8_t stream[2] = {0xA5, 0x48};
    uint16_t pair[14], out[21], decoded[14];
    ck_assert_uint_eq(gaps_split(symbol, 21, 1, 3, pair), 7);
    ck_assert_mem_eq(pair, pairs, sizeof pairs);
    WaveletBlock b;
    ck_assert_int_eq(wavelet_encode(pair, 14, 2, 20, arena, &b, &error), 0);
    ck_assert_int_eq(b.levels, 3);
    ck_assert_uint_eq(b.n_runs, 4);
    ck_assert_mem_eq(b.run, run, sizeof run);
    ck_assert_mem_eq(b.table, table, sizeof table);
    ck_assert_mem_eq(b.level_bits, level_bits, sizeof level_bits);
    ck_assert_mem_eq(b.tail, tail, sizeof tail);
    ck_assert_uint_eq(b.stream_bytes, sizeof stream);
    ck_assert_mem_eq(b.stream, stream, sizeof stream);
    ck_assert_uint_eq(entropy_crc32(b.stream, b.stream_bytes), 0xEAAE93F1);
    ck_assert_int_eq(wavelet_decode(&b, decoded, &error), 0);
    ck_assert_int_eq(gaps_join(decoded, 7, 1, out, 21, &error), 0);
    ck_assert_mem_eq(out, symbol, sizeof symbol);

    static const uint8_t leaf[7] = {3, 2, 3, 0, 2, 3, 1}, covers[4] = {2, 2, 4, 3};
    static const uint32_t at[7] = {2, 6, 9, 11, 15, 18, 20};
    uint16_t filled[21];
    uint32_t end = 0;
    for (int i = 0; i < 21; i++)
        filled[i] = 1;
    for (int i = 0; i < 7; i++) {
        ck_assert_mem_eq(table + 2 * leaf[i], decoded + 2 * i, 2 * sizeof *table);
        ck_assert_uint_eq(covers[leaf[i]], table[2 * leaf[i]] + 1);
        end += covers[leaf[i]];
        ck_assert_uint_eq(end - 1, at[i]);
        filled[end - 1] = table[2 * leaf[i] + 1];
    }
    ck_assert_mem_eq(filled, symbol, sizeof symbol);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gaps");
    TCase *tcase = tcase_create("gaps");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, join_undoes_split);
    tcase_add_test(tcase, every_limit_works);
    tcase_add_test(tcase, stretches_around_the_limit);
    tcase_add_test(tcase, all_or_nothing_skipped);
    tcase_add_test(tcase, pairs_that_do_not_fit);
    tcase_add_test(tcase, hostile_pairs);
    tcase_add_test(tcase, length_is_what_encoding_gives);
    tcase_add_test(tcase, lengths_that_make_no_sense);
    tcase_add_test(tcase, format_example_holds);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
