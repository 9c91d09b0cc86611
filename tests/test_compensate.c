/* SPDX-License-Identifier: Apache-2.0
 *
 * Error compensation against its definition: the optimum over the weights not yet rounded, solved
 * directly in double for each weight in turn. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quantize/quantize.h"

#define MOST_COLUMNS 160
#define MOST_WEIGHTS 40000

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

static Arena *arena;
static Error error;
static float w[MOST_WEIGHTS], other[MOST_WEIGHTS], recon[MOST_WEIGHTS];
static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};

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

static void *make(size_t count, size_t size)
{
    void *block = arena_array(arena, count, size);
    ck_assert_ptr_nonnull(block);
    return block;
}

/* ---- layers ---- */

/* A layer with its inputs' moments before and after quantize_factor. */
typedef struct {
    QuantizeMatrix matrix;
    float *moment; /* as given */
    float *factor;
} Layer;

/* Moments of inputs that lie near a subspace of `rank` dimensions; NaN above the diagonal. */
static void random_moments(float *moment, size_t n, size_t rank)
{
    double *mix = make(n * rank, sizeof *mix);
    for (size_t i = 0; i < n * rank; i++)
        mix[i] = normal();
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = i == j ? 0.05 : 0;
            for (size_t k = 0; k < rank; k++)
                sum += mix[i * rank + k] * mix[j * rank + k];
            moment[i * n + j] = j <= i ? (float)sum : NAN;
        }
}

static void factorize(Layer *layer)
{
    QuantizeMatrix *m = &layer->matrix;
    size_t count = m->groups * m->columns * m->columns;
    layer->factor = make(count, sizeof *layer->factor);
    memcpy(layer->factor, layer->moment, count * sizeof *layer->factor);
    int rc = quantize_factor(m->groups, m->columns, layer->factor, &m->effect, &error);
    ck_assert_msg(!rc, "%s", error.message);
    ck_assert(m->effect > 0 && m->effect <= 1);
    m->factor = layer->factor;
}

/* By rows (a Conv or a Gemm with transB) or by columns (a MatMul). */
static Layer random_layer(size_t groups, size_t rows, size_t columns, size_t rank, bool by_row)
{
    Layer layer = {.matrix = {.groups = groups,
                              .rows = rows,
                              .columns = columns,
                              .row_stride = by_row ? columns : 1,
                              .column_stride = by_row ? 1 : groups * rows}};
    layer.moment = make(groups * columns * columns, sizeof *layer.moment);
    for (size_t g = 0; g < groups; g++)
        random_moments(layer.moment + g * columns * columns, columns, rank);
    factorize(&layer);
    return layer;
}

static size_t place(const QuantizeMatrix *m, size_t g, size_t r, size_t c)
{
    return (g * m->rows + r) * m->row_stride + c * m->column_stride;
}

static size_t weights_of(const QuantizeMatrix *m)
{
    return m->groups * m->rows * m->columns;
}

static void random_weights(float *values, size_t n, double spread)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(spread * normal());
}

static double entry(const float *lower, size_t n, size_t i, size_t j)
{
    return (double)(i >= j ? lower[i * n + j] : lower[j * n + i]);
}

/* Inverse of a positive definite [n][n] in place, by Gauss and Jordan. */
static void invert(double *a, size_t n)
{
    for (size_t p = 0; p < n; p++) {
        double pivot = 1 / a[p * n + p];
        a[p * n + p] = 1;
        for (size_t j = 0; j < n; j++)
            a[p * n + j] *= pivot;
        for (size_t i = 0; i < n; i++) {
            double f = a[i * n + p];
            if (i == p)
                continue;
            a[i * n + p] = 0;
            for (size_t j = 0; j < n; j++)
                a[i * n + j] -= f * a[p * n + j];
        }
    }
}

/* inv(U'U) of one group: moment + damping, as the factor has it. */
static double *damped(const Layer *layer, size_t group)
{
    size_t n = layer->matrix.columns;
    const float *u = layer->factor + group * n * n;
    double *h = make(n * n, sizeof *h);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k <= (i < j ? i : j); k++)
                h[i * n + j] += (double)u[k * n + i] * (double)u[k * n + j];
    invert(h, n);
    return h;
}

