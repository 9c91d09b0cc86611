/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/blocks.h"

#include <stdlib.h>

/* With a bound on memory a block takes at most this part of it where it can: room for threads. */
#define MEMORY_SHARES 8

/* What one thread runs with. */
typedef struct {
    const BlockRun *run;
    Exec *exec;
    FeedStore *store;
    Value *inputs;
    void *state;
} Worker;

static int worker_open(const BlockRun *run, const BlockVisitor *visitor, size_t memory,
                       Worker *worker, Error *err)
{
    *worker = (Worker){.run = run};
    int rc = exec_create(run->program, memory, &worker->exec, err);
    if (rc)
        return rc;
    exec_set_weights(worker->exec, run->weights);
    exec_set_wanted(worker->exec, run->wanted);
    exec_set_by_batch(worker->exec, run->by_batch);
    worker->store = feed_store_create();
    worker->inputs = calloc((size_t)program_inputs(run->program) + 1, sizeof *worker->inputs);
    if (!worker->store || !worker->inputs)
        return error_memory(err, "a worker");
    return visitor->open ? visitor->open(visitor->context, &worker->state, err) : ONNXPRESS_OK;
}

static void worker_close(const BlockVisitor *visitor, Worker *worker)
{
    if (visitor->close)
        visitor->close(visitor->context, worker->state);
    exec_free(worker->exec);
    if (worker->store)
        feed_store_free(worker->store);
    free(worker->inputs);
}

int block_forward(const Block *block, const int64_t *sample, int64_t n, Error *err)
{
    const Worker *worker = block->worker;
    int rc = feed_batch(worker->run->feed, sample, n, worker->store, worker->inputs, err);
    /* An input without a batch axis has another axis 0: its rows are no samples. */
    exec_set_samples(worker->exec, n);
    return rc ? rc : exec_forward(worker->exec, worker->inputs, worker->run->keep, err);
}

int block_size(const Feed *feed, int64_t *n, int64_t *block, Error *err)
{
    int64_t most = feed_max_batch(feed);
    bool fixed = most > 1 && most != INT64_MAX;
    int64_t fitting = feed_block(feed) < BLOCK_SAMPLES ? feed_block(feed) : BLOCK_SAMPLES;
    *block = fixed ? most : most == 1 ? 1 : fitting;
    if (fixed)
        *n -= *n % most;
    if (*n < 1)
        return error_set(err, ONNXPRESS_DATA,
                         "too few samples: the model's input fixes its batch at %lld",
                         (long long)*block);
    return ONNXPRESS_OK;
}

int blocks_run(const BlockRun *run, const BlockVisitor *visitor, Error *err)
{
    int64_t blocks = (run->n + run->block - 1) / run->block, done = 0;
    int threads = run->threads < 1 ? 1 : run->threads;
    if (threads > blocks)
        threads = (int)blocks;
    size_t memory = run->memory ? run->memory / (size_t)threads : 0;
    bool failed = false;
    Error failure = {0};

#pragma omp parallel num_threads(threads)
    {
        Worker worker;
        Error own = {0};
        int opened = worker_open(run, visitor, memory, &worker, &own);
#pragma omp for ordered schedule(dynamic, 1)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t left = run->n - b * run->block;
            Block block = {.number = b,
                           .sample = run->sample + b * run->block,
                           .n = left < run->block ? left : run->block,
                           .exec = worker.exec,
                           .worker = &worker};
            bool skip;
            int rc = opened;
#pragma omp atomic read
            skip = failed;
            if (!skip && !rc)
                rc = block_forward(&block, block.sample, block.n, &own);
            if (!skip && !rc)
                rc = visitor->visit(visitor->context, worker.state, &block, &own);
#pragma omp ordered
            if (!failed) {
                if (!rc && visitor->merge)
                    rc = visitor->merge(visitor->context, worker.state, &block, &own);
                if (!rc && run->progress &&
                    run->progress(run->progress_context, (double)++done / (double)blocks))
                    rc = error_set(&own, ONNXPRESS_INTERRUPTED, "interrupted");
                if (rc) {
                    failure = own;
                    failure.code = (OnnxPressStatus)rc;
#pragma omp atomic write
                    failed = true;
                }
            }
        }
        worker_close(visitor, &worker);
    }
    return failed ? error_set(err, failure.code, "%s", failure.message) : ONNXPRESS_OK;
}

typedef struct {
    const BlockVisitor *visitor;
    size_t peak;
} Probe;

static int probe_open(void *context, void **state, Error *err)
{
    const BlockVisitor *visitor = ((Probe *)context)->visitor;
    return visitor->open ? visitor->open(visitor->context, state, err) : ONNXPRESS_OK;
}

static int probe_visit(void *context, void *state, const Block *block, Error *err)
{
    Probe *probe = context;
    int rc = probe->visitor->visit(probe->visitor->context, state, block, err);
    probe->peak = exec_peak_bytes(block->exec);
    return rc;
}

static void probe_close(void *context, void *state)
{
    const BlockVisitor *visitor = ((Probe *)context)->visitor;
    if (visitor->close)
        visitor->close(visitor->context, state);
}

int blocks_fit(BlockRun *run, const BlockVisitor *visitor, Error *err)
{
    if (!run->memory)
        return ONNXPRESS_OK;
    bool fixed = feed_max_batch(run->feed) == run->block;
    Probe probe = {visitor, 0};
    BlockVisitor measure = {
        .context = &probe, .open = probe_open, .visit = probe_visit, .close = probe_close};
    BlockRun one = *run;
    Error own;
    int rc;
    one.threads = 1;
    one.progress = NULL;
    for (;; one.block /= 2) {
        one.n = one.block < run->n ? one.block : run->n;
        own = (Error){0};
        rc = blocks_run(&one, &measure, &own);
        if (fixed || one.block == 1 || (rc && rc != ONNXPRESS_MEMORY) ||
            (!rc && probe.peak <= run->memory / MEMORY_SHARES))
            break;
    }
    if (rc)
        return error_set(err, own.code, "%s", own.message);
    size_t threads = probe.peak ? run->memory / probe.peak : (size_t)run->threads;
    run->block = one.block;
    if (threads < (size_t)run->threads)
        run->threads = threads < 1 ? 1 : (int)threads;
    return ONNXPRESS_OK;
}
