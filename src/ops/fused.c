/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's FusedConv and FusedGemm: another op's row, then an activation. The activation's
 * slopes are told from its output, so that nothing else is kept. */
#include "ops/support_internal.h"

#include <string.h>

typedef enum { NONE, RELU, LEAKY, SIGMOID, TANH, CLIP, HARD_SIGMOID } Activation;

typedef struct {
    OpNode inner;
    Activation activation;
    real a, b; /* its parameters */
} Fused;

/* Conv adds a tensor Z to its result before the activation. */
enum { LINEAR_INPUTS = 3, ADDED = 3 };

static int read_activation(const OpNode *node, Fused *fused, bool listed, Error *err)
{
    static const char *const names[] = {"",     "Relu", "LeakyRelu",  "Sigmoid",
                                        "Tanh", "Clip", "HardSigmoid"};
    static const float defaults[][2] = {
        {0, 0}, {0, 0}, {0.01f, 0}, {0, 0}, {0, 0}, {-INFINITY, INFINITY}, {0.2f, 0.5f}};
    const char *name = attribute_string(node, "activation", "");
    size_t k = 0;
    while (k < sizeof names / sizeof names[0] && strcmp(name, names[k]) != 0)
        k++;
    if (k == sizeof names / sizeof names[0])
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "activation is not known");
    const float *list = NULL;
    int n = listed ? attribute_floats(node, "activation_params", &list) : -1;
    float a = n > 0 ? list[0] : defaults[k][0], b = n > 1 ? list[1] : defaults[k][1];
    if (!listed) {
        a = attribute_float(node, "activation_alpha", a);
        b = attribute_float(node, "activation_beta", b);
    }
    fused->activation = (Activation)k;
    fused->a = (real)a;
    fused->b = (real)b;
    /* Then the output has the sign of the sum. */
    if ((k == LEAKY && !(a > 0)) || (k == HARD_SIGMOID && !(a > 0)))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "activation's alpha is %g", (double)a);
    return ONNXPRESS_OK;
}

static int read_fused(OpNode *node, Arena *arena, const char *type, bool listed, Error *err)
{
    enum { VERSION = 11 };
    Fused *fused = arena_array(arena, 1, sizeof *fused);
    if (!fused)
        return error_memory(err, "a node's parameters");
    fused->inner = *node;
    fused->inner.row = op_find("", type, VERSION);
    fused->inner.opset = VERSION;
    fused->inner.n_in = node->n_in < LINEAR_INPUTS ? node->n_in : LINEAR_INPUTS;
    int status = fused->inner.row->read(&fused->inner, arena, err);
    node->params = fused;
    return status ? status : read_activation(node, fused, listed, err);
}

static int read_fused_conv(OpNode *node, Arena *arena, Error *err)
{
    return read_fused(node, arena, "Conv", true, err);
}

static int read_fused_gemm(OpNode *node, Arena *arena, Error *err)
{
    return read_fused(node, arena, "Gemm", false, err);
}

static real activate(const Fused *f, real x)
{
    real e;
    switch (f->activation) {
    case RELU:
        return x < 0 ? 0 : x;
    case LEAKY:
        return x < 0 ? f->a * x : x;
    case SIGMOID:
        e = REAL_EXP(-REAL_ABS(x)); /* never overflows */
        return (x >= 0 ? 1 : e) / (1 + e);
    case TANH:
        return REAL_TANH(x);
    case CLIP:
        return x < f->a ? f->a : x > f->b ? f->b : x;
    case HARD_SIGMOID:
        x = f->a * x + f->b;
        return x < 0 ? 0 : x > 1 ? 1 : x;
    default:
        return x;
    }
}

static real slope_at(const Fused *f, real y)
{
    switch (f->activation) {
    case RELU:
        return y > 0 ? 1 : 0;
    case LEAKY:
        return y < 0 ? f->a : 1;
    case SIGMOID:
        return y * (1 - y);
    case TANH:
        return 1 - y * y;
    case CLIP:
        return y > f->a && y < f->b ? 1 : 0;
    case HARD_SIGMOID:
        return y > 0 && y < 1 ? f->a : 0;
    default:
        return 1;
    }
}

