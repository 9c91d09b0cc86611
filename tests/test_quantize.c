/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quantize/quantize.h"

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

static size_t below(size_t n)
{
    return (size_t)(uniform01() * (double)n);
}

static Arena *arena;
static Error error;

static void setup(void)
{
    arena = arena_create();
    error = (Error){0};
    random_state = 7;
}

static void teardown(void)
{
    arena_destroy(arena);
}

#define MAX_N 4000
#define MAX_TENSORS 6

static float w[MAX_N], h[MAX_N], recon[MAX_N], relative[MAX_TENSORS];
static size_t offset[MAX_TENSORS + 1];
static const size_t one_tensor_offset[2] = {0, 1};

/* Tensors of different spread and importance; a tenth of the weights exactly zero when asked. */
static QuantizeInput random_input(size_t n, size_t tensors, bool zeros)
{
    for (size_t t = 0; t <= tensors; t++)
        offset[t] = n * t / tensors;
    for (size_t t = 0; t < tensors; t++) {
        double spread = exp(normal()), importance = exp(2 * normal());
        for (size_t i = offset[t]; i < offset[t + 1]; i++) {
            w[i] = zeros && below(10) == 0 ? 0 : (float)(spread * normal());
            h[i] = (float)(importance * exp(normal()));
        }
    }
    return (QuantizeInput){tensors, offset, w, h};
}

static bool close_to(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(fabs(a), fabs(b));
}

/* What holds for every result, whatever made it. */
static void check_result(const QuantizeInput *in, const Quantized *q, QuantizeScope scope)
{
    size_t n = in->offset[in->n_tensors];
    bool sound = q->levels >= 1;
    bool *used = calloc((size_t)q->levels, 1);
    double distortion = 0, parts = 0;
    quantize_reconstruct(in, q, recon);
    for (size_t t = 0; t < in->n_tensors; t++) {
        sound = sound && q->scale[t] > 0 && (scope == QUANTIZE_SCOPE_TENSOR || q->scale[t] == 1);
        parts += quantize_distortion(in, q, t);
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            sound = sound && q->symbol[i] < q->levels &&
                    recon[i] == q->scale[t] * q->centre[q->symbol[i]] && isfinite(recon[i]);
            used[q->symbol[i]] = true;
            double d = (double)in->w[i] - (double)recon[i];
            distortion += (in->h ? (double)in->h[i] : 1.0) * d * d;
        }
    }
    for (int c = 0; c < q->levels; c++) {
        sound = sound && (used[c] || n == 0);
        sound = sound && (c == 0 || q->centre[c] > q->centre[c - 1]);
    }
    free(used);
    ck_assert(sound);
    ck_assert(close_to(distortion, q->distortion, 1e-12));
    ck_assert(close_to(parts, q->distortion, 1e-12));
}

/* --- Steps --- */

START_TEST(steps_follow_mean_importance)
{
    static const size_t at[5] = {0, 2, 6, 8, 10};
    static const float values[10] = {1, 1, .25f, .25f, 0, .5f, 0, 0, 4, 4}; /* means 1, 1/4, 0, 4 */
    QuantizeInput in = {4, at, w, values};
    ck_assert_int_eq(quantize_relative_steps(&in, QUANTIZE_SCOPE_TENSOR, relative, &error), 0);
    ck_assert(close_to((double)relative[1], 2 * (double)relative[0], 1e-6));
    ck_assert(close_to((double)relative[3], 0.25 * (double)relative[1], 1e-6));
    ck_assert(relative[2] == relative[1]); /* no importance: the largest of the others */
    double log_mean = 0;
    for (size_t t = 0; t < 4; t++)
        log_mean += (double)(at[t + 1] - at[t]) * log((double)relative[t]);
    ck_assert(fabs(log_mean) < 1e-5);

    ck_assert_int_eq(quantize_relative_steps(&in, QUANTIZE_SCOPE_MODEL, relative, &error), 0);
    for (size_t t = 0; t < 4; t++)
        ck_assert(relative[t] == 1);
    static const float nothing[10] = {0};
    const float *flat[2] = {nothing, NULL};
    for (size_t k = 0; k < 2; k++) {
        in.h = flat[k];
        ck_assert_int_eq(quantize_relative_steps(&in, QUANTIZE_SCOPE_TENSOR, relative, &error), 0);
        for (size_t t = 0; t < 4; t++)
            ck_assert(relative[t] == 1);
    }
}
END_TEST