static Quantized compensate(const QuantizeInput *in, const QuantizeMatrix *matrix, float step,
                            const float *relative, QuantizeScope scope, int threads)
{
    Quantized q;
    int rc = quantize_compensated(in, matrix, step, relative, 0.5f, scope, threads, arena, &q,
                                  &error);
    ck_assert_msg(!rc, "%s", error.message);
    return q;
}

/* Sum over rows of e'He, H the moments without damping. */
static double answer_error(const Layer *layer, const float *original, const float *rounded)
{
    const QuantizeMatrix *m = &layer->matrix;
    double sum = 0;
    for (size_t g = 0; g < m->groups; g++)
        for (size_t r = 0; r < m->rows; r++)
            for (size_t i = 0; i < m->columns; i++)
                for (size_t j = 0; j < m->columns; j++) {
                    size_t a = place(m, g, r, i), b = place(m, g, r, j);
                    sum += ((double)original[a] - (double)rounded[a]) *
                           ((double)original[b] - (double)rounded[b]) *
                           entry(layer->moment + g * m->columns * m->columns, m->columns, i, j);
                }
    return sum;
}

/* ---- the factor ---- */

START_TEST(factor_inverts_the_damped_moments)
{
    static const size_t sizes[] = {1, 2, 3, 9, 25, 150};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t n = sizes[s];
        Layer layer = random_layer(2, 1, n, 1 + n / 3, true);
        double kept = 0, whole = 0;
        for (size_t g = 0; g < 2; g++) {
            const float *moment = layer.moment + g * n * n, *u = layer.factor + g * n * n;
            double mean = 0, *h = damped(&layer, g);
            for (size_t i = 0; i < n; i++)
                mean += (double)moment[i * n + i] / (double)n;
            double damping = h[0] - (double)moment[0];
            ck_assert(damping > 0 && damping < mean);
            for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < n; j++) {
                    ck_assert(j >= i || u[i * n + j] == 0);
                    double expected = entry(moment, n, i, j) + (i == j ? damping : 0);
                    ck_assert_double_eq_tol(h[i * n + j], expected, 2e-5 * mean * (double)(n + 1));
                }
                kept += 1 / ((double)u[i * n + i] * (double)u[i * n + i]);
                whole += h[i * n + i];
            }
        }
        ck_assert_double_eq_tol(layer.matrix.effect, kept / whole, 1e-4);
    }
}
END_TEST

START_TEST(effect_tells_how_far_inputs_are_tied)
{
    ck_assert_double_lt(random_layer(1, 1, 60, 3, true).matrix.effect, 0.4);
    enum { N = 5 };
    Layer layer = {.matrix = {.groups = 1, .rows = 1, .columns = N}};
    layer.moment = make(N * N, sizeof *layer.moment);
    for (size_t i = 0; i < N; i++)
        layer.moment[i * N + i] = (float)(i + 1);
    factorize(&layer);
    ck_assert_double_eq_tol(layer.matrix.effect, 1, 1e-6); /* nothing to take an error up */
}
END_TEST

START_TEST(silent_inputs_are_allowed)
{
    /* All silent; one silent group beside another; one silent input; all inputs the same. */
    enum { N = 6 };
    for (int kind = 0; kind < 4; kind++) {
        Layer layer = {
            .matrix = {.groups = 2, .rows = 4, .columns = N, .row_stride = N, .column_stride = 1}};
        layer.moment = make(2 * N * N, sizeof *layer.moment);
        for (size_t g = 0; g < 2; g++)
            for (size_t i = 0; i < N; i++)
                for (size_t j = 0; j <= i; j++) {
                    bool heard = kind == 1 ? g == 1 : kind == 2 ? i != 3 && j != 3 : kind == 3;
                    layer.moment[(g * N + i) * N + j] = heard ? 2.5f : 0;
                }
        factorize(&layer);
        for (size_t i = 0; i < 2 * N * N; i++)
            ck_assert(isfinite(layer.factor[i]));
        size_t n = weights_of(&layer.matrix), at[2] = {0, n};
        random_weights(w, n, 1);
        QuantizeInput in = {1, at, w, NULL};
        Quantized q = compensate(&in, &layer.matrix, 0.3f, ones, QUANTIZE_SCOPE_MODEL, 1);
        quantize_reconstruct(&in, &q, recon);
        for (size_t g = 0; g < 2; g++)
            for (size_t r = 0; r < 4; r++)
                for (size_t c = 0; c < N; c++) {
                    /* A silent input neither gives its error to others nor takes theirs. */
                    size_t i = place(&layer.matrix, g, r, c);
                    bool alone = kind == 0 || (kind == 1 && g == 0) || (kind == 2 && c == 3);
                    ck_assert(!alone || recon[i] == rintf(w[i] / 0.3f) * 0.3f);
                }
    }
}
END_TEST

