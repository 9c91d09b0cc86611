/* SPDX-License-Identifier: Apache-2.0 */
#include "model/inline.h"

#include <string.h>

#include "model/graph.h"
#include "model/model_internal.h"

#define OURS "onnxpress"
#define MOST_DEPTH 64                              /* calls within calls */
/* Nodes and their inputs, outputs and attributes: calls of calls may double each time. */
#define MOST_PARTS(in_file) (1000000 + 64 * (in_file))

typedef struct {
    const Onnx__FunctionProto *proto;
    NameTable *formal; /* inputs, then outputs; NULL: not called yet */
} Function;

typedef struct {
    Model *model;
    Arena *arena; /* the model's */
    NameTable *names; /* "domain type overload" → number of the function */
    Function *function;
    size_t parts, most_parts, calls;
    Error *err;
} Inliner;

/* How names and attributes of a function's body read where it is called. */
typedef struct {
    const Function *function;
    const Onnx__NodeProto *call;
    const char *prefix;
} Place;

typedef struct {
    Onnx__NodeProto **node;
    size_t n, room;
} Nodes;

static int no_memory(const Inliner *in)
{
    return error_memory(in->err, "the functions' bodies");
}

static const char *text(const char *string)
{
    return string ? string : "";
}

static char *function_key(Arena *arena, const char *domain, const char *type, const char *overload)
{
    return arena_printf(arena, "%s %s %s", plain_domain(domain), text(type), text(overload));
}

static bool same_opset(const Inliner *in, const Onnx__FunctionProto *function)
{
    for (size_t k = 0; k < function->n_opset_import; k++)
        if (is_default_domain(function->opset_import[k]->domain) &&
            function->opset_import[k]->version != in->model->opset)
            return false;
    return true;
}

static size_t parts_of(const Onnx__NodeProto *node)
{
    return 1 + node->n_input + node->n_output + node->n_attribute;
}

/* What is about to be made; an error when it is too much for a file of this size. */
static int spend(Inliner *in, size_t parts)
{
    if (parts <= in->most_parts - in->parts) {
        in->parts += parts;
        return ONNXPRESS_OK;
    }
    return error_set(in->err, ONNXPRESS_UNSUPPORTED,
                     "%s: its functions expand to more than %zu nodes and arguments",
                     in->model->path, in->most_parts);
}

static int index_functions(Inliner *in)
{
    const Onnx__ModelProto *proto = in->model->proto;
    in->names = name_table_create(in->arena);
    in->function = arena_array(in->arena, proto->n_functions + 1, sizeof *in->function);
    if (!in->names || !in->function)
        return no_memory(in);
    for (size_t k = 0; k < proto->n_functions; k++) {
        const Onnx__FunctionProto *function = proto->functions[k];
        in->function[k].proto = function;
        for (size_t i = 0; i < function->n_node; i++)
            in->most_parts += parts_of(function->node[i]);
        if (strcmp(text(function->domain), OURS) == 0 || !same_opset(in, function))
            continue;
        char *key = function_key(in->arena, function->domain, function->name, function->overload);
        if (!key || !name_table_add(in->names, key, (int)k))
            return no_memory(in);
    }
    for (size_t i = 0; i < proto->graph->n_node; i++)
        in->most_parts += parts_of(proto->graph->node[i]);
    in->most_parts = MOST_PARTS(in->most_parts);
    return ONNXPRESS_OK;
}

/* The function that a node calls, its formal names known; NULL: none, or out of memory (*status). */
static const Function *called(Inliner *in, const Onnx__NodeProto *node, int *status)
{
    *status = ONNXPRESS_OK;
    char *key = function_key(in->arena, node->domain, node->op_type, node->overload);
    int found = key ? name_table_find(in->names, key) : -1;
    if (!key)
        *status = no_memory(in);
    if (found < 0)
        return NULL;
    Function *function = &in->function[found];
    const Onnx__FunctionProto *proto = function->proto;
    if (function->formal)
        return function;
    NameTable *formal = name_table_create(in->arena);
    bool made = formal != NULL;
    for (size_t k = 0; made && k < proto->n_input; k++)
        made = name_table_add(formal, proto->input[k], (int)k);
    for (size_t k = 0; made && k < proto->n_output; k++)
        made = name_table_add(formal, proto->output[k], (int)(proto->n_input + k));
    if (!made) {
        *status = no_memory(in);
        return NULL;
    }
    function->formal = formal;
    return function;
}

