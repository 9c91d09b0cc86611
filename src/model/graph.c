/* SPDX-License-Identifier: Apache-2.0 */
#include "model/graph.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/names.h"

/* One reading of a value, in the order in which the nodes stand in the file. */
typedef struct {
    int value;
    GraphUse use;
} Reading;

typedef struct {
    const Model *model;
    const Onnx__GraphProto *proto;
    Arena *arena; /* of the result; everything below goes into `scratch` */
    Arena *scratch;
    Graph *graph;
    Reading *readings; /* malloc'ed, since it grows */
    size_t n_readings, capacity;
    size_t *first_reading; /* [n_nodes + 1]: where each node's readings start */
    int *subgraph_reader;  /* [value]: last node noted as reading it in a subgraph, plus one */
    Error *err;
} Builder;

/* The names that a subgraph makes itself; what is not among them comes from further out. */
typedef struct Scope {
    const struct Scope *outer;
    NameTable *names;
} Scope;

static const char *text(const char *string)
{
    return string ? string : "";
}

/* "node 'conv1' (Conv)"; a node without a name is called by its number. */
static const char *node_label(const Builder *b, int node, char *label, size_t size)
{
    const Onnx__NodeProto *proto = b->proto->node[node];
    if (proto->name && *proto->name)
        snprintf(label, size, "node '%.120s' (%.40s)", proto->name, text(proto->op_type));
    else
        snprintf(label, size, "node %d (%.40s)", node, text(proto->op_type));
    return label;
}

static int out_of_memory(const Builder *b)
{
    return error_memory(b->err, "the graph");
}

static int bad_graph(const Builder *b, int node, const char *what, const char *value)
{
    char label[200];
    return error_set(b->err, ONNXPRESS_FORMAT, "%s: %s %s '%.120s'", b->model->path,
                     node >= 0 ? node_label(b, node, label, sizeof label) : "the graph", what,
                     value);
}

const Onnx__AttributeProto *node_attribute(const Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++)
        if (node->attribute[i]->name && strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    return NULL;
}

static const Onnx__TensorProto *constant_of(const Onnx__NodeProto *node)
{
    const char *domain = text(node->domain);
    if (strcmp(text(node->op_type), "Constant") != 0 || (*domain && strcmp(domain, "ai.onnx") != 0))
        return NULL;
    const Onnx__AttributeProto *value = node_attribute(node, "value");
    return value ? value->t : NULL;
}

/* Room for all values there can be; false on overflow or out of memory. */
static bool make_room(Builder *b)
{
    const Onnx__GraphProto *proto = b->proto;
    size_t values = proto->n_input + proto->n_initializer + proto->n_sparse_initializer;
    for (size_t i = 0; i < proto->n_node; i++)
        values += proto->node[i]->n_output;
    Graph *graph = arena_array(b->arena, 1, sizeof *graph);
    if (!graph || values > INT_MAX || proto->n_node > INT_MAX - 1)
        return false;
    b->graph = graph;
    graph->n_nodes = (int)proto->n_node;
    graph->values = arena_array(b->arena, values, sizeof *graph->values);
    graph->order = arena_array(b->arena, proto->n_node, sizeof *graph->order);
    graph->inputs = arena_array(b->arena, proto->n_node, sizeof *graph->inputs);
    graph->outputs = arena_array(b->arena, proto->n_node, sizeof *graph->outputs);
    graph->names = name_table_create(b->arena);
    b->first_reading = arena_array(b->scratch, proto->n_node + 1, sizeof *b->first_reading);
    b->subgraph_reader = arena_array(b->scratch, values, sizeof *b->subgraph_reader);
    if (!graph->values || !graph->order || !graph->inputs || !graph->outputs || !graph->names ||
        !b->first_reading || !b->subgraph_reader)
        return false;
    for (int n = 0; n < graph->n_nodes; n++) {
        const Onnx__NodeProto *node = proto->node[n];
        graph->inputs[n] = arena_array(b->arena, node->n_input, sizeof(int));
        graph->outputs[n] = arena_array(b->arena, node->n_output, sizeof(int));
        if (!graph->inputs[n] || !graph->outputs[n])
            return false;
    }
    return true;
}

static GraphValue *add_value(Builder *b, const char *name)
{
    Graph *graph = b->graph;
    if (!name_table_add(graph->names, name, graph->n_values))
        return NULL;
    GraphValue *value = &graph->values[graph->n_values++];
    *value = (GraphValue){.name = name, .producer = -1};
    return value;
}

static int add_inputs(Builder *b)
{
    for (size_t i = 0; i < b->proto->n_input; i++) {
        const char *name = text(b->proto->input[i]->name);
        if (!*name || graph_find(b->graph, name) >= 0)
            return bad_graph(b, -1, *name ? "has two inputs" : "has an input without a name", name);
        GraphValue *value = add_value(b, name);
        if (!value)
            return out_of_memory(b);
        value->is_input = true;
    }
    return ONNXPRESS_OK;
}

