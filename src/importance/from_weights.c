/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/importance.h"

#include <math.h>

int importance_from_weights(const Program *program, Arena *arena, float **h, Error *err)
{
    for (int w = 0; w < program_weights(program); w++) {
        const Weight *weight = program_weight(program, w);
        h[w] = NULL;
        double square = 0;
        for (int64_t i = 0; i < weight->count; i++)
            square += (double)weight->data[i] * (double)weight->data[i];
        if (weight->count == 0 || !isfinite(square))
            continue;
        /* All zeros: nothing to round, so nothing that matters. */
        double level = square > 0 ? (double)weight->count / square : 0.0;
        h[w] = arena_array(arena, (size_t)weight->count, sizeof **h);
        if (!h[w])
            return error_memory(err, "the importance of the weights");
        for (int64_t i = 0; i < weight->count; i++)
            h[w][i] = (float)fmin(level, 1e30);
    }
    return ONNXPRESS_OK;
}
