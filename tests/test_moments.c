/* SPDX-License-Identifier: Apache-2.0
 *
 * Second moments of what a weight is multiplied with: w' M w must be the sum of the squares that
 * the layer really answers. */
#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "importance/importance.h"
#include "tiny_model.h"

#define SAMPLES 70 /* three blocks, the last one short */

static Error error;
static Arena *arena;
static Tiny *tiny;
static Model *model;
static Program *program;
static Exec *exec;
static Value input;
static real **acc; /* of every weight */

static void setup(void)
{
    openblas_set_num_threads(1);
    error = (Error){0};
    arena = arena_create();
    tiny = NULL;
    model = NULL;
    program = NULL;
    exec = NULL;
}

static void teardown(void)
{
    exec_free(exec);
    program_free(program);
    if (model)
        model_free(model);
    if (tiny)
        tiny_free(tiny);
    arena_destroy(arena);
}

static void *make(size_t count, size_t size)
{
    void *block = arena_array(arena, count, size);
    ck_assert_ptr_nonnull(block);
    return block;
}

static void build(void)
{
    ck_assert_msg(!program_build(model, &program, &error), "%s", error.message);
    ck_assert_msg(!exec_create(program, 0, &exec, &error), "%s", error.message);
}

static void run(Shape shape)
{
    uint64_t state = 5;
    input = (Value){.dtype = DTYPE_FLOAT, .shape = shape};
    ck_assert(shape_count(&shape, &input.count));
    input.r = make((size_t)input.count, sizeof *input.r);
    for (int64_t i = 0; i < input.count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        input.r[i] = (double)(state >> 11) * 0x1p-52 - 0.7;
    }
    ck_assert_msg(!exec_forward(exec, &input, EXEC_KEEP, &error), "%s", error.message);
}

static int named(const char *name)
{
    for (int w = 0; w < program_weights(program); w++)
        if (!strcmp(program_weight(program, w)->name, name))
            return w;
    ck_abort_msg("no weight %s", name);
    return -1;
}

static OpMatrix matrix_of(const char *name)
{
    OpMatrix m = {0};
    const Weight *weight = program_weight(program, named(name));
    ck_assert(program_matrix(program, named(name), &m));
    ck_assert(m.groups * m.rows * m.columns == weight->count);
    int64_t last = (m.groups * m.rows - 1) * m.row_stride + (m.columns - 1) * m.column_stride;
    ck_assert_int_eq(last, weight->count - 1);
    return m;
}

static size_t moment_count(const OpMatrix *m)
{
    return (size_t)(m->groups * m->columns * m->columns);
}

/* Moments of the last run of one weight, times `passes`: they are added up. */
static real *moments(const char *name, const OpMatrix *m, int passes)
{
    acc = make((size_t)program_weights(program), sizeof *acc);
    acc[named(name)] = make(moment_count(m), sizeof(real));
    for (int pass = 0; pass < passes; pass++)
        ck_assert_msg(!exec_moments(exec, acc, &error), "%s", error.message);
    return acc[named(name)];
}

/* Every row of the weight, against the layer's own answers; by_channel: along axis 1 (Conv), else
 * along the last axis. The weight has no bias, and the first output is alpha times its answer. */
static void check_rows(const char *name, bool by_channel, double alpha)
{
    OpMatrix m = matrix_of(name);
    real *sum = moments(name, &m, 2);
    const real *w = program_weight(program, named(name))->data;
    const Value *y = exec_output(exec, 0);
    int64_t outputs = m.groups * m.rows, inner = 1;
    for (int k = 2; by_channel && k < y->shape.rank; k++)
        inner *= y->shape.dim[k];
    ck_assert_int_eq(y->shape.dim[by_channel ? 1 : y->shape.rank - 1], outputs);
    double *squares = make((size_t)outputs, sizeof *squares);
    for (int64_t i = 0; i < y->count; i++)
        squares[i / inner % outputs] += y->r[i] * y->r[i] / (alpha * alpha);
    for (int64_t o = 0; o < outputs; o++) {
        const real *moment = sum + o / m.rows * m.columns * m.columns;
        double form = 0;
        for (int64_t i = 0; i < m.columns; i++)
            for (int64_t j = 0; j < m.columns; j++) {
                double a = w[o * m.row_stride + i * m.column_stride];
                double b = w[o * m.row_stride + j * m.column_stride];
                ck_assert(j <= i || moment[i * m.columns + j] == 0);
                form += a * b * moment[(i > j ? i : j) * m.columns + (i > j ? j : i)];
            }
        ck_assert(squares[o] > 0);
        ck_assert_double_eq_tol(form / 2, squares[o], 1e-10 * squares[o]);
    }
}

