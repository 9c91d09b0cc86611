/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/passes_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int estimate_open(Estimate *e, const bool *wanted, Error *err)
{
    e->wanted = calloc((size_t)e->n_weights + 1, sizeof *e->wanted);
    e->total = calloc((size_t)e->n_weights + 1, sizeof *e->total);
    if (!e->wanted || !e->total)
        return error_memory(err, "the importance");
    for (int w = 0; w < e->n_weights; w++) {
        const Weight *weight = program_weight(e->program, w);
        e->wanted[w] =
            (wanted ? wanted[w] : weight->reaches && !weight->steers) && weight->count > 0 &&
            (!e->options->wanted || e->options->wanted[w]);
        if (!e->wanted[w] || e->merge)
            continue;
        e->total[w] = calloc((size_t)weight->count, sizeof **e->total);
        if (!e->total[w])
            return error_memory(err, "the importance");
    }
    return ONNXPRESS_OK;
}

void estimate_close(Estimate *e)
{
    for (int w = 0; e->total && w < e->n_weights; w++)
        free(e->total[w]);
    free(e->total);
    free(e->wanted);
}

int estimate_too_large(const Estimate *e, int weight, Error *err)
{
    return error_set(err, ONNXPRESS_DATA,
                     "%s: the gradients are too large for float32: check the scale of the data",
                     program_weight(e->program, weight)->name);
}

int estimate_results(const Estimate *e, double divisor, Arena *arena, float **h, Error *err)
{
    for (int w = 0; w < e->n_weights; w++) {
        h[w] = NULL;
        if (!e->wanted[w])
            continue;
        const Weight *weight = program_weight(e->program, w);
        h[w] = arena_array(arena, (size_t)weight->count, sizeof **h);
        if (!h[w])
            return error_memory(err, "the importance");
        for (int64_t i = 0; i < weight->count; i++) {
            double mean = e->total[w][i] / divisor;
            h[w][i] = (float)(mean < 0 ? 0 : mean);
            if (!isfinite(h[w][i]))
                return estimate_too_large(e, w, err);
        }
    }
    return ONNXPRESS_OK;
}

/* ---- blocks ---- */

static void pass_close(void *context, void *state)
{
    Estimate *e = context;
    Pass *pass = state;
    if (!pass)
        return;
    if (e->close)
        e->close(e, pass);
    for (int w = 0; pass->acc && w < e->n_weights; w++)
        free(pass->acc[w]);
    for (int o = 0; pass->v && o < e->n_outputs; o++)
        free(pass->v[o]);
    free(pass->acc);
    free(pass->v);
    free(pass->room);
    free(pass->d_outputs);
    free(pass);
}

static int pass_open(void *context, void **state, Error *err)
{
    Estimate *e = context;
    Pass *pass = calloc(1, sizeof *pass);
    size_t n_weights = (size_t)e->n_weights + 1, n_outputs = (size_t)e->n_outputs + 1;
    *state = pass;
    if (!pass)
        return error_memory(err, "the importance");
    pass->acc = calloc(n_weights, sizeof *pass->acc);
    pass->v = calloc(n_outputs, sizeof *pass->v);
    pass->room = calloc(n_outputs, sizeof *pass->room);
    pass->d_outputs = calloc(n_outputs, sizeof *pass->d_outputs);
    if (!pass->acc || !pass->v || !pass->room || !pass->d_outputs)
        return error_memory(err, "the importance");
    for (int w = 0; w < e->n_weights; w++) {
        size_t count = (size_t)program_weight(e->program, w)->count;
        if (e->wanted[w] && !e->merge && !(pass->acc[w] = calloc(count, sizeof **pass->acc)))
            return error_memory(err, "the importance");
    }
    return e->open ? e->open(e, pass, err) : ONNXPRESS_OK;
}

static void forget_vectors(const Estimate *e, Pass *pass)
{
    for (int o = 0; o < e->n_outputs; o++)
        pass->d_outputs[o] = NULL;
}

static int visit_block(void *context, void *state, const Block *block, Error *err)
{
    Estimate *e = context;
    Pass *pass = state;
    pass->block = block;
    pass->exec = block->exec;
    pass->sample = block->sample;
    pass->n = block->n;
    forget_vectors(e, pass);
    int rc = pass_check(e, pass, err);
    return rc ? rc : e->visit(e, pass, err);
}

static int merge_block(void *context, void *state, const Block *block, Error *err)
{
    Estimate *e = context;
    Pass *pass = state;
    (void)block;
    int rc = e->merge ? e->merge(e, pass, err) : ONNXPRESS_OK;
    for (int w = 0; w < e->n_weights; w++) {
        if (!pass->acc[w])
            continue;
        size_t count = (size_t)program_weight(e->program, w)->count;
        for (size_t i = 0; !e->merge && i < count; i++)
            e->total[w][i] += (double)pass->acc[w][i];
        memset(pass->acc[w], 0, count * sizeof **pass->acc);
    }
    return rc;
}

static int report_progress(void *context, double share)
{
    const Estimate *e = context;
    double passes = e->passes > 1 ? e->passes : 1;
    return e->options->progress(e->options->context, fmin(1, (e->pass + share) / passes));
}

