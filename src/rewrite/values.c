/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rewrite/rewrite_internal.h"

static uint16_t float_to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);                    /* a NaN stays one */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16); /* to nearest, ties to even */
}

static void convert(int dtype, const float *value, size_t n, void *data)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == DTYPE_DOUBLE)
            ((double *)data)[i] = value[i];
        else if (dtype == DTYPE_FLOAT16)
            ((uint16_t *)data)[i] = float_to_float16(value[i]);
        else
            ((uint16_t *)data)[i] = float_to_bfloat16(value[i]);
    }
}

int values_store(Model *model, Onnx__TensorProto *proto, const float *value, int64_t count,
                 Error *err)
{
    size_t bytes, size = dtype_bytes(proto->data_type);
    if (!dtype_is_weight(proto->data_type))
        return error_set(err, ONNXPRESS_INTERNAL, "tensor '%s': %s cannot hold coded weights",
                         proto->name ? proto->name : "", dtype_name(proto->data_type));
    void *data = size_mul((size_t)count, size, &bytes) ? arena_array(model->arena, bytes, 1) : NULL;
    if (!data)
        return error_memory(err, "decoded weights");
    if (proto->data_type == DTYPE_FLOAT)
        memcpy(data, value, bytes);
    else
        convert(proto->data_type, value, (size_t)count, data);
    proto->n_float_data = proto->n_int32_data = proto->n_double_data = 0;
    proto->n_external_data = 0;
    proto->has_data_location = 0;
    proto->has_raw_data = 1;
    proto->raw_data = (ProtobufCBinaryData){bytes, data};
    model_data_changed(model, proto);
    return ONNXPRESS_OK;
}

const void *symbols_narrow(const uint16_t *symbol, size_t n, int levels, Arena *arena, int *dtype,
                           size_t *bytes)
{
    *dtype = levels <= 256 ? DTYPE_UINT8 : DTYPE_UINT16;
    *bytes = levels <= 256 ? n : 2 * n;
    if (levels > 256)
        return symbol;
    uint8_t *byte = arena_array(arena, n, 1);
    for (size_t i = 0; byte && i < n; i++)
        byte[i] = (uint8_t)symbol[i];
    return byte;
}

Onnx__TensorProto *values_find(const Model *model, const char *name, size_t *node)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    *node = SIZE_MAX;
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (graph->initializer[i]->name && strcmp(graph->initializer[i]->name, name) == 0)
            return graph->initializer[i];
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *n = graph->node[i];
        if (n->n_output != 1 || strcmp(n->output[0], name) != 0 || !n->op_type ||
            strcmp(n->op_type, "Constant") != 0)
            continue;
        for (size_t k = 0; k < n->n_attribute; k++)
            if (n->attribute[k]->t && strcmp(n->attribute[k]->name, "value") == 0) {
                *node = i;
                return n->attribute[k]->t;
            }
    }
    return NULL;
}

void values_remove(Model *model, const char *name)
{
    size_t node;
    const Onnx__TensorProto *tensor = values_find(model, name, &node);
    if (node == SIZE_MAX)
        model_remove_initializer(model, tensor);
    else
        graph_remove_node(model->proto->graph, model->proto->graph->node[node]);
}

int rewrite_values(Model *model, const char *name, const float *value, int64_t count, Error *err)
{
    size_t node;
    Onnx__TensorProto *proto = values_find(model, name, &node);
    Arena *scratch = proto ? NULL : arena_create();
    Graph *graph;
    int status = ONNXPRESS_OK;
    if (!proto) { /* in a body */
        status = scratch ? graph_build(model, scratch, &graph, err) : error_memory(err, "a weight");
        proto = status ? NULL : hoist_find(graph, name);
    }
    arena_destroy(scratch);
    if (!proto && !status)
        status = error_set(err, ONNXPRESS_INTERNAL, "%s: has no weight %s", model->path, name);
    return status ? status : values_store(model, proto, value, count, err);
}
