/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "importance/passes_internal.h"

/* Adam's usual decay of the second moment. */
#define DECAY 0.999

/* The gradient of a block's mean loss. The distance between the model and itself has none, so
 * without labels answers are drawn. */
static int adam_visit(Estimate *e, Pass *pass, Error *err)
{
    int rc =
        e->label ? pass_label_gradient(e, pass, err) : pass_answer_gradients(e, pass, e->pass, err);
    if (!rc)
        rc = exec_backward(pass->exec, pass->d_outputs, err);
    for (int w = 0; w < e->n_weights && !rc; w++) {
        const real *g = exec_gradient(pass->exec, w);
        for (int64_t i = 0; g && pass->acc[w] && i < program_weight(e->program, w)->count; i++)
            pass->acc[w][i] = g[i] / (real)pass->n;
    }
    return rc;
}

static void adam_merge(Estimate *e, Pass *pass)
{
    for (int w = 0; w < e->n_weights; w++)
        for (int64_t i = 0; e->wanted[w] && i < program_weight(e->program, w)->count; i++) {
            double g = (double)pass->acc[w][i];
            e->total[w][i] = DECAY * e->total[w][i] + (1 - DECAY) * g * g;
        }
}

int importance_adam(Estimate *e, Arena *arena, float **h, Error *err)
{
    e->visit = adam_visit;
    e->merge = adam_merge;
    e->passes = e->label ? 1 : e->options->draws;
    int rc = estimate_open(e, NULL, err);
    for (e->pass = 0; e->pass < e->passes && !rc; e->pass++)
        rc = estimate_run(e, err);
    if (rc)
        return rc;
    double steps = (double)((e->n + e->block - 1) / e->block) * e->passes;
    double correction = 1 - pow(DECAY, steps);
    for (int w = 0; w < e->n_weights; w++)
        for (int64_t i = 0; e->wanted[w] && i < program_weight(e->program, w)->count; i++)
            e->total[w][i] = sqrt(e->total[w][i] / correction);
    return estimate_results(e, 1, arena, h, err);
}
