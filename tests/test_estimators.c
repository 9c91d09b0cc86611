/* SPDX-License-Identifier: Apache-2.0
 *
 * Built twice: as it ships, and in float64, where only the result is rounded. */
#define _GNU_SOURCE
#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "importance/importance.h"
#include "tensor/npy.h"
#include "tiny_model.h"

#define MOST 1000
/* Of a tensor's largest element. */
#define TOLERANCE (sizeof(real) == 8 ? 1e-6 : 1e-4)

static Error error;
static Model *model;
static Program *program;
static Dataset *dataset;
static Feed *feed;
static Arena *arena;
static int64_t sample[MOST], label[MOST];

static void open_all(const char *data)
{
    ck_assert_msg(!program_build(model, &program, &error), "%s", error.message);
    ck_assert_msg(!dataset_open(data, &dataset, &error), "%s", error.message);
    ck_assert_msg(!feed_create(program, dataset, &(FeedOptions){0}, &feed, &error), "%s",
                  error.message);
}

static void start(void)
{
    memset(&error, 0, sizeof error);
    arena = arena_create();
    for (int64_t i = 0; i < MOST; i++) {
        sample[i] = i;
        label[i] = i % 3;
    }
}

static void close_all(void)
{
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
    feed = NULL;
    dataset = NULL;
    program = NULL;
    model = NULL;
}

static const double variance[2] = {2.5, 1};

static int estimate(ImportanceKind kind, OutputKind output, const int64_t *labels, int64_t n,
                    int draws, uint64_t seed, int threads, float ***h)
{
    OutputKind kinds[2] = {output, output};
    ImportanceOptions options = {.kind = kinds,
                                 .variance = variance,
                                 .seed = seed,
                                 .threads = threads,
                                 .exact_columns = IMPORTANCE_EXACT_COLUMNS,
                                 .draws = draws};
    error = (Error){0};
    *h = arena_array(arena, (size_t)program_weights(program) + 1, sizeof **h);
    return importance_estimate(kind, program, feed, sample, n, labels, &options, arena, *h, &error);
}

static float **compute(ImportanceKind kind, OutputKind output, const int64_t *labels, int64_t n,
                       int draws, uint64_t seed, int threads)
{
    float **h;
    int rc = estimate(kind, output, labels, n, draws, seed, threads, &h);
    ck_assert_msg(!rc, "%s: %s", importance_name(kind), error.message);
    return h;
}

static int find(const char *name)
{
    for (int w = 0; w < program_weights(program); w++)
        if (!strcmp(program_weight(program, w)->name, name))
            return w;
    ck_abort_msg("no weight %s", name);
    return -1;
}

static void expect(const char *name, float *const *h, const double *wanted, double tolerance)
{
    int w = find(name);
    double most = 0;
    ck_assert_msg(h[w] != NULL, "%s has no importance", name);
    for (int64_t i = 0; i < program_weight(program, w)->count; i++)
        most = fmax(most, fabs(wanted[i]));
    ck_assert_msg(most > 0, "%s: nothing to compare", name);
    for (int64_t i = 0; i < program_weight(program, w)->count; i++)
        ck_assert_msg(fabs((double)h[w][i] - fmax(wanted[i], 0)) <= tolerance * most,
                      "%s[%d] is %g, not %g", name, (int)i, (double)h[w][i], wanted[i]);
}

static bool same(float **a, float **b)
{
    for (int w = 0; w < program_weights(program); w++)
        if (!a[w] != !b[w] ||
            (a[w] && memcmp(a[w], b[w], (size_t)program_weight(program, w)->count * sizeof **a)))
            return false;
    return true;
}

/* ---- names ---- */

START_TEST(names_are_read_back)
{
    ImportanceKind kind = IMPORTANCE_NONE;
    ck_assert(importance_parse(importance_name((ImportanceKind)_i), &kind));
    ck_assert_int_eq((int)kind, _i);
    ck_assert(!importance_parse("gauss", &kind));
    ck_assert(!importance_parse("", &kind));
}
END_TEST

/* ---- rules ---- */

/* A rule that is lost would only make weights fall back: nothing else would fail. */
START_TEST(these_alone_have_no_rule)
{
    static const char *const without[] = {"RNN", "LSTM", "GRU", "Loop", "Scan", "STFT"};
    size_t count;
    op_row(0, &count);
    ck_assert_uint_gt(count, 50);
    for (size_t r = 0; r < count; r++) {
        const OpRow *row = op_row(r, NULL);
        bool listed = false;
        for (size_t k = 0; k < sizeof without / sizeof without[0]; k++)
            listed |= !strcmp(row->type, without[k]);
        ck_assert_msg((row->backward && !row->curvature) == listed, "%s", row->type);
    }
}
END_TEST