/* --- The uniform grid --- */

#define HALF_GRID 32768

typedef struct {
    double above[2 * HALF_GRID + 1], below[2 * HALF_GRID + 1], centre[2 * HALF_GRID + 1];
    double scale[MAX_TENSORS];
} Direct;

/* The definition, with dense sums over whole passes; plain: h is taken as 1 / relative^2. */
static void direct_uniform(Direct *d, const QuantizeInput *in, float step, const float *rel,
                           int scale_rounds, bool plain)
{
    bool zeros = false;
    for (size_t t = 0; t < in->n_tensors; t++)
        d->scale[t] = (double)rel[t];
    for (int round = 0; round == 0 || round < scale_rounds; round++) {
        memset(d->above, 0, sizeof d->above);
        memset(d->below, 0, sizeof d->below);
        for (size_t t = 0; t < in->n_tensors; t++)
            for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
                double r = (double)rel[t], s = d->scale[t];
                double weight = plain ? 1 / (r * r) : (double)in->h[i];
                int cell = (int)lrint((double)in->w[i] / ((double)step * r)) + HALF_GRID;
                d->above[cell] += weight * s * (double)in->w[i];
                d->below[cell] += weight * s * s;
                zeros |= in->w[i] == 0;
            }
        for (int c = 0; c <= 2 * HALF_GRID; c++)
            d->centre[c] = d->below[c] > 0 ? d->above[c] / d->below[c] : NAN;
        if (zeros)
            d->centre[HALF_GRID] = 0;
        for (size_t t = 0; t < in->n_tensors && scale_rounds; t++) {
            double above = 0, below_sum = 0;
            for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
                double r = (double)rel[t], weight = plain ? 1 / (r * r) : (double)in->h[i];
                double c = d->centre[(int)lrint((double)in->w[i] / ((double)step * r)) + HALF_GRID];
                above += weight * c * (double)in->w[i];
                below_sum += weight * c * c;
            }
            if (above > 0)
                d->scale[t] = above / below_sum;
        }
    }
}

START_TEST(uniform_is_its_definition)
{
    static Direct direct;
    for (int round = 0; round < 120; round++) {
        bool zeros = round % 2, weighted = round % 3 > 0;
        QuantizeScope scope = round % 5 < 2 ? QUANTIZE_SCOPE_MODEL : QUANTIZE_SCOPE_TENSOR;
        size_t tensors = 1 + below(MAX_TENSORS);
        QuantizeInput in = random_input(tensors + below(1500), tensors, zeros);
        float step = (float)exp(1.5 * normal() - 2.5);
        step = step < 0.02f ? 0.02f : step;
        ck_assert_int_eq(quantize_relative_steps(&in, scope, relative, &error), 0);
        Quantized q;
        ck_assert_int_eq(quantize_uniform(&in, step, relative, scope, weighted, arena, &q, &error),
                         0);
        check_result(&in, &q, scope);
        direct_uniform(&direct, &in, step, relative, scope == QUANTIZE_SCOPE_TENSOR ? 3 : 0,
                       !weighted);
        bool same = true;
        static int cell_of[2 * HALF_GRID + 1];
        memset(cell_of, 0xFF, sizeof cell_of);
        for (size_t t = 0; t < tensors; t++) {
            same = same && (scope == QUANTIZE_SCOPE_MODEL ||
                            close_to((double)q.scale[t], direct.scale[t], 1e-6));
            for (size_t i = offset[t]; i < offset[t + 1]; i++) {
                int cell =
                    (int)lrint((double)w[i] / ((double)step * (double)relative[t])) + HALF_GRID;
                if (cell_of[cell] < 0)
                    cell_of[cell] = q.symbol[i];
                same = same && cell_of[cell] == q.symbol[i] &&
                       fabs((double)q.centre[q.symbol[i]] - direct.centre[cell]) <=
                           1e-6 * fabs(direct.centre[cell]) + 1e-7 * (double)step;
                same = same && (w[i] != 0 || recon[i] == 0);
            }
        }
        ck_assert_msg(same, "round %d", round);
    }
}
END_TEST

