/* SPDX-License-Identifier: Apache-2.0 */
#include "model/graph_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "node 'conv1' (Conv)"; a node without a name is called by its number. */
static const char *node_label(const GraphBuilder *b, int node, char *label, size_t size)
{
    const Onnx__NodeProto *proto = b->graph->nodes[node];
    if (proto->name && *proto->name)
        snprintf(label, size, "node '%.120s' (%.40s)", proto->name, graph_text(proto->op_type));
    else
        snprintf(label, size, "node %d (%.40s)", node, graph_text(proto->op_type));
    return label;
}

int graph_no_memory(const GraphBuilder *b)
{
    return error_memory(b->err, "the graph");
}

int graph_refuse(const GraphBuilder *b, int node, const char *what, const char *value)
{
    char label[200];
    return error_set(b->err, ONNXPRESS_FORMAT, "%s: %s %s '%.120s'", b->model->path,
                     node >= 0 ? node_label(b, node, label, sizeof label) : "the graph", what,
                     value);
}

static const Onnx__TensorProto *constant_of(const Onnx__NodeProto *node)
{
    const Onnx__AttributeProto *value =
        node_is(node, "Constant") ? node_attribute(node, "value") : NULL;
    return value ? value->t : NULL;
}

/* ---- first pass: sizes, and which names are made more than once ---- */

static bool note_name(GraphBuilder *b, const char *name)
{
    NameTable *table = name_table_find(b->once, name) < 0 ? b->once : b->again;
    return name_table_add(table, name, 0);
}

static bool note_names(GraphBuilder *b, const Onnx__GraphProto *proto)
{
    bool ok = true;
    for (size_t i = 0; i < proto->n_input && ok; i++)
        ok = note_name(b, graph_text(proto->input[i]->name));
    for (size_t i = 0; i < proto->n_initializer && ok; i++)
        ok = note_name(b, graph_text(proto->initializer[i]->name));
    for (size_t i = 0; i < proto->n_node && ok; i++)
        for (size_t k = 0; k < proto->node[i]->n_output && ok; k++)
            ok = note_name(b, proto->node[i]->output[k]);
    return ok;
}

/* Calls `visit` for every graph that the node holds; stops when it fails. */
static int each_body(GraphBuilder *b, int node, const Onnx__NodeProto *proto,
                     int (*visit)(GraphBuilder *b, int node, const char *name,
                                  Onnx__GraphProto *body))
{
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < proto->n_attribute && !status; i++) {
        const Onnx__AttributeProto *attribute = proto->attribute[i];
        const char *name = graph_text(attribute->name);
        if (attribute->g)
            status = visit(b, node, name, attribute->g);
        for (size_t k = 0; k < attribute->n_graphs && !status; k++)
            status = visit(b, node, name, attribute->graphs[k]);
    }
    return status;
}

static int count_graph(GraphBuilder *b, Onnx__GraphProto *proto);

static int count_body(GraphBuilder *b, int node, const char *name, Onnx__GraphProto *proto)
{
    (void)node, (void)name;
    b->room_bodies++;
    /* No value of an outer graph may be a body's result (onnxruntime): what is one has a name that
     * it cannot be moved out with. */
    for (size_t i = 0; i < proto->n_output; i++)
        if (!name_table_add(b->again, graph_text(proto->output[i]->name), 0))
            return graph_no_memory(b);
    return count_graph(b, proto);
}

/* The recursion of this and the other passes is as deep as the file's nesting, which loading
 * bounds. */
static int count_graph(GraphBuilder *b, Onnx__GraphProto *proto)
{
    b->room_values += proto->n_input + proto->n_initializer + proto->n_sparse_initializer;
    b->room_nodes += proto->n_node;
    int status = note_names(b, proto) ? ONNXPRESS_OK : graph_no_memory(b);
    for (size_t i = 0; i < proto->n_node && !status; i++) {
        b->room_values += proto->node[i]->n_output;
        status = each_body(b, -1, proto->node[i], count_body);
    }
    return status;
}