START_TEST(every_weight_of_a_resnet_has_rules)
{
    static const char *const path[] = {"testdata/resnet20.onnx", "testdata/resnet32_bn.onnx"};
    ck_assert_msg(!model_load(path[_i], &model, &error), "%s", error.message);
    ck_assert_msg(!program_build(model, &program, &error), "%s", error.message);
    int n = program_weights(program), reached = 0;
    bool *curved = arena_array(arena, (size_t)n, 1), *sensed = arena_array(arena, (size_t)n, 1);
    ck_assert_int_eq(program_curvature(program, curved, &error), ONNXPRESS_OK);
    program_sensitivity(program, sensed);
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(program, w);
        bool wanted = weight->reaches && !weight->steers;
        ck_assert_msg(curved[w] == wanted, "%s", weight->name);
        ck_assert_msg(sensed[w] || !wanted, "%s", weight->name);
        reached += wanted;
    }
    ck_assert_int_ge(reached, 40);
}
END_TEST

/* ---- LeNet-5 ---- */

static void lenet(void)
{
    start();
    ck_assert_msg(!model_load("testdata/lenet5_mnist.onnx", &model, &error), "%s", error.message);
    open_all("testdata/mnist_calibration.npy");
}

/* Three blocks, the last one short. */
START_TEST(threads_change_nothing)
{
    ImportanceKind kind = (ImportanceKind)_i;
    for (int with_labels = kind == IMPORTANCE_EMPIRICAL_FISHER; with_labels < 2; with_labels++) {
        const int64_t *labels = with_labels ? label : NULL;
        float **one = compute(kind, OUTPUT_LOGITS, labels, 70, 1, 1, 1);
        for (int w = 0; w < program_weights(program); w++)
            ck_assert_ptr_nonnull(one[w]);
        ck_assert(same(one, compute(kind, OUTPUT_LOGITS, labels, 70, 1, 1, 3)));
    }
}
END_TEST

/* LeNet-5 is so sure that it takes many draws for one that is not the likeliest class. */
START_TEST(seeds_change_draws_and_nothing_else)
{
    static const struct {
        ImportanceKind kind;
        bool labels, drawn;
        int draws;
    } cases[] = {
        {IMPORTANCE_BECKER_LECUN, false, false, 1}, {IMPORTANCE_EMPIRICAL_FISHER, true, false, 1},
        {IMPORTANCE_MC_FISHER, false, true, 20},    {IMPORTANCE_HUTCHINSON, false, true, 1},
        {IMPORTANCE_HUTCHINSON, true, true, 1},     {IMPORTANCE_ADAM, false, true, 20},
        {IMPORTANCE_ADAM, true, false, 1},          {IMPORTANCE_ACTIVATION, false, false, 1},
        {IMPORTANCE_NONE, false, false, 1},
    };
    ImportanceKind kind = cases[_i].kind;
    const int64_t *labels = cases[_i].labels ? label : NULL;
    int draws = cases[_i].draws;
    for (int64_t i = 0; i < 64; i++)
        sample[i] = 15 * i;
    float **first = compute(kind, OUTPUT_LOGITS, labels, 64, draws, 1, 2);
    ck_assert(same(first, compute(kind, OUTPUT_LOGITS, labels, 64, draws, 1, 2)));
    ck_assert(same(first, compute(kind, OUTPUT_LOGITS, labels, 64, draws, 2, 2)) !=
              cases[_i].drawn);
}
END_TEST

/* Blocks become smaller, never other ones for other threads; what depends on no block's bounds is
 * the same but for rounding. */
