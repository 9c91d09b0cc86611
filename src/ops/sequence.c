/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequences of tensors. A sequence is a value whose elements lie one behind the other, so that its
 * gradient is one array too, and all that happens to it are copies of runs of numbers. */
#include "ops/support_internal.h"

#include <string.h>

static int require_sequence(const OpCall *call, int k)
{
    if (op_in(call, k) && call->in[k]->items)
        return op_require(call, 0);
    return op_error(call, ONNXPRESS_FORMAT, "input %d is no sequence", k);
}

static int require_tensor(const OpCall *call, int k)
{
    if (op_in(call, k) && !call->in[k]->items)
        return ONNXPRESS_OK;
    return op_error(call, ONNXPRESS_FORMAT, "input %d is no tensor", k);
}

/* The count of a shape that an existing value has. */
static int64_t size_of(const Shape *shape)
{
    int64_t count = 0;
    shape_count(shape, &count);
    return count;
}

/* Where item k of a sequence begins. */
static int64_t item_start(const Value *sequence, int64_t k)
{
    int64_t at = 0;
    for (int64_t j = 0; j < k; j++)
        at += size_of(&sequence->items[j]);
    return at;
}

/* The position that input k names among n (-1: the last), `fallback` when it is omitted. */
static int position(const OpCall *call, int k, int64_t n, int64_t fallback, int64_t *at)
{
    *at = fallback;
    if (op_in(call, k)) {
        int status = op_require_integer(call, k);
        if (status)
            return status;
        if (call->in[k]->count != 1)
            return op_error(call, ONNXPRESS_FORMAT, "the position is not one number");
        *at = call->in[k]->i[0];
        *at += *at < 0 ? n : 0;
    }
    if (*at < 0 || *at >= n)
        return op_error(call, ONNXPRESS_DATA, "position %lld of %lld", (long long)*at,
                        (long long)n);
    return ONNXPRESS_OK;
}

/* Copies n numbers from one value's place to another's. */
static void copy_run(const Value *to, int64_t at, const Value *from, int64_t start, int64_t n)
{
    size_t size = value_element(to);
    if (n > 0)
        memcpy((char *)value_data(to) + (size_t)at * size,
               (const char *)value_data(from) + (size_t)start * size, (size_t)n * size);
}

static void add_run(real *to, int64_t at, const real *from, int64_t start, int64_t n)
{
    if (to && from)
        add_dense(n, to + at, from + start);
}

/* ---- SequenceEmpty, SequenceConstruct ---- */

static int empty_forward(const OpCall *call)
{
    int status = op_require(call, 0);
    int dtype = (int)attribute_int(call->node, "dtype", DTYPE_FLOAT);
    return status ? status : op_sequence(call, 0, dtype, NULL, 0);
}

static int construct_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    Shape *items = op_scratch(call, (size_t)call->n_in + 1, sizeof *items);
    if (!items)
        return ONNXPRESS_MEMORY;
    for (int k = 0; !status && k < call->n_in; k++) {
        if ((status = require_tensor(call, k)) || (status = op_require_alike(call, 0, k)))
            return status;
        items[k] = call->in[k]->shape;
    }
    if (status || (status = op_sequence(call, 0, call->in[0]->dtype, items, call->n_in)))
        return status;
    int64_t at = 0;
    for (int k = 0; k < call->n_in; at += call->in[k++]->count)
        copy_run(call->out[0], at, call->in[k], 0, call->in[k]->count);
    return ONNXPRESS_OK;
}

static int construct_backward(const OpCall *call)
{
    int64_t at = 0;
    for (int k = 0; k < call->n_in; at += call->in[k++]->count)
        add_run(call->d_in[k], 0, call->d_out[0], at, call->in[k]->count);
    return ONNXPRESS_OK;
}

/* ---- SequenceAt, SequenceLength ---- */

static int at_forward(const OpCall *call)
{
    int64_t k;
    int status = require_sequence(call, 0);
    if (status || (status = position(call, 1, call->in[0]->n_items, -1, &k)))
        return status;
    const Value *x = call->in[0];
    if ((status = op_output(call, 0, x->dtype, &x->items[k])))
        return status;
    copy_run(call->out[0], 0, x, item_start(x, k), call->out[0]->count);
    return ONNXPRESS_OK;
}