/* Room for all there can be; false on overflow or out of memory. */
static bool make_room(GraphBuilder *b)
{
    size_t values = b->room_values, nodes = b->room_nodes, bodies = b->room_bodies;
    Graph *graph = b->graph = arena_array(b->arena, 1, sizeof *graph);
    if (!graph || values > INT_MAX - 1 || nodes > INT_MAX - 1 || bodies > INT_MAX - 1)
        return false;
    graph->values = arena_array(b->arena, values, sizeof *graph->values);
    graph->nodes = arena_array(b->arena, nodes, sizeof *graph->nodes);
    graph->node_body = arena_array(b->arena, nodes, sizeof *graph->node_body);
    graph->first_body = arena_array(b->arena, nodes, sizeof *graph->first_body);
    graph->bodies = arena_array(b->arena, bodies, sizeof *graph->bodies);
    graph->order = arena_array(b->arena, nodes, sizeof *graph->order);
    graph->n_inputs = arena_array(b->arena, nodes, sizeof *graph->n_inputs);
    graph->inputs = arena_array(b->arena, nodes, sizeof *graph->inputs);
    graph->outputs = arena_array(b->arena, nodes, sizeof *graph->outputs);
    graph->n_captures = arena_array(b->arena, nodes, sizeof *graph->n_captures);
    graph->captures = arena_array(b->arena, nodes, sizeof *graph->captures);
    graph->names = name_table_create(b->arena);
    b->scope = arena_array(b->scratch, bodies + 1, sizeof *b->scope);
    return graph->values && graph->nodes && graph->node_body && graph->first_body &&
           graph->bodies && graph->order && graph->n_inputs && graph->inputs && graph->outputs &&
           graph->n_captures && graph->captures && graph->names && b->scope;
}

/* ---- second pass: values and nodes ---- */

/* A name for a value that is no other's, and not the one that a body's result has in the body. */
static const char *full_name(GraphBuilder *b, int body, const char *local)
{
    if (body < 0 || name_table_find(b->again, local) < 0)
        return local;
    const GraphBody *held = &b->graph->bodies[body];
    const Onnx__NodeProto *holder = b->graph->nodes[held->node];
    const char *where = graph_text(holder->name), *name = NULL;
    if (!*where && holder->n_output > 0)
        where = holder->output[0];
    for (int n = 0; !name || name_table_find(b->once, name) >= 0 || graph_find(b->graph, name) >= 0;
         n++) {
        name = n ? arena_printf(b->arena, "%s/%s/%s.%d", where, held->name, local, n)
                 : arena_printf(b->arena, "%s/%s/%s", where, held->name, local);
        if (!name)
            return NULL;
    }
    return name;
}

static GraphValue *add_value(GraphBuilder *b, int body, const char *local)
{
    Graph *graph = b->graph;
    const char *name = full_name(b, body, local);
    if (!name || !name_table_add(b->scope[body + 1], local, graph->n_values) ||
        !name_table_add(graph->names, name, graph->n_values))
        return NULL;
    GraphValue *value = &graph->values[graph->n_values++];
    *value = (GraphValue){.name = name, .local = local, .body = body, .producer = -1};
    return value;
}

static int add_inputs(GraphBuilder *b, const Onnx__GraphProto *proto, int body)
{
    for (size_t i = 0; i < proto->n_input; i++) {
        const char *name = graph_text(proto->input[i]->name);
        if (!*name || name_table_find(b->scope[body + 1], name) >= 0)
            return graph_refuse(
                b, -1, *name ? "has two inputs" : "has an input without a name", name);
        if (body >= 0)
            b->graph->bodies[body].inputs[i] = b->graph->n_values;
        GraphValue *value = add_value(b, body, name);
        if (!value)
            return graph_no_memory(b);
        value->is_input = body < 0;
        value->is_formal = body >= 0;
    }
    return ONNXPRESS_OK;
}

/* An initializer may be an input too: the input's default. `init` is NULL for a sparse one. */
static int add_initializer(GraphBuilder *b, int body, const char *name,
                           const Onnx__TensorProto *init, NameTable *seen)
{
    if (!*name || name_table_find(seen, name) >= 0)
        return graph_refuse(
            b, -1, *name ? "has two initializers" : "has an initializer without a name", name);
    if (!name_table_add(seen, name, 0))
        return graph_no_memory(b);
    int there = name_table_find(b->scope[body + 1], name);
    GraphValue *value = there >= 0 ? &b->graph->values[there] : add_value(b, body, name);
    if (!value)
        return graph_no_memory(b);
    if (!value->is_formal) /* a body's inputs are always given */
        value->init = init;
    return ONNXPRESS_OK;
}

static int add_initializers(GraphBuilder *b, const Onnx__GraphProto *proto, int body)
{
    NameTable *seen = name_table_create(b->scratch);
    if (!seen)
        return graph_no_memory(b);
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < proto->n_initializer && !status; i++)
        status = add_initializer(b, body, graph_text(proto->initializer[i]->name),
                                 proto->initializer[i], seen);
    for (size_t i = 0; i < proto->n_sparse_initializer && !status; i++) {
        const Onnx__TensorProto *values = proto->sparse_initializer[i]->values;
        status = add_initializer(b, body, values ? graph_text(values->name) : "", NULL, seen);
    }
    return status;
}