START_TEST(weighting_and_refits_pay)
{
    double plain_sum = 0, weighted_sum = 0, unfitted_sum = 0, tensor_sum = 0;
    for (int round = 0; round < 60; round++) {
        QuantizeInput in = random_input(1000, 5, round % 2);
        float step = (float)(0.05 + uniform01());
        Quantized plain, weighted, fitted;
        ck_assert_int_eq(
            quantize_uniform(&in, step, NULL, QUANTIZE_SCOPE_MODEL, false, arena, &plain, &error),
            0);
        ck_assert_int_eq(
            quantize_uniform(&in, step, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &weighted, &error),
            0);
        ck_assert(weighted.distortion <= plain.distortion * (1 + 1e-6));
        plain_sum += plain.distortion;
        weighted_sum += weighted.distortion;

        static Direct direct;
        quantize_relative_steps(&in, QUANTIZE_SCOPE_TENSOR, relative, &error);
        ck_assert_int_eq(quantize_uniform(&in, step, relative, QUANTIZE_SCOPE_TENSOR, true, arena,
                                          &fitted, &error),
                         0);
        direct_uniform(&direct, &in, step, relative, 0, false);
        double unfitted = 0;
        for (size_t t = 0; t < 5; t++)
            for (size_t i = offset[t]; i < offset[t + 1]; i++) {
                double r = (double)relative[t];
                int cell = (int)lrint((double)w[i] / ((double)step * r)) + HALF_GRID;
                double d = (double)w[i] - r * direct.centre[cell];
                unfitted += (double)h[i] * d * d;
            }
        ck_assert(fitted.distortion <= unfitted * (1 + 1e-6));
        unfitted_sum += unfitted;
        tensor_sum += fitted.distortion;
    }
    ck_assert(weighted_sum < 0.999 * plain_sum);
    ck_assert(tensor_sum < 0.999 * unfitted_sum);
}
END_TEST

START_TEST(tensors_without_evidence_keep_their_step)
{
    /* Tensor 0 is zero throughout, tensor 1 has no importance, tensor 2 is ordinary. */
    static const size_t at[4] = {0, 3, 6, 12};
    static const float values[12] = {0, 0, 0, 30, 33, 30, 1, -1, 2, -2, 3, 1};
    static const float importance[12] = {1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1};
    static const float steps[3] = {0.5f, 3, 1};
    QuantizeInput in = {3, at, values, importance};
    Quantized q;
    ck_assert_int_eq(
        quantize_uniform(&in, 1, steps, QUANTIZE_SCOPE_TENSOR, true, arena, &q, &error), 0);
    check_result(&in, &q, QUANTIZE_SCOPE_TENSOR);
    ck_assert(q.scale[0] == 0.5f);
    ck_assert(q.scale[1] == 3);
    ck_assert(recon[3] == 30 && recon[4] == 33 && recon[5] == 30);
    for (size_t i = 0; i < 3; i++)
        ck_assert(recon[i] == 0);
}
END_TEST

