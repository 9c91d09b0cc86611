/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pruning.h"

#include <string.h>

#define SEARCH_STEPS 16 /* to a share within 1.5e-5 */

PruneMeasure pruning_measure(const OnnxPressOptions *options)
{
    return options->prune_by == ONNXPRESS_PRUNE_DAMAGE ? PRUNE_DAMAGE : PRUNE_MAGNITUDE;
}

PruneScope pruning_scope(const OnnxPressOptions *options)
{
    return options->prune_scope == ONNXPRESS_SCOPE_TENSOR ? PRUNE_TENSOR : PRUNE_MODEL;
}

int pruning_open(Session *session, const real *const *w, const float *const *h, Pruning *pruning)
{
    Arena *arena = session->arena;
    size_t n = (size_t)program_weights(session->program) + 1;
    int64_t *count = arena_array(arena, n, sizeof *count);
    const real **values = arena_array(arena, n, sizeof *values);
    const float **importance = arena_array(arena, n, sizeof *importance);
    *pruning = (Pruning){.measure = pruning_measure(session->options),
                         .scope = pruning_scope(session->options),
                         .weight = arena_array(arena, n, sizeof *pruning->weight),
                         .mask = arena_array(arena, n, sizeof *pruning->mask)};
    if (!count || !values || !importance || !pruning->weight || !pruning->mask)
        return error_memory(session->err, "the masks");
    int tensors = 0;
    for (int k = 0; k < program_weights(session->program); k++) {
        const Weight *weight = program_weight(session->program, k);
        if (!w[k] || weight->shape.rank < 2)
            continue;
        count[tensors] = weight->count;
        values[tensors] = w[k];
        importance[tensors] = h ? h[k] : NULL;
        pruning->weight[tensors] = k;
        pruning->mask[tensors] = arena_array(arena, (size_t)weight->count + 1, 1);
        if (!pruning->mask[tensors++])
            return error_memory(session->err, "the masks");
    }
    pruning->input = (PruneInput){.n = tensors, .count = count, .w = values, .h = importance};
    if (tensors == 0)
        return error_set(session->err, ONNXPRESS_UNSUPPORTED,
                         "%s: has no weights of two axes or more to prune", session->model->path);
    return ONNXPRESS_OK;
}

int pruning_cut(const Session *session, Pruning *pruning, double share)
{
    return prune_masks(&pruning->input, pruning->measure, pruning->scope, 1 - share, pruning->mask,
                       session->err);
}

double pruning_damage(const Pruning *pruning)
{
    double sum = 0;
    for (int t = 0; t < pruning->input.n; t++) {
        const float *h = pruning->input.h[t];
        for (int64_t i = 0; h && i < pruning->input.count[t]; i++) {
            double w = (double)pruning->input.w[t][i];
            sum += pruning->mask[t][i] ? 0 : (double)h[i] * w * w / 2;
        }
    }
    return sum;
}

int pruning_auto(Session *session, Pruning *pruning, double part, double *share)
{
    int rc = pruning_cut(session, pruning, 1);
    double limit = part * pruning_damage(pruning), low = 0, high = 1;
    for (int step = 0; !rc && step < SEARCH_STEPS; step++) {
        double middle = (low + high) / 2;
        rc = pruning_cut(session, pruning, middle);
        if (pruning_damage(pruning) <= limit)
            low = middle;
        else
            high = middle;
    }
    *share = low;
    return rc;
}
