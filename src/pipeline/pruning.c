/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pruning.h"

#include <string.h>

#define SEARCH_STEPS 16   /* to a share within 1.5e-5 */
#define MEASURED_STEPS 10 /* to one within 0.001: each runs the model */
#define GOAL_PART 0.5     /* of the goal; the rest is for the quantization */

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

/* The weights with the masks on. */
static void mask_values(const Pruning *pruning, const size_t *offset, const int *tensor,
                        const float *from, float *to)
{
    for (int k = 0; k < pruning->input.n; k++)
        for (int64_t i = 0; i < pruning->input.count[k]; i++) {
            size_t at = offset[tensor[k]] + (size_t)i;
            to[at] = pruning->mask[k][i] ? from[at] : 0;
        }
}

static int find_share(Session *session, const ChooseInput *input, const Selection *selection,
                      const int *tensor, Pruning *pruning, double *share)
{
    const QuantizeInput *in = &selection->input;
    size_t n = in->offset[in->n_tensors];
    float *values = arena_array(session->arena, n, sizeof *values);
    const real **weights =
        arena_array(session->arena, (size_t)selection->n_weights + 1, sizeof *weights);
    if (!values || !weights)
        return error_memory(session->err, "the masks");
    memcpy(values, in->w, n * sizeof *values);
    for (int t = 0; t < selection->n_coded; t++)
        weights[selection->weight[t]] = values + in->offset[t];
    double low = 0, high = 1;
    int rc = ONNXPRESS_OK;
    for (int step = 0; !rc && step < MEASURED_STEPS; step++) {
        double middle = (low + high) / 2;
        bool meets = false;
        rc = pruning_cut(session, pruning, middle);
        mask_values(pruning, in->offset, tensor, in->w, values);
        if (!rc)
            rc = choose_values_meet(session, input, weights, GOAL_PART, &meets);
        if (!rc)
            rc = session_progress(session, "pruning", (double)(step + 1) / MEASURED_STEPS);
        *(meets ? &low : &high) = middle;
    }
    *share = low;
    return rc;
}

int prune_selection(Session *session, const ChooseInput *input, Selection *selection,
                    double *pruned)
{
    const OnnxPressOptions *options = session->options;
    const QuantizeInput *in = &selection->input;
    size_t n = (size_t)selection->n_weights + 1;
    const real **w = arena_array(session->arena, n, sizeof *w);
    const float **h = arena_array(session->arena, n, sizeof *h);
    int *tensor = arena_array(session->arena, n, sizeof *tensor); /* of the selection, by mask */
    Pruning pruning;
    int rc = w && h && tensor ? ONNXPRESS_OK : error_memory(session->err, "the masks");
    double share = options->prune;
    *pruned = NAN;
    if (rc || share == 0)
        return rc;
    for (int t = 0; t < selection->n_coded; t++) {
        w[selection->weight[t]] = in->w + in->offset[t];
        h[selection->weight[t]] = in->h + in->offset[t];
    }
    rc = pruning_open(session, w, h, &pruning);
    for (int k = 0, t = 0; k < pruning.input.n && !rc; t++)
        if (selection->weight[t] == pruning.weight[k])
            tensor[k++] = t;
    if (!rc && share == ONNXPRESS_PRUNE_AUTO)
        rc = input->answers ? find_share(session, input, selection, tensor, &pruning, &share)
                            : error_set(session->err, ONNXPRESS_UNSUPPORTED,
                                        "%s: cannot be run, so --prune auto cannot be measured",
                                        session->model->path);
    if (!rc)
        rc = pruning_cut(session, &pruning, share);
    if (!rc) {
        selection->pruned = true;
        mask_values(&pruning, in->offset, tensor, in->w, selection->values);
    }
    int64_t zeros = 0, total = 0;
    for (int k = 0; k < pruning.input.n && !rc; k++)
        for (int64_t i = 0; i < pruning.input.count[k]; i++, total++)
            zeros += !pruning.mask[k][i];
    *pruned = total ? (double)zeros / (double)total : NAN;
    return rc;
}
