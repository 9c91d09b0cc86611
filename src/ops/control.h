/* What the executor knows of Loop and Scan; If is an op like any other (control.c).
 *
 * The inputs of these nodes are those of the message and then their bodies' outputs, for If those of
 * then_branch first. Loop and Scan run in autodiff/loop.c, which their rows only stand for.
 */
#ifndef ONNXPRESS_OPS_CONTROL_H
#define ONNXPRESS_OPS_CONTROL_H

#include "ops/ops.h"

/* How a Loop's or Scan's lists lie together: carried values, scanned inputs, stacked outputs. */
typedef struct {
    bool scan;
    int n_carried, n_scanned, n_stacked;
    int first_input;  /* of the node: the first carried value's start */
    int first_formal; /* of the body */
    int first_result; /* of the body */
    /* Scan: [n_scanned] and [n_stacked]; NULL: axis 0, forward */
    const int64_t *in_axis, *in_direction, *out_axis, *out_direction;
} LoopParams;

/* Fits the lists to a body of so many inputs and outputs; false when they do not. */
bool loop_fit(OpNode *node, size_t inputs, size_t formals, size_t results);

#endif
