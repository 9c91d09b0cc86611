/* SPDX-License-Identifier: Apache-2.0
 *
 * The products of product.c at every vector width that this processor has, against plain loops.
 * Values are small whole numbers, so that any order of sums gives the same and equality is exact. */
#include "ops/product.c" /* its kernels are static */

#include <check.h>
#include <stdlib.h>

typedef struct {
    const char *name;
    void (*rows)(const RowsProduct *product);
    void (*dots)(const DotsProduct *product);
    bool there;
} Width;

static Width widths[5];
static uint64_t state;

static void setup(void)
{
    int n = 0;
    state = 7;
    widths[n++] = (Width){"16 bytes", rows_plain, dots_plain, true};
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    widths[n++] = (Width){"AVX2", rows_avx2, dots_avx2, avx2};
    widths[n++] = (Width){"AVX-512", rows_avx512, dots_avx512, __builtin_cpu_supports("avx512f")};
#endif
    widths[n++] = (Width){"the chosen one", product_rows, product_dots, true};
}

static int64_t below(int64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}

/* Exactly as large as asked for, so that sanitizers see an element too many. */
static real *make(int64_t count)
{
    real *data = malloc((size_t)count * sizeof *data);
    ck_assert_ptr_nonnull(data);
    for (int64_t i = 0; i < count; i++)
        data[i] = (real)(below(17) - 8);
    return data;
}

static int64_t *table(int64_t count, int64_t step)
{
    int64_t *offsets = malloc((size_t)count * sizeof *offsets);
    ck_assert_ptr_nonnull(offsets);
    for (int64_t i = 0; i < count; i++)
        offsets[i] = i * step;
    return offsets;
}

static void check_same(const Width *width, const real *got, const double *expected, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        ck_assert_msg(isnan(expected[i]) ? isnan(got[i]) : (double)got[i] == expected[i],
                      "%s: element %lld is %g, not %g", width->name, (long long)i, (double)got[i],
                      expected[i]);
}

/* With `bad`, a number that is none is among a's and b's; what lies after b's rows never counts. */
static void check_rows(const Width *width, int64_t rows, int64_t taps, int64_t n, bool bad)
{
    int64_t out_step = n + 3, reach = (taps - 1) * 5 + n;
    real *a = make(rows * taps), *b = make(reach + PRODUCT_SLACK), *start = make(rows);
    real *out = make(rows * out_step);
    int64_t *a_row = table(rows, taps), *a_tap = table(taps, 1), *b_tap = table(taps, 5);
    double *expected = calloc((size_t)(rows * out_step), sizeof *expected);
    ck_assert_ptr_nonnull(expected);
    for (int64_t i = 0; i < PRODUCT_SLACK; i++)
        b[reach + i] = NAN;
    if (bad)
        a[below(rows * taps)] = NAN, b[below(reach)] = (real)-INFINITY;
    const real *from = below(2) ? start : NULL;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < out_step; p++) {
            double sum = p < n ? from ? (double)from[i] : 0 : (double)out[i * out_step + p];
            for (int64_t t = 0; p < n && t < taps; t++)
                sum += (double)a[a_row[i] + a_tap[t]] * (double)b[b_tap[t] + p];
            expected[i * out_step + p] = sum;
        }
    width->rows(&(RowsProduct){rows, taps, n, a, a_row, a_tap, b, b_tap, from, out, out_step});
    check_same(width, out, expected, rows * out_step);
    free(a), free(b), free(start), free(out);
    free(a_row), free(a_tap), free(b_tap), free(expected);
}

static void check_dots(const Width *width, int64_t rows, int64_t taps, int64_t n, bool bad)
{
    int64_t samples = 1 + below(3), reach = (taps - 1) * 5 + n + PRODUCT_SLACK;
    int64_t a_row = n + PRODUCT_SLACK, a_sample = rows * a_row;
    real *a = make(samples * a_sample), *b = make(samples * reach), *out = make(rows * taps);
    int64_t *b_tap = table(taps, 5);
    double *expected = calloc((size_t)(rows * taps), sizeof *expected);
    ck_assert_ptr_nonnull(expected);
    for (int64_t row = 0; row < samples * rows; row++)
        memset(a + row * a_row + n, 0, PRODUCT_SLACK * sizeof *a);
    if (bad)
        a[below(rows) * a_row + below(n)] = NAN;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t t = 0; t < taps; t++) {
            double sum = (double)out[i * taps + t];
            for (int64_t s = 0; s < samples; s++)
                for (int64_t p = 0; p < n; p++)
                    sum += (double)a[s * a_sample + i * a_row + p] *
                           (double)b[s * reach + b_tap[t] + p];
            expected[i * taps + t] = sum;
        }
    width->dots(
        &(DotsProduct){rows, taps, n, samples, a, a_row, a_sample, b, b_tap, reach, out});
    check_same(width, out, expected, rows * taps);
    free(a), free(b), free(out), free(b_tap), free(expected);
}

/* Every count of rows that panels share out differently, and tails of every length. */
static void check_sizes(void (*check)(const Width *, int64_t, int64_t, int64_t, bool))
{
    static const int64_t lengths[] = {15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 129};
    for (const Width *width = widths; width->name; width++) {
        if (!width->there)
            continue;
        for (int64_t rows = 1; rows <= 18; rows++)
            check(width, rows, 1 + below(13), 1 + below(70), rows % 3 == 0);
        for (int64_t taps = 1; taps <= 14; taps++)
            check(width, 1 + below(7), taps, 1 + below(70), taps % 3 == 0);
        for (int64_t n = 1; n < 15; n++)
            check(width, 1 + below(7), 1 + below(9), n, n % 3 == 0);
        for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++)
            check(width, 1 + below(7), 1 + below(9), lengths[k], k % 3 == 0);
    }
}

START_TEST(rows_are_sums)
{
    check_sizes(check_rows);
}
END_TEST

START_TEST(dots_are_sums)
{
    check_sizes(check_dots);
}
END_TEST

START_TEST(nothing_is_written_for_nothing)
{
    real a[1] = {2}, b[1 + PRODUCT_SLACK] = {3}, out[1] = {5};
    int64_t zero[1] = {0};
    for (const Width *width = widths; width->name; width++) {
        if (!width->there)
            continue;
        width->rows(&(RowsProduct){0, 1, 1, a, zero, zero, b, zero, NULL, out, 1});
        width->rows(&(RowsProduct){1, 1, 0, a, zero, zero, b, zero, NULL, out, 1});
        width->dots(&(DotsProduct){0, 1, 1, 1, a, 1, 1, b, zero, 1, out});
        width->dots(&(DotsProduct){1, 1, 0, 1, a, 1, 1, b, zero, 1, out});
        width->dots(&(DotsProduct){1, 1, 1, 0, a, 1, 1, b, zero, 1, out});
        ck_assert(out[0] == 5);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("product");
    TCase *kernels = tcase_create("kernels");
    tcase_add_checked_fixture(kernels, setup, NULL);
    tcase_add_test(kernels, rows_are_sums);
    tcase_add_test(kernels, dots_are_sums);
    tcase_add_test(kernels, nothing_is_written_for_nothing);
    tcase_set_timeout(kernels, 60);
    suite_add_tcase(suite, kernels);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
