/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

#include <stdlib.h>
#include <string.h>

/* Folding is for shape arithmetic; what is larger, one value or all of them, stays in the graph and is
 * computed by each run. */
#define FOLD_BYTES ((size_t)64 << 20)
#define CONSTANT_TIMES 16
#define FOLD_TIMES 8 /* the file's own size: integers of a byte become longer ones */

#ifdef ONNXPRESS_F64
#define REAL_DTYPE DTYPE_DOUBLE
#else
#define REAL_DTYPE DTYPE_FLOAT
#endif

static const char *text_or(const char *text, const char *fallback)
{
    return text && *text ? text : fallback;
}

const char *step_name(const Onnx__NodeProto *proto)
{
    return text_or(proto->name, proto->n_output ? text_or(proto->output[0], "?") : "?");
}

const char *step_type(const Onnx__NodeProto *proto)
{
    return text_or(proto->op_type, "?");
}

static int64_t domain_opset(const Model *model, const char *domain)
{
    if (!*domain)
        return model->opset;
    for (size_t k = 0; k < model->proto->n_opset_import; k++)
        if (strcmp(plain_domain(model->proto->opset_import[k]->domain), domain) == 0)
            return model->proto->opset_import[k]->version;
    return 1;
}

/* The tensor as the executor holds it, where it is or in the program's arena; an unhandled type stays
 * empty. */
static int read_constant(Program *program, const GraphValue *value, ProgramValue *known, Error *err)
{
    Value *out = &known->constant;
    Tensor tensor;
    int status = model_tensor_unaligned(program->model, value->init, value->name, &tensor, err);
    if (status)
        return status;
    *out = (Value){.dtype = tensor.dtype, .shape = tensor.shape, .count = tensor.count};
    size_t count = (size_t)tensor.count;
    if (tensor.dtype == REAL_DTYPE && (uintptr_t)tensor.data % sizeof(real) == 0 && count > 0) {
        out->r = (real *)(uintptr_t)tensor.data; /* a constant is only read */
        known->in_model = true;
        return ONNXPRESS_OK;
    }
    if (dtype_is_real(tensor.dtype)) {
        out->r = arena_array(program->arena, count, sizeof(real));
        if (!out->r)
            return error_memory(err, value->name);
#ifdef ONNXPRESS_F64
        return tensor_to_double(&tensor, out->r, err);
#else
        return model_read_floats(program->model, value->init, value->name, out->r, err);
#endif
    }
    if (!dtype_is_integer(tensor.dtype))
        return ONNXPRESS_OK;
    out->i = arena_array(program->arena, count, sizeof(int64_t));
    return out->i ? tensor_to_int64(&tensor, out->i, err) : error_memory(err, value->name);
}

/* Tensors in other files may all lie in the same bytes of them: a few words of a file for each. */
static int check_constants(const Program *program, Error *err)
{
    const Model *model = program->model;
    uint64_t room = CONSTANT_TIMES * (model_packed_size(model) + model->external_bytes);
    for (int v = 0; v < program->graph->n_values; v++) {
        const GraphValue *value = &program->graph->values[v];
        Tensor tensor;
        if (!value->init || !value->init->n_external_data)
            continue;
        int status = model_tensor(program->model, value->init, value->name, &tensor, err);
        if (status)
            return status;
        if (tensor.bytes > room)
            return error_set(err, ONNXPRESS_MEMORY,
                             "%s: its tensors are more than %d times as large as its external data",
                             model->path, CONSTANT_TIMES);
        room -= tensor.bytes;
    }
    return ONNXPRESS_OK;
}

static int read_values(Program *program, Error *err)
{
    const Graph *graph = program->graph;
    size_t n = (size_t)graph->n_values + 1;
    int checked = check_constants(program, err);
    if (checked)
        return checked;
    program->values = arena_array(program->arena, n, sizeof *program->values);
    program->weights = arena_array(program->arena, n, sizeof *program->weights);
    if (!program->values || !program->weights)
        return error_memory(err, "the program");
    for (int v = 0; v < graph->n_values; v++) {
        const GraphValue *value = &graph->values[v];
        ProgramValue *known = &program->values[v];
        known->loop = program_loop(program, value->body);
        if (!value->init) {
            known->origin = value->is_input ? FROM_INPUT : FROM_NOWHERE; /* steps set theirs */
            if (value->is_formal && program->bodies[value->body].kind == BODY_LOOP)
                known->origin = FROM_LOOP;
            continue;
        }
        int status = read_constant(program, value, known, err);
        if (status)
            return status;
        if (known->constant.i || known->constant.r)
            known->origin = FROM_CONSTANT;
        if (dtype_is_weight(known->constant.dtype) && known->constant.count > 0) {
            known->origin = FROM_WEIGHT;
            known->index = program->n_weights++;
            program->weights[known->index] = (Weight){.name = value->name,
                                                      .value = v,
                                                      .dtype = known->constant.dtype,
                                                      .shape = known->constant.shape,
                                                      .count = known->constant.count,
                                                      .data = known->constant.r,
                                                      .n_uses = value->n_uses};
        }
    }
    return ONNXPRESS_OK;
}

