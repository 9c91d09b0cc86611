/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/check.h"

#include <string.h>

int check_written(const Session *s, const Selection *selection, const Choice *choice,
                  const char *const *written, const char *path)
{
    const QuantizeInput *in = &selection->input;
    Model *back = NULL;
    Graph *graph = NULL;
    Arena *arena = arena_create();
    size_t n = in->offset[in->n_tensors];
    float *wanted = arena ? arena_array(arena, n, sizeof *wanted) : NULL;
    float *found = arena ? arena_array(arena, n, sizeof *found) : NULL;
    int rc = wanted && found ? ONNXPRESS_OK : error_memory(s->err, "the last check");
    if (!rc)
        rc = model_load(path, &back, s->err);
    if (!rc)
        rc = rewrite_restore(back, s->err);
    if (!rc)
        rc = graph_build(back, arena, &graph, s->err);
    if (!rc)
        quantize_reconstruct(in, &choice->quantized, wanted);
    for (size_t t = 0; t < in->n_tensors && !rc; t++) {
        const Weight *weight = program_weight(s->program, selection->weight[t]);
        int value = graph_find(graph, written[t]);
        Tensor tensor;
        if (value < 0 || !graph->values[value].init)
            rc = error_set(s->err, ONNXPRESS_INTERNAL, "%s: %s is lost", path, weight->name);
        if (!rc)
            rc = model_tensor(back, graph->values[value].init, weight->name, &tensor, s->err);
        if (!rc && tensor.count != weight->count)
            rc = error_set(s->err, ONNXPRESS_INTERNAL, "%s: %s has another size", path,
                           weight->name);
        if (!rc)
            rc = tensor_to_float(&tensor, found + in->offset[t], s->err);
        /* Narrower types round once more when they are stored. */
        if (!rc && weight->dtype == DTYPE_FLOAT &&
            memcmp(found + in->offset[t], wanted + in->offset[t],
                   (size_t)weight->count * sizeof *found) != 0)
            rc = error_set(s->err, ONNXPRESS_INTERNAL,
                           "%s: %s does not decode to what was encoded; please report this", path,
                           weight->name);
    }
    model_free(back);
    arena_destroy(arena);
    return rc;
}