/* ---- layers ---- */

static const struct {
    const char *weight, *attributes;
    Shape x;
} convs[] = {
    {"[4,3,3,3]", NULL, {4, {2, 3, 7, 6}}},
    {"[4,3,1,1]", NULL, {4, {3, 3, 4, 5}}},
    {"[4,3,1,1]", "strides=[2,3]", {4, {3, 3, 4, 5}}},
    {"[5,2,3,2]", "strides=[2,1] pads=[1,0,2,1]", {4, {2, 2, 7, 6}}},
    {"[5,2,3,3]", "auto_pad=SAME_UPPER strides=[2,2]", {4, {2, 2, 7, 6}}},
    {"[4,2,3,3]", "dilations=[2,1] pads=[2,2,2,2]", {4, {1, 2, 7, 6}}},
    {"[6,2,3,3]", "group=3 pads=[1,1,1,1]", {4, {2, 6, 5, 4}}},
    {"[6,2,1,1]", "group=3", {4, {2, 6, 5, 4}}},
    {"[5,1,3,3]", "group=5 pads=[1,1,1,1]", {4, {2, 5, 6, 6}}},
    {"[10,1,3,3]", "group=5 strides=[2,2] dilations=[2,2]", {4, {2, 5, 9, 8}}},
    {"[4,3,5]", "strides=[2] pads=[2,1]", {3, {3, 3, 17}}},
    {"[3,1,4]", "group=3", {3, {2, 3, 9}}},
    {"[2,2,2,3,2]", "pads=[1,0,0,0,1,1]", {5, {2, 2, 4, 5, 4}}},
    {"[4,8,3,3]", NULL, {4, {1, 8, 90, 88}}}, /* more than a tile */
};

START_TEST(conv)
{
    static const char *const free_shapes[] = {"[-1,-1,-1]", "[-1,-1,-1,-1]", "[-1,-1,-1,-1,-1]"};
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, free_shapes[convs[_i].x.rank - 3]);
    tiny_reals(tiny, "w", convs[_i].weight, NULL);
    tiny_node(tiny, "Conv", "x w", "y", convs[_i].attributes);
    tiny_output(tiny, "y");
    model = tiny_load(tiny);
    build();
    run(convs[_i].x);
    check_rows("w", true, 1);
}
END_TEST

static const struct {
    const char *type, *weight, *attributes;
    double alpha;
    Shape x;
} products[] = {
    {"Gemm", "[5,3]", NULL, 1, {2, {7, 5}}},
    {"Gemm", "[3,5]", "transB=1", 1, {2, {7, 5}}},
    {"Gemm", "[5,3]", "transA=1", 1, {2, {5, 7}}},
    {"Gemm", "[3,5]", "transA=1 transB=1 alpha=0.5", 0.5, {2, {5, 7}}},
    {"Gemm", "[5,3]", "alpha=2.0", 2, {2, {7, 5}}},
    {"MatMul", "[5,3]", NULL, 1, {2, {7, 5}}},
    {"MatMul", "[5,3]", NULL, 1, {3, {4, 6, 5}}},
    {"MatMul", "[5,3]", NULL, 1, {4, {2, 3, 4, 5}}},
    {"MatMul", "[5,3]", NULL, 1, {1, {5}}},
};

START_TEST(product)
{
    static const char *const free_shapes[] = {"[-1]", "[-1,-1]", "[-1,-1,-1]", "[-1,-1,-1,-1]"};
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, free_shapes[products[_i].x.rank - 1]);
    tiny_reals(tiny, "w", products[_i].weight, NULL);
    tiny_node(tiny, products[_i].type, "x w", "y", products[_i].attributes);
    tiny_output(tiny, "y");
    model = tiny_load(tiny);
    build();
    run(products[_i].x);
    check_rows("w", false, products[_i].alpha);
}
END_TEST

