/* SPDX-License-Identifier: Apache-2.0
 *
 * Normalizations whose rows lie together in memory: over the last axes (LayerNormalization,
 * RMSNormalization and its old name SimplifiedLayerNormalization), over a channel
 * (InstanceNormalization), over a group of channels (GroupNormalization). */
#include "ops/row_norm_internal.h"

#include <string.h>

typedef enum { OVER_AXES, OVER_CHANNEL, OVER_GROUP } Extent;

typedef struct {
    Extent extent;
    bool centred;
    int64_t axis, groups;
    bool scale_by_group; /* GroupNormalization before opset 21 */
    int mean, r;         /* which outputs they are; 0: none */
    real epsilon;
} NormParams;

static int read_norm(OpNode *node, Arena *arena, NormParams like, Error *err)
{
    NormParams *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    *params = like;
    params->epsilon = (real)attribute_float(node, "epsilon", 1e-5f);
    params->axis = attribute_int(node, "axis", -1);
    params->groups = attribute_int(node, "num_groups", 1);
    if (params->groups < 1)
        return read_error(node, err, ONNXPRESS_FORMAT, "num_groups is %lld",
                          (long long)params->groups);
    if (!(params->epsilon >= 0))
        return read_error(node, err, ONNXPRESS_FORMAT, "epsilon is negative");
    node->params = params;
    return ONNXPRESS_OK;
}

static int read_layer(OpNode *node, Arena *arena, Error *err)
{
    return read_norm(node, arena, (NormParams){.centred = true, .mean = 1, .r = 2}, err);
}

static int read_rms(OpNode *node, Arena *arena, Error *err)
{
    return read_norm(node, arena, (NormParams){.r = 1}, err);
}

static int read_instance(OpNode *node, Arena *arena, Error *err)
{
    return read_norm(node, arena, (NormParams){.extent = OVER_CHANNEL, .centred = true}, err);
}

static int read_group(OpNode *node, Arena *arena, Error *err)
{
    NormParams like = {.extent = OVER_GROUP, .centred = true, .scale_by_group = node->opset < 21};
    return read_norm(node, arena, like, err);
}

/* Scale or bias with one number a channel. */
static int per_channel(const OpCall *call, int k, Spread like, Spread *spread)
{
    const Value *v = op_in(call, k);
    *spread = like;
    if (v && v->count != like.channels)
        return op_error(call, ONNXPRESS_FORMAT, "input %d has %lld elements for %lld channels", k,
                        (long long)v->count, (long long)like.channels);
    return ONNXPRESS_OK;
}

static int describe(const OpCall *call, TensorNorm *norm)
{
    const NormParams *params = call->node->params;
    const Shape *x = &call->in[0]->shape;
    int axis = 0, status;
    norm->norm = (RowNorm){.centred = params->centred, .epsilon = params->epsilon};
    if (params->extent == OVER_AXES) {
        if ((status = op_axis(call, params->axis, x->rank, &axis)) ||
            (status = spread_of(call, 1, &norm->scale)) ||
            (status = spread_of(call, 2, &norm->bias)))
            return status;
        norm->rows = dims_product(x, 0, axis);
        norm->norm.n = dims_product(x, axis, x->rank);
    } else {
        if (x->rank < 2)
            return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d", x->rank);
        int64_t channels = x->dim[1], size = dims_product(x, 2, x->rank);
        int64_t groups = params->extent == OVER_GROUP ? params->groups : channels;
        if (groups < 1 || channels % groups)
            return op_error(call, ONNXPRESS_FORMAT, "%lld channels in %lld groups",
                            (long long)channels, (long long)groups);
        Spread like = {size, channels};
        if (params->scale_by_group)
            like = (Spread){channels / groups * size, groups};
        if ((status = per_channel(call, 1, like, &norm->scale)) ||
            (status = per_channel(call, 2, like, &norm->bias)))
            return status;
        norm->rows = x->dim[0] * groups;
        norm->norm.n = channels / groups * size;
    }
    norm->norm.share = norm->norm.n ? 1 / (real)norm->norm.n : 0;
    return ONNXPRESS_OK;
}