START_TEST(moments_that_are_no_numbers_are_refused)
{
    static const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 6; k++) {
        float moment[2 * 9] = {1, 0, 0, .1f, 1, 0, .1f, .1f, 1, 1, 0, 0, .1f, 1, 0, .1f, .1f, 1};
        moment[k < 3 ? 4 : 9 + 6] = bad[k % 3];
        double effect;
        error = (Error){0};
        ck_assert_int_eq(quantize_factor(2, 3, moment, &effect, &error), ONNXPRESS_DATA);
        ck_assert_str_ne(error.message, "");
    }
}
END_TEST

/* ---- rounding ---- */

/* Walks a row with the result's own cells: each must be the nearest to the optimum that the errors
 * before it leave, w + inv(H_FF) H_FS e, within what float rounding may move a tie. Returns how
 * many cells differ from plain ones. */
static size_t check_row(const double *h, const float *value, const float *rounded, size_t n,
                        float step, double low, double high)
{
    double *rest = make(n * n, sizeof *rest);
    size_t moved = 0;
    for (size_t c = 0; c < n; c++) {
        size_t left = n - c;
        for (size_t i = 0; i < left; i++)
            for (size_t j = 0; j < left; j++)
                rest[i * left + j] = h[(c + i) * n + c + j];
        invert(rest, left);
        double target = (double)value[c];
        for (size_t j = 0; j < left; j++)
            for (size_t s = 0; s < c; s++)
                target += rest[j] * h[(c + j) * n + s] * ((double)value[s] - (double)rounded[s]);
        double cell = (double)rounded[c] / (double)step;
        double nearest = fmin(fmax(target / (double)step, low), high);
        ck_assert_double_eq_tol(cell, rint(cell), 1e-4);
        ck_assert_double_le(fabs(cell - nearest), 0.5 + 2e-3);
        moved += rint(cell) != rint((double)value[c] / (double)step);
    }
    return moved;
}

START_TEST(each_weight_is_rounded_at_the_optimum_left)
{
    static const struct {
        size_t groups, rows, columns, rank;
        bool by_row;
    } shapes[] = {{1, 1, 2, 1, true},  {1, 3, 5, 2, true},   {1, 3, 5, 2, false},
                  {3, 2, 9, 3, true},  {3, 10, 9, 4, false}, {1, 9, 25, 5, true},
                  {2, 17, 6, 2, true}, {1, 8, 1, 1, true}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int fine = 0; fine < 2; fine++) {
            Layer layer = random_layer(shapes[s].groups, shapes[s].rows, shapes[s].columns,
                                       shapes[s].rank, shapes[s].by_row);
            const QuantizeMatrix *m = &layer.matrix;
            size_t n = weights_of(m), at[2] = {0, n}, moved = 0;
            float step = fine ? 0.05f : 0.8f; /* the coarse one meets the bound on cells */
            random_weights(w, n, 1);
            QuantizeInput in = {1, at, w, NULL};
            Quantized q = compensate(&in, m, step, ones, QUANTIZE_SCOPE_MODEL, 2);
            quantize_reconstruct(&in, &q, recon);
            double low = 0, high = 0; /* one cell beyond the plain ones */
            for (size_t i = 0; i < n; i++) {
                low = fmin(low, rint((double)(w[i] / step)));
                high = fmax(high, rint((double)(w[i] / step)));
            }
            for (size_t g = 0; g < m->groups; g++) {
                double *h = damped(&layer, g);
                for (size_t r = 0; r < m->rows; r++) {
                    float value[MOST_COLUMNS], rounded[MOST_COLUMNS];
                    for (size_t c = 0; c < m->columns; c++) {
                        value[c] = w[place(m, g, r, c)];
                        rounded[c] = recon[place(m, g, r, c)];
                    }
                    moved += check_row(h, value, rounded, m->columns, step, low - 1, high + 1);
                }
            }
            ck_assert(n < 40 || (moved > 0) == (m->columns > 1));
        }
}
END_TEST

