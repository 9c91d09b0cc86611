/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/loss.h"

#define MOST 512 /* elements of any output here */

static uint64_t random_state;

static double uniform(void) /* in [0, 1), by a linear congruential generator */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

typedef struct {
    OutputKind kind;
    Shape shape;
    int64_t n;
    double spread; /* logits lie in ±spread */
} Case;

static const Case cases[] = {
    {OUTPUT_LOGITS, {2, {3, 10}}, 3, 3},
    {OUTPUT_LOGITS, {2, {2, 2}}, 2, 1},
    {OUTPUT_LOGITS, {2, {4, 10}}, 4, 40},
    {OUTPUT_LOGITS, {1, {7}}, 1, 2},
    {OUTPUT_LOGITS, {2, {6, 5}}, 2, 2},
    {OUTPUT_LOGITS, {3, {2, 4, 6}}, 2, 4},
    {OUTPUT_LOGITS, {4, {2, 5, 2, 3}}, 2, 4},
    {OUTPUT_PROBABILITIES, {2, {3, 10}}, 3, 3},
    {OUTPUT_PROBABILITIES, {2, {3, 10}}, 3, 30},
    {OUTPUT_PROBABILITIES, {3, {1, 4, 6}}, 1, 3},
    {OUTPUT_PROBABILITIES, {4, {2, 3, 2, 2}}, 2, 3},
    {OUTPUT_BERNOULLI, {2, {3, 4}}, 3, 4},
    {OUTPUT_BERNOULLI, {4, {2, 1, 2, 2}}, 2, 12},
    {OUTPUT_VALUES, {2, {3, 4}}, 3, 5},
    {OUTPUT_VALUES, {0, {0}}, 1, 5},
};
#define N_CASES ((int)(sizeof cases / sizeof *cases))
#define VARIANCE 0.37

static real answer[MOST], v[MOST];
static double matrix[MOST * MOST], expected[MOST * MOST];

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Softmax of one row in place. */
static void softmax(real *z, int64_t classes, int64_t stride)
{
    double total = 0;
    for (int64_t c = 0; c < classes; c++)
        total += exp((double)z[c * stride]);
    for (int64_t c = 0; c < classes; c++)
        z[c * stride] = (real)(exp((double)z[c * stride]) / total);
}

static Value make_answer(const Case *test)
{
    Value value = {.dtype = DTYPE_FLOAT, .shape = test->shape, .r = answer};
    ck_assert(shape_count(&test->shape, &value.count));
    ck_assert_int_le(value.count, MOST);
    for (int64_t i = 0; i < value.count; i++) {
        answer[i] = (real)(test->spread * (2 * uniform() - 1));
        if (test->kind == OUTPUT_BERNOULLI)
            answer[i] = (real)sigmoid((double)answer[i]);
    }
    OutputLayout layout = output_layout(test->kind, &test->shape);
    for (int64_t r = 0; test->kind == OUTPUT_PROBABILITIES && r < layout.rows; r++)
        softmax(answer + r / layout.inner * layout.row_stride + r % layout.inner, layout.classes,
                layout.class_stride);
    return value;
}

/* H of sample s, written down from the definitions: zero but for the blocks of its rows. `element`
 * numbers a sample's elements as they lie in memory. */
static void direct_matrix(const Case *test, int64_t s, int64_t elements)
{
    const real *z = answer + s * elements;
    memset(expected, 0, sizeof *expected * (size_t)(elements * elements));
    bool map = test->shape.rank == 4, spread = test->kind <= OUTPUT_PROBABILITIES;
    int64_t classes = !spread ? 1 : test->shape.dim[map ? 1 : test->shape.rank - 1];
    int64_t rows = elements / classes, stride = map && spread ? rows : 1;
    for (int64_t r = 0; r < rows; r++) {
        int64_t start = stride == 1 ? r * classes : r;
        double p[MOST], total = 0;
        for (int64_t c = 0; c < classes; c++) {
            p[c] = (double)z[start + c * stride];
            if (test->kind == OUTPUT_LOGITS)
                p[c] = exp(p[c]);
            total += p[c];
        }
        for (int64_t a = 0; a < classes; a++) {
            for (int64_t b = 0; b < classes; b++) {
                double pa = p[a] / total, pb = p[b] / total, h = 0;
                if (test->kind == OUTPUT_LOGITS)
                    h = (a == b ? pa : 0) - pa * pb;
                else if (test->kind == OUTPUT_PROBABILITIES)
                    h = (a == b ? 1 / pa : 0) - 1;
                else if (test->kind == OUTPUT_BERNOULLI)
                    h = 1 / (p[0] * (1 - p[0]));
                else
                    h = 1 / VARIANCE;
                expected[(start + a * stride) * elements + start + b * stride] = h / (double)rows;
            }
        }
    }
}

