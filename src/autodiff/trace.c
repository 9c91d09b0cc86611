/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"
#include "ops/control.h"

#include <stdlib.h>
#include <string.h>

/* Whether a cast makes integers (what flows on from it is a shape, an index or a choice) or small
 * floats, which are quantized numbers. */
static bool casts_to_few(const Step *step)
{
    return strcmp(step_type(step->op.proto), "Cast") == 0 &&
           !dtype_is_weight((int)attribute_int(&step->op, "to", DTYPE_FLOAT));
}

/* What a loop's rounds hand over to input k of its body: a start, and a result (-1: none, of what is
 * scanned). */
typedef struct {
    int formal, start, result;
} Round;

static int rounds(const Step *step)
{
    const LoopParams *loop = step->op.params;
    return step->holds < 0 ? 0 : loop->n_carried + loop->n_scanned;
}

static Round round_at(const Program *program, const Step *step, int k)
{
    const LoopParams *loop = step->op.params;
    const GraphBody *body = &program->graph->bodies[step->holds];
    return (Round){body->inputs[loop->first_formal + k], step->in[loop->first_input + k],
                   k < loop->n_carried ? body->outputs[loop->first_result + k] : -1};
}

/* True when this changes something. */
static bool set(bool *fact)
{
    bool changed = !*fact;
    *fact = true;
    return changed;
}

bool program_steer_rounds(const Program *program, bool *steers)
{
    bool changed = false;
    for (int s = 0; s < program->n_steps; s++)
        for (int k = 0; k < rounds(&program->steps[s]); k++) {
            Round round = round_at(program, &program->steps[s], k);
            if (steers[round.formal] && round.start >= 0)
                changed |= set(&steers[round.start]);
            if (steers[round.formal] && round.result >= 0)
                changed |= set(&steers[round.result]);
        }
    return changed;
}

static bool trace_taint(Program *program)
{
    ProgramValue *values = program->values;
    bool changed = false;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        const char *type = step_type(step->op.proto);
        bool tainted = false;
        for (int k = 0; k < rounds(step); k++) {
            Round round = round_at(program, step, k);
            if ((round.start >= 0 && values[round.start].tainted) ||
                (round.result >= 0 && values[round.result].tainted))
                changed |= set(&values[round.formal].tainted);
        }
        for (int k = 0; k < step->op.n_in; k++)
            tainted |= step->in[k] >= 0 && values[step->in[k]].tainted;
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0 && tainted && strcmp(type, "Shape") && strcmp(type, "Size"))
                values[step->out[k]].tainted = true;
    }
    return changed;
}

static bool trace_use(Program *program)
{
    ProgramValue *values = program->values;
    bool changed = false;
    for (int s = program->n_steps - 1; s >= 0; s--) {
        const Step *step = &program->steps[s];
        bool useful = false;
        for (int k = 0; k < step->op.n_out && step->differentiable; k++)
            useful |= step->out[k] >= 0 && values[step->out[k]].useful;
        for (int k = 0; k < step->op.n_in && useful; k++)
            if (step->in[k] >= 0)
                values[step->in[k]].useful = true;
    }
    for (int s = 0; s < program->n_steps; s++)
        for (int k = 0; k < rounds(&program->steps[s]); k++) {
            Round round = round_at(program, &program->steps[s], k);
            if (values[round.formal].useful && round.start >= 0)
                changed |= set(&values[round.start].useful);
            if (values[round.formal].useful && round.result >= 0)
                changed |= set(&values[round.result].useful);
        }
    return changed;
}

static void trace_readers(Program *program)
{
    for (int s = 0; s < program->n_steps; s++) {
        Step *step = &program->steps[s];
        const Graph *graph = program->graph;
        step->differentiable =
            !step->unsupported && step->op.row->backward && !casts_to_few(step);
        for (int k = 0; k < step->op.n_in; k++) {
            if (step->in[k] < 0)
                continue;
            ProgramValue *read = &program->values[step->in[k]];
            if (read->n_readers++ == 0)
                read->first_reader = s;
            read->n_pending += read->loop == step->loop;
        }
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                program->values[step->out[k]].index = s;
        if (step->holds < 0)
            continue;
        const GraphBody *body = &graph->bodies[step->holds];
        for (size_t k = 0; k < body->proto->n_output; k++)
            program->values[body->outputs[k]].is_output = true;
        for (int k = 0; k < graph->n_captures[step->node]; k++) {
            ProgramValue *read = &program->values[graph->captures[step->node][k]];
            read->n_pending += read->loop == step->loop;
        }
    }
}

