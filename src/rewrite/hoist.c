/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights that live in the body of an If, Loop or Scan. The decoder stands in the main graph, and so
 * do what it makes; bodies see the values of the graphs around them. */
#include <string.h>

#include "rewrite/rewrite_internal.h"

Onnx__TensorProto *hoist_find(const Graph *graph, const char *name)
{
    int v = graph_find(graph, name);
    /* The model is ours to change; the index only looks at it. */
    return v < 0 ? NULL : (Onnx__TensorProto *)(uintptr_t)graph->values[v].init;
}

static bool prepend_identity(Model *model, Onnx__GraphProto *proto, const char *from,
                             const char *to)
{
    Onnx__NodeProto **all = arena_array(model->arena, proto->n_node + 1, sizeof *all);
    if (!all || !(all[0] = build_node(model, "", "Identity", NAMES(from), NAMES(to))))
        return false;
    if (proto->n_node > 0)
        memcpy(all + 1, proto->node, proto->n_node * sizeof *all);
    proto->node = all;
    proto->n_node++;
    return true;
}

static bool hoist(Model *model, const Graph *graph, int v)
{
    const GraphValue *value = &graph->values[v];
    const GraphBody *body = &graph->bodies[value->body];
    Onnx__TensorProto *tensor = hoist_find(graph, value->name);
    if (value->is_constant_node)
        graph_remove_node(body->proto, graph->nodes[value->producer]);
    else
        graph_remove_initializer(body->proto, tensor);
    tensor->name = arena_strdup(model->arena, value->name);
    return tensor->name && model_append_initializer(model, tensor) &&
           (strcmp(value->name, value->local) == 0 ||
            prepend_identity(model, body->proto, value->name, value->local));
}

int hoist_weights(Model *model, const Graph *graph, const Coded *coded, Error *err)
{
    for (size_t t = 0; t < coded->n_tensors; t++) {
        int v = graph_find(graph, coded->tensors[t].name);
        if (v >= 0 && graph->values[v].body >= 0 && !hoist(model, graph, v))
            return error_memory(err, "the weights of bodies");
    }
    return ONNXPRESS_OK;
}
