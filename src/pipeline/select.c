/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A weight without a measured importance is taken for this many times as important as the measured
 * ones of its size: nobody has looked at what it does. */
#define UNMEASURED_CAUTION 4.0

/* So many times the range of the median weight, and of the one that this share of the weights stay
 * within (where the largest layers hardly matter, all others are far above the median), in tensors of at
 * most that share of all weights. */
#define WIDE 64.0
#define WIDE_BESIDE 6.0
#define BESIDE 0.9
#define WIDE_SHARE 0.01

const char *select_exact_reason(const Weight *weight)
{
    if (weight->steers)
        return "sets shapes or numerics";
    if (weight->count < SELECT_MIN_ELEMENTS)
        return "too small to gain";
    return NULL;
}

bool select_may_code(const Weight *weight)
{
    return !select_exact_reason(weight);
}

int select_check_finite(Session *session)
{
    for (int w = 0; w < program_weights(session->program); w++) {
        const Weight *weight = program_weight(session->program, w);
        for (int64_t i = 0; i < weight->count && !select_exact_reason(weight); i++)
            if (!isfinite(weight->data[i]))
                return error_set(session->err, ONNXPRESS_DATA,
                                 "%s: weight %lld is %s: repair or retrain the model first",
                                 weight->name, (long long)i,
                                 isnan(weight->data[i]) ? "NaN" : "infinite");
    }
    return ONNXPRESS_OK;
}

static double mean_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    return n ? sum / (double)n : 0;
}

/* Mean over measured weights of h * w^2 an element: what a weight as important as its size says
 * has. */
static double typical_importance(const Session *session, const Selection *selection,
                                 float *const *h)
{
    double sum = 0, elements = 0;
    for (int w = 0; w < selection->n_weights; w++) {
        const Weight *weight = program_weight(session->program, w);
        if (!selection->coded[w] || !h[w] || !(mean_of(h[w], weight->count) > 0))
            continue;
        sum += mean_of(h[w], weight->count) * quantize_mean_square(weight->data, (size_t)weight->count) *
               (double)weight->count;
        elements += (double)weight->count;
    }
    return elements > 0 && sum > 0 ? sum / elements : 1;
}

static const char *unmeasured_reason(Session *session, const Weight *weight, bool measured)
{
    const char *blocked = weight->blocked_by;
    if (measured)
        return "importance from its size: the data never use it";
    return blocked ? arena_printf(session->arena, "importance from its size: %s has no derivative",
                                  blocked)
                   : "importance from its size";
}

/* A weight's importance, the mean over its elements; `typical` decides it where nobody has measured it,
 * or the data never use it. */
static double importance_of(const Weight *weight, const float *h, double typical)
{
    double measured = h ? mean_of(h, weight->count) : 0;
    if (measured > 0)
        return measured;
    double size = quantize_mean_square(weight->data, (size_t)weight->count);
    return size > 0 ? UNMEASURED_CAUTION * typical / size : 0;
}

/* What decides the finest step that a grid can have: a tensor's largest weight, in units of a step
 * for all (typical 0) or of one by its importance. */
static double reach(const Session *session, float *const *h, int w, double typical)
{
    const Weight *weight = program_weight(session->program, w);
    double largest = 0;
    for (int64_t i = 0; i < weight->count; i++)
        largest = fmax(largest, fabs((double)weight->data[i]));
    return typical > 0 ? largest * sqrt(importance_of(weight, h[w], typical)) : largest;
}

typedef struct {
    double reach;
    int64_t count;
} Reach;

static int compare_reach(const void *a, const void *b)
{
    const Reach *x = a, *y = b;
    return (x->reach > y->reach) - (x->reach < y->reach);
}

static double reach_within(const Reach *sorted, int n, double weights)
{
    double below = 0;
    int t = 0;
    while (t + 1 < n && (below += (double)sorted[t].count) < weights)
        t++;
    return sorted[t].reach;
}

/* Small tensors with a range far beyond that of most weights (variances, often) would stretch the
 * grid over more cells than there can be: they stay exact. */
static int leave_out_wide(Session *session, float *const *h, Selection *selection)
{
    int n = selection->n_coded;
    int64_t total = 0;
    Reach *sorted = arena_array(session->arena, (size_t)n + 1, sizeof *sorted);
    if (!sorted)
        return error_memory(session->err, "the selection of weights");
    for (int t = 0; t < n; t++)
        total += program_weight(session->program, selection->weight[t])->count;
    double typical[] = {0, typical_importance(session, selection, h)};
    for (int by_importance = 0; by_importance < 2; by_importance++) {
        for (int t = 0; t < n; t++) {
            int w = selection->weight[t];
            sorted[t] = (Reach){reach(session, h, w, typical[by_importance]),
                                program_weight(session->program, w)->count};
        }
        qsort(sorted, (size_t)n, sizeof *sorted, compare_reach);
        double most = fmax(WIDE * reach_within(sorted, n, 0.5 * (double)total),
                           WIDE_BESIDE * reach_within(sorted, n, BESIDE * (double)total));
        for (int t = 0; t < n; t++) {
            int w = selection->weight[t];
            if ((double)program_weight(session->program, w)->count < WIDE_SHARE * (double)total &&
                reach(session, h, w, typical[by_importance]) > most) {
                selection->coded[w] = false;
                selection->reason[w] = "its range is too wide for the grid";
            }
        }
    }
    selection->n_coded = 0;
    for (int t = 0; t < n; t++)
        if (selection->coded[selection->weight[t]])
            selection->weight[selection->n_coded++] = selection->weight[t];
    return ONNXPRESS_OK;
}