static void check_moment(const real *found, int64_t n, int64_t stride, const real *x, int64_t rows,
                         double scale)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t row = 0; row < rows; row++)
                sum += scale * x[row * stride + i] * x[row * stride + j];
            ck_assert_double_eq_tol(found[i * n + j], sum, 1e-12 * (1 + fabs(sum)));
        }
}

/* A GRU's last gate is multiplied with reset * state, here half of it; a hidden state comes before
 * the input that is met with it. */
START_TEST(recurrent)
{
    enum { STEPS = 5, BATCH = 2, INPUTS = 3, HIDDEN = 2 };
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, "[-1,-1,3]");
    tiny_reals(tiny, "w", "[1,6,3]", NULL);
    tiny_reals(tiny, "r", "[1,6,2]", NULL);
    tiny_node(tiny, "GRU", "x w r", "y", NULL);
    tiny_output(tiny, "y");
    model = tiny_load(tiny);
    build();
    const real *given[] = {program_weight(program, 0)->data, program_weight(program, 1)->data};
    ck_assert_str_eq(program_weight(program, 0)->name, "w");
    real *w = make(6 * INPUTS, sizeof *w), *r = make(6 * HIDDEN, sizeof *r);
    memcpy(w, given[0], 6 * INPUTS * sizeof *w);
    memcpy(r, given[1], 6 * HIDDEN * sizeof *r);
    memset(w + 2 * INPUTS, 0, 2 * INPUTS * sizeof *w);
    memset(r + 2 * HIDDEN, 0, 2 * HIDDEN * sizeof *r);
    exec_set_weights(exec, (const real *[]){w, r});
    run((Shape){3, {STEPS, BATCH, INPUTS}});
    OpMatrix of_w = matrix_of("w"), of_r = matrix_of("r");
    ck_assert(of_w.groups == 1 && of_w.rows == 6 && of_r.groups == 3 && of_r.rows == 2);
    check_moment(moments("w", &of_w, 1), INPUTS, INPUTS, input.r, STEPS * BATCH, 1);
    const real *state = exec_output(exec, 0)->r, *found = moments("r", &of_r, 1);
    for (int gate = 0; gate < 3; gate++)
        check_moment(found + gate * HIDDEN * HIDDEN, HIDDEN, HIDDEN, state, (STEPS - 1) * BATCH,
                     gate == 2 ? 0.25 : 1);
}
END_TEST

START_TEST(biases_change_no_moments)
{
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, "[-1,2,-1]");
    tiny_reals(tiny, "w", "[3,2,3]", NULL);
    tiny_reals(tiny, "v", "[3,2,3]", NULL);
    tiny_reals(tiny, "b", "[3]", NULL);
    tiny_node(tiny, "Conv", "x w", "y", NULL);
    tiny_node(tiny, "Conv", "x v b", "z", NULL);
    tiny_output(tiny, "y");
    tiny_output(tiny, "z");
    model = tiny_load(tiny);
    build();
    run((Shape){3, {4, 2, 9}});
    OpMatrix m = matrix_of("w"), n = matrix_of("v");
    real *plain = moments("w", &m, 1), *biased = moments("v", &n, 1);
    ck_assert(plain[0] > 0);
    ck_assert(!memcmp(plain, biased, moment_count(&m) * sizeof *plain));
}
END_TEST

START_TEST(deeper_layers_have_their_own_inputs)
{
    /* y = relu(x A) B, with a weight between that is no matrix. */
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, "[-1,4]");
    tiny_reals(tiny, "a", "[4,6]", NULL);
    tiny_reals(tiny, "b", "[6,3]", NULL);
    tiny_reals(tiny, "s", "[6]", NULL);
    tiny_node(tiny, "MatMul", "x a", "p", NULL);
    tiny_node(tiny, "Mul", "p s", "q", NULL);
    tiny_node(tiny, "Relu", "q", "r", NULL);
    tiny_node(tiny, "Gemm", "r b", "y", NULL);
    tiny_output(tiny, "y");
    tiny_output(tiny, "p");
    model = tiny_load(tiny);
    build();
    run((Shape){2, {9, 4}});
    check_rows("b", false, 1);
}
END_TEST