START_TEST(answers_change_less_than_with_plain_rounding)
{
    random_state = (uint64_t)_i;
    Layer layer = random_layer(1, 200, 48, 6, _i % 2);
    size_t n = weights_of(&layer.matrix), at[2] = {0, n};
    random_weights(w, n, 1);
    QuantizeInput in = {1, at, w, NULL};
    Quantized q = compensate(&in, &layer.matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 2);
    quantize_reconstruct(&in, &q, recon);
    double small = answer_error(&layer, w, recon);
    QuantizeMatrix unknown = layer.matrix;
    unknown.factor = NULL;
    q = compensate(&in, &unknown, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 2);
    quantize_reconstruct(&in, &q, other);
    double plain = answer_error(&layer, w, other);
    ck_assert(plain > 0);
    ck_assert_double_lt(small, 0.25 * plain);

    /* And with the damping counted, as much less as `effect` says. */
    double *h = damped(&layer, 0), with = 0, without = 0;
    const QuantizeMatrix *m = &layer.matrix;
    for (size_t r = 0; r < m->rows; r++)
        for (size_t i = 0; i < m->columns; i++)
            for (size_t j = 0; j < m->columns; j++) {
                size_t a = place(m, 0, r, i), b = place(m, 0, r, j);
                double x = h[i * m->columns + j];
                with += x * (double)(w[a] - recon[a]) * (double)(w[b] - recon[b]);
                without += x * (double)(w[a] - other[a]) * (double)(w[b] - other[b]);
            }
    ck_assert_double_eq_tol(with / without, m->effect, 0.2 * m->effect);
}
END_TEST

/* And what is rounded afterwards, too. */
START_TEST(pruned_weights_are_taken_up_and_stay_zero)
{
    random_state = (uint64_t)_i;
    Layer layer = random_layer(1, 200, 48, 6, _i % 2);
    size_t n = weights_of(&layer.matrix), at[2] = {0, n}, pruned = 0;
    random_weights(w, n, 1);
    for (size_t i = 0; i < n; i++)
        other[i] = fabsf(w[i]) < 0.5f ? 0 : w[i];
    QuantizeInput in = {1, at, w, NULL};
    float *values = make(n, sizeof *values), *once = make(n, sizeof *once);
    memcpy(values, other, n * sizeof *values);
    memcpy(once, other, n * sizeof *once);
    ck_assert(!quantize_pruned(&in, &layer.matrix, 2, values, &error));
    ck_assert(!quantize_pruned(&in, &layer.matrix, 1, once, &error));
    ck_assert_mem_eq(values, once, n * sizeof *once);
    ck_assert_double_lt(answer_error(&layer, w, values), 0.5 * answer_error(&layer, w, other));
    in.w = values;
    Quantized q = compensate(&in, &layer.matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 2);
    quantize_reconstruct(&in, &q, recon);
    for (size_t i = 0; i < n; i++)
        if (other[i] == 0) {
            ck_assert(values[i] == 0 && recon[i] == 0);
            pruned++;
        }
    ck_assert_uint_gt(pruned, n / 4);
    ck_assert_double_lt(answer_error(&layer, w, recon), 0.5 * answer_error(&layer, w, other));

    QuantizeMatrix unknown = layer.matrix; /* stays as it is */
    unknown.factor = NULL;
    in.w = w;
    memcpy(values, other, n * sizeof *values);
    ck_assert(!quantize_pruned(&in, &unknown, 2, values, &error));
    ck_assert_mem_eq(values, other, n * sizeof *values);
}
END_TEST

