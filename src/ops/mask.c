/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that place by position: triangles, unit matrices, one-hot rows, centred crops. */
#include "ops/support_internal.h"

#include <string.h>

/* Trilu: elements kept are those at or above (below) diagonal k of the last two axes. */
typedef struct {
    int64_t rows, columns, k;
    bool upper;
} Triangle;

static int triangle_plan(const OpCall *call, Triangle *plan)
{
    const Shape *x = &call->in[0]->shape;
    if (x->rank < 2)
        return op_error(call, ONNXPRESS_FORMAT, "a triangle of a tensor of rank %d", x->rank);
    *plan = (Triangle){.rows = x->dim[x->rank - 2],
                       .columns = x->dim[x->rank - 1],
                       .upper = attribute_int(call->node, "upper", 1) != 0};
    if (op_in(call, 1)) {
        const int64_t *list;
        int n, status = op_list(call, 1, 1, &list, &n);
        if (status)
            return status;
        plan->k = n ? list[0] : 0;
    }
    /* beyond the edges every diagonal is the same */
    if (plan->k > plan->columns)
        plan->k = plan->columns;
    if (plan->k < -plan->rows)
        plan->k = -plan->rows;
    return ONNXPRESS_OK;
}

static bool triangle_keeps(const Triangle *plan, int64_t e)
{
    int64_t row = e / plan->columns % plan->rows, column = e % plan->columns;
    return plan->upper ? column - row >= plan->k : column - row <= plan->k;
}

static int triangle_forward(const OpCall *call)
{
    Triangle plan;
    int status = op_require(call, 1);
    if (status || (status = triangle_plan(call, &plan)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape)))
        return status;
    const Value *x = call->in[0], *y = call->out[0];
    for (int64_t e = 0; e < y->count; e++) {
        bool keeps = triangle_keeps(&plan, e);
        if (y->r)
            y->r[e] = keeps ? x->r[e] : 0;
        else
            y->i[e] = keeps ? x->i[e] : 0;
    }
    return ONNXPRESS_OK;
}

static int triangle_backward(const OpCall *call)
{
    Triangle plan;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = triangle_plan(call, &plan);
    for (int64_t e = 0; !status && e < call->in[0]->count; e++)
        if (triangle_keeps(&plan, e))
            call->d_in[0][e] += call->d_out[0][e];
    return status;
}

static int eye_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status)
        return status;
    const Value *x = call->in[0];
    if (x->shape.rank != 2)
        return op_error(call, ONNXPRESS_FORMAT, "a unit matrix of rank %d", x->shape.rank);
    int dtype = (int)attribute_int(call->node, "dtype", x->dtype);
    int64_t k = attribute_int(call->node, "k", 0), columns = x->shape.dim[1];
    if (!dtype_is_real(dtype) && !dtype_is_integer(dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "tensors of %s are not handled",
                        dtype_name(dtype));
    if ((status = op_output(call, 0, dtype, &x->shape)))
        return status;
    Value *y = call->out[0];
    for (int64_t e = 0; e < y->count; e++) {
        bool one = e % columns - e / columns == k;
        if (y->r)
            y->r[e] = one;
        else
            y->i[e] = one;
    }
    return ONNXPRESS_OK;
}

/* OneHot. Below opset 11 a negative index is out of range. */
static int read_one_hot(OpNode *node, Arena *arena, Error *err)
{
    bool *negatives = arena_array(arena, 1, sizeof *negatives);
    if (!negatives)
        return error_memory(err, "a node's parameters");
    *negatives = node->opset >= 11;
    node->params = negatives;
    return ONNXPRESS_OK;
}

/* Input k holds one number, which is an integer whatever its type. */
static bool whole_at(const Value *value, int64_t e, int64_t *whole)
{
    if (value->i) {
        *whole = value->i[e];
        return true;
    }
    real x = value->r[e];
    bool fits = x == REAL_FLOOR(x) && x > -0x1p53f && x < 0x1p53f;
    *whole = fits ? (int64_t)x : 0;
    return fits;
}