/* A name of the body where it is called: the caller's, or one of its own. NULL: out of memory. */
static char *placed_name(const Inliner *in, const Place *place, const char *name)
{
    if (!place || !name || !*name)
        return (char *)text(name);
    const Onnx__FunctionProto *proto = place->function->proto;
    int k = name_table_find(place->function->formal, name);
    size_t formal = (size_t)k;
    if (k >= 0 && formal < proto->n_input)
        return formal < place->call->n_input ? place->call->input[formal] : (char *)"";
    if (k >= 0 && formal - proto->n_input < place->call->n_output &&
        *place->call->output[formal - proto->n_input])
        return place->call->output[formal - proto->n_input];
    return arena_printf(in->arena, "%s%s", place->prefix, name);
}

static int place_names(const Inliner *in, const Place *place, char ***names, size_t n)
{
    char **placed = arena_array(in->arena, n, sizeof *placed);
    for (size_t k = 0; placed && k < n; k++)
        if (!(placed[k] = placed_name(in, place, (*names)[k])))
            return no_memory(in);
    if (!placed)
        return no_memory(in);
    *names = placed;
    return ONNXPRESS_OK;
}

static int add_nodes(Inliner *in, Nodes *to, Onnx__NodeProto *const *nodes, size_t n,
                     const Place *place, int depth);

static int place_infos(const Inliner *in, const Place *place, Onnx__ValueInfoProto ***infos,
                       size_t n)
{
    Onnx__ValueInfoProto **placed = arena_array(in->arena, n, sizeof *placed);
    for (size_t k = 0; placed && k < n; k++) {
        placed[k] = arena_array(in->arena, 1, sizeof **placed);
        if (!placed[k])
            return no_memory(in);
        *placed[k] = *(*infos)[k];
        if (!(placed[k]->name = placed_name(in, place, placed[k]->name)))
            return no_memory(in);
    }
    if (!placed)
        return no_memory(in);
    *infos = placed;
    return ONNXPRESS_OK;
}

static int add_node(Inliner *in, Nodes *to, Onnx__NodeProto *node)
{
    if (to->n == to->room) {
        size_t room = 2 * to->room + 16;
        Onnx__NodeProto **larger = arena_array(in->arena, room, sizeof *larger);
        if (!larger)
            return no_memory(in);
        if (to->n)
            memcpy(larger, to->node, to->n * sizeof *larger);
        to->node = larger;
        to->room = room;
    }
    to->node[to->n++] = node;
    return ONNXPRESS_OK;
}

/* An initializer of a body that stands in a function: a constant that is no weight of the model. */
static int add_constant(Inliner *in, Nodes *to, const Place *place, Onnx__TensorProto *tensor)
{
    Onnx__NodeProto *node = arena_array(in->arena, 1, sizeof *node);
    Onnx__AttributeProto *value = arena_array(in->arena, 1, sizeof *value);
    node = value ? node : NULL;
    char **output = node ? arena_array(in->arena, 1, sizeof *output) : NULL;
    Onnx__AttributeProto **attribute =
        output ? arena_array(in->arena, 1, sizeof *attribute) : NULL;
    if (!attribute || !(output[0] = placed_name(in, place, tensor->name)))
        return no_memory(in);
    onnx__attribute_proto__init(value);
    value->name = (char *)"value";
    value->has_type = true;
    value->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
    value->t = tensor;
    attribute[0] = value;
    onnx__node_proto__init(node);
    node->op_type = (char *)"Constant";
    node->domain = (char *)INLINE_EXACT;
    node->output = output;
    node->n_output = 1;
    node->attribute = attribute;
    node->n_attribute = 1;
    return add_node(in, to, node);
}

/* The body of an If, Loop or Scan, its names placed and its calls inlined. */
static int place_graph(Inliner *in, const Place *place, Onnx__GraphProto **graph, int depth)
{
    Onnx__GraphProto *placed = arena_array(in->arena, 1, sizeof *placed);
    Nodes nodes = {0};
    if (!placed)
        return no_memory(in);
    *placed = **graph;
    int status = spend(in, placed->n_input + placed->n_output + placed->n_initializer);
    if (!status)
        status = place_infos(in, place, &placed->input, placed->n_input);
    if (!status)
        status = place_infos(in, place, &placed->output, placed->n_output);
    for (size_t k = 0; place && k < placed->n_initializer && !status; k++)
        status = add_constant(in, &nodes, place, placed->initializer[k]);
    if (place)
        placed->n_initializer = 0; /* else they are the model's own */
    if (!status)
        status = add_nodes(in, &nodes, (*graph)->node, (*graph)->n_node, place, depth + 1);
    placed->node = nodes.node;
    placed->n_node = nodes.n;
    placed->n_value_info = 0;
    *graph = placed;
    return status;
}

/* The attribute that stands for one of the body; NULL: the call does not have it. */
static const Onnx__AttributeProto *meant(const Place *place, const Onnx__AttributeProto *attribute)
{
    const char *name = text(attribute->ref_attr_name);
    if (!place || !*name)
        return attribute;
    const Onnx__AttributeProto *given = node_attribute(place->call, name);
    const Onnx__FunctionProto *proto = place->function->proto;
    for (size_t k = 0; !given && k < proto->n_attribute_proto; k++)
        if (strcmp(text(proto->attribute_proto[k]->name), name) == 0)
            given = proto->attribute_proto[k];
    return given;
}