static void add_outer(const real *x, int64_t elements)
{
    for (int64_t a = 0; a < elements; a++) {
        for (int64_t b = 0; b < elements; b++)
            matrix[a * elements + b] += (double)x[a] * (double)x[b];
    }
}

START_TEST(columns_make_the_matrix)
{
    const Case *test = &cases[_i];
    random_state = (uint64_t)_i;
    Value value = make_answer(test);
    int64_t elements = value.count / test->n;
    int64_t columns = loss_columns(test->kind, &test->shape, test->n);
    ck_assert_int_eq(columns, elements);
    for (int64_t s = 0; s < test->n; s++) {
        direct_matrix(test, s, elements);
        memset(matrix, 0, sizeof matrix);
        for (int64_t k = 0; k < columns; k++) {
            for (int64_t i = 0; i < value.count; i++)
                v[i] = NAN; /* all of it must be written */
            loss_column(test->kind, &value, test->n, VARIANCE, k, v);
            add_outer(v + s * elements, elements);
        }
        for (int64_t a = 0; a < elements; a++) {
            for (int64_t b = 0; b < elements; b++) {
                double scale = sqrt(expected[a * elements + a] * expected[b * elements + b]);
                double error = matrix[a * elements + b] - expected[a * elements + b];
                ck_assert_msg(fabs(error) <= 2e-6 * scale, "case %d sample %d (%d,%d): %g for %g",
                              _i, (int)s, (int)a, (int)b, matrix[a * elements + b],
                              expected[a * elements + b]);
            }
        }
    }
}
END_TEST

START_TEST(a_sure_network_loses_no_digits)
{
    /* 1 - p is 4e-18 here: nothing that is computed as a difference from 1 would be left of it. */
    const real z[3] = {40, 0, -2};
    memcpy(answer, z, sizeof z);
    Value value = {.dtype = DTYPE_FLOAT, .shape = {2, {1, 3}}, .count = 3, .r = answer};
    double diagonal[3] = {0}, tail = exp(-40) + exp(-42), p0 = 1 / (1 + tail);
    for (int64_t k = 0; k < 3; k++) {
        loss_column(OUTPUT_LOGITS, &value, 1, 0, k, v);
        for (int c = 0; c < 3; c++)
            diagonal[c] += (double)v[c] * (double)v[c];
    }
    ck_assert_double_eq_tol(diagonal[0] / (p0 * p0 * tail), 1, 1e-6);
    ck_assert_double_eq_tol(diagonal[1] / exp(-40), 1, 1e-6);
    ck_assert_double_eq_tol(diagonal[2] / exp(-42), 1, 1e-6);
}
END_TEST

/* Through the softmax's own derivative, p * (v - p'v), the columns of probabilities are those of
 * their logits. */
START_TEST(probabilities_pull_back_to_logits)
{
    real z[12], p[12], from_p[12], from_z[12];
    random_state = 5;
    for (int i = 0; i < 12; i++)
        p[i] = z[i] = (real)(16 * uniform());
    softmax(p, 12, 1);
    Value logits = {.dtype = DTYPE_FLOAT, .shape = {2, {1, 12}}, .count = 12, .r = z};
    Value probabilities = logits;
    probabilities.r = p;
    int64_t sample = 9;
    for (int64_t k = 0; k < 24; k++) {
        if (k < 12) {
            loss_column(OUTPUT_LOGITS, &logits, 1, 0, k, from_z);
            loss_column(OUTPUT_PROBABILITIES, &probabilities, 1, 0, k, from_p);
        } else {
            loss_draw(OUTPUT_LOGITS, &logits, 0, 3, &sample, 1, k, from_z);
            loss_draw(OUTPUT_PROBABILITIES, &probabilities, 0, 3, &sample, 1, k, from_p);
        }
        double mean = 0;
        for (int c = 0; c < 12; c++)
            mean += (double)p[c] * (double)from_p[c];
        for (int c = 0; c < 12; c++) {
            double back = (double)p[c] * ((double)from_p[c] - mean);
            ck_assert_double_eq_tol(back, (double)from_z[c], 1e-6);
        }
    }
}
END_TEST

