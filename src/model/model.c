/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph.h"
#include "model/model_internal.h"
#include "model/sha256.h"
#include "model/visit.h"
#include "tensor/wire.h"

#define RAW_DATA 9                     /* field number in TensorProto */
#define LARGE_BYTES ((size_t)64 << 10) /* raw_data of this size stay in the file */
#define HASH_BYTES ((size_t)4 << 20)   /* a multiple of a page and of 64 */

/* What people take for a model by mistake, told apart by its first bytes. */
static int refuse_other_formats(const char *path, const FileMap *map, Error *err)
{
    static const struct {
        const char *magic;
        size_t length;
        const char *what;
    } others[] = {
        {"version https://git-lfs", 23, "a Git LFS pointer, not the model: run git lfs pull"},
        {"\x28\xb5\x2f\xfd", 4, "compressed with zstd: decompress it first"},
        {"\x1f\x8b", 2, "compressed with gzip: decompress it first"},
        {"PK\x03\x04", 4, "a zip archive (a PyTorch checkpoint?), not an ONNX model"},
    };
    if (map->size == 0)
        return error_set(err, ONNXPRESS_FORMAT, "%s: is empty, not an ONNX model", path);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (map->size >= others[i].length &&
            memcmp(map->data, others[i].magic, others[i].length) == 0)
            return error_set(err, ONNXPRESS_FORMAT, "%s: is %s", path, others[i].what);
    size_t text = 0, look = map->size < 64 ? map->size : 64;
    while (text < look && ((map->data[text] >= 0x20 && map->data[text] < 0x7f) ||
                           (map->data[text] >= '\t' && map->data[text] <= '\r')))
        text++;
    if (text == look)
        return error_set(err, ONNXPRESS_FORMAT, "%s: is text, not an ONNX model", path);
    return ONNXPRESS_OK;
}

static int64_t default_opset(const Onnx__ModelProto *proto)
{
    for (size_t i = 0; i < proto->n_opset_import; i++) {
        if (is_default_domain(proto->opset_import[i]->domain))
            return proto->opset_import[i]->version;
    }
    return 1; /* what a model means that names none */
}

typedef struct {
    Model *model;
    const WirePayload *payload;
    size_t n;
    Error *err;
} Placing;

/* The index that stands for a tensor's raw_data becomes the data: small ones are copied, so that they
 * are aligned, large ones stay in the file. */
static int place_raw_data(void *context, Onnx__TensorProto *tensor)
{
    Placing *placing = context;
    uint64_t index;
    if (!tensor->has_raw_data)
        return ONNXPRESS_OK;
    if (tensor->raw_data.len == sizeof index)
        memcpy(&index, tensor->raw_data.data, sizeof index);
    if (tensor->raw_data.len != sizeof index || index >= placing->n)
        return error_set(placing->err, ONNXPRESS_INTERNAL, "%s: a tensor's data are lost",
                         placing->model->path);
    const WirePayload *payload = &placing->payload[index];
    tensor->raw_data =
        (ProtobufCBinaryData){payload->bytes, (uint8_t *)(uintptr_t)payload->data};
    if (payload->bytes >= LARGE_BYTES)
        return ONNXPRESS_OK;
    tensor->raw_data.data = NULL;
    if (payload->bytes == 0)
        return ONNXPRESS_OK;
    tensor->raw_data.data = arena_array(placing->model->arena, payload->bytes, 1);
    if (!tensor->raw_data.data)
        return error_memory(placing->err, "a tensor");
    memcpy(tensor->raw_data.data, payload->data, payload->bytes);
    return ONNXPRESS_OK;
}

/* Unpacks the message without the tensors' raw_data, which would be copied, and puts them in then. */
static int unpack(Model *model, Error *err)
{
    const ProtobufCMessageDescriptor *whole = &onnx__model_proto__descriptor,
                                     *owner = &onnx__tensor_proto__descriptor;
    const FileMap *map = &model->private_data->map;
    size_t size, n;
    wire_outline(whole, map->data, map->size, owner, RAW_DATA, NULL, &size, NULL, &n);
    unsigned char *outline = malloc(size + 1);
    WirePayload *payload = calloc(n + 1, sizeof *payload);
    int status = outline && payload ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
    if (!status) {
        wire_outline(whole, map->data, map->size, owner, RAW_DATA, outline, &size, payload, &n);
        ProtobufCAllocator allocator = wire_allocator(model->arena);
        model->proto = onnx__model_proto__unpack(&allocator, size, outline);
    }
    free(outline);
    /* The wire check has passed what the unpacker could object to; memory is left. */
    if (!model->proto)
        status = error_set(err, ONNXPRESS_MEMORY, "%s: out of memory while reading the model",
                           model->path);
    else if (!model->proto->graph)
        status = error_set(err, ONNXPRESS_FORMAT, "%s: holds no graph: not an ONNX model",
                           model->path);
    if (!status) {
        Placing placing = {model, payload, n, err};
        Visitor visitor = {.tensor = place_raw_data, .context = &placing};
        status = model_visit(model->proto, &visitor);
    }
    free(payload);
    return status;
}

static int parse(Model *model, Error *err)
{
    const FileMap *map = &model->private_data->map;
    int status = refuse_other_formats(model->path, map, err);
    if (!status)
        status = wire_check(&onnx__model_proto__descriptor, map->data, map->size, model->path, err);
    if (!status)
        status = unpack(model, err);
    if (status)
        return status;
    model->opset = default_opset(model->proto);
    return external_open(model, err);
}

