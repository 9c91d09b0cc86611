/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quantize/ecsq_internal.h"

static uint64_t random_state;

static double uniform01(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double normal(void)
{
    return sqrt(-2 * log(1 - uniform01())) * cos(6.283185307179586 * uniform01());
}

#define N 3000
#define TENSORS 3

static Arena *arena;
static Error error;
static float w[N], h[N], recon[N], relative[TENSORS];
static const size_t offset[TENSORS + 1] = {0, 700, 2500, N};
static const size_t empty_offset[TENSORS + 1] = {0};

static void setup(void)
{
    arena = arena_create();
    error = (Error){0};
    random_state = 11;
}

static void teardown(void)
{
    arena_destroy(arena);
}

enum { LIKE, UNLIKE, WILD, NONE, N_SPREADS }; /* how far importances lie apart */

static QuantizeInput random_input(int spread, bool zeros)
{
    static const double log_spread[] = {0, 1.5, 12, 0};
    for (size_t t = 0; t < TENSORS; t++) {
        relative[t] = (float)exp(0.5 * normal());
        for (size_t i = offset[t]; i < offset[t + 1]; i++) {
            w[i] = zeros && uniform01() < 0.2 ? 0 : (float)normal();
            h[i] = spread == NONE ? 0 : (float)exp(log_spread[spread] * normal());
            if (spread == WILD && uniform01() < 0.1)
                h[i] = 0;
        }
    }
    return (QuantizeInput){TENSORS, offset, w, h};
}

static Quantized ecsq(const QuantizeInput *in, double lambda, int levels, QuantizeScope scope,
                      bool weighted)
{
    Quantized q;
    int rc = quantize_ecsq(in, relative, lambda, levels, scope, weighted, arena, &q, &error);
    ck_assert_msg(!rc, "%s", error.message);
    return q;
}

static double entropy_bits(const Quantized *q, size_t n)
{
    double bits = 0;
    size_t *count = calloc((size_t)q->levels, sizeof *count);
    for (size_t i = 0; i < n; i++)
        count[q->symbol[i]]++;
    for (int c = 0; c < q->levels; c++)
        bits -= count[c] ? (double)count[c] * log2((double)count[c] / (double)n) : 0;
    free(count);
    return bits;
}

/* ---- the steps ---- */

static Ecsq begin(const QuantizeInput *in, double lambda, size_t levels, bool weighted)
{
    Ecsq e;
    ck_assert(!ecsq_create(in, relative, weighted, lambda, levels, arena, &e, &error));
    ck_assert_ptr_nonnull(e.cluster = arena_array(arena, N, sizeof *e.cluster));
    for (size_t j = 0; j < levels; j++)
        e.centre[j] = -3 + 6 * ((double)j + uniform01()) / (double)levels;
    ecsq_start(&e, levels, e.zeros > 0);
    return e;
}

static size_t tensor_of(size_t i)
{
    return i < offset[1] ? 0 : i < offset[2] ? 1 : 2;
}

/* As ecsq_internal.h says, in its own words; all ones where nothing weighs anything. */
static double weight_of(size_t i, int spread)
{
    double r = (double)relative[tensor_of(i)];
    return spread == NONE ? 1 : (double)h[i] * r * r;
}

static double value_of(size_t i)
{
    return (double)(w[i] / relative[tensor_of(i)]);
}

START_TEST(values_are_grouped_by_weight)
{
    for (int spread = 0; spread < N_SPREADS; spread++) {
        QuantizeInput in = random_input(spread, spread % 2);
        Ecsq e = begin(&in, 1, 5, true);
        size_t n[ECSQ_GROUPS] = {0}, zeros = 0;
        double least[ECSQ_GROUPS], most[ECSQ_GROUPS] = {0}, all = 0;
        for (size_t i = 0; i < N; i++) {
            double g = weight_of(i, spread);
            ck_assert((double)ecsq_value(&e, tensor_of(i), i) == value_of(i));
            ck_assert(ecsq_weight(&e, tensor_of(i), i) == g);
            if (w[i] == 0) { /* exact zeros are only counted */
                zeros++;
                continue;
            }
            size_t group = ecsq_group_of(&e, g);
            least[group] = n[group]++ ? fmin(least[group], g) : g;
            most[group] = fmax(most[group], g);
            all = fmax(all, g);
        }
        ck_assert_uint_eq(e.zeros, zeros);
        ck_assert_uint_eq(e.n, N - zeros);
        ck_assert(most[0] == all);
        for (size_t group = 0; group < ECSQ_GROUPS; group++) {
            ck_assert_uint_eq(e.group[group].n, n[group]);
            ck_assert(e.group[group].most == most[group]);
            ck_assert(n[group] == 0 || group == ECSQ_GROUPS - 1 ||
                      most[group] <= 2 * least[group]);
            for (size_t other = group + 1; other < ECSQ_GROUPS && n[group]; other++)
                ck_assert(n[other] == 0 || most[other] < least[group]);
        }
    }
}
END_TEST

/* What stands at every so manieth place of its group's ascending values. */
START_TEST(samples_are_spread_over_each_group)
{
    static const size_t strides[] = {1, 2, 7, 100, N};
    for (int spread = 0; spread < N_SPREADS; spread++)
        for (size_t s = 0; s < sizeof strides / sizeof strides[0]; s++) {
            QuantizeInput in = random_input(spread, spread % 2);
            Ecsq e = begin(&in, 1, 5, true), sample;
            size_t stride = strides[s], picked[ECSQ_GROUPS] = {0}, n[ECSQ_GROUPS] = {0};
            KMeansOrder order;
            ck_assert(!kmeans_order(&in, relative, true, &order, &error));
            ck_assert(!ecsq_sample(&e, &order, stride, 5, arena, &sample, &error));
            ck_assert_uint_eq(sample.zeros, (e.zeros + stride - 1) / stride);
            for (size_t i = 0; i < order.n; i++) {
                size_t group = ecsq_group_of(&e, kmeans_weight(&order, i));
                n[group] += i != order.zero_at;
            }
            for (size_t i = 0; i < order.n; i++) {
                size_t group = ecsq_group_of(&e, kmeans_weight(&order, i)), at = 0;
                if (i == order.zero_at)
                    continue;
                size_t first = stride < n[group] ? stride / 2 : n[group] / 2;
                bool due = picked[group]++ % stride == first;
                for (size_t to = 0; to < sample.n && due; to++)
                    at += (double)ecsq_value(&sample, 0, to) == (double)order.x[i] &&
                          ecsq_weight(&sample, 0, to) == (double)order.weight[i];
                ck_assert(!due || at > 0);
            }
            size_t all = 0;
            for (size_t group = 0; group < ECSQ_GROUPS; group++)
                all += (n[group] + stride - 1) / stride;
            ck_assert_uint_eq(sample.n, all);
            kmeans_order_free(&order);
        }
}
END_TEST

START_TEST(each_value_goes_to_its_cheapest_centre)
{
    static const double lambdas[] = {0, 1e-6, 1e-3, 0.05, 1, 1e4};
    for (int spread = 0; spread < N_SPREADS; spread++)
        for (size_t l = 0; l < sizeof lambdas / sizeof lambdas[0]; l++)
            for (int zeros = 0; zeros < 2; zeros++) {
                QuantizeInput in = random_input(spread, zeros);
                Ecsq e = begin(&in, lambdas[l], 50, true);
                for (int round = 0; round < 3; round++) {
                    double cost = ecsq_assign(&e);
                    double sum = e.zeros > 0 ? (double)e.zeros * e.rate[e.zero] : 0;
                    ck_assert((e.zeros > 0) == (zeros > 0));
                    for (size_t i = 0; i < N; i++) {
                        double best = INFINITY, x = value_of(i), g = weight_of(i, spread);
                        if (w[i] == 0) { /* counted above */
                            ck_assert_uint_eq(e.cluster[i], e.zero);
                            continue;
                        }
                        for (size_t j = 0; j < e.k; j++) {
                            double d = x - e.centre[j];
                            best = fmin(best, g * d * d + e.rate[j]);
                        }
                        size_t j = e.cluster[i];
                        double d = x - e.centre[j], own = g * d * d + e.rate[j];
                        ck_assert_double_le(own, best + 1e-12 * best);
                        sum += own;
                    }
                    ck_assert(e.zeros == 0 || e.centre[e.zero] == 0);
                    ck_assert_double_eq_tol(cost, sum, 1e-9 * sum + 1e-300);
                    ecsq_update(&e);
                }
            }
}
END_TEST

START_TEST(updates_are_means_and_shares)
{
    for (int spread = 0; spread < N_SPREADS; spread++) {
        QuantizeInput in = random_input(spread, spread == UNLIKE);
        Ecsq e = begin(&in, 0.02, 40, true);
        ecsq_assign(&e);
        ecsq_update(&e);
        ecsq_assign(&e);
        double mean[40], weight[40] = {0}, sum[40] = {0}, plain[40] = {0};
        size_t count[40] = {0}, used = 0;
        for (size_t i = 0; i < N; i++) {
            double g = weight_of(i, spread);
            if (w[i] == 0)
                continue;
            weight[e.cluster[i]] += g;
            sum[e.cluster[i]] += g * value_of(i);
            plain[e.cluster[i]] += value_of(i);
            count[e.cluster[i]]++;
        }
        for (size_t j = 0; j < e.k; j++) {
            mean[j] = weight[j] > 0 ? sum[j] / weight[j] : plain[j] / (double)count[j];
            used += count[j] > 0;
        }
        if (e.zero != SIZE_MAX) {
            mean[e.zero] = 0;
            used += e.zeros > 0 && count[e.zero] == 0;
            count[e.zero] += e.zeros;
        }
        size_t before = e.k;
        ecsq_update(&e);
        ck_assert_uint_eq(e.k, used);
        for (size_t j = 0; j < e.k; j++) {
            ck_assert(j == 0 || e.centre[j] > e.centre[j - 1]);
            size_t at = 0;
            while (at < before && (count[at] == 0 || fabs(mean[at] - e.centre[j]) > 1e-12))
                at++;
            ck_assert_uint_lt(at, before);
            ck_assert_double_eq_tol(e.rate[j], -0.02 * log2((double)count[at] / N), 1e-12);
        }
    }
}
END_TEST

START_TEST(clusters_may_pass_meet_and_weigh_nothing)
{
    /* Values, their importances and the clusters that they are put in; cluster 1 is the zero. */
    static const float value[8] = {-4, -2, 0, 0, 1, 1, 3, 5},
                       importance[8] = {0, 0, 1, 1, 2, 1, 1, 1};
    static const uint16_t cluster[8] = {3, 3, 1, 1, 2, 4, 0, 0};
    static const size_t at[2] = {0, 8};
    QuantizeInput in = {1, at, value, importance};
    Ecsq e;
    ck_assert(!ecsq_create(&in, NULL, true, 0.5, 6, arena, &e, &error));
    ck_assert_ptr_nonnull(e.cluster = arena_array(arena, 8, sizeof *e.cluster));
    static const double start[6] = {-1, 0.1, 1, 2, 3, 4};
    memcpy(e.centre, start, sizeof start);
    ecsq_start(&e, 6, true);
    ck_assert(e.zero == 1 && e.centre[1] == 0);
    memcpy(e.cluster, cluster, sizeof cluster);
    ecsq_update(&e);
    static const double centre[4] = {-3, 0, 1, 4}; /* of 3; of 1; of 2 and 4; of 0. 5 is empty */
    ck_assert_uint_eq(e.k, 4);
    ck_assert_uint_eq(e.zero, 1);
    for (size_t j = 0; j < 4; j++) {
        ck_assert(e.centre[j] == centre[j]);
        ck_assert(e.rate[j] == 1); /* a quarter each: two bits */
    }
    /* The zero itself is passed. */
    for (size_t i = 0; i < 8; i++)
        e.cluster[i] = value[i] == 0 ? 1 : value[i] > 0 ? 0 : 2;
    ecsq_update(&e);
    ck_assert_uint_eq(e.k, 3);
    ck_assert_uint_eq(e.zero, 1);
    ck_assert(e.centre[0] == -3 && e.centre[1] == 0 && e.centre[2] == 2.2);
    for (size_t i = 0; i < 8; i++)
        e.cluster[i] = value[i] == 0 ? 1 : 0;
    ecsq_update(&e);
    ck_assert_uint_eq(e.k, 2);
    ck_assert_uint_eq(e.zero, 0);
    ck_assert(e.centre[0] == 0 && e.centre[1] > 2);
}
END_TEST

START_TEST(every_turn_lowers_the_cost)
{
    static const double lambdas[] = {0, 1e-3, 0.03, 0.5};
    for (int spread = 0; spread < N_SPREADS; spread++)
        for (size_t l = 0; l < sizeof lambdas / sizeof lambdas[0]; l++) {
            QuantizeInput in = random_input(spread, l % 2);
            Ecsq e = begin(&in, lambdas[l], 60, true);
            ecsq_assign(&e);
            ecsq_update(&e);
            double before = ecsq_assign(&e), first = before;
            for (int i = 0; i < 40; i++) {
                size_t k = e.k;
                ecsq_update(&e);
                double cost = ecsq_assign(&e);
                ck_assert_uint_le(e.k, k);
                ck_assert_double_le(cost, before * (1 + 1e-12));
                before = cost;
            }
            ck_assert_double_lt(before, first);
        }
}
END_TEST

/* ---- the whole ---- */

START_TEST(results_are_sound)
{
    for (int kind = 0; kind < 16; kind++) {
        QuantizeScope scope = kind & 1 ? QUANTIZE_SCOPE_TENSOR : QUANTIZE_SCOPE_MODEL;
        bool zeros = kind & 2, weighted = kind & 4;
        QuantizeInput in = random_input(kind & 8 ? UNLIKE : WILD, zeros);
        Quantized q = ecsq(&in, 0.01, 64, scope, weighted);
        bool *used = arena_array(arena, (size_t)q.levels, sizeof *used);
        double distortion = 0;
        ck_assert(q.levels >= 2 && q.levels <= 64);
        quantize_reconstruct(&in, &q, recon);
        for (size_t i = 0; i < N; i++) {
            ck_assert_int_lt(q.symbol[i], q.levels);
            used[q.symbol[i]] = true;
            ck_assert(w[i] != 0 || recon[i] == 0);
            double d = (double)w[i] - (double)recon[i];
            distortion += (double)h[i] * d * d;
        }
        for (int c = 0; c < q.levels; c++)
            ck_assert(used[c] && (c == 0 || q.centre[c] > q.centre[c - 1]));
        for (size_t t = 0; t < TENSORS; t++)
            ck_assert(scope == QUANTIZE_SCOPE_TENSOR || q.scale[t] == 1);
        ck_assert_double_eq_tol(q.distortion, distortion, 1e-9 * distortion);
    }
}
END_TEST

START_TEST(lambda_zero_is_kmeans)
{
    for (int kind = 0; kind < 4; kind++) {
        QuantizeInput in = random_input(kind & 1 ? UNLIKE : LIKE, kind & 2);
        Quantized q = ecsq(&in, 0, 12, QUANTIZE_SCOPE_MODEL, true), best;
        ck_assert_int_eq(q.levels, 12);
        size_t far = 0; /* all but nearest to their centre, which settling leaves a few times */
        for (size_t i = 0; i < N; i++) {
            float own = fabsf(w[i] - q.centre[q.symbol[i]]);
            for (int c = 0; c < q.levels; c++)
                if (fabsf(w[i] - q.centre[c]) < own - 1e-6f) {
                    far++;
                    break;
                }
        }
        ck_assert_uint_lt(far, N / 50);
        ck_assert(
            !quantize_kmeans(&in, NULL, 12, QUANTIZE_SCOPE_MODEL, true, arena, &best, &error));
        ck_assert_double_le(q.distortion, 1.2 * best.distortion);
    }
}
END_TEST

START_TEST(large_lambda_collapses)
{
    for (int zeros = 0; zeros < 2; zeros++) {
        QuantizeInput in = random_input(UNLIKE, zeros);
        Quantized q = ecsq(&in, 1e9, 100, QUANTIZE_SCOPE_MODEL, true);
        ck_assert_int_le(q.levels, 1 + zeros); /* exact zeros keep theirs */
        if (zeros)
            continue;
        double sum = 0, weight = 0;
        for (size_t i = 0; i < N; i++) {
            sum += (double)h[i] * (double)w[i];
            weight += (double)h[i];
        }
        ck_assert_double_eq_tol((double)q.centre[0], sum / weight, 1e-6);
    }
}
END_TEST

START_TEST(exact_zeros_stay_however_rare)
{
    for (double lambda = 1e-3; lambda < 1e4; lambda *= 10) {
        QuantizeInput in = random_input(UNLIKE, false);
        for (size_t i = 0; i < N; i++)
            w[i] += 3; /* hardly any near 0 */
        w[5] = w[N - 1] = 0;
        h[5] = h[N - 1] = 1e-6f;
        Quantized q = ecsq(&in, lambda, 30, QUANTIZE_SCOPE_TENSOR, true);
        quantize_reconstruct(&in, &q, recon);
        ck_assert(recon[5] == 0 && recon[N - 1] == 0);
    }
}
END_TEST

START_TEST(bits_fall_and_distortion_rises_with_lambda)
{
    QuantizeInput in = random_input(UNLIKE, false);
    double bits = INFINITY, distortion = 0;
    for (double lambda = 1e-3; lambda < 10; lambda *= 8) {
        Quantized q = ecsq(&in, lambda, 200, QUANTIZE_SCOPE_MODEL, true);
        ck_assert_double_lt(entropy_bits(&q, N), bits);
        ck_assert_double_gt(q.distortion, distortion);
        bits = entropy_bits(&q, N);
        distortion = q.distortion;
    }
}
END_TEST

START_TEST(beats_kmeans_and_the_grid_at_their_own_entropy)
{
    /* At the lambda where distortion and bits trade as the grid of high rate does, the sum is below
     * the grid's and k-means's. */
    QuantizeInput in = random_input(UNLIKE, false);
    double mean = 0;
    for (size_t i = 0; i < N; i++)
        mean += (double)h[i] / N;
    float step = 0.5f;
    double lambda = mean * (double)step * (double)step / 6 * log(2);
    Quantized grid, means, q = ecsq(&in, lambda, 64, QUANTIZE_SCOPE_MODEL, true);
    for (size_t t = 0; t < TENSORS; t++)
        relative[t] = 1;
    ck_assert(
        !quantize_uniform(&in, step, relative, QUANTIZE_SCOPE_MODEL, true, arena, &grid, &error));
    double cost = q.distortion + lambda * entropy_bits(&q, N);
    ck_assert_double_lt(cost, grid.distortion + lambda * entropy_bits(&grid, N));
    for (int k = 2; k < 40; k++) {
        ck_assert(
            !quantize_kmeans(&in, NULL, k, QUANTIZE_SCOPE_MODEL, true, arena, &means, &error));
        ck_assert_double_lt(cost, means.distortion + lambda * entropy_bits(&means, N));
    }
}
END_TEST

/* Many values are first tried on a sample, which sees neither the one zero nor the one that is far
 * off and matters. */
START_TEST(a_sample_forgets_nothing)
{
    enum { MANY = 200000, ODD = 77777 };
    static float x[MANY], weight[MANY];
    static const size_t whole[2] = {0, MANY};
    for (size_t i = 0; i < MANY; i++) {
        x[i] = (float)normal();
        weight[i] = 1;
    }
    x[ODD] = 40;
    weight[ODD] = 3;
    x[ODD + 1] = 0;
    QuantizeInput in = {1, whole, x, weight};
    Quantized q;
    ck_assert_int_eq(quantize_ecsq(&in, (float[]){1}, 0.02, 60, QUANTIZE_SCOPE_MODEL, true, arena,
                                   &q, &error),
                     0);
    ck_assert_int_le(q.levels, 60);
    ck_assert_float_eq_tol(q.centre[q.symbol[ODD]], 40, 1e-5F);
    ck_assert_float_eq(q.centre[q.symbol[ODD + 1]], 0);
    uint64_t count[60] = {0};
    for (size_t i = 0; i < MANY; i++)
        count[q.symbol[i]]++;
    double bits = 0;
    for (int l = 0; l < q.levels; l++)
        bits -= (double)count[l] * log2((double)count[l] / MANY);
    /* At this rate a grid of step s has distortion s^2 / 12 and the rate of the normal less log2 s;
     * ECSQ is at least as good: D + lambda R at the best s. */
    double step2 = 6 * 0.02 / log(2);
    double grid = step2 / 12 + 0.02 * (0.5 * log2(2 * 3.14159265 * exp(1)) - 0.5 * log2(step2));
    ck_assert_double_le((q.distortion + 0.02 * bits) / MANY, 1.01 * grid);
}
END_TEST

START_TEST(weights_all_alike_or_none)
{
    for (size_t i = 0; i < N; i++) {
        w[i] = 0.25f;
        h[i] = 1;
    }
    for (size_t t = 0; t < TENSORS; t++)
        relative[t] = 1;
    QuantizeInput in = {TENSORS, offset, w, NULL};
    Quantized q = ecsq(&in, 0.1, 9, QUANTIZE_SCOPE_TENSOR, true);
    ck_assert_int_eq(q.levels, 1);
    quantize_reconstruct(&in, &q, recon);
    ck_assert(recon[0] == 0.25f && recon[N - 1] == 0.25f);
    in.offset = empty_offset;
    q = ecsq(&in, 0.1, 9, QUANTIZE_SCOPE_TENSOR, true);
    ck_assert_int_eq(q.levels, 1);
    in.n_tensors = 0;
    q = ecsq(&in, 0.1, 9, QUANTIZE_SCOPE_MODEL, false);
    ck_assert_int_eq(q.levels, 1);
    ck_assert(q.distortion == 0);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    static const double bad[] = {-1e-9, NAN, INFINITY};
    QuantizeInput in = random_input(LIKE, false);
    Quantized q;
    for (int k = 0; k < 6; k++) {
        double lambda = k < 3 ? bad[k] : 0.1;
        int levels = k == 3 ? 0 : k == 4 ? -5 : k == 5 ? QUANTIZE_MAX_LEVELS + 1 : 10;
        error = (Error){0};
        ck_assert_int_eq(quantize_ecsq(&in, relative, lambda, levels, QUANTIZE_SCOPE_MODEL, true,
                                       arena, &q, &error),
                         k == 5 ? ONNXPRESS_GOAL : ONNXPRESS_USAGE);
        ck_assert_str_ne(error.message, "");
    }
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("ecsq");
    TCase *steps = add_case(suite, "steps");
    tcase_add_test(steps, values_are_grouped_by_weight);
    tcase_add_test(steps, samples_are_spread_over_each_group);
    tcase_add_test(steps, each_value_goes_to_its_cheapest_centre);
    tcase_add_test(steps, updates_are_means_and_shares);
    tcase_add_test(steps, clusters_may_pass_meet_and_weigh_nothing);
    tcase_add_test(steps, every_turn_lowers_the_cost);
    TCase *whole = add_case(suite, "whole");
    tcase_add_test(whole, results_are_sound);
    tcase_add_test(whole, lambda_zero_is_kmeans);
    tcase_add_test(whole, large_lambda_collapses);
    tcase_add_test(whole, exact_zeros_stay_however_rare);
    tcase_add_test(whole, bits_fall_and_distortion_rises_with_lambda);
    tcase_add_test(whole, beats_kmeans_and_the_grid_at_their_own_entropy);
    tcase_add_test(whole, a_sample_forgets_nothing);
    tcase_add_test(whole, weights_all_alike_or_none);
    tcase_add_test(whole, what_cannot_be_is_refused);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