START_TEST(draws_have_the_matrix_as_mean)
{
    const Case *test = &cases[_i];
    random_state = (uint64_t)_i;
    Value value = make_answer(test);
    int64_t elements = value.count / test->n, draws = 20000;
    int64_t sample[8] = {11, 3, 5, 7, 0, 1, 2, 4};
    int64_t s = test->n - 1;
    direct_matrix(test, s, elements);
    memset(matrix, 0, sizeof matrix);
    for (int64_t d = 0; d < draws; d++) {
        loss_draw(test->kind, &value, VARIANCE, 1, sample, test->n, d, v);
        add_outer(v + s * elements, elements);
    }
    for (int64_t a = 0; a < elements; a++) {
        for (int64_t b = 0; b < elements; b++) {
            double scale = sqrt(expected[a * elements + a] * expected[b * elements + b]);
            double error = matrix[a * elements + b] / (double)draws - expected[a * elements + b];
            /* The product of two draws has a variance of at most 2 h_aa h_bb: six deviations. */
            ck_assert_msg(fabs(error) <= (6 * sqrt(2.0 / (double)draws) + 1e-5) * scale,
                          "case %d (%d,%d): %g off %g", _i, (int)a, (int)b, error, scale);
        }
    }
}
END_TEST

START_TEST(draws_depend_on_seed_sample_and_draw_alone)
{
    Case test = {OUTPUT_LOGITS, {3, {3, 4, 6}}, 3, 3};
    random_state = 77;
    Value value = make_answer(&test);
    int64_t sample[3] = {100, 7, 42};
    real together[72], alone[24], other[24];
    loss_draw(test.kind, &value, 0, 9, sample, 3, 2, together);
    for (int s = 0; s < 3; s++) {
        Value one = value;
        one.shape.dim[0] = 1;
        one.count = 24;
        one.r = answer + 24 * s;
        loss_draw(test.kind, &one, 0, 9, &sample[s], 1, 2, alone);
        ck_assert_mem_eq(alone, together + 24 * s, sizeof alone);
        loss_draw(test.kind, &one, 0, 10, &sample[s], 1, 2, other);
        ck_assert_mem_ne(alone, other, sizeof alone);
        loss_draw(test.kind, &one, 0, 9, &sample[s], 1, 3, other);
        ck_assert_mem_ne(alone, other, sizeof alone);
        loss_draw(test.kind, &one, 0, 9, &sample[(s + 1) % 3], 1, 2, other);
        ck_assert_mem_ne(alone, other, sizeof alone);
    }
}
END_TEST

/* ---- distance ---- */

static Distance distance(OutputKind kind, Shape shape, const real *a, const real *b)
{
    Distance d = {0};
    loss_distance(kind, &shape, 1, a, b, &d);
    return d;
}

