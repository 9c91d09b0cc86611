/* SPDX-License-Identifier: Apache-2.0
 *
 * Each level is sorted by itself: a node that holds bodies depends on all that these read from its
 * level. */
#include "model/graph_internal.h"

typedef struct {
    unsigned char *state;
    int *next, *stack; /* the dependency to look at */
    int *sorted;       /* [node number]: each level's nodes, in order, at the level's place */
} Sorting;

enum { NEW, OPEN, DONE };

static int dependency(const Graph *graph, int node, int k)
{
    int n = graph->n_inputs[node];
    return k < n ? graph->inputs[node][k] : graph->captures[node][k - n];
}

/* Depth first from each node in file order, so that a file that is in order stays as it is. */
static int sort_from(GraphBuilder *b, Sorting *s, int root, int *placed)
{
    const Graph *graph = b->graph;
    int depth = 0, level = graph->node_body[root];
    s->stack[depth++] = root;
    s->state[root] = OPEN;
    while (depth > 0) {
        int node = s->stack[depth - 1];
        if (s->next[node] == graph->n_inputs[node] + graph->n_captures[node]) {
            s->state[node] = DONE;
            s->sorted[(*placed)++] = node;
            depth--;
            continue;
        }
        int value = dependency(graph, node, s->next[node]++);
        int producer = value < 0 ? -1 : graph->values[value].producer;
        if (producer < 0 || graph->node_body[producer] != level || s->state[producer] == DONE)
            continue;
        if (s->state[producer] == OPEN)
            return graph_refuse(b, node, "is part of a cycle through the value",
                                graph->values[value].name);
        s->stack[depth++] = producer;
        s->state[producer] = OPEN;
    }
    return ONNXPRESS_OK;
}

static int sort_level(GraphBuilder *b, Sorting *s, int body)
{
    int first, status = ONNXPRESS_OK;
    const Onnx__GraphProto *proto = graph_level(b, body, &first);
    int placed = first;
    for (size_t i = 0; i < proto->n_node && !status; i++)
        if (s->state[first + (int)i] == NEW)
            status = sort_from(b, s, first + (int)i, &placed);
    return status;
}

/* The recursion is as deep as the file's nesting, which loading bounds. */
static void emit_level(GraphBuilder *b, const Sorting *s, int body, int *placed)
{
    int first;
    const Onnx__GraphProto *proto = graph_level(b, body, &first);
    for (size_t i = 0; i < proto->n_node; i++) {
        int node = s->sorted[first + (int)i];
        for (int held = b->graph->first_body[node]; held >= 0; held = b->graph->bodies[held].next)
            emit_level(b, s, held, placed);
        b->graph->order[(*placed)++] = node;
    }
}

int graph_sort(GraphBuilder *b)
{
    size_t n = (size_t)b->graph->n_nodes;
    Sorting s = {.state = arena_array(b->scratch, n, 1),
                 .next = arena_array(b->scratch, n, sizeof *s.next),
                 .stack = arena_array(b->scratch, n, sizeof *s.stack),
                 .sorted = arena_array(b->scratch, n, sizeof *s.sorted)};
    if (!s.state || !s.next || !s.stack || !s.sorted)
        return graph_no_memory(b);
    int status = ONNXPRESS_OK, placed = 0;
    for (int body = -1; body < b->graph->n_bodies && !status; body++)
        status = sort_level(b, &s, body);
    if (!status)
        emit_level(b, &s, -1, &placed);
    return status;
}