START_TEST(a_bound_on_memory)
{
    ImportanceKind kind = (ImportanceKind)_i;
    OutputKind kinds[1] = {OUTPUT_LOGITS};
    ImportanceOptions options = {.kind = kinds, .variance = variance, .draws = 1, .seed = 1};
    float **unbound = compute(kind, OUTPUT_LOGITS, label, 40, 1, 1, 2), **bound[2];
    options.memory = 6 << 20;
    for (int k = 0; k < 2; k++) {
        options.threads = 1 + 2 * k;
        bound[k] = arena_array(arena, 8, sizeof **bound);
        int rc = importance_estimate(kind, program, feed, sample, 40, label, &options, arena,
                                     bound[k], &error);
        ck_assert_msg(!rc, "%s", error.message);
    }
    ck_assert(same(bound[0], bound[1]));
    ck_assert(!same(bound[0], unbound)); /* sums end elsewhere */
    bool by_block = kind == IMPORTANCE_HUTCHINSON || kind == IMPORTANCE_ADAM;
    for (int w = 0; w < 8 && !by_block; w++) {
        double apart = 0, size = 0;
        for (int64_t i = 0; i < program_weight(program, w)->count; i++) {
            apart += pow((double)bound[0][w][i] - (double)unbound[w][i], 2);
            size += pow((double)unbound[w][i], 2);
        }
        ck_assert(apart <= 1e-10 * size);
    }
    options.memory = 1000;
    int rc = importance_estimate(kind, program, feed, sample, 40, label, &options, arena, bound[0],
                                 &error);
    ck_assert_int_eq(rc, ONNXPRESS_MEMORY);
    ck_assert_msg(strstr(error.message, "memory") != NULL, "%s", error.message);
}
END_TEST

static double trace(float *const *h, int w)
{
    double sum = 0;
    for (int64_t i = 0; i < program_weight(program, w)->count; i++)
        sum += (double)h[w][i];
    return sum;
}

/* The mean of several seeds' traces is the exact one, within four of its own standard errors. */
START_TEST(drawn_answers_have_the_gauss_newton_mean)
{
    enum { SEEDS = 12, DRAWS = 20 };
    float **exact = compute(IMPORTANCE_GAUSS_NEWTON, OUTPUT_LOGITS, NULL, 48, 1, 1, 2);
    double sum[8] = {0}, squares[8] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        float **h = compute(IMPORTANCE_MC_FISHER, OUTPUT_LOGITS, NULL, 48, DRAWS, seed, 2);
        for (int w = 0; w < 8; w++) {
            double ratio = trace(h, w) / trace(exact, w);
            sum[w] += ratio;
            squares[w] += ratio * ratio;
        }
    }
    for (int w = 0; w < 8; w++) {
        double mean = sum[w] / SEEDS;
        double error_of_mean = sqrt((squares[w] / SEEDS - mean * mean) / (SEEDS - 1));
        ck_assert_msg(fabs(mean - 1) <= 4 * error_of_mean, "%s: %g, error %g",
                      program_weight(program, w)->name, mean, error_of_mean);
        ck_assert_msg(error_of_mean < 0.2 && error_of_mean > 1e-4, "%s: error %g",
                      program_weight(program, w)->name, error_of_mean);
    }
}
END_TEST

START_TEST(labels_are_checked)
{
    float **h;
    int rc = estimate(IMPORTANCE_EMPIRICAL_FISHER, OUTPUT_LOGITS, NULL, 20, 1, 1, 1, &h);
    ck_assert_int_eq(rc, ONNXPRESS_USAGE);
    ck_assert_msg(strstr(error.message, "labels") != NULL, "%s", error.message);
    static const ImportanceKind kinds[] = {IMPORTANCE_EMPIRICAL_FISHER, IMPORTANCE_HUTCHINSON,
                                           IMPORTANCE_ADAM, IMPORTANCE_BECKER_LECUN};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int below = 0; below < 2; below++) {
            label[17] = below ? -1 : 10;
            rc = estimate(kinds[k], OUTPUT_LOGITS, label, 40, 1, 1, 2, &h);
            ck_assert_int_eq(rc, ONNXPRESS_DATA);
            ck_assert_msg(strstr(error.message,
                                 below ? "sample 17: label -1" : "sample 17: label 10") != NULL,
                          "%s: %s", importance_name(kinds[k]), error.message);
        }
        label[17] = 9;
        compute(kinds[k], OUTPUT_LOGITS, label, 20, 1, 1, 2);
        rc = estimate(kinds[k], OUTPUT_VALUES, label, 20, 1, 1, 2, &h);
        ck_assert_int_eq(rc, ONNXPRESS_DATA);
        ck_assert_msg(strstr(error.message, "classifier") != NULL, "%s", error.message);
    }
}
END_TEST

START_TEST(none_makes_all_equal)
{
    float **h = compute(IMPORTANCE_NONE, OUTPUT_LOGITS, NULL, 1, 1, 1, 1);
    for (int w = 0; w < program_weights(program); w++)
        for (int64_t i = 0; i < program_weight(program, w)->count; i++)
            ck_assert(h[w][i] == 1);
}
END_TEST

static int stop(void *context, double share)
{
    ck_assert(share > 0 && share <= 1);
    return ++*(int *)context == 2;
}

