/* SPDX-License-Identifier: Apache-2.0
 *
 * How many samples at once a graph takes, found by running it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/feed_internal.h"

/* What the activations of a block may take, for the caches' and the memory's sake. */
#define BLOCK_BYTES ((size_t)128 << 20)
/* Squared difference, of the squared size, that other kernels for other shapes may make. */
#define SAME 1e-6

typedef struct {
    size_t memory; /* bound of the run, and what it keeps: as exec_create's and exec_forward's */
    int keep;
    int n_outputs;
    double **out; /* [n_outputs] */
    int64_t *count;
    size_t peak;
} Run;

static void run_free(Run *run)
{
    for (int o = 0; run->out && o < run->n_outputs; o++)
        free(run->out[o]);
    free(run->out);
    free(run->count);
    memset(run, 0, sizeof *run);
}

static int copy_outputs(Run *run, const Exec *exec, Error *err)
{
    run->out = calloc((size_t)run->n_outputs + 1, sizeof *run->out);
    run->count = calloc((size_t)run->n_outputs + 1, sizeof *run->count);
    if (!run->out || !run->count)
        return error_memory(err, "a first run");
    for (int o = 0; o < run->n_outputs; o++) {
        const Value *value = exec_output(exec, o);
        run->count[o] = value->count;
        run->out[o] = calloc((size_t)value->count + 1, sizeof **run->out);
        if (!run->out[o])
            return error_memory(err, "a first run");
        for (int64_t i = 0; i < value->count; i++)
            run->out[o][i] = value->r ? (double)value->r[i] : (double)value->i[i];
    }
    return ONNXPRESS_OK;
}

static int run_samples(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                       Run *run, Error *err)
{
    Exec *exec = NULL;
    FeedStore *store = feed_store_create();
    Value *inputs = calloc((size_t)program_inputs(program) + 1, sizeof *inputs);
    run->n_outputs = program_outputs(program);
    int rc = store && inputs ? ONNXPRESS_OK : error_memory(err, "a first run");
    if (!rc)
        rc = exec_create(program, run->memory, &exec, err);
    if (!rc)
        rc = feed_batch(feed, sample, n, store, inputs, err);
    if (!rc) {
        exec_set_samples(exec, n);
        rc = exec_forward(exec, inputs, run->keep, err);
    }
    if (!rc) {
        run->peak = exec_peak_bytes(exec);
        rc = copy_outputs(run, exec, err);
    }
    if (rc)
        run_free(run);
    exec_free(exec);
    feed_store_free(store);
    free(inputs);
    return rc;
}

/* Whether two samples together answer what each does alone. */
static bool agree(const Run *first, const Run *second, const Run *both)
{
    for (int o = 0; o < both->n_outputs; o++) {
        int64_t n = first->count[o];
        double size = 0, off = 0;
        if (second->count[o] != n || both->count[o] != 2 * n)
            return false;
        for (int64_t i = 0; i < 2 * n; i++) {
            double alone = i < n ? first->out[o][i] : second->out[o][i - n];
            size += alone * alone;
            off += (both->out[o][i] - alone) * (both->out[o][i] - alone);
        }
        if (!(off <= SAME * size)) /* NaN: not in a batch */
            return false;
    }
    return true;
}

int feed_fit(Feed *feed, const Program *program, size_t memory, Error *err)
{
    Run first = {.memory = memory, .keep = EXEC_KEEP}, second, both;
    Error own = {0};
    const int64_t sample[] = {0, feed->samples > 1};
    if (feed->max_batch != INT64_MAX && feed->max_batch > 1)
        return ONNXPRESS_OK;
    int rc = run_samples(program, feed, &sample[0], 1, &first, &own);
    if (rc == ONNXPRESS_MEMORY) { /* who only wants answers needs less */
        first = (Run){.memory = memory, .keep = EXEC_DISCARD};
        own = (Error){0};
        rc = run_samples(program, feed, &sample[0], 1, &first, &own);
    }
    if (rc)
        error_set(err, own.code, "%s", own.message);
    second = both = (Run){.memory = memory, .keep = first.keep};
    if (!rc && feed->max_batch > 1) {
        bool fits = run_samples(program, feed, &sample[1], 1, &second, &own) == ONNXPRESS_OK &&
                    run_samples(program, feed, sample, 2, &both, &own) == ONNXPRESS_OK &&
                    agree(&first, &second, &both);
        if (!fits)
            feed->max_batch = 1;
        size_t more = both.peak > first.peak ? both.peak - first.peak : 1;
        size_t room = BLOCK_BYTES > first.peak ? (BLOCK_BYTES - first.peak) / more : 0;
        feed->block = room < INT32_MAX ? (int64_t)room + 1 : INT64_MAX;
    }
    run_free(&first);
    run_free(&second);
    run_free(&both);
    return rc;
}
