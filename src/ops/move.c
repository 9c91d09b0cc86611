/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that move blocks and strides: each is one copy forward and one addition backward. */
#include "ops/support_internal.h"

#include <limits.h>
#include <string.h>

/* Transpose: strides of the input in the output's axis order. */
static int transpose_plan(const OpCall *call, Shape *shape, int64_t *stride)
{
    const Shape *from = &call->in[0]->shape;
    const int64_t *perm;
    int n = attribute_ints(call->node, "perm", &perm);
    bool marked[TENSOR_MAX_RANK];
    int64_t own[TENSOR_MAX_RANK];
    if (n >= 0 && n != from->rank)
        return op_error(call, ONNXPRESS_FORMAT, "perm has %d axes, the input %d", n, from->rank);
    int status = n < 0 ? ONNXPRESS_OK : op_mark_axes(call, perm, n, from->rank, marked);
    if (status)
        return status;
    shape_strides(from, own);
    shape->rank = from->rank;
    for (int a = 0; a < from->rank; a++) {
        int source = n < 0 ? from->rank - 1 - a : shape_axis(perm[a], from->rank);
        shape->dim[a] = from->dim[source];
        stride[a] = own[source];
    }
    return ONNXPRESS_OK;
}

static int transpose_forward(const OpCall *call)
{
    Shape shape;
    int64_t from[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK];
    int status = op_require(call, 1);
    if (status || (status = transpose_plan(call, &shape, from)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)))
        return status;
    shape_strides(&shape, to);
    move_strided(call->in[0]->dtype, &shape, value_data(call->out[0]), to, value_data(call->in[0]),
                 from);
    return ONNXPRESS_OK;
}

static int transpose_backward(const OpCall *call)
{
    Shape shape;
    int64_t to[TENSOR_MAX_RANK], from[TENSOR_MAX_RANK];
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = transpose_plan(call, &shape, to);
    if (status)
        return status;
    shape_strides(&shape, from);
    add_strided(&shape, call->d_in[0], to, call->d_out[0], from);
    return ONNXPRESS_OK;
}

static int expand_forward(const OpCall *call)
{
    const int64_t *target;
    Shape wanted, shape;
    int status = op_require(call, 2);
    if (status || (status = op_list(call, 1, TENSOR_MAX_RANK, &target, &wanted.rank)))
        return status;
    for (int a = 0; a < wanted.rank; a++)
        if ((wanted.dim[a] = target[a]) < 0)
            return op_error(call, ONNXPRESS_FORMAT, "a dimension is negative");
    const Value *x = call->in[0];
    if (!shape_broadcast(&x->shape, &wanted, &shape)) {
        char from[100], to[100];
        return op_error(call, ONNXPRESS_FORMAT, "%s does not expand to %s",
                        shape_text(&x->shape, from, sizeof from),
                        shape_text(&wanted, to, sizeof to));
    }
    if ((status = op_output(call, 0, x->dtype, &shape)))
        return status;
    int64_t source[TENSOR_MAX_RANK], dense[TENSOR_MAX_RANK];
    shape_strides(&shape, dense);
    shape_broadcast_strides(&x->shape, &shape, source);
    move_strided(x->dtype, &shape, value_data(call->out[0]), dense, value_data(x), source);
    return ONNXPRESS_OK;
}

static int expand_backward(const OpCall *call)
{
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    const Shape *shape = &call->out[0]->shape;
    int64_t target[TENSOR_MAX_RANK], dense[TENSOR_MAX_RANK];
    shape_strides(shape, dense);
    shape_broadcast_strides(&call->in[0]->shape, shape, target);
    add_strided(shape, call->d_in[0], target, call->d_out[0], dense);
    return ONNXPRESS_OK;
}

/* Concat and Split see tensors as `outer` rows; piece k takes `width` elements of each row of the
 * whole, from `first` on. */
typedef struct {
    Shape block;                      /* [outer, width] of the current piece */
    int64_t whole[2], part[2], first; /* strides of the two; where the piece starts in a row */
} Piece;

