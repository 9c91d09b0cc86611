/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize.h"

#include <math.h>

/* Until the bracket has two ends: how far to go at once, and by which power of the excess before two
 * measurements tell it. A grid's distortion goes with the square of its step; its bytes with little
 * more than the logarithm. */
#define FARTHEST 8.0
#define POWER 0.5
/* Within the bracket: no nearer to its ends than this share of it. */
#define MARGIN 0.05
/* A bracket is closed when its ends are this near, relative. */
#define CLOSED 1e-3

typedef struct {
    double x, excess; /* x 0: not known yet */
} End;

/* Where the excess should be 1, or a little less, between the ends. */
static double between(const End *yes, const End *no, double aim)
{
    double part = 0.5;
    double low = log(yes->excess), high = log(no->excess);
    if (isfinite(low) && isfinite(high) && high > low)
        part = fmin(fmax((aim - low) / (high - low), MARGIN), 1 - MARGIN);
    return yes->x * pow(no->x / yes->x, part);
}

/* `before`: the end's place one measurement earlier (x 0: there is none). */
static double onward(const End *end, const End *before, double aim)
{
    double power = POWER;
    if (before->x > 0) {
        double growth = log(end->excess / before->excess) / log(end->x / before->x);
        power = growth > 0 && isfinite(growth) ? 1 / growth : POWER;
    }
    double factor = pow(exp(aim) / end->excess, power);
    factor = end->excess > 0 ? fmin(fmax(factor, 1 / FARTHEST), FARTHEST) : FARTHEST;
    /* Never on the spot. */
    return end->x * (end->excess <= 1 ? fmax(factor, 1.05) : fmin(factor, 0.95));
}

int quantize_search(const QuantizeRange *range, QuantizeMeasure measure, void *context,
                    double *best, Error *err)
{
    if (!(range->low > 0) || !(range->high >= range->low) || !isfinite(range->high))
        return error_set(err, ONNXPRESS_USAGE, "search: %g to %g is no range above 0", range->low,
                         range->high);
    End yes = {0, 0}, no = {0, 0}, before = {0, 0};
    double aim = log(range->enough) / 2, guess = range->guess > 0 ? range->guess : range->low;
    for (int i = 0; i < range->steps; i++) {
        double x = yes.x > 0 && no.x > 0 ? between(&yes, &no, aim)
                   : yes.x > 0           ? onward(&yes, &before, aim)
                   : no.x > 0            ? onward(&no, &before, aim)
                                         : guess;
        End at = {fmin(fmax(x, range->low), range->high), INFINITY};
        if (at.x <= yes.x || (no.x > 0 && at.x >= no.x))
            break;
        int status = measure(context, at.x, &at.excess, err);
        if (status)
            return status;
        End *end = at.excess <= 1 ? &yes : &no;
        before = *end;
        *end = at;
        bool closed = no.x > 0 && no.x <= yes.x * (1 + CLOSED);
        if (yes.x > 0 && (yes.excess >= range->enough || yes.x >= range->high || closed))
            break;
    }
    if (!(yes.x > 0) && !(no.x > 0 && no.x <= range->low)) {
        End at = {range->low, INFINITY};
        int status = measure(context, at.x, &at.excess, err);
        if (status)
            return status;
        if (at.excess <= 1)
            yes = at;
    }
    if (!(yes.x > 0))
        return error_set(err, ONNXPRESS_GOAL,
                         "no setting reaches the goal, not even the finest one");
    *best = yes.x;
    return ONNXPRESS_OK;
}