START_TEST(layouts_give_the_same_cells)
{
    enum { GROUPS = 2, ROWS = 11, COLUMNS = 13 };
    Layer layer = random_layer(GROUPS, ROWS, COLUMNS, 3, true);
    QuantizeMatrix turned = layer.matrix;
    turned.row_stride = 1;
    turned.column_stride = GROUPS * ROWS;
    size_t n = weights_of(&turned), at[2] = {0, n};
    random_weights(w, n, 1);
    for (size_t r = 0; r < GROUPS * ROWS; r++)
        for (size_t c = 0; c < COLUMNS; c++)
            other[c * GROUPS * ROWS + r] = w[r * COLUMNS + c];
    QuantizeInput in = {1, at, w, NULL}, across = {1, at, other, NULL};
    Quantized a = compensate(&in, &layer.matrix, 0.2f, ones, QUANTIZE_SCOPE_MODEL, 1);
    Quantized b = compensate(&across, &turned, 0.2f, ones, QUANTIZE_SCOPE_MODEL, 1);
    ck_assert_int_eq(a.levels, b.levels);
    for (size_t r = 0; r < GROUPS * ROWS; r++)
        for (size_t c = 0; c < COLUMNS; c++)
            ck_assert_uint_eq(a.symbol[r * COLUMNS + c], b.symbol[c * GROUPS * ROWS + r]);
}
END_TEST

/* Three tensors: a layer, one without inputs (a bias), and a layer of other strides. */
typedef struct {
    Layer first, last;
    QuantizeMatrix matrix[3];
    size_t offset[4];
    QuantizeInput in;
    float h[MOST_WEIGHTS];
} Model;

static Model *random_model(void)
{
    Model *model = make(1, sizeof *model);
    model->first = random_layer(2, 37, 18, 4, true);
    model->last = random_layer(1, 30, 20, 4, false);
    model->matrix[0] = model->first.matrix;
    model->matrix[1] = (QuantizeMatrix){.effect = 1};
    model->matrix[2] = model->last.matrix;
    model->offset[1] = weights_of(&model->matrix[0]);
    model->offset[2] = model->offset[1] + 50;
    model->offset[3] = model->offset[2] + weights_of(&model->matrix[2]);
    random_weights(w, model->offset[3], 1);
    for (size_t i = 0; i < model->offset[3]; i++)
        model->h[i] = (float)exp(normal());
    model->in = (QuantizeInput){3, model->offset, w, model->h};
    return model;
}

START_TEST(threads_change_nothing)
{
    Model *model = random_model();
    Quantized one = compensate(&model->in, model->matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 1);
    for (int threads = 2; threads <= 3; threads++) {
        Quantized q =
            compensate(&model->in, model->matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, threads);
        ck_assert_int_eq(q.levels, one.levels);
        ck_assert(!memcmp(q.symbol, one.symbol, model->offset[3] * sizeof *q.symbol));
        ck_assert(!memcmp(q.centre, one.centre, (size_t)one.levels * sizeof *q.centre));
        ck_assert(q.distortion == one.distortion);
    }
}
END_TEST

START_TEST(values_are_whole_multiples_of_the_step)
{
    static const float relative[3] = {0.5f, 1.25f, 2};
    Model *model = random_model();
    for (int s = 0; s < 2; s++) {
        QuantizeScope scope = s ? QUANTIZE_SCOPE_TENSOR : QUANTIZE_SCOPE_MODEL;
        const float *steps = s ? relative : ones;
        Quantized q = compensate(&model->in, model->matrix, 0.15f, steps, scope, 2);
        bool *used = make((size_t)q.levels, sizeof *used);
        double distortion = 0;
        quantize_reconstruct(&model->in, &q, recon);
        for (size_t t = 0; t < 3; t++) {
            ck_assert(q.scale[t] == (s ? 0.15f * relative[t] : 1));
            for (size_t i = model->offset[t]; i < model->offset[t + 1]; i++) {
                ck_assert_int_lt(q.symbol[i], q.levels);
                used[q.symbol[i]] = true;
                float cell = recon[i] / (0.15f * steps[t]);
                ck_assert(recon[i] == rintf(cell) * (0.15f * steps[t]));
                ck_assert(t != 1 || rintf(cell) == rintf(w[i] / (0.15f * steps[t])));
                double d = (double)w[i] - (double)recon[i];
                distortion += (double)model->h[i] * d * d;
            }
        }
        for (int c = 0; c < q.levels; c++) {
            ck_assert(used[c]);
            ck_assert(c == 0 || q.centre[c] > q.centre[c - 1]);
        }
        ck_assert_double_eq_tol(q.distortion, distortion, 1e-9 * distortion);
    }
}
END_TEST

