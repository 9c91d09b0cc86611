/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

#include <stdlib.h>
#include <string.h>

int exec_create(const Program *program, size_t memory, Exec **result, Error *err)
{
    Exec *exec = calloc(1, sizeof *exec);
    if (!exec)
        return error_memory(err, "an executor");
    size_t n_values = (size_t)program->graph->n_values + 1,
           n_weights = (size_t)program->n_weights + 1, n_steps = (size_t)program->n_steps + 1,
           n_in = (size_t)program->most_in + 1, n_out = (size_t)program->most_out + 1;
    exec->program = program;
    exec->bounded = memory != 0;
    exec->pool = pool_create(memory ? memory : limit_memory(program, NULL));
    exec->values = calloc(n_values, sizeof *exec->values);
    exec->in = calloc(n_in, sizeof *exec->in);
    exec->out = calloc(n_out, sizeof *exec->out);
    exec->d_out = calloc(n_out, sizeof *exec->d_out);
    exec->d_in = calloc(n_in, sizeof *exec->d_in);
    exec->override = calloc(n_weights, sizeof *exec->override);
    exec->wanted = calloc(n_weights, sizeof *exec->wanted);
    exec->needs = calloc(n_values, sizeof *exec->needs);
    exec->retain = calloc(n_values, sizeof *exec->retain);
    exec->kept = calloc(n_steps, sizeof *exec->kept);
    exec->pending = calloc(n_values, sizeof *exec->pending);
    exec->gradient = calloc(n_values, sizeof *exec->gradient);
    exec->done = calloc(n_steps, sizeof *exec->done);
    exec->loops = loop_frames_create(program->graph->n_bodies);
    if (!exec->pool || !exec->values || !exec->in || !exec->out || !exec->d_out || !exec->d_in ||
        !exec->override || !exec->wanted || !exec->needs || !exec->retain || !exec->kept ||
        !exec->pending || !exec->gradient || !exec->done || !exec->loops) {
        exec_free(exec);
        return error_memory(err, "an executor");
    }
    exec_set_wanted(exec, NULL);
    *result = exec;
    return ONNXPRESS_OK;
}

void exec_drop_value(Exec *exec, int v)
{
    Value *value = &exec->values[v];
    pool_release(exec->pool, value->buffer);
    value->buffer = NULL;
    value->r = NULL;
    value->i = NULL; /* the shape stays for backward */
    value->items = NULL;
}

void exec_drop_gradient(Exec *exec, int v)
{
    pool_release(exec->pool, exec->gradient[v]);
    exec->gradient[v] = NULL;
}

static void drop_run(Exec *exec)
{
    for (int v = 0; v < exec->program->graph->n_values; v++) {
        exec_drop_value(exec, v);
        exec_drop_gradient(exec, v);
    }
    loop_frames_drop(exec);
    exec_release_scratch(exec);
    exec->ran = false;
}

void exec_free(Exec *exec)
{
    if (!exec)
        return;
    if (exec->pool && exec->values && exec->gradient && exec->loops)
        drop_run(exec);
    pool_free(exec->pool);
    free(exec->values);
    free(exec->in);
    free(exec->out);
    free(exec->d_out);
    free(exec->d_in);
    free(exec->scratch);
    free(exec->override);
    free(exec->wanted);
    free(exec->needs);
    free(exec->retain);
    free(exec->kept);
    free(exec->pending);
    free(exec->gradient);
    free(exec->done);
    free(exec->loops);
    free(exec);
}

void exec_set_weights(Exec *exec, const real *const *weights)
{
    for (int w = 0; w < exec->program->n_weights; w++)
        exec->override[w] = weights && !exec->program->weights[w].steers ? weights[w] : NULL;
}

void exec_set_sink(Exec *exec, void (*sink)(void *context, int weight, const real *gradient),
                   void *context)
{
    exec->sink = sink;
    exec->sink_context = context;
}

void exec_set_samples(Exec *exec, int64_t samples)
{
    exec->samples = samples;
}

void exec_set_by_batch(Exec *exec, bool by_batch)
{
    exec->by_batch = by_batch;
}

static bool step_needs(const Exec *exec, const Step *step)
{
    if (!step->differentiable)
        return false;
    for (int k = 0; k < step->op.n_out; k++)
        if (step->out[k] >= 0 && exec->needs[step->out[k]])
            return true;
    return false;
}

