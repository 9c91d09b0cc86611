/* Loops over shapes that many ops share: broadcasting, strides, and axes, written once.
 *
 * No allocation, no errors besides those returned. All strides are in elements.
 */
#ifndef ONNXPRESS_OPS_WALK_H
#define ONNXPRESS_OPS_WALK_H

#include "tensor/tensor.h"

/* Row-major strides. */
void shape_strides(const Shape *shape, int64_t *stride);
/* NumPy broadcasting of two shapes; false when they do not fit. */
bool shape_broadcast(const Shape *a, const Shape *b, Shape *out);
/* Strides of `a` seen as broadcast to `out`: 0 along expanded axes. */
void shape_broadcast_strides(const Shape *a, const Shape *out, int64_t *stride);
/* Axis in [-rank, rank) → [0, rank); -1 when out of range. */
int shape_axis(int64_t axis, int rank);

/* An odometer over up to TENSOR_MAX_RANK axes for up to 4 operands with own strides: adjacent axes
 * that are contiguous for all operands are merged first, so that the inner loop is long. Use:
 *   Walk w; walk_start(&w, &shape, n_operands, strides);
 *   do { for (j = 0; j < w.inner; j++) … base w.offset[k], step w.step[k] … } while (walk_next(&w));
 * Not to be entered for a shape with no elements (walk_start returns false then). */
typedef struct {
    int rank, operands;
    int64_t inner, dim[TENSOR_MAX_RANK], index[TENSOR_MAX_RANK];
    int64_t offset[4], step[4], stride[4][TENSOR_MAX_RANK];
} Walk;
bool walk_start(Walk *walk, const Shape *shape, int operands, const int64_t *const *strides);
bool walk_next(Walk *walk);

#endif
