/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "autodiff/blocks.h"
#include "importance/importance.h"

typedef struct {
    int n_weights;
    size_t *count;  /* [n_weights] numbers of a weight's moments; 0: not wanted */
    double **total; /* [n_weights] */
} Moments;

static int moments_open(void *context, void **state, Error *err)
{
    const Moments *m = context;
    real **acc = calloc((size_t)m->n_weights + 1, sizeof *acc);
    *state = acc;
    if (!acc)
        return error_memory(err, "second moments");
    for (int w = 0; w < m->n_weights; w++)
        if (m->count[w] && !(acc[w] = calloc(m->count[w], sizeof **acc)))
            return error_memory(err, "second moments");
    return ONNXPRESS_OK;
}

static void moments_close(void *context, void *state)
{
    const Moments *m = context;
    real **acc = state;
    for (int w = 0; acc && w < m->n_weights; w++)
        free(acc[w]);
    free(acc);
}

static int moments_visit(void *context, void *state, const Block *block, Error *err)
{
    (void)context;
    return exec_moments(block->exec, state, err);
}

static int moments_merge(void *context, void *state, const Block *block, Error *err)
{
    const Moments *m = context;
    real **acc = state;
    (void)block, (void)err;
    for (int w = 0; w < m->n_weights; w++) {
        for (size_t i = 0; i < m->count[w]; i++)
            m->total[w][i] += (double)acc[w][i];
        if (m->count[w])
            memset(acc[w], 0, m->count[w] * sizeof **acc);
    }
    return ONNXPRESS_OK;
}

/* Decides which weights get moments, within the bounds. */
static int moments_plan(Moments *m, const Program *program, const bool *wanted, int threads,
                        Error *err)
{
    size_t bytes = 0, each = sizeof(double) + (size_t)(threads < 1 ? 1 : threads) * sizeof(real);
    m->count = calloc((size_t)m->n_weights + 1, sizeof *m->count);
    m->total = calloc((size_t)m->n_weights + 1, sizeof *m->total);
    if (!m->count || !m->total)
        return error_memory(err, "second moments");
    for (int w = 0; w < m->n_weights; w++) {
        OpMatrix matrix;
        if (!wanted[w] || !program_matrix(program, w, &matrix) || matrix.columns < 2 ||
            matrix.columns > IMPORTANCE_MOMENT_COLUMNS)
            continue;
        size_t count = (size_t)matrix.columns * (size_t)matrix.columns;
        if (!size_mul(count, (size_t)matrix.groups, &count) ||
            count > (IMPORTANCE_MOMENT_BYTES - bytes) / each)
            continue;
        bytes += count * each;
        m->count[w] = count;
        m->total[w] = calloc(count, sizeof **m->total);
        if (!m->total[w])
            return error_memory(err, "second moments");
    }
    return ONNXPRESS_OK;
}

int importance_moments(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                       const bool *wanted, const ImportanceOptions *options, Arena *arena,
                       float **moment, Error *err)
{
    Moments m = {.n_weights = program_weights(program)};
    BlockRun run = {.program = program,
                    .feed = feed,
                    .sample = sample,
                    .n = n,
                    .keep = EXEC_KEEP,
                    .threads = options->threads,
                    .memory = options->memory,
                    .progress = options->progress,
                    .progress_context = options->context};
    BlockVisitor visitor = {.context = &m,
                            .open = moments_open,
                            .visit = moments_visit,
                            .merge = moments_merge,
                            .close = moments_close};
    int rc = moments_plan(&m, program, wanted, options->threads, err);
    if (!rc)
        rc = block_size(feed, &run.n, &run.block, err);
    if (!rc)
        rc = blocks_fit(&run, &visitor, err);
    if (!rc)
        rc = blocks_run(&run, &visitor, err);
    for (int w = 0; w < m.n_weights && !rc; w++) {
        moment[w] = m.count[w] ? arena_array(arena, m.count[w], sizeof **moment) : NULL;
        if (m.count[w] && !moment[w])
            rc = error_memory(err, "second moments");
        for (size_t i = 0; i < m.count[w] && !rc; i++)
            moment[w][i] = (float)(m.total[w][i] / (double)run.n);
    }
    for (int w = 0; m.total && w < m.n_weights; w++)
        free(m.total[w]);
    free(m.total);
    free(m.count);
    return rc;
}