START_TEST(tensors_do_not_touch_each_other)
{
    Model *model = random_model();
    Quantized all = compensate(&model->in, model->matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 2);
    quantize_reconstruct(&model->in, &all, recon);
    for (size_t t = 0; t < 3; t++) {
        size_t first = model->offset[t], at[2] = {0, model->offset[t + 1] - first};
        QuantizeInput in = {1, at, w + first, NULL};
        Quantized q = compensate(&in, &model->matrix[t], 0.1f, ones, QUANTIZE_SCOPE_MODEL, 1);
        quantize_reconstruct(&in, &q, other);
        for (size_t i = 0; i < at[1]; i++)
            ck_assert(other[i] == recon[first + i]);
    }
}
END_TEST

START_TEST(exact_zeros_stay)
{
    Layer layer = random_layer(1, 20, 20, 3, true);
    size_t n = weights_of(&layer.matrix), at[2] = {0, n};
    QuantizeInput in = {1, at, w, NULL};
    for (int sparse = 0; sparse < 2; sparse++) {
        random_weights(w, n, 1);
        for (size_t i = 0; i < (sparse ? n * 9 / 10 : n / 20); i++)
            w[i * 3 % n] = 0;
        Quantized q = compensate(&in, &layer.matrix, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 2);
        quantize_reconstruct(&in, &q, recon);
        size_t changed = 0, moved = 0;
        for (size_t i = 0; i < n; i++) {
            changed += w[i] == 0 && recon[i] != 0;
            moved += recon[i] != rintf(w[i] / 0.1f) * 0.1f;
        }
        ck_assert_uint_eq(changed, 0);
        ck_assert_uint_gt(moved, 0); /* the others do take up errors */
    }
}
END_TEST

START_TEST(nothing_to_round_is_no_error)
{
    static const size_t none[2] = {0, 0};
    QuantizeInput in = {0, none, w, NULL};
    QuantizeMatrix matrix = {.effect = 1};
    Quantized q = compensate(&in, NULL, 0.1f, ones, QUANTIZE_SCOPE_MODEL, 1);
    ck_assert(q.distortion == 0);
    in.n_tensors = 1;
    q = compensate(&in, &matrix, 0.1f, ones, QUANTIZE_SCOPE_TENSOR, 2);
    ck_assert(q.distortion == 0);
}
END_TEST

START_TEST(steps_that_cannot_be_are_refused)
{
    static const float bad[] = {0, -0.1f, NAN, INFINITY};
    Layer layer = random_layer(1, 2, 2, 1, true);
    static const size_t at[2] = {0, 4};
    QuantizeInput in = {1, at, w, NULL};
    Quantized q;
    random_weights(w, 4, 1);
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        error = (Error){0};
        ck_assert_int_eq(quantize_compensated(&in, &layer.matrix, bad[k], ones, 0.5f,
                                              QUANTIZE_SCOPE_MODEL, 1, arena, &q, &error),
                         ONNXPRESS_USAGE);
        ck_assert_str_ne(error.message, "");
    }
}
END_TEST

START_TEST(a_narrow_cell_at_zero_keeps_small_weights)
{
    static const float values[] = {0, 0.39f, -0.41f, 0.49f, -0.51f, 1.4f, 1.6f, -0.39f};
    static const float narrow[] = {0, 0, -1, 1, -1, 1, 2, 0}, plain[] = {0, 0, 0, 0, -1, 1, 2, 0};
    static const size_t at[2] = {0, 8};
    QuantizeMatrix matrix = {.effect = 1};
    QuantizeInput in = {1, at, w, NULL};
    float rounded[8];
    Quantized q;
    memcpy(w, values, sizeof values);
    for (int k = 0; k < 2; k++) {
        ck_assert_int_eq(quantize_compensated(&in, &matrix, 1, ones, k ? 0.5f : 0.4f,
                                              QUANTIZE_SCOPE_MODEL, 1, arena, &q, &error),
                         ONNXPRESS_OK);
        quantize_reconstruct(&in, &q, rounded);
        ck_assert_mem_eq(rounded, k ? plain : narrow, sizeof rounded);
    }
    static const float bad[] = {0, -0.1f, 0.51f, NAN};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        ck_assert_int_eq(quantize_compensated(&in, &matrix, 1, ones, bad[k], QUANTIZE_SCOPE_MODEL,
                                              1, arena, &q, &error),
                         ONNXPRESS_USAGE);
}
END_TEST

