/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model_internal.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/proto_view.h"

#define PIECE ((int64_t)1 << 20) /* elements read, or bytes written, at a time */

/* Mapped bytes that stand at an odd address, or a typed field in another width, exist once more in
 * the arena; remembered, so that asking for a tensor again costs nothing. */
static bool remember(Model *model, const Onnx__TensorProto *proto, const void *data)
{
    Converted *converted = arena_array(model->arena, 1, sizeof *converted);
    if (!converted)
        return false;
    *converted = (Converted){model->private_data->converted, proto, data};
    model->private_data->converted = converted;
    return true;
}

static const Converted *find_converted(const Model *model, const Onnx__TensorProto *proto)
{
    const Converted *converted = model->private_data->converted;
    while (converted && converted->proto != proto)
        converted = converted->next;
    return converted;
}

void model_data_changed(Model *model, const Onnx__TensorProto *proto)
{
    Converted **at = &model->private_data->converted;
    while (*at && (*at)->proto != proto)
        at = &(*at)->next;
    if (*at)
        *at = (*at)->next;
}

static int view_external(Model *model, const Onnx__TensorProto *proto, uint64_t expected,
                         bool known, Tensor *tensor, Error *err)
{
    const unsigned char *data;
    int status =
        external_data(model, proto, tensor->name, expected, known, &data, &tensor->bytes, err);
    if (status)
        return status;
    if (known && tensor->bytes != expected)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': has %zu bytes of external data, its shape needs %llu",
                         model->path, tensor->name, tensor->bytes, (unsigned long long)expected);
    tensor->data = data;
    return ONNXPRESS_OK;
}

int model_tensor(Model *model, const Onnx__TensorProto *proto, const char *where, Tensor *tensor,
                 Error *err)
{
    int status = model_tensor_unaligned(model, proto, where, tensor, err);
    size_t align = status ? 0 : dtype_bytes(tensor->dtype);
    if (align > 1 && (uintptr_t)tensor->data % align != 0) {
        void *copy = arena_array(model->arena, tensor->bytes, 1);
        if (!copy || !remember(model, proto, copy))
            return error_memory(err, "a tensor");
        tensor->data = memcpy(copy, tensor->data, tensor->bytes);
    }
    return status;
}

static bool lies_in(const FileMap *map, const Tensor *tensor)
{
    const unsigned char *data = tensor->data;
    return map->data && data >= map->data && data < map->data + map->size;
}

void model_forget(const Model *model, const Tensor *tensor)
{
    const FileMap *map = &model->private_data->map;
    const ExternalFile *file = model->private_data->externals;
    while (map && tensor->data && !lies_in(map, tensor)) {
        map = file ? &file->map : NULL;
        file = file ? file->next : NULL;
    }
    if (map && tensor->data)
        file_forget(map, tensor->data, tensor->bytes);
}

int model_write_data(const Model *model, FileWriter *writer, const void *data, size_t bytes,
                     Error *err)
{
    int status = ONNXPRESS_OK;
    for (size_t at = 0, n; at < bytes && !status; at += n) {
        n = bytes - at < (size_t)PIECE ? bytes - at : (size_t)PIECE;
        Tensor piece = {.data = (const unsigned char *)data + at, .bytes = n};
        status = file_write(writer, piece.data, n, err);
        model_forget(model, &piece);
    }
    return status;
}

/* Reads the elements from i on, as many as make a piece; *n: so many. */
static int read_piece(const Model *model, const Tensor *tensor, int64_t i, float *out, int64_t *n,
                      Error *err)
{
    size_t width = dtype_bytes(tensor->dtype);
    Tensor piece = *tensor;
    *n = piece.count = tensor->count - i < PIECE ? tensor->count - i : PIECE;
    piece.data = (const unsigned char *)tensor->data + (size_t)i * width;
    piece.bytes = (size_t)piece.count * width;
    int status = tensor_to_float(&piece, out, err);
    model_forget(model, &piece);
    return status;
}

int model_read_floats(Model *model, const Onnx__TensorProto *proto, const char *where, float *out,
                      Error *err)
{
    Tensor tensor;
    int status = model_tensor_unaligned(model, proto, where, &tensor, err);
    for (int64_t i = 0, n; !status && i < tensor.count; i += n)
        status = read_piece(model, &tensor, i, out + i, &n, err);
    return status;
}

int model_visit_floats(Model *model, const Onnx__TensorProto *proto, const char *where,
                       ModelPiece visit, void *context, Error *err)
{
    Tensor tensor;
    int status = model_tensor_unaligned(model, proto, where, &tensor, err);
    float *piece = status ? NULL : malloc((size_t)PIECE * sizeof *piece);
    if (!piece)
        return status ? status : error_memory(err, "a tensor");
    for (int64_t i = 0, n; !status && i < tensor.count; i += n) {
        status = read_piece(model, &tensor, i, piece, &n, err);
        if (!status)
            status = visit(context, piece, n, err);
    }
    free(piece);
    return status;
}

int model_tensor_unaligned(Model *model, const Onnx__TensorProto *proto, const char *where,
                           Tensor *tensor, Error *err)
{
    const char *name = proto->name && *proto->name ? proto->name : where ? where : "(no name)";
    *tensor = (Tensor){.name = name};
    uint64_t expected;
    bool known;
    int status = proto_view_shape(proto, model->path, tensor, &expected, &known, err);
    if (status)
        return status;
    const Converted *converted = find_converted(model, proto);
    if (converted) {
        tensor->data = converted->data;
        tensor->bytes = (size_t)expected;
        return ONNXPRESS_OK;
    }
    if (proto_is_external(proto))
        return view_external(model, proto, expected, known, tensor, err);
    status = proto_view(proto, model->path, model->arena, tensor, err);
    if (status || proto->has_raw_data || !known)
        return status;
    /* Only narrowed fields are worth remembering: the others are views. */
    bool is_view = tensor->data == proto->float_data || tensor->data == proto->int32_data ||
                   tensor->data == proto->int64_data || tensor->data == proto->double_data ||
                   tensor->data == proto->uint64_data;
    return is_view || remember(model, proto, tensor->data) ? ONNXPRESS_OK
                                                           : error_memory(err, "a tensor");
}
