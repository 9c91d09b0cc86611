/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/walk.h"

/* Unsigned: the strides of a shape without elements may overflow, and are never used. */
void shape_strides(const Shape *shape, int64_t *stride)
{
    uint64_t next = 1;
    for (int a = shape->rank - 1; a >= 0; a--) {
        stride[a] = (int64_t)next;
        next *= (uint64_t)shape->dim[a];
    }
}

bool shape_broadcast(const Shape *a, const Shape *b, Shape *out)
{
    Shape result = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 1; i <= result.rank; i++) { /* axes counted from the last */
        int64_t da = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t db = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (da != db && da != 1 && db != 1)
            return false;
        result.dim[result.rank - i] = da == 1 ? db : da;
    }
    *out = result;
    return true;
}

void shape_broadcast_strides(const Shape *a, const Shape *out, int64_t *stride)
{
    int64_t own[TENSOR_MAX_RANK];
    shape_strides(a, own);
    for (int i = 0; i < out->rank; i++) {
        int axis = i - (out->rank - a->rank);
        stride[i] = axis < 0 || (a->dim[axis] == 1 && out->dim[i] != 1) ? 0 : own[axis];
    }
}

int shape_axis(int64_t axis, int rank)
{
    if (axis < -rank || axis >= rank)
        return -1;
    return (int)(axis < 0 ? axis + rank : axis);
}

static bool axes_merge(const Walk *walk, int64_t inner_dim, const int64_t *const *strides, int axis)
{
    for (int k = 0; k < walk->operands; k++)
        if (walk->stride[k][walk->rank - 1] != strides[k][axis] * inner_dim)
            return false;
    return true;
}

bool walk_start(Walk *walk, const Shape *shape, int operands, const int64_t *const *strides)
{
    for (int a = 0; a < shape->rank; a++)
        if (shape->dim[a] <= 0)
            return false;
    *walk = (Walk){.operands = operands, .inner = 1};
    for (int a = 0; a < shape->rank; a++) {
        if (shape->dim[a] == 1)
            continue;
        if (walk->rank && axes_merge(walk, shape->dim[a], strides, a))
            walk->dim[walk->rank - 1] *= shape->dim[a];
        else
            walk->dim[walk->rank++] = shape->dim[a];
        for (int k = 0; k < operands; k++)
            walk->stride[k][walk->rank - 1] = strides[k][a];
    }
    if (walk->rank) {
        walk->rank--;
        walk->inner = walk->dim[walk->rank];
        for (int k = 0; k < operands; k++)
            walk->step[k] = walk->stride[k][walk->rank];
    }
    return true;
}

bool walk_next(Walk *walk)
{
    for (int a = walk->rank - 1; a >= 0; a--) {
        for (int k = 0; k < walk->operands; k++)
            walk->offset[k] += walk->stride[k][a];
        if (++walk->index[a] < walk->dim[a])
            return true;
        for (int k = 0; k < walk->operands; k++)
            walk->offset[k] -= walk->stride[k][a] * walk->dim[a];
        walk->index[a] = 0;
    }
    return false;
}