/* An initializer may be an input too: the input's default. `init` is NULL for a sparse one. */
static int add_initializer(Builder *b, const char *name, const Onnx__TensorProto *init,
                           NameTable *seen)
{
    if (!*name || name_table_find(seen, name) >= 0)
        return bad_graph(
            b, -1, *name ? "has two initializers" : "has an initializer without a name", name);
    if (!name_table_add(seen, name, 0))
        return out_of_memory(b);
    int there = graph_find(b->graph, name);
    GraphValue *value = there >= 0 ? &b->graph->values[there] : add_value(b, name);
    if (!value)
        return out_of_memory(b);
    value->init = init;
    return ONNXPRESS_OK;
}

static int add_initializers(Builder *b)
{
    NameTable *seen = name_table_create(b->scratch);
    if (!seen)
        return out_of_memory(b);
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < b->proto->n_initializer && !status; i++)
        status = add_initializer(b, text(b->proto->initializer[i]->name), b->proto->initializer[i],
                                 seen);
    for (size_t i = 0; i < b->proto->n_sparse_initializer && !status; i++) {
        const Onnx__TensorProto *values = b->proto->sparse_initializer[i]->values;
        status = add_initializer(b, values ? text(values->name) : "", NULL, seen);
    }
    return status;
}

static int add_node_outputs(Builder *b)
{
    for (int n = 0; n < b->graph->n_nodes; n++) {
        const Onnx__NodeProto *node = b->proto->node[n];
        for (size_t k = 0; k < node->n_output; k++) {
            const char *name = node->output[k];
            b->graph->outputs[n][k] = -1;
            if (!*name)
                continue;
            if (graph_find(b->graph, name) >= 0)
                return bad_graph(b, n, "makes a value that is already there:", name);
            b->graph->outputs[n][k] = b->graph->n_values;
            GraphValue *value = add_value(b, name);
            if (!value)
                return out_of_memory(b);
            value->producer = n;
            value->output = (int)k;
            value->init = k == 0 ? constant_of(node) : NULL;
            value->is_constant_node = value->init != NULL;
        }
    }
    return ONNXPRESS_OK;
}

static int add_reading(Builder *b, int value, int node, int input)
{
    if (b->n_readings == b->capacity) {
        size_t capacity = 2 * b->capacity + 256;
        Reading *larger = realloc(b->readings, capacity * sizeof *larger);
        if (!larger)
            return out_of_memory(b);
        b->readings = larger;
        b->capacity = capacity;
    }
    b->readings[b->n_readings++] = (Reading){value, {node, input}};
    return ONNXPRESS_OK;
}

static int read_subgraph(Builder *b, int node, const Onnx__GraphProto *sub, const Scope *outer);

static int read_subgraphs(Builder *b, int node, const Onnx__NodeProto *proto, const Scope *scope)
{
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < proto->n_attribute && !status; i++) {
        const Onnx__AttributeProto *attribute = proto->attribute[i];
        if (attribute->g)
            status = read_subgraph(b, node, attribute->g, scope);
        for (size_t k = 0; k < attribute->n_graphs && !status; k++)
            status = read_subgraph(b, node, attribute->graphs[k], scope);
    }
    return status;
}

/* A name read inside a subgraph: nothing to note when the subgraph, or one around it, makes it. */
static int read_name(Builder *b, int node, const char *name, const Scope *scope)
{
    if (!*name)
        return ONNXPRESS_OK;
    for (; scope; scope = scope->outer)
        if (name_table_find(scope->names, name) >= 0)
            return ONNXPRESS_OK;
    int value = graph_find(b->graph, name);
    if (value < 0)
        return bad_graph(b, node, "has a subgraph that reads a value that nothing makes:", name);
    if (b->subgraph_reader[value] == node + 1)
        return ONNXPRESS_OK;
    b->subgraph_reader[value] = node + 1;
    return add_reading(b, value, node, -1);
}

static bool fill_scope(NameTable *names, const Onnx__GraphProto *sub)
{
    bool ok = names != NULL;
    for (size_t i = 0; i < sub->n_input && ok; i++)
        ok = name_table_add(names, text(sub->input[i]->name), 0);
    for (size_t i = 0; i < sub->n_initializer && ok; i++)
        ok = name_table_add(names, text(sub->initializer[i]->name), 0);
    for (size_t i = 0; i < sub->n_sparse_initializer && ok; i++) {
        const Onnx__TensorProto *values = sub->sparse_initializer[i]->values;
        ok = name_table_add(names, values ? text(values->name) : "", 0);
    }
    for (size_t i = 0; i < sub->n_node && ok; i++)
        for (size_t k = 0; k < sub->node[i]->n_output && ok; k++)
            ok = name_table_add(names, sub->node[i]->output[k], 0);
    return ok;
}

