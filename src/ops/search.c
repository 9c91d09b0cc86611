/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops whose answer is where something is: the largest, those not zero, those that differ. */
#include "ops/support_internal.h"

#include <stdlib.h>
#include <string.h>

/* A tensor as lines along one axis. */
typedef struct {
    int axis;
    int64_t outer, n, inner;
} Lines;

static int lines_along(const OpCall *call, int64_t axis, Lines *lines)
{
    const Shape *x = &call->in[0]->shape;
    int status = op_axis(call, axis, x->rank, &lines->axis);
    if (status)
        return status;
    lines->outer = dims_product(x, 0, lines->axis);
    lines->n = x->dim[lines->axis];
    lines->inner = dims_product(x, lines->axis + 1, x->rank);
    return ONNXPRESS_OK;
}

/* ArgMax and ArgMin. */
static int64_t extreme_at(const Value *x, int64_t first, const Lines *lines, int sign, bool last)
{
    int64_t best = 0;
    for (int64_t k = 1; k < lines->n; k++) {
        int64_t at = first + k * lines->inner, to = first + best * lines->inner;
        int order;
        if (x->r)
            order = (x->r[at] > x->r[to]) - (x->r[at] < x->r[to]);
        else
            order = (x->i[at] > x->i[to]) - (x->i[at] < x->i[to]);
        if (order * sign > 0 || (order == 0 && last && (x->i || x->r[at] == x->r[to])))
            best = k;
    }
    return best;
}

static int arg_forward(const OpCall *call, int sign)
{
    Lines lines;
    int status = op_require(call, 1);
    if (status || (status = lines_along(call, attribute_int(call->node, "axis", 0), &lines)))
        return status;
    const Value *x = call->in[0];
    bool keep = attribute_int(call->node, "keepdims", 1) != 0;
    bool last = attribute_int(call->node, "select_last_index", 0) != 0;
    Shape shape = {0};
    for (int a = 0; a < x->shape.rank; a++)
        if (a != lines.axis)
            shape.dim[shape.rank++] = x->shape.dim[a];
        else if (keep)
            shape.dim[shape.rank++] = 1;
    if ((status = op_output(call, 0, DTYPE_INT64, &shape)))
        return status;
    Value *y = call->out[0];
    if (y->count > 0 && lines.n == 0)
        return op_error(call, ONNXPRESS_DATA, "there is nothing along axis %d", lines.axis);
    for (int64_t e = 0; e < y->count; e++)
        y->i[e] = extreme_at(x, e / lines.inner * lines.n * lines.inner + e % lines.inner, &lines,
                             sign, last);
    return ONNXPRESS_OK;
}

static int arg_most_forward(const OpCall *call)
{
    return arg_forward(call, 1);
}

static int arg_least_forward(const OpCall *call)
{
    return arg_forward(call, -1);
}

/* TopK. The larger key comes first, of equals the lower index; NaN counts as the largest. */
typedef struct {
    real r;
    int64_t i, at;
} TopKey;

