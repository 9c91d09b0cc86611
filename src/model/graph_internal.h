/* What graph.c, graph_order.c and node.c share. */
#ifndef ONNXPRESS_MODEL_GRAPH_INTERNAL_H
#define ONNXPRESS_MODEL_GRAPH_INTERNAL_H

#include "model/graph.h"
#include "model/names.h"

/* One reading of a value, in the order in which the nodes stand in the file. */
typedef struct {
    int value;
    GraphUse use;
} Reading;

/* A reading from outside the bodies of a node. */
typedef struct {
    int holder, value;
} Capture;

typedef struct {
    const Model *model;
    Arena *arena;   /* of the result */
    Arena *scratch; /* of all that goes with the builder */
    Graph *graph;
    size_t room_values, room_nodes, room_bodies;
    NameTable *once, *again; /* names that are made somewhere, and more than once */
    NameTable **scope;       /* [body + 1]: name there → value; the main graph's first */
    Reading *readings;       /* malloc'ed, since they grow */
    size_t n_readings, most_readings;
    Capture *captures;
    size_t n_captures, most_captures;
    Error *err;
} GraphBuilder;

int graph_refuse(const GraphBuilder *b, int node, const char *what, const char *value);
int graph_no_memory(const GraphBuilder *b);
static inline const char *graph_text(const char *string)
{
    return string ? string : "";
}

/* The nodes of a body (-1: the main graph). */
static inline const Onnx__GraphProto *graph_level(const GraphBuilder *b, int body, int *first)
{
    *first = body < 0 ? 0 : b->graph->bodies[body].first_node;
    return body < 0 ? b->model->proto->graph : b->graph->bodies[body].proto;
}

/* graph_order.c: sets `order`. */
int graph_sort(GraphBuilder *b);

#endif
