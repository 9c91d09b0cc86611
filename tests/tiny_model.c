/* SPDX-License-Identifier: Apache-2.0 */
#include "tiny_model.h"

#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 64

struct Tiny {
    Arena *arena;
    Onnx__ModelProto model;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset, *opsets[1];
    Onnx__NodeProto *nodes[MOST];
    Onnx__TensorProto *tensors[MOST];
    Onnx__ValueInfoProto *inputs[MOST], *outputs[MOST];
    uint64_t random;
};

static void *make(Tiny *tiny, size_t count, size_t size)
{
    void *block = arena_array(tiny->arena, count, size);
    ck_assert_ptr_nonnull(block);
    return block;
}

static char *copy(Tiny *tiny, const char *text)
{
    char *own = arena_strdup(tiny->arena, text);
    ck_assert_ptr_nonnull(own);
    return own;
}

Tiny *tiny_create(int64_t opset)
{
    Tiny *tiny = calloc(1, sizeof *tiny);
    ck_assert_ptr_nonnull(tiny);
    tiny->arena = arena_create();
    ck_assert_ptr_nonnull(tiny->arena);
    onnx__model_proto__init(&tiny->model);
    onnx__graph_proto__init(&tiny->graph);
    onnx__operator_set_id_proto__init(&tiny->opset);
    tiny->opset.has_version = 1;
    tiny->opset.version = opset;
    tiny->opset.domain = copy(tiny, "");
    tiny->opsets[0] = &tiny->opset;
    tiny->model.opset_import = tiny->opsets;
    tiny->model.n_opset_import = 1;
    tiny->model.has_ir_version = 1;
    tiny->model.ir_version = 8;
    tiny->model.graph = &tiny->graph;
    tiny->graph.name = copy(tiny, "tiny");
    tiny->graph.node = tiny->nodes;
    tiny->graph.initializer = tiny->tensors;
    tiny->graph.input = tiny->inputs;
    tiny->graph.output = tiny->outputs;
    tiny->random = 99;
    return tiny;
}

void tiny_free(Tiny *tiny)
{
    arena_destroy(tiny->arena);
    free(tiny);
}

static int64_t *list(Tiny *tiny, const char *text, size_t *n)
{
    int64_t *values = make(tiny, strlen(text) + 1, sizeof *values);
    *n = 0;
    ck_assert_int_eq(*text, '[');
    for (text++; *text && *text != ']'; text += *text == ',')
        values[(*n)++] = strtoll(text, (char **)&text, 10);
    return values;
}

static Onnx__ValueInfoProto *value_info(Tiny *tiny, const char *name, int dtype, const char *shape)
{
    Onnx__ValueInfoProto *info = make(tiny, 1, sizeof *info);
    Onnx__TypeProto *type = make(tiny, 1, sizeof *type);
    Onnx__TypeProto__Tensor *tensor = make(tiny, 1, sizeof *tensor);
    onnx__value_info_proto__init(info);
    onnx__type_proto__init(type);
    onnx__type_proto__tensor__init(tensor);
    info->name = copy(tiny, name);
    info->type = type;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    tensor->has_elem_type = 1;
    tensor->elem_type = dtype;
    if (!shape)
        return info;
    size_t n;
    int64_t *dims = list(tiny, shape, &n);
    tensor->shape = make(tiny, 1, sizeof *tensor->shape);
    onnx__tensor_shape_proto__init(tensor->shape);
    tensor->shape->n_dim = n;
    tensor->shape->dim = make(tiny, n, sizeof *tensor->shape->dim);
    for (size_t k = 0; k < n; k++) {
        Onnx__TensorShapeProto__Dimension *dim = make(tiny, 1, sizeof *dim);
        onnx__tensor_shape_proto__dimension__init(dim);
        dim->value_case = dims[k] < 0 ? ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM
                                      : ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        if (dims[k] < 0)
            dim->dim_param = copy(tiny, "N");
        else
            dim->dim_value = dims[k];
        tensor->shape->dim[k] = dim;
    }
    return info;
}

void tiny_input(Tiny *tiny, const char *name, int dtype, const char *shape)
{
    ck_assert_uint_lt(tiny->graph.n_input, MOST);
    tiny->inputs[tiny->graph.n_input++] = value_info(tiny, name, dtype, shape);
}

void tiny_output(Tiny *tiny, const char *name)
{
    ck_assert_uint_lt(tiny->graph.n_output, MOST);
    tiny->outputs[tiny->graph.n_output++] = value_info(tiny, name, DTYPE_FLOAT, NULL);
}

