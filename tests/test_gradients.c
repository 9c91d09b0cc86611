/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole networks in float64: gradients of weights against central differences, and squares of a
 * batch against the squares of its samples. */
#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/autodiff.h"

#define BATCH 2
#define ELEMENTS 30  /* weight elements a network */
#define MOST_KINKS 4 /* of them may lie beside a kink of a relu or a maximum */
/* In units of the weight's root mean square: the wide one drowns less in rounding, the narrow one
 * meets fewer kinks (a batch norm's mean moves a whole channel at once). */
static const double steps[] = {3e-5, 1e-6};
#define TOLERANCE 1e-6        /* relative */
#define SQUARE_TOLERANCE 1e-9 /* of the tensor's largest: the same sums in another order */

typedef struct {
    Model *model;
    Program *program;
    Exec *exec;
    Value input;                        /* BATCH random samples */
    int64_t sample_count, output_count; /* elements a sample */
    real *d_output;
    Error err;
} Net;

static double random_unit(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

static void run(Net *net, int64_t first, int64_t n)
{
    Value part = net->input;
    part.r += first * net->sample_count;
    part.shape.dim[0] = n;
    part.count = n * net->sample_count;
    int status = exec_forward(net->exec, &part, EXEC_KEEP, &net->err);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", net->err.message);
}

static void net_open(Net *net, const char *path)
{
    openblas_set_num_threads(1);
    memset(net, 0, sizeof *net);
    ck_assert_msg(!model_load(path, &net->model, &net->err), "%s", net->err.message);
    ck_assert_msg(!program_build(net->model, &net->program, &net->err), "%s", net->err.message);
    ck_assert_msg(!exec_create(net->program, 0, &net->exec, &net->err), "%s", net->err.message);
    const ProgramInput *input = program_input(net->program, 0);
    net->input = (Value){.dtype = input->dtype, .shape = input->shape};
    net->input.shape.dim[0] = BATCH;
    ck_assert(shape_count(&net->input.shape, &net->input.count));
    net->sample_count = net->input.count / BATCH;
    net->input.r = calloc((size_t)net->input.count, sizeof(real));
    uint64_t state = 7;
    for (int64_t i = 0; i < net->input.count; i++)
        net->input.r[i] = random_unit(&state) * 2 - 1;
    run(net, 0, BATCH);
    net->output_count = exec_output(net->exec, 0)->count / BATCH;
    net->d_output = calloc((size_t)(net->output_count * BATCH), sizeof(real));
    for (int64_t i = 0; i < net->output_count * BATCH; i++)
        net->d_output[i] = random_unit(&state) * 2 - 1;
}

static void net_close(Net *net)
{
    free(net->input.r);
    free(net->d_output);
    exec_free(net->exec);
    program_free(net->program);
    model_free(net->model);
}

static double loss(Net *net)
{
    double sum = 0;
    run(net, 0, BATCH);
    for (int64_t i = 0; i < net->output_count * BATCH; i++)
        sum += net->d_output[i] * exec_output(net->exec, 0)->r[i];
    return sum;
}

static double rms(const real *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* Differences of the loss at one element of weight w: below, above, and central. */
static void differences(Net *net, const real **weights, int w, int64_t i, double relative,
                        double *out)
{
    const Weight *weight = program_weight(net->program, w);
    double step = relative * fmax(rms(weight->data, weight->count), 1e-3), at[3];
    real *copy = malloc((size_t)weight->count * sizeof *copy);
    memcpy(copy, weight->data, (size_t)weight->count * sizeof *copy);
    weights[w] = copy;
    for (int k = 0; k < 3; k++) {
        copy[i] = weight->data[i] + (k - 1) * step;
        exec_set_weights(net->exec, weights);
        at[k] = loss(net);
    }
    weights[w] = NULL;
    free(copy);
    out[0] = (at[1] - at[0]) / step;
    out[1] = (at[2] - at[1]) / step;
    out[2] = (at[2] - at[0]) / (2 * step);
}

static void check_differences(const char *path)
{
    Net net;
    net_open(&net, path);
    int n_weights = program_weights(net.program), checked = 0, kinks = 0;
    real **gradient = calloc((size_t)n_weights, sizeof *gradient);
    const real **weights = calloc((size_t)n_weights, sizeof *weights);
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){net.d_output}, &net.err),
                     ONNXPRESS_OK);
    for (int w = 0; w < n_weights; w++) {
        const Weight *weight = program_weight(net.program, w);
        const real *from = exec_gradient(net.exec, w);
        ck_assert_msg((from != NULL) == (weight->reaches && !weight->steers), "%s", weight->name);
        if (from) {
            gradient[w] = calloc((size_t)weight->count, sizeof(real));
            memcpy(gradient[w], from, (size_t)weight->count * sizeof(real));
        }
    }
    uint64_t state = 11;
    for (int tries = 0; checked + kinks < ELEMENTS && tries < 100 * ELEMENTS; tries++) {
        int w = (int)(random_unit(&state) * n_weights);
        const Weight *weight = program_weight(net.program, w);
        int64_t i = (int64_t)(random_unit(&state) * (double)weight->count);
        /* A gradient far below its tensor's others drowns in the rounding of the loss. */
        if (!gradient[w] || fabs(gradient[w][i]) < 0.3 * rms(gradient[w], weight->count) ||
            gradient[w][i] == 0)
            continue;
        double side[3], g = gradient[w][i], scale = fabs(g) * TOLERANCE;
        bool agrees = false, one_side = false;
        for (size_t k = 0; k < sizeof steps / sizeof steps[0] && !agrees; k++) {
            differences(&net, weights, w, i, steps[k], side);
            agrees = fabs(side[2] - g) <= scale;
            one_side |= fmin(fabs(side[0] - g), fabs(side[1] - g)) <= 10 * scale;
        }
        /* Beside a kink, the gradient is still that of one side. */
        ck_assert_msg(agrees || one_side,
                      "%s: gradient %lld of %s is %.10g, differences give %.10g", path,
                      (long long)i, weight->name, g, side[2]);
        checked += agrees;
        kinks += !agrees;
    }
    ck_assert_msg(checked + kinks == ELEMENTS, "%s: %d elements were found", path, checked + kinks);
    ck_assert_msg(kinks <= MOST_KINKS, "%s: %d of %d differences meet a kink", path, kinks,
                  ELEMENTS);
    for (int w = 0; w < n_weights; w++)
        free(gradient[w]);
    free(gradient);
    free(weights);
    net_close(&net);
}

