/* SPDX-License-Identifier: Apache-2.0 */
#include "model/visit.h"

/* The recursion is as deep as the file's nesting, which the wire check bounds. */
static int visit_graph(const Visitor *visitor, Onnx__GraphProto *graph);

static int visit_tensor(const Visitor *visitor, Onnx__TensorProto *tensor)
{
    return tensor && visitor->tensor ? visitor->tensor(visitor->context, tensor) : 0;
}

static int visit_sparse(const Visitor *visitor, const Onnx__SparseTensorProto *sparse)
{
    if (!sparse)
        return 0;
    int status = visit_tensor(visitor, sparse->values);
    return status ? status : visit_tensor(visitor, sparse->indices);
}

static int visit_held(const Visitor *visitor, const Onnx__AttributeProto *attribute)
{
    int status = attribute->g ? visit_graph(visitor, attribute->g) : 0;
    for (size_t i = 0; i < attribute->n_graphs && !status; i++)
        status = visit_graph(visitor, attribute->graphs[i]);
    return status;
}

static int visit_attribute(const Visitor *visitor, const Onnx__AttributeProto *attribute)
{
    int status = visit_tensor(visitor, attribute->t);
    for (size_t i = 0; i < attribute->n_tensors && !status; i++)
        status = visit_tensor(visitor, attribute->tensors[i]);
    if (!status)
        status = visit_sparse(visitor, attribute->sparse_tensor);
    for (size_t i = 0; i < attribute->n_sparse_tensors && !status; i++)
        status = visit_sparse(visitor, attribute->sparse_tensors[i]);
    return status ? status : visit_held(visitor, attribute);
}

static int visit_nodes(const Visitor *visitor, Onnx__NodeProto **nodes, size_t n)
{
    int status = 0;
    for (size_t i = 0; i < n && !status; i++) {
        if (visitor->node)
            status = visitor->node(visitor->context, nodes[i]);
        for (size_t k = 0; k < nodes[i]->n_attribute && !status; k++)
            status = visit_attribute(visitor, nodes[i]->attribute[k]);
    }
    return status;
}

static int visit_graph(const Visitor *visitor, Onnx__GraphProto *graph)
{
    int status = visitor->graph ? visitor->graph(visitor->context, graph) : 0;
    for (size_t i = 0; i < graph->n_initializer && !status; i++)
        status = visit_tensor(visitor, graph->initializer[i]);
    for (size_t i = 0; i < graph->n_sparse_initializer && !status; i++)
        status = visit_sparse(visitor, graph->sparse_initializer[i]);
    return status ? status : visit_nodes(visitor, graph->node, graph->n_node);
}

int model_visit(const Onnx__ModelProto *proto, const Visitor *visitor)
{
    int status = visit_graph(visitor, proto->graph);
    for (size_t i = 0; i < proto->n_functions && !status; i++) {
        const Onnx__FunctionProto *function = proto->functions[i];
        status = visit_nodes(visitor, function->node, function->n_node);
        for (size_t k = 0; k < function->n_attribute_proto && !status; k++)
            status = visit_attribute(visitor, function->attribute_proto[k]);
    }
    for (size_t i = 0; i < proto->n_training_info && !status; i++) {
        const Onnx__TrainingInfoProto *training = proto->training_info[i];
        if (training->initialization)
            status = visit_graph(visitor, training->initialization);
        if (!status && training->algorithm)
            status = visit_graph(visitor, training->algorithm);
    }
    return status;
}

int model_visit_bodies(const Onnx__GraphProto *graph, const Visitor *visitor)
{
    int status = 0;
    for (size_t i = 0; i < graph->n_node && !status; i++)
        for (size_t k = 0; k < graph->node[i]->n_attribute && !status; k++)
            status = visit_held(visitor, graph->node[i]->attribute[k]);
    return status;
}
