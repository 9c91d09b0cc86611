/* SPDX-License-Identifier: Apache-2.0
 *
 * DepthToSpace and SpaceToDepth: squares of pixels become channels and back. Both are one strided
 * copy over [n][channel][row][row in block][column][column in block]. */
#include "ops/support_internal.h"

#include <string.h>

typedef struct {
    int64_t size;
    bool channels_last; /* mode CRD: the block's place is the fast part of the channel number */
} BlockParams;

static int read_block(OpNode *node, Arena *arena, Error *err)
{
    BlockParams *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    const char *mode = attribute_string(node, "mode", "DCR");
    params->size = attribute_int(node, "blocksize", 0);
    params->channels_last = strcmp(mode, "CRD") == 0;
    if (!params->channels_last && strcmp(mode, "DCR") != 0)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "mode is not known");
    if (params->size < 1 || params->size > INT16_MAX)
        return read_error(node, err, ONNXPRESS_FORMAT, "blocksize is %lld",
                          (long long)params->size);
    node->params = params;
    return ONNXPRESS_OK;
}

/* Shapes and strides of the six axes, in the deep tensor and the wide one. */
typedef struct {
    Shape deep, wide, moved;
    int64_t deep_stride[TENSOR_MAX_RANK], wide_stride[TENSOR_MAX_RANK];
} Blocks;

static void set_strides(const BlockParams *params, Blocks *s)
{
    int64_t b = params->size, h = s->deep.dim[2], w = s->deep.dim[3], c = s->wide.dim[1];
    int64_t plane = h * w, place = params->channels_last ? plane : c * plane;
    int64_t channel = params->channels_last ? b * b * plane : plane;
    const int64_t dims[6] = {s->deep.dim[0], c, h, b, w, b};
    const int64_t deep[6] = {s->deep.dim[1] * plane, channel, w, b * place, 1, place};
    const int64_t wide[6] = {c * b * b * plane, b * b * plane, b * b * w, b * w, b, 1};
    s->moved.rank = 6;
    memcpy(s->moved.dim, dims, sizeof dims);
    memcpy(s->deep_stride, deep, sizeof deep);
    memcpy(s->wide_stride, wide, sizeof wide);
}

static int block_shape(const OpCall *call, bool to_depth, Blocks *s)
{
    const BlockParams *params = call->node->params;
    const Shape *x = &call->in[0]->shape;
    int64_t b = params->size, count;
    if (x->rank != 4)
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d, not 4", x->rank);
    s->deep = s->wide = *x;
    if (to_depth ? x->dim[2] % b || x->dim[3] % b : x->dim[1] % (b * b))
        return op_error(call, ONNXPRESS_FORMAT, "the input does not divide into blocks of %lld",
                        (long long)b);
    Shape *out = to_depth ? &s->deep : &s->wide;
    out->dim[1] = to_depth ? x->dim[1] : x->dim[1] / (b * b);
    for (int a = 2; a < 4; a++) {
        out->dim[a] = to_depth ? x->dim[a] / b : x->dim[a];
        if (!to_depth && !int64_mul(out->dim[a], b, &out->dim[a]))
            return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    }
    if (to_depth && !int64_mul(out->dim[1], b * b, &out->dim[1]))
        return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    if (!shape_count(out, &count))
        return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    if (count > 0)
        set_strides(params, s);
    return ONNXPRESS_OK;
}

static int block_forward(const OpCall *call, bool to_depth)
{
    Blocks s;
    int status = op_require(call, 1);
    if (status || (status = block_shape(call, to_depth, &s)))
        return status;
    const Value *x = call->in[0];
    status = op_output(call, 0, x->dtype, to_depth ? &s.deep : &s.wide);
    if (!status && x->count > 0)
        move_strided(x->dtype, &s.moved, value_data(call->out[0]),
                     to_depth ? s.deep_stride : s.wide_stride, value_data(x),
                     to_depth ? s.wide_stride : s.deep_stride);
    return status;
}

static int block_backward(const OpCall *call, bool to_depth)
{
    Blocks s;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = block_shape(call, to_depth, &s);
    if (!status)
        add_strided(&s.moved, call->d_in[0], to_depth ? s.wide_stride : s.deep_stride,
                    call->d_out[0], to_depth ? s.deep_stride : s.wide_stride);
    return status;
}

static int depth_to_space_forward(const OpCall *call)
{
    return block_forward(call, false);
}

static int depth_to_space_backward(const OpCall *call)
{
    return block_backward(call, false);
}

static int space_to_depth_forward(const OpCall *call)
{
    return block_forward(call, true);
}

static int space_to_depth_backward(const OpCall *call)
{
    return block_backward(call, true);
}

static const OpRow rows[] = {
    {"", "DepthToSpace", 1, 0, read_block, depth_to_space_forward, depth_to_space_backward,
     .curvature = curvature_as_backward},
    {"", "SpaceToDepth", 1, 0, read_block, space_to_depth_forward, space_to_depth_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_block = {rows, sizeof rows / sizeof rows[0]};