/* Finds the row and reads its parameters; what cannot run is marked, not refused. */
static int read_step(Program *program, Step *step, Error *err)
{
    const Graph *graph = program->graph;
    const Onnx__NodeProto *proto = graph->nodes[step->node];
    const char *domain = plain_domain(proto->domain);
    step->in = graph->inputs[step->node];
    step->out = graph->outputs[step->node];
    step->body = graph->node_body[step->node];
    step->loop = program_loop(program, step->body);
    step->holds = -1;
    step->op = (OpNode){.proto = proto,
                        .opset = domain_opset(program->model, domain),
                        .n_in = graph->n_inputs[step->node],
                        .n_out = (int)proto->n_output};
    step->op.row = op_find(domain, step_type(proto), step->op.opset);
    bool runs = step->op.row != NULL;
    if (runs && step->op.row->read) {
        Error own = {0};
        int status = step->op.row->read(&step->op, program->arena, &own);
        if (status && status != ONNXPRESS_UNSUPPORTED)
            return error_set(err, (OnnxPressStatus)status, "%s", own.message);
        runs = !status;
    }
    if (runs && graph->first_body[step->node] >= 0) {
        int status = program_hold(program, step, &runs, err);
        if (status)
            return status;
    }
    for (int k = 0; k < step->op.n_in; k++) {
        int v = step->in[k];
        if (v >= 0 && program->values[v].origin == FROM_NOWHERE &&
            (graph->values[v].init || graph->values[v].is_formal))
            runs = false; /* strings and the like */
    }
    if (!runs) {
        step->unsupported =
            arena_printf(program->arena, "%s (%s%s%s, opset %lld)", step_name(proto), domain,
                         *domain ? "." : "", step_type(proto), (long long)step->op.opset);
        if (!step->unsupported)
            return error_memory(err, "the program");
    }
    return ONNXPRESS_OK;
}

/* Nodes that some graph output depends on, in order; Constant nodes are values, not steps. */
static int read_steps(Program *program, Error *err)
{
    const Graph *graph = program->graph;
    bool *live = arena_array(program->arena, (size_t)graph->n_values + 1, sizeof *live);
    bool *runs = arena_array(program->arena, (size_t)graph->n_nodes + 1, sizeof *runs);
    program->steps =
        arena_array(program->arena, (size_t)graph->n_nodes + 1, sizeof *program->steps);
    if (!live || !runs || !program->steps)
        return error_memory(err, "the program");
    for (int v = 0; v < graph->n_values; v++)
        live[v] = program->values[v].is_output = graph->values[v].is_output;
    for (int o = graph->n_nodes - 1; o >= 0; o--) {
        int node = graph->order[o];
        for (size_t k = 0; k < graph->nodes[node]->n_output; k++) {
            int v = graph->outputs[node][k];
            runs[node] |= v >= 0 && live[v] && !graph->values[v].init;
        }
        for (int k = 0; runs[node] && k < graph->n_inputs[node]; k++)
            if (graph->inputs[node][k] >= 0)
                live[graph->inputs[node][k]] = true;
    }
    for (int o = 0; o < graph->n_nodes; o++) {
        if (!runs[graph->order[o]])
            continue;
        Step *step = &program->steps[program->n_steps++];
        step->node = graph->order[o];
        int status = read_step(program, step, err);
        if (status)
            return status;
        if (step->op.n_in > program->most_in)
            program->most_in = step->op.n_in;
        if (step->op.n_out > program->most_out)
            program->most_out = step->op.n_out;
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                program->values[step->out[k]].origin = FROM_STEP;
    }
    return ONNXPRESS_OK;
}

static bool is_fixed(const Program *program, int v)
{
    const ProgramValue *known = &program->values[v];
    return known->origin == FROM_CONSTANT ||
           (known->origin == FROM_WEIGHT && program->weights[known->index].steers);
}