/* One pass of one draw shows what all of them need. */
static int fit_memory(Estimate *e, BlockRun *run, Error *err)
{
    const ImportanceOptions *options = e->options;
    ImportanceOptions once = *options;
    BlockVisitor visitor = {
        .context = e, .open = pass_open, .visit = visit_block, .close = pass_close};
    once.draws = 1;
    e->options = &once;
    e->probing = true;
    int rc = blocks_fit(run, &visitor, err);
    e->probing = false;
    e->options = options;
    return rc;
}

int estimate_run(Estimate *e, Error *err)
{
    BlockRun run = {.program = e->program,
                    .feed = e->feed,
                    .sample = e->sample,
                    .n = e->n,
                    .wanted = e->wanted,
                    .keep = EXEC_KEEP,
                    .threads = e->threads ? e->threads : e->options->threads,
                    .memory = e->options->memory,
                    .progress = e->options->progress ? report_progress : NULL,
                    .progress_context = e};
    BlockVisitor visitor = {.context = e,
                            .open = pass_open,
                            .visit = visit_block,
                            .merge = merge_block,
                            .close = pass_close};
    int rc = ONNXPRESS_OK;
    if (e->block) { /* what the first run has found */
        run.block = e->block;
    } else {
        rc = block_size(e->feed, &run.n, &run.block, err);
        if (!rc)
            rc = fit_memory(e, &run, err);
    }
    e->n = run.n;
    e->block = run.block;
    e->threads = run.threads;
    return rc ? rc : blocks_run(&run, &visitor, err);
}

/* ---- one run ---- */

int pass_forward(Pass *pass, Error *err)
{
    return block_forward(pass->block, pass->sample, pass->n, err);
}

int pass_check(const Estimate *e, const Pass *pass, Error *err)
{
    for (int o = 0; o < e->n_outputs; o++) {
        const Value *value = exec_output(pass->exec, o);
        int64_t each = (value->count + pass->n - 1) / pass->n;
        for (int64_t i = 0; value->r && i < value->count; i++)
            if (!isfinite(value->r[i]))
                return error_set(err, ONNXPRESS_DATA,
                                 "sample %lld: output %s is not finite: check the data and how it "
                                 "is scaled, or leave the sample out",
                                 (long long)pass->sample[i / each],
                                 program_output(e->program, o)->name);
    }
    return ONNXPRESS_OK;
}

int pass_vector(Pass *pass, int output, Error *err)
{
    const Value *value = exec_output(pass->exec, output);
    size_t count = (size_t)value->count;
    pass->d_outputs[output] = NULL;
    if (!value->r)
        return ONNXPRESS_OK;
    if (count > pass->room[output]) {
        free(pass->v[output]);
        pass->room[output] = 0;
        pass->v[output] = calloc(count, sizeof **pass->v);
        if (!pass->v[output])
            return error_memory(err, "the importance");
        pass->room[output] = count;
    }
    if (count)
        memset(pass->v[output], 0, count * sizeof **pass->v);
    pass->d_outputs[output] = pass->v[output];
    return ONNXPRESS_OK;
}

int pass_label_gradient(const Estimate *e, Pass *pass, Error *err)
{
    OutputKind kind = e->options->kind[0];
    const Value *value = exec_output(pass->exec, 0);
    forget_vectors(e, pass);
    int rc = loss_check_labels(kind, program_output(e->program, 0)->name, &value->shape, e->label,
                               pass->sample, pass->n, err);
    if (!rc)
        rc = pass_vector(pass, 0, err);
    if (!rc && pass->d_outputs[0])
        loss_label_gradient(kind, value, e->label, pass->sample, pass->n, pass->v[0]);
    return rc;
}

int pass_answer_gradients(const Estimate *e, Pass *pass, int64_t draw, Error *err)
{
    int rc = ONNXPRESS_OK;
    for (int o = 0; o < e->n_outputs && !rc; o++) {
        /* Outputs draw apart: the same numbers twice would tie their errors together. */
        uint64_t seed = e->options->seed + (uint64_t)o * 0x9E3779B97F4A7C15u;
        rc = pass_vector(pass, o, err);
        if (!rc && pass->d_outputs[o])
            loss_answer_gradient(e->options->kind[o], exec_output(pass->exec, o),
                                 e->options->variance[o], seed, pass->sample, pass->n, draw,
                                 pass->v[o]);
    }
    return rc;
}

static bool separable(const Estimate *e, const Pass *pass)
{
    if (pass->n == 1)
        return true;
    for (int o = 0; o < e->n_outputs; o++) {
        const Value *value = exec_output(pass->exec, o);
        if (value->r && output_layout(e->options->kind[o], &value->shape).rows % pass->n)
            return false;
    }
    return exec_square_batches(pass->exec);
}

int pass_apart(Estimate *e, Pass *pass, int (*each)(Estimate *e, Pass *pass, Error *err),
               Error *err)
{
    int64_t most = feed_max_batch(e->feed);
    if (separable(e, pass))
        return each(e, pass, err);
    if (most > 1 && most != INT64_MAX)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: importance needs the samples one by one, but the graph runs at a "
                         "batch of %lld only and mixes them",
                         program_output(e->program, 0)->name, (long long)most);
    const int64_t *sample = pass->sample;
    int64_t n = pass->n;
    int rc = ONNXPRESS_OK;
    pass->n = 1;
    for (int64_t s = 0; s < n && !rc; s++) {
        pass->sample = sample + s;
        rc = pass_forward(pass, err);
        if (!rc)
            rc = pass_check(e, pass, err);
        if (!rc)
            rc = each(e, pass, err);
    }
    pass->sample = sample;
    pass->n = n;
    return rc;
}
