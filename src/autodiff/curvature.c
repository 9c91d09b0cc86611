/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

#include <stdlib.h>
#include <string.h>

/* Becker and LeCun's recursion: beside each value's gradient its diagonal second derivative goes
 * backwards, by each op's own rule; what two elements do together is left out. */

int program_curvature(const Program *program, bool *known, Error *err)
{
    bool *broken = calloc((size_t)program->graph->n_values + 1, sizeof *broken);
    if (!broken)
        return error_memory(err, "the second-order rules");
    for (int s = program->n_steps - 1; s >= 0; s--) {
        const Step *step = &program->steps[s];
        bool leads = false, breaks = !step->op.row || !step->op.row->curvature;
        for (int k = 0; k < step->op.n_out && step->differentiable; k++)
            if (step->out[k] >= 0 && program->values[step->out[k]].useful) {
                leads = true;
                breaks |= broken[step->out[k]];
            }
        for (int k = 0; leads && breaks && k < step->op.n_in; k++)
            if (step->in[k] >= 0)
                broken[step->in[k]] = true;
    }
    for (int w = 0; w < program->n_weights; w++) {
        const Weight *weight = &program->weights[w];
        known[w] = weight->reaches && !weight->steers && !broken[weight->value];
    }
    free(broken);
    return ONNXPRESS_OK;
}

typedef struct {
    Exec *exec;
    Buffer **second;    /* [n_values] */
    const real **first; /* [most_out]: gradients at the current step's outputs */
    real *const *acc;
} Sweep;

/* Where the derivatives by input k of a step are added; NULL: not wanted. Weights' gradients are
 * needed by no rule. */
static int open_input(Sweep *sweep, int v, bool second, real **where, Error *err)
{
    Exec *exec = sweep->exec;
    const ProgramValue *value = v < 0 ? NULL : &exec->program->values[v];
    *where = NULL;
    if (!value || !exec->needs[v] || !dtype_is_real(exec->values[v].dtype))
        return ONNXPRESS_OK;
    if (value->origin == FROM_WEIGHT) {
        *where = second ? sweep->acc[value->index] : NULL;
        return ONNXPRESS_OK;
    }
    return exec_open_gradient(exec, second ? &sweep->second[v] : &exec->gradient[v], v, where, err);
}

static int sweep_step(Sweep *sweep, const Step *step, Error *err)
{
    Exec *exec = sweep->exec;
    OpCall call;
    bool first = false, second = false, wanted = false;
    int status = ONNXPRESS_OK;
    exec_call(exec, step, &call, err);
    for (int k = 0; k < step->op.n_out; k++) {
        int v = step->out[k];
        sweep->first[k] = v >= 0 && exec->gradient[v] ? buffer_data(exec->gradient[v]) : NULL;
        exec->d_out[k] = v >= 0 && sweep->second[v] ? buffer_data(sweep->second[v]) : NULL;
        first |= sweep->first[k] != NULL;
        second |= exec->d_out[k] != NULL;
    }
    if (!second)
        return ONNXPRESS_OK;
    if (!step->op.row->curvature)
        return op_error(&call, ONNXPRESS_INTERNAL, "there is no second-order rule");
    for (int k = 0; k < step->op.n_in && !status; k++) {
        status = open_input(sweep, step->in[k], true, &exec->d_in[k], err);
        wanted |= exec->d_in[k] != NULL;
    }
    if (!status && wanted)
        status = step->op.row->curvature(&call, sweep->first);
    exec_release_scratch(exec);
    if (status || !first)
        return status;
    exec_call(exec, step, &call, err);
    wanted = false;
    for (int k = 0; k < step->op.n_out; k++)
        exec->d_out[k] = sweep->first[k];
    for (int k = 0; k < step->op.n_in && !status; k++) {
        status = open_input(sweep, step->in[k], false, &exec->d_in[k], err);
        wanted |= exec->d_in[k] != NULL;
    }
    if (!status && wanted)
        status = step->op.row->backward(&call);
    exec_release_scratch(exec);
    return status;
}

static void drop(Sweep *sweep, int v)
{
    pool_release(sweep->exec->pool, sweep->exec->gradient[v]);
    pool_release(sweep->exec->pool, sweep->second[v]);
    sweep->exec->gradient[v] = NULL;
    sweep->second[v] = NULL;
}

static int start_output(Sweep *sweep, int output, const real *d, bool second, Error *err)
{
    Exec *exec = sweep->exec;
    int v = exec->program->output_value[output];
    real *where;
    if (!d || !exec->needs[v] || !dtype_is_real(exec->values[v].dtype))
        return ONNXPRESS_OK;
    int status =
        exec_open_gradient(exec, second ? &sweep->second[v] : &exec->gradient[v], v, &where, err);
    for (int64_t i = 0; !status && i < exec->values[v].count; i++)
        where[i] += d[i];
    return status;
}

