/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/importance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Samples that are summed in float before they are added to the totals: long enough for the matrix
 * products, short enough for the caches. Fixed, so that no result depends on the threads. */
#define BLOCK 32
/* With a bound on memory a block takes at most this part of it where it can: room for threads. */
#define MEMORY_SHARES 8

/* The whole run: read-only while the threads work, except for what is marked. */
typedef struct {
    const Program *program;
    const Feed *feed;
    const int64_t *sample;
    const ImportanceOptions *options;
    int n_weights, n_outputs;
    int64_t n, block; /* samples: all, and in a block */
    bool fixed;       /* the graph runs at a batch of `block` only */
    bool *wanted;     /* [n_weights] */
    double **total;   /* [n_weights]; added to in block order */
    double done;      /* share of the work; this and `stopped` belong to report_progress */
    bool stopped;
} Job;

/* What one thread works with. */
typedef struct {
    Exec *exec;
    FeedStore *store;
    Value *inputs;
    real **acc; /* [n_weights]: sums of a block; NULL: not wanted */
    const real **d_outputs;
    real *v;
    size_t v_room;
} Worker;

static void worker_close(const Job *job, Worker *worker)
{
    exec_free(worker->exec);
    if (worker->store)
        feed_store_free(worker->store);
    for (int w = 0; worker->acc && w < job->n_weights; w++)
        free(worker->acc[w]);
    free(worker->acc);
    free(worker->inputs);
    free(worker->d_outputs);
    free(worker->v);
    memset(worker, 0, sizeof *worker);
}

static int worker_open(const Job *job, Worker *worker, Error *err)
{
    memset(worker, 0, sizeof *worker);
    int rc = exec_create(job->program, job->options->memory, &worker->exec, err);
    if (rc)
        return rc;
    exec_set_wanted(worker->exec, job->wanted);
    worker->store = feed_store_create();
    worker->inputs = calloc((size_t)program_inputs(job->program) + 1, sizeof *worker->inputs);
    worker->d_outputs = calloc((size_t)job->n_outputs + 1, sizeof *worker->d_outputs);
    worker->acc = calloc((size_t)job->n_weights + 1, sizeof *worker->acc);
    if (!worker->store || !worker->inputs || !worker->d_outputs || !worker->acc)
        return error_memory(err, "the importance");
    for (int w = 0; w < job->n_weights; w++) {
        if (!job->wanted[w])
            continue;
        worker->acc[w] =
            calloc((size_t)program_weight(job->program, w)->count, sizeof **worker->acc);
        if (!worker->acc[w])
            return error_memory(err, "the importance");
    }
    return ONNXPRESS_OK;
}

static int worker_room(Worker *worker, size_t count, Error *err)
{
    if (count <= worker->v_room)
        return ONNXPRESS_OK;
    free(worker->v);
    worker->v_room = 0;
    worker->v = calloc(count, sizeof *worker->v);
    if (!worker->v)
        return error_memory(err, "the importance");
    worker->v_room = count;
    return ONNXPRESS_OK;
}

static int check_output(const Job *job, int output, const Value *value, const int64_t *sample,
                        int64_t n, Error *err)
{
    for (int64_t i = 0; i < value->count; i++) {
        if (!isfinite(value->r[i]))
            return error_set(err, ONNXPRESS_DATA,
                             "sample %lld: output %s is not finite: check the data and how it is "
                             "scaled, or leave the sample out",
                             (long long)sample[i / ((value->count + n - 1) / n)],
                             program_output(job->program, output)->name);
    }
    return ONNXPRESS_OK;
}

static int report_progress(Job *job, double share, Error *err)
{
    if (!job->options->progress)
        return ONNXPRESS_OK;
    bool stopped;
#pragma omp critical(onnxpress_importance)
    {
        job->done += share;
        if (!job->stopped)
            job->stopped = job->options->progress(job->options->context, fmin(job->done, 1.0)) != 0;
        stopped = job->stopped;
    }
    if (stopped)
        return error_set(err, ONNXPRESS_INTERRUPTED, "importance: interrupted");
    return ONNXPRESS_OK;
}

/* Passes over a sample for one output: columns when there are few of them, else draws. */
static int64_t passes(const Job *job, int output, const Value *value, int64_t n, bool *exact)
{
    if (!value->r)
        return 0; /* an integer output has no derivative */
    int64_t columns = loss_columns(job->options->kind[output], &value->shape, n);
    *exact = columns <= job->options->exact_columns;
    return *exact ? columns : job->options->draws < 1 ? 1 : job->options->draws;
}

static bool is_zero(const real *v, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (v[i] != 0)
            return false;
    }
    return true;
}

