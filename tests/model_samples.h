/* Models for tests, written byte by byte or built node by node. */
#ifndef ONNXPRESS_TESTS_MODEL_SAMPLES_H
#define ONNXPRESS_TESTS_MODEL_SAMPLES_H

#include "model/build.h"
#include "model/model.h"
#include "suite.h"

#define LENET "testdata/lenet5_mnist.onnx"

typedef struct {
    size_t n;
    unsigned char bytes[4096];
} Wire;

static inline void put_varint(Wire *wire, uint64_t value)
{
    for (; value > 127; value >>= 7)
        wire->bytes[wire->n++] = (unsigned char)(value & 127) | 128;
    wire->bytes[wire->n++] = (unsigned char)value;
}

static inline void put_int(Wire *wire, unsigned field, uint64_t value)
{
    put_varint(wire, (uint64_t)field << 3);
    put_varint(wire, value);
}

static inline void put_bytes(Wire *wire, unsigned field, const void *data, size_t bytes)
{
    put_varint(wire, (uint64_t)field << 3 | 2);
    put_varint(wire, bytes);
    if (bytes)
        memcpy(wire->bytes + wire->n, data, bytes);
    wire->n += bytes;
}

static inline void put_text(Wire *wire, unsigned field, const char *text)
{
    put_bytes(wire, field, text, strlen(text));
}

static inline void put_wire(Wire *wire, unsigned field, const Wire *inner)
{
    put_bytes(wire, field, inner->bytes, inner->n);
}

static inline int load_bytes(const void *data, size_t bytes, Model **model)
{
    scratch_write(scratch_path("m.onnx"), data, bytes);
    return model_load(scratch_path("m.onnx"), model, &err);
}

/* A model with that graph. */
static inline int load_graph(const Wire *graph, Model **model)
{
    Wire wire = {0};
    put_int(&wire, 1, 8);
    put_wire(&wire, 7, graph);
    return load_bytes(wire.bytes, wire.n, model);
}

static inline Model *empty_model(void)
{
    Model *model;
    Wire graph = {0};
    expect_ok(load_graph(&graph, &model));
    return model;
}

/* A tensor on the wire without its data. */
static inline Wire tensor_wire(const char *name, int dtype, int rank, const int64_t *dims)
{
    Wire wire = {0};
    for (int i = 0; i < rank; i++)
        put_int(&wire, 1, (uint64_t)dims[i]);
    put_int(&wire, 2, (uint64_t)(int64_t)dtype);
    put_text(&wire, 8, name);
    return wire;
}

static inline void add_node(Model *model, const char *name, const char *type, const char *inputs,
                            const char *outputs)
{
    /* Names are separated by spaces; "-" is an omitted one. */
    const char *names[2][8];
    size_t n[2] = {0, 0};
    const char *lists[2] = {inputs, outputs};
    for (int side = 0; side < 2; side++) {
        char *copy = arena_strdup(model->arena, lists[side]);
        for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
            names[side][n[side]++] = strcmp(word, "-") == 0 ? "" : word;
    }
    Onnx__NodeProto *node = build_node(model, "", type, names[0], n[0], names[1], n[1]);
    ck_assert_ptr_nonnull(node);
    node->name = arena_strdup(model->arena, name);
    /* Behind the others: prepended, then turned to the left. */
    Onnx__GraphProto *graph = model->proto->graph;
    ck_assert(model_prepend_nodes(model, &node, 1));
    memmove(graph->node, graph->node + 1, (graph->n_node - 1) * sizeof *graph->node);
    graph->node[graph->n_node - 1] = node;
}

static inline void add_value(Model *model, Onnx__GraphProto *graph, bool output, const char *name)
{
    size_t *n = output ? &graph->n_output : &graph->n_input;
    Onnx__ValueInfoProto ***list = output ? &graph->output : &graph->input;
    Onnx__ValueInfoProto **longer = arena_array(model->arena, *n + 1, sizeof *longer);
    if (*n)
        memcpy(longer, *list, *n * sizeof *longer);
    longer[*n] = arena_array(model->arena, 1, sizeof **longer);
    onnx__value_info_proto__init(longer[*n]);
    longer[*n]->name = arena_strdup(model->arena, name);
    *list = longer;
    ++*n;
}

static inline void add_init(Model *model, const char *name)
{
    ck_assert(model_append_initializer(model,
                                       build_tensor(model, name, DTYPE_UINT8, 0, NULL, "\x05", 1)));
}

#endif