static void trace_all(Program *program)
{
    for (int v = 0; v < program->graph->n_values; v++) {
        ProgramValue *value = &program->values[v];
        value->tainted = value->origin == FROM_INPUT;
        value->useful = value->is_output && value->loop < 0;
    }
    trace_readers(program);
    while (trace_taint(program))
        ;
    while (trace_use(program))
        ;
}

/* For a weight that no derivative reaches: the first op on its way that has none. */
static const char *find_block(Program *program, int value, bool *seen)
{
    memset(seen, 0, (size_t)program->graph->n_values * sizeof *seen);
    seen[value] = true;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        bool reads = false;
        for (int k = 0; k < step->op.n_in; k++)
            reads |= step->in[k] >= 0 && seen[step->in[k]];
        if (!reads)
            continue;
        if (!step->differentiable)
            return arena_printf(program->arena, "%s (%s)", step_name(step->op.proto),
                                step_type(step->op.proto));
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                seen[step->out[k]] = true;
    }
    return NULL;
}

void program_spread_needs(const Program *program, bool *needs)
{
    const ProgramValue *values = program->values;
    bool changed = true;
    while (changed) {
        changed = false;
        for (int s = 0; s < program->n_steps; s++) {
            const Step *step = &program->steps[s];
            bool any = false;
            for (int k = 0; k < rounds(step); k++) {
                Round round = round_at(program, step, k);
                if (((round.start >= 0 && needs[round.start]) ||
                     (round.result >= 0 && needs[round.result])) &&
                    values[round.formal].useful)
                    changed |= set(&needs[round.formal]);
            }
            for (int k = 0; k < step->op.n_in; k++)
                any |= step->in[k] >= 0 && needs[step->in[k]];
            for (int k = 0; any && step->differentiable && k < step->op.n_out; k++)
                if (step->out[k] >= 0 && values[step->out[k]].useful)
                    needs[step->out[k]] = true;
        }
    }
}

int program_is_scored(const Program *program, int value, bool *scored, Error *err)
{
    static const char *const makers[] = {"Sigmoid", "Softmax"};
    static const char *const movers[] = {"Cast",    "Concat", "Flatten",   "Gather",
                                         "Identity", "Reshape", "Slice",   "Split",
                                         "Squeeze", "Transpose", "Unsqueeze"};
    bool *moved = calloc((size_t)program->graph->n_values + 1, sizeof *moved);
    if (!moved)
        return error_memory(err, "the program");
    moved[value] = true;
    for (int s = program->n_steps - 1; s >= 0 && !*scored; s--) {
        const Step *step = &program->steps[s];
        const char *type = step_type(step->op.proto);
        bool reached = false;
        for (int k = 0; k < step->op.n_out; k++)
            reached |= step->out[k] >= 0 && moved[step->out[k]];
        if (!reached)
            continue;
        *scored = NAME_IN(type, makers);
        int n = !NAME_IN(type, movers) ? 0 : strcmp(type, "Concat") ? 1 : step->op.n_in;
        for (int k = 0; k < n; k++)
            if (step->in[k] >= 0)
                moved[step->in[k]] = true;
    }
    free(moved);
    return ONNXPRESS_OK;
}

int program_trace(Program *program, Error *err)
{
    bool *seen = arena_array(program->arena, (size_t)program->graph->n_values + 1, sizeof *seen);
    if (!seen)
        return error_memory(err, "the program");
    trace_all(program);
    for (int w = 0; w < program->n_weights; w++) {
        Weight *weight = &program->weights[w];
        weight->reaches = program->values[weight->value].useful;
        if (!weight->reaches)
            weight->blocked_by = find_block(program, weight->value, seen);
    }
    return ONNXPRESS_OK;
}