/* All passes of one output after a forward run of n samples. */
static int square_output(Job *job, Worker *worker, int output, const int64_t *sample, int64_t n,
                         double share, Error *err)
{
    const ImportanceOptions *options = job->options;
    const Value *value = exec_output(worker->exec, output);
    bool exact = true;
    int64_t count = passes(job, output, value, n, &exact);
    /* Outputs draw apart: the same signs twice would tie their errors together. */
    uint64_t seed = options->seed + (uint64_t)output * 0x9E3779B97F4A7C15u;
    real scale = exact ? 1 : (real)(1 / sqrt((double)count));
    int rc = worker_room(worker, (size_t)value->count + 1, err);
    for (int64_t k = 0; k < count && !rc; k++) {
        if (exact)
            loss_column(options->kind[output], value, n, options->variance[output], k, worker->v);
        else
            loss_draw(options->kind[output], value, options->variance[output], seed, sample, n, k,
                      worker->v);
        for (int64_t i = 0; !exact && i < value->count; i++)
            worker->v[i] *= scale;
        if (!is_zero(worker->v, value->count)) {
            worker->d_outputs[output] = worker->v;
            rc = exec_square(worker->exec, worker->d_outputs, worker->acc, err);
            worker->d_outputs[output] = NULL;
        }
        if (!rc)
            rc = report_progress(job, share / (double)count, err);
    }
    return rc;
}

/* Whether the samples of the last forward run can be told apart. */
static bool separable(const Job *job, const Exec *exec, int64_t n)
{
    if (n == 1)
        return true;
    for (int o = 0; o < job->n_outputs; o++) {
        const Value *value = exec_output(exec, o);
        if (value->r && output_layout(job->options->kind[o], &value->shape).rows % n)
            return false;
    }
    return exec_square_batches(exec);
}

/* Adds the squares of n samples to the worker's sums. *split is set when that needs them singly. */
static int square_samples(Job *job, Worker *worker, const int64_t *sample, int64_t n, bool *split,
                          Error *err)
{
    int rc = feed_batch(job->feed, sample, n, worker->store, worker->inputs, err);
    /* An input without a batch axis has another axis 0: its rows are no samples. */
    exec_set_samples(worker->exec, n);
    if (!rc)
        rc = exec_forward(worker->exec, worker->inputs, EXEC_KEEP, err);
    if (rc)
        return rc;
    *split = !separable(job, worker->exec, n);
    if (*split && job->fixed)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: importance needs the samples one by one, but the graph runs at a "
                         "batch of %lld only and mixes them",
                         program_output(job->program, 0)->name, (long long)n);
    int64_t total = 0;
    bool exact;
    for (int o = 0; o < job->n_outputs && !rc && !*split; o++) {
        const Value *value = exec_output(worker->exec, o);
        total += passes(job, o, value, n, &exact);
        if (value->r)
            rc = check_output(job, o, value, sample, n, err);
    }
    for (int o = 0; o < job->n_outputs && !rc && !*split; o++) {
        int64_t own = passes(job, o, exec_output(worker->exec, o), n, &exact);
        double share = total ? (double)own / (double)total * (double)n / (double)job->n : 0;
        rc = square_output(job, worker, o, sample, n, share, err);
    }
    return rc;
}

static int square_block(Job *job, Worker *worker, int64_t block, Error *err)
{
    const int64_t *sample = job->sample + block * job->block;
    int64_t left = job->n - block * job->block, n = left < job->block ? left : job->block;
    bool split = false;
    int rc = square_samples(job, worker, sample, n, &split, err);
    if (rc || !split)
        return rc;
    for (int64_t s = 0; s < n && !rc; s++)
        rc = square_samples(job, worker, sample + s, 1, &split, err);
    return rc;
}

static void merge_block(const Job *job, Worker *worker)
{
    for (int w = 0; w < job->n_weights; w++) {
        if (!job->wanted[w])
            continue;
        size_t count = (size_t)program_weight(job->program, w)->count;
        for (size_t i = 0; i < count; i++)
            job->total[w][i] += (double)worker->acc[w][i];
        memset(worker->acc[w], 0, count * sizeof **worker->acc);
    }
}

/* Each block is summed by one thread, and blocks are added in order: the first error in that order
 * is the one that is told. */
static int run_blocks(Job *job, int threads, Error *err)
{
    int64_t blocks = (job->n + job->block - 1) / job->block;
    bool failed = false;
    Error failure = {0};
#pragma omp parallel num_threads(threads)
    {
        Worker worker;
        Error own = {0};
        int opened = worker_open(job, &worker, &own);
#pragma omp for ordered schedule(dynamic, 1)
        for (int64_t b = 0; b < blocks; b++) {
            bool skip;
            int rc = opened;
#pragma omp atomic read
            skip = failed;
            if (!skip && !rc)
                rc = square_block(job, &worker, b, &own);
#pragma omp ordered
            if (!failed) {
                if (rc) {
                    failure = own;
                    failure.code = (OnnxPressStatus)rc;
#pragma omp atomic write
                    failed = true;
                } else {
                    merge_block(job, &worker);
                }
            }
        }
        worker_close(job, &worker);
    }
    return failed ? error_set(err, failure.code, "%s", failure.message) : ONNXPRESS_OK;
}