static int at_backward(const OpCall *call)
{
    int64_t k;
    int status = position(call, 1, call->in[0]->n_items, -1, &k);
    if (!status)
        add_run(call->d_in[0], item_start(call->in[0], k), call->d_out[0], 0,
                size_of(&call->in[0]->items[k]));
    return status;
}

static int length_forward(const OpCall *call)
{
    static const Shape scalar = {0};
    int status = require_sequence(call, 0);
    if (!status && !(status = op_output(call, 0, DTYPE_INT64, &scalar)))
        call->out[0]->i[0] = call->in[0]->n_items;
    return status;
}

/* ---- SequenceInsert, SequenceErase ---- */

/* What is counted from the end is counted in the sequence as it was. */
static int insert_position(const OpCall *call, int64_t *k)
{
    int64_t n = call->in[0]->n_items;
    bool before = op_in(call, 2) && call->in[2]->i && call->in[2]->count == 1 &&
                  call->in[2]->i[0] < 0;
    return position(call, 2, before ? n : n + 1, n, k);
}

static int insert_forward(const OpCall *call)
{
    int64_t k;
    int status = require_sequence(call, 0);
    if (status || (status = require_tensor(call, 1)))
        return status;
    const Value *x = call->in[0], *one = call->in[1];
    if ((status = insert_position(call, &k)) ||
        (x->n_items > 0 && (status = op_require_alike(call, 0, 1))))
        return status;
    Shape *items = op_scratch(call, (size_t)x->n_items + 1, sizeof *items);
    if (!items)
        return ONNXPRESS_MEMORY;
    for (int64_t j = 0; j <= x->n_items; j++)
        items[j] = j == k ? one->shape : x->items[j - (j > k)];
    if ((status = op_sequence(call, 0, one->dtype, items, x->n_items + 1)))
        return status;
    int64_t at = item_start(x, k);
    copy_run(call->out[0], 0, x, 0, at);
    copy_run(call->out[0], at, one, 0, one->count);
    copy_run(call->out[0], at + one->count, x, at, x->count - at);
    return ONNXPRESS_OK;
}

static int insert_backward(const OpCall *call)
{
    const Value *x = call->in[0], *one = call->in[1];
    int64_t k;
    int status = insert_position(call, &k);
    if (status)
        return status;
    int64_t at = item_start(x, k);
    add_run(call->d_in[0], 0, call->d_out[0], 0, at);
    add_run(call->d_in[1], 0, call->d_out[0], at, one->count);
    add_run(call->d_in[0], at, call->d_out[0], at + one->count, x->count - at);
    return ONNXPRESS_OK;
}

static int erase_forward(const OpCall *call)
{
    int64_t k;
    int status = require_sequence(call, 0);
    if (status)
        return status;
    const Value *x = call->in[0];
    if ((status = position(call, 1, x->n_items, x->n_items - 1, &k)))
        return status;
    Shape *items = op_scratch(call, (size_t)x->n_items, sizeof *items);
    if (!items)
        return ONNXPRESS_MEMORY;
    for (int64_t j = 0; j + 1 < x->n_items; j++)
        items[j] = x->items[j + (j >= k)];
    if ((status = op_sequence(call, 0, x->dtype, items, x->n_items - 1)))
        return status;
    int64_t at = item_start(x, k), gone = size_of(&x->items[k]);
    copy_run(call->out[0], 0, x, 0, at);
    copy_run(call->out[0], at, x, at + gone, x->count - at - gone);
    return ONNXPRESS_OK;
}

static int erase_backward(const OpCall *call)
{
    const Value *x = call->in[0];
    int64_t k;
    int status = position(call, 1, x->n_items, x->n_items - 1, &k);
    if (status)
        return status;
    int64_t at = item_start(x, k), gone = size_of(&x->items[k]);
    add_run(call->d_in[0], 0, call->d_out[0], 0, at);
    add_run(call->d_in[0], at + gone, call->d_out[0], at, x->count - at - gone);
    return ONNXPRESS_OK;
}

/* ---- SplitToSequence, ConcatFromSequence: a tensor, and the items that lie along an axis of it ---- */

typedef struct {
    Shape whole, part; /* part: of the current item, with as many axes as the whole */
    int64_t whole_stride[TENSOR_MAX_RANK], part_stride[TENSOR_MAX_RANK];
    int64_t at, start; /* where the item begins in the whole, and in the sequence */
    int axis;
} Cut;

