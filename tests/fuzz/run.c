/* SPDX-License-Identifier: Apache-2.0
 *
 * The executor: a tiny graph runs on invented samples, forward and with every kind of derivative. */
#include <cblas.h>
#include <stdlib.h>

#include "autodiff/feed.h"
#include "autodiff/invent.h"
#include "fuzz/fuzz.h"
#include "model/inline.h"

enum { SAMPLES = 2, MOST_MOMENTS = 1 << 20 };
#define MEMORY ((size_t)16 << 20)

/* What the runs add to: one array a weight that is not NULL. */
static real **sums_create(const Program *program)
{
    real **sums = calloc((size_t)program_weights(program) + 1, sizeof *sums);
    FUZZ_CHECK(sums);
    return sums;
}

static void sums_add(real **sums, int w, size_t count)
{
    FUZZ_CHECK(sums[w] = calloc(count + 1, sizeof **sums));
}

static void sums_free(const Program *program, real **sums)
{
    for (int w = 0; w < program_weights(program); w++)
        free(sums[w]);
    free(sums);
}

static void moments(Exec *exec, const Program *program)
{
    Error err = {0};
    OpMatrix matrix;
    real **sums = sums_create(program);
    for (int w = 0; w < program_weights(program); w++)
        if (program_matrix(program, w, &matrix) && matrix.groups < MOST_MOMENTS &&
            matrix.columns < 256 &&
            matrix.groups * matrix.columns * matrix.columns < MOST_MOMENTS)
            sums_add(sums, w, (size_t)(matrix.groups * matrix.columns * matrix.columns));
    fuzz_check_error(exec_moments(exec, sums, &err), &err);
    sums_free(program, sums);
}

static void curvature(Exec *exec, const Program *program, const Value *inputs,
                      const real *const *d_outputs)
{
    Error err = {0};
    bool *known = calloc((size_t)program_weights(program) + 1, sizeof *known);
    real **sums = sums_create(program);
    FUZZ_CHECK(known);
    int status = program_curvature(program, known, &err);
    for (int w = 0; w < program_weights(program) && !status; w++)
        if (known[w])
            sums_add(sums, w, (size_t)program_weight(program, w)->count);
    exec_set_wanted(exec, known);
    if (!status)
        status = exec_forward(exec, inputs, EXEC_KEEP, &err);
    if (!status)
        status = exec_curvature(exec, d_outputs, d_outputs, sums, &err);
    fuzz_check_error(status, &err);
    sums_free(program, sums);
    free(known);
}

static void squares(Exec *exec, const Program *program, const real *const *d_outputs)
{
    Error err = {0};
    real **sums = sums_create(program);
    for (int w = 0; w < program_weights(program); w++)
        if (program_weight(program, w)->reaches && !program_weight(program, w)->steers)
            sums_add(sums, w, (size_t)program_weight(program, w)->count);
    fuzz_check_error(exec_square(exec, d_outputs, sums, &err), &err);
    sums_free(program, sums);
}

static void sensitivity(Exec *exec, const Program *program, const Value *inputs)
{
    Error err = {0};
    bool *known = calloc((size_t)program_weights(program) + 1, sizeof *known);
    real **sums = sums_create(program);
    FUZZ_CHECK(known);
    program_sensitivity(program, known);
    exec_set_sensed(exec, known);
    for (int w = 0; w < program_weights(program); w++)
        if (known[w])
            sums_add(sums, w, (size_t)program_weight(program, w)->count);
    int status = exec_forward(exec, inputs, EXEC_KEEP, &err);
    if (!status)
        status = exec_sensitivity(exec, sums, &err);
    fuzz_check_error(status, &err);
    sums_free(program, sums);
    free(known);
}

static void derive(Exec *exec, const Program *program, const Value *inputs)
{
    int n = program_outputs(program);
    Error err = {0};
    real **d_outputs = calloc((size_t)n + 1, sizeof *d_outputs);
    FUZZ_CHECK(d_outputs);
    for (int o = 0; o < n; o++) {
        const Value *value = exec_output(exec, o);
        if (!value->r)
            continue;
        FUZZ_CHECK(d_outputs[o] = malloc((size_t)value->count * sizeof(real) + 1));
        for (int64_t i = 0; i < value->count; i++)
            d_outputs[o][i] = (real)(i % 7) - 3;
    }
    const real *const *d = (const real *const *)d_outputs;
    fuzz_check_error(exec_backward(exec, d, &err), &err);
    if (exec_square_batches(exec))
        squares(exec, program, d);
    moments(exec, program);
    curvature(exec, program, inputs, d);
    sensitivity(exec, program, inputs);
    for (int o = 0; o < n; o++)
        free(d_outputs[o]);
    free(d_outputs);
}

static int run_batch(const Program *program, const Feed *feed, int64_t n, Error *err)
{
    static const int64_t sample[SAMPLES] = {0, 1};
    FeedStore *store = feed_store_create();
    Value *inputs = calloc((size_t)program_inputs(program) + 1, sizeof *inputs);
    Exec *exec = NULL;
    FUZZ_CHECK(store && inputs);
    int status = exec_create(program, MEMORY, &exec, err);
    if (!status)
        status = feed_batch(feed, sample, n, store, inputs, err);
    if (!status) {
        exec_set_samples(exec, n);
        status = exec_forward(exec, inputs, EXEC_KEEP, err);
    }
    if (!status)
        derive(exec, program, inputs);
    exec_free(exec);
    free(inputs);
    feed_store_free(store);
    return status;
}

static int run(Program *program, Error *err)
{
    static const FeedOptions none = {0};
    Dataset *dataset;
    Feed *feed = NULL;
    bool free_sizes;
    int status = invent_samples(program, SAMPLES, 4, 1, &dataset, &free_sizes, err);
    if (status)
        return status;
    status = feed_create(program, dataset, &none, &feed, err);
    if (!status)
        status = run_batch(program, feed, 1, err);
    if (!status && feed_max_batch(feed) > 1)
        status = run_batch(program, feed, SAMPLES, err);
    feed_free(feed);
    dataset_close(dataset);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Error err = {0};
    Model *model = NULL;
    Program *program = NULL;
    openblas_set_num_threads(1);
    int status = model_load(fuzz_file("x.onnx", data, size), &model, &err);
    if (!status)
        status = model_inline(model, &err);
    if (!status)
        status = program_build(model, &program, &err);
    if (!status)
        status = run(program, &err);
    fuzz_check_error(status, &err);
    program_free(program);
    model_free(model);
    return 0;
}
