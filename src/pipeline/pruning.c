/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/pruning.h"

#include <string.h>

#define SEARCH_STEPS 16   /* to a share within 1.5e-5 */
#define MEASURED_STEPS 10 /* to one within 0.001: each runs the model */
#define GOAL_PART 0.5     /* of the goal; the rest is for the quantization */
#define WORTHWHILE 0.01   /* a smaller gain may be the estimate's error */

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

/* ---- compress's ---- */

typedef struct {
    Session *session;
    const ChooseInput *input;
    Selection *selection;
    Pruning pruning;
    int *tensor;        /* [pruning.input.n] of the selection */
    QuantizeInput whole; /* the selection's as it was */
} Cut;

/* Removes the share of the weights, as they were, from the selection's values; what they did is taken up
 * by the others where compensation knows how. */
static int apply_share(Cut *cut, double share)
{
    Session *session = cut->session;
    const QuantizeInput *whole = &cut->whole;
    Pruning *pruning = &cut->pruning;
    float *values = cut->selection->values;
    memcpy(values, whole->w, whole->offset[whole->n_tensors] * sizeof *values);
    cut->selection->pruned = share > 0;
    if (!cut->selection->pruned)
        return ONNXPRESS_OK;
    int rc = pruning_cut(session, pruning, share);
    for (int k = 0; k < pruning->input.n && !rc; k++)
        for (int64_t i = 0; i < pruning->input.count[k]; i++)
            if (!pruning->mask[k][i])
                values[whole->offset[cut->tensor[k]] + (size_t)i] = 0;
    return rc || !cut->input->matrix
               ? rc
               : quantize_pruned(whole, cut->input->matrix, session->threads, values, session->err);
}

/* The largest share that leaves the quantization its part of the goal. */
static int find_share(Cut *cut, double *share)
{
    Session *session = cut->session;
    const Selection *selection = cut->selection;
    const real **weights =
        arena_array(session->arena, (size_t)selection->n_weights + 1, sizeof *weights);
    if (!weights)
        return error_memory(session->err, "the masks");
    for (int t = 0; t < selection->n_coded; t++)
        weights[selection->weight[t]] = selection->values + cut->whole.offset[t];
    double low = 0, high = 1;
    int rc = ONNXPRESS_OK;
    for (int step = 0; !rc && step < MEASURED_STEPS; step++) {
        double middle = (low + high) / 2;
        bool meets = false;
        rc = apply_share(cut, middle);
        if (!rc)
            rc = choose_values_meet(session, cut->input, weights, GOAL_PART, &meets);
        if (!rc)
            rc = session_progress(session, "pruning", (double)(step + 1) / MEASURED_STEPS);
        *(meets ? &low : &high) = middle;
    }
    *share = low;
    return rc;
}

/* Of parts of the largest share, and none, the one with the smallest result. */
static int best_share(Cut *cut, double largest, double *share)
{
    static const double parts[] = {0, 0.25, 0.5, 0.75, 1};
    uint64_t least = 0;
    *share = 0;
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        Choice choice;
        int rc = apply_share(cut, parts[k] * largest);
        if (rc)
            return rc;
        rc = choose_quantization(cut->session, cut->selection, cut->input, &choice);
        uint64_t bytes = choice.bytes;
        choice_free(&choice);
        if (rc && rc != ONNXPRESS_GOAL)
            return rc;
        *cut->session->err = (Error){0}; /* without any within the goal it is told when none is left */
        if (!rc && (least == 0 || (double)bytes < (1 - WORTHWHILE) * (double)least)) {
            least = bytes;
            *share = parts[k] * largest;
        }
    }
    return ONNXPRESS_OK;
}

static int open_cut(Cut *cut)
{
    Session *session = cut->session;
    const Selection *selection = cut->selection;
    size_t n = (size_t)selection->n_weights + 1;
    size_t elements = selection->input.offset[selection->n_coded];
    const real **w = arena_array(session->arena, n, sizeof *w);
    const float **h = arena_array(session->arena, n, sizeof *h);
    float *whole = arena_array(session->arena, elements, sizeof *whole);
    cut->tensor = arena_array(session->arena, n, sizeof *cut->tensor);
    if (!w || !h || !whole || !cut->tensor)
        return error_memory(session->err, "the masks");
    memcpy(whole, selection->values, elements * sizeof *whole);
    cut->whole = selection->input;
    cut->whole.w = whole;
    for (int t = 0; t < selection->n_coded; t++) {
        w[selection->weight[t]] = whole + cut->whole.offset[t];
        h[selection->weight[t]] = cut->whole.h + cut->whole.offset[t];
    }
    int rc = pruning_open(session, w, h, &cut->pruning);
    for (int k = 0, t = 0; !rc && k < cut->pruning.input.n; t++)
        if (selection->weight[t] == cut->pruning.weight[k])
            cut->tensor[k++] = t;
    return rc;
}

int prune_selection(Session *session, const ChooseInput *input, Selection *selection,
                    double *pruned)
{
    Cut cut = {.session = session, .input = input, .selection = selection};
    double share = session->options->prune, largest = 0;
    *pruned = NAN;
    if (share == 0)
        return ONNXPRESS_OK;
    int rc = open_cut(&cut);
    if (!rc && share == ONNXPRESS_PRUNE_AUTO) {
        rc = input->answers ? find_share(&cut, &largest)
                            : error_set(session->err, ONNXPRESS_UNSUPPORTED,
                                        "%s: cannot be run, so --prune auto cannot be measured",
                                        session->model->path);
        if (!rc)
            rc = best_share(&cut, largest, &share);
    }
    if (!rc)
        rc = apply_share(&cut, share);
    int64_t zeros = 0, total = 0;
    for (int k = 0; k < cut.pruning.input.n && !rc; k++)
        for (int64_t i = 0; i < cut.pruning.input.count[k]; i++, total++)
            zeros += selection->pruned && !cut.pruning.mask[k][i];
    *pruned = total ? (double)zeros / (double)total : NAN;
    return rc;
}