static real bend_at(const Fused *f, real y)
{
    if (f->activation == SIGMOID)
        return y * (1 - y) * (1 - 2 * y);
    return f->activation == TANH ? -2 * y * (1 - y * y) : 0;
}

/* The call of the inner row. */
static OpCall inner_call(const OpCall *call)
{
    const Fused *fused = call->node->params;
    OpCall inner = *call;
    inner.node = &fused->inner;
    inner.n_in = fused->inner.n_in;
    return inner;
}

static int fused_forward(const OpCall *call)
{
    const Fused *fused = call->node->params;
    OpCall inner = inner_call(call);
    int status = fused->inner.row->forward(&inner);
    const Value *added = op_in(call, ADDED);
    if (!status && added)
        status = op_require_real(call, ADDED);
    if (status)
        return status;
    Value *y = call->out[0];
    if (added && !shape_equal(&added->shape, &y->shape))
        return op_error(call, ONNXPRESS_FORMAT, "what is added has another shape");
    for (int64_t e = 0; e < y->count; e++)
        y->r[e] = activate(fused, added ? y->r[e] + added->r[e] : y->r[e]);
    return ONNXPRESS_OK;
}

/* d times the activation's slope; NULL: out of memory. */
static real *before_activation(const OpCall *call, const real *d)
{
    const Fused *fused = call->node->params;
    const Value *y = call->out[0];
    real *before = op_scratch(call, (size_t)y->count, sizeof *before);
    for (int64_t e = 0; before && e < y->count; e++)
        before[e] = d[e] * slope_at(fused, y->r[e]);
    return before;
}

static int fused_backward(const OpCall *call)
{
    const Fused *fused = call->node->params;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    const real *before = before_activation(call, call->d_out[0]);
    if (!before)
        return ONNXPRESS_MEMORY;
    if (op_d_in(call, ADDED))
        add_dense(call->out[0]->count, call->d_in[ADDED], before);
    OpCall inner = inner_call(call);
    inner.d_out = &before;
    return fused->inner.row->backward(&inner);
}

static int fused_square(const OpCall *call, int k, real *acc)
{
    const Fused *fused = call->node->params;
    OpCall inner = inner_call(call);
    if (k == ADDED)
        return ONNXPRESS_UNSUPPORTED;
    const real *before = NULL;
    if (acc && call->d_out[0] && !(before = before_activation(call, call->d_out[0])))
        return ONNXPRESS_MEMORY;
    inner.d_out = &before;
    return fused->inner.row->square(&inner, k, acc);
}

static int fused_curvature(const OpCall *call, const real *const *d_out)
{
    const Fused *fused = call->node->params;
    const Value *y = call->out[0];
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    real *second = before_activation(call, call->d_out[0]);
    const real *first = d_out[0] && second ? before_activation(call, d_out[0]) : NULL;
    if (!second || (d_out[0] && !first))
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < y->count; e++) {
        second[e] *= slope_at(fused, y->r[e]);
        if (first)
            second[e] += d_out[0][e] * bend_at(fused, y->r[e]);
    }
    if (op_d_in(call, ADDED))
        add_dense(y->count, call->d_in[ADDED], second);
    OpCall inner = inner_call(call);
    inner.d_out = &(const real *){second};
    return fused->inner.row->curvature(&inner, &first);
}

static bool fused_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const Fused *fused = node->params;
    return fused->inner.row->matrix(&fused->inner, k, weight, matrix);
}

static int fused_moment(const OpCall *call, int k, real *acc)
{
    const Fused *fused = call->node->params;
    OpCall inner = inner_call(call);
    return fused->inner.row->moment(&inner, k, acc);
}

#define FUSED(type, read_function)                                                                 \
    {                                                                                              \
        "com.microsoft", type, 1, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, read_function, fused_forward,  \
            fused_backward, fused_square, fused_matrix, fused_moment, .curvature = fused_curvature \
    }
static const OpRow rows[] = {
    FUSED("FusedConv", read_fused_conv),
    FUSED("FusedGemm", read_fused_gemm),
};

const OpFamily op_family_fused = {rows, sizeof rows / sizeof rows[0]};