/* Statistics that are measured anew after the quantization are not coded before it. */
static int leave_out_statistics(Session *session, Selection *selection)
{
    ProgramNorm *norm;
    int n, fixed;
    if (!session->options->batch_norm)
        return ONNXPRESS_OK;
    int rc = program_norms(session->program, session->arena, &norm, &n, &fixed, session->err);
    for (int k = 0; k < n && !rc; k++)
        selection->reason[norm[k].mean] = selection->reason[norm[k].variance] =
            "measured anew after the quantization";
    return rc;
}

int select_reread(Session *session, const Selection *selection)
{
    int rc = ONNXPRESS_OK;
    for (int t = 0; t < selection->n_coded && !rc; t++) {
        const Weight *weight = program_weight(session->program, selection->weight[t]);
        const GraphValue *value = &program_graph(session->program)->values[weight->value];
        rc = model_read_floats(session->model, value->init, value->name,
                               selection->values + selection->input.offset[t], session->err);
    }
    return rc;
}

void select_forget(const Selection *selection)
{
    pages_forget(selection->values, selection->input.offset[selection->n_coded] * sizeof(float));
}

void select_release(Selection *selection)
{
    select_forget(selection);
    pages_forget(selection->input.h, selection->input.offset[selection->n_coded] * sizeof(float));
}

int select_weights(Session *session, float *const *h, const char *source, Selection *selection)
{
    Arena *arena = session->arena;
    int n = program_weights(session->program), rc = ONNXPRESS_OK;
    memset(selection, 0, sizeof *selection);
    selection->n_weights = n;
    selection->coded = arena_array(arena, (size_t)n + 1, sizeof *selection->coded);
    selection->reason = arena_array(arena, (size_t)n + 1, sizeof *selection->reason);
    selection->importance = arena_array(arena, (size_t)n + 1, sizeof *selection->importance);
    selection->weight = arena_array(arena, (size_t)n + 1, sizeof *selection->weight);
    size_t *offset = arena_array(arena, (size_t)n + 1, sizeof *offset);
    if (!selection->coded || !selection->reason || !selection->importance || !selection->weight ||
        !offset)
        return error_memory(session->err, "the selection of weights");

    size_t total = 0;
    if ((rc = leave_out_statistics(session, selection)))
        return rc;
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(session->program, w);
        selection->total_elements += weight->count;
        if (!selection->reason[w])
            selection->reason[w] = select_exact_reason(weight);
        if (selection->reason[w])
            continue;
        selection->coded[w] = true;
        selection->weight[selection->n_coded] = w;
        selection->n_coded++;
    }
    if ((rc = leave_out_wide(session, h, selection)))
        return rc;
    for (int t = 0; t < selection->n_coded; t++) {
        total += (size_t)program_weight(session->program, selection->weight[t])->count;
        offset[t + 1] = total;
    }
    if (total < 2)
        return error_set(session->err, ONNXPRESS_UNSUPPORTED,
                         "%s: holds no float weights worth coding (%d float tensors, none of at "
                         "least %d elements that may be changed)",
                         session->model->path, n, SELECT_MIN_ELEMENTS);

    float *values = selection->values = arena_array(arena, total, sizeof *values);
    float *importance = arena_array(arena, total, sizeof *importance);
    if (!values || !importance)
        return error_memory(session->err, "the weights");
    double typical = typical_importance(session, selection, h);
    for (int t = 0; t < selection->n_coded; t++) {
        int w = selection->weight[t];
        const Weight *weight = program_weight(session->program, w);
        memcpy(values + offset[t], weight->data, (size_t)weight->count * sizeof *values);
        program_move_weight(session->program, w, values + offset[t]);
        if (h[w] && mean_of(h[w], weight->count) > 0) {
            size_t bytes = (size_t)weight->count * sizeof *importance;
            memcpy(importance + offset[t], h[w], bytes);
            pages_forget(h[w], bytes);
            selection->reason[w] = source;
        } else {
            float each = (float)importance_of(weight, h[w], typical);
            for (int64_t i = 0; i < weight->count; i++)
                importance[offset[t] + (size_t)i] = each;
            selection->reason[w] = unmeasured_reason(session, weight, h[w] != NULL);
            if (!selection->reason[w])
                return error_memory(session->err, "a reason");
            if (weight->blocked_by)
                rc = session_warn(session, "%s: %s", weight->name, selection->reason[w]);
            if (rc)
                return rc;
        }
        selection->importance[w] = mean_of(importance + offset[t], weight->count);
    }
    selection->values = values;
    selection->input = (QuantizeInput){
        .n_tensors = (size_t)selection->n_coded, .offset = offset, .w = values, .h = importance};
    return ONNXPRESS_OK;
}
