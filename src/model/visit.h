/* Visit: every graph, node and tensor of a model, wherever it is. */
#ifndef ONNXPRESS_MODEL_VISIT_H
#define ONNXPRESS_MODEL_VISIT_H

#include "onnx.pb-c.h"

/* Calls what is not NULL for every message of its kind, parents first; a result other than 0 ends the
 * walk and is returned. */
typedef struct {
    int (*graph)(void *context, Onnx__GraphProto *graph);
    int (*node)(void *context, Onnx__NodeProto *node);
    int (*tensor)(void *context, Onnx__TensorProto *tensor);
    void *context;
} Visitor;
/* The whole model: bodies of nodes, functions and training graphs included. */
int model_visit(const Onnx__ModelProto *proto, const Visitor *visitor);
/* Only what stands in the bodies that a graph's nodes hold, and in bodies in these. */
int model_visit_bodies(const Onnx__GraphProto *graph, const Visitor *visitor);

#endif