START_TEST(all_can_be_stopped)
{
    OutputKind kinds[1] = {OUTPUT_LOGITS};
    int calls = 0;
    ImportanceOptions options = {.kind = kinds,
                                 .variance = variance,
                                 .threads = 2,
                                 .draws = 2,
                                 .progress = stop,
                                 .context = &calls};
    float **h = arena_array(arena, 8, sizeof *h);
    int rc = importance_estimate((ImportanceKind)_i, program, feed, sample, 100, label, &options,
                                 arena, h, &error);
    ck_assert_int_eq(rc, ONNXPRESS_INTERRUPTED);
    ck_assert_int_eq(calls, 2);
}
END_TEST

/* ---- small nets, stated directly ---- */

enum { IN = 4, HIDDEN = 3, OUT = 3, SAMPLES = 40 };

static float x[SAMPLES][IN];

static void with_data(Tiny *tiny)
{
    uint64_t random = 5;
    for (int s = 0; s < SAMPLES; s++)
        for (int i = 0; i < IN; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            x[s][i] = (float)((double)(random >> 11) * 0x1p-51 - 2);
        }
    char path[] = "/tmp/onnxpress_data_XXXXXX.npz";
    int file = mkstemps(path, 4);
    ck_assert_int_ge(file, 0);
    close(file);
    Tensor tensor = {.name = "x",
                     .dtype = DTYPE_FLOAT,
                     .shape = {.rank = 2, .dim = {SAMPLES, IN}},
                     .count = SAMPLES * IN,
                     .data = x,
                     .bytes = sizeof x};
    ck_assert_msg(!npz_write(path, &tensor, 1, &error), "%s", error.message);
    model = tiny_load(tiny);
    tiny_free(tiny);
    open_all(path);
    unlink(path);
}

static Tiny *begin(void)
{
    Tiny *tiny = tiny_create(17);
    tiny_input(tiny, "x", DTYPE_FLOAT, "[-1,4]");
    return tiny;
}

/* x → Gemm w1 b1 → `activation` → Gemm w2 b2 → [head] */
static void two_layers(const char *activation, const char *head)
{
    Tiny *tiny = begin();
    tiny_reals(tiny, "w1", "[3,4]", NULL);
    tiny_reals(tiny, "b1", "[3]", NULL);
    tiny_reals(tiny, "w2", "[3,3]", NULL);
    tiny_reals(tiny, "b2", "[3]", NULL);
    tiny_node(tiny, "Gemm", "x w1 b1", "u", "transB=1");
    tiny_node(tiny, activation, "u", "a", NULL);
    tiny_node(tiny, "Gemm", "a w2 b2", head ? "z" : "y", "transB=1");
    if (head)
        tiny_node(tiny, head, "z", "y", NULL);
    tiny_output(tiny, "y");
    with_data(tiny);
}

/* One sample of the net with Tanh: activations, probabilities, and by the loss's first and second
 * derivative at the answer what the recursion makes of them. */
typedef struct {
    double a[HIDDEN], p[OUT];
    double w1[HIDDEN][IN], b1[HIDDEN], w2[OUT][HIDDEN], b2[OUT];
} Net;

static void weights_of(Net *net)
{
    double *to[] = {&net->w1[0][0], net->b1, &net->w2[0][0], net->b2};
    static const char *const name[] = {"w1", "b1", "w2", "b2"};
    for (int k = 0; k < 4; k++) {
        const Weight *weight = program_weight(program, find(name[k]));
        for (int64_t i = 0; i < weight->count; i++)
            to[k][i] = (double)weight->data[i];
    }
}

static double run_net(Net *net, const float *in, int64_t answer)
{
    double total = 0, z[OUT];
    for (int j = 0; j < HIDDEN; j++) {
        double u = net->b1[j];
        for (int i = 0; i < IN; i++)
            u += net->w1[j][i] * (double)in[i];
        net->a[j] = tanh(u);
    }
    for (int k = 0; k < OUT; k++) {
        z[k] = net->b2[k];
        for (int j = 0; j < HIDDEN; j++)
            z[k] += net->w2[k][j] * net->a[j];
        total += exp(z[k]);
    }
    for (int k = 0; k < OUT; k++)
        net->p[k] = exp(z[k]) / total;
    return log(total) - z[answer];
}

/* Gradients (order 1) or the diagonal recursion (order 2) of one sample, in the net's own layout.
 */
