/* SPDX-License-Identifier: Apache-2.0
 *
 * Form lookup: the symbols as they are, one byte or two each, and a Gather a tensor.
 */
#include "rewrite/rewrite_internal.h"

/* The tensor's indices as an initializer, and their checksum. */
static int emit_indices(Emitter *e, const char *name, const Coded *coded, const CodedTensor *tensor,
                        StreamNote *note, Error *err)
{
    Arena *scratch = arena_create();
    size_t bytes;
    int dtype, status = ONNXPRESS_OK;
    const void *index = scratch ? symbols_narrow(coded->symbols + tensor->first, tensor->count,
                                                 coded->levels, scratch, &dtype, &bytes)
                                : NULL;
    if (index) {
        emit_initializer(
            e, emit_raw(e, name, dtype, tensor->shape.rank, tensor->shape.dim, index, bytes));
        *note = (StreamNote){bytes, entropy_crc32(index, bytes)};
    } else {
        status = error_memory(err, "indices");
    }
    arena_destroy(scratch);
    return status;
}

/* The same of indices that lie in a file and stay there. */
static void emit_stored(Emitter *e, const char *name, const Coded *coded, const CodedTensor *tensor,
                        StreamNote *note)
{
    bool narrow = coded->levels <= 256;
    size_t width = narrow ? 1 : 2, bytes = tensor->count * width;
    const unsigned char *index = coded->index + tensor->first * width;
    Onnx__TensorProto *proto = emit_raw(e, name, narrow ? DTYPE_UINT8 : DTYPE_UINT16,
                                        tensor->shape.rank, tensor->shape.dim, NULL, 0);
    if (!proto)
        return;
    proto->raw_data = (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)index};
    emit_initializer(e, proto);
    *note = (StreamNote){bytes, entropy_crc32(index, bytes)};
    model_forget(e->model, &(Tensor){.data = index, .bytes = bytes});
}

static int lookup_tensor(Emitter *e, const Coded *coded, size_t number, CodedNote *note, Error *err)
{
    const CodedTensor *tensor = &coded->tensors[number];
    const char *stored = emit_numbered(e, 'i', number), *wide = emit_numbered(e, 'j', number);
    int status = ONNXPRESS_OK;
    if (coded->index)
        emit_stored(e, stored, coded, tensor, &note->stream[number]);
    else
        status = emit_indices(e, stored, coded, tensor, &note->stream[number], err);
    if (status)
        return status;

    bool scaled = tensor->scale != 1, cast = tensor->dtype != DTYPE_FLOAT;
    const char *centre = scaled || cast ? emit_numbered(e, 'g', number) : tensor->name;
    emit_cast(e, stored, wide, DTYPE_INT32);
    emit_node(e, "", "Gather", NAMES(emit_numbered(e, role_letter[ROLE_CODEBOOK], 0), wide),
              NAMES(centre));
    if (scaled) {
        const char *factor = emit_numbered(e, role_letter[ROLE_SCALES], number);
        const char *product = cast ? emit_numbered(e, 'm', number) : tensor->name;
        emit_initializer(
            e, emit_raw(e, factor, DTYPE_FLOAT, 0, NULL, &tensor->scale, sizeof tensor->scale));
        digest_add(&note->tables, &tensor->scale, sizeof tensor->scale);
        emit_node(e, "", "Mul", NAMES(centre, factor), NAMES(product));
        centre = product;
    }
    if (cast)
        emit_cast(e, centre, tensor->name, tensor->dtype);
    return ONNXPRESS_OK;
}

int lookup_emit(Emitter *e, const Coded *coded, CodedNote *note, Error *err)
{
    note->stream = arena_array(e->scratch, coded->n_tensors, sizeof *note->stream);
    if (!note->stream)
        return error_memory(err, "indices");
    note->n_streams = coded->n_tensors;
    note->tables = 0;
    int64_t levels = coded->levels;
    size_t bytes = (size_t)levels * sizeof *coded->codebook;
    emit_initializer(e, emit_raw(e, emit_numbered(e, role_letter[ROLE_CODEBOOK], 0), DTYPE_FLOAT, 1,
                                 &levels, coded->codebook, bytes));
    digest_add(&note->tables, coded->codebook, bytes);
    for (size_t t = 0; t < coded->n_tensors; t++) {
        int status = lookup_tensor(e, coded, t, note, err);
        if (status)
            return status;
    }
    return e->failed ? error_memory(err, "indices") : ONNXPRESS_OK;
}
