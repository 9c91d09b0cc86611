/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that read at places given by an integer tensor, and CumSum. */
#include "ops/index_internal.h"

#include <string.h>

/* All of input k lie in an axis of `dim`. */
static int indices_check(const OpCall *call, int k, int64_t dim)
{
    const Value *indices = call->in[k];
    for (int64_t e = 0; e < indices->count; e++)
        if (indices->i[e] < -dim || indices->i[e] >= dim)
            return op_error(call, ONNXPRESS_DATA, "index %lld is outside an axis of %lld",
                            (long long)indices->i[e], (long long)dim);
    return ONNXPRESS_OK;
}

/* Data [outer, dim, inner] and indices [n] make [outer, n, inner]. */
typedef struct {
    int64_t outer, dim, inner;
} GatherPlan;

static int gather_plan(const OpCall *call, GatherPlan *plan, Shape *shape)
{
    const Shape *data = &call->in[0]->shape, *indices = &call->in[1]->shape;
    int axis, status = op_axis(call, attribute_int(call->node, "axis", 0), data->rank, &axis);
    if (status)
        return status;
    if (data->rank - 1 + indices->rank > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "the result's rank is above %d",
                        TENSOR_MAX_RANK);
    *plan = (GatherPlan){dims_product(data, 0, axis), data->dim[axis],
                         dims_product(data, axis + 1, data->rank)};
    shape->rank = 0;
    for (int a = 0; a < axis; a++)
        shape->dim[shape->rank++] = data->dim[a];
    for (int a = 0; a < indices->rank; a++)
        shape->dim[shape->rank++] = indices->dim[a];
    for (int a = axis + 1; a < data->rank; a++)
        shape->dim[shape->rank++] = data->dim[a];
    return ONNXPRESS_OK;
}

static int gather_forward(const OpCall *call)
{
    GatherPlan plan;
    Shape shape;
    int status = op_require(call, 2);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = gather_plan(call, &plan, &shape)) ||
        (status = indices_check(call, 1, plan.dim)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)) || call->out[0]->count == 0)
        return status;
    const Value *data = call->in[0], *indices = call->in[1];
    size_t block = (size_t)plan.inner * value_element(data);
    const char *from = value_data(data);
    char *to = value_data(call->out[0]);
    for (int64_t o = 0; o < plan.outer; o++)
        for (int64_t e = 0; e < indices->count; e++, to += block) {
            int64_t i = indices->i[e];
            index_normal(&i, plan.dim);
            memcpy(to, from + (size_t)(o * plan.dim + i) * block, block);
        }
    return ONNXPRESS_OK;
}

static int gather_backward(const OpCall *call)
{
    GatherPlan plan;
    Shape shape;
    if (!call->d_in[0] || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = gather_plan(call, &plan, &shape);
    if (status)
        return status;
    const Value *indices = call->in[1];
    const real *from = call->d_out[0];
    for (int64_t o = 0; o < plan.outer; o++)
        for (int64_t e = 0; e < indices->count; e++, from += plan.inner) {
            int64_t i = indices->i[e];
            index_normal(&i, plan.dim);
            add_dense(plan.inner, call->d_in[0] + (o * plan.dim + i) * plan.inner, from);
        }
    return ONNXPRESS_OK;
}

int elements_places(const OpCall *call, int64_t **places)
{
    const Value *indices = call->in[1];
    const Shape *data = &call->in[0]->shape, *shape = &indices->shape;
    int64_t stride[TENSOR_MAX_RANK], dense[TENSOR_MAX_RANK], axis_stride, dim;
    int axis, status = op_axis(call, attribute_int(call->node, "axis", 0), data->rank, &axis);
    if (status)
        return status;
    bool fits = data->rank == shape->rank;
    for (int a = 0; fits && a < data->rank; a++)
        fits = a == axis || shape->dim[a] <= data->dim[a];
    if (!fits)
        return op_error(call, ONNXPRESS_FORMAT, "the indices' shape does not fit the data's");
    dim = data->dim[axis];
    if ((status = indices_check(call, 1, dim)))
        return status;
    if (!(*places = op_scratch(call, indices->count ? (size_t)indices->count : 1, sizeof **places)))
        return ONNXPRESS_MEMORY;
    shape_strides(data, stride);
    shape_strides(shape, dense);
    axis_stride = stride[axis];
    stride[axis] = 0;
    Walk w;
    if (walk_start(&w, shape, 2, (const int64_t *const[]){dense, stride}))
        do
            for (int64_t j = 0; j < w.inner; j++) {
                int64_t e = w.offset[0] + j * w.step[0], i = indices->i[e];
                index_normal(&i, dim);
                (*places)[e] = i * axis_stride + w.offset[1] + j * w.step[1];
            }
        while (walk_next(&w));
    return ONNXPRESS_OK;
}

static int gather_elements_forward(const OpCall *call)
{
    int64_t *place;
    int status = op_require(call, 2);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = elements_places(call, &place)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[1]->shape)))
        return status;
    const Value *data = call->in[0], *y = call->out[0];
    if (dtype_is_real(data->dtype))
        for (int64_t e = 0; e < y->count; e++)
            y->r[e] = data->r[place[e]];
    else
        for (int64_t e = 0; e < y->count; e++)
            y->i[e] = data->i[place[e]];
    return ONNXPRESS_OK;
}