/* A part at a time, each given back: the file may be large. */
static void hash_file(const FileMap *map, char hex[65])
{
    Sha256 sha;
    const unsigned char *at = map->data;
    size_t left = map->size;
    sha256_begin(&sha);
    for (; left > HASH_BYTES; at += HASH_BYTES, left -= HASH_BYTES) {
        sha256_add(&sha, at, HASH_BYTES);
        file_forget(map, at, HASH_BYTES);
    }
    sha256_end(&sha, at, left, hex);
}

int model_load(const char *path, Model **result, Error *err)
{
    *result = NULL;
    FileMap map;
    int status = file_map(path, &map, err);
    if (status)
        return status;
    Arena *arena = arena_create();
    Model *model = arena ? arena_array(arena, 1, sizeof *model) : NULL;
    if (model) {
        model->arena = arena;
        model->path = arena_strdup(arena, path);
        model->private_data = arena_array(arena, 1, sizeof *model->private_data);
    }
    if (!model || !model->path || !model->private_data) {
        arena_destroy(arena);
        file_unmap(&map);
        status = error_memory(err, "the model");
    } else {
        model->file_bytes = map.size;
        hash_file(&map, model->sha256);
        status = file_expand(path, &map, err);
        model->private_data->map = map;
        if (!status)
            status = parse(model, err);
        if (status)
            model_free(model);
        else
            *result = model;
    }
    return status;
}

void model_free(Model *model)
{
    if (!model)
        return;
    external_close(model);
    file_unmap(&model->private_data->map);
    arena_destroy(model->arena); /* which holds the model itself */
}

/* The message as it is to be saved; its parts are shared. */
static Onnx__ModelProto stored_message(const Model *model)
{
    Onnx__ModelProto message = *model->proto;
    if (model->private_data->stored)
        message.graph = model->private_data->stored;
    return message;
}

size_t model_packed_size(const Model *model)
{
    Onnx__ModelProto message = stored_message(model);
    return onnx__model_proto__get_packed_size(&message);
}

typedef struct {
    ProtobufCBuffer base;
    const Model *model;
    FileWriter *writer;
    int status;
    Error *err;
} SaveBuffer;

static void save_append(ProtobufCBuffer *base, size_t bytes, const uint8_t *data)
{
    SaveBuffer *buffer = (SaveBuffer *)base;
    if (!buffer->status)
        buffer->status = model_write_data(buffer->model, buffer->writer, data, bytes, buffer->err);
}

int model_pack(const Model *model, FileWriter *writer, Error *err)
{
    SaveBuffer buffer = {
        .base = {.append = save_append}, .model = model, .writer = writer, .err = err};
    Onnx__ModelProto message = stored_message(model);
    onnx__model_proto__pack_to_buffer(&message, &buffer.base);
    return buffer.status;
}

int model_write(const Model *model, const char *path, FileWriter **writer, Error *err)
{
    *writer = NULL;
    size_t size = model_packed_size(model);
    if (size > INT_MAX)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: would be %zu bytes, and protobuf files end "
                         "at 2 GB: put the weights into external data (a sidecar)",
                         path, size);
    FileWriter *file;
    int status = file_create(path, &file, err);
    if (status)
        return status;
    status = external_copy(model, path, file, err);
    if (!status)
        status = model_pack(model, file, err);
    if (status)
        file_abort(file);
    else
        *writer = file;
    return status;
}

int model_save(const Model *model, const char *path, Error *err)
{
    FileWriter *writer;
    int status = model_write(model, path, &writer, err);
    return status ? status : file_commit(writer, err);
}

static size_t find_metadata(const Model *model, const char *key)
{
    size_t i = 0;
    while (i < model->proto->n_metadata_props &&
           (!model->proto->metadata_props[i]->key ||
            strcmp(model->proto->metadata_props[i]->key, key) != 0))
        i++;
    return i;
}

const char *model_metadata(const Model *model, const char *key)
{
    size_t i = find_metadata(model, key);
    if (i == model->proto->n_metadata_props)
        return NULL;
    const char *value = model->proto->metadata_props[i]->value;
    return value ? value : "";
}

int model_set_metadata(Model *model, const char *key, const char *value, Error *err)
{
    Onnx__ModelProto *proto = model->proto;
    size_t i = find_metadata(model, key), n = proto->n_metadata_props;
    if (!value) {
        if (i < n) {
            memmove(&proto->metadata_props[i], &proto->metadata_props[i + 1],
                    (n - i - 1) * sizeof proto->metadata_props[0]);
            proto->n_metadata_props--;
        }
        return ONNXPRESS_OK;
    }
    char *copy = arena_strdup(model->arena, value);
    if (copy && i < n) {
        proto->metadata_props[i]->value = copy;
        return ONNXPRESS_OK;
    }
    Onnx__StringStringEntryProto *entry = arena_array(model->arena, 1, sizeof *entry);
    if (!copy || !entry)
        return error_memory(err, "metadata");
    onnx__string_string_entry_proto__init(entry);
    entry->key = arena_strdup(model->arena, key);
    entry->value = copy;
    if (!entry->key || !model_append(model, &proto->n_metadata_props, &proto->metadata_props, entry,
                                     &model->private_data->metadata))
        return error_memory(err, "metadata");
    return ONNXPRESS_OK;
}