void exec_retain(Exec *exec, const Step *step)
{
    for (int k = 0; k < step->op.n_in && step->op.row->keep & OP_KEEP_INPUTS; k++)
        if (step->in[k] >= 0)
            exec->retain[step->in[k]] = true;
    for (int k = 0; k < step->op.n_out && step->op.row->keep & OP_KEEP_OUTPUTS; k++)
        if (step->out[k] >= 0)
            exec->retain[step->out[k]] = true;
}

void exec_set_wanted(Exec *exec, const bool *wanted)
{
    const Program *program = exec->program;
    int n_values = program->graph->n_values;
    memset(exec->needs, 0, (size_t)n_values * sizeof *exec->needs);
    memset(exec->retain, 0, (size_t)n_values * sizeof *exec->retain);
    for (int w = 0; w < program->n_weights; w++) {
        const Weight *weight = &program->weights[w];
        exec->wanted[w] = (!wanted || wanted[w]) && weight->reaches && !weight->steers;
        exec->needs[weight->value] = exec->wanted[w];
    }
    program_spread_needs(program, exec->needs);
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        if (step_needs(exec, step))
            exec_retain(exec, step);
    }
}

static void gather_arguments(Exec *exec, const Step *step)
{
    for (int k = 0; k < step->op.n_in; k++)
        exec->in[k] = step->in[k] >= 0 ? &exec->values[step->in[k]] : NULL;
    for (int k = 0; k < step->op.n_out; k++)
        exec->out[k] = step->out[k] >= 0 ? &exec->values[step->out[k]] : NULL;
}

void exec_call(Exec *exec, const Step *step, OpCall *call, Error *err)
{
    gather_arguments(exec, step);
    memset(exec->d_out, 0, (size_t)step->op.n_out * sizeof *exec->d_out);
    memset(exec->d_in, 0, (size_t)step->op.n_in * sizeof *exec->d_in);
    *call = (OpCall){.node = &step->op,
                     .n_in = step->op.n_in,
                     .n_out = step->op.n_out,
                     .in = exec->in,
                     .out = exec->out,
                     .d_out = exec->d_out,
                     .d_in = exec->d_in,
                     .by_batch = exec->by_batch,
                     .executor = exec,
                     .err = err};
}

static int run_forward(Exec *exec, const Step *step, Error *err)
{
    if (step->unsupported)
        return error_set(err, ONNXPRESS_UNSUPPORTED, "%s: no rule to run this op",
                         step->unsupported);
    OpCall call;
    exec_call(exec, step, &call, err);
    int status = step->op.row->forward(&call);
    exec_release_scratch(exec);
    for (int k = 0; !status && k < step->op.n_out; k++)
        if (exec->out[k] && !exec->out[k]->r && !exec->out[k]->i)
            status = op_error(&call, ONNXPRESS_UNSUPPORTED, "output %d is not handled", k);
    return status;
}

int exec_fold(Exec *exec, const Step *step, Value **out, Error *err)
{
    for (int k = 0; k < step->op.n_in; k++)
        if (step->in[k] >= 0)
            exec->values[step->in[k]] = exec->program->values[step->in[k]].constant;
    int status = run_forward(exec, step, err);
    for (int k = 0; !status && k < step->op.n_out; k++)
        out[k] = exec->out[k];
    return status;
}

void exec_fold_release(Exec *exec, const Step *step)
{
    for (int k = 0; k < step->op.n_out; k++)
        if (step->out[k] >= 0)
            exec_drop_value(exec, step->out[k]);
}

static int bind_values(Exec *exec, const Value *inputs, Error *err)
{
    const Program *program = exec->program;
    for (int v = 0; v < program->graph->n_values; v++) {
        const ProgramValue *known = &program->values[v];
        exec->pending[v] = known->n_pending;
        exec->values[v] = known->constant; /* empty for inputs and steps */
        if (known->origin == FROM_WEIGHT && exec->override[known->index])
            /* Values are written by the op that makes them alone: a weight is only read. */
            exec->values[v].r = (real *)(uintptr_t)exec->override[known->index];
        if (known->origin != FROM_INPUT)
            continue;
        const ProgramInput *input = &program->inputs[known->index];
        const Value *given = &inputs[known->index];
        if (dtype_is_real(input->dtype) ? !given->r : !given->i)
            return error_set(err, ONNXPRESS_DATA, "input %s expects %s, it was given %s",
                             input->name, dtype_name(input->dtype), dtype_name(given->dtype));
        exec->values[v] = *given;
        exec->values[v].buffer = NULL;
    }
    return ONNXPRESS_OK;
}