static void cut_start(Cut *cut, const Shape *whole, int axis)
{
    *cut = (Cut){.whole = *whole, .part = *whole, .axis = axis};
    shape_strides(whole, cut->whole_stride);
    cut->part.dim[axis] = 0;
}

/* The next item, of `length` along the axis. */
static void cut_next(Cut *cut, int64_t length)
{
    cut->at += cut->part.dim[cut->axis] * cut->whole_stride[cut->axis];
    cut->start += size_of(&cut->part);
    cut->part.dim[cut->axis] = length;
    shape_strides(&cut->part, cut->part_stride);
}

static Shape without_axis(const Shape *shape, int axis)
{
    Shape less = *shape;
    less.rank--;
    for (int a = axis; a < less.rank; a++)
        less.dim[a] = shape->dim[a + 1];
    return less;
}

typedef struct {
    int axis;
    bool keep; /* the axis */
    const int64_t *lengths;
    int64_t each, n; /* lengths NULL: so many each, the last one what is left */
} Split;

static int split_plan(const OpCall *call, Split *split)
{
    const Shape *x = &call->in[0]->shape;
    int status = op_axis(call, attribute_int(call->node, "axis", 0), x->rank, &split->axis);
    if (status)
        return status;
    int64_t length = x->dim[split->axis], total = 0;
    const Value *given = op_in(call, 1);
    split->keep = given || attribute_int(call->node, "keepdims", 1) != 0;
    split->lengths = NULL;
    split->each = 1;
    if (given && (status = op_require_integer(call, 1)))
        return status;
    if (given && given->shape.rank == 0)
        split->each = given->i[0];
    if (split->each < 1)
        return op_error(call, ONNXPRESS_DATA, "pieces of %lld", (long long)split->each);
    split->n = length / split->each + (length % split->each != 0);
    if (!given || given->shape.rank == 0)
        return ONNXPRESS_OK;
    split->lengths = given->i;
    split->n = given->count;
    for (int64_t k = 0; k < given->count; k++)
        if (given->i[k] < 0 || __builtin_add_overflow(total, given->i[k], &total))
            return op_error(call, ONNXPRESS_DATA, "a piece of %lld", (long long)given->i[k]);
    if (total != length)
        return op_error(call, ONNXPRESS_DATA, "pieces of %lld from %lld", (long long)total,
                        (long long)length);
    return ONNXPRESS_OK;
}

static int64_t split_length(const Split *split, const Shape *x, int64_t k)
{
    int64_t left = x->dim[split->axis] - k * split->each;
    return split->lengths ? split->lengths[k] : left < split->each ? left : split->each;
}

static int split_forward(const OpCall *call)
{
    Split split;
    int status = op_require(call, 1);
    if (status || (status = require_tensor(call, 0)) || (status = split_plan(call, &split)))
        return status;
    const Value *x = call->in[0];
    Shape *items = op_scratch(call, (size_t)split.n + 1, sizeof *items);
    if (!items)
        return ONNXPRESS_MEMORY;
    for (int64_t k = 0; k < split.n; k++) {
        items[k] = x->shape;
        items[k].dim[split.axis] = split_length(&split, &x->shape, k);
        if (!split.keep)
            items[k] = without_axis(&items[k], split.axis);
    }
    if ((status = op_sequence(call, 0, x->dtype, items, split.n)))
        return status;
    Cut cut;
    cut_start(&cut, &x->shape, split.axis);
    size_t size = value_element(x);
    for (int64_t k = 0; k < split.n; k++) {
        cut_next(&cut, split_length(&split, &x->shape, k));
        move_strided(x->dtype, &cut.part,
                     (char *)value_data(call->out[0]) + (size_t)cut.start * size, cut.part_stride,
                     (const char *)value_data(x) + (size_t)cut.at * size, cut.whole_stride);
    }
    return ONNXPRESS_OK;
}

static int split_backward(const OpCall *call)
{
    Split split;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = split_plan(call, &split);
    if (status)
        return status;
    Cut cut;
    cut_start(&cut, &call->in[0]->shape, split.axis);
    for (int64_t k = 0; k < split.n; k++) {
        cut_next(&cut, split_length(&split, &call->in[0]->shape, k));
        add_strided(&cut.part, call->d_in[0] + cut.at, cut.whole_stride,
                    call->d_out[0] + cut.start, cut.part_stride);
    }
    return ONNXPRESS_OK;
}

