/* Graph index: every value by number, with its producer and consumers.
 *
 * Built from a Model, which must outlive it and must not change meanwhile; everything lives in the
 * arena given. The bodies of nodes that hold graphs (If, Loop, Scan) are taken apart too: their
 * nodes and values are numbered after those of the main graph, what they read from further out is
 * an input like any other, and their results are further inputs of the node that holds them. `order`
 * is a topological order of all nodes, in which a body's nodes stand together, right before the node
 * that holds it. Errors (ONNXPRESS_FORMAT): a cycle, a value made twice, a value that nobody makes,
 * each with the node's name.
 */
#ifndef ONNXPRESS_MODEL_GRAPH_H
#define ONNXPRESS_MODEL_GRAPH_H

#include "model/model.h"

typedef struct {
    int node;  /* the reading node */
    int input; /* which of its inputs */
} GraphUse;

typedef struct {
    /* Of a value in a body its own name, with the holder's and the body's before it where another
     * value has that name too or it is the body's result: "If_3/then_branch/w". */
    const char *name;
    const char *local;              /* its name where it is made */
    int body;                       /* where it is made; -1: the main graph */
    int producer;                   /* node number; -1: initializer, graph or body input */
    int output;                     /* which output of the producer */
    const Onnx__TensorProto *init;  /* initializer, or the tensor of a producing Constant node with
                                       attribute `value`; else NULL */
    bool is_constant_node;          /* init comes from a Constant node */
    bool is_input;                  /* an input of the main graph (an initializer may be one too) */
    bool is_output;                 /* an output of the main graph */
    bool is_formal;                 /* an input of a body */
    int n_uses;
    GraphUse *uses;
} GraphValue;

/* A graph that a node holds. Bodies are numbered parents first. */
typedef struct {
    Onnx__GraphProto *proto;
    const char *name; /* of the attribute */
    int node;         /* the holder */
    int parent;       /* the body that the holder is in; -1: the main graph */
    int next;         /* the holder's next body; -1: none */
    int first_node;   /* its own nodes follow from here on */
    int first_value, end_value; /* its values, those of bodies in it included */
    int *inputs, *outputs;      /* value numbers of proto->input and proto->output */
} GraphBody;

typedef struct {
    int n_values, n_nodes, n_bodies;
    GraphValue *values;
    const Onnx__NodeProto **nodes; /* those of the main graph first, as in the file */
    int *node_body;  /* [node]; -1: the main graph */
    int *first_body; /* [node]: that it holds; -1: none */
    GraphBody *bodies;
    int *order;      /* n_nodes node numbers, producers first */
    int *n_inputs;   /* [node] the message's, and its bodies' outputs */
    int **inputs;    /* [node][k]: value number, -1 for an omitted optional input */
    int **outputs;   /* [node][k]: value number, -1 for an omitted output */
    int *n_captures; /* [node] */
    int **captures;  /* [node]: what its bodies read from outside them, each once */
    struct NameTable *names; /* for graph_find */
} Graph;

int graph_build(const Model *model, Arena *arena, Graph **graph, Error *err);
int graph_find(const Graph *graph, const char *name); /* -1 when there is none */

/* The attribute of a node by name, NULL when absent. */
const Onnx__AttributeProto *node_attribute(const Onnx__NodeProto *node, const char *name);
/* An integer attribute; one without a value counts as absent. */
int64_t node_int(const Onnx__NodeProto *node, const char *name, int64_t fallback);
/* "" for the domain of ONNX itself, which has three spellings (NULL is one), else as it is. */
const char *plain_domain(const char *domain);
bool is_default_domain(const char *domain);
/* Whether the node is this op of the default domain. */
bool node_is(const Onnx__NodeProto *node, const char *type);

#endif
