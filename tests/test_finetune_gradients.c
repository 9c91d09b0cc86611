/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "suite.h"

#include <cblas.h>
#include <math.h>

#include "finetune/finetune_internal.h"
#include "tensor/npy.h"
#include "tiny_model.h"

/* In float64: what finetune_run takes for gradients, read off one step of plain descent, against
 * central differences of the losses that it reports. */

enum { N = 10, IN = 5, MIDDLE = 6, OUT = 3, WEIGHTS = 4 };

static Arena *arena;
static Model *model;
static Program *program;
static Dataset *dataset;
static Feed *feed;
static int64_t sample[N], label[N];
static real start[WEIGHTS][MIDDLE * IN];
static const real *starts[WEIGHTS];
static OutputKind kind[1];
static const double variance[1] = {0.7};
static FinetuneTask task;

static double noise(uint64_t a, uint64_t b)
{
    return (double)(random_hash(7, a, b) >> 11) * 0x1p-52 - 1;
}

/* x → gemm → tanh → gemm → the op that `what` needs; a smooth function of all weights. */
static void open_kind(OutputKind what)
{
    static const char *const last[] = {"Identity", "Softmax", "Sigmoid", "Identity"};
    float x[N * IN];
    Tiny *t = tiny_create(17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,5]");
    tiny_reals(t, "w", "[6,5]", NULL);
    tiny_reals(t, "b", "[6]", NULL);
    tiny_reals(t, "v", "[3,6]", NULL);
    tiny_reals(t, "c", "[3]", NULL);
    tiny_node(t, "Gemm", "x w b", "p", "transB=1");
    tiny_node(t, "Tanh", "p", "q", "");
    tiny_node(t, "Gemm", "q v c", "z", "transB=1");
    tiny_node(t, last[what], "z", "y", "");
    tiny_output(t, "y");
    model = tiny_load(t);
    tiny_free(t);
    for (int i = 0; i < N * IN; i++)
        x[i] = (float)noise(50, (uint64_t)i);
    Tensor tensor = {.name = "x",
                     .dtype = DTYPE_FLOAT,
                     .shape = {2, {N, IN}},
                     .count = N * IN,
                     .data = x,
                     .bytes = sizeof x};
    const char *path = scratch_path("x.npz");
    FeedOptions plain = {0};
    arena = arena_create();
    expect_ok(npz_write(path, &tensor, 1, &err));
    expect_ok(program_build(model, &program, &err));
    expect_ok(dataset_open(path, &dataset, &err));
    expect_ok(feed_create(program, dataset, &plain, &feed, &err));
    ck_assert_int_eq(program_weights(program), WEIGHTS);
    for (int i = 0; i < N; i++) {
        sample[i] = i;
        label[i] = i % OUT;
    }
    for (int w = 0; w < WEIGHTS; w++) {
        const Weight *weight = program_weight(program, w);
        for (int64_t i = 0; i < weight->count; i++)
            start[w][i] = weight->data[i] + 0.3 * noise((uint64_t)w, (uint64_t)i);
        starts[w] = start[w];
    }
    kind[0] = what;
    task = (FinetuneTask){.model = model,
                          .program = program,
                          .feed = feed,
                          .sample = sample,
                          .n = N,
                          .kind = kind,
                          .variance = variance,
                          .start = starts};
}

static void close_kind(void)
{
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
}

/* One step of w -= rate * gradient, over all samples, in three lanes of unequal size. */
static Finetuned one_step(double rate)
{
    FinetuneOptions options = finetune_defaults();
    Finetuned tuned;
    options.optimizer = FINETUNE_SGD;
    options.momentum = 0;
    options.schedule = FINETUNE_CONSTANT;
    options.batch = N;
    options.lanes = 3;
    options.rate = rate;
    expect_ok(finetune_run(&task, &options, arena, &tuned, &err));
    ck_assert_int_eq(tuned.steps, 1);
    return tuned;
}

static void check(double found, double expected, const char *what)
{
    ck_assert_msg(fabs(found - expected) <= 1e-7 + 1e-5 * fabs(expected), "%s: %.9g, not %.9g",
                  what, found, expected);
}

static const struct {
    OutputKind kind;
    bool labels;
} losses[] = {{OUTPUT_LOGITS, true},         {OUTPUT_PROBABILITIES, true}, {OUTPUT_LOGITS, false},
              {OUTPUT_PROBABILITIES, false}, {OUTPUT_BERNOULLI, false},    {OUTPUT_VALUES, false}};

START_TEST(weights_against_differences)
{
    open_kind(losses[_i].kind);
    task.label = losses[_i].labels ? label : NULL;
    Finetuned tuned = one_step(1);
    double largest = 0;
    for (int w = 0; w < WEIGHTS; w++)
        for (int64_t i = 0; i < program_weight(program, w)->count; i++) {
            double step = 1e-5, at = start[w][i], gradient = at - tuned.weight[w][i];
            start[w][i] = at + step;
            double above = one_step(1).loss[0];
            start[w][i] = at - step;
            double below = one_step(1).loss[0];
            start[w][i] = at;
            check(gradient, (above - below) / (2 * step), "a weight's gradient");
            largest = fmax(largest, fabs(gradient));
        }
    ck_assert_double_gt(largest, 1e-3);
    close_kind();
}
END_TEST

enum { ELEMENTS = MIDDLE * IN + OUT * MIDDLE };

static int shared_weight[2];
static size_t offset[3];
static float shared_w[ELEMENTS], h[ELEMENTS];
static QuantizeInput input;
static Quantized quantized;
static FinetuneShared shared;