START_TEST(a_cell_without_importance_takes_the_plain_mean)
{
    static const size_t at[2] = {0, 5};
    static const float values[5] = {10.0f, 10.25f, 10.4f, 1.0f, 1.3f};
    static const float importance[5] = {0, 0, 0, 1, 3};
    QuantizeInput in = {1, at, values, importance};
    Quantized q;
    ck_assert_int_eq(quantize_uniform(&in, 1, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     0);
    ck_assert_int_eq(q.levels, 2);
    ck_assert(close_to((double)q.centre[0], (1.0 + 3 * 1.3) / 4, 1e-6));
    ck_assert(close_to((double)q.centre[1], (10.0 + 10.25 + 10.4) / 3, 1e-6));
    static const float pair[5] = {10.0f, 10.25f, 10.4f, 1.5f, 1.5f};
    in.w = pair;
    ck_assert_int_eq(quantize_kmeans(&in, NULL, 2, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     0);
    ck_assert_int_eq(q.levels, 2);
    ck_assert(q.centre[0] == 1.5f);
    ck_assert(close_to((double)q.centre[1], (10.0 + 10.25 + 10.4) / 3, 1e-6));
}
END_TEST

START_TEST(grids_may_be_wide_but_not_full)
{
    size_t n = 70000;
    float *many = malloc(n * sizeof *many);
    for (size_t i = 0; i < n; i++)
        many[i] = (float)i;
    size_t at[2] = {0, n};
    QuantizeInput in = {1, at, many, NULL};
    Quantized q;
    ck_assert_int_eq(quantize_uniform(&in, 1, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     ONNXPRESS_GOAL);
    ck_assert_uint_gt(strlen(error.message), 0);
    error = (Error){0};
    at[1] = QUANTIZE_MAX_LEVELS;
    ck_assert_int_eq(quantize_uniform(&in, 1, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     0);
    ck_assert_int_eq(q.levels, QUANTIZE_MAX_LEVELS);
    ck_assert(q.distortion == 0);
    /* Outliers cost a level each, not the range up to them. */
    static const float wide[6] = {1e30f, -3e38f, 0.5f, 0, 1e-30f, 12345678};
    static const size_t six[2] = {0, 6};
    in = (QuantizeInput){1, six, wide, NULL};
    ck_assert_int_eq(
        quantize_uniform(&in, 1e-3f, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error), 0);
    ck_assert_int_eq(q.levels, 5);
    ck_assert(q.centre[q.symbol[0]] == 1e30f && q.centre[q.symbol[1]] == -3e38f);
    ck_assert(q.centre[q.symbol[3]] == 0 && q.symbol[3] == q.symbol[4]);
    static const float bad_steps[3] = {0, -1, NAN};
    for (size_t i = 0; i < 3; i++) {
        error = (Error){0};
        ck_assert_int_eq(quantize_uniform(&in, bad_steps[i], NULL, QUANTIZE_SCOPE_MODEL, true,
                                          arena, &q, &error),
                         ONNXPRESS_USAGE);
    }
    free(many);
}
END_TEST

/* --- K-means --- */

#define MAX_OPTIMUM 1200

/* Least weighted distortion of k intervals of sorted values, by trying every last interval. */
static double best_intervals(const double (*pair)[2], size_t n, size_t k)
{
    static double least[6][MAX_OPTIMUM + 1];
    for (size_t i = 0; i <= n; i++)
        least[0][i] = i ? INFINITY : 0;
    for (size_t c = 1; c <= k; c++)
        for (size_t end = 0; end <= n; end++) {
            least[c][end] = least[c - 1][end];
            double sum = 0, sum_x = 0, sum_x2 = 0;
            for (size_t start = end; start-- > 0;) {
                double x = pair[start][0], g = pair[start][1];
                sum += g;
                sum_x += g * x;
                sum_x2 += g * x * x;
                double cost = least[c - 1][start] + fmax(sum_x2 - sum_x * sum_x / sum, 0);
                least[c][end] = fmin(least[c][end], cost);
            }
        }
    return least[k][n];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Distortion of k-means over that of the best k intervals, both with a floor against 0 / 0. */
static double excess_over_optimum(size_t n, size_t k, bool weighted)
{
    static double pair[MAX_OPTIMUM][2];
    QuantizeInput in = random_input(n, 1, false);
    in.h = weighted ? h : NULL;
    for (size_t i = 0; i < n; i++) {
        pair[i][0] = (double)w[i];
        pair[i][1] = weighted ? (double)h[i] : 1;
    }
    qsort(pair, n, sizeof *pair, ascending);
    Quantized q;
    ck_assert_int_eq(
        quantize_kmeans(&in, NULL, (int)k, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error), 0);
    check_result(&in, &q, QUANTIZE_SCOPE_MODEL);
    ck_assert_int_le(q.levels, (int)k);
    return (q.distortion + 1e-9) / (best_intervals(pair, n, k) + 1e-9) - 1;
}

START_TEST(kmeans_finds_the_optimum_of_few_weights)
{
    for (int round = 0; round < 300; round++) {
        double excess = excess_over_optimum(6 + below(55), 2 + below(4), round % 2);
        ck_assert_msg(fabs(excess) < 1e-5, "round %d: %g", round, excess);
    }
}
END_TEST

START_TEST(kmeans_comes_near_the_optimum)
{
    for (int round = 0; round < 12; round++) {
        double excess = excess_over_optimum(MAX_OPTIMUM - below(300), 2 + below(4), round % 2);
        ck_assert_msg(excess > -1e-5 && excess < 0.02, "round %d: %g", round, excess);
    }
}
END_TEST

/* In scope tensor the optimum is that of w / relative with weights h * relative^2; scales that are
 * refitted afterwards only gain. */
START_TEST(kmeans_weighs_tensors_by_their_step)
{
    static double pair[MAX_OPTIMUM][2];
    for (int round = 0; round < 300; round++) {
        size_t n = 40 + below(20), k = 2 + below(4);
        QuantizeInput in = random_input(n, 2, false);
        relative[0] = (float)exp(2 * normal());
        relative[1] = (float)exp(2 * normal());
        for (size_t t = 0; t < 2; t++)
            for (size_t i = offset[t]; i < offset[t + 1]; i++) {
                w[i] *= relative[t]; /* so that both tensors have a part in all cells */
                pair[i][0] = (double)w[i] / (double)relative[t];
                pair[i][1] = (double)h[i] * (double)relative[t] * (double)relative[t];
            }
        qsort(pair, n, sizeof *pair, ascending);
        Quantized q;
        ck_assert_int_eq(quantize_kmeans(&in, relative, (int)k, QUANTIZE_SCOPE_TENSOR, true, arena,
                                         &q, &error),
                         0);
        check_result(&in, &q, QUANTIZE_SCOPE_TENSOR);
        ck_assert(q.distortion <= best_intervals(pair, n, k) * (1 + 1e-5) + 1e-9);
    }
}
END_TEST

START_TEST(kmeans_settles)
{
    for (int round = 0; round < 40; round++) {
        bool zeros = round % 2, weighted = round % 3 > 0;
        QuantizeInput in = random_input(300 + below(700), 1 + below(4), zeros);
        for (int k = 1; k <= 20; k += 1 + round % 6) {
            Quantized q;
            ck_assert_int_eq(
                quantize_kmeans(&in, NULL, k, QUANTIZE_SCOPE_MODEL, weighted, arena, &q, &error),
                0);
            check_result(&in, &q, QUANTIZE_SCOPE_MODEL);
            ck_assert_int_le(q.levels, k);
            double above[20] = {0}, below_sum[20] = {0};
            bool nearest = true, exact = true, has_zero_centre = false;
            for (size_t i = 0; i < in.offset[in.n_tensors]; i++) {
                double d = fabs((double)w[i] - (double)recon[i]);
                for (int c = 0; c < q.levels; c++)
                    nearest = nearest && d <= fabs((double)w[i] - (double)q.centre[c]) + 1e-5;
                double g = weighted ? (double)h[i] : 1;
                above[q.symbol[i]] += g * (double)w[i];
                below_sum[q.symbol[i]] += g;
                exact = exact && (w[i] != 0 || recon[i] == 0);
            }
            for (int c = 0; c < q.levels; c++) {
                has_zero_centre |= q.centre[c] == 0;
                double mean = above[c] / below_sum[c];
                exact = exact && ((zeros && q.centre[c] == 0) ||
                                  fabs((double)q.centre[c] - mean) < 1e-6 * (1 + fabs(mean)));
            }
            ck_assert(nearest);
            ck_assert(exact);
            ck_assert(!zeros || has_zero_centre);
        }
    }
}
END_TEST

START_TEST(kmeans_beats_the_grid_at_equal_levels)
{
    double grid_sum = 0, kmeans_sum = 0, plain_sum = 0;
    for (int round = 0; round < 30; round++) {
        QuantizeScope scope = round % 2 ? QUANTIZE_SCOPE_TENSOR : QUANTIZE_SCOPE_MODEL;
        QuantizeInput in = random_input(2000, 4, false);
        Quantized grid, q, plain;
        quantize_relative_steps(&in, scope, relative, &error);
        ck_assert_int_eq(quantize_uniform(&in, 0.4f, relative, scope, true, arena, &grid, &error),
                         0);
        ck_assert_int_eq(
            quantize_kmeans(&in, relative, grid.levels, scope, true, arena, &q, &error), 0);
        ck_assert_int_eq(
            quantize_kmeans(&in, relative, grid.levels, scope, false, arena, &plain, &error), 0);
        check_result(&in, &q, scope);
        check_result(&in, &plain, scope);
        grid_sum += log(grid.distortion);
        kmeans_sum += log(q.distortion);
        plain_sum += log(plain.distortion);
        Quantized again;
        ck_assert_int_eq(
            quantize_kmeans(&in, relative, grid.levels, scope, true, arena, &again, &error), 0);
        ck_assert_mem_eq(again.symbol, q.symbol, 2000 * sizeof *q.symbol);
        ck_assert_mem_eq(again.centre, q.centre, (size_t)q.levels * sizeof *q.centre);
    }
    ck_assert(kmeans_sum < grid_sum - 30 * log(1.2));
    ck_assert(kmeans_sum < plain_sum);
}
END_TEST

/* --- Both, at the edges --- */

typedef struct {
    const char *name;
    size_t n;
    float w[6], h[6];
    int levels;    /* expected of either at k = 3 and step 0.25 */
    bool lossless; /* recon equals w */
} Edge;

static const Edge edges[] = {
    {"one element", 1, {0.3f}, {2}, 1, true},
    {"one zero", 1, {0}, {2}, 1, true},
    {"no importance", 4, {1, 2, 3, 3}, {0, 0, 0, 0}, 3, true},
    {"all equal", 6, {.1f, .1f, .1f, .1f, .1f, .1f}, {1, 2, 3, 4, 5, 6}, 1, true},
    {"both zeros", 3, {-0.0f, 0.0f, 5}, {1, 1, 1}, 2, true},
    {"huge", 3, {3e38f, -3e38f, 1e38f}, {1e-30f, 1e30f, 1}, 3, true},
    {"importance beyond 1e37", 3, {1, 2, 3}, {3e38f, 1e-38f, 1}, 3, true},
};

START_TEST(edges_are_quantized)
{
    const Edge *e = &edges[_i];
    size_t at[2] = {0, e->n};
    QuantizeInput in = {1, at, e->w, e->h};
    for (int scope = QUANTIZE_SCOPE_MODEL; scope <= QUANTIZE_SCOPE_TENSOR; scope++)
        for (int weighted = 0; weighted <= 1; weighted++) {
            Quantized q[2];
            ck_assert_int_eq(quantize_relative_steps(&in, (QuantizeScope)scope, relative, &error),
                             0);
            ck_assert_int_eq(quantize_uniform(&in, 0.25f, relative, (QuantizeScope)scope, weighted,
                                              arena, &q[0], &error),
                             0);
            ck_assert_int_eq(quantize_kmeans(&in, relative, 3, (QuantizeScope)scope, weighted,
                                             arena, &q[1], &error),
                             0);
            for (int m = 0; m < 2; m++) {
                check_result(&in, &q[m], (QuantizeScope)scope);
                ck_assert_msg(q[m].levels == e->levels, "%s: %d levels", e->name, q[m].levels);
                for (size_t i = 0; i < e->n; i++)
                    ck_assert_msg(close_to((double)recon[i], (double)e->w[i], 2e-7),
                                  "%s: %g became %g", e->name, (double)e->w[i], (double)recon[i]);
            }
        }
}
END_TEST

START_TEST(tiny_weights_are_quantized)
{
    static const float tiny[4] = {1e-38f, 2e-38f, -1e-38f, 3e-45f};
    static const size_t at[2] = {0, 4};
    QuantizeInput in = {1, at, tiny, NULL};
    Quantized q;
    ck_assert_int_eq(
        quantize_uniform(&in, 1e-38f, NULL, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error), 0);
    check_result(&in, &q, QUANTIZE_SCOPE_MODEL);
    ck_assert_int_eq(q.levels, 4);
    ck_assert_int_eq(quantize_kmeans(&in, NULL, 4, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     0);
    check_result(&in, &q, QUANTIZE_SCOPE_MODEL);
    ck_assert(recon[0] == 1e-38f && recon[1] == 2e-38f && recon[2] == -1e-38f);
}
END_TEST

START_TEST(centres_beyond_float_become_one)
{
    /* In units of the scale these two are 1e39 and 2e39: both become the largest float. */
    static const float values[3] = {1e36f, 2e36f, 1};
    static const size_t at[3] = {0, 2, 3};
    static const float steps[2] = {1e-3f, 1};
    QuantizeInput in = {2, at, values, NULL};
    Quantized q;
    ck_assert_int_eq(
        quantize_uniform(&in, 1, steps, QUANTIZE_SCOPE_TENSOR, true, arena, &q, &error), 0);
    check_result(&in, &q, QUANTIZE_SCOPE_TENSOR);
    ck_assert_int_eq(q.levels, 2);
    ck_assert_int_eq(q.symbol[0], q.symbol[1]);
}
END_TEST

START_TEST(no_weights_make_one_level)
{
    static const size_t at[3] = {0, 0, 0};
    QuantizeInput none = {0, at, w, h}, empty = {2, at, w, h};
    const QuantizeInput *inputs[2] = {&none, &empty};
    for (size_t k = 0; k < 2; k++) {
        Quantized q;
        ck_assert_int_eq(
            quantize_relative_steps(inputs[k], QUANTIZE_SCOPE_TENSOR, relative, &error), 0);
        ck_assert_int_eq(quantize_uniform(inputs[k], 1, relative, QUANTIZE_SCOPE_TENSOR, true,
                                          arena, &q, &error),
                         0);
        check_result(inputs[k], &q, QUANTIZE_SCOPE_TENSOR);
        ck_assert_int_eq(q.levels, 1);
        ck_assert_int_eq(quantize_kmeans(inputs[k], relative, 5, QUANTIZE_SCOPE_TENSOR, true, arena,
                                         &q, &error),
                         0);
        ck_assert_int_eq(q.levels, 1);
    }
}
END_TEST

START_TEST(kmeans_refuses_a_bad_k)
{
    w[0] = 1;
    QuantizeInput in = {1, one_tensor_offset, w, NULL};
    Quantized q;
    ck_assert_int_eq(quantize_kmeans(&in, NULL, 0, QUANTIZE_SCOPE_MODEL, true, arena, &q, &error),
                     ONNXPRESS_USAGE);
    error = (Error){0};
    ck_assert_int_eq(quantize_kmeans(&in, NULL, QUANTIZE_MAX_LEVELS + 1, QUANTIZE_SCOPE_MODEL,
                                     true, arena, &q, &error),
                     ONNXPRESS_GOAL);
}
END_TEST

/* --- The search --- */

typedef struct {
    double threshold, noise;
    int calls, fail_at; /* fail_at: the call that returns an error; 0: none */
    double yes[64];     /* x measured as meeting */
    int n_yes;
    double power;         /* of the excess; 0: 2 */
    double broken_from;   /* above it nothing can be measured; 0: nowhere */
    double nothing_below; /* below it the excess is 0 */
    bool size;            /* the excess grows like the bytes of a grid: with the logarithm */
} Measured;

static int measure(void *context, double x, double *excess, Error *err)
{
    Measured *m = context;
    if (++m->calls == m->fail_at)
        return error_set(err, ONNXPRESS_DATA, "no such data");
    *excess = pow(x / m->threshold * exp(m->noise * normal()), m->power > 0 ? m->power : 2);
    if (m->size)
        *excess = log1p(x) / log1p(m->threshold);
    if (m->broken_from > 0 && x > m->broken_from)
        *excess = INFINITY;
    if (x < m->nothing_below)
        *excess = 0;
    if (*excess <= 1)
        m->yes[m->n_yes++] = x;
    return ONNXPRESS_OK;
}

static int search(double low, double high, double guess, int steps, Measured *m, double *best,
                  Error *err)
{
    QuantizeRange range = {low, high, guess, 0.97, steps};
    return quantize_search(&range, measure, m, best, err);
}

START_TEST(search_finds_the_threshold)
{
    int calls = 0;
    for (int round = 0; round < 200; round++) {
        double low = exp(3 * normal()), high = low * exp(8 * uniform01()), best = 0;
        Measured m = {.threshold = low * pow(high / low, uniform01()),
                      .power = 0.5 + 3 * uniform01()};
        if (round % 4 == 1)
            m.broken_from = m.threshold * (1 + uniform01());
        if (round % 4 == 2)
            m.nothing_below = m.threshold * uniform01();
        double guess = round % 3 ? low * pow(high / low, uniform01()) : 0;
        ck_assert_int_eq(search(low, high, guess, 20, &m, &best, &error), 0);
        ck_assert(best <= m.threshold);
        ck_assert(pow(best / m.threshold, m.power) >= 0.97 || best >= m.threshold * (1 - 2e-3));
        ck_assert_int_le(m.calls, 21);
        calls += m.calls;
    }
    ck_assert_int_le(calls, 200 * 8);
}
END_TEST

/* However far off the guess is: bytes hardly change from one step to the next. */
START_TEST(search_finds_a_size)
{
    for (int round = 0; round < 100; round++) {
        double best = 0;
        Measured m = {.threshold = exp(4 + 3 * uniform01()), .size = true};
        ck_assert_int_eq(search(1, 1e6, exp(13 * uniform01()), 13, &m, &best, &error), 0);
        ck_assert(best <= m.threshold && log1p(best) / log1p(m.threshold) >= 0.97);
    }
}
END_TEST

START_TEST(search_returns_what_was_measured)
{
    int found = 0;
    for (int round = 0; round < 500; round++) {
        double best = -1;
        Measured m = {.threshold = exp(2 * normal()), .noise = 0.5};
        Error e = {0};
        int status = search(0.5, 2, 0.5 + uniform01(), (int)below(12), &m, &best, &e);
        if (status) {
            ck_assert_int_eq(status, ONNXPRESS_GOAL);
            ck_assert_int_eq(m.n_yes, 0);
            continue;
        }
        found++;
        bool measured = false;
        for (int i = 0; i < m.n_yes; i++)
            measured |= m.yes[i] == best;
        ck_assert(measured);
        ck_assert(best >= 0.5 && best <= 2);
    }
    ck_assert_int_gt(found, 100);
}
END_TEST

START_TEST(search_ends)
{
    double best = 0;
    Measured easy = {.threshold = 1e9};
    ck_assert_int_eq(search(1, 100, 10, 10, &easy, &best, &error), 0);
    ck_assert(best == 100);
    ck_assert_int_le(easy.calls, 3);
    Measured only_low = {.threshold = 1};
    ck_assert_int_eq(search(1, 100, 50, 10, &only_low, &best, &error), 0);
    ck_assert(best == 1);
    Measured hopeless = {.threshold = 0.5};
    ck_assert_int_eq(search(1, 100, 50, 10, &hopeless, &best, &error), ONNXPRESS_GOAL);
    error = (Error){0};
    Measured point = {.threshold = 0.5};
    ck_assert_int_eq(search(1, 1, 1, 10, &point, &best, &error), ONNXPRESS_GOAL);
    ck_assert_int_eq(point.calls, 1);
    for (int call = 1; call <= 3; call++) {
        Measured failing = {.threshold = 0.5, .fail_at = call};
        error = (Error){0};
        ck_assert_int_eq(search(1, 100, 100, 10, &failing, &best, &error), ONNXPRESS_DATA);
    }
    static const double bad[4][2] = {{0, 1}, {-1, 1}, {2, 1}, {1, INFINITY}};
    for (size_t i = 0; i < 4; i++) {
        error = (Error){0};
        ck_assert_int_eq(search(bad[i][0], bad[i][1], 1, 10, &easy, &best, &error),
                         ONNXPRESS_USAGE);
    }
}
END_TEST

static Suite *quantize_suite(void)
{
    Suite *suite = suite_create("quantize");
    const struct {
        const char *name;
        const TTest *tests[8]; /* up to the first NULL */
    } cases[] = {
        {"steps", {steps_follow_mean_importance}},
        {"uniform",
         {uniform_is_its_definition, weighting_and_refits_pay,
          tensors_without_evidence_keep_their_step, a_cell_without_importance_takes_the_plain_mean,
          grids_may_be_wide_but_not_full}},
        {"kmeans",
         {kmeans_finds_the_optimum_of_few_weights, kmeans_comes_near_the_optimum,
          kmeans_weighs_tensors_by_their_step, kmeans_settles,
          kmeans_beats_the_grid_at_equal_levels, kmeans_refuses_a_bad_k}},
        {"edges",
         {tiny_weights_are_quantized, centres_beyond_float_become_one, no_weights_make_one_level}},
        {"search", {search_finds_the_threshold, search_finds_a_size, search_returns_what_was_measured,
                    search_ends}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        TCase *tcase = tcase_create(cases[c].name);
        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, setup, teardown);
        for (size_t t = 0; cases[c].tests[t]; t++)
            tcase_add_test(tcase, cases[c].tests[t]);
        if (!strcmp(cases[c].name, "edges"))
            tcase_add_loop_test(tcase, edges_are_quantized, 0, sizeof edges / sizeof *edges);
        suite_add_tcase(suite, tcase);
    }
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(quantize_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
