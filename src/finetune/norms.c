/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/norms.h"

#include <stdlib.h>
#include <string.h>

#include "autodiff/blocks.h"

/* Sums of one normalization: channel c's are at 2 c (of x - centre) and 2 c + 1 (of its square). */
typedef struct {
    const ProgramNorm *norm;
    const real *centre; /* the old mean */
    int64_t channels;
    double *sum;        /* [2 channels], all blocks */
    double count;       /* elements a channel */
} Measured;

typedef struct {
    Measured *measured; /* of one depth */
    int n;
    size_t room;        /* of a thread's sums, all normalizations together */
    int depth, depths;
    const NormsOptions *options;
} Level;

typedef struct {
    double *sum, *count;
} LevelState;

static int level_open(void *context, void **state, Error *err)
{
    const Level *level = context;
    LevelState *own = calloc(1, sizeof *own);
    if (own) {
        own->sum = calloc(level->room + 1, sizeof *own->sum);
        own->count = calloc((size_t)level->n + 1, sizeof *own->count);
    }
    *state = own;
    return own && own->sum && own->count ? ONNXPRESS_OK : error_memory(err, "the statistics");
}

static void level_close(void *context, void *state)
{
    LevelState *own = state;
    (void)context;
    if (own) {
        free(own->sum);
        free(own->count);
    }
    free(own);
}

static int add_block(const Measured *m, const Value *x, double *sum, double *count, Error *err)
{
    int64_t samples = x->shape.rank ? x->shape.dim[0] : 0;
    int64_t rows = samples * m->channels, size = rows ? x->count / rows : 0;
    *count += (double)(samples * size);
    for (int64_t row = 0; row < rows; row++) {
        int64_t c = row % m->channels;
        double centre = (double)m->centre[c], first = 0, second = 0;
        const real *at = x->r + row * size;
        for (int64_t i = 0; i < size; i++) {
            double d = (double)at[i] - centre;
            first += d;
            second += d * d;
        }
        if (!isfinite(second))
            return error_set(err, ONNXPRESS_DATA,
                             "the input of a BatchNormalization is not finite: its statistics "
                             "cannot be measured");
        sum[2 * c] += first;
        sum[2 * c + 1] += second;
    }
    return ONNXPRESS_OK;
}

static int level_visit(void *context, void *state, const Block *block, Error *err)
{
    const Level *level = context;
    LevelState *own = state;
    double *sum = own->sum;
    int status = ONNXPRESS_OK;
    memset(own->sum, 0, level->room * sizeof *own->sum);
    memset(own->count, 0, (size_t)level->n * sizeof *own->count);
    for (int k = 0; k < level->n && !status; k++) {
        const Measured *m = &level->measured[k];
        const Value *x = exec_value(block->exec, m->norm->input);
        if (!x || !x->r)
            return error_set(err, ONNXPRESS_INTERNAL, "the input of a normalization is lost");
        status = add_block(m, x, sum, &own->count[k], err);
        sum += 2 * m->channels;
    }
    return status;
}

static int level_merge(void *context, void *state, const Block *block, Error *err)
{
    Level *level = context;
    const LevelState *own = state;
    const double *sum = own->sum;
    (void)block, (void)err;
    for (int k = 0; k < level->n; k++) {
        Measured *m = &level->measured[k];
        m->count += own->count[k];
        for (int64_t i = 0; i < 2 * m->channels; i++)
            m->sum[i] += *sum++;
    }
    return ONNXPRESS_OK;
}

static int level_progress(void *context, double share)
{
    const Level *level = context;
    return level->options->progress(level->options->context, (level->depth + share) / level->depths);
}

