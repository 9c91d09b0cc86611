/* SPDX-License-Identifier: Apache-2.0 */
#include "model/build.h"

#include <string.h>

#include "model/graph.h"
#include "model/model_internal.h"

bool model_append(Model *model, size_t *n, void *array, void *item, Growth *growth)
{
    void **items;
    memcpy(&items, array, sizeof items); /* the field is a T **, whatever T is */
    if (!items || growth->array != items || *n >= growth->capacity) {
        size_t capacity = 2 * *n + 8;
        void **larger = arena_array(model->arena, capacity, sizeof *larger);
        if (!larger)
            return false;
        if (*n > 0)
            memcpy(larger, items, *n * sizeof *items);
        *growth = (Growth){larger, capacity};
        items = larger;
        memcpy(array, &items, sizeof items);
    }
    items[(*n)++] = item;
    return true;
}

static bool copy_strings(Model *model, char ***copies, size_t *n, const char *const *strings,
                         size_t count)
{
    *copies = arena_array(model->arena, count, sizeof **copies);
    if (!*copies)
        return false;
    for (size_t i = 0; i < count; i++) {
        (*copies)[i] = arena_strdup(model->arena, strings[i]);
        if (!(*copies)[i] || !model_note_name(model, (*copies)[i]))
            return false;
    }
    *n = count;
    return true;
}

Onnx__TensorProto *build_tensor(Model *model, const char *name, int dtype, int rank,
                                const int64_t *dims, const void *data, size_t bytes)
{
    Onnx__TensorProto *tensor = arena_array(model->arena, 1, sizeof *tensor);
    if (!tensor)
        return NULL;
    onnx__tensor_proto__init(tensor);
    tensor->has_data_type = true;
    tensor->data_type = dtype;
    tensor->n_dims = (size_t)rank;
    tensor->dims = arena_array(model->arena, tensor->n_dims, sizeof *tensor->dims);
    tensor->has_raw_data = true;
    tensor->raw_data.len = bytes;
    tensor->raw_data.data = arena_array(model->arena, bytes, 1);
    if (!tensor->dims || !tensor->raw_data.data)
        return NULL;
    if (rank > 0)
        memcpy(tensor->dims, dims, tensor->n_dims * sizeof *dims);
    if (bytes > 0)
        memcpy(tensor->raw_data.data, data, bytes);
    if (name && (!(tensor->name = arena_strdup(model->arena, name)) ||
                 !model_note_name(model, tensor->name)))
        return NULL;
    return tensor;
}

Onnx__NodeProto *build_node(Model *model, const char *domain, const char *op_type,
                            const char *const *inputs, size_t n_inputs, const char *const *outputs,
                            size_t n_outputs)
{
    Onnx__NodeProto *node = arena_array(model->arena, 1, sizeof *node);
    if (!node)
        return NULL;
    onnx__node_proto__init(node);
    node->op_type = arena_strdup(model->arena, op_type);
    if (!node->op_type || !copy_strings(model, &node->input, &node->n_input, inputs, n_inputs) ||
        !copy_strings(model, &node->output, &node->n_output, outputs, n_outputs))
        return NULL;
    /* The default domain is left out: a few bytes less a node. */
    if (domain && *domain && !(node->domain = arena_strdup(model->arena, domain)))
        return NULL;
    return node;
}

static Onnx__AttributeProto *add_attribute(Model *model, Onnx__NodeProto *node, const char *name,
                                           Onnx__AttributeProto__AttributeType type)
{
    Onnx__AttributeProto *attribute = arena_array(model->arena, 1, sizeof *attribute);
    Onnx__AttributeProto **all = arena_array(model->arena, node->n_attribute + 1, sizeof *all);
    if (!attribute || !all)
        return NULL;
    onnx__attribute_proto__init(attribute);
    attribute->has_type = true;
    attribute->type = type;
    attribute->name = arena_strdup(model->arena, name);
    if (!attribute->name)
        return NULL;
    if (node->n_attribute > 0)
        memcpy(all, node->attribute, node->n_attribute * sizeof *all);
    all[node->n_attribute++] = attribute;
    node->attribute = all;
    return attribute;
}

