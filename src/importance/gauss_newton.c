/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/importance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/blocks.h"

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
    size_t peak;      /* of a measuring run: bytes of activations */
    double done;      /* share of the work; this and `stopped` belong to report_progress */
    bool stopped;
} Job;

/* What one thread works with. */
typedef struct {
    real **acc; /* [n_weights]: sums of a block; NULL: not wanted */
    const real **d_outputs;
    real *v;
    size_t v_room;
} Worker;

static void worker_close(void *context, void *state)
{
    const Job *job = context;
    Worker *worker = state;
    if (!worker)
        return;
    for (int w = 0; worker->acc && w < job->n_weights; w++)
        free(worker->acc[w]);
    free(worker->acc);
    free(worker->d_outputs);
    free(worker->v);
    free(worker);
}

static int worker_open(void *context, void **state, Error *err)
{
    const Job *job = context;
    Worker *worker = calloc(1, sizeof *worker);
    *state = worker;
    if (!worker)
        return error_memory(err, "the importance");
    worker->d_outputs = calloc((size_t)job->n_outputs + 1, sizeof *worker->d_outputs);
    worker->acc = calloc((size_t)job->n_weights + 1, sizeof *worker->acc);
    if (!worker->d_outputs || !worker->acc)
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
static int square_output(Job *job, Worker *worker, Exec *exec, int output, const int64_t *sample,
                         int64_t n, double share, Error *err)
{
    const ImportanceOptions *options = job->options;
    const Value *value = exec_output(exec, output);
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
            rc = exec_square(exec, worker->d_outputs, worker->acc, err);
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

/* Adds the squares of the n samples that the Exec has just run to the worker's sums. *split is set
 * when that needs them singly. */
static int square_samples(Job *job, Worker *worker, Exec *exec, const int64_t *sample, int64_t n,
                          bool *split, Error *err)
{
    int rc = ONNXPRESS_OK;
    *split = !separable(job, exec, n);
    if (*split && job->fixed)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: importance needs the samples one by one, but the graph runs at a "
                         "batch of %lld only and mixes them",
                         program_output(job->program, 0)->name, (long long)n);
    int64_t total = 0;
    bool exact;
    for (int o = 0; o < job->n_outputs && !rc && !*split; o++) {
        const Value *value = exec_output(exec, o);
        total += passes(job, o, value, n, &exact);
        if (value->r)
            rc = check_output(job, o, value, sample, n, err);
    }
    for (int o = 0; o < job->n_outputs && !rc && !*split; o++) {
        int64_t own = passes(job, o, exec_output(exec, o), n, &exact);
        double share = total ? (double)own / (double)total * (double)n / (double)job->n : 0;
        rc = square_output(job, worker, exec, o, sample, n, share, err);
    }
    return rc;
}

static int square_block(void *context, void *state, const Block *block, Error *err)
{
    Job *job = context;
    bool split;
    int rc = square_samples(job, state, block->exec, block->sample, block->n, &split, err);
    if (rc || !split)
        return rc;
    for (int64_t s = 0; s < block->n && !rc; s++) {
        rc = block_forward(block, block->sample + s, 1, err);
        if (!rc)
            rc = square_samples(job, state, block->exec, block->sample + s, 1, &split, err);
    }
    return rc;
}

static int merge_block(void *context, void *state, const Block *block, Error *err)
{
    const Job *job = context;
    const Worker *worker = state;
    (void)block, (void)err;
    for (int w = 0; w < job->n_weights; w++) {
        if (!job->wanted[w])
            continue;
        size_t count = (size_t)program_weight(job->program, w)->count;
        for (size_t i = 0; i < count; i++)
            job->total[w][i] += (double)worker->acc[w][i];
        memset(worker->acc[w], 0, count * sizeof **worker->acc);
    }
    return ONNXPRESS_OK;
}

/* The job's samples, with its blocks. */
static int run_blocks(Job *job, const BlockVisitor *visitor, int threads, Error *err)
{
    BlockRun run = {.program = job->program,
                    .feed = job->feed,
                    .sample = job->sample,
                    .n = job->n,
                    .block = job->block,
                    .wanted = job->wanted,
                    .keep = EXEC_KEEP,
                    .threads = threads};
    /* The plan has made room for all threads: where it guessed a little too low, a run that fits by
     * itself does not fail. */
    if (!size_mul(job->options->memory, (size_t)threads, &run.memory))
        run.memory = SIZE_MAX;
    return blocks_run(&run, visitor, err);
}

static int measure_block(void *context, void *state, const Block *block, Error *err)
{
    Job *job = context;
    bool split;
    int rc = square_samples(job, state, block->exec, block->sample, block->n, &split, err);
    job->peak = exec_peak_bytes(block->exec);
    return rc;
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
    probe.n = probe.block = n;
    const BlockVisitor visitor = {
        .context = &probe, .open = worker_open, .visit = measure_block, .close = worker_close};
    int rc = run_blocks(&probe, &visitor, 1, err);
    *bytes = rc ? 0 : probe.peak;
    return rc;
}

/* Sets the block, then the threads that there is memory for: in this order, since the block decides
 * the sums' last bits and must not depend on the threads. */
static int plan(Job *job, int *threads, Error *err)
{
    int64_t most = feed_max_batch(job->feed);
    size_t memory = job->options->memory, need = 0;
    job->fixed = most > 1 && most != INT64_MAX;
    Error ignored = {0};
    if (block_size(job->feed, &job->n, &job->block, &ignored))
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
        const bool *asked = job->options->wanted;
        job->wanted[w] = weight->reaches && weight->count > 0 && (!asked || asked[w]);
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
        bool finite = true;
        for (int64_t i = 0; i < weight->count; i++) {
            h[w][i] = (float)(job->total[w][i] / (double)job->n);
            finite = finite && isfinite(h[w][i]);
        }
        if (!finite) /* masks of huge numbers, for one: as good as not measured */
            h[w] = NULL;
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
    const BlockVisitor visitor = {.context = &job,
                                  .open = worker_open,
                                  .visit = square_block,
                                  .merge = merge_block,
                                  .close = worker_close};
    int threads = 1;
    int rc = job_open(&job, err);
    if (!rc)
        rc = plan(&job, &threads, err);
    if (!rc)
        rc = run_blocks(&job, &visitor, threads, err);
    if (!rc)
        rc = job_results(&job, arena, h, err);
    job_close(&job);
    return rc;
}