START_TEST(lenet5_differences)
{
    check_differences("testdata/lenet5_mnist.onnx");
}
END_TEST

START_TEST(resnet20_differences)
{
    check_differences("testdata/resnet20.onnx");
}
END_TEST

START_TEST(resnet32_bn_differences)
{
    check_differences("testdata/resnet32_bn.onnx");
}
END_TEST

static void check_squares(const char *path)
{
    Net net;
    net_open(&net, path);
    int n = program_weights(net.program);
    real **batch = calloc((size_t)n, sizeof *batch), **single = calloc((size_t)n, sizeof *single),
         **direct = calloc((size_t)n, sizeof *direct);
    for (int w = 0; w < n; w++) {
        size_t count = (size_t)program_weight(net.program, w)->count;
        batch[w] = calloc(count, sizeof(real));
        single[w] = calloc(count, sizeof(real));
        direct[w] = calloc(count, sizeof(real));
    }
    ck_assert_msg(exec_square_batches(net.exec), "%s cannot be squared in batches", path);
    ck_assert_msg(!exec_square(net.exec, (const real *[]){net.d_output}, batch, &net.err), "%s",
                  net.err.message);
    for (int64_t s = 0; s < BATCH; s++) {
        const real *d[] = {net.d_output + s * net.output_count};
        run(&net, s, 1);
        ck_assert_msg(!exec_square(net.exec, d, single, &net.err), "%s", net.err.message);
        ck_assert_msg(!exec_backward(net.exec, d, &net.err), "%s", net.err.message);
        for (int w = 0; w < n; w++) {
            const real *g = exec_gradient(net.exec, w);
            for (int64_t i = 0; g && i < program_weight(net.program, w)->count; i++)
                direct[w][i] += g[i] * g[i];
        }
    }
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(net.program, w);
        double most = 0;
        for (int64_t i = 0; i < weight->count; i++)
            most = fmax(most, direct[w][i]);
        ck_assert_msg(weight->steers || !weight->reaches || most > 0, "%s: %s has no gradient",
                      path, weight->name);
        for (int64_t i = 0; i < weight->count; i++) {
            ck_assert_msg(fabs(batch[w][i] - direct[w][i]) <= SQUARE_TOLERANCE * most,
                          "%s: square %lld of %s is %.10g, of single samples %.10g", path,
                          (long long)i, weight->name, batch[w][i], direct[w][i]);
            ck_assert_double_eq(single[w][i], direct[w][i]);
        }
        free(batch[w]);
        free(single[w]);
        free(direct[w]);
    }
    free(batch);
    free(single);
    free(direct);
    net_close(&net);
}

START_TEST(squares)
{
    check_squares("testdata/lenet5_mnist.onnx");
    check_squares("testdata/resnet20.onnx");
    check_squares("testdata/resnet32_bn.onnx");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gradients");
    TCase *differences = tcase_create("differences"), *square = tcase_create("square");
    tcase_add_test(differences, lenet5_differences);
    tcase_add_test(differences, resnet20_differences);
    tcase_add_test(differences, resnet32_bn_differences);
    tcase_add_test(square, squares);
    tcase_set_timeout(differences, 300);
    tcase_set_timeout(square, 300);
    suite_add_tcase(suite, differences);
    suite_add_tcase(suite, square);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
