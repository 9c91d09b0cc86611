/* SPDX-License-Identifier: Apache-2.0
 *
 * What the bytes of a model are spent on: our tensors tell by the letter after the prefix. */
#include <string.h>

#include "rewrite/rewrite_internal.h"

#define INDICES 'i' /* of form lookup */

enum { CODE_GAPS = WAVELET_MAX_TUPLE, CODE_INDICES, CODES }; /* below: tuple - 1 */

static void add_own(const Onnx__TensorProto *tensor, char role, RewriteParts *parts,
                    size_t blocks[CODES])
{
    uint64_t bytes = onnx__tensor_proto__get_packed_size(tensor);
    if (role == role_letter[ROLE_STREAM] || role == INDICES)
        parts->streams += bytes;
    else if (role == role_letter[ROLE_CODEBOOK])
        parts->codebook += bytes;
    else
        parts->tables += bytes;
    int64_t tuple = tensor->n_dims > 1 ? tensor->dims[1] : 1;
    if (role == INDICES)
        blocks[CODE_INDICES]++;
    else if (role == role_letter[ROLE_TABLE] && tuple >= 1 && tuple <= WAVELET_MAX_TUPLE)
        blocks[tuple - 1]++;
    else if (role == role_letter[ROLE_GAPS])
        blocks[CODE_GAPS]++;
}

static const char *code_name(size_t blocks[CODES])
{
    static const char *const name[CODES] = {"symbols",    "pairs", "triples",
                                            "quadruples", "gaps",  "indices"};
    const char *found = "values"; /* form plain */
    int kinds = 0;
    blocks[0] -= blocks[CODE_GAPS]; /* those have a table with one column too */
    for (int c = 0; c < CODES; c++)
        if (blocks[c] > 0) {
            found = name[c];
            kinds++;
        }
    return kinds > 1 ? "mixed" : found;
}

int rewrite_parts(const Model *model, RewriteParts *parts, Error *err)
{
    *parts = (RewriteParts){0};
    Arena *scratch = arena_create();
    Metadata metadata;
    int status = scratch ? metadata_read(model, scratch, &metadata, err)
                         : error_memory(err, "the parts of the result");
    const Onnx__GraphProto *graph = model->proto->graph;
    size_t blocks[CODES] = {0};
    for (size_t i = 0; i < graph->n_initializer && !status; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        size_t length = strlen(metadata.prefix);
        bool own = length > 0 && tensor->name && !strncmp(tensor->name, metadata.prefix, length);
        if (own)
            add_own(tensor, tensor->name[length], parts, blocks);
        else
            parts->exact += onnx__tensor_proto__get_packed_size(tensor);
    }
    arena_destroy(scratch);
    if (status)
        return status;
    parts->code = code_name(blocks);
    parts->graph = model_packed_size(model) - parts->streams - parts->codebook - parts->tables -
                   parts->exact;
    return ONNXPRESS_OK;
}