static int add_node(GraphBuilder *b, const Onnx__NodeProto *node, int body)
{
    Graph *graph = b->graph;
    int n = graph->n_nodes++;
    graph->nodes[n] = node;
    graph->node_body[n] = body;
    graph->first_body[n] = -1;
    graph->outputs[n] = arena_array(b->arena, node->n_output, sizeof(int));
    if (!graph->outputs[n])
        return graph_no_memory(b);
    for (size_t k = 0; k < node->n_output; k++) {
        const char *name = node->output[k];
        graph->outputs[n][k] = -1;
        if (!*name)
            continue;
        if (name_table_find(b->scope[body + 1], name) >= 0)
            return graph_refuse(b, n, "makes a value that is already there:", name);
        graph->outputs[n][k] = graph->n_values;
        GraphValue *value = add_value(b, body, name);
        if (!value)
            return graph_no_memory(b);
        value->producer = n;
        value->output = (int)k;
        value->init = k == 0 ? constant_of(node) : NULL;
        value->is_constant_node = value->init != NULL;
    }
    return ONNXPRESS_OK;
}

static int add_body(GraphBuilder *b, int node, const char *name, Onnx__GraphProto *proto);

/* A level's own values and nodes, then those of the bodies in it. */
static int add_graph(GraphBuilder *b, const Onnx__GraphProto *proto, int body)
{
    int first = b->graph->n_nodes;
    b->scope[body + 1] = name_table_create(b->scratch);
    if (!b->scope[body + 1])
        return graph_no_memory(b);
    int status = add_inputs(b, proto, body);
    if (!status)
        status = add_initializers(b, proto, body);
    for (size_t i = 0; i < proto->n_node && !status; i++)
        status = add_node(b, proto->node[i], body);
    for (size_t i = 0; i < proto->n_node && !status; i++)
        status = each_body(b, first + (int)i, proto->node[i], add_body);
    return status;
}

static int add_body(GraphBuilder *b, int node, const char *name, Onnx__GraphProto *proto)
{
    Graph *graph = b->graph;
    int number = graph->n_bodies++, *link = &graph->first_body[node];
    while (*link >= 0)
        link = &graph->bodies[*link].next;
    *link = number;
    GraphBody *body = &graph->bodies[number];
    *body = (GraphBody){.proto = proto,
                        .name = name,
                        .node = node,
                        .parent = graph->node_body[node],
                        .next = -1,
                        .first_node = graph->n_nodes,
                        .first_value = graph->n_values,
                        .inputs = arena_array(b->arena, proto->n_input, sizeof(int)),
                        .outputs = arena_array(b->arena, proto->n_output, sizeof(int))};
    if (!body->inputs || !body->outputs)
        return graph_no_memory(b);
    int status = add_graph(b, proto, number);
    body->end_value = graph->n_values;
    return status;
}

/* ---- third pass: who reads what ---- */

/* Room for one more item in a list that grows; NULL: out of memory. */
static void *grow(void *list, size_t n, size_t *most, size_t size)
{
    if (n < *most)
        return list;
    size_t more = 2 * *most + 256, bytes;
    void *larger = size_mul(more, size, &bytes) ? realloc(list, bytes) : NULL;
    if (larger)
        *most = more;
    return larger;
}

static int find_value(const GraphBuilder *b, int body, const char *name)
{
    for (;; body = b->graph->bodies[body].parent) {
        int value = name_table_find(b->scope[body + 1], name);
        if (value >= 0 || body < 0)
            return value;
    }
}

/* The bodies between where a value is made and where it is read capture it. */
static int note_captures(GraphBuilder *b, int body, int value)
{
    const GraphBody *bodies = b->graph->bodies;
    for (; body >= 0 && (value < bodies[body].first_value || value >= bodies[body].end_value);
         body = bodies[body].parent) {
        Capture *larger =
            grow(b->captures, b->n_captures, &b->most_captures, sizeof *b->captures);
        if (!larger)
            return graph_no_memory(b);
        b->captures = larger;
        b->captures[b->n_captures++] = (Capture){bodies[body].node, value};
    }
    return ONNXPRESS_OK;
}

static int add_reading(GraphBuilder *b, int value, int node, int input)
{
    Reading *larger = grow(b->readings, b->n_readings, &b->most_readings, sizeof *b->readings);
    if (!larger)
        return graph_no_memory(b);
    b->readings = larger;
    b->readings[b->n_readings++] = (Reading){value, {node, input}};
    return ONNXPRESS_OK;
}