START_TEST(what_is_no_matrix_of_one_layer)
{
    tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, "[-1,4]");
    tiny_reals(tiny, "twice", "[4,4]", NULL);
    tiny_reals(tiny, "left", "[4,2]", NULL);
    tiny_reals(tiny, "bias", "[4]", NULL);
    tiny_reals(tiny, "factor", "[4]", NULL);
    tiny_reals(tiny, "vector", "[4]", NULL);
    tiny_reals(tiny, "batch", "[3,4,4]", NULL);
    tiny_reals(tiny, "turned", "[2,4]", NULL);
    tiny_reals(tiny, "good", "[4,4]", NULL);
    tiny_node(tiny, "Gemm", "x twice bias", "a", NULL);
    tiny_node(tiny, "MatMul", "a twice", "b", NULL);
    tiny_node(tiny, "Mul", "b factor", "c", NULL);
    tiny_node(tiny, "MatMul", "left x", "d", NULL);
    tiny_node(tiny, "MatMul", "c vector", "e", NULL);
    tiny_node(tiny, "MatMul", "c batch", "f", NULL);
    tiny_node(tiny, "Transpose", "turned", "t", "perm=[1,0]");
    tiny_node(tiny, "MatMul", "c t", "g", NULL);
    tiny_node(tiny, "MatMul", "c good", "h", NULL);
    static const char *const outputs[] = {"d", "e", "f", "g", "h"};
    for (int k = 0; k < 5; k++)
        tiny_output(tiny, outputs[k]);
    model = tiny_load(tiny);
    build();
    OpMatrix m;
    static const char *const none[] = {"twice",  "left",  "bias",  "factor",
                                       "vector", "batch", "turned"};
    for (size_t k = 0; k < sizeof none / sizeof none[0]; k++)
        ck_assert_msg(!program_matrix(program, named(none[k]), &m), "%s", none[k]);
    ck_assert(program_matrix(program, named("good"), &m));
}
END_TEST

/* ---- over samples ---- */

static Dataset *dataset;
static Feed *feed;
static int64_t sample[SAMPLES];

static void setup_lenet(void)
{
    setup();
    ck_assert_msg(!model_load("testdata/lenet5_mnist.onnx", &model, &error), "%s", error.message);
    build();
    ck_assert_msg(!dataset_open("testdata/mnist_calibration.npy", &dataset, &error), "%s",
                  error.message);
    FeedOptions options = {0};
    ck_assert_msg(!feed_create(program, dataset, &options, &feed, &error), "%s", error.message);
    for (int64_t i = 0; i < SAMPLES; i++)
        sample[i] = 3 * i;
}

static void teardown_lenet(void)
{
    feed_free(feed);
    dataset_close(dataset);
    teardown();
}

static bool *all_wanted(void)
{
    bool *wanted = make((size_t)program_weights(program), sizeof *wanted);
    for (int w = 0; w < program_weights(program); w++)
        wanted[w] = true;
    return wanted;
}

static float **importance(const bool *wanted, int64_t n, const ImportanceOptions *options)
{
    float **moment = make((size_t)program_weights(program), sizeof *moment);
    int rc = importance_moments(program, feed, sample, n, wanted, options, arena, moment, &error);
    ck_assert_msg(!rc, "%s", error.message);
    return moment;
}

/* Numbers of the weight's moments; 0: it is no matrix. */
static size_t expected_count(int w)
{
    OpMatrix m;
    return program_matrix(program, w, &m) ? moment_count(&m) : 0;
}