static bool has_graphs(const Onnx__AttributeProto *attribute)
{
    return attribute->g || attribute->n_graphs > 0;
}

static int place_attributes(Inliner *in, const Place *place, Onnx__NodeProto *node, int depth)
{
    size_t n = node->n_attribute, kept = 0;
    Onnx__AttributeProto **placed = arena_array(in->arena, n, sizeof *placed);
    int status = placed ? ONNXPRESS_OK : no_memory(in);
    for (size_t k = 0; k < n && !status; k++) {
        Onnx__AttributeProto *old = node->attribute[k];
        const Onnx__AttributeProto *given = meant(place, old);
        if (!given)
            continue;
        /* A graph that the caller gives is in the caller's names already. */
        const Place *names = given == old ? place : NULL;
        if (given == old && !has_graphs(old)) {
            placed[kept++] = old;
            continue;
        }
        Onnx__AttributeProto *copy = placed[kept++] = arena_array(in->arena, 1, sizeof *copy);
        if (!copy)
            return no_memory(in);
        *copy = *given;
        copy->name = old->name;
        if (copy->g)
            status = place_graph(in, names, &copy->g, depth);
        Onnx__GraphProto **graphs = arena_array(in->arena, copy->n_graphs, sizeof *graphs);
        for (size_t g = 0; graphs && g < copy->n_graphs && !status; g++) {
            graphs[g] = given->graphs[g];
            status = place_graph(in, names, &graphs[g], depth);
        }
        copy->graphs = graphs;
    }
    node->attribute = placed;
    node->n_attribute = kept;
    return status;
}

static int add_call(Inliner *in, Nodes *to, const Function *function, const Onnx__NodeProto *call,
                    int depth)
{
    if (depth > MOST_DEPTH)
        return error_set(in->err, ONNXPRESS_FORMAT, "%s: function '%s' calls itself",
                         in->model->path, text(call->op_type));
    Place place = {function, call, arena_printf(in->arena, "inlined%zu/", in->calls++)};
    if (!place.prefix)
        return no_memory(in);
    return add_nodes(in, to, function->proto->node, function->proto->n_node, &place, depth);
}

/* A node of a body, or of the model itself (place NULL), as it stands in the new graph. */
static int place_node(Inliner *in, const Place *place, Onnx__NodeProto **node, int depth)
{
    bool changes = place != NULL;
    for (size_t k = 0; k < (*node)->n_attribute; k++)
        changes |= has_graphs((*node)->attribute[k]);
    if (!changes)
        return ONNXPRESS_OK;
    Onnx__NodeProto *placed = arena_array(in->arena, 1, sizeof *placed);
    if (!placed)
        return no_memory(in);
    *placed = **node;
    *node = placed;
    int status = ONNXPRESS_OK;
    if (place) {
        status = place_names(in, place, &placed->input, placed->n_input);
        if (!status)
            status = place_names(in, place, &placed->output, placed->n_output);
        placed->name = arena_printf(in->arena, "%s%s", place->prefix, text(placed->name));
        if (node_is(placed, "Constant"))
            placed->domain = (char *)INLINE_EXACT;
    }
    return status ? status : place_attributes(in, place, placed, depth);
}

static int add_nodes(Inliner *in, Nodes *to, Onnx__NodeProto *const *nodes, size_t n,
                     const Place *place, int depth)
{
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < n && !status; k++) {
        Onnx__NodeProto *node = nodes[k];
        status = spend(in, parts_of(node));
        if (!status)
            status = place_node(in, place, &node, depth);
        const Function *function = status ? NULL : called(in, node, &status);
        if (!status)
            status = function ? add_call(in, to, function, node, depth + 1)
                              : add_node(in, to, node);
    }
    return status;
}

int model_inline(Model *model, Error *err)
{
    Onnx__ModelProto *proto = model->proto;
    if (proto->n_functions == 0 || model->private_data->stored)
        return ONNXPRESS_OK;
    Inliner in = {.model = model, .arena = model->arena, .err = err};
    Nodes nodes = {0};
    Onnx__GraphProto *graph = arena_array(model->arena, 1, sizeof *graph);
    int status = graph ? index_functions(&in) : no_memory(&in);
    if (!status)
        status = add_nodes(&in, &nodes, proto->graph->node, proto->graph->n_node, NULL, 0);
    if (status)
        return status;
    *graph = *proto->graph;
    graph->node = nodes.node;
    graph->n_node = nodes.n;
    model->private_data->stored = proto->graph;
    proto->graph = graph;
    return ONNXPRESS_OK;
}
