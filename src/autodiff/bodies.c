/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"
#include "ops/control.h"

#include <string.h>

static bool is_loop(const Onnx__NodeProto *proto)
{
    return node_is(proto, "Loop") || node_is(proto, "Scan");
}

int program_read_bodies(Program *program, Error *err)
{
    const Graph *graph = program->graph;
    program->bodies =
        arena_array(program->arena, (size_t)graph->n_bodies + 1, sizeof *program->bodies);
    if (!program->bodies)
        return error_memory(err, "the program");
    for (int b = graph->n_bodies - 1; b >= 0; b--) {
        const GraphBody *from = &graph->bodies[b];
        const Onnx__NodeProto *holder = graph->nodes[from->node];
        ProgramBody *body = &program->bodies[b];
        bool branch = node_is(holder, "If") && graph->n_inputs[from->node] > 0;
        *body = (ProgramBody){.kind = branch            ? BODY_BRANCH
                                      : is_loop(holder) ? BODY_LOOP
                                                        : BODY_STRANGE,
                              .condition = branch ? graph->inputs[from->node][0] : -1,
                              .when = strcmp(from->name, "then_branch") == 0,
                              .end_body = body->end_body > b + 1 ? body->end_body : b + 1};
        if (from->parent >= 0 && program->bodies[from->parent].end_body < body->end_body)
            program->bodies[from->parent].end_body = body->end_body;
    }
    return ONNXPRESS_OK;
}

int program_loop(const Program *program, int body)
{
    while (body >= 0 && program->bodies[body].kind != BODY_LOOP)
        body = program->graph->bodies[body].parent;
    return body;
}

/* The only body, or the two of an If in the order of its row; false when there are others. */
static bool find_bodies(const Program *program, const Step *step, int *first, int *second)
{
    const Graph *graph = program->graph;
    int a = graph->first_body[step->node], b = graph->bodies[a].next;
    *first = a;
    *second = b;
    if (!node_is(step->op.proto, "If"))
        return b < 0 && strcmp(graph->bodies[a].name, "body") == 0;
    if (b < 0 || graph->bodies[b].next >= 0)
        return false;
    if (program->bodies[b].when) {
        *first = b;
        *second = a;
    }
    return strcmp(graph->bodies[*first].name, "then_branch") == 0 &&
           strcmp(graph->bodies[*second].name, "else_branch") == 0;
}

int program_hold(Program *program, Step *step, bool *runs, Error *err)
{
    const Graph *graph = program->graph;
    int first, second;
    /* Any op may come with a graph; only If, Loop and Scan have parameters for one. */
    *runs = program->bodies[graph->first_body[step->node]].kind != BODY_STRANGE &&
            find_bodies(program, step, &first, &second);
    if (!*runs)
        return ONNXPRESS_OK;
    const GraphBody *body = &graph->bodies[first];
    size_t own = step->op.proto->n_input;
    if (second < 0) {
        step->holds = first;
        *runs = loop_fit(&step->op, own, body->proto->n_input, body->proto->n_output);
        return ONNXPRESS_OK;
    }
    int n_out = step->op.n_out;
    *runs = own == 1 && body->proto->n_output == (size_t)n_out &&
            graph->bodies[second].proto->n_output == (size_t)n_out && step->in[0] >= 0;
    int *in = arena_array(program->arena, (size_t)step->op.n_in, sizeof *in);
    if (!in)
        return error_memory(err, "the program");
    for (int k = 0; *runs && k < n_out; k++) {
        in[0] = step->in[0];
        in[1 + k] = body->outputs[k];
        in[1 + n_out + k] = graph->bodies[second].outputs[k];
    }
    if (*runs)
        step->in = in;
    return ONNXPRESS_OK;
}

int program_choose(Program *program, Step *step, Error *err)
{
    const Value *condition = &program->values[step->in[0]].constant;
    int first, second, n_out = step->op.n_out;
    if (!condition->i || condition->count != 1 || !find_bodies(program, step, &first, &second))
        return ONNXPRESS_OK; /* the run will say why */
    bool truth = condition->i[0] != 0;
    program->bodies[first].kind = truth ? BODY_ALWAYS : BODY_NEVER;
    program->bodies[second].kind = truth ? BODY_NEVER : BODY_ALWAYS;
    int *in = arena_array(program->arena, (size_t)step->op.n_in, sizeof *in);
    if (!in)
        return error_memory(err, "the program");
    memcpy(in, step->in, (size_t)step->op.n_in * sizeof *in);
    for (int k = 0; k < n_out; k++)
        in[1 + (truth ? n_out : 0) + k] = -1;
    step->in = in;
    return ONNXPRESS_OK;
}

static bool is_never(const Program *program, int body)
{
    for (; body >= 0; body = program->graph->bodies[body].parent)
        if (program->bodies[body].kind == BODY_NEVER)
            return true;
    return false;
}

void program_place_bodies(Program *program)
{
    int left = 0;
    for (int s = 0; s < program->n_steps; s++)
        if (!is_never(program, program->steps[s].body))
            program->steps[left++] = program->steps[s];
    program->n_steps = left;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        for (int b = step->body; b >= 0; b = program->graph->bodies[b].parent) {
            ProgramBody *body = &program->bodies[b];
            if (body->end == 0)
                body->first = s;
            body->end = s + 1;
        }
        if (step->unsupported && !program->unsupported)
            program->unsupported = step->unsupported;
    }
}
