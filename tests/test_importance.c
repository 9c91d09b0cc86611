/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "importance/importance.h"

/* Enough for three blocks, the last one short. */
#define SAMPLES 70

static Error error;
static Model *model;
static Program *program;
static Dataset *dataset;
static Feed *feed;
static Arena *arena;
static int64_t sample[1000];
static int n_weights;

static void setup(void)
{
    memset(&error, 0, sizeof error);
    arena = arena_create();
    ck_assert_msg(!model_load("testdata/lenet5_mnist.onnx", &model, &error), "%s", error.message);
    ck_assert_msg(!program_build(model, &program, &error), "%s", error.message);
    ck_assert_msg(!dataset_open("testdata/mnist_calibration.npy", &dataset, &error), "%s",
                  error.message);
    FeedOptions options = {0};
    ck_assert_msg(!feed_create(program, dataset, &options, &feed, &error), "%s", error.message);
    n_weights = program_weights(program);
    ck_assert_int_eq(n_weights, 8);
    for (int64_t i = 0; i < 1000; i++)
        sample[i] = i;
}

static void teardown(void)
{
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
}

static const OutputKind logits[1] = {OUTPUT_LOGITS};
static const OutputKind values[1] = {OUTPUT_VALUES};
static const double variance[1] = {2.5};

static ImportanceOptions defaults(void)
{
    return (ImportanceOptions){.kind = logits,
                               .variance = variance,
                               .seed = 1,
                               .threads = 2,
                               .exact_columns = IMPORTANCE_EXACT_COLUMNS,
                               .draws = IMPORTANCE_DRAWS};
}

static float **compute(const ImportanceOptions *options, int64_t n)
{
    float **h = arena_array(arena, (size_t)n_weights, sizeof *h);
    int rc = importance_gauss_newton(program, feed, sample, n, options, arena, h, &error);
    ck_assert_msg(!rc, "%s", error.message);
    for (int w = 0; w < n_weights; w++)
        ck_assert_ptr_nonnull(h[w]);
    return h;
}

static bool same(float **a, float **b)
{
    for (int w = 0; w < n_weights; w++) {
        size_t bytes = (size_t)program_weight(program, w)->count * sizeof(float);
        if (memcmp(a[w], b[w], bytes) != 0)
            return false;
    }
    return true;
}

/* Largest over the tensors of |a - b| / |b|. */
static double difference(float **a, float **b)
{
    double worst = 0;
    for (int w = 0; w < n_weights; w++) {
        double apart = 0, size = 0;
        for (int64_t i = 0; i < program_weight(program, w)->count; i++) {
            double d = (double)a[w][i] - (double)b[w][i];
            apart += d * d;
            size += (double)b[w][i] * (double)b[w][i];
        }
        ck_assert(size > 0);
        worst = fmax(worst, sqrt(apart / size));
    }
    return worst;
}

START_TEST(threads_change_nothing)
{
    ImportanceOptions options = defaults();
    options.exact_columns = _i ? 0 : IMPORTANCE_EXACT_COLUMNS;
    options.threads = 1;
    float **one = compute(&options, SAMPLES);
    for (options.threads = 2; options.threads <= 3; options.threads++)
        ck_assert(same(one, compute(&options, SAMPLES)));
}
END_TEST

START_TEST(a_bound_on_memory_changes_rounding_alone)
{
    ImportanceOptions options = defaults();
    float **free_of_bounds = compute(&options, SAMPLES);
    options.memory = 6 << 20;
    options.threads = 1;
    float **bounded = compute(&options, SAMPLES);
    ck_assert_double_le(difference(bounded, free_of_bounds), 1e-5);
    options.threads = 3;
    ck_assert(same(bounded, compute(&options, SAMPLES)));
    options.memory = 1000; /* not even one sample: an error, or one sample at a time */
    float **h = arena_array(arena, (size_t)n_weights, sizeof *h);
    int rc = importance_gauss_newton(program, feed, sample, 2, &options, arena, h, &error);
    ck_assert_int_eq(rc, ONNXPRESS_MEMORY);
    ck_assert_str_ne(error.message, "");
}
END_TEST