/* The result's shape; its items, where `fresh` with an axis of one put in. */
static int join_plan(const OpCall *call, Shape *whole, int *axis, bool *fresh)
{
    const Value *x = call->in[0];
    if (x->n_items < 1)
        return op_error(call, ONNXPRESS_DATA, "an empty sequence");
    *fresh = attribute_int(call->node, "new_axis", 0) != 0;
    *whole = x->items[0];
    int status = op_axis(call, attribute_int(call->node, "axis", 0), whole->rank + *fresh, axis);
    if (status)
        return status;
    if (whole->rank + *fresh > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "more than %d axes", TENSOR_MAX_RANK);
    int64_t total = *fresh ? x->n_items : 0;
    for (int64_t k = 0; k < x->n_items; k++) {
        Shape same = x->items[k];
        if (!*fresh && same.rank == whole->rank) {
            total += same.dim[*axis]; /* all of them are there: no overflow but of nothing */
            same.dim[*axis] = whole->dim[*axis];
        }
        if (!shape_equal(&same, whole))
            return op_error(call, ONNXPRESS_FORMAT, "the items' shapes do not fit");
    }
    if (*fresh) {
        whole->rank++;
        for (int a = whole->rank - 1; a > *axis; a--)
            whole->dim[a] = whole->dim[a - 1];
    }
    whole->dim[*axis] = total;
    return ONNXPRESS_OK;
}

static int join_forward(const OpCall *call)
{
    Shape whole;
    Cut cut;
    int axis;
    bool fresh;
    int status = require_sequence(call, 0);
    if (status || (status = join_plan(call, &whole, &axis, &fresh)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &whole)))
        return status;
    const Value *x = call->in[0];
    size_t size = value_element(x);
    cut_start(&cut, &whole, axis);
    for (int64_t k = 0; k < x->n_items; k++) {
        cut_next(&cut, fresh ? 1 : x->items[k].dim[axis]);
        move_strided(x->dtype, &cut.part, (char *)value_data(call->out[0]) + (size_t)cut.at * size,
                     cut.whole_stride, (const char *)value_data(x) + (size_t)cut.start * size,
                     cut.part_stride);
    }
    return ONNXPRESS_OK;
}

static int join_backward(const OpCall *call)
{
    Shape whole;
    Cut cut;
    int axis;
    bool fresh;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = join_plan(call, &whole, &axis, &fresh);
    if (status)
        return status;
    cut_start(&cut, &whole, axis);
    for (int64_t k = 0; k < call->in[0]->n_items; k++) {
        cut_next(&cut, fresh ? 1 : call->in[0]->items[k].dim[axis]);
        add_strided(&cut.part, call->d_in[0] + cut.start, cut.part_stride,
                    call->d_out[0] + cut.at, cut.whole_stride);
    }
    return ONNXPRESS_OK;
}

#define COPIES .curvature = curvature_as_backward
static const OpRow rows[] = {
    {"", "SequenceEmpty", 11, 0, .forward = empty_forward},
    {"", "SequenceConstruct", 11, OP_KEEP_INPUTS, .forward = construct_forward,
     .backward = construct_backward, COPIES},
    {"", "SequenceAt", 11, OP_KEEP_INPUTS, .forward = at_forward, .backward = at_backward, COPIES},
    {"", "SequenceLength", 11, 0, .forward = length_forward},
    {"", "SequenceInsert", 11, OP_KEEP_INPUTS, .forward = insert_forward,
     .backward = insert_backward, COPIES},
    {"", "SequenceErase", 11, OP_KEEP_INPUTS, .forward = erase_forward, .backward = erase_backward,
     COPIES},
    {"", "SplitToSequence", 11, OP_KEEP_INPUTS, .forward = split_forward,
     .backward = split_backward, COPIES},
    {"", "ConcatFromSequence", 11, OP_KEEP_INPUTS, .forward = join_forward,
     .backward = join_backward, COPIES},
};

const OpFamily op_family_sequence = {rows, sizeof rows / sizeof rows[0]};
