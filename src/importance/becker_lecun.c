/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "importance/passes_internal.h"

/* Second vectors at the outputs, beside the pass's own first ones. */
typedef struct {
    real **v;
    size_t *room;
    const real **dd_outputs;
} Seconds;

static void seconds_close(Estimate *e, Pass *pass)
{
    Seconds *s = pass->own;
    for (int o = 0; s && s->v && o < e->n_outputs; o++)
        free(s->v[o]);
    if (s) {
        free(s->v);
        free(s->room);
        free(s->dd_outputs);
    }
    free(s);
}

static int seconds_open(Estimate *e, Pass *pass, Error *err)
{
    size_t n = (size_t)e->n_outputs + 1;
    Seconds *s = calloc(1, sizeof *s);
    pass->own = s;
    if (!s)
        return error_memory(err, "the importance");
    s->v = calloc(n, sizeof *s->v);
    s->room = calloc(n, sizeof *s->room);
    s->dd_outputs = calloc(n, sizeof *s->dd_outputs);
    return s->v && s->room && s->dd_outputs ? ONNXPRESS_OK : error_memory(err, "the importance");
}

static int curvature_at(const Estimate *e, Pass *pass, int output, Error *err)
{
    Seconds *s = pass->own;
    const Value *value = exec_output(pass->exec, output);
    const ProgramOutput *about = program_output(e->program, output);
    size_t count = (size_t)value->count;
    s->dd_outputs[output] = NULL;
    int rc = pass_vector(pass, output, err);
    if (rc || !value->r)
        return rc;
    if (count > s->room[output]) {
        free(s->v[output]);
        s->room[output] = 0;
        s->v[output] = calloc(count, sizeof **s->v);
        if (!s->v[output])
            return error_memory(err, "the importance");
        s->room[output] = count;
    }
    s->dd_outputs[output] = s->v[output];
    loss_curvature(e->options->kind[output], !strcmp(about->made_by, "LogSoftmax"), value,
                   e->options->variance[output], e->label, pass->sample, pass->n, pass->v[output],
                   s->v[output]);
    /* Without labels the gradient is zero at most kinds of output: then no sweep of it is needed.
     */
    bool zero = true;
    for (size_t i = 0; i < count && zero; i++)
        zero = pass->v[output][i] == 0;
    if (zero)
        pass->d_outputs[output] = NULL;
    return ONNXPRESS_OK;
}

static int becker_lecun_visit(Estimate *e, Pass *pass, Error *err)
{
    Seconds *s = pass->own;
    int rc = ONNXPRESS_OK, last = e->label ? 1 : e->n_outputs;
    for (int o = 0; o < e->n_outputs; o++)
        s->dd_outputs[o] = NULL;
    if (e->label)
        rc = loss_check_labels(e->options->kind[0], program_output(e->program, 0)->name,
                               &exec_output(pass->exec, 0)->shape, e->label, pass->sample, pass->n,
                               err);
    for (int o = 0; o < last && !rc; o++)
        rc = curvature_at(e, pass, o, err);
    return rc ? rc : exec_curvature(pass->exec, pass->d_outputs, s->dd_outputs, pass->acc, err);
}

int importance_becker_lecun(Estimate *e, Arena *arena, float **h, Error *err)
{
    bool *known = calloc((size_t)e->n_weights + 1, sizeof *known);
    int rc =
        known ? program_curvature(e->program, known, err) : error_memory(err, "the importance");
    e->visit = becker_lecun_visit;
    e->open = seconds_open;
    e->close = seconds_close;
    if (!rc)
        rc = estimate_open(e, known, err);
    free(known);
    if (!rc)
        rc = estimate_run(e, err);
    return rc ? rc : estimate_results(e, (double)e->n, arena, h, err);
}