START_TEST(distance_of_distributions)
{
    enum { ROWS = 5, CLASSES = 7 };
    real a[ROWS * CLASSES], b[ROWS * CLASSES], map_a[ROWS * CLASSES], map_b[ROWS * CLASSES];
    random_state = 3;
    double kl = 0, entropy = 0;
    int64_t same = 0;
    for (int r = 0; r < ROWS; r++) {
        double pa[CLASSES], pb[CLASSES], sum_a = 0, sum_b = 0;
        int top_a = 0, top_b = 0;
        for (int c = 0; c < CLASSES; c++) {
            int i = r * CLASSES + c;
            a[i] = (real)(6 * uniform() + 300); /* no exponential of this is finite in float32 */
            b[i] = (real)((double)a[i] - 300 + 2 * uniform());
            sum_a += pa[c] = exp((double)a[i]);
            sum_b += pb[c] = exp((double)b[i]);
            top_a = a[i] > a[r * CLASSES + top_a] ? c : top_a;
            top_b = b[i] > b[r * CLASSES + top_b] ? c : top_b;
            map_a[c * ROWS + r] = a[i];
            map_b[c * ROWS + r] = b[i];
        }
        same += top_a == top_b;
        for (int c = 0; c < CLASSES; c++) {
            kl += pa[c] / sum_a * log(pa[c] / sum_a / (pb[c] / sum_b));
            entropy -= pa[c] / sum_a * log(pa[c] / sum_a);
        }
    }
    Distance d = distance(OUTPUT_LOGITS, (Shape){2, {ROWS, CLASSES}}, a, b);
    ck_assert_double_eq_tol(d.kl, kl, 1e-9 * kl);
    ck_assert_double_eq_tol(d.entropy, entropy, 1e-9 * entropy);
    ck_assert_int_eq(d.same_top1, same);
    ck_assert_int_eq(d.rows, ROWS);
    ck_assert_int_eq(d.elements, ROWS * CLASSES);
    Distance m = distance(OUTPUT_LOGITS, (Shape){4, {1, CLASSES, ROWS, 1}}, map_a, map_b);
    ck_assert_double_eq_tol(m.kl, kl, 1e-9 * kl);
    ck_assert_int_eq(m.same_top1, same);
    ck_assert_int_eq(m.rows, ROWS);
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < CLASSES; c++)
            a[r * CLASSES + c] -= 300;
        softmax(a + r * CLASSES, CLASSES, 1);
        softmax(b + r * CLASSES, CLASSES, 1);
    }
    Distance p = distance(OUTPUT_PROBABILITIES, (Shape){2, {ROWS, CLASSES}}, a, b);
    ck_assert_double_eq_tol(p.kl, kl, 1e-6 * kl);
    ck_assert_double_eq_tol(p.entropy, entropy, 1e-6 * entropy);
    ck_assert_int_eq(p.same_top1, same);
    Distance own = distance(OUTPUT_PROBABILITIES, (Shape){2, {ROWS, CLASSES}}, a, a);
    ck_assert(own.kl == 0 && own.squared == 0 && own.max_error == 0);
    ck_assert_int_eq(own.same_top1, ROWS);
}
END_TEST

START_TEST(distance_of_coins_and_values)
{
    const real a[4] = {0.25f, 0.9f, 1, 0}, b[4] = {0.5f, 0.4f, 1, 0};
    double kl = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5);
    kl += (double)a[1] * log((double)a[1] / (double)b[1]) +
          (1 - (double)a[1]) * log((1 - (double)a[1]) / (1 - (double)b[1]));
    Distance d = distance(OUTPUT_BERNOULLI, (Shape){2, {2, 2}}, a, b);
    ck_assert_double_eq_tol(d.kl, kl, 1e-12);
    ck_assert_int_eq(d.same_top1, 3);
    ck_assert_int_eq(d.rows, 4);
    d = distance(OUTPUT_VALUES, (Shape){1, {4}}, a, b);
    ck_assert_double_eq_tol(d.squared, 0.0625 + 0.25, 1e-7);
    ck_assert_double_eq_tol(d.max_error, 0.5, 1e-7);
    ck_assert_double_eq_tol(d.sum, 2.15, 1e-6);
    ck_assert_double_eq_tol(d.sum2, 0.0625 + 0.81 + 1, 1e-6);
    ck_assert(d.kl == 0 && d.entropy == 0 && d.same_top1 == 0);
    ck_assert_int_eq(d.samples, 1);
    ck_assert_double_eq_tol(d.squared2, pow((0.0625 + 0.25) / 4, 2), 1e-7);
    loss_distance(OUTPUT_VALUES, &(Shape){1, {4}}, 1, a, b, &d);
    ck_assert_double_eq_tol(d.squared, 2 * (0.0625 + 0.25), 1e-7);
    ck_assert_double_eq_tol(d.max_error, 0.5, 1e-7);
    ck_assert_int_eq(d.elements, 8);
    ck_assert_int_eq(d.samples, 2);
}
END_TEST