START_TEST(samples_add_up)
{
    /* The mean over 70 is made of the means over the first 40 and the other 30. */
    ImportanceOptions options = defaults();
    options.exact_columns = _i ? 0 : IMPORTANCE_EXACT_COLUMNS;
    float **all = compute(&options, 70), **first = compute(&options, 40);
    memmove(sample, sample + 40, 30 * sizeof *sample);
    float **rest = compute(&options, 30);
    for (int w = 0; w < n_weights; w++) {
        for (int64_t i = 0; i < program_weight(program, w)->count; i++)
            first[w][i] = (40 * first[w][i] + 30 * rest[w][i]) / 70;
    }
    ck_assert_double_le(difference(first, all), 1e-5);
}
END_TEST

START_TEST(order_of_samples_changes_rounding_alone)
{
    ImportanceOptions options = defaults();
    options.exact_columns = 0; /* draws are tied to samples, not to their places */
    float **forward = compute(&options, SAMPLES);
    for (int64_t i = 0; i < SAMPLES; i++)
        sample[i] = SAMPLES - 1 - i;
    ck_assert_double_le(difference(compute(&options, SAMPLES), forward), 1e-5);
}
END_TEST

START_TEST(seeds_change_draws_and_nothing_else)
{
    ImportanceOptions options = defaults();
    float **exact = compute(&options, 10);
    options.seed = 2;
    ck_assert(same(exact, compute(&options, 10)));
    options.exact_columns = 9; /* one fewer than LeNet-5 has */
    float **drawn = compute(&options, 10);
    ck_assert(!same(exact, drawn));
    ck_assert(same(drawn, compute(&options, 10)));
    options.seed = 3;
    ck_assert(!same(drawn, compute(&options, 10)));
}
END_TEST

START_TEST(draws_average_to_the_exact_diagonal)
{
    /* One draw's square has a deviation of about sqrt(2) of what it estimates, so k draws err by
     * sqrt(2 / k), and four times as many by half of that. */
    ImportanceOptions options = defaults();
    float **exact = compute(&options, 20);
    options.exact_columns = 0;
    options.draws = 16;
    double few = difference(compute(&options, 20), exact);
    options.draws = 160;
    double many = difference(compute(&options, 20), exact);
    ck_assert_double_le(few, 0.75);
    ck_assert_double_le(many, 0.2);
    ck_assert_double_lt(many, 0.6 * few);
}
END_TEST

START_TEST(values_scale_with_their_variance)
{
    ImportanceOptions options = defaults();
    options.kind = values;
    float **h = compute(&options, 10);
    const double other[1] = {10};
    options.variance = other;
    float **quarter = compute(&options, 10);
    for (int w = 0; w < n_weights; w++) {
        for (int64_t i = 0; i < program_weight(program, w)->count; i++)
            quarter[w][i] *= 4;
    }
    ck_assert_double_le(difference(quarter, h), 1e-5);
    /* The last bias moves its own output by itself: h = 1 / (classes * variance). */
    for (int w = 0; w < n_weights; w++) {
        if (program_weight(program, w)->count != 10)
            continue;
        for (int64_t i = 0; i < 10; i++)
            ck_assert_double_eq_tol((double)h[w][i], 1 / (10 * 2.5), 1e-6);
    }
}
END_TEST

START_TEST(an_answer_that_overflows_is_named)
{
    Feed *loud = NULL;
    FeedOptions scaling = {.scale = 1e36}; /* finite itself, but not the sums over it */
    ck_assert_msg(!feed_create(program, dataset, &scaling, &loud, &error), "%s", error.message);
    sample[0] = 17;
    ImportanceOptions options = defaults();
    float **h = arena_array(arena, (size_t)n_weights, sizeof *h);
    int rc = importance_gauss_newton(program, loud, sample, SAMPLES, &options, arena, h, &error);
    feed_free(loud);
    ck_assert_int_eq(rc, ONNXPRESS_DATA);
    ck_assert_msg(strstr(error.message, "sample 17:") != NULL, "%s", error.message);
}
END_TEST

/* ---- progress ---- */

typedef struct {
    int calls, stop_at;
    double last;
    bool fell;
} Watch;

static int watch_progress(void *context, double share)
{
    Watch *watch = context;
    watch->fell |= share < watch->last || share > 1;
    watch->last = share;
    return ++watch->calls == watch->stop_at;
}

