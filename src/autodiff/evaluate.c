/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/blocks.h"

struct Answers {
    int n_outputs;
    int64_t n, block, n_blocks;
    int threads; /* that there is memory for */
    int64_t *sample;
    Shape *shape;  /* [n_blocks][n_outputs] */
    real **answer; /* [n_blocks][n_outputs] */
    double *mean, *variance;
};

static int64_t block_samples(const Answers *answers, int64_t block)
{
    int64_t left = answers->n - block * answers->block;
    return left < answers->block ? left : answers->block;
}

/* Forward over all blocks, each handed to `visit`. */
static int run_blocks(const Answers *answers, const Program *program, const Feed *feed,
                      const real *const *weights, const EvaluateOptions *options,
                      int (*visit)(void *, void *, const Block *, Error *), void *context,
                      Error *err)
{
    BlockRun run = {.program = program,
                    .feed = feed,
                    .sample = answers->sample,
                    .n = answers->n,
                    .block = answers->block,
                    .weights = weights,
                    .keep = EXEC_DISCARD,
                    .threads = answers->threads,
                    .memory = options->memory,
                    .progress = options->progress,
                    .progress_context = options->context};
    BlockVisitor visitor = {.context = context, .visit = visit};
    return blocks_run(&run, &visitor, err);
}

static int keep_answers(void *context, void *state, const Block *block, Error *err)
{
    (void)state;
    Answers *answers = context;
    for (int o = 0; o < answers->n_outputs; o++) {
        size_t slot = (size_t)(block->number * answers->n_outputs + o);
        const Value *value = exec_output(block->exec, o);
        answers->shape[slot] = value->shape;
        size_t count = (size_t)value->count;
        real *copy = malloc((count ? count : 1) * sizeof *copy);
        if (!copy)
            return error_memory(err, "the model's answers");
        answers->answer[slot] = copy;
        if (!value->r) { /* an integer output, such as a class: compared as plain numbers */
            for (size_t i = 0; i < count; i++)
                copy[i] = (real)value->i[i];
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (!isfinite(value->r[i]))
                return error_set(err, ONNXPRESS_DATA,
                                 "the model answers NaN or infinity on samples %lld to %lld: check "
                                 "the data and its preprocessing (--mean, --std, --scale)",
                                 (long long)block->sample[0],
                                 (long long)block->sample[block->n - 1]);
            copy[i] = value->r[i];
        }
    }
    return ONNXPRESS_OK;
}

static void answers_statistics(Answers *answers)
{
    for (int o = 0; o < answers->n_outputs; o++) {
        double sum = 0, sum2 = 0;
        int64_t total = 0;
        for (int64_t b = 0; b < answers->n_blocks; b++) {
            size_t slot = (size_t)(b * answers->n_outputs + o);
            int64_t count = 0;
            shape_count(&answers->shape[slot], &count);
            for (int64_t i = 0; i < count; i++) {
                double x = (double)answers->answer[slot][i];
                sum += x;
                sum2 += x * x;
            }
            total += count;
        }
        if (total) {
            answers->mean[o] = sum / (double)total;
            double variance = sum2 / (double)total - answers->mean[o] * answers->mean[o];
            answers->variance[o] = variance > 0 ? variance : 0;
        }
    }
}

static int ignore_block(void *context, void *state, const Block *block, Error *err)
{
    (void)context, (void)state, (void)block, (void)err;
    return ONNXPRESS_OK;
}

/* Sets block and threads; the first is what the feed asks for. */
static int fit_memory(Answers *answers, const Program *program, const Feed *feed,
                      const int64_t *sample, int64_t n, const EvaluateOptions *options, Error *err)
{
    BlockRun run = {.program = program,
                    .feed = feed,
                    .sample = sample,
                    .n = n,
                    .block = answers->block,
                    .keep = EXEC_DISCARD,
                    .threads = options->threads,
                    .memory = options->memory};
    BlockVisitor visitor = {.visit = ignore_block};
    int rc = blocks_fit(&run, &visitor, err);
    answers->block = run.block;
    answers->threads = run.threads;
    return rc;
}