int exec_curvature(Exec *exec, const real *const *d_outputs, const real *const *dd_outputs,
                   real *const *acc, Error *err)
{
    const Program *program = exec->program;
    int n_values = program->graph->n_values, status = ONNXPRESS_OK;
    if (!exec->ran)
        return error_set(err, ONNXPRESS_INTERNAL, "a backward run needs a forward run before it");
    Sweep sweep = {.exec = exec,
                   .second = calloc((size_t)n_values + 1, sizeof *sweep.second),
                   .first = calloc((size_t)program->most_out + 1, sizeof *sweep.first),
                   .acc = acc};
    if (!sweep.second || !sweep.first)
        status = error_memory(err, "the second derivatives");
    for (int v = 0; !status && v < n_values; v++)
        drop(&sweep, v); /* gradients of the sweep before */
    for (int o = 0; !status && o < program->n_outputs; o++) {
        status = start_output(&sweep, o, d_outputs[o], false, err);
        if (!status)
            status = start_output(&sweep, o, dd_outputs[o], true, err);
    }
    for (int s = program->n_steps - 1; !status && s >= 0; s--) {
        const Step *step = &program->steps[s];
        bool needed = false;
        for (int k = 0; k < step->op.n_out && step->differentiable; k++)
            needed |= step->out[k] >= 0 && exec->needs[step->out[k]];
        needed = needed && exec->done[s];
        if (needed && !exec->kept[s])
            status = error_set(err, ONNXPRESS_INTERNAL,
                               "the forward run did not keep what this backward run reads");
        if (needed && !status)
            status = sweep_step(&sweep, step, err);
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                drop(&sweep, step->out[k]);
    }
    for (int v = 0; sweep.second && v < n_values; v++)
        drop(&sweep, v);
    free(sweep.second);
    free(sweep.first);
    return status;
}

/* ---- one op alone ---- */

/* Input k of the step is a weight that meets samples in an op with a rule. */
static bool senses(const Program *program, const Step *step, int k)
{
    int v = step->in[k];
    bool sampled = false;
    if (v < 0 || program->values[v].origin != FROM_WEIGHT || !step->op.row ||
        !step->op.row->curvature || step->loop >= 0)
        return false;
    for (int o = 0; o < step->op.n_out; o++)
        sampled |= step->out[o] >= 0 && program->values[step->out[o]].tainted;
    return sampled;
}

void program_sensitivity(const Program *program, bool *known)
{
    for (int w = 0; w < program->n_weights; w++)
        known[w] = !program->weights[w].steers && program->weights[w].n_uses > 0;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        for (int k = 0; k < step->op.n_in; k++)
            if (step->in[k] >= 0 && program->values[step->in[k]].origin == FROM_WEIGHT &&
                !senses(program, step, k))
                known[program->values[step->in[k]].index] = false;
    }
}

static bool is_sensed(const Program *program, const Step *step, int k, const bool *wanted)
{
    return senses(program, step, k) && wanted[program->values[step->in[k]].index];
}

void exec_set_sensed(Exec *exec, const bool *wanted)
{
    const Program *program = exec->program;
    size_t n_values = (size_t)program->graph->n_values;
    memset(exec->needs, 0, n_values * sizeof *exec->needs);
    memset(exec->retain, 0, n_values * sizeof *exec->retain);
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        bool any = false;
        for (int k = 0; k < step->op.n_in; k++)
            any |= is_sensed(program, step, k, wanted);
        if (any)
            exec_retain(exec, step);
    }
}

static int add_sensitivity(Exec *exec, const Step *step, int k, real *acc, Error *err)
{
    OpCall call;
    exec_call(exec, step, &call, err);
    for (int o = 0; o < step->op.n_out; o++) {
        const Value *out = exec->out[o];
        if (!out || !dtype_is_real(out->dtype))
            continue;
        real *ones = op_scratch(&call, (size_t)out->count, sizeof *ones);
        if (!ones)
            return ONNXPRESS_MEMORY;
        for (int64_t i = 0; i < out->count; i++)
            ones[i] = 1;
        exec->d_out[o] = ones;
    }
    const real *none[1] = {NULL};
    const real **first =
        step->op.n_out > 1 ? op_scratch(&call, (size_t)step->op.n_out, sizeof *first) : none;
    if (!first)
        return ONNXPRESS_MEMORY;
    memset(first, 0, (size_t)step->op.n_out * sizeof *first);
    exec->d_in[k] = acc;
    return step->op.row->curvature(&call, first);
}

int exec_sensitivity(Exec *exec, real *const *acc, Error *err)
{
    const Program *program = exec->program;
    int status = ONNXPRESS_OK;
    if (!exec->ran)
        return error_set(err, ONNXPRESS_INTERNAL, "this needs a forward run before it");
    for (int s = 0; s < program->n_steps && !status; s++) {
        const Step *step = &program->steps[s];
        for (int k = 0; k < step->op.n_in && !status; k++) {
            if (!exec->done[s] || !senses(program, step, k) ||
                !acc[program->values[step->in[k]].index])
                continue;
            status = add_sensitivity(exec, step, k, acc[program->values[step->in[k]].index], err);
            exec_release_scratch(exec);
        }
    }
    return status;
}