/* Rows of one sample count as one for the error of the mean. */
START_TEST(distance_of_samples)
{
    const real a[6] = {0.25f, 0.9f, 1, 0, 0.5f, 0.5f}, b[6] = {0.5f, 0.4f, 1, 0, 0.25f, 0.5f};
    const Shape shape = {2, {3, 2}};
    double kl[3];
    Distance all = {0}, odd = {0};
    for (int s = 0; s < 3; s++)
        kl[s] = distance(OUTPUT_BERNOULLI, (Shape){2, {1, 2}}, a + 2 * s, b + 2 * s).kl / 2;
    loss_distance(OUTPUT_BERNOULLI, &shape, 3, a, b, &all);
    ck_assert_int_eq(all.samples, 3);
    ck_assert_double_eq_tol(all.kl, 2 * (kl[0] + kl[1] + kl[2]), 1e-12);
    ck_assert_double_eq_tol(all.kl2, kl[0] * kl[0] + kl[1] * kl[1] + kl[2] * kl[2], 1e-12);
    ck_assert_double_eq_tol(all.squared2, pow(0.3125 / 2, 2) + pow(0.0625 / 2, 2), 1e-7);
    loss_distance(OUTPUT_BERNOULLI, &shape, 4, a, b, &odd);
    ck_assert_int_eq(odd.samples, 1);
    ck_assert_double_eq_tol(odd.kl, all.kl, 1e-12);
}
END_TEST

START_TEST(certainty_and_its_opposite_are_finite)
{
    const real sure[3] = {1, 0, 0}, wrong[3] = {0, 1, 0}, faint[3] = {1, 1e-45f, 1e-38f};
    Distance d = distance(OUTPUT_PROBABILITIES, (Shape){2, {1, 3}}, sure, wrong);
    ck_assert(isfinite(d.kl) && d.kl > 50 && d.entropy == 0);
    d = distance(OUTPUT_BERNOULLI, (Shape){1, {3}}, sure, wrong);
    ck_assert(isfinite(d.kl) && d.kl > 17 && d.entropy == 0);
    const real far_a[2] = {2000, -2000}, far_b[2] = {-2000, 2000};
    d = distance(OUTPUT_LOGITS, (Shape){2, {1, 2}}, far_a, far_b);
    ck_assert_double_eq_tol(d.kl, 4000, 1e-9);
    for (int kind = OUTPUT_LOGITS; kind <= OUTPUT_BERNOULLI; kind++) {
        const real *rows[3] = {sure, wrong, faint};
        for (int r = 0; r < 3; r++) {
            memcpy(answer, rows[r], sizeof sure);
            Value value = {.dtype = DTYPE_FLOAT, .shape = {2, {1, 3}}, .count = 3, .r = answer};
            int64_t sample = 0;
            for (int64_t k = 0; k < 6; k++) {
                if (k < 3)
                    loss_column((OutputKind)kind, &value, 1, 0, k, v);
                else
                    loss_draw((OutputKind)kind, &value, 0, 1, &sample, 1, k, v);
                for (int c = 0; c < 3; c++)
                    ck_assert(isfinite(v[c]));
            }
        }
    }
    Value flat = {.dtype = DTYPE_FLOAT, .shape = {2, {1, 3}}, .count = 3, .r = answer};
    loss_column(OUTPUT_VALUES, &flat, 1, 0, 1, v); /* an output that never varies */
    ck_assert(v[0] == 0 && isfinite(v[1]) && v[1] > 0);
}
END_TEST

START_TEST(what_is_not_finite_is_infinitely_far)
{
    const real good[4] = {1, 2, 3, 4};
    const real bad[3] = {NAN, INFINITY, -INFINITY};
    for (int kind = OUTPUT_LOGITS; kind <= OUTPUT_VALUES; kind++) {
        for (int i = 0; i < 3; i++) {
            real spoilt[4] = {1, 2, bad[i], 4};
            Distance d = distance((OutputKind)kind, (Shape){2, {2, 2}}, good, spoilt);
            ck_assert(isinf(d.kl) && d.kl > 0 && isinf(d.squared) && isinf(d.max_error));
            ck_assert_int_eq(d.rows, kind <= OUTPUT_PROBABILITIES ? 2 : 4);
            d = distance((OutputKind)kind, (Shape){2, {2, 2}}, spoilt, good);
            ck_assert(isinf(d.kl) && isfinite(d.entropy) && isfinite(d.sum));
        }
    }
}
END_TEST

