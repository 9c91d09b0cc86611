/* SPDX-License-Identifier: Apache-2.0
 *
 * A step for each tensor from its mean importance: at high rate, equal slopes of distortion against
 * bits mean that a tensor's step goes with 1/sqrt(h).
 */
#include "quantize/quantize.h"

#include <math.h>

/* log of 1/sqrt(mean h); false when h is zero throughout or there are no elements. */
static bool log_step(const QuantizeInput *in, size_t tensor, double *step)
{
    size_t first = in->offset[tensor], last = in->offset[tensor + 1];
    double sum = 0;
    for (size_t i = first; i < last; i++)
        sum += (double)in->h[i];
    if (!(sum > 0))
        return false;
    *step = -0.5 * log(sum / (double)(last - first));
    return true;
}

int quantize_relative_steps(const QuantizeInput *in, QuantizeScope scope, float *relative,
                            Error *err)
{
    for (size_t t = 0; t < in->n_tensors; t++)
        relative[t] = 1;
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    if (scope == QUANTIZE_SCOPE_MODEL || !in->h || n == 0)
        return ONNXPRESS_OK;

    Arena *scratch = arena_create();
    double *step = scratch ? arena_array(scratch, in->n_tensors, sizeof *step) : NULL;
    bool *known = scratch ? arena_array(scratch, in->n_tensors, sizeof *known) : NULL;
    if (!step || !known) {
        arena_destroy(scratch);
        return error_memory(err, "the steps of tensors");
    }
    double largest = -INFINITY;
    for (size_t t = 0; t < in->n_tensors; t++) {
        known[t] = log_step(in, t, &step[t]);
        if (known[t] && step[t] > largest)
            largest = step[t];
    }
    if (largest > -INFINITY) {
        double mean = 0;
        for (size_t t = 0; t < in->n_tensors; t++) {
            if (!known[t])
                step[t] = largest;
            mean += (double)(in->offset[t + 1] - in->offset[t]) / (double)n * step[t];
        }
        for (size_t t = 0; t < in->n_tensors; t++)
            relative[t] = (float)exp(step[t] - mean);
    }
    arena_destroy(scratch);
    return ONNXPRESS_OK;
}