int answers_create(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                   const EvaluateOptions *options, Answers **out, Error *err)
{
    *out = NULL;
    Answers *answers = calloc(1, sizeof *answers);
    if (!answers)
        return error_memory(err, "the model's answers");
    int rc = ONNXPRESS_OK;
    rc = block_size(feed, &n, &answers->block, err);
    if (!rc)
        rc = fit_memory(answers, program, feed, sample, n, options, err);
    if (rc)
        goto fail;
    answers->n = n;
    answers->n_blocks = (n + answers->block - 1) / answers->block;
    answers->n_outputs = program_outputs(program);
    size_t slots = (size_t)(answers->n_blocks * answers->n_outputs);
    answers->sample = malloc((size_t)n * sizeof *answers->sample);
    answers->shape = calloc(slots + 1, sizeof *answers->shape);
    answers->answer = calloc(slots + 1, sizeof *answers->answer);
    answers->mean = calloc((size_t)answers->n_outputs + 1, sizeof *answers->mean);
    answers->variance = calloc((size_t)answers->n_outputs + 1, sizeof *answers->variance);
    if (!answers->sample || !answers->shape || !answers->answer || !answers->mean ||
        !answers->variance) {
        rc = error_memory(err, "the model's answers");
        goto fail;
    }
    memcpy(answers->sample, sample, (size_t)n * sizeof *sample);
    rc = run_blocks(answers, program, feed, NULL, options, keep_answers, answers, err);
    if (rc)
        goto fail;
    answers_statistics(answers);
    *out = answers;
    return ONNXPRESS_OK;
fail:
    answers_free(answers);
    return rc;
}

void answers_free(Answers *answers)
{
    if (!answers)
        return;
    if (answers->answer)
        for (int64_t i = 0; i < answers->n_blocks * answers->n_outputs; i++)
            free(answers->answer[i]);
    free(answers->answer);
    free(answers->sample);
    free(answers->shape);
    free(answers->mean);
    free(answers->variance);
    free(answers);
}

const Shape *answers_shape(const Answers *answers, int output)
{
    return &answers->shape[output];
}

double answers_variance(const Answers *answers, int output)
{
    return answers->variance[output];
}

/* The elements of a sample of output `output`; 0: there are none, or not as many in each. */
static int64_t sample_elements(const Answers *answers, int output)
{
    int64_t each = 0;
    for (int64_t b = 0; b < answers->n_blocks; b++) {
        int64_t count = 0, samples = block_samples(answers, b);
        shape_count(&answers->shape[b * answers->n_outputs + output], &count);
        if (count % samples || (b > 0 && count / samples != each))
            return 0;
        each = count / samples;
    }
    return each;
}

double answers_variation(const Answers *answers, int output)
{
    int64_t each = sample_elements(answers, output);
    double *sum = each > 0 && answers->n > 1 ? calloc((size_t)each, 2 * sizeof *sum) : NULL;
    if (!sum)
        return NAN;
    double *sum2 = sum + each, total = 0, n = (double)answers->n;
    for (int64_t k = 0; k < answers->n; k++) {
        int64_t b = k / answers->block;
        const real *x = answers->answer[b * answers->n_outputs + output] + k % answers->block * each;
        for (int64_t i = 0; i < each; i++) {
            sum[i] += (double)x[i];
            sum2[i] += (double)x[i] * (double)x[i];
        }
    }
    for (int64_t i = 0; i < each; i++)
        total += fmax(0, sum2[i] / n - sum[i] / n * (sum[i] / n));
    free(sum);
    return total / (double)each;
}

bool answers_sum_to_one(const Answers *answers, int output)
{
    for (int64_t b = 0; b < answers->n_blocks; b++) {
        size_t slot = (size_t)(b * answers->n_outputs + output);
        if (!output_sums_to_one(&answers->shape[slot], answers->answer[slot]))
            return false;
    }
    return answers->n_blocks > 0;
}

int64_t answers_samples(const Answers *answers)
{
    return answers->n;
}

size_t answers_bytes(const Answers *answers)
{
    size_t bytes = 0;
    for (int64_t slot = 0; slot < answers->n_blocks * answers->n_outputs; slot++) {
        int64_t count = 0;
        shape_count(&answers->shape[slot], &count);
        bytes += (size_t)count * sizeof(real);
    }
    return bytes;
}

