/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/sensitive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A part of the tensors is suspected when it moves the answers so many times as far as expected,
 * and by this share of the whole. */
#define SURPRISE 6.0
#define WORTHWHILE 0.05
/* The finest that a step becomes. */
#define FINEST (1.0 / 64)

typedef struct {
    Session *session;
    const Selection *selection;
    const ChooseInput *input;
    const Answers *answers; /* on the goal's samples or on those that the importance saw */
    const double *expected; /* [n_coded] in parts of the goal */
    const float *rounded;   /* as selection->input.w */
    const real **weights;   /* [n_weights] */
    Distance *distance;     /* [outputs] */
    double whole;           /* of all tensors, in parts of the goal */
    float *finer;
    bool found;
} Probe;

double sensitive_expected(const Session *session, const ChooseInput *input, int tensor,
                          double distortion)
{
    double limit = INFINITY, effect = input->matrix ? input->matrix[tensor].effect : 1;
    for (int o = 0; input->answers && o < program_outputs(session->program); o++) {
        /* The loss of plain values is half of their relative error. */
        double half = session->kind[o] == OUTPUT_VALUES ? 0.5 : 1;
        limit = fmin(limit, half * goal_limit(session, input->answers, o));
    }
    return distortion * effect / 2 / limit;
}

/* How far the tensors [first, end) alone take the answers. */
static int measure_part(Probe *p, int first, int end, double *excess)
{
    Session *s = p->session;
    static const Score none[2] = {{0, 0}, {0, 0}};
    EvaluateOptions evaluate = session_evaluate_options(s, NULL);
    memset(p->weights, 0, (size_t)p->selection->n_weights * sizeof *p->weights);
    for (int t = first; t < end; t++)
        p->weights[p->selection->weight[t]] = p->rounded + p->selection->input.offset[t];
    int rc = answers_compare(p->answers, s->program, p->input->data->feed, p->weights, s->kind,
                             &evaluate, NULL, p->distance, NULL, s->err);
    if (rc == ONNXPRESS_DATA) { /* it cannot even answer */
        *s->err = (Error){0};
        *excess = INFINITY;
        return ONNXPRESS_OK;
    }
    *excess = rc ? 0 : goal_excess(s, p->input->answers, p->distance, none);
    return rc;
}

/* Halves what is suspected until single tensors are left. */
static int search_part(Probe *p, int first, int end)
{
    double expected = 0, excess = 0;
    double done = (double)first / p->selection->n_coded;
    int rc = session_progress(p->session, "sensitive tensors", done);
    if (!rc)
        rc = measure_part(p, first, end, &excess);
    for (int t = first; t < end; t++)
        expected += p->expected[t];
    if (rc || !(excess > SURPRISE * expected && excess > WORTHWHILE * p->whole))
        return rc;
    if (end - first > 1) {
        int middle = first + (end - first) / 2;
        rc = search_part(p, first, middle);
        return rc ? rc : search_part(p, middle, end);
    }
    p->finer[first] = (float)fmax(sqrt(expected / excess), FINEST);
    p->found = true;
    return ONNXPRESS_OK;
}

int sensitive_find(Session *session, const Selection *selection, const ChooseInput *input,
                   const Choice *choice, float *finer, bool *found)
{
    const QuantizeInput *in = &selection->input;
    int n = selection->n_coded;
    double expected = 0, *each = calloc((size_t)n + 1, sizeof *each);
    float *rounded = malloc((in->offset[n] + 1) * sizeof *rounded);
    const real **weights = calloc((size_t)selection->n_weights + 1, sizeof *weights);
    Distance *distance = calloc((size_t)program_outputs(session->program) + 1, sizeof *distance);
    int rc = each && rounded && weights && distance
                 ? ONNXPRESS_OK
                 : error_memory(session->err, "the search for sensitive tensors");
    *found = false;
    for (int t = 0; t < n; t++)
        finer[t] = 1;
    for (int t = 0; t < n && !rc; t++) {
        double distortion = quantize_distortion(in, &choice->quantized, (size_t)t);
        expected += each[t] = sensitive_expected(session, input, t, distortion);
    }
    if (!rc) {
        double whole = goal_excess(session, input->answers, choice->distance, choice->score);
        double all = choice->all
                         ? goal_excess(session, input->answers, choice->all, choice->score)
                         : 0;
        Probe probe = {.session = session,
                       .selection = selection,
                       .input = input,
                       .answers = all > whole ? input->seen : input->answers,
                       .expected = each,
                       .rounded = rounded,
                       .weights = weights,
                       .distance = distance,
                       .whole = whole,
                       .finer = finer};
        quantize_reconstruct(in, &choice->quantized, rounded);
        if (all > whole)
            rc = measure_part(&probe, 0, n, &probe.whole);
        if (!rc && probe.whole > SURPRISE * expected && n > 1) {
            rc = search_part(&probe, 0, n / 2);
            if (!rc)
                rc = search_part(&probe, n / 2, n);
        }
        *found = probe.found;
    }
    free(each);
    free(rounded);
    free(weights);
    free(distance);
    return rc;
}