START_TEST(progress_rises_to_one)
{
    Watch watch = {0};
    ImportanceOptions options = defaults();
    options.progress = watch_progress;
    options.context = &watch;
    compute(&options, SAMPLES);
    ck_assert(!watch.fell);
    ck_assert_double_eq_tol(watch.last, 1, 1e-9);
    ck_assert_int_ge(watch.calls, 3);
}
END_TEST

START_TEST(progress_can_stop_it)
{
    Watch watch = {.stop_at = _i};
    ImportanceOptions options = defaults();
    options.progress = watch_progress;
    options.context = &watch;
    float **h = arena_array(arena, (size_t)n_weights, sizeof *h);
    int rc = importance_gauss_newton(program, feed, sample, SAMPLES, &options, arena, h, &error);
    ck_assert_int_eq(rc, ONNXPRESS_INTERRUPTED);
    ck_assert_int_eq(error.code, ONNXPRESS_INTERRUPTED);
    ck_assert_int_eq(watch.calls, _i); /* it is not asked again */
}
END_TEST

/* ---- without data ---- */

/* And, where small ones are to be finer: all elements of a smaller one than the typical together as
 * much as the typical. */
START_TEST(weights_alone_give_their_inverse_mean_square)
{
    float **h = arena_array(arena, (size_t)n_weights, sizeof *h);
    ck_assert(!importance_from_weights(program, _i, arena, h, &error));
    int64_t total = 0, typical = 0, above = 0;
    for (int w = 0; w < n_weights; w++)
        total += program_weight(program, w)->count;
    for (int w = 0; w < n_weights; w++) { /* the largest count with half of the elements above it */
        int64_t count = program_weight(program, w)->count;
        above = 0;
        for (int other = 0; other < n_weights; other++)
            if (program_weight(program, other)->count >= count)
                above += program_weight(program, other)->count;
        if (2 * above >= total && count > typical)
            typical = count;
    }
    for (int w = 0; w < n_weights; w++) {
        const Weight *weight = program_weight(program, w);
        double loss = 0;
        int64_t different = 0;
        for (int64_t i = 0; i < weight->count; i++) {
            different += h[w][i] != h[w][0];
            loss += (double)h[w][i] * (double)weight->data[i] * (double)weight->data[i];
        }
        ck_assert_int_eq(different, 0);
        double smaller = _i ? (double)typical / (double)weight->count : 1;
        ck_assert_double_eq_tol(loss / (double)weight->count / fmin(fmax(smaller, 1), 256), 1, 1e-5);
    }
}
END_TEST

int main(void)
{
    openblas_set_num_threads(1); /* as the pipeline does: the threads are ours */
    Suite *suite = suite_create("importance");
    TCase *diagonal = tcase_create("diagonal");
    tcase_add_checked_fixture(diagonal, setup, teardown);
    tcase_set_timeout(diagonal, 300);
    tcase_add_loop_test(diagonal, threads_change_nothing, 0, 2);
    tcase_add_test(diagonal, a_bound_on_memory_changes_rounding_alone);
    tcase_add_loop_test(diagonal, samples_add_up, 0, 2);
    tcase_add_test(diagonal, order_of_samples_changes_rounding_alone);
    tcase_add_test(diagonal, seeds_change_draws_and_nothing_else);
    tcase_add_test(diagonal, draws_average_to_the_exact_diagonal);
    tcase_add_test(diagonal, values_scale_with_their_variance);
    tcase_add_test(diagonal, an_answer_that_overflows_is_named);
    suite_add_tcase(suite, diagonal);
    TCase *progress = tcase_create("progress");
    tcase_add_checked_fixture(progress, setup, teardown);
    tcase_set_timeout(progress, 120);
    tcase_add_test(progress, progress_rises_to_one);
    tcase_add_loop_test(progress, progress_can_stop_it, 1, 4);
    suite_add_tcase(suite, progress);
    TCase *fallback = tcase_create("without data");
    tcase_add_checked_fixture(fallback, setup, teardown);
    tcase_add_loop_test(fallback, weights_alone_give_their_inverse_mean_square, 0, 2);
    suite_add_tcase(suite, fallback);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
