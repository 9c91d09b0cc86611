/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model_internal.h"

#include <string.h>

#include "tensor/proto_view.h"

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
    size_t align = dtype_bytes(tensor->dtype);
    if (align > 1 && (uintptr_t)data % align != 0) {
        void *copy = arena_array(model->arena, tensor->bytes, 1);
        if (!copy || !remember(model, proto, copy))
            return error_memory(err, "external data");
        data = memcpy(copy, data, tensor->bytes);
    }
    tensor->data = data;
    return ONNXPRESS_OK;
}

int model_tensor(Model *model, const Onnx__TensorProto *proto, const char *where, Tensor *tensor,
                 Error *err)
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
