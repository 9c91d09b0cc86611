/* SPDX-License-Identifier: Apache-2.0
 *
 * rewrite_save: one file, or a model and its sidecar PATH.data, which appear together or not at
 * all.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "rewrite/rewrite_internal.h"

#define AUTO_BYTES                                                                                 \
    ((size_t)1500000000)  /* protobuf ends at 2 GB; some tools fail well before it                 \
                           */
#define MIN_EXTERNAL 1024 /* bytes: below it the reference costs as much as it saves */
#define ALIGNMENT 64      /* of a tensor in the sidecar */

static bool is_external(const Onnx__TensorProto *tensor)
{
    return tensor->has_data_location &&
           tensor->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
}

static int take_in_graph(Model *model, Onnx__GraphProto *graph, Error *err);

/* An external tensor gets its data as raw_data, a view into the mapping that the model owns. */
static int take_in(Model *model, Onnx__TensorProto *tensor, Error *err)
{
    if (!tensor || !is_external(tensor))
        return ONNXPRESS_OK;
    Tensor view;
    int status = model_tensor_unaligned(model, tensor, tensor->name ? tensor->name : "a tensor",
                                        &view, err);
    if (status)
        return status;
    tensor->has_data_location = 0;
    tensor->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__DEFAULT;
    tensor->n_external_data = 0;
    tensor->has_raw_data = 1;
    tensor->raw_data = (ProtobufCBinaryData){view.bytes, (uint8_t *)(uintptr_t)view.data};
    return ONNXPRESS_OK;
}

static int take_in_node(Model *model, Onnx__NodeProto *node, Error *err)
{
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < node->n_attribute && !status; k++) {
        Onnx__AttributeProto *attribute = node->attribute[k];
        status = take_in(model, attribute->t, err);
        for (size_t i = 0; i < attribute->n_tensors && !status; i++)
            status = take_in(model, attribute->tensors[i], err);
        if (!status && attribute->g)
            status = take_in_graph(model, attribute->g, err);
        for (size_t i = 0; i < attribute->n_graphs && !status; i++)
            status = take_in_graph(model, attribute->graphs[i], err);
    }
    return status;
}

/* The recursion is as deep as the file's nesting, which loading bounds. */
static int take_in_graph(Model *model, Onnx__GraphProto *graph, Error *err)
{
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < graph->n_initializer && !status; i++)
        status = take_in(model, graph->initializer[i], err);
    for (size_t i = 0; i < graph->n_node && !status; i++)
        status = take_in_node(model, graph->node[i], err);
    return status;
}

/* What the sidecar has of a tensor, and what the tensor was. */
typedef struct {
    Onnx__TensorProto *tensor, kept;
} Moved;

typedef struct {
    Model *model;
    Arena *scratch;
    const char *location;
    const char *prefix; /* of our own names; "" when the form has none */
    FileWriter *writer;
    uint64_t size;
    Moved *moved;
    size_t n_moved;
} Sidecar;

static bool belongs_outside(const Sidecar *sidecar, const Onnx__TensorProto *tensor)
{
    if (!tensor->has_raw_data || tensor->raw_data.len == 0)
        return false;
    if (tensor->raw_data.len >= MIN_EXTERNAL)
        return true;
    size_t length = strlen(sidecar->prefix);
    /* Our streams, tables and codebook whatever their size; lists of sizes are not raw. */
    return length > 0 && tensor->name && strncmp(tensor->name, sidecar->prefix, length) == 0 &&
           tensor->n_dims > 0 && tensor->data_type != DTYPE_INT64 &&
           strchr("sntGci", tensor->name[length]);
}

static bool add_entry(Arena *arena, Onnx__TensorProto *tensor, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = arena_array(arena, 1, sizeof *entry);
    if (!entry || !value)
        return false;
    onnx__string_string_entry_proto__init(entry);
    entry->key = arena_strdup(arena, key);
    entry->value = (char *)(uintptr_t)value; /* only read, by the serialiser */
    tensor->external_data[tensor->n_external_data++] = entry;
    return entry->key != NULL;
}

