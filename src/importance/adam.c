/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "importance/passes_internal.h"

/* Adam's usual decay of the second moment. */
#define DECAY 0.999

static void ignore_gradient(void *context, int weight, const real *gradient)
{
    (void)context, (void)weight, (void)gradient;
}

/* The gradient of a block's mean loss. The distance between the model and itself has none, so
 * without labels answers are drawn. */
static int adam_visit(Estimate *e, Pass *pass, Error *err)
{
    int rc =
        e->label ? pass_label_gradient(e, pass, err) : pass_answer_gradients(e, pass, e->pass, err);
    if (rc || !e->probing)
        return rc;
    exec_set_sink(pass->exec, ignore_gradient, NULL);
    return exec_backward(pass->exec, pass->d_outputs, err);
}

static void add_gradient(void *context, int w, const real *gradient)
{
    const Pass *pass = context;
    const Estimate *e = pass->own;
    for (int64_t i = 0; e->h[w] && i < program_weight(e->program, w)->count; i++) {
        double g = (double)gradient[i] / (double)pass->n;
        e->h[w][i] = (float)((double)e->h[w][i] + (1 - DECAY) * g * g);
    }
}

/* The backward runs are here, where blocks come one after another: so there is one gradient at a time,
 * of one weight, and the moments are the only numbers a weight that stay. */
static int adam_merge(Estimate *e, Pass *pass, Error *err)
{
    for (int w = 0; w < e->n_weights; w++)
        for (int64_t i = 0; e->h[w] && i < program_weight(e->program, w)->count; i++)
            e->h[w][i] = (float)(DECAY * (double)e->h[w][i]);
    pass->own = e;
    exec_set_sink(pass->exec, add_gradient, pass);
    return exec_backward(pass->exec, pass->d_outputs, err);
}

static int adam_result(const Estimate *e, double correction, Error *err)
{
    for (int w = 0; w < e->n_weights; w++)
        for (int64_t i = 0; e->h[w] && i < program_weight(e->program, w)->count; i++) {
            e->h[w][i] = (float)sqrt((double)e->h[w][i] / correction);
            if (!isfinite(e->h[w][i]))
                return estimate_too_large(e, w, err);
        }
    return ONNXPRESS_OK;
}

int importance_adam(Estimate *e, Arena *arena, float **h, Error *err)
{
    e->visit = adam_visit;
    e->merge = adam_merge;
    e->h = h;
    e->passes = e->label ? 1 : e->options->draws;
    int rc = estimate_open(e, NULL, err);
    for (int w = 0; w < e->n_weights && !rc; w++) {
        size_t count = (size_t)program_weight(e->program, w)->count;
        h[w] = e->wanted[w] ? arena_array(arena, count, sizeof **h) : NULL;
        if (e->wanted[w] && !h[w])
            rc = error_memory(err, "the importance");
    }
    for (e->pass = 0; e->pass < e->passes && !rc; e->pass++)
        rc = estimate_run(e, err);
    if (rc)
        return rc;
    double steps = (double)((e->n + e->block - 1) / e->block) * e->passes;
    return adam_result(e, 1 - pow(DECAY, steps), err);
}