static void share(void)
{
    size_t n = 0;
    int t = 0;
    for (int w = 0; w < WEIGHTS; w++) {
        const Weight *weight = program_weight(program, w);
        if (weight->shape.rank < 2)
            continue;
        shared_weight[t] = w;
        offset[t++] = n;
        for (int64_t i = 0; i < weight->count; i++, n++) {
            shared_w[n] = (float)weight->data[i];
            h[n] = (float)(1 + noise(60, n));
        }
    }
    ck_assert_uint_eq(n, ELEMENTS);
    offset[t] = n;
    shared_w[4] = 0; /* there is an exact zero: its centre is pinned */
    h[7] = 0;
    input = (QuantizeInput){.n_tensors = 2, .offset = offset, .w = shared_w, .h = h};
    const float relative[2] = {1, 0.5f};
    expect_ok(quantize_uniform(&input, 0.4f, relative, QUANTIZE_SCOPE_TENSOR, true, arena,
                               &quantized, &err));
    ck_assert_int_ge(quantized.levels, 4);
    ck_assert(quantized.scale[0] != quantized.scale[1]);
    shared = (FinetuneShared){
        .weight = shared_weight, .input = &input, .quantized = &quantized, .train_scales = true};
    task.shared = &shared;
}

/* Central difference of the loss by a float of the codebook. */
static double difference(float *number)
{
    float at = *number, above = at + 0x1p-12f, below = at - 0x1p-12f;
    *number = above;
    double high = one_step(1).loss[0];
    *number = below;
    double low = one_step(1).loss[0];
    *number = at;
    return (high - low) / ((double)above - (double)below);
}

START_TEST(centres_and_scales_against_differences)
{
    /* The mean of the members' gradients, times their number, is the derivative. The step is far:
     * centres come back as floats. */
    const double rate = 1e4;
    open_kind(OUTPUT_LOGITS);
    task.label = _i ? label : NULL;
    share();
    Finetuned tuned = one_step(rate);
    double largest = 0;
    int pinned = 0;
    for (int c = 0; c < quantized.levels; c++) {
        double members = 0;
        for (size_t i = 0; i < ELEMENTS; i++)
            members += quantized.symbol[i] == c;
        double gradient = ((double)quantized.centre[c] - (double)tuned.centre[c]) / rate * members;
        if (quantized.centre[c] == 0) {
            ck_assert(gradient == 0);
            pinned++;
            continue;
        }
        double expected = difference(&quantized.centre[c]);
        ck_assert_msg(fabs(gradient - expected) <= 1e-6 + 1e-4 * fabs(expected),
                      "centre %d: %.9g, not %.9g", c, gradient, expected);
        largest = fmax(largest, fabs(gradient));
    }
    ck_assert_int_eq(pinned, 1);
    ck_assert_double_gt(largest, 1e-3);
    for (int t = 0; t < 2; t++) {
        double members = (double)(offset[t + 1] - offset[t]);
        double gradient = ((double)quantized.scale[t] - (double)tuned.scale[t]) / rate * members;
        double expected = difference(&quantized.scale[t]);
        ck_assert_msg(fabs(gradient - expected) <= 1e-6 + 1e-4 * fabs(expected),
                      "scale %d: %.9g, not %.9g", t, gradient, expected);
    }
    close_kind();
}
END_TEST

START_TEST(centres_are_means_of_their_members)
{
    /* Each member's own gradient, from training the same weights unshared. */
    const double rate = 1e4;
    open_kind(OUTPUT_LOGITS);
    task.label = label;
    share();
    shared.gradient = _i ? FINETUNE_HESSIAN : FINETUNE_MEAN;
    Finetuned centres = one_step(rate);
    for (int t = 0; t < 2; t++)
        for (size_t i = offset[t]; i < offset[t + 1]; i++)
            start[shared_weight[t]][i - offset[t]] =
                (double)quantized.scale[t] * (double)quantized.centre[quantized.symbol[i]];
    task.shared = NULL;
    Finetuned apart = one_step(1);
    for (int c = 0; c < quantized.levels; c++) {
        double sum = 0, parts = 0;
        for (int t = 0; t < 2; t++)
            for (size_t i = offset[t]; i < offset[t + 1]; i++) {
                int w = shared_weight[t];
                double g = start[w][i - offset[t]] - apart.weight[w][i - offset[t]];
                double part = quantized.symbol[i] == c ? _i ? (double)h[i] : 1 : 0;
                sum += part * (double)quantized.scale[t] * g;
                parts += part;
            }
        double moved = ((double)quantized.centre[c] - (double)centres.centre[c]) / rate;
        if (quantized.centre[c] != 0)
            check(moved, sum / parts, "a centre's gradient");
    }
    close_kind();
}
END_TEST

int main(void)
{
    openblas_set_num_threads(1);
    Suite *suite = suite_create("finetune gradients");
    const struct {
        const char *name;
        const TTest *test;
        int n;
    } loops[] = {{"weights", weights_against_differences, 6},
                 {"centres", centres_and_scales_against_differences, 2},
                 {"means", centres_are_means_of_their_members, 2}};
    for (size_t k = 0; k < sizeof loops / sizeof loops[0]; k++) {
        TCase *tcase = tcase_create(loops[k].name);
        tcase_add_checked_fixture(tcase, setup, scratch_remove);
        tcase_set_timeout(tcase, 120);
        tcase_add_loop_test(tcase, loops[k].test, 0, loops[k].n);
        suite_add_tcase(suite, tcase);
    }
    return run_suite(suite);
}