static void derive(Net *net, const float *in, int64_t answer, int order, Net *out)
{
    double first[HIDDEN] = {0}, second[HIDDEN] = {0};
    run_net(net, in, answer);
    for (int k = 0; k < OUT; k++) {
        double d = net->p[k] - (k == answer), dd = net->p[k] * (1 - net->p[k]);
        out->b2[k] = order == 1 ? d : dd;
        for (int j = 0; j < HIDDEN; j++) {
            double w = net->w2[k][j], a = net->a[j];
            out->w2[k][j] = order == 1 ? d * a : dd * a * a;
            first[j] += w * d;
            second[j] += w * w * dd;
        }
    }
    for (int j = 0; j < HIDDEN; j++) {
        double slope = 1 - net->a[j] * net->a[j], bend = -2 * net->a[j] * slope;
        double d = slope * first[j], dd = slope * slope * second[j] + bend * first[j];
        out->b1[j] = order == 1 ? d : dd;
        for (int i = 0; i < IN; i++)
            out->w1[j][i] = order == 1 ? d * (double)in[i] : dd * (double)in[i] * (double)in[i];
    }
}

enum { NET_NUMBERS = HIDDEN * IN + HIDDEN + OUT * HIDDEN + OUT };

static double *numbers(Net *net)
{
    return &net->w1[0][0];
}

static void expect_net(float *const *h, const Net *wanted)
{
    expect("w1", h, &wanted->w1[0][0], TOLERANCE);
    expect("b1", h, wanted->b1, TOLERANCE);
    expect("w2", h, &wanted->w2[0][0], TOLERANCE);
    expect("b2", h, wanted->b2, TOLERANCE);
}

START_TEST(becker_lecun_is_its_recursion)
{
    Net net, one, sum = {0};
    two_layers("Tanh", NULL);
    weights_of(&net);
    for (int s = 0; s < SAMPLES; s++) {
        derive(&net, x[s], label[s], 2, &one);
        for (int i = 0; i < NET_NUMBERS; i++)
            numbers(&sum)[i] += numbers(&one)[i] / SAMPLES;
    }
    expect_net(compute(IMPORTANCE_BECKER_LECUN, OUTPUT_LOGITS, label, SAMPLES, 1, 1, 2), &sum);
}
END_TEST

START_TEST(the_loss_may_be_read_at_the_logits_or_behind_a_softmax)
{
    const int64_t *labels = _i ? label : NULL;
    two_layers("Tanh", NULL);
    float **bare = compute(IMPORTANCE_BECKER_LECUN, OUTPUT_LOGITS, labels, SAMPLES, 1, 1, 1);
    double wanted[4][HIDDEN * IN];
    static const char *const name[] = {"w1", "b1", "w2", "b2"};
    for (int k = 0; k < 4; k++)
        for (int64_t i = 0; i < program_weight(program, find(name[k]))->count; i++)
            wanted[k][i] = (double)bare[find(name[k])][i];
    close_all();
    for (int head = 0; head < 2; head++) {
        start();
        two_layers("Tanh", head ? "LogSoftmax" : "Softmax");
        float **h = compute(IMPORTANCE_BECKER_LECUN, head ? OUTPUT_LOGITS : OUTPUT_PROBABILITIES,
                            labels, SAMPLES, 1, 1, 1);
        for (int k = 0; k < 4; k++)
            expect(name[k], h, wanted[k], TOLERANCE);
        if (!head)
            close_all();
    }
}
END_TEST

START_TEST(gradients_are_squared_sample_by_sample)
{
    Net net, one, sum = {0};
    two_layers("Tanh", _i ? "Softmax" : NULL);
    weights_of(&net);
    for (int s = 0; s < SAMPLES; s++) {
        derive(&net, x[s], label[s], 1, &one);
        for (int i = 0; i < NET_NUMBERS; i++)
            numbers(&sum)[i] += numbers(&one)[i] * numbers(&one)[i] / SAMPLES;
    }
    expect_net(compute(IMPORTANCE_EMPIRICAL_FISHER, _i ? OUTPUT_PROBABILITIES : OUTPUT_LOGITS,
                       label, SAMPLES, 1, 1, 2),
               &sum);
}
END_TEST

START_TEST(adam_takes_the_blocks_in_turn)
{
    Net net, one, mean[2] = {{.a = {0}}, {.a = {0}}};
    two_layers("Tanh", NULL);
    weights_of(&net);
    for (int s = 0; s < SAMPLES; s++) {
        derive(&net, x[s], label[s], 1, &one);
        for (int i = 0; i < NET_NUMBERS; i++)
            numbers(&mean[s / 32])[i] += numbers(&one)[i] / (s < 32 ? 32 : SAMPLES - 32);
    }
    for (int i = 0; i < NET_NUMBERS; i++) {
        double g0 = numbers(&mean[0])[i], g1 = numbers(&mean[1])[i];
        numbers(&one)[i] = sqrt((0.999 * g0 * g0 + g1 * g1) / 1.999);
    }
    expect_net(compute(IMPORTANCE_ADAM, OUTPUT_LOGITS, label, SAMPLES, 1, 1, 2), &one);
}
END_TEST