/* Whether no branch around the step is passed over, as far out as the loop that runs it. */
static bool is_taken(const Exec *exec, const Step *step)
{
    const Program *program = exec->program;
    for (int b = step->body; b != step->loop; b = program->graph->bodies[b].parent) {
        const ProgramBody *body = &program->bodies[b];
        if (body->kind != BODY_BRANCH)
            continue;
        const Value *condition = &exec->values[body->condition];
        if (!condition->i || condition->count != 1 || (condition->i[0] != 0) != body->when)
            return false;
    }
    return true;
}

static bool may_go(const Exec *exec, int v, int keep)
{
    const ProgramValue *value = &exec->program->values[v];
    return !exec->pending[v] && (value->origin == FROM_STEP || value->origin == FROM_LOOP) &&
           !value->is_output && !(keep == EXEC_KEEP && exec->retain[v]);
}

/* Whatever nobody reads any more goes, in order of the last reading. */
static void drop_read(Exec *exec, const Step *step, int keep)
{
    const Graph *graph = exec->program->graph;
    int captures = step->holds < 0 ? 0 : graph->n_captures[step->node];
    for (int k = 0; k < step->op.n_in + captures; k++) {
        int v = k < step->op.n_in ? step->in[k]
                                  : graph->captures[step->node][k - step->op.n_in];
        if (v < 0 || exec->program->values[v].loop != step->loop)
            continue;
        exec->pending[v]--;
        if (may_go(exec, v, keep))
            exec_drop_value(exec, v);
    }
    for (int k = 0; k < step->op.n_out; k++)
        if (step->out[k] >= 0 && may_go(exec, step->out[k], keep))
            exec_drop_value(exec, step->out[k]);
}

int exec_run_steps(Exec *exec, int first, int end, int loop, int keep, Error *err)
{
    int status = ONNXPRESS_OK;
    for (int s = first; !status && s < end; s++) {
        const Step *step = &exec->program->steps[s];
        if (step->loop != loop)
            continue; /* of a loop in here, which runs it */
        exec->done[s] = is_taken(exec, step);
        if (exec->done[s] && step->holds >= 0)
            status = loop_forward(exec, step, keep, err);
        else if (exec->done[s])
            status = run_forward(exec, step, err);
        exec->kept[s] = keep == EXEC_KEEP && step_needs(exec, step);
        drop_read(exec, step, keep);
    }
    return status;
}

int exec_forward(Exec *exec, const Value *inputs, int keep, Error *err)
{
    const Program *program = exec->program;
    drop_run(exec);
    if (program->unsupported)
        return error_set(err, ONNXPRESS_UNSUPPORTED, "%s: no rule to run this op",
                         program->unsupported);
    if (!exec->bounded)
        pool_set_limit(exec->pool, limit_memory(program, inputs));
    exec->most_rounds = limit_rounds(program, inputs);
    int status = bind_values(exec, inputs, err);
    if (!status)
        status = exec_run_steps(exec, 0, program->n_steps, -1, keep, err);
    if (status)
        drop_run(exec);
    exec->ran = !status;
    return status;
}

const Value *exec_output(const Exec *exec, int output)
{
    return &exec->values[exec->program->output_value[output]];
}

int exec_open_gradient(Exec *exec, Buffer **slot, int v, real **where, Error *err)
{
    const Value *value = &exec->values[v];
    size_t bytes = (size_t)value->count * sizeof(real);
    if (!*slot) {
        bool weight = exec->program->values[v].origin == FROM_WEIGHT;
        Buffer *buffer = pool_take(exec->pool, bytes, !weight);
        if (!buffer)
            return error_set(err, ONNXPRESS_MEMORY,
                             "no room for the gradient of %s (%zu bytes); use smaller batches or "
                             "raise the memory bound",
                             exec->program->graph->values[v].name, bytes);
        memset(buffer_data(buffer), 0, bytes);
        *slot = buffer;
    }
    *where = buffer_data(*slot);
    return ONNXPRESS_OK;
}

