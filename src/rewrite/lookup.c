/* SPDX-License-Identifier: Apache-2.0
 *
 * Form lookup: the symbols as they are, one byte or two each, and a Gather a tensor.
 */
#include "rewrite/rewrite_internal.h"

static int lookup_tensor(Emitter *e, const Coded *coded, size_t number, CodedNote *note, Error *err)
{
    const CodedTensor *tensor = &coded->tensors[number];
    Arena *scratch = arena_create();
    size_t bytes;
    int dtype;
    const void *index = scratch ? symbols_narrow(coded->symbols + tensor->first, tensor->count,
                                                 coded->levels, scratch, &dtype, &bytes)
                                : NULL;
    if (!index) {
        arena_destroy(scratch);
        return error_memory(err, "indices");
    }
    const char *stored = emit_numbered(e, 'i', number), *wide = emit_numbered(e, 'j', number);
    emit_initializer(
        e, emit_raw(e, stored, dtype, tensor->shape.rank, tensor->shape.dim, index, bytes));
    note->stream[number] = (StreamNote){bytes, entropy_crc32(index, bytes)};
    arena_destroy(scratch);

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