bool build_attribute_int(Model *model, Onnx__NodeProto *node, const char *name, int64_t value)
{
    Onnx__AttributeProto *attribute =
        add_attribute(model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (!attribute)
        return false;
    attribute->has_i = true;
    attribute->i = value;
    return true;
}

bool build_attribute_ints(Model *model, Onnx__NodeProto *node, const char *name,
                          const int64_t *values, size_t n)
{
    int64_t *copy = arena_array(model->arena, n, sizeof *copy);
    Onnx__AttributeProto *attribute =
        copy ? add_attribute(model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS) : NULL;
    if (!attribute)
        return false;
    if (n > 0)
        memcpy(copy, values, n * sizeof *copy);
    attribute->n_ints = n;
    attribute->ints = copy;
    return true;
}

bool build_attribute_tensor(Model *model, Onnx__NodeProto *node, const char *name,
                            Onnx__TensorProto *value)
{
    Onnx__AttributeProto *attribute =
        value ? add_attribute(model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR)
              : NULL;
    if (!attribute)
        return false;
    attribute->t = value;
    return true;
}

bool model_append_initializer(Model *model, Onnx__TensorProto *tensor)
{
    Onnx__GraphProto *graph = model->proto->graph;
    return tensor && model_append(model, &graph->n_initializer, &graph->initializer, tensor,
                                  &model->private_data->initializers);
}

bool model_append_function(Model *model, Onnx__FunctionProto *function)
{
    return function && model_append(model, &model->proto->n_functions, &model->proto->functions,
                                    function, &model->private_data->functions);
}

bool model_prepend_nodes(Model *model, Onnx__NodeProto *const *nodes, size_t n)
{
    Onnx__GraphProto *graph = model->proto->graph;
    Onnx__NodeProto **all = arena_array(model->arena, n + graph->n_node, sizeof *all);
    if (!all)
        return false;
    if (n > 0)
        memcpy(all, nodes, n * sizeof *all);
    if (graph->n_node > 0)
        memcpy(all + n, graph->node, graph->n_node * sizeof *all);
    graph->node = all;
    graph->n_node += n;
    return true;
}

bool model_append_opset(Model *model, const char *domain, int64_t version)
{
    Onnx__ModelProto *proto = model->proto;
    for (size_t i = 0; i < proto->n_opset_import; i++)
        if (strcmp(plain_domain(proto->opset_import[i]->domain), plain_domain(domain)) == 0)
            return true;
    Onnx__OperatorSetIdProto *opset = arena_array(model->arena, 1, sizeof *opset);
    if (!opset)
        return false;
    onnx__operator_set_id_proto__init(opset);
    opset->has_version = true;
    opset->version = version;
    opset->domain = arena_strdup(model->arena, domain);
    return opset->domain && model_append(model, &proto->n_opset_import, &proto->opset_import, opset,
                                         &model->private_data->opsets);
}

void graph_remove_node(Onnx__GraphProto *graph, const Onnx__NodeProto *node)
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_node; i++)
        if (graph->node[i] != node)
            graph->node[kept++] = graph->node[i];
    graph->n_node = kept;
}

void graph_remove_initializer(Onnx__GraphProto *graph, const Onnx__TensorProto *tensor)
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (graph->initializer[i] != tensor)
            graph->initializer[kept++] = graph->initializer[i];
    graph->n_initializer = kept;
}

void model_remove_initializer(Model *model, const Onnx__TensorProto *tensor)
{
    Onnx__GraphProto *graph = model->proto->graph;
    size_t kept = 0;
    graph_remove_initializer(graph, tensor);
    for (size_t i = 0; i < graph->n_input; i++) {
        const char *there = graph->input[i]->name;
        if (!there || strcmp(there, tensor->name) != 0)
            graph->input[kept++] = graph->input[i];
    }
    graph->n_input = kept;
}