static int one_hot_forward(const OpCall *call)
{
    int64_t depth, index;
    int axis, status = op_require(call, 3);
    if (status)
        return status;
    const Value *indices = call->in[0], *values = call->in[2];
    Shape shape = indices->shape;
    if (call->in[1]->count != 1 || !whole_at(call->in[1], 0, &depth) || depth < 0)
        return op_error(call, ONNXPRESS_DATA, "the depth is no number of classes");
    if (values->shape.rank != 1 || values->count != 2)
        return op_error(call, ONNXPRESS_FORMAT, "input 2 must hold two values");
    if (shape.rank == TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "the result's rank is above %d",
                        TENSOR_MAX_RANK);
    if ((status = op_axis(call, attribute_int(call->node, "axis", -1), shape.rank + 1, &axis)))
        return status;
    memmove(shape.dim + axis + 1, shape.dim + axis,
            (size_t)(shape.rank - axis) * sizeof shape.dim[0]);
    shape.dim[axis] = depth;
    shape.rank++;
    if ((status = op_output(call, 0, values->dtype, &shape)))
        return status;
    Value *y = call->out[0];
    bool negatives = *(const bool *)call->node->params;
    int64_t inner = dims_product(&shape, axis + 1, shape.rank);
    for (int64_t e = 0; e < y->count; e++) {
        int64_t at = e / inner / depth * inner + e % inner, k = e / inner % depth;
        bool whole = whole_at(indices, at, &index);
        bool on = whole && (index == k || (negatives && index < 0 && index + depth == k));
        if (y->r)
            y->r[e] = values->r[on];
        else
            y->i[e] = values->i[on];
    }
    return ONNXPRESS_OK;
}

/* CenterCropPad: the region that input and output have in common, centred in both. */
typedef struct {
    Shape shape, region;
    int64_t from[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK]; /* strides */
    int64_t first_from, first_to;
} Region;

static int region_plan(const OpCall *call, Region *plan)
{
    const Shape *x = &call->in[0]->shape;
    const int64_t *sizes, *axes;
    int n, status = op_list(call, 1, TENSOR_MAX_RANK, &sizes, &n);
    int named = attribute_ints(call->node, "axes", &axes);
    bool marked[TENSOR_MAX_RANK];
    if (status)
        return status;
    if (named > TENSOR_MAX_RANK || n != (named < 0 ? x->rank : named))
        return op_error(call, ONNXPRESS_FORMAT, "there is not one size an axis");
    if (named > 0 && (status = op_mark_axes(call, axes, named, x->rank, marked)))
        return status;
    plan->shape = *x;
    for (int k = 0; k < n; k++) {
        if (sizes[k] < 0)
            return op_error(call, ONNXPRESS_DATA, "a size of %lld", (long long)sizes[k]);
        plan->shape.dim[named < 0 ? k : shape_axis(axes[k], x->rank)] = sizes[k];
    }
    return ONNXPRESS_OK;
}

/* Once the shape is known to be possible. */
static void region_place(const Shape *x, Region *plan)
{
    shape_strides(x, plan->from);
    shape_strides(&plan->shape, plan->to);
    plan->region = *x;
    plan->first_from = plan->first_to = 0;
    for (int a = 0; a < x->rank; a++) {
        int64_t in = x->dim[a], out = plan->shape.dim[a];
        if (in > out) {
            plan->first_from += (in - out) / 2 * plan->from[a];
            plan->region.dim[a] = out;
        } else {
            plan->first_to += (out - in) / 2 * plan->to[a];
        }
    }
}

static int region_forward(const OpCall *call)
{
    Region plan;
    int status = op_require(call, 2);
    if (status || (status = region_plan(call, &plan)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &plan.shape)))
        return status;
    const Value *x = call->in[0];
    Value *y = call->out[0];
    if (y->count == 0)
        return ONNXPRESS_OK;
    memset(value_data(y), 0, (size_t)y->count * value_element(y));
    if (x->count == 0)
        return ONNXPRESS_OK;
    region_place(&x->shape, &plan);
    size_t width = value_element(x);
    move_strided(x->dtype, &plan.region, (char *)value_data(y) + (size_t)plan.first_to * width,
                 plan.to, (char *)value_data(x) + (size_t)plan.first_from * width, plan.from);
    return ONNXPRESS_OK;
}

static int region_backward(const OpCall *call)
{
    Region plan;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0 || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = region_plan(call, &plan);
    if (status)
        return status;
    region_place(&call->in[0]->shape, &plan);
    add_strided(&plan.region, call->d_in[0] + plan.first_from, plan.from,
                call->d_out[0] + plan.first_to, plan.to);
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Trilu", 14, OP_KEEP_INPUTS, .forward = triangle_forward, .backward = triangle_backward,
     .curvature = curvature_as_backward},
    {"", "EyeLike", 9, 0, .forward = eye_forward},
    {"", "OneHot", 9, 0, .read = read_one_hot, .forward = one_hot_forward},
    {"", "CenterCropPad", 18, OP_KEEP_INPUTS, .forward = region_forward,
     .backward = region_backward, .curvature = curvature_as_backward},
};

const OpFamily op_family_mask = {rows, sizeof rows / sizeof rows[0]};