static Piece piece_of(const Shape *whole, int axis, int64_t first, int64_t size)
{
    int64_t outer = dims_product(whole, 0, axis);
    int64_t inner = dims_product(whole, axis + 1, whole->rank);
    return (Piece){.block = {.rank = 2, .dim = {outer, size * inner}},
                   .whole = {whole->dim[axis] * inner, 1},
                   .part = {size * inner, 1},
                   .first = first * inner};
}

static void *element_at(const Value *value, int64_t index)
{
    return dtype_is_real(value->dtype) ? (void *)(value->r + index) : (void *)(value->i + index);
}

static int concat_forward(const OpCall *call)
{
    int axis, status = op_require(call, call->n_in > 1 ? call->n_in : 1);
    if (status)
        return status;
    Shape shape = call->in[0]->shape;
    if ((status = op_axis(call, attribute_int(call->node, "axis", 1), shape.rank, &axis)))
        return status;
    for (int k = 1; k < call->n_in; k++) {
        Shape other = call->in[k]->shape;
        if ((status = op_require_alike(call, 0, k)))
            return status;
        bool overflow = other.rank != shape.rank ||
                        __builtin_add_overflow(shape.dim[axis], other.dim[axis], &shape.dim[axis]);
        if (!overflow)
            other.dim[axis] = shape.dim[axis];
        if (overflow || !shape_equal(&shape, &other))
            return op_error(call, ONNXPRESS_FORMAT, "input %d differs in more than axis %d", k,
                            axis);
    }
    if ((status = op_output(call, 0, call->in[0]->dtype, &shape)) || call->out[0]->count == 0)
        return status;
    int64_t first = 0;
    for (int k = 0; k < call->n_in; k++) {
        int64_t size = call->in[k]->shape.dim[axis];
        Piece p = piece_of(&shape, axis, first, size);
        move_strided(call->in[0]->dtype, &p.block, element_at(call->out[0], p.first), p.whole,
                     value_data(call->in[k]), p.part);
        first += size;
    }
    return ONNXPRESS_OK;
}

static int concat_backward(const OpCall *call)
{
    const Value *y = call->out[0];
    int64_t first = 0;
    int axis = shape_axis(attribute_int(call->node, "axis", 1), y->shape.rank);
    if (!call->d_out[0] || y->count == 0)
        return ONNXPRESS_OK;
    for (int k = 0; k < call->n_in; k++) {
        int64_t size = call->in[k]->shape.dim[axis];
        Piece p = piece_of(&y->shape, axis, first, size);
        if (call->d_in[k])
            add_strided(&p.block, call->d_in[k], p.part, call->d_out[0] + p.first, p.whole);
        first += size;
    }
    return ONNXPRESS_OK;
}

/* Sizes of the pieces: listed (attribute before opset 13, input 1 since), or as equal as they get.
 */
static int split_sizes(const OpCall *call, int64_t dim, const int64_t **listed, int64_t *equal)
{
    int n = attribute_ints(call->node, "split", listed), status;
    int64_t sum = 0;
    if (n < 0 && op_in(call, 1) && (status = op_list(call, 1, INT_MAX, listed, &n)))
        return status;
    *equal = dim / call->n_out + (dim % call->n_out != 0);
    if (n < 0) {
        *listed = NULL;
        if (attribute_int(call->node, "num_outputs", call->n_out) != call->n_out)
            return op_error(call, ONNXPRESS_FORMAT, "num_outputs is not the number of outputs");
        return ONNXPRESS_OK;
    }
    bool fits = n == call->n_out;
    for (int k = 0; fits && k < n; k++)
        fits = (*listed)[k] >= 0 && !__builtin_add_overflow(sum, (*listed)[k], &sum);
    if (!fits || sum != dim)
        return op_error(call, ONNXPRESS_FORMAT,
                        "the sizes listed don't make up %d pieces of an axis of %lld", call->n_out,
                        (long long)dim);
    return ONNXPRESS_OK;
}