static size_t folded_bytes(const Step *step, Value *const *out)
{
    size_t bytes = 0;
    for (int k = 0; k < step->op.n_out; k++)
        if (step->out[k] >= 0)
            bytes += (size_t)out[k]->count * (out[k]->r ? sizeof(real) : sizeof(int64_t));
    return bytes;
}

static int keep_folded(Program *program, const Step *step, Value *const *out, Error *err)
{
    for (int k = 0; k < step->op.n_out; k++) {
        if (step->out[k] < 0)
            continue;
        Value copy = *out[k];
        copy.buffer = NULL;
        size_t size = copy.r ? sizeof(real) : sizeof(int64_t);
        void *data = arena_array(program->arena, (size_t)copy.count, size);
        if (!data)
            return error_memory(err, "a folded constant");
        memcpy(data, copy.r ? (void *)copy.r : (void *)copy.i, (size_t)copy.count * size);
        if (copy.r)
            copy.r = data;
        else
            copy.i = data;
        program->values[step->out[k]].origin = FROM_CONSTANT;
        program->values[step->out[k]].constant = copy;
    }
    return ONNXPRESS_OK;
}

/* Runs what depends on constants alone, once. A node that fails stays: each run will say why. */
static int fold(Program *program, Error *err)
{
    Exec *exec;
    Value **out = arena_array(program->arena, (size_t)program->most_out + 1, sizeof *out);
    if (!out)
        return error_memory(err, "the program");
    int status = exec_create(program, FOLD_BYTES, &exec, err), left = 0;
    if (status)
        return status;
    size_t room = FOLD_BYTES + FOLD_TIMES * (size_t)(program->model->file_bytes +
                                                     program->model->external_bytes);
    for (int s = 0; s < program->n_steps && !status; s++) {
        Step *step = &program->steps[s];
        bool fixed = !step->unsupported && step->holds < 0 && room > 0;
        if (fixed && program->graph->first_body[step->node] >= 0 &&
            is_fixed(program, step->in[0]) && (status = program_choose(program, step, err)))
            break;
        for (int k = 0; k < step->op.n_in; k++)
            fixed = fixed && (step->in[k] < 0 || is_fixed(program, step->in[k]));
        if (fixed) {
            Error own = {0};
            fixed = exec_fold(exec, step, out, &own) == ONNXPRESS_OK;
            for (int k = 0; fixed && k < step->op.n_out; k++)
                fixed = !out[k] || !out[k]->items; /* sequences stay with the runs */
            size_t bytes = fixed ? folded_bytes(step, out) : 0;
            fixed = fixed && bytes <= room;
            room = bytes < room ? room - bytes : 0; /* what does not fit ends all folding */
            if (fixed)
                status = keep_folded(program, step, out, err);
            exec_fold_release(exec, step);
        }
        if (!fixed)
            program->steps[left++] = *step;
    }
    program->n_steps = left;
    exec_free(exec);
    return status;
}

static void declared_type(const Onnx__ValueInfoProto *info, ProgramInput *input)
{
    const Onnx__TypeProto *type = info->type;
    if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return;
    input->dtype = type->tensor_type->elem_type;
    const Onnx__TensorShapeProto *shape = type->tensor_type->shape;
    if (!shape || shape->n_dim > TENSOR_MAX_RANK)
        return;
    input->shape_known = true;
    input->shape.rank = (int)shape->n_dim;
    for (int k = 0; k < input->shape.rank; k++) {
        const Onnx__TensorShapeProto__Dimension *dim = shape->dim[k];
        bool fixed = dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                     dim->dim_value >= 0;
        input->shape.dim[k] = fixed ? dim->dim_value : -1;
        if (dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
            dim->dim_param && *dim->dim_param)
            input->dim_name[k] = dim->dim_param;
    }
}

/* The op that makes a value, seen through those that only pass it on. */
static const char *maker(const Program *program, int v)
{
    static const char *const passes[] = {"Identity", "Dropout", "Cast", "Reshape", "Flatten"};
    const Graph *graph = program->graph;
    while (v >= 0 && graph->values[v].producer >= 0) {
        const Onnx__NodeProto *proto = graph->nodes[graph->values[v].producer];
        int node = graph->values[v].producer, input = (int)proto->n_input + graph->values[v].output;
        if (strcmp(step_type(proto), "If") == 0 && input < graph->n_inputs[node]) {
            v = graph->inputs[node][input]; /* what its first branch makes */
            continue;
        }
        if (!NAME_IN(step_type(proto), passes) || !proto->n_input)
            return step_type(proto);
        v = graph->inputs[node][0];
    }
    return "";
}

