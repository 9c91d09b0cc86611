/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/check.h"

#include <string.h>

/* Whether tensor t of the quantization is what was decoded, bit for bit; a piece at a time, so that it
 * need not be there twice. */
static bool decodes_to(const QuantizeInput *in, const Quantized *q, size_t t, const float *found)
{
    float wanted[4096];
    for (size_t i = in->offset[t], n; i < in->offset[t + 1]; i += n, found += n) {
        n = in->offset[t + 1] - i < 4096 ? in->offset[t + 1] - i : 4096;
        QuantizeInput piece = {.n_tensors = 1, .offset = (size_t[]){0, n}};
        Quantized part = {.scale = &q->scale[t], .centre = q->centre, .symbol = q->symbol + i};
        quantize_reconstruct(&piece, &part, wanted);
        if (memcmp(found, wanted, n * sizeof *found) != 0)
            return false;
    }
    return true;
}

int check_written(const Session *s, const Selection *selection, const Choice *choice,
                  const char *const *written, const char *path)
{
    const QuantizeInput *in = &selection->input;
    Model *back = NULL;
    Graph *graph = NULL;
    Arena *arena = arena_create();
    int rc = arena ? ONNXPRESS_OK : error_memory(s->err, "the last check");
    if (!rc)
        rc = model_load(path, &back, s->err);
    if (!rc)
        rc = rewrite_restore(back, s->err);
    if (!rc)
        rc = graph_build(back, arena, &graph, s->err);
    for (size_t t = 0; t < in->n_tensors && !rc; t++) {
        const Weight *weight = program_weight(s->program, selection->weight[t]);
        int value = graph_find(graph, written[t]);
        Tensor tensor;
        if (value < 0 || !graph->values[value].init)
            rc = error_set(s->err, ONNXPRESS_INTERNAL, "%s: %s is lost", path, weight->name);
        if (!rc)
            rc = model_tensor(back, graph->values[value].init, weight->name, &tensor, s->err);
        if (!rc && (tensor.count != weight->count || tensor.dtype != weight->dtype))
            rc = error_set(s->err, ONNXPRESS_INTERNAL, "%s: %s has another size or type", path,
                           weight->name);
        /* Narrower types round once more when they are stored. */
        if (!rc && weight->dtype == DTYPE_FLOAT &&
            !decodes_to(in, &choice->quantized, t, tensor.data))
            rc = error_set(s->err, ONNXPRESS_INTERNAL,
                           "%s: %s does not decode to what was encoded; please report this", path,
                           weight->name);
    }
    model_free(back);
    arena_destroy(arena);
    return rc;
}

int check_streams(const char *path, Error *err)
{
    Model *back;
    int rc = model_load(path, &back, err);
    if (!rc)
        rc = rewrite_check(back, err);
    model_free(back);
    return rc;
}