START_TEST(a_grid_stretched_by_outliers_has_few_levels)
{
    Layer layer = random_layer(1, 2, 2, 1, true);
    static const size_t at[2] = {0, 4};
    QuantizeInput in = {1, at, w, NULL};
    Quantized q;
    /* The largest cell that leaves room for compensation, and the next. */
    for (int beyond = 0; beyond < 2; beyond++) {
        int most = (1 << 20) - 1 + beyond;
        float values[4] = {(float)most, (float)-most, 0.3f, -0.6f};
        memcpy(w, values, sizeof values);
        error = (Error){0};
        int rc = quantize_compensated(&in, &layer.matrix, 1, ones, 0.5f, QUANTIZE_SCOPE_MODEL, 1,
                                      arena, &q, &error);
        ck_assert_int_eq(rc, beyond ? ONNXPRESS_GOAL : ONNXPRESS_OK);
        ck_assert(beyond || q.levels <= 4);
    }
    ck_assert_msg(strstr(error.message, "levels") != NULL, "%s", error.message);
    ck_assert_int_eq(quantize_compensated(&in, &layer.matrix, 1e-38f, ones, 0.5f,
                                          QUANTIZE_SCOPE_MODEL, 1, arena, &q, &error),
                     ONNXPRESS_GOAL);
}
END_TEST

START_TEST(too_many_levels_are_refused)
{
    enum { N = QUANTIZE_MAX_LEVELS + 1 };
    float *values = malloc(N * sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (int i = 0; i < N; i++)
        values[i] = (float)(i - N / 2);
    QuantizeMatrix matrix = {.effect = 1};
    Quantized q;
    for (size_t n = N - 1; n <= N; n++) {
        const size_t at[2] = {0, n};
        QuantizeInput in = {1, at, values, NULL};
        error = (Error){0};
        int rc = quantize_compensated(&in, &matrix, 1, ones, 0.5f, QUANTIZE_SCOPE_MODEL, 1, arena,
                                      &q, &error);
        ck_assert_int_eq(rc, n == N ? ONNXPRESS_GOAL : ONNXPRESS_OK);
        ck_assert(n == N || q.levels == QUANTIZE_MAX_LEVELS);
    }
    ck_assert_msg(strstr(error.message, "levels") != NULL, "%s", error.message);
    free(values);
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
    Suite *suite = suite_create("compensate");
    TCase *factor = add_case(suite, "factor");
    tcase_add_test(factor, factor_inverts_the_damped_moments);
    tcase_add_test(factor, effect_tells_how_far_inputs_are_tied);
    tcase_add_test(factor, silent_inputs_are_allowed);
    tcase_add_test(factor, moments_that_are_no_numbers_are_refused);
    TCase *rounding = add_case(suite, "rounding");
    tcase_add_test(rounding, each_weight_is_rounded_at_the_optimum_left);
    tcase_add_loop_test(rounding, answers_change_less_than_with_plain_rounding, 0, 8);
    tcase_add_loop_test(rounding, pruned_weights_are_taken_up_and_stay_zero, 0, 4);
    tcase_add_test(rounding, layouts_give_the_same_cells);
    tcase_add_test(rounding, threads_change_nothing);
    tcase_add_test(rounding, values_are_whole_multiples_of_the_step);
    tcase_add_test(rounding, tensors_do_not_touch_each_other);
    tcase_add_test(rounding, exact_zeros_stay);
    TCase *edges = add_case(suite, "edges");
    tcase_add_test(edges, nothing_to_round_is_no_error);
    tcase_add_test(rounding, a_narrow_cell_at_zero_keeps_small_weights);
    tcase_add_test(edges, steps_that_cannot_be_are_refused);
    tcase_add_test(edges, a_grid_stretched_by_outliers_has_few_levels);
    tcase_add_test(edges, too_many_levels_are_refused);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