static real *out_data(const OpCall *call, int k)
{
    return k && k < call->n_out && call->out[k] ? call->out[k]->r : NULL;
}

static const real *at_output(const OpCall *call, const real *const *list, int k)
{
    return k && k < call->n_out ? list[k] : NULL;
}

static NormTensors tensors_of(const OpCall *call)
{
    const NormParams *params = call->node->params;
    const Value *scale = op_in(call, 1), *bias = op_in(call, 2);
    return (NormTensors){.x = call->in[0]->r,
                         .scale = scale ? scale->r : NULL,
                         .bias = bias ? bias->r : NULL,
                         .y = call->out[0]->r,
                         .mean = out_data(call, params->mean),
                         .r = out_data(call, params->r)};
}

/* Output k with one number a row, if it is wanted. */
static int row_output(const OpCall *call, int k)
{
    const NormParams *params = call->node->params;
    Shape shape = call->in[0]->shape;
    if (!k || k >= call->n_out || !call->out[k])
        return ONNXPRESS_OK;
    for (int a = shape_axis(params->axis, shape.rank); a < shape.rank; a++)
        shape.dim[a] = 1;
    int status = op_output(call, k, DTYPE_FLOAT, &shape);
    if (!status)
        memset(call->out[k]->r, 0, (size_t)call->out[k]->count * sizeof(real));
    return status;
}

static int norm_forward(const OpCall *call)
{
    const NormParams *params = call->node->params;
    TensorNorm norm;
    int status = op_require_reals(call, params->extent == OVER_AXES ? 2 : 3, 3);
    if (!status)
        status = describe(call, &norm);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape);
    if (status || (status = row_output(call, params->mean)) ||
        (status = row_output(call, params->r)) || call->in[0]->count == 0)
        return status;
    NormTensors t = tensors_of(call);
    return tensor_norm_forward(call, &norm, &t);
}

static NormTensors with_gradients(const OpCall *call)
{
    const NormParams *params = call->node->params;
    NormTensors t = tensors_of(call);
    t.d_y = call->d_out[0];
    t.d_mean = at_output(call, call->d_out, params->mean);
    t.d_r = at_output(call, call->d_out, params->r);
    t.d_x = call->d_in[0];
    t.d_scale = op_d_in(call, 1);
    t.d_bias = op_d_in(call, 2);
    return t;
}

static int norm_backward(const OpCall *call)
{
    TensorNorm norm;
    int status = describe(call, &norm);
    if (status || call->in[0]->count == 0)
        return status;
    NormTensors t = with_gradients(call);
    return tensor_norm_backward(call, &norm, &t);
}

static int norm_curvature(const OpCall *call, const real *const *d_out)
{
    const NormParams *params = call->node->params;
    TensorNorm norm;
    int status = describe(call, &norm);
    if (status || call->in[0]->count == 0)
        return status;
    NormTensors t = with_gradients(call);
    t.first[0] = d_out[0];
    t.first[1] = at_output(call, d_out, params->mean);
    t.first[2] = at_output(call, d_out, params->r);
    return tensor_norm_curvature(call, &norm, &t);
}

static int norm_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 1, k, acc);
}

#define NORM(domain, type, since, read_function)                                                   \
    {                                                                                              \
        domain, type, since, OP_KEEP_INPUTS, read_function, norm_forward, norm_backward,           \
            norm_square, .curvature = norm_curvature                                               \
    }
static const OpRow rows[] = {
    NORM("", "LayerNormalization", 1, read_layer), /* since 17; before, as optimizers wrote it */
    NORM("com.microsoft", "LayerNormalization", 1, read_layer),
    NORM("", "RMSNormalization", 23, read_rms),
    NORM("", "SimplifiedLayerNormalization", 1, read_rms),
    NORM("com.microsoft", "SimplifiedLayerNormalization", 1, read_rms),
    NORM("", "InstanceNormalization", 1, read_instance),
    NORM("", "GroupNormalization", 18, read_group),
};

const OpFamily op_family_layer_norm = {rows, sizeof rows / sizeof rows[0]};