static int compare_real(const void *a, const void *b)
{
    const TopKey *x = a, *y = b;
    bool nan_x = x->r != x->r, nan_y = y->r != y->r;
    if (nan_x != nan_y)
        return nan_x ? -1 : 1;
    if (x->r != y->r && !nan_x)
        return x->r > y->r ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

static int compare_integer(const void *a, const void *b)
{
    const TopKey *x = a, *y = b;
    if (x->i != y->i)
        return x->i > y->i ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

typedef struct {
    Lines lines;
    int64_t k;
    bool largest;
    TopKey *key; /* [lines.n] */
} TopPlan;

static int top_plan(const OpCall *call, TopPlan *plan)
{
    int status = lines_along(call, attribute_int(call->node, "axis", -1), &plan->lines);
    if (status)
        return status;
    plan->largest = attribute_int(call->node, "largest", 1) != 0;
    plan->k = attribute_int(call->node, "k", -1); /* below opset 10 */
    if (op_in(call, 1)) {
        const int64_t *list;
        int n;
        if ((status = op_list(call, 1, 1, &list, &n)))
            return status;
        plan->k = n ? list[0] : -1;
    }
    if (plan->k < 0 || plan->k > plan->lines.n)
        return op_error(call, ONNXPRESS_DATA, "k = %lld of an axis of %lld", (long long)plan->k,
                        (long long)plan->lines.n);
    int64_t keys = call->in[0]->count > 0 ? plan->lines.n : 0; /* else an axis may have any size */
    plan->key = op_scratch(call, (size_t)keys + 1, sizeof *plan->key);
    return plan->key ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
}

/* Sorts the line that begins at `first` into plan->key. */
static void top_line(const TopPlan *plan, const Value *x, int64_t first)
{
    for (int64_t k = 0; k < plan->lines.n; k++) {
        int64_t at = first + k * plan->lines.inner;
        TopKey key = {.at = k};
        if (x->r)
            key.r = plan->largest ? x->r[at] : -x->r[at];
        else
            key.i = plan->largest ? x->i[at] : ~x->i[at];
        plan->key[k] = key;
    }
    qsort(plan->key, (size_t)plan->lines.n, sizeof *plan->key,
          x->r ? compare_real : compare_integer);
}

static int top_forward(const OpCall *call)
{
    TopPlan plan;
    if (!op_in(call, 0))
        return op_error(call, ONNXPRESS_FORMAT, "input 0 is missing");
    int status = top_plan(call, &plan);
    if (status)
        return status;
    const Value *x = call->in[0];
    Value *value = call->n_out > 0 ? call->out[0] : NULL;
    Value *index = call->n_out > 1 ? call->out[1] : NULL;
    Shape shape = x->shape;
    shape.dim[plan.lines.axis] = plan.k;
    if ((value && (status = op_output(call, 0, x->dtype, &shape))) ||
        (index && (status = op_output(call, 1, DTYPE_INT64, &shape))) || x->count == 0)
        return status;
    for (int64_t line = 0; line < plan.lines.outer * plan.lines.inner; line++) {
        int64_t o = line / plan.lines.inner, i = line % plan.lines.inner;
        int64_t first = o * plan.lines.n * plan.lines.inner + i;
        top_line(&plan, x, first);
        for (int64_t k = 0; k < plan.k; k++) {
            int64_t to = (o * plan.k + k) * plan.lines.inner + i;
            int64_t from = first + plan.key[k].at * plan.lines.inner;
            if (index)
                index->i[to] = plan.key[k].at;
            if (value && x->r)
                value->r[to] = x->r[from];
            else if (value)
                value->i[to] = x->i[from];
        }
    }
    return ONNXPRESS_OK;
}

static int top_backward(const OpCall *call)
{
    TopPlan plan;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = top_plan(call, &plan);
    if (status)
        return status;
    for (int64_t line = 0; line < plan.lines.outer * plan.lines.inner; line++) {
        int64_t o = line / plan.lines.inner, i = line % plan.lines.inner;
        int64_t first = o * plan.lines.n * plan.lines.inner + i;
        top_line(&plan, call->in[0], first);
        for (int64_t k = 0; k < plan.k; k++)
            call->d_in[0][first + plan.key[k].at * plan.lines.inner] +=
                call->d_out[0][(o * plan.k + k) * plan.lines.inner + i];
    }
    return ONNXPRESS_OK;
}

static bool is_zero(const Value *x, int64_t e)
{
    return x->r ? x->r[e] == 0 : x->i[e] == 0;
}

static int non_zero_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status)
        return status;
    const Value *x = call->in[0];
    int64_t n = 0, dense[TENSOR_MAX_RANK], found = 0;
    for (int64_t e = 0; e < x->count; e++)
        n += !is_zero(x, e);
    Shape shape = {.rank = 2, .dim = {x->shape.rank, n}};
    if ((status = op_output(call, 0, DTYPE_INT64, &shape)) || x->count == 0)
        return status;
    shape_strides(&x->shape, dense);
    for (int64_t e = 0; e < x->count; e++) {
        if (is_zero(x, e))
            continue;
        for (int a = 0; a < x->shape.rank; a++)
            call->out[0]->i[a * n + found] = e / dense[a] % x->shape.dim[a];
        found++;
    }
    return ONNXPRESS_OK;
}

