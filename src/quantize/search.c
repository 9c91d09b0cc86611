/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize.h"

#include <math.h>

int quantize_search(double low, double high, int steps, QuantizeMeasure measure, void *context,
                    double *best, Error *err)
{
    if (!(low > 0) || !(high >= low) || !isfinite(high))
        return error_set(err, ONNXPRESS_USAGE, "search: %g to %g is no range above 0", low, high);
    bool meets = false, found = false;
    int status = measure(context, high, &meets, err);
    if (status)
        return status;
    if (meets) {
        *best = high;
        return ONNXPRESS_OK;
    }
    double yes = low, no = high; /* yes is measured once found is set */
    for (int i = 0; i < steps; i++) {
        double middle = sqrt(yes) * sqrt(no);
        if (!(middle > yes && middle < no))
            break;
        status = measure(context, middle, &meets, err);
        if (status)
            return status;
        if (meets) {
            yes = middle;
            found = true;
        } else {
            no = middle;
        }
    }
    if (!found && low < high) {
        status = measure(context, low, &found, err);
        if (status)
            return status;
    }
    if (!found)
        return error_set(err, ONNXPRESS_GOAL,
                         "no setting reaches the goal, not even the finest one");
    *best = yes;
    return ONNXPRESS_OK;
}
