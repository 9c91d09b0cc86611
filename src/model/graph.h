/* Graph index: every value of the main graph by number, with its producer and consumers.
 *
 * Built from a Model, which must outlive it and must not change meanwhile; everything lives in the
 * arena given. Nodes are numbered as in the file; `order` is a topological order of them. A value
 * that only a subgraph (If, Loop, Scan body) reads counts as consumed by the node that holds the
 * subgraph. Errors (ONNXPRESS_FORMAT): a cycle, a value made twice, a value that nobody makes, each
 * with the node's name.
 */
#ifndef ONNXPRESS_MODEL_GRAPH_H
#define ONNXPRESS_MODEL_GRAPH_H

#include "model/model.h"

typedef struct {
    int node;  /* the reading node */
    int input; /* which of its inputs; -1: read by a subgraph of the node */
} GraphUse;

typedef struct {
    const char *name;
    int producer;                   /* node number; -1: initializer, graph input */
    int output;                     /* which output of the producer */
    const Onnx__TensorProto *init;  /* initializer, or the tensor of a producing Constant node with
                                       attribute `value`; else NULL */
    bool is_constant_node;          /* init comes from a Constant node */
    bool is_input;                  /* a graph input (an initializer may be one too) */
    bool is_output;                 /* a graph output */
    int n_uses;
    GraphUse *uses;
} GraphValue;

typedef struct {
    int n_values, n_nodes;
    GraphValue *values;
    int *order;    /* n_nodes node numbers, producers first */
    int **inputs;  /* [node][k]: value number, -1 for an omitted optional input */
    int **outputs; /* [node][k]: value number, -1 for an omitted output */
    struct NameTable *names; /* for graph_find */
} Graph;

int graph_build(const Model *model, Arena *arena, Graph **graph, Error *err);
int graph_find(const Graph *graph, const char *name); /* -1 when there is none */

/* The attribute of a node by name, NULL when absent. */
const Onnx__AttributeProto *node_attribute(const Onnx__NodeProto *node, const char *name);

#endif