/* A tensor with room for its data. */
static void *tensor(Tiny *tiny, const char *name, int dtype, const char *shape, size_t width,
                    size_t *count)
{
    Onnx__TensorProto *proto = make(tiny, 1, sizeof *proto);
    onnx__tensor_proto__init(proto);
    proto->name = copy(tiny, name);
    proto->has_data_type = 1;
    proto->data_type = dtype;
    proto->dims = list(tiny, shape, &proto->n_dims);
    *count = 1;
    for (size_t k = 0; k < proto->n_dims; k++)
        *count *= (size_t)proto->dims[k];
    proto->has_raw_data = 1;
    proto->raw_data.len = *count * width;
    proto->raw_data.data = make(tiny, *count, width);
    ck_assert_uint_lt(tiny->graph.n_initializer, MOST);
    tiny->tensors[tiny->graph.n_initializer++] = proto;
    return proto->raw_data.data;
}

void tiny_reals(Tiny *tiny, const char *name, const char *shape, const float *values)
{
    size_t count;
    float *data = tensor(tiny, name, DTYPE_FLOAT, shape, sizeof *data, &count);
    for (size_t i = 0; i < count; i++) {
        tiny->random = tiny->random * 6364136223846793005u + 1442695040888963407u;
        data[i] = values ? values[i] : (float)((double)(tiny->random >> 11) * 0x1p-52 - 1);
    }
}

void tiny_integers(Tiny *tiny, const char *name, const char *shape, const int64_t *values)
{
    size_t count;
    int64_t *data = tensor(tiny, name, DTYPE_INT64, shape, sizeof *data, &count);
    memcpy(data, values, count * sizeof *data);
}

static char **words(Tiny *tiny, const char *text, size_t *n)
{
    char **out = make(tiny, strlen(text) + 1, sizeof *out), *save;
    *n = 0;
    for (char *word = strtok_r(copy(tiny, text), " ", &save); word;
         word = strtok_r(NULL, " ", &save))
        out[(*n)++] = strcmp(word, "-") ? word : copy(tiny, "");
    return out;
}

static Onnx__AttributeProto *attribute(Tiny *tiny, char *word)
{
    Onnx__AttributeProto *proto = make(tiny, 1, sizeof *proto);
    char *value = strchr(word, '=');
    ck_assert_ptr_nonnull(value);
    *value++ = 0;
    onnx__attribute_proto__init(proto);
    proto->name = word;
    proto->has_type = 1;
    if (*value == '[') {
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
        proto->ints = list(tiny, value, &proto->n_ints);
    } else if (isalpha((unsigned char)*value)) {
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        proto->has_s = 1;
        proto->s = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    } else if (strchr(value, '.')) {
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        proto->has_f = 1;
        proto->f = strtof(value, NULL);
    } else {
        proto->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        proto->has_i = 1;
        proto->i = strtoll(value, NULL, 10);
    }
    return proto;
}

static Onnx__NodeProto *add_node(Tiny *tiny, const char *type, const char *inputs,
                                 const char *outputs)
{
    Onnx__NodeProto *node = make(tiny, 1, sizeof *node);
    onnx__node_proto__init(node);
    node->op_type = copy(tiny, type);
    node->input = words(tiny, inputs, &node->n_input);
    node->output = words(tiny, outputs, &node->n_output);
    node->name = arena_printf(tiny->arena, "n_%s", node->output[0]);
    ck_assert_uint_lt(tiny->graph.n_node, MOST);
    tiny->nodes[tiny->graph.n_node++] = node;
    return node;
}

void tiny_node(Tiny *tiny, const char *type, const char *inputs, const char *outputs,
               const char *attributes)
{
    Onnx__NodeProto *node = add_node(tiny, type, inputs, outputs);
    char **each = words(tiny, attributes ? attributes : "", &node->n_attribute);
    node->attribute = make(tiny, node->n_attribute, sizeof *node->attribute);
    for (size_t k = 0; k < node->n_attribute; k++)
        node->attribute[k] = attribute(tiny, each[k]);
}

void tiny_make_constant_node(Tiny *tiny, const char *name)
{
    size_t k = 0;
    while (k < tiny->graph.n_initializer && strcmp(tiny->tensors[k]->name, name))
        k++;
    ck_assert_uint_lt(k, tiny->graph.n_initializer);
    Onnx__NodeProto *node = add_node(tiny, "Constant", "", name);
    Onnx__AttributeProto *value = make(tiny, 1, sizeof *value);
    onnx__attribute_proto__init(value);
    value->name = copy(tiny, "value");
    value->has_type = 1;
    value->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
    value->t = tiny->tensors[k];
    node->n_attribute = 1;
    node->attribute = make(tiny, 1, sizeof *node->attribute);
    node->attribute[0] = value;
    tiny->tensors[k] = tiny->tensors[--tiny->graph.n_initializer];
}

Model *tiny_load(Tiny *tiny)
{
    size_t size = onnx__model_proto__get_packed_size(&tiny->model);
    uint8_t *bytes = make(tiny, size, 1);
    onnx__model_proto__pack(&tiny->model, bytes);
    char path[] = "/tmp/onnxpress_tiny_XXXXXX";
    int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, bytes, size), (ssize_t)size);
    close(file);
    Model *model;
    Error err = {0};
    int status = model_load(path, &model, &err);
    unlink(path);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", err.message);
    return model;
}