/* Compress: the slices that the condition names, along an axis or of the flat tensor. */
static int compress_plan(const OpCall *call, Lines *lines, int64_t *kept)
{
    const Value *x = call->in[0], *condition = call->in[1];
    int64_t axis = attribute_int(call->node, "axis", INT64_MAX);
    int status = ONNXPRESS_OK;
    if (axis == INT64_MAX)
        *lines = (Lines){.axis = -1, .outer = 1, .n = x->count, .inner = 1};
    else
        status = lines_along(call, axis, lines);
    if (status)
        return status;
    if (condition->shape.rank != 1 || condition->count > lines->n)
        return op_error(call, ONNXPRESS_FORMAT, "the condition does not fit the axis");
    *kept = 0;
    for (int64_t k = 0; k < condition->count; k++)
        *kept += condition->i[k] != 0;
    return ONNXPRESS_OK;
}

static int compress_forward(const OpCall *call)
{
    Lines lines;
    int64_t kept;
    int status = op_require(call, 2);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = compress_plan(call, &lines, &kept)))
        return status;
    const Value *x = call->in[0], *condition = call->in[1];
    Shape shape = {.rank = 1, .dim = {kept}};
    if (lines.axis >= 0) {
        shape = x->shape;
        shape.dim[lines.axis] = kept;
    }
    if ((status = op_output(call, 0, x->dtype, &shape)) || call->out[0]->count == 0)
        return status;
    size_t block = (size_t)lines.inner * value_element(x);
    char *to = value_data(call->out[0]);
    for (int64_t o = 0; o < lines.outer; o++)
        for (int64_t k = 0; k < condition->count; k++)
            if (condition->i[k]) {
                memcpy(to, (char *)value_data(x) + (size_t)(o * lines.n + k) * block, block);
                to += block;
            }
    return ONNXPRESS_OK;
}

static int compress_backward(const OpCall *call)
{
    Lines lines;
    int64_t kept;
    if (!call->d_in[0] || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = compress_plan(call, &lines, &kept);
    if (status)
        return status;
    const Value *condition = call->in[1];
    const real *from = call->d_out[0];
    for (int64_t o = 0; o < lines.outer; o++)
        for (int64_t k = 0; k < condition->count; k++)
            if (condition->i[k]) {
                add_dense(lines.inner, call->d_in[0] + (o * lines.n + k) * lines.inner, from);
                from += lines.inner;
            }
    return ONNXPRESS_OK;
}

/* Unique: slices along an axis, or the elements, as rows that are compared. */
typedef struct {
    Lines lines;
    const Value *x;
    int64_t size; /* elements of a slice */
} Slices;

static int slice_order(const Slices *s, int64_t a, int64_t b)
{
    for (int64_t e = 0; e < s->size; e++) {
        int64_t block = e / s->lines.inner * s->lines.n, i = e % s->lines.inner;
        int64_t at = (block + a) * s->lines.inner + i, to = (block + b) * s->lines.inner + i;
        int order = s->x->r ? (s->x->r[at] > s->x->r[to]) - (s->x->r[at] < s->x->r[to])
                            : (s->x->i[at] > s->x->i[to]) - (s->x->i[at] < s->x->i[to]);
        if (order)
            return order;
    }
    return 0;
}

/* Merge sort of slice numbers, stable: of equal slices the first comes first. */
static void sort_slices(const Slices *s, int64_t *list, int64_t *spare, int64_t n)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t first = 0; first < n; first += 2 * width) {
            int64_t middle = first + width < n ? first + width : n;
            int64_t last = first + 2 * width < n ? first + 2 * width : n;
            int64_t a = first, b = middle;
            for (int64_t k = first; k < last; k++)
                spare[k] = b == last || (a < middle && slice_order(s, list[a], list[b]) <= 0)
                               ? list[a++]
                               : list[b++];
        }
        memcpy(list, spare, (size_t)n * sizeof *list);
    }
}