static int split_forward(const OpCall *call)
{
    if (!op_in(call, 0) || call->n_out < 1)
        return op_error(call, ONNXPRESS_FORMAT, "an input or output is missing");
    const Value *x = call->in[0];
    const int64_t *listed;
    int64_t equal, first = 0;
    int axis, status = op_axis(call, attribute_int(call->node, "axis", 0), x->shape.rank, &axis);
    if (status || (status = split_sizes(call, x->shape.dim[axis], &listed, &equal)))
        return status;
    for (int k = 0; k < call->n_out; k++) {
        Shape shape = x->shape;
        int64_t left = x->shape.dim[axis] - first;
        shape.dim[axis] = listed ? listed[k] : left < equal ? left : equal;
        if (call->out[k] && (status = op_output(call, k, x->dtype, &shape)))
            return status;
        if (call->out[k] && call->out[k]->count) {
            Piece p = piece_of(&x->shape, axis, first, shape.dim[axis]);
            move_strided(x->dtype, &p.block, value_data(call->out[k]), p.part,
                         element_at(x, p.first), p.whole);
        }
        first += shape.dim[axis];
    }
    return ONNXPRESS_OK;
}

static int split_backward(const OpCall *call)
{
    const Value *x = call->in[0];
    const int64_t *listed;
    int64_t equal, first = 0;
    int axis = shape_axis(attribute_int(call->node, "axis", 0), x->shape.rank);
    if (!call->d_in[0] || x->count == 0)
        return ONNXPRESS_OK;
    int status = split_sizes(call, x->shape.dim[axis], &listed, &equal);
    for (int k = 0; !status && k < call->n_out; k++) {
        int64_t left = x->shape.dim[axis] - first;
        int64_t size = listed ? listed[k] : left < equal ? left : equal;
        Piece p = piece_of(&x->shape, axis, first, size);
        if (call->d_out[k])
            add_strided(&p.block, call->d_in[0] + p.first, p.whole, call->d_out[k], p.part);
        first += size;
    }
    return status;
}

/* Slice: attributes before opset 10, inputs since. */
typedef struct {
    Shape shape;                     /* of the result */
    int64_t first;                   /* element of the input that the result starts with */
    int64_t stride[TENSOR_MAX_RANK]; /* of the input, times the steps */
} SlicePlan;

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* One axis: where it starts, the step (bounded here) and the number of elements. */
static int slice_axis(const OpCall *call, int64_t dim, int64_t start, int64_t end, int64_t *step,
                      int64_t *first, int64_t *n)
{
    if (*step == 0)
        return op_error(call, ONNXPRESS_FORMAT, "a step is zero");
    if (start < 0)
        start += dim;
    if (end < 0)
        end += dim;
    bool down = *step < 0;
    start = down ? clamp(start, 0, dim - 1) : clamp(start, 0, dim);
    end = down ? clamp(end, -1, dim - 1) : clamp(end, 0, dim);
    int64_t span = down ? start - end : end - start, longest = dim > 1 ? dim : 1;
    *step = clamp(*step, -longest, longest); /* a longer one reaches no further element */
    *n = dim > 0 && span > 0 ? (span - 1) / (down ? -*step : *step) + 1 : 0;
    *first = start;
    return ONNXPRESS_OK;
}

enum { STARTS, ENDS, AXES, STEPS, SLICE_LISTS };

typedef struct {
    bool from_inputs;
    const int64_t *list[SLICE_LISTS]; /* attributes; NULL: absent */
    int n[SLICE_LISTS];               /* -1: absent */
} Slice;

static int read_slice(OpNode *node, Arena *arena, Error *err)
{
    static const char *const names[] = {"starts", "ends", "axes"}; /* steps came with the inputs */
    Slice *slice = arena_array(arena, 1, sizeof *slice);
    if (!slice)
        return error_memory(err, "a node's parameters");
    slice->from_inputs = node->opset >= 10;
    for (int k = 0; k < SLICE_LISTS; k++) {
        slice->n[k] = -1;
        if (!slice->from_inputs && k < STEPS)
            slice->n[k] = attribute_ints(node, names[k], &slice->list[k]);
    }
    node->params = slice;
    return ONNXPRESS_OK;
}