static int gather_elements_backward(const OpCall *call)
{
    int64_t *place;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = elements_places(call, &place);
    for (int64_t e = 0; !status && e < call->in[1]->count; e++)
        call->d_in[0][place[e]] += call->d_out[0][e];
    return status;
}

int blocks_plan(const OpCall *call, BlocksPlan *plan)
{
    const Value *indices = call->in[1];
    const Shape *data = &call->in[0]->shape, *shape = &indices->shape;
    int64_t batch_axes = attribute_int(call->node, "batch_dims", 0), stride[TENSOR_MAX_RANK];
    int64_t depth = shape->rank ? shape->dim[shape->rank - 1] : 0;
    bool fits = shape->rank > 0 && batch_axes >= 0 && batch_axes < shape->rank && depth > 0 &&
                batch_axes + depth <= data->rank;
    for (int a = 0; fits && a < batch_axes; a++)
        fits = data->dim[a] == shape->dim[a];
    if (!fits)
        return op_error(call, ONNXPRESS_FORMAT, "the indices' shape does not fit the data's");
    int batch = (int)batch_axes, first = batch + (int)depth;
    if (shape->rank - 1 + data->rank - first > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "the result's rank is above %d",
                        TENSOR_MAX_RANK);
    plan->shape.rank = 0;
    for (int a = 0; a < shape->rank - 1; a++)
        plan->shape.dim[plan->shape.rank++] = shape->dim[a];
    for (int a = first; a < data->rank; a++)
        plan->shape.dim[plan->shape.rank++] = data->dim[a];
    plan->n = indices->count / depth;
    plan->block = dims_product(data, first, data->rank);
    if (!(plan->place = op_scratch(call, plan->n ? (size_t)plan->n : 1, sizeof *plan->place)))
        return ONNXPRESS_MEMORY;
    if (call->in[0]->count == 0 && plan->n > 0)
        return op_error(call, ONNXPRESS_DATA, "there is no data to read");
    shape_strides(data, stride);
    int64_t batches = dims_product(data, 0, batch);
    int64_t per_batch = batches > 0 ? plan->n / batches : 0;
    int64_t batch_stride = dims_product(data, batch, data->rank);
    for (int64_t e = 0; e < plan->n; e++) {
        plan->place[e] = e / per_batch * batch_stride;
        for (int k = 0; k < depth; k++) {
            int64_t i = indices->i[e * depth + k];
            if (!index_normal(&i, data->dim[batch + k]))
                return op_error(call, ONNXPRESS_DATA, "index %lld is outside an axis of %lld",
                                (long long)indices->i[e * depth + k],
                                (long long)data->dim[batch + k]);
            plan->place[e] += i * stride[batch + k];
        }
    }
    return ONNXPRESS_OK;
}

static int gather_nd_forward(const OpCall *call)
{
    BlocksPlan plan;
    int status = op_require(call, 2);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = blocks_plan(call, &plan)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &plan.shape)) || call->out[0]->count == 0)
        return status;
    const Value *data = call->in[0];
    size_t width = value_element(data), block = (size_t)plan.block * width;
    for (int64_t e = 0; e < plan.n; e++)
        memcpy((char *)value_data(call->out[0]) + (size_t)e * block,
               (const char *)value_data(data) + (size_t)plan.place[e] * width, block);
    return ONNXPRESS_OK;
}