/* Second differences of the loss, in double whatever the executor computes in. */
START_TEST(hutchinson_is_the_hessian_s_diagonal)
{
    const double step = 1e-3;
    Net net, wanted = {0};
    double error_square = 0, size = 0;
    two_layers("Tanh", NULL);
    weights_of(&net);
    for (int i = 0; i < NET_NUMBERS; i++) {
        double original = numbers(&net)[i];
        for (int side = -1; side <= 1; side++) {
            numbers(&net)[i] = original + side * step;
            for (int s = 0; s < SAMPLES; s++)
                numbers(&wanted)[i] +=
                    (side ? 1 : -2) * run_net(&net, x[s], label[s]) / (step * step * SAMPLES);
        }
        numbers(&net)[i] = original;
    }
    float **few = compute(IMPORTANCE_HUTCHINSON, OUTPUT_LOGITS, label, SAMPLES, 16, 1, 2);
    float **many = compute(IMPORTANCE_HUTCHINSON, OUTPUT_LOGITS, label, SAMPLES, 1600, 1, 2);
    double error_few = 0;
    static const char *const name[] = {"w1", "b1", "w2", "b2"};
    for (int k = 0, i = 0; k < 4; k++) {
        int w = find(name[k]);
        for (int64_t e = 0; e < program_weight(program, w)->count; e++, i++) {
            double h = fmax(numbers(&wanted)[i], 0);
            error_square += pow((double)many[w][e] - h, 2);
            error_few += pow((double)few[w][e] - h, 2);
            size += h * h;
        }
    }
    ck_assert_msg(error_square <= 0.05 * 0.05 * size, "off by %g", sqrt(error_square / size));
    ck_assert(error_square < 0.1 * error_few); /* a hundredth is what is expected */
    ck_assert(error_few > 0);
}
END_TEST

/* With one weight there is nothing else for the draw to meet: one draw is exact. */
START_TEST(hutchinson_of_one_weight_is_exact)
{
    Tiny *tiny = begin();
    tiny_reals(tiny, "w", "[1]", (const float[]){0.7f});
    tiny_node(tiny, "Mul", "x w", "u", NULL);
    tiny_node(tiny, "Tanh", "u", "y", NULL);
    tiny_output(tiny, "y");
    with_data(tiny);
    const double step = 1e-3, w0 = (double)0.7f;
    double wanted = 0;
    for (int s = 0; s < SAMPLES; s++)
        for (int side = -1; side <= 1; side++) {
            double total = 0, kl = 0, then[IN], now[IN], then_total = 0;
            for (int i = 0; i < IN; i++) {
                now[i] = tanh((w0 + side * step) * (double)x[s][i]);
                then[i] = tanh(w0 * (double)x[s][i]);
                total += exp(now[i]);
                then_total += exp(then[i]);
            }
            for (int i = 0; i < IN; i++) {
                double loss = log(total) - now[i];
                kl += _i ? (i == label[s] ? loss : 0) : exp(then[i]) / then_total * loss;
            }
            wanted += (side ? 1 : -2) * kl / (step * step * SAMPLES);
        }
    float **h = compute(IMPORTANCE_HUTCHINSON, OUTPUT_LOGITS, _i ? label : NULL, SAMPLES, 1, 1, 2);
    expect("w", h, &wanted, sizeof(real) == 8 ? 1e-5 : 1e-3);
}
END_TEST

/* softmax(W x + b): h of W[k][i] is the mean of p_k (1 - p_k) x_i^2, which nothing is left out of.
 */
