/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/visit.h"
#include "rewrite/rewrite_internal.h"

#define SIZES_AS_INPUT 13 /* opset from which Split takes its sizes as an input */

bool list_add(List *list, Arena *arena, void *item)
{
    if (!item)
        return false;
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 16;
        void **grown = arena_array(arena, room, sizeof *grown);
        if (!grown)
            return false;
        if (list->n)
            memcpy(grown, list->item, list->n * sizeof *grown);
        list->item = grown;
        list->room = room;
    }
    list->item[list->n++] = item;
    return true;
}

Onnx__NodeProto *emit_node(Emitter *e, const char *domain, const char *op_type,
                           const char *const *inputs, size_t n_inputs, const char *const *outputs,
                           size_t n_outputs)
{
    for (size_t i = 0; i < n_inputs; i++) /* a name that could not be made */
        e->failed |= !inputs[i];
    for (size_t i = 0; i < n_outputs; i++)
        e->failed |= !outputs[i];
    if (e->failed)
        return NULL;
    Onnx__NodeProto *node =
        build_node(e->model, domain, op_type, inputs, n_inputs, outputs, n_outputs);
    e->failed |= !list_add(&e->nodes, e->scratch, node);
    return node;
}

void emit_int(Emitter *e, Onnx__NodeProto *node, const char *name, int64_t value)
{
    e->failed |= !node || !build_attribute_int(e->model, node, name, value);
}

static void emit_ints(Emitter *e, Onnx__NodeProto *node, const char *name, const int64_t *value,
                      size_t n)
{
    e->failed |= !node || !build_attribute_ints(e->model, node, name, value, n);
}

void emit_string(Emitter *e, Onnx__NodeProto *node, const char *name, const char *value)
{
    char *copy = arena_strdup(e->model->arena, value);
    if (!copy || !node || !build_attribute_int(e->model, node, name, 0)) {
        e->failed = true;
        return;
    }
    Onnx__AttributeProto *attribute = node->attribute[node->n_attribute - 1];
    attribute->has_i = 0;
    attribute->has_type = 1;
    attribute->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
    attribute->has_s = 1;
    attribute->s = (ProtobufCBinaryData){strlen(copy), (uint8_t *)copy};
}

void emit_cast(Emitter *e, const char *from, const char *to, int dtype)
{
    emit_int(e, emit_node(e, "", "Cast", NAMES(from), NAMES(to)), "to", dtype);
}

void emit_split(Emitter *e, const char *from, const char *sizes_name, const int64_t *size,
                const char *const *outputs, size_t n)
{
    if (e->model->opset >= SIZES_AS_INPUT)
        emit_node(e, "", "Split", NAMES(from, sizes_name), outputs, n);
    else
        emit_ints(e, emit_node(e, "", "Split", NAMES(from), outputs, n), "split", size, n);
}

Onnx__TensorProto *emit_small(Emitter *e, const char *name, int dtype, int rank,
                              const int64_t *value, size_t n)
{
    int64_t dims[1] = {(int64_t)n};
    Onnx__TensorProto *tensor = emit_raw(e, name, dtype, rank, dims, NULL, 0);
    if (!tensor)
        return NULL;
    tensor->has_raw_data = 0;
    tensor->raw_data = (ProtobufCBinaryData){0};
    if (dtype == DTYPE_INT64) {
        tensor->int64_data = arena_array(e->model->arena, n, sizeof *tensor->int64_data);
        tensor->n_int64_data = tensor->int64_data ? n : 0;
        for (size_t i = 0; i < tensor->n_int64_data; i++)
            tensor->int64_data[i] = value[i];
        e->failed |= !tensor->int64_data;
    } else {
        tensor->int32_data = arena_array(e->model->arena, n, sizeof *tensor->int32_data);
        tensor->n_int32_data = tensor->int32_data ? n : 0;
        for (size_t i = 0; i < tensor->n_int32_data; i++)
            tensor->int32_data[i] = (int32_t)value[i];
        e->failed |= !tensor->int32_data;
    }
    return tensor;
}

Onnx__TensorProto *emit_raw(Emitter *e, const char *name, int dtype, int rank, const int64_t *dims,
                            const void *data, size_t bytes)
{
    if (e->failed || !name)
        e->failed = true;
    Onnx__TensorProto *tensor =
        e->failed ? NULL : build_tensor(e->model, name, dtype, rank, dims, data, bytes);
    e->failed |= !tensor;
    return tensor;
}

void emit_initializer(Emitter *e, Onnx__TensorProto *tensor)
{
    e->failed |= !list_add(&e->initializers, e->scratch, tensor);
}

void emit_constant(Emitter *e, Onnx__TensorProto *tensor, const char *output)
{
    Onnx__NodeProto *node = emit_node(e, "", "Constant", NULL, 0, NAMES(output));
    if (!node || !tensor) {
        e->failed = true;
        return;
    }
    tensor->name = NULL; /* the node's output names it */
    e->failed |= !build_attribute_tensor(e->model, node, "value", tensor);
}

const char *emit_name(Emitter *e, const char *text)
{
    const char *name = text ? arena_printf(e->model->arena, "%s%s", e->prefix, text) : NULL;
    e->failed |= !name;
    return name;
}

const char *emit_numbered(Emitter *e, char letter, uint64_t number)
{
    char text[16], *at = text + sizeof text - 1;
    *at = '\0';
    for (; number; number /= 36)
        *--at = "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36];
    *--at = letter;
    return emit_name(e, at);
}

int emit_attach(Emitter *e, Error *err)
{
    if (e->failed ||
        !model_prepend_nodes(e->model, (Onnx__NodeProto *const *)e->nodes.item, e->nodes.n))
        return error_memory(err, "the decoder's nodes");
    for (size_t i = 0; i < e->initializers.n; i++)
        if (!model_append_initializer(e->model, e->initializers.item[i]))
            return error_memory(err, "the decoder's tensors");
    return ONNXPRESS_OK;
}

static int begins(const char *prefix, const char *name)
{
    return name && strncmp(name, prefix, strlen(prefix)) == 0;
}

static int graph_uses(void *prefix, Onnx__GraphProto *graph)
{
    int uses = 0;
    for (size_t i = 0; i < graph->n_input; i++)
        uses |= begins(prefix, graph->input[i]->name);
    for (size_t i = 0; i < graph->n_output; i++)
        uses |= begins(prefix, graph->output[i]->name);
    return uses;
}

static int node_uses(void *prefix, Onnx__NodeProto *node)
{
    int uses = 0;
    for (size_t k = 0; k < node->n_input; k++)
        uses |= begins(prefix, node->input[k]);
    for (size_t k = 0; k < node->n_output; k++)
        uses |= begins(prefix, node->output[k]);
    return uses;
}

static int tensor_uses(void *prefix, Onnx__TensorProto *tensor)
{
    return begins(prefix, tensor->name);
}

static bool is_used(const Model *model, const char *prefix)
{
    Visitor visitor = {graph_uses, node_uses, tensor_uses, (char *)(uintptr_t)prefix};
    return model_visit(model->proto, &visitor) != 0;
}

const char *choose_prefix(const Model *model, Arena *arena)
{
    const char *prefix = "_";
    for (unsigned n = 0; prefix && is_used(model, prefix); n++)
        prefix = arena_printf(arena, "x%u_", n);
    return prefix;
}