static int read_node(GraphBuilder *b, int n)
{
    Graph *graph = b->graph;
    const Onnx__NodeProto *proto = graph->nodes[n];
    size_t count = proto->n_input;
    for (int held = graph->first_body[n]; held >= 0; held = graph->bodies[held].next)
        count += graph->bodies[held].proto->n_output;
    if (count > INT_MAX || !(graph->inputs[n] = arena_array(b->arena, count, sizeof(int))))
        return graph_no_memory(b);
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < proto->n_input && !status; k++) {
        const char *name = proto->input[k];
        int value = *name ? find_value(b, graph->node_body[n], name) : -1;
        if (*name && value < 0)
            return graph_refuse(b, n, "reads a value that nothing makes:", name);
        graph->inputs[n][graph->n_inputs[n]++] = value;
        if (value >= 0)
            status = note_captures(b, graph->node_body[n], value);
        if (value >= 0 && !status)
            status = add_reading(b, value, n, (int)k);
    }
    for (int held = graph->first_body[n]; held >= 0; held = graph->bodies[held].next) {
        const GraphBody *body = &graph->bodies[held];
        for (size_t k = 0; k < body->proto->n_output && !status; k++) {
            const char *name = graph_text(body->proto->output[k]->name);
            int value = find_value(b, held, name), input = graph->n_inputs[n];
            if (value < 0)
                return graph_refuse(b, n, "has a body with an output that nothing makes:", name);
            body->outputs[k] = graph->inputs[n][graph->n_inputs[n]++] = value;
            status = note_captures(b, held, value);
            if (!status)
                status = add_reading(b, value, n, input);
        }
    }
    return status;
}

static int read_nodes(GraphBuilder *b)
{
    const Onnx__GraphProto *proto = b->model->proto->graph;
    int status = ONNXPRESS_OK;
    for (int n = 0; n < b->graph->n_nodes && !status; n++)
        status = read_node(b, n);
    for (size_t i = 0; i < proto->n_output && !status; i++) {
        const char *name = graph_text(proto->output[i]->name);
        int value = name_table_find(b->scope[0], name);
        if (value < 0)
            return graph_refuse(b, -1, "has an output that nothing makes:", name);
        b->graph->values[value].is_output = true;
    }
    return status;
}

/* Deals the readings out to their values; they stay in the order of nodes and inputs. */
static int fill_uses(GraphBuilder *b)
{
    Graph *graph = b->graph;
    if (b->n_readings > INT_MAX)
        return graph_no_memory(b);
    GraphUse *uses = arena_array(b->arena, b->n_readings, sizeof *uses);
    if (!uses)
        return graph_no_memory(b);
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

static int compare_captures(const void *a, const void *b)
{
    const Capture *x = a, *y = b;
    return x->holder != y->holder ? (x->holder > y->holder) - (x->holder < y->holder)
                                  : (x->value > y->value) - (x->value < y->value);
}

static int fill_captures(GraphBuilder *b)
{
    Graph *graph = b->graph;
    int *list = arena_array(b->arena, b->n_captures, sizeof *list);
    if (!list || b->n_captures > INT_MAX)
        return graph_no_memory(b);
    if (b->n_captures > 0)
        qsort(b->captures, b->n_captures, sizeof *b->captures, compare_captures);
    for (size_t i = 0; i < b->n_captures; i++) {
        int holder = b->captures[i].holder;
        if (i > 0 && compare_captures(&b->captures[i - 1], &b->captures[i]) == 0)
            continue;
        if (!graph->n_captures[holder])
            graph->captures[holder] = list;
        graph->n_captures[holder]++;
        *list++ = b->captures[i].value;
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
    GraphBuilder b = {.model = model, .arena = arena, .scratch = arena_create(), .err = err};
    if (b.scratch) {
        b.once = name_table_create(b.scratch);
        b.again = name_table_create(b.scratch);
    }
    int status = b.once && b.again ? count_graph(&b, model->proto->graph) : graph_no_memory(&b);
    if (!status && !make_room(&b))
        status = graph_no_memory(&b);
    if (!status)
        status = add_graph(&b, model->proto->graph, -1);
    if (!status)
        status = read_nodes(&b);
    if (!status)
        status = fill_uses(&b);
    if (!status)
        status = fill_captures(&b);
    if (!status)
        status = graph_sort(&b);
    if (!status)
        *graph = b.graph;
    free(b.readings);
    free(b.captures);
    arena_destroy(b.scratch);
    return status;
}