static int slice_lists(const OpCall *call, Slice *slice)
{
    *slice = *(const Slice *)call->node->params;
    for (int k = 0, status; slice->from_inputs && k < SLICE_LISTS; k++)
        if (op_in(call, k + 1) &&
            (status = op_list(call, k + 1, TENSOR_MAX_RANK, &slice->list[k], &slice->n[k])))
            return status;
    int n = slice->n[STARTS];
    bool agree = n >= 0 && n <= TENSOR_MAX_RANK && slice->n[ENDS] == n;
    for (int k = AXES; agree && k <= STEPS; k++)
        agree = slice->n[k] < 0 || slice->n[k] == n;
    if (!agree)
        return op_error(call, ONNXPRESS_FORMAT, "starts, ends, axes and steps don't agree");
    return ONNXPRESS_OK;
}

static int slice_plan(const OpCall *call, SlicePlan *plan)
{
    static const int64_t leading[TENSOR_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
    const Shape *from = &call->in[0]->shape;
    int64_t own[TENSOR_MAX_RANK] = {0}, first[TENSOR_MAX_RANK] = {0};
    bool marked[TENSOR_MAX_RANK];
    Slice slice;
    int status = slice_lists(call, &slice);
    if (status)
        return status;
    int n = slice.n[STARTS];
    const int64_t *axes = slice.n[AXES] < 0 ? leading : slice.list[AXES];
    if ((status = op_mark_axes(call, axes, n, from->rank, marked)))
        return status;
    shape_strides(from, own);
    *plan = (SlicePlan){.shape = *from};
    memcpy(plan->stride, own, sizeof own);
    for (int k = 0; k < n; k++) {
        int axis = shape_axis(axes[k], from->rank);
        int64_t step = slice.n[STEPS] < 0 ? 1 : slice.list[STEPS][k];
        if ((status = slice_axis(call, from->dim[axis], slice.list[STARTS][k], slice.list[ENDS][k],
                                 &step, &first[axis], &plan->shape.dim[axis])))
            return status;
        plan->stride[axis] = (int64_t)((uint64_t)own[axis] * (uint64_t)step);
    }
    for (int a = 0; call->in[0]->count && a < from->rank; a++)
        plan->first += first[a] * own[a];
    return ONNXPRESS_OK;
}

static int slice_forward(const OpCall *call)
{
    SlicePlan plan;
    int64_t dense[TENSOR_MAX_RANK];
    int status = op_require(call, 1);
    if (status || (status = slice_plan(call, &plan)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &plan.shape)) || !call->out[0]->count)
        return status;
    shape_strides(&plan.shape, dense);
    move_strided(call->in[0]->dtype, &plan.shape, value_data(call->out[0]), dense,
                 element_at(call->in[0], plan.first), plan.stride);
    return ONNXPRESS_OK;
}

static int slice_backward(const OpCall *call)
{
    SlicePlan plan;
    int64_t dense[TENSOR_MAX_RANK];
    if (!call->d_in[0] || !call->d_out[0] || !call->out[0]->count)
        return ONNXPRESS_OK;
    int status = slice_plan(call, &plan);
    if (status)
        return status;
    shape_strides(&plan.shape, dense);
    add_strided(&plan.shape, call->d_in[0] + plan.first, plan.stride, call->d_out[0], dense);
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Transpose", 1, 0, .forward = transpose_forward, .backward = transpose_backward,
     .curvature = curvature_as_backward},
    {"", "Expand", 8, 0, .forward = expand_forward, .backward = expand_backward,
     .curvature = curvature_as_backward},
    {"", "Concat", 4, 0, .forward = concat_forward, .backward = concat_backward,
     .curvature = curvature_as_backward},
    {"", "Split", 2, OP_KEEP_INPUTS, .forward = split_forward, .backward = split_backward,
     .curvature = curvature_as_backward},
    {"", "Slice", 1, OP_KEEP_INPUTS, .read = read_slice, .forward = slice_forward,
     .backward = slice_backward, .curvature = curvature_as_backward},
};

const OpFamily op_family_move = {rows, sizeof rows / sizeof rows[0]};