double answers_entropy(const Answers *answers, int output, OutputKind kind)
{
    Distance sum = {0};
    for (int64_t b = 0; b < answers->n_blocks; b++) {
        size_t slot = (size_t)(b * answers->n_outputs + output);
        loss_distance(kind, &answers->shape[slot], block_samples(answers, b),
                      answers->answer[slot], answers->answer[slot], &sum);
    }
    return sum.rows ? sum.entropy / (double)sum.rows : 0;
}

/* How many of a block's samples have their largest element of output 0 where the label says. */
static int64_t block_correct(const Answers *answers, int64_t block, const real *answer,
                             const int64_t *label)
{
    int64_t samples = block_samples(answers, block), count = 0, correct = 0;
    shape_count(&answers->shape[block * answers->n_outputs], &count);
    int64_t classes = count / samples;
    for (int64_t s = 0; s < samples && classes; s++) {
        int64_t best = 0;
        for (int64_t c = 1; c < classes; c++)
            if (answer[s * classes + c] > answer[s * classes + best])
                best = c;
        correct += best == label[answers->sample[block * answers->block + s]];
    }
    return correct;
}

typedef struct {
    const Answers *answers;
    const OutputKind *kind;
    const int64_t *label;
    Distance *distance; /* [n_blocks][n_outputs]: summed in block order afterwards */
    int64_t *correct;   /* [n_blocks] */
} Comparison;

static int compare_block(void *context, void *state, const Block *block, Error *err)
{
    (void)state;
    Comparison *c = context;
    const Answers *answers = c->answers;
    for (int o = 0; o < answers->n_outputs; o++) {
        size_t slot = (size_t)(block->number * answers->n_outputs + o);
        const Value *value = exec_output(block->exec, o);
        if (!shape_equal(&value->shape, &answers->shape[slot]))
            return error_set(err, ONNXPRESS_DATA,
                             "output %d differs in shape between the two models", o);
        const real *small = value->r;
        real *converted = NULL;
        if (!small) {
            converted = malloc(((size_t)value->count + 1) * sizeof *converted);
            if (!converted)
                return error_memory(err, "an output");
            for (int64_t i = 0; i < value->count; i++)
                converted[i] = (real)value->i[i];
            small = converted;
        }
        loss_distance(c->kind[o], &value->shape, block->n, answers->answer[slot], small,
                      &c->distance[slot]);
        if (o == 0 && c->label)
            c->correct[block->number] = block_correct(answers, block->number, small, c->label);
        free(converted);
    }
    return ONNXPRESS_OK;
}

int answers_compare(const Answers *answers, const Program *program, const Feed *feed,
                    const real *const *weights, const OutputKind *kind,
                    const EvaluateOptions *options, const int64_t *label, Distance *distance,
                    Score score[2], Error *err)
{
    if (program_outputs(program) != answers->n_outputs)
        return error_set(err, ONNXPRESS_DATA, "the two models differ in their number of outputs");
    size_t slots = (size_t)(answers->n_blocks * answers->n_outputs);
    Comparison c = {.answers = answers, .kind = kind, .label = label};
    c.distance = calloc(slots + 1, sizeof *c.distance);
    c.correct = calloc((size_t)answers->n_blocks + 1, sizeof *c.correct);
    int rc = c.distance && c.correct ? ONNXPRESS_OK : error_memory(err, "a comparison");
    if (!rc)
        rc = run_blocks(answers, program, feed, weights, options, compare_block, &c, err);
    if (!rc) {
        memset(distance, 0, (size_t)answers->n_outputs * sizeof *distance);
        for (size_t slot = 0; slot < slots; slot++)
            distance_add(&distance[slot % (size_t)answers->n_outputs], &c.distance[slot]);
        if (label) {
            score[0] = answers_score(answers, label);
            score[1] = (Score){0, answers->n};
            for (int64_t b = 0; b < answers->n_blocks; b++)
                score[1].correct += c.correct[b];
        }
    }
    free(c.distance);
    free(c.correct);
    return rc;
}

Score answers_score(const Answers *answers, const int64_t *label)
{
    Score score = {0, answers->n};
    for (int64_t b = 0; b < answers->n_blocks; b++)
        score.correct += block_correct(answers, b, answers->answer[b * answers->n_outputs], label);
    return score;
}