static int move_out(Sidecar *sidecar, Onnx__TensorProto *tensor, Error *err)
{
    static const unsigned char zeros[ALIGNMENT];
    Arena *arena = sidecar->scratch;
    size_t gap = (ALIGNMENT - sidecar->size % ALIGNMENT) % ALIGNMENT, length = tensor->raw_data.len;
    int status = file_write(sidecar->writer, zeros, gap, err);
    if (!status)
        status = model_write_data(sidecar->model, sidecar->writer, tensor->raw_data.data, length,
                                  err);
    if (status)
        return status;
    sidecar->size += gap;
    sidecar->moved[sidecar->n_moved++] = (Moved){tensor, *tensor};
    tensor->has_raw_data = 0;
    tensor->raw_data = (ProtobufCBinaryData){0};
    tensor->has_data_location = 1;
    tensor->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    tensor->n_external_data = 0;
    tensor->external_data = arena_array(arena, 3, sizeof *tensor->external_data);
    if (!tensor->external_data || !add_entry(arena, tensor, "location", sidecar->location) ||
        !add_entry(arena, tensor, "offset",
                   arena_printf(arena, "%llu", (unsigned long long)sidecar->size)) ||
        !add_entry(arena, tensor, "length", arena_printf(arena, "%zu", length)))
        return error_memory(err, "the sidecar's references");
    sidecar->size += length;
    return ONNXPRESS_OK;
}

static void move_back(Sidecar *sidecar)
{
    for (size_t i = 0; i < sidecar->n_moved; i++)
        *sidecar->moved[i].tensor = sidecar->moved[i].kept;
}

/* Not model_write: that carries along files that external data came from, and here no tensor refers
 * to any of them any more, while one may have the sidecar's very name. */
static int write_model(Model *model, const char *path, FileWriter *sidecar, Error *err)
{
    size_t size = model_packed_size(model);
    FileWriter *writer = NULL;
    int status = size > INT_MAX ? error_set(err, ONNXPRESS_UNSUPPORTED,
                                            "%s: would be %zu bytes even without "
                                            "its weights, and protobuf files end at 2 GB",
                                            path, size)
                                : file_create(path, &writer, err);
    if (status) {
        file_abort(sidecar);
        return status;
    }
    file_attach(writer, sidecar);
    status = model_pack(model, writer, err);
    if (status) {
        file_abort(writer);
        return status;
    }
    return file_commit(writer, err);
}

static int save_with_sidecar(Sidecar *sidecar, const char *path, RewriteSizes *sizes, Error *err)
{
    Onnx__GraphProto *graph = sidecar->model->proto->graph;
    const char *data_path = arena_printf(sidecar->scratch, "%s.data", path);
    sidecar->moved = arena_array(sidecar->scratch, graph->n_initializer, sizeof *sidecar->moved);
    if (!data_path || !sidecar->moved)
        return error_memory(err, "the sidecar");
    const char *slash = strrchr(data_path, '/');
    sidecar->location = slash ? slash + 1 : data_path;
    int status = file_create(data_path, &sidecar->writer, err);
    if (status)
        return status;
    for (size_t i = 0; i < graph->n_initializer && !status; i++)
        if (belongs_outside(sidecar, graph->initializer[i]))
            status = move_out(sidecar, graph->initializer[i], err);
    if (status) {
        file_abort(sidecar->writer);
    } else {
        *sizes = (RewriteSizes){model_packed_size(sidecar->model), sidecar->size};
        status = write_model(sidecar->model, path, sidecar->writer, err);
    }
    move_back(sidecar);
    return status;
}

int rewrite_size(Model *model, uint64_t *bytes, Error *err)
{
    int status = take_in_graph(model, model->proto->graph, err);
    *bytes = status ? 0 : model_packed_size(model);
    return status;
}

int rewrite_save(Model *model, const char *path, RewriteSidecar sidecar, RewriteSizes *sizes,
                 Error *err)
{
    uint64_t whole;
    int status = rewrite_size(model, &whole, err);
    if (status)
        return status;
    RewriteSizes unused;
    sizes = sizes ? sizes : &unused;
    if (sidecar == SIDECAR_NEVER || (sidecar == SIDECAR_AUTO && whole <= AUTO_BYTES)) {
        *sizes = (RewriteSizes){whole, 0};
        return model_save(model, path, err);
    }
    Sidecar plan = {.model = model, .scratch = arena_create(), .prefix = ""};
    if (!plan.scratch)
        return error_memory(err, "the sidecar");
    Metadata metadata;
    if (model_metadata(model, REWRITE_KEY))
        status = metadata_read(model, plan.scratch, &metadata, err);
    else
        metadata.prefix = "";
    plan.prefix = metadata.prefix;
    if (!status)
        status = save_with_sidecar(&plan, path, sizes, err);
    arena_destroy(plan.scratch);
    return status;
}