static int compare_first(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

/* group[k] = {first slice of the group, slices in it, its place in sorted order}; inverse[slice]: that
 * place. Returns the number of groups. */
static int64_t group_slices(const Slices *s, int64_t *list, int64_t (*group)[3], int64_t *inverse)
{
    int64_t groups = 0;
    for (int64_t k = 0; k < s->lines.n; k++) {
        if (k == 0 || slice_order(s, list[k - 1], list[k]) != 0) {
            group[groups][0] = list[k];
            group[groups][1] = 0;
            group[groups][2] = groups;
            groups++;
        }
        group[groups - 1][1]++;
        inverse[list[k]] = groups - 1;
    }
    return groups;
}

static int unique_write(const OpCall *call, const Slices *s, int64_t (*group)[3], int64_t groups,
                        int64_t *inverse)
{
    const Value *x = s->x;
    Shape shape = {.rank = 1, .dim = {groups}}, all = {.rank = 1, .dim = {s->lines.n}};
    Shape slices = s->lines.axis >= 0 ? x->shape : shape;
    if (s->lines.axis >= 0)
        slices.dim[s->lines.axis] = groups;
    int status = op_output(call, 0, x->dtype, &slices);
    for (int k = 1; k < 4 && k < call->n_out && !status; k++)
        if (call->out[k])
            status = op_output(call, k, DTYPE_INT64, k == 2 ? &all : &shape);
    if (status)
        return status;
    size_t block = (size_t)s->lines.inner * value_element(x);
    for (int64_t o = 0; o < s->lines.outer && s->size > 0; o++)
        for (int64_t g = 0; g < groups; g++)
            memcpy((char *)value_data(call->out[0]) + (size_t)(o * groups + g) * block,
                   (char *)value_data(x) + (size_t)(o * s->lines.n + group[g][0]) * block, block);
    for (int64_t g = 0; g < groups; g++) {
        if (call->n_out > 1 && call->out[1])
            call->out[1]->i[g] = group[g][0];
        if (call->n_out > 3 && call->out[3])
            call->out[3]->i[g] = group[g][1];
    }
    for (int64_t k = 0; call->n_out > 2 && call->out[2] && k < s->lines.n; k++)
        call->out[2]->i[k] = inverse[k];
    return ONNXPRESS_OK;
}

static int unique_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status)
        return status;
    Slices s = {.x = call->in[0]};
    int64_t axis = attribute_int(call->node, "axis", INT64_MAX);
    bool sorted = attribute_int(call->node, "sorted", 1) != 0;
    s.lines = (Lines){.axis = -1, .outer = 1, .n = s.x->count, .inner = 1};
    if (axis != INT64_MAX && (status = lines_along(call, axis, &s.lines)))
        return status;
    s.size = s.x->count > 0 ? s.x->count / s.lines.n : 0;
    if (s.x->count == 0 && s.lines.n > 0)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "slices without elements are not handled");
    size_t n = (size_t)s.lines.n + 1;
    int64_t *list = op_scratch(call, n, sizeof *list), *spare = op_scratch(call, n, sizeof *spare);
    int64_t *inverse = op_scratch(call, n, sizeof *inverse);
    int64_t(*group)[3] = op_scratch(call, n, sizeof *group);
    if (!list || !spare || !inverse || !group)
        return ONNXPRESS_MEMORY;
    for (int64_t k = 0; k < s.lines.n; k++)
        list[k] = k;
    sort_slices(&s, list, spare, s.lines.n);
    int64_t groups = group_slices(&s, list, group, inverse);
    if (!sorted) {
        qsort(group, (size_t)groups, sizeof *group, compare_first);
        for (int64_t g = 0; g < groups; g++)
            spare[group[g][2]] = g;
        for (int64_t k = 0; k < s.lines.n; k++)
            inverse[k] = spare[inverse[k]];
    }
    return unique_write(call, &s, group, groups, inverse);
}

static const OpRow rows[] = {
    {"", "ArgMax", 1, 0, .forward = arg_most_forward},
    {"", "ArgMin", 1, 0, .forward = arg_least_forward},
    {"", "TopK", 1, OP_KEEP_INPUTS, .forward = top_forward, .backward = top_backward,
     .curvature = curvature_as_backward},
    {"", "NonZero", 9, 0, .forward = non_zero_forward},
    {"", "Compress", 9, OP_KEEP_INPUTS, .forward = compress_forward,
     .backward = compress_backward, .curvature = curvature_as_backward},
    {"", "Unique", 11, 0, .forward = unique_forward},
};

const OpFamily op_family_search = {rows, sizeof rows / sizeof rows[0]};
