/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that give the same numbers another shape, and ops that tell a shape. */
#include "ops/support_internal.h"

/* A target with 0 (copy the dim, unless allowzero) and -1 (what is left) into a shape. */
static int resolve_target(const OpCall *call, const int64_t *target, int rank, Shape *shape)
{
    const Value *x = call->in[0];
    bool allow_zero = attribute_int(call->node, "allowzero", 0) != 0;
    int open = -1;
    int64_t known;
    shape->rank = rank;
    for (int a = 0; a < rank; a++) {
        shape->dim[a] = target[a];
        if (target[a] == 0 && !allow_zero) {
            if (a >= x->shape.rank)
                return op_error(call, ONNXPRESS_FORMAT, "a 0 in the shape has no axis to copy");
            shape->dim[a] = x->shape.dim[a];
        } else if (target[a] == -1) {
            if (open >= 0)
                return op_error(call, ONNXPRESS_FORMAT, "the shape has -1 twice");
            open = a;
            shape->dim[a] = 1;
        }
    }
    bool fits = shape_count(shape, &known);
    if (fits && open >= 0) {
        fits = known > 0 ? x->count % known == 0 : false;
        shape->dim[open] = fits ? x->count / known : -1;
    } else if (fits) {
        fits = known == x->count;
    }
    if (!fits) {
        char from[100], to[100];
        return op_error(call, ONNXPRESS_FORMAT, "%s does not reshape to %s",
                        shape_text(&x->shape, from, sizeof from), shape_text(shape, to, sizeof to));
    }
    return ONNXPRESS_OK;
}

static int reshape_forward(const OpCall *call)
{
    const int64_t *target;
    int rank, status = op_require(call, 2);
    Shape shape;
    if (status || (status = op_list(call, 1, TENSOR_MAX_RANK, &target, &rank)) ||
        (status = resolve_target(call, target, rank, &shape)))
        return status;
    return op_alias(call, 0, call->in[0], &shape);
}

static int flatten_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status)
        return status;
    const Value *x = call->in[0];
    int64_t axis = attribute_int(call->node, "axis", 1);
    if (axis < -x->shape.rank || axis > x->shape.rank)
        return op_error(call, ONNXPRESS_FORMAT, "axis %lld does not exist at rank %d",
                        (long long)axis, x->shape.rank);
    int cut = (int)(axis < 0 ? axis + x->shape.rank : axis);
    Shape shape = {.rank = 2};
    shape.dim[0] = dims_product(&x->shape, 0, cut);
    shape.dim[1] = dims_product(&x->shape, cut, x->shape.rank);
    return op_alias(call, 0, x, &shape);
}

/* The axes of Squeeze and Unsqueeze: an attribute before opset 13, input 1 since. */
static int listed_axes(const OpCall *call, const int64_t **axes, int *n)
{
    *n = attribute_ints(call->node, "axes", axes);
    if (*n > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "more than %d axes", TENSOR_MAX_RANK);
    return *n < 0 && op_in(call, 1) ? op_list(call, 1, TENSOR_MAX_RANK, axes, n) : ONNXPRESS_OK;
}

static int squeeze_forward(const OpCall *call)
{
    const int64_t *axes;
    int n, status = op_require(call, 1);
    bool marked[TENSOR_MAX_RANK];
    if (status || (status = listed_axes(call, &axes, &n)) ||
        (n >= 0 && (status = op_mark_axes(call, axes, n, call->in[0]->shape.rank, marked))))
        return status;
    const Shape *from = &call->in[0]->shape;
    Shape shape = {.rank = 0};
    for (int a = 0; a < from->rank; a++) {
        if (n >= 0 && marked[a] && from->dim[a] != 1)
            return op_error(call, ONNXPRESS_FORMAT, "axis %d has %lld elements, not one", a,
                            (long long)from->dim[a]);
        if (n >= 0 ? !marked[a] : from->dim[a] != 1)
            shape.dim[shape.rank++] = from->dim[a];
    }
    return op_alias(call, 0, call->in[0], &shape);
}

static int unsqueeze_forward(const OpCall *call)
{
    const int64_t *axes;
    int n, status = op_require(call, 1);
    bool marked[TENSOR_MAX_RANK];
    if (status || (status = listed_axes(call, &axes, &n)))
        return status;
    const Shape *from = &call->in[0]->shape;
    if (n < 0)
        return op_error(call, ONNXPRESS_FORMAT, "axes are missing");
    if (from->rank + n > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "the result's rank is above %d",
                        TENSOR_MAX_RANK);
    Shape shape = {.rank = from->rank + n};
    if ((status = op_mark_axes(call, axes, n, shape.rank, marked)))
        return status;
    for (int a = 0, source = 0; a < shape.rank; a++)
        shape.dim[a] = marked[a] ? 1 : from->dim[source++];
    return op_alias(call, 0, call->in[0], &shape);
}

/* A bound of Shape's range: negatives count from the end, all are clamped. */
static int clamp_axis(int64_t axis, int rank)
{
    if (axis < 0)
        axis += rank;
    return axis < 0 ? 0 : axis > rank ? rank : (int)axis;
}

static int shape_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status)
        return status;
    const Shape *of = &call->in[0]->shape;
    int start = clamp_axis(attribute_int(call->node, "start", 0), of->rank);
    int end = clamp_axis(attribute_int(call->node, "end", of->rank), of->rank);
    Shape shape = {.rank = 1, .dim = {end > start ? end - start : 0}};
    if ((status = op_output(call, 0, DTYPE_INT64, &shape)))
        return status;
    for (int a = start; a < end; a++)
        call->out[0]->i[a - start] = of->dim[a];
    return ONNXPRESS_OK;
}

static int size_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    Shape scalar = {.rank = 0};
    if (status || (status = op_output(call, 0, DTYPE_INT64, &scalar)))
        return status;
    call->out[0]->i[0] = call->in[0]->count;
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Reshape", 5, 0, .forward = reshape_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Flatten", 1, 0, .forward = flatten_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Squeeze", 1, 0, .forward = squeeze_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Unsqueeze", 1, 0, .forward = unsqueeze_forward, .backward = same_backward,
     .curvature = curvature_as_backward},
    {"", "Shape", 1, 0, .forward = shape_forward},
    {"", "Size", 1, 0, .forward = size_forward},
};

const OpFamily op_family_shape = {rows, sizeof rows / sizeof rows[0]};
