/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/importance.h"
#include "pipeline/measure.h"

static int layers_progress(void *context, double share)
{
    return session_progress(context, "layers", share);
}

int measure_layers(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                   const Selection *selection, QuantizeMatrix **matrix)
{
    ImportanceOptions options = {.threads = session->threads,
                                 .memory = session->options->memory,
                                 .progress = layers_progress,
                                 .context = session};
    float **moment = arena_array(session->arena, (size_t)selection->n_weights + 1, sizeof *moment);
    *matrix = arena_array(session->arena, (size_t)selection->n_coded + 1, sizeof **matrix);
    if (!moment || !*matrix)
        return error_memory(session->err, "the layers");
    int rc = importance_moments(session->program, feed, sample, n, selection->coded, &options,
                                session->arena, moment, session->err);
    for (int t = 0; t < selection->n_coded && !rc; t++) {
        int w = selection->weight[t];
        QuantizeMatrix *m = &(*matrix)[t];
        OpMatrix op;
        m->effect = 1;
        if (!moment[w] || !program_matrix(session->program, w, &op))
            continue;
        *m = (QuantizeMatrix){.groups = (size_t)op.groups,
                              .rows = (size_t)op.rows,
                              .columns = (size_t)op.columns,
                              .row_stride = (size_t)op.row_stride,
                              .column_stride = (size_t)op.column_stride,
                              .factor = moment[w]};
        rc = quantize_factor(m->groups, m->columns, moment[w], &m->effect, session->err);
        if (!rc)
            rc = session_progress(session, "factors", (double)(t + 1) / selection->n_coded);
    }
    return rc;
}