static int gather_nd_backward(const OpCall *call)
{
    BlocksPlan plan;
    if (!call->d_in[0] || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = blocks_plan(call, &plan);
    for (int64_t e = 0; !status && e < plan.n; e++)
        add_dense(plan.block, call->d_in[0] + plan.place[e], call->d_out[0] + e * plan.block);
    return status;
}

/* CumSum along an axis given as an input. */
typedef struct {
    int64_t outer, n, inner;
    bool exclusive, reverse;
} CumSum;

static int cumsum_plan(const OpCall *call, CumSum *plan)
{
    const Value *x = call->in[0];
    const int64_t *axes;
    int n, axis, status = op_list(call, 1, 1, &axes, &n);
    if (status)
        return status;
    if (n != 1)
        return op_error(call, ONNXPRESS_FORMAT, "the axis is missing");
    if ((status = op_axis(call, axes[0], x->shape.rank, &axis)))
        return status;
    *plan = (CumSum){.outer = dims_product(&x->shape, 0, axis),
                     .n = x->shape.dim[axis],
                     .inner = dims_product(&x->shape, axis + 1, x->shape.rank),
                     .exclusive = attribute_int(call->node, "exclusive", 0) != 0,
                     .reverse = attribute_int(call->node, "reverse", 0) != 0};
    return ONNXPRESS_OK;
}

/* Runs STATEMENT for the element at `e` of every line, in the direction of the sum. */
#define CUMSUM_LINES(plan, backwards, START, STATEMENT)                                            \
    for (int64_t o = 0; o < (plan).outer; o++)                                                     \
        for (int64_t i = 0; i < (plan).inner; i++) {                                               \
            START;                                                                                 \
            for (int64_t k = 0; k < (plan).n; k++) {                                               \
                int64_t at = (plan).reverse != (backwards) ? (plan).n - 1 - k : k;                 \
                int64_t e = (o * (plan).n + at) * (plan).inner + i;                                \
                STATEMENT;                                                                         \
            }                                                                                      \
        }

static int cumsum_forward(const OpCall *call)
{
    CumSum plan;
    int status = op_require(call, 2);
    if (status || (status = cumsum_plan(call, &plan)))
        return status;
    const Value *x = call->in[0];
    if ((status = op_output(call, 0, x->dtype, &x->shape)) || x->count == 0)
        return status;
    Value *y = call->out[0];
    if (dtype_is_real(x->dtype)) {
        CUMSUM_LINES(plan, false, real sum = 0, {
            real before = sum;
            sum += x->r[e];
            y->r[e] = plan.exclusive ? before : sum;
        })
    } else {
        CUMSUM_LINES(plan, false, uint64_t sum = 0, {
            uint64_t before = sum;
            sum += (uint64_t)x->i[e];
            y->i[e] = integer_wrap(x->dtype, (int64_t)(plan.exclusive ? before : sum));
        })
    }
    return ONNXPRESS_OK;
}

static int cumsum_backward(const OpCall *call)
{
    CumSum plan;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = cumsum_plan(call, &plan);
    if (status)
        return status;
    CUMSUM_LINES(plan, true, real sum = 0, {
        real before = sum;
        sum += call->d_out[0][e];
        call->d_in[0][e] += plan.exclusive ? before : sum;
    })
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "Gather", 1, OP_KEEP_INPUTS, .forward = gather_forward, .backward = gather_backward,
     .curvature = curvature_as_backward},
    {"", "GatherElements", 11, OP_KEEP_INPUTS, .forward = gather_elements_forward,
     .backward = gather_elements_backward, .curvature = curvature_as_backward},
    {"", "GatherND", 11, OP_KEEP_INPUTS, .forward = gather_nd_forward,
     .backward = gather_nd_backward, .curvature = curvature_as_backward},
    {"", "CumSum", 11, OP_KEEP_INPUTS, .forward = cumsum_forward, .backward = cumsum_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_index = {rows, sizeof rows / sizeof rows[0]};