/* ---- kinds ---- */

START_TEST(kinds_have_names)
{
    for (int k = OUTPUT_LOGITS; k <= OUTPUT_VALUES; k++) {
        OutputKind kind = (OutputKind)((k + 1) % 4);
        ck_assert(output_kind_parse(output_kind_name((OutputKind)k), &kind));
        ck_assert_int_eq((int)kind, k);
    }
    OutputKind kind = OUTPUT_VALUES;
    ck_assert(!output_kind_parse("logit", &kind));
    ck_assert(!output_kind_parse("", &kind));
    ck_assert_int_eq((int)kind, OUTPUT_VALUES);
}
END_TEST

START_TEST(distributions_are_told_by_their_sums)
{
    /* A class map: the classes are axis 1. */
    real map[] = {0.25f, 1, 0.75f, 0};
    const Shape table = {2, {2, 2}}, image = {4, {1, 2, 1, 2}}, single = {2, {4, 1}};
    ck_assert(output_sums_to_one(&image, map));
    ck_assert(!output_sums_to_one(&table, map));
    ck_assert(!output_sums_to_one(&single, (real[]){1, 1, 1, 1}));
    ck_assert(!output_sums_to_one(&image, (real[]){-0.25f, 1, 1.25f, 0}));
    ck_assert(!output_sums_to_one(&image, (real[]){NAN, 1, 0.75f, 0}));
    ck_assert(!output_sums_to_one(&(Shape){2, {0, 3}}, map));
}
END_TEST

START_TEST(kinds_are_guessed_from_the_op)
{
    const struct {
        const char *op;
        Shape shape;
        OutputKind kind;
    } table[] = {
        {"Softmax", {3, {1, 9, 5}}, OUTPUT_PROBABILITIES},
        {"LogSoftmax", {2, {1, 9}}, OUTPUT_LOGITS},
        {"Sigmoid", {2, {1, 9}}, OUTPUT_BERNOULLI},
        {"Gemm", {2, {8, 2}}, OUTPUT_LOGITS},
        {"MatMul", {2, {8, 10}}, OUTPUT_LOGITS},
        {"Add", {2, {8, 10}}, OUTPUT_LOGITS},
        {"Gemm", {2, {8, 1}}, OUTPUT_VALUES},
        {"MatMul", {3, {8, 4, 10}}, OUTPUT_VALUES},
        {"Conv", {4, {1, 2, 4, 4}}, OUTPUT_VALUES},
        {"", {2, {8, 10}}, OUTPUT_VALUES},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        ProgramOutput output = {.name = "y", .dtype = DTYPE_FLOAT, .made_by = table[i].op};
        ck_assert_int_eq((int)output_kind_guess(&output, &table[i].shape), (int)table[i].kind);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loss");
    TCase *factors = tcase_create("factors");
    tcase_set_timeout(factors, 120);
    tcase_add_loop_test(factors, columns_make_the_matrix, 0, N_CASES);
    tcase_add_test(factors, a_sure_network_loses_no_digits);
    tcase_add_test(factors, probabilities_pull_back_to_logits);
    tcase_add_loop_test(factors, draws_have_the_matrix_as_mean, 0, N_CASES);
    tcase_add_test(factors, draws_depend_on_seed_sample_and_draw_alone);
    suite_add_tcase(suite, factors);
    TCase *distances = tcase_create("distances");
    tcase_add_test(distances, distance_of_distributions);
    tcase_add_test(distances, distance_of_coins_and_values);
    tcase_add_test(distances, distance_of_samples);
    tcase_add_test(distances, certainty_and_its_opposite_are_finite);
    tcase_add_test(distances, what_is_not_finite_is_infinitely_far);
    suite_add_tcase(suite, distances);
    TCase *kinds = tcase_create("kinds");
    tcase_add_test(kinds, kinds_have_names);
    tcase_add_test(kinds, distributions_are_told_by_their_sums);
    tcase_add_test(kinds, kinds_are_guessed_from_the_op);
    suite_add_tcase(suite, kinds);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