static int describe_ends(Program *program, Error *err)
{
    const Onnx__GraphProto *proto = program->model->proto->graph;
    Arena *arena = program->arena;
    program->inputs = arena_array(arena, proto->n_input + 1, sizeof *program->inputs);
    program->input_value = arena_array(arena, proto->n_input + 1, sizeof(int));
    program->outputs = arena_array(arena, proto->n_output + 1, sizeof *program->outputs);
    program->output_value = arena_array(arena, proto->n_output + 1, sizeof(int));
    if (!program->inputs || !program->input_value || !program->outputs || !program->output_value)
        return error_memory(err, "the program");
    for (size_t k = 0; k < proto->n_input; k++) {
        int v = graph_find(program->graph, text_or(proto->input[k]->name, ""));
        if (v < 0 || program->values[v].origin != FROM_INPUT)
            continue;
        program->values[v].index = program->n_inputs;
        program->input_value[program->n_inputs] = v;
        ProgramInput *input = &program->inputs[program->n_inputs++];
        input->name = program->graph->values[v].name;
        declared_type(proto->input[k], input);
        if (!dtype_is_real(input->dtype) && !dtype_is_integer(input->dtype) &&
            !program->unsupported)
            program->unsupported =
                arena_printf(arena, "input %s (of %s)", input->name, dtype_name(input->dtype));
    }
    for (size_t k = 0; k < proto->n_output; k++) {
        const char *name = text_or(proto->output[k]->name, "");
        int v = graph_find(program->graph, name);
        if (v < 0 || (program->values[v].origin == FROM_NOWHERE && !program->unsupported))
            return error_set(err, ONNXPRESS_FORMAT, "output %s is made by no node", name);
        ProgramInput declared = {0};
        declared_type(proto->output[k], &declared);
        program->output_value[program->n_outputs] = v;
        ProgramOutput *output = &program->outputs[program->n_outputs++];
        *output = (ProgramOutput){.name = program->graph->values[v].name,
                                  .dtype = declared.dtype,
                                  .made_by = maker(program, v)};
        int status = program_is_scored(program, v, &output->scored, err);
        if (status)
            return status;
    }
    return ONNXPRESS_OK;
}

int program_build(Model *model, Program **result, Error *err)
{
    Arena *arena = arena_create();
    Program *program = arena ? arena_array(arena, 1, sizeof *program) : NULL;
    if (!program) {
        arena_destroy(arena);
        return error_memory(err, "the program");
    }
    program->model = model;
    program->arena = arena;
    int status = graph_build(model, arena, &program->graph, err);
    if (!status)
        status = program_read_bodies(program, err);
    if (!status)
        status = read_values(program, err);
    if (!status)
        status = read_steps(program, err);
    if (!status)
        status = program_mark_steering(program, err);
    if (!status)
        status = fold(program, err);
    if (!status) {
        program_place_bodies(program);
        status = program_trace(program, err);
    }
    if (!status)
        status = describe_ends(program, err);
    if (status) {
        program_free(program);
        return status;
    }
    *result = program;
    return ONNXPRESS_OK;
}

void program_free(Program *program)
{
    if (program)
        arena_destroy(program->arena);
}

const Graph *program_graph(const Program *program)
{
    return program->graph;
}

int program_weights(const Program *program)
{
    return program->n_weights;
}

const Weight *program_weight(const Program *program, int weight)
{
    return &program->weights[weight];
}

void program_move_weight(Program *program, int weight, const real *data)
{
    Weight *moved = &program->weights[weight];
    ProgramValue *held = &program->values[moved->value];
    size_t bytes = (size_t)moved->count * sizeof(real);
    if (held->in_model)
        model_forget(program->model, &(Tensor){.data = moved->data, .bytes = bytes});
    else
        pages_forget(moved->data, bytes);
    held->in_model = false;
    held->constant.r = (real *)(uintptr_t)data;
    moved->data = data;
}

int program_inputs(const Program *program)
{
    return program->n_inputs;
}

const ProgramInput *program_input(const Program *program, int input)
{
    return &program->inputs[input];
}

int program_outputs(const Program *program)
{
    return program->n_outputs;
}

const ProgramOutput *program_output(const Program *program, int output)
{
    return &program->outputs[output];
}

const char *program_unsupported(const Program *program)
{
    return program->unsupported;
}