static int sweep_step(Exec *exec, const Step *step, real *const *acc, Error *err)
{
    const Program *program = exec->program;
    OpCall call;
    exec_call(exec, step, &call, err);
    bool arrives = false, passes = false, sampled = false;
    for (int k = 0; k < step->op.n_out; k++)
        if (step->out[k] >= 0 && exec->gradient[step->out[k]]) {
            exec->d_out[k] = buffer_data(exec->gradient[step->out[k]]);
            arrives = true;
            sampled |= program->values[step->out[k]].tainted;
        }
    if (!arrives)
        return ONNXPRESS_OK;
    int status = ONNXPRESS_OK;
    for (int k = 0; !status && k < step->op.n_in; k++) {
        int v = step->in[k];
        if (v < 0 || !exec->needs[v] || !dtype_is_real(exec->values[v].dtype))
            continue;
        /* With acc, what is computed from weights alone (not tainted) collects squares: they are
         * made where samples come in, and steps that only move a weight's elements pass them on. */
        bool squares = acc && !program->values[v].tainted;
        real *target;
        if (squares && program->values[v].origin == FROM_WEIGHT)
            target = acc[program->values[v].index];
        else
            status = exec_open_gradient(exec, &exec->gradient[v], v, &target, err);
        if (status || !target)
            continue;
        if (squares && sampled) {
            status = step->op.row->square(&call, k, target);
            exec_release_scratch(exec);
        } else {
            exec->d_in[k] = target;
            passes = true;
        }
    }
    if (!status && passes)
        status = step->op.row->backward(&call);
    exec_release_scratch(exec);
    return status;
}

/* Hands out the gradient of weight value v, if there is one. */
static void pour(Exec *exec, int v)
{
    const ProgramValue *known = &exec->program->values[v];
    if (!exec->sink || known->origin != FROM_WEIGHT || !exec->gradient[v])
        return;
    exec->sink(exec->sink_context, known->index, buffer_data(exec->gradient[v]));
    exec_drop_gradient(exec, v);
}

int exec_sweep_steps(Exec *exec, int first, int end, int loop, real *const *acc, Error *err)
{
    int status = ONNXPRESS_OK;
    for (int s = end - 1; !status && s >= first; s--) {
        const Step *step = &exec->program->steps[s];
        if (step->loop != loop || !exec->done[s] || !step_needs(exec, step))
            continue;
        if (!exec->kept[s])
            return error_set(err, ONNXPRESS_INTERNAL,
                             "the forward run did not keep what this backward run reads");
        status = step->holds < 0 ? sweep_step(exec, step, acc, err)
                                 : loop_backward(exec, step, acc, err);
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                exec_drop_gradient(exec, step->out[k]);
        for (int k = 0; k < step->op.n_in && loop < 0 && !status; k++)
            if (step->in[k] >= 0 && exec->program->values[step->in[k]].first_reader == s)
                pour(exec, step->in[k]);
    }
    return status;
}

int exec_sweep(Exec *exec, const real *const *d_outputs, real *const *acc, Error *err)
{
    const Program *program = exec->program;
    for (int v = 0; v < program->graph->n_values; v++)
        exec_drop_gradient(exec, v);
    if (!exec->ran)
        return error_set(err, ONNXPRESS_INTERNAL, "a backward run needs a forward run before it");
    int status = ONNXPRESS_OK;
    for (int o = 0; !status && o < program->n_outputs; o++) {
        int v = program->output_value[o];
        real *gradient;
        if (!d_outputs[o] || !exec->needs[v] || !dtype_is_real(exec->values[v].dtype))
            continue;
        status = exec_open_gradient(exec, &exec->gradient[v], v, &gradient, err);
        for (int64_t i = 0; !status && i < exec->values[v].count; i++)
            gradient[i] += d_outputs[o][i];
    }
    if (!status)
        status = exec_sweep_steps(exec, 0, program->n_steps, -1, acc, err);
    for (int w = 0; w < program->n_weights && !status; w++) /* first read in a loop or idle branch */
        pour(exec, program->weights[w].value);
    return status;
}

int exec_backward(Exec *exec, const real *const *d_outputs, Error *err)
{
    return exec_sweep(exec, d_outputs, NULL, err);
}

const real *exec_gradient(const Exec *exec, int weight)
{
    Buffer *gradient = exec->gradient[exec->program->weights[weight].value];
    return gradient ? buffer_data(gradient) : NULL;
}

size_t exec_peak_bytes(const Exec *exec)
{
    return pool_peak(exec->pool);
}