static int read_subgraph(Builder *b, int node, const Onnx__GraphProto *sub, const Scope *outer)
{
    Scope scope = {outer, name_table_create(b->scratch)};
    if (!fill_scope(scope.names, sub))
        return out_of_memory(b);
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < sub->n_node && !status; i++) {
        for (size_t k = 0; k < sub->node[i]->n_input && !status; k++)
            status = read_name(b, node, sub->node[i]->input[k], &scope);
        if (!status)
            status = read_subgraphs(b, node, sub->node[i], &scope);
    }
    for (size_t i = 0; i < sub->n_output && !status; i++)
        status = read_name(b, node, text(sub->output[i]->name), &scope);
    return status;
}

static int read_nodes(Builder *b)
{
    int status = ONNXPRESS_OK;
    for (int n = 0; n < b->graph->n_nodes && !status; n++) {
        const Onnx__NodeProto *node = b->proto->node[n];
        b->first_reading[n] = b->n_readings;
        for (size_t k = 0; k < node->n_input && !status; k++) {
            const char *name = node->input[k];
            int value = *name ? graph_find(b->graph, name) : -1;
            if (*name && value < 0)
                return bad_graph(b, n, "reads a value that nothing makes:", name);
            b->graph->inputs[n][k] = value;
            if (value >= 0)
                status = add_reading(b, value, n, (int)k);
        }
        if (!status)
            status = read_subgraphs(b, n, node, NULL);
    }
    b->first_reading[b->graph->n_nodes] = b->n_readings;
    for (size_t i = 0; i < b->proto->n_output && !status; i++) {
        const char *name = text(b->proto->output[i]->name);
        int value = graph_find(b->graph, name);
        if (value < 0)
            return bad_graph(b, -1, "has an output that nothing makes:", name);
        b->graph->values[value].is_output = true;
    }
    return status;
}

/* Deals the readings out to their values; they stay in the order of nodes and inputs. */
static int fill_uses(Builder *b)
{
    Graph *graph = b->graph;
    if (b->n_readings > INT_MAX)
        return out_of_memory(b);
    GraphUse *uses = arena_array(b->arena, b->n_readings, sizeof *uses);
    if (!uses)
        return out_of_memory(b);
    for (size_t i = 0; i < b->n_readings; i++)
        graph->values[b->readings[i].value].n_uses++;
    for (int v = 0; v < graph->n_values; v++) {
        graph->values[v].uses = uses;
        uses += graph->values[v].n_uses;
        graph->values[v].n_uses = 0;
    }
    for (size_t i = 0; i < b->n_readings; i++) {
        GraphValue *value = &graph->values[b->readings[i].value];
        value->uses[value->n_uses++] = b->readings[i].use;
    }
    return ONNXPRESS_OK;
}

/* Depth first from each node in file order, so that a file that is in order stays as it is. */
static int sort_nodes(Builder *b)
{
    enum { NEW, OPEN, DONE };
    int n = b->graph->n_nodes, placed = 0;
    unsigned char *state = arena_array(b->scratch, (size_t)n, 1);
    size_t *next = arena_array(b->scratch, (size_t)n, sizeof *next); /* reading to look at */
    int *stack = arena_array(b->scratch, (size_t)n, sizeof *stack);
    if (!state || !next || !stack)
        return out_of_memory(b);
    for (int root = 0; root < n; root++) {
        if (state[root] != NEW)
            continue;
        int depth = 0;
        stack[depth++] = root;
        state[root] = OPEN;
        next[root] = b->first_reading[root];
        while (depth > 0) {
            int node = stack[depth - 1];
            if (next[node] == b->first_reading[node + 1]) {
                state[node] = DONE;
                b->graph->order[placed++] = node;
                depth--;
                continue;
            }
            const GraphValue *value = &b->graph->values[b->readings[next[node]++].value];
            int producer = value->producer;
            if (producer < 0 || state[producer] == DONE)
                continue;
            if (state[producer] == OPEN)
                return bad_graph(b, node, "is part of a cycle through the value", value->name);
            stack[depth++] = producer;
            state[producer] = OPEN;
            next[producer] = b->first_reading[producer];
        }
    }
    return ONNXPRESS_OK;
}

int graph_find(const Graph *graph, const char *name)
{
    return name_table_find(graph->names, name);
}

int graph_build(const Model *model, Arena *arena, Graph **graph, Error *err)
{
    *graph = NULL;
    Builder b = {.model = model, .proto = model->proto->graph, .arena = arena, .err = err};
    b.scratch = arena_create();
    int status = b.scratch && make_room(&b) ? ONNXPRESS_OK : out_of_memory(&b);
    if (!status)
        status = add_inputs(&b);
    if (!status)
        status = add_initializers(&b);
    if (!status)
        status = add_node_outputs(&b);
    if (!status)
        status = read_nodes(&b);
    if (!status)
        status = fill_uses(&b);
    if (!status)
        status = sort_nodes(&b);
    if (!status)
        *graph = b.graph;
    free(b.readings);
    arena_destroy(b.scratch);
    return status;
}