static int settle(const Measured *m, Arena *arena, real **weight, Error *err)
{
    real *mean = arena_array(arena, (size_t)m->channels, sizeof *mean);
    real *variance = arena_array(arena, (size_t)m->channels, sizeof *variance);
    if (!mean || !variance)
        return error_memory(err, "the statistics");
    for (int64_t c = 0; c < m->channels; c++) {
        double shift = m->sum[2 * c] / m->count;
        double spread = m->sum[2 * c + 1] / m->count - shift * shift;
        mean[c] = (real)((double)m->centre[c] + shift);
        variance[c] = (real)(spread > 0 ? spread : 0);
    }
    weight[m->norm->mean] = mean;
    weight[m->norm->variance] = variance;
    return ONNXPRESS_OK;
}

static int measure_level(Level *level, const Program *program, const Feed *feed,
                         const int64_t *sample, int64_t n, Arena *arena, real **weight,
                         bool *wanted, Error *err)
{
    const NormsOptions *options = level->options;
    BlockRun run = {.program = program,
                    .feed = feed,
                    .sample = sample,
                    .n = n,
                    .weights = (const real *const *)weight,
                    .wanted = wanted,
                    .keep = EXEC_KEEP,
                    .by_batch = options->by_batch,
                    .threads = options->threads,
                    .memory = options->memory,
                    .progress = options->progress ? level_progress : NULL,
                    .progress_context = level};
    BlockVisitor visitor = {.context = level,
                            .open = level_open,
                            .visit = level_visit,
                            .merge = level_merge,
                            .close = level_close};
    memset(wanted, 0, (size_t)program_weights(program) * sizeof *wanted);
    for (int k = 0; k < level->n; k++)
        wanted[level->measured[k].norm->mean] = true;
    int status = block_size(feed, &run.n, &run.block, err);
    if (!status)
        status = blocks_fit(&run, &visitor, err);
    if (!status)
        status = blocks_run(&run, &visitor, err);
    for (int k = 0; k < level->n && !status; k++)
        status = settle(&level->measured[k], arena, weight, err);
    return status;
}

/* The normalizations of one depth. */
static int fill_level(Level *level, const Program *program, const ProgramNorm *norm, int n,
                      real *const *weight, Arena *arena, Error *err)
{
    level->n = 0;
    level->room = 0;
    for (int k = 0; k < n; k++) {
        if (norm[k].depth != level->depth && !level->options->by_batch)
            continue;
        const Weight *mean = program_weight(program, norm[k].mean);
        Measured *m = &level->measured[level->n++];
        *m = (Measured){.norm = &norm[k],
                        .centre = weight[norm[k].mean] ? weight[norm[k].mean] : mean->data,
                        .channels = mean->count,
                        .sum = arena_array(arena, 2 * (size_t)mean->count, sizeof *m->sum)};
        if (!m->sum)
            return error_memory(err, "the statistics");
        level->room += 2 * (size_t)mean->count;
    }
    return ONNXPRESS_OK;
}

int norms_reestimate(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                     const NormsOptions *options, Arena *arena, real **weight, int64_t *done,
                     int64_t *fixed, Error *err)
{
    ProgramNorm *norm;
    int n_norms, n_fixed;
    int status = program_norms(program, arena, &norm, &n_norms, &n_fixed, err);
    Level level = {.options = options};
    *done = *fixed = 0;
    if (status)
        return status;
    bool *wanted = arena_array(arena, (size_t)program_weights(program) + 1, sizeof *wanted);
    level.measured = arena_array(arena, (size_t)n_norms + 1, sizeof *level.measured);
    if (!wanted || !level.measured)
        return error_memory(err, "the statistics");
    level.depths = options->by_batch;
    for (int k = 0; k < n_norms && !options->by_batch; k++)
        level.depths = norm[k].depth >= level.depths ? norm[k].depth + 1 : level.depths;
    for (; level.depth < level.depths && !status; level.depth++) {
        status = fill_level(&level, program, norm, n_norms, weight, arena, err);
        if (!status && level.n)
            status =
                measure_level(&level, program, feed, sample, n, arena, weight, wanted, err);
    }
    *done = n_norms;
    *fixed = n_fixed;
    return status;
}