START_TEST(means_are_over_samples)
{
    ImportanceOptions options = {.threads = 2};
    float **moment = importance(all_wanted(), SAMPLES, &options);
    FeedStore *store = feed_store_create();
    ck_assert_ptr_nonnull(store);
    ck_assert(!feed_batch(feed, sample, SAMPLES, store, &input, &error));
    ck_assert(!exec_forward(exec, &input, EXEC_KEEP, &error));
    acc = make((size_t)program_weights(program), sizeof *acc);
    for (int w = 0; w < program_weights(program); w++)
        if (expected_count(w))
            acc[w] = make(expected_count(w), sizeof **acc);
    ck_assert(!exec_moments(exec, acc, &error));
    feed_store_free(store);
    int layers = 0;
    for (int w = 0; w < program_weights(program); w++) {
        ck_assert((moment[w] != NULL) == (acc[w] != NULL));
        double most = 0;
        for (size_t i = 0; i < expected_count(w); i++)
            most = fmax(most, fabs(acc[w][i] / SAMPLES));
        for (size_t i = 0; i < expected_count(w); i++)
            ck_assert_double_eq_tol((double)moment[w][i], acc[w][i] / SAMPLES, 1e-6 * most);
        ck_assert(!moment[w] || most > 0);
        layers += moment[w] != NULL;
    }
    ck_assert_int_eq(layers, 4);
}
END_TEST

START_TEST(threads_change_nothing)
{
    ImportanceOptions options = {.threads = 1};
    float **one = importance(all_wanted(), SAMPLES, &options);
    for (options.threads = 2; options.threads <= 3; options.threads++) {
        float **more = importance(all_wanted(), SAMPLES, &options);
        for (int w = 0; w < program_weights(program); w++)
            ck_assert(!expected_count(w) ||
                      !memcmp(one[w], more[w], expected_count(w) * sizeof **one));
    }
}
END_TEST

START_TEST(only_wanted_weights_get_moments)
{
    ImportanceOptions options = {.threads = 2};
    float **all = importance(all_wanted(), 10, &options);
    for (int only = 0; only < program_weights(program); only++) {
        bool *wanted = make((size_t)program_weights(program), sizeof *wanted);
        wanted[only] = true;
        float **moment = importance(wanted, 10, &options);
        for (int w = 0; w < program_weights(program); w++)
            ck_assert((moment[w] != NULL) == (w == only && all[w]));
        if (moment[only])
            ck_assert(
                !memcmp(moment[only], all[only], expected_count(only) * sizeof *moment[only]));
    }
}
END_TEST

static int count_calls(void *context, double share)
{
    int *left = context;
    ck_assert(share > 0 && share <= 1);
    return --*left == 0;
}

START_TEST(progress_can_stop_it)
{
    int left = 2;
    ImportanceOptions options = {.threads = 2, .progress = count_calls, .context = &left};
    float **moment = make((size_t)program_weights(program), sizeof *moment);
    int rc = importance_moments(program, feed, sample, SAMPLES, all_wanted(), &options, arena,
                                moment, &error);
    ck_assert_int_eq(rc, ONNXPRESS_INTERRUPTED);
    ck_assert_int_eq(left, 0); /* it is not asked again */
    left = 100;
    importance(all_wanted(), SAMPLES, &options);
    ck_assert_int_eq(left, 97); /* once a block */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moments");
    TCase *layers = tcase_create("layers");
    tcase_add_checked_fixture(layers, setup, teardown);
    tcase_set_timeout(layers, 120);
    tcase_add_loop_test(layers, conv, 0, (int)(sizeof convs / sizeof convs[0]));
    tcase_add_loop_test(layers, product, 0, (int)(sizeof products / sizeof products[0]));
    tcase_add_test(layers, recurrent);
    tcase_add_test(layers, biases_change_no_moments);
    tcase_add_test(layers, deeper_layers_have_their_own_inputs);
    tcase_add_test(layers, what_is_no_matrix_of_one_layer);
    suite_add_tcase(suite, layers);
    TCase *samples = tcase_create("samples");
    tcase_add_checked_fixture(samples, setup_lenet, teardown_lenet);
    tcase_set_timeout(samples, 120);
    tcase_add_test(samples, means_are_over_samples);
    tcase_add_test(samples, threads_change_nothing);
    tcase_add_test(samples, only_wanted_weights_get_moments);
    tcase_add_test(samples, progress_can_stop_it);
    suite_add_tcase(suite, samples);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