START_TEST(one_layer_is_exact)
{
    Tiny *tiny = begin();
    tiny_reals(tiny, "w", "[4,3]", NULL);
    tiny_reals(tiny, "b", "[3]", NULL);
    tiny_node(tiny, "MatMul", "x w", "u", NULL);
    tiny_node(tiny, "Add", "u b", "z", NULL);
    tiny_node(tiny, "Softmax", "z", "y", "axis=1");
    tiny_output(tiny, "y");
    with_data(tiny);
    const real *w = program_weight(program, find("w"))->data,
               *b = program_weight(program, find("b"))->data;
    double in_w[IN * OUT] = {0}, in_b[OUT] = {0};
    for (int s = 0; s < SAMPLES; s++) {
        double e[OUT], total = 0;
        for (int k = 0; k < OUT; k++) {
            double z = (double)b[k];
            for (int i = 0; i < IN; i++)
                z += (double)x[s][i] * (double)w[i * OUT + k];
            total += e[k] = exp(z);
        }
        for (int k = 0; k < OUT; k++) {
            double curve = e[k] / total * (1 - e[k] / total) / SAMPLES;
            in_b[k] += curve;
            for (int i = 0; i < IN; i++)
                in_w[i * OUT + k] += curve * (double)x[s][i] * (double)x[s][i];
        }
    }
    static const ImportanceKind kinds[] = {IMPORTANCE_BECKER_LECUN, IMPORTANCE_GAUSS_NEWTON};
    for (int k = 0; k < 2; k++) {
        float **h = compute(kinds[k], OUTPUT_PROBABILITIES, NULL, SAMPLES, 1, 1, 1);
        expect("w", h, in_w, TOLERANCE);
        expect("b", h, in_b, TOLERANCE);
    }
    float **drawn = compute(IMPORTANCE_MC_FISHER, OUTPUT_PROBABILITIES, NULL, SAMPLES, 4000, 1, 2);
    expect("w", drawn, in_w, 0.03);
}
END_TEST

START_TEST(coins_and_values)
{
    Tiny *tiny = begin();
    tiny_reals(tiny, "w", "[4,1]", NULL);
    tiny_node(tiny, "MatMul", "x w", "u", NULL);
    tiny_node(tiny, _i ? "Identity" : "Sigmoid", "u", "y", NULL);
    tiny_output(tiny, "y");
    with_data(tiny);
    const real *w = program_weight(program, find("w"))->data;
    double wanted[IN] = {0}, squares[IN] = {0};
    for (int s = 0; s < SAMPLES; s++) {
        double z = 0;
        for (int i = 0; i < IN; i++)
            z += (double)x[s][i] * (double)w[i];
        double p = 1 / (1 + exp(-z)), curve = _i ? 1 / variance[0] : p * (1 - p);
        double gradient = p - (double)(label[s] = s % 2);
        for (int i = 0; i < IN; i++) {
            wanted[i] += curve * (double)x[s][i] * (double)x[s][i] / SAMPLES;
            squares[i] += pow(gradient * (double)x[s][i], 2) / SAMPLES;
        }
    }
    OutputKind kind = _i ? OUTPUT_VALUES : OUTPUT_BERNOULLI;
    expect("w", compute(IMPORTANCE_BECKER_LECUN, kind, NULL, SAMPLES, 1, 1, 1), wanted, TOLERANCE);
    expect("w", compute(IMPORTANCE_MC_FISHER, kind, NULL, SAMPLES, 4000, 1, 2), wanted, 0.03);
    expect("w", compute(IMPORTANCE_HUTCHINSON, kind, NULL, SAMPLES, 3000, 1, 2), wanted, 0.08);
    if (_i)
        return;
    expect("w", compute(IMPORTANCE_BECKER_LECUN, kind, label, SAMPLES, 1, 1, 1), wanted, TOLERANCE);
    expect("w", compute(IMPORTANCE_EMPIRICAL_FISHER, kind, label, SAMPLES, 1, 1, 1), squares,
           TOLERANCE);
}
END_TEST

/* Samples that the graph mixes are run one by one, and give the same. */
START_TEST(mixed_samples_are_taken_apart)
{
    float **h[2];
    double wanted[3 * 4];
    for (int mixed = 0; mixed < 2; mixed++) {
        if (mixed) {
            close_all();
            start();
        }
        Tiny *tiny = begin();
        tiny_reals(tiny, "w", "[4,3]", NULL);
        tiny_node(tiny, "MatMul", "x w", "u", NULL);
        if (mixed) {
            tiny_node(tiny, "Transpose", "u", "t", "perm=[1,0]");
            tiny_node(tiny, "Transpose", "t", "y", "perm=[1,0]");
        } else {
            tiny_node(tiny, "Identity", "u", "y", NULL);
        }
        tiny_output(tiny, "y");
        with_data(tiny);
        h[mixed] = compute(_i ? IMPORTANCE_MC_FISHER : IMPORTANCE_EMPIRICAL_FISHER, OUTPUT_LOGITS,
                           label, SAMPLES, 3, 1, 2);
        if (mixed)
            expect("w", h[1], wanted, TOLERANCE);
        for (int i = 0; i < 12 && !mixed; i++)
            wanted[i] = (double)h[0][find("w")][i];
    }
}
END_TEST

