/* SPDX-License-Identifier: Apache-2.0
 *
 * Coded weights in a model, restored: as the file is, and once more with all checksums made right, so
 * that damage gets past them into the decoder. */
#include <string.h>

#include "fuzz/fuzz.h"
#include "rewrite/rewrite_internal.h"

static Model *load(const char *path)
{
    Error err = {0};
    Model *model;
    int status = model_load(path, &model, &err);
    fuzz_check_error(status, &err);
    return status ? NULL : model;
}

static bool find(Restore *r, char letter, size_t number, Tensor *tensor)
{
    Error err = {0};
    const char *name = emit_numbered(&r->names, letter, number);
    const Onnx__GraphProto *graph = r->model->proto->graph;
    for (size_t k = graph->n_initializer; name && k-- > 0;)
        if (strcmp(graph->initializer[k]->name ? graph->initializer[k]->name : "", name) == 0)
            return model_tensor(r->model, graph->initializer[k], name, tensor, &err) ==
                   ONNXPRESS_OK;
    return false;
}

static void digest(Restore *r, char letter, size_t number)
{
    Tensor tensor;
    if (find(r, letter, number, &tensor))
        digest_add(&r->digest, tensor.data, tensor.bytes);
}

/* Writes the checksums that the restoring would find. */
static bool repair(Model *model)
{
    static const Role roles[] = {ROLE_RUNS, ROLE_TABLE, ROLE_GAPS, ROLE_SCALES, ROLE_PIECES};
    Error err = {0};
    Restore r = {.model = model, .scratch = arena_create()};
    bool repaired = r.scratch && !metadata_read(model, r.scratch, &r.metadata, &err) &&
                    r.metadata.form != FORM_PLAIN &&
                    rewrite_is_ours(model, NULL, &r.metadata.note);
    r.names = (Emitter){.model = model, .scratch = r.scratch, .prefix = r.metadata.prefix};
    bool lookup = r.metadata.form == FORM_LOOKUP;
    CodedNote *coded = &r.metadata.coded;
    for (size_t s = 0; repaired && s < coded->n_streams; s++) {
        Tensor stream;
        if (find(&r, lookup ? 'i' : role_letter[ROLE_STREAM], s, &stream))
            coded->stream[s] =
                (StreamNote){stream.bytes, entropy_crc32(stream.data, stream.bytes)};
        for (size_t k = 0; !lookup && k < sizeof roles / sizeof *roles; k++)
            digest(&r, role_letter[roles[k]], s);
    }
    if (repaired)
        digest(&r, role_letter[ROLE_CODEBOOK], 0);
    for (size_t s = 0; repaired && lookup && s < coded->n_streams; s++)
        digest(&r, role_letter[ROLE_SCALES], s);
    coded->tables = r.digest;
    repaired = repaired && !metadata_write(model, &r.metadata, &err);
    arena_destroy(r.scratch);
    return repaired;
}

static void restore(Model *model)
{
    Error err = {0};
    RewriteParts parts;
    fuzz_check_error(rewrite_parts(model, &parts, &err), &err);
    err = (Error){0};
    fuzz_check_error(rewrite_restore(model, &err), &err);
    model_packed_size(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("x.onnx", data, size);
    Model *model = load(path);
    if (!model)
        return 0;
    restore(model);
    model_free(model);
    model = load(path);
    if (model && repair(model))
        restore(model);
    model_free(model);
    return 0;
}