/* Peak bytes of a run of n samples: forward, and one pass for each output. */
static int measure(const Job *job, int64_t n, size_t *bytes, Error *err)
{
    ImportanceOptions options = *job->options;
    options.progress = NULL;
    options.exact_columns = 0;
    options.draws = 1;
    Job probe = *job;
    probe.options = &options;
    Worker worker;
    bool split;
    int rc = worker_open(&probe, &worker, err);
    if (!rc)
        rc = square_samples(&probe, &worker, job->sample, n, &split, err);
    *bytes = rc ? 0 : exec_peak_bytes(worker.exec);
    worker_close(&probe, &worker);
    return rc;
}

/* Sets the block, then the threads that there is memory for: in this order, since the block decides
 * the sums' last bits and must not depend on the threads. */
static int plan(Job *job, int *threads, Error *err)
{
    int64_t most = feed_max_batch(job->feed);
    size_t memory = job->options->memory, need = 0;
    job->fixed = most > 1 && most != INT64_MAX;
    job->block = job->fixed ? most : most < 1 ? 1 : most < BLOCK ? most : BLOCK;
    if (job->fixed)
        job->n -= job->n % most;
    if (job->n < 1)
        return error_set(err, ONNXPRESS_DATA,
                         "importance: too few samples: the model's input takes %lld at once",
                         (long long)job->block);
    if (memory > 0) {
        int rc = measure(job, job->fixed ? most : 1, &need, err);
        if (rc)
            return rc;
    }
    if (memory > 0 && !job->fixed && job->block > 1 && job->n > 1) {
        size_t pair = 0, part = memory / MEMORY_SHARES;
        Error ignored = {0};
        if (measure(job, 2, &pair, &ignored))
            pair = SIZE_MAX / 2; /* does not fit, or fails later with its own message */
        size_t more = pair > need ? pair - need : 1;
        size_t fitting = part > need ? (part - need) / more : 0;
        if (fitting < (size_t)job->block - 1)
            job->block = (int64_t)fitting + 1;
        need += more * ((size_t)job->block - 1);
    }
    int64_t blocks = (job->n + job->block - 1) / job->block;
    *threads = job->options->threads < 1 ? 1 : job->options->threads;
    if (*threads > blocks)
        *threads = (int)blocks;
    if (need > 0 && (size_t)*threads > memory / need)
        *threads = memory >= need ? (int)(memory / need) : 1;
    return ONNXPRESS_OK;
}

static int job_open(Job *job, Error *err)
{
    job->wanted = calloc((size_t)job->n_weights + 1, sizeof *job->wanted);
    job->total = calloc((size_t)job->n_weights + 1, sizeof *job->total);
    if (!job->wanted || !job->total)
        return error_memory(err, "the importance");
    for (int w = 0; w < job->n_weights; w++) {
        const Weight *weight = program_weight(job->program, w);
        job->wanted[w] = weight->reaches && weight->count > 0;
        if (!job->wanted[w])
            continue;
        job->total[w] = calloc((size_t)weight->count, sizeof **job->total);
        if (!job->total[w])
            return error_memory(err, "the importance");
    }
    return ONNXPRESS_OK;
}

static void job_close(Job *job)
{
    for (int w = 0; job->total && w < job->n_weights; w++)
        free(job->total[w]);
    free(job->total);
    free(job->wanted);
}

static int job_results(const Job *job, Arena *arena, float **h, Error *err)
{
    for (int w = 0; w < job->n_weights; w++) {
        h[w] = NULL;
        if (!job->wanted[w])
            continue;
        const Weight *weight = program_weight(job->program, w);
        h[w] = arena_array(arena, (size_t)weight->count, sizeof **h);
        if (!h[w])
            return error_memory(err, "the importance");
        for (int64_t i = 0; i < weight->count; i++) {
            h[w][i] = (float)(job->total[w][i] / (double)job->n);
            if (!isfinite(h[w][i]))
                return error_set(err, ONNXPRESS_DATA,
                                 "%s: the gradients are too large for float32: check the scale of "
                                 "the data",
                                 weight->name);
        }
    }
    return ONNXPRESS_OK;
}

int importance_gauss_newton(const Program *program, const Feed *feed, const int64_t *sample,
                            int64_t n, const ImportanceOptions *options, Arena *arena, float **h,
                            Error *err)
{
    Job job = {.program = program,
               .feed = feed,
               .sample = sample,
               .options = options,
               .n_weights = program_weights(program),
               .n_outputs = program_outputs(program),
               .n = n};
    int threads = 1;
    int rc = job_open(&job, err);
    if (!rc)
        rc = plan(&job, &threads, err);
    if (!rc)
        rc = run_blocks(&job, threads, err);
    if (!rc)
        rc = job_results(&job, arena, h, err);
    job_close(&job);
    return rc;
}