/* Floor has no derivative, and so no second-order rule. */
START_TEST(what_has_no_rule_is_left_out)
{
    two_layers("Floor", NULL);
    float **h = compute(IMPORTANCE_BECKER_LECUN, OUTPUT_LOGITS, label, SAMPLES, 1, 1, 1);
    ck_assert_ptr_null(h[find("w1")]);
    ck_assert_ptr_null(h[find("b1")]);
    ck_assert_ptr_nonnull(h[find("w2")]);
    close_all();
    start();
    two_layers("Floor", NULL);
    h = compute(IMPORTANCE_GAUSS_NEWTON, OUTPUT_LOGITS, NULL, SAMPLES, 1, 1, 1);
    ck_assert_ptr_null(h[find("w1")]);
    h = compute(IMPORTANCE_ACTIVATION, OUTPUT_LOGITS, NULL, SAMPLES, 1, 1, 2);
    double inputs[HIDDEN * IN] = {0}, hidden[OUT * HIDDEN] = {0}, ones[OUT] = {1, 1, 1};
    const real *w = program_weight(program, find("w1"))->data,
               *b = program_weight(program, find("b1"))->data;
    for (int s = 0; s < SAMPLES; s++)
        for (int j = 0; j < HIDDEN; j++) {
            double u = (double)b[j];
            for (int i = 0; i < IN; i++) {
                u += (double)w[j * IN + i] * (double)x[s][i];
                inputs[j * IN + i] += (double)x[s][i] * (double)x[s][i] / SAMPLES;
            }
            for (int k = 0; k < OUT; k++)
                hidden[k * HIDDEN + j] += floor(u) * floor(u) / SAMPLES;
        }
    expect("w1", h, inputs, TOLERANCE);
    expect("w2", h, hidden, TOLERANCE);
    expect("b2", h, ones, TOLERANCE);
}
END_TEST

static TCase *lenet_case(void)
{
    TCase *trained = tcase_create("LeNet-5");
    tcase_add_checked_fixture(trained, lenet, close_all);
    tcase_set_timeout(trained, 300);
    tcase_add_loop_test(trained, threads_change_nothing, IMPORTANCE_BECKER_LECUN,
                        IMPORTANCE_NONE + 1);
    tcase_add_loop_test(trained, seeds_change_draws_and_nothing_else, 0, 9);
    tcase_add_loop_test(trained, a_bound_on_memory, IMPORTANCE_BECKER_LECUN, IMPORTANCE_NONE);
    tcase_add_test(trained, drawn_answers_have_the_gauss_newton_mean);
    tcase_add_test(trained, labels_are_checked);
    tcase_add_test(trained, none_makes_all_equal);
    tcase_add_loop_test(trained, all_can_be_stopped, IMPORTANCE_BECKER_LECUN, IMPORTANCE_NONE);
    return trained;
}

static TCase *direct_case(void)
{
    TCase *nets = tcase_create("stated directly");
    tcase_add_checked_fixture(nets, start, close_all);
    tcase_set_timeout(nets, 120);
    tcase_add_loop_test(nets, every_weight_of_a_resnet_has_rules, 0, 2);
    tcase_add_test(nets, becker_lecun_is_its_recursion);
    tcase_add_loop_test(nets, the_loss_may_be_read_at_the_logits_or_behind_a_softmax, 0, 2);
    tcase_add_loop_test(nets, gradients_are_squared_sample_by_sample, 0, 2);
    tcase_add_test(nets, adam_takes_the_blocks_in_turn);
    tcase_add_test(nets, hutchinson_is_the_hessian_s_diagonal);
    tcase_add_loop_test(nets, hutchinson_of_one_weight_is_exact, 0, 2);
    tcase_add_test(nets, one_layer_is_exact);
    tcase_add_loop_test(nets, coins_and_values, 0, 2);
    tcase_add_loop_test(nets, mixed_samples_are_taken_apart, 0, 2);
    tcase_add_test(nets, what_has_no_rule_is_left_out);
    return nets;
}

int main(void)
{
    openblas_set_num_threads(1); /* as the pipeline does: the threads are ours */
    Suite *suite = suite_create("estimators");
    TCase *names = tcase_create("names and rules");
    tcase_add_loop_test(names, names_are_read_back, 0, IMPORTANCE_NONE + 1);
    tcase_add_test(names, these_alone_have_no_rule);
    suite_add_tcase(suite, names);
    suite_add_tcase(suite, direct_case());
    if (sizeof(real) == sizeof(float)) /* nothing in it is told better by float64 */
        suite_add_tcase(suite, lenet_case());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
