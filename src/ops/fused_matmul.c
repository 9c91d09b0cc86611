/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's FusedMatMul and TransposeMatMul: MatMul of transposed copies, times alpha. */
#include "ops/support_internal.h"

typedef struct {
    OpNode inner;
    real alpha;
    bool trans[2], trans_batch[2];
} Params;

static int read_matmul(OpNode *node, Arena *arena, Error *err)
{
    Params *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    params->inner = *node;
    params->inner.row = op_find("", "MatMul", 13);
    params->inner.opset = 13;
    params->alpha = (real)attribute_float(node, "alpha", 1);
    params->trans[0] = attribute_int(node, "transA", 0) != 0;
    params->trans[1] = attribute_int(node, "transB", 0) != 0;
    params->trans_batch[0] = attribute_int(node, "transBatchA", 0) != 0;
    params->trans_batch[1] = attribute_int(node, "transBatchB", 0) != 0;
    node->params = params;
    return ONNXPRESS_OK;
}

/* How factor k lies: its shape as MatMul takes it, and the strides of that in the factor. A batch
 * that is transposed has the rows' axis first: [m, batch…, k] is taken as [batch…, m, k]. */
static bool turned(const Params *params, int k, const Shape *shape, Shape *out, int64_t *stride)
{
    int64_t own[TENSOR_MAX_RANK];
    int rank = shape->rank, from[TENSOR_MAX_RANK];
    bool batch = params->trans_batch[k] && rank > 2, turn = params->trans[k] && rank > 1;
    shape_strides(shape, own);
    for (int a = 0; a < rank; a++)
        from[a] = a;
    for (int a = 0; batch && a < rank - 1; a++)
        from[a] = a + 1 < rank - 1 ? a + 1 : 0;
    if (turn) {
        int last = from[rank - 1];
        from[rank - 1] = from[rank - 2];
        from[rank - 2] = last;
    }
    out->rank = rank;
    for (int a = 0; a < rank; a++) {
        out->dim[a] = shape->dim[from[a]];
        stride[a] = own[from[a]];
    }
    return batch || turn;
}

/* The factors as MatMul takes them; copies are scratch. */
typedef struct {
    Value factor[2];
    Value *in[2];
    bool moved[2];
    int64_t stride[2][TENSOR_MAX_RANK]; /* of the turned shape in the factor as given */
} Factors;

static int turn_factors(const OpCall *call, Factors *f)
{
    const Params *params = call->node->params;
    for (int k = 0; k < 2; k++) {
        const Value *given = call->in[k];
        int64_t dense[TENSOR_MAX_RANK];
        f->factor[k] = *given;
        f->in[k] = &f->factor[k];
        f->moved[k] = turned(params, k, &given->shape, &f->factor[k].shape, f->stride[k]);
        if (!f->moved[k])
            continue;
        f->factor[k].r = op_scratch(call, (size_t)given->count, sizeof(real));
        if (!f->factor[k].r)
            return ONNXPRESS_MEMORY;
        shape_strides(&f->factor[k].shape, dense);
        move_strided(given->dtype, &f->factor[k].shape, f->factor[k].r, dense, given->r,
                     f->stride[k]);
    }
    return ONNXPRESS_OK;
}

static OpCall inner_call(const OpCall *call, const Factors *f)
{
    const Params *params = call->node->params;
    OpCall inner = *call;
    inner.node = &params->inner;
    inner.in = f->in;
    inner.n_in = 2;
    return inner;
}

static int fused_forward(const OpCall *call)
{
    const Params *params = call->node->params;
    Factors f;
    int status = op_require(call, 2);
    for (int k = 0; !status && k < 2; k++)
        status = op_require_real(call, k);
    if (status || (status = turn_factors(call, &f)))
        return status;
    OpCall inner = inner_call(call, &f);
    if ((status = params->inner.row->forward(&inner)))
        return status;
    for (int64_t e = 0; params->alpha != 1 && e < call->out[0]->count; e++)
        call->out[0]->r[e] *= params->alpha;
    return ONNXPRESS_OK;
}

/* `second`: of second derivatives, where alpha counts twice. */
static int fused_add(const OpCall *call, bool second)
{
    const Params *params = call->node->params;
    Factors f;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    int status = turn_factors(call, &f);
    if (status)
        return status;
    int64_t count = call->out[0]->count;
    real *d = op_scratch(call, (size_t)count, sizeof *d), *d_in[2] = {NULL};
    if (!d)
        return ONNXPRESS_MEMORY;
    real factor = second ? params->alpha * params->alpha : params->alpha;
    for (int64_t e = 0; e < count; e++)
        d[e] = factor * call->d_out[0][e];
    for (int k = 0; k < 2; k++) {
        d_in[k] = call->d_in[k];
        if (!d_in[k] || !f.moved[k])
            continue;
        d_in[k] = op_scratch(call, (size_t)call->in[k]->count, sizeof *d);
        if (!d_in[k])
            return ONNXPRESS_MEMORY;
        for (int64_t e = 0; e < call->in[k]->count; e++)
            d_in[k][e] = 0;
    }
    OpCall inner = inner_call(call, &f);
    inner.d_out = &(const real *){d};
    inner.d_in = d_in;
    const real *none = NULL;
    status =
        second ? params->inner.row->curvature(&inner, &none) : params->inner.row->backward(&inner);
    for (int k = 0; !status && k < 2; k++) {
        int64_t dense[TENSOR_MAX_RANK];
        shape_strides(&f.factor[k].shape, dense);
        if (call->d_in[k] && f.moved[k])
            add_strided(&f.factor[k].shape, call->d_in[k], f.stride[k], d_in[k], dense);
    }
    return status;
}

static int fused_backward(const OpCall *call)
{
    return fused_add(call, false);
}

static int fused_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear in each factor */
    return fused_add(call, true);
}

static bool fused_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const Params *params = node->params;
    if (k != 1 || weight->rank != 2)
        return false;
    bool by_row = params->trans[1];
    *matrix = (OpMatrix){.groups = 1,
                         .rows = weight->dim[!by_row],
                         .columns = weight->dim[by_row],
                         .row_stride = by_row ? weight->dim[1] : 1,
                         .column_stride = by_row ? 1 : weight->dim[1]};
    return true;
}

static int fused_moment(const OpCall *call, int k, real *acc)
{
    const Params *params = call->node->params;
    Factors f;
    int status = turn_factors(call, &f);
    OpCall inner = inner_call(call, &f);
    return status ? status : params->inner.row->moment(&inner, k, acc);
}

#define FUSED(type)                                                                                \
    {                                                                                              \
        "com.microsoft", type, 1, OP_KEEP_INPUTS, read_matmul, fused_forward, fused_backward,      \
            .matrix = fused_matrix, .moment = fused_moment, .curvature = fused_curvature           \
    }
static const OpRow rows[] = {
    FUSED("FusedMatMul"),
    FUSED("TransposeMatMul"),
};

const OpFamily op_family_fused_matmul = {rows, sizeof rows / sizeof rows[0]};
