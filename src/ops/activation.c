/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/broadcast_internal.h"

#include <string.h>

/* Parameters of a formula: up to three float attributes with their defaults. */
typedef struct {
    const char *name[ELEMENTWISE_PARAMS];
    float fallback[ELEMENTWISE_PARAMS];
} Attributes;

static int read_attributes(OpNode *node, Arena *arena, const Attributes *wanted, Error *err)
{
    real *p = arena_array(arena, ELEMENTWISE_PARAMS, sizeof *p);
    if (!p)
        return error_memory(err, "a node's parameters");
    for (int k = 0; k < ELEMENTWISE_PARAMS && wanted->name[k]; k++)
        p[k] = (real)attribute_float(node, wanted->name[k], wanted->fallback[k]);
    node->params = p;
    return ONNXPRESS_OK;
}

#define READ(function, ...)                                                                        \
    static int function(OpNode *node, Arena *arena, Error *err)                                    \
    {                                                                                              \
        static const Attributes wanted = __VA_ARGS__;                                              \
        return read_attributes(node, arena, &wanted, err);                                         \
    }

READ(read_leaky, {{"alpha"}, {0.01f}})
READ(read_alpha_one, {{"alpha"}, {1.0f}})
READ(read_hard_sigmoid, {{"alpha", "beta"}, {0.2f, 0.5f}})
READ(read_shrink, {{"lambd", "bias"}, {0.5f, 0.0f}})
READ(read_quick_gelu, {{"alpha"}, {1.702f}})
READ(read_selu, {{"alpha", "gamma"}, {1.67326319217681884765625f, 1.05070102214813232421875f}})

#define SQRT_HALF 0.70710678118654752440
#define SQRT_2_OVER_PI 0.79788456080286535588
#define INV_SQRT_2_PI 0.39894228040143267794
#define GELU_CUBIC 0.044715 /* of the tanh approximation's definition */

static real softplus_of(real x)
{
    return (x > 0 ? x : 0) + REAL_LOG1P(REAL_EXP(-REAL_ABS(x)));
}

static real clamp_unit(real x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static real gelu_tanh(real x)
{
    return REAL_TANH(R(SQRT_2_OVER_PI) * (x + R(GELU_CUBIC) * x * x * x));
}

static real gelu_tanh_derivative(real x)
{
    real t = gelu_tanh(x), slope = R(SQRT_2_OVER_PI) * (1 + 3 * R(GELU_CUBIC) * x * x);
    return R(0.5) * (1 + t + x * (1 - t * t) * slope);
}

static real gelu_of(real x)
{
    return R(0.5) * x * (1 + REAL_ERF(x * R(SQRT_HALF)));
}

static real gelu_derivative(real x)
{
    return R(0.5) * (1 + REAL_ERF(x * R(SQRT_HALF))) +
           x * R(INV_SQRT_2_PI) * REAL_EXP(R(-0.5) * x * x);
}

static real gelu_bend(real x)
{
    return R(INV_SQRT_2_PI) * REAL_EXP(R(-0.5) * x * x) * (2 - x * x);
}

static real mish_derivative(real x)
{
    real t = REAL_TANH(softplus_of(x));
    return t + x * (1 - t * t) * sigmoid_of(x);
}

UNARY_INTEGER(relu, X<0 ? 0 : X, Y> 0 ? 1 : 0, XI < 0 ? 0 : XI)
UNARY(leaky, X < 0 ? P[0] * X : X, X < 0 ? P[0] : 1)
UNARY(thresholded, X > P[0] ? X : 0, X > P[0] ? 1 : 0)
UNARY(sigmoid, sigmoid_of(X), Y *(1 - Y))
UNARY(hyperbolic_tangent, REAL_TANH(X), 1 - Y * Y)
UNARY(hard_sigmoid, clamp_unit(P[0] * X + P[1]), Y > 0 && Y < 1 ? P[0] : 0)
UNARY(hard_swish, X *clamp_unit(X / 6 + R(0.5)), X <= -3 ? 0 : X >= 3 ? 1 : X / 3 + R(0.5))
UNARY(elu, X < 0 ? P[0] * REAL_EXPM1(X) : X, X < 0 ? Y + P[0] : 1)
UNARY(celu, X < 0 ? P[0] * REAL_EXPM1(X / P[0]) : X, X < 0 ? Y / P[0] + 1 : 1)
UNARY(selu, X > 0 ? P[1] * X : P[1] * P[0] * REAL_EXPM1(X), X > 0 ? P[1] : Y + P[1] * P[0])
UNARY(swish, X *sigmoid_of(P[0] * X),
      sigmoid_of(P[0] * X) * (1 + P[0] * X * (1 - sigmoid_of(P[0] * X))))
UNARY(shrink, X<-P[0] ? X + P[1] : X> P[0] ? X - P[1] : 0, X<-P[0] || X> P[0] ? 1 : 0)
UNARY(softplus, softplus_of(X), sigmoid_of(X))
UNARY(softsign, X / (1 + REAL_ABS(X)), 1 / ((1 + REAL_ABS(X)) * (1 + REAL_ABS(X))))
UNARY(mish, X *REAL_TANH(softplus_of(X)), mish_derivative(X))
UNARY(gelu_exact, gelu_of(X), gelu_derivative(X))
UNARY(gelu_approximate, R(0.5) * X * (1 + gelu_tanh(X)), gelu_tanh_derivative(X))

static real swish_bend(real x, real alpha)
{
    real s = sigmoid_of(alpha * x);
    return alpha * s * (1 - s) * (2 + alpha * x * (1 - 2 * s));
}

static real mish_bend(real x)
{
    real t = REAL_TANH(softplus_of(x)), s = sigmoid_of(x), slope = (1 - t * t) * s;
    return 2 * slope + x * (slope * (1 - s) - 2 * t * slope * s);
}

static real gelu_tanh_bend(real x)
{
    real t = gelu_tanh(x), inner = R(SQRT_2_OVER_PI) * (1 + 3 * R(GELU_CUBIC) * x * x);
    real slope = (1 - t * t) * inner;
    real bend = (1 - t * t) * R(SQRT_2_OVER_PI * 6 * GELU_CUBIC) * x - 2 * t * slope * inner;
    return slope + R(0.5) * x * bend;
}

UNARY_LINES(relu)
UNARY_LINES(leaky)
UNARY_LINES(thresholded)
UNARY_LINES(hard_sigmoid)
UNARY_LINES(shrink)
UNARY_SECOND(sigmoid, Y *(1 - Y) * (1 - 2 * Y))
UNARY_SECOND(hyperbolic_tangent, -2 * Y * (1 - Y * Y))
UNARY_SECOND(hard_swish, X > -3 && X < 3 ? R(1.0 / 3) : 0)
UNARY_SECOND(elu, X < 0 ? Y + P[0] : 0)
UNARY_SECOND(celu, X < 0 ? (Y / P[0] + 1) / P[0] : 0)
UNARY_SECOND(selu, X > 0 ? 0 : Y + P[1] * P[0])
UNARY_SECOND(swish, swish_bend(X, P[0]))
UNARY_SECOND(softplus, sigmoid_of(X) * (1 - sigmoid_of(X)))
UNARY_SECOND(softsign,
             R(X > 0 ? -2 : 2) / ((1 + REAL_ABS(X)) * (1 + REAL_ABS(X)) * (1 + REAL_ABS(X))))
UNARY_SECOND(mish, mish_bend(X))
UNARY_SECOND(gelu_exact, gelu_bend(X))
UNARY_SECOND(gelu_approximate, gelu_tanh_bend(X))
UNARY_LINES(clip)

BINARY(prelu, A < 0 ? A * B : A, A < 0 ? B : 1, A < 0 ? A : 0)

BINARY_CURVATURE(prelu, A < 0 ? B : 1, A < 0 ? A : 0, 0, 0)

BINARY(bias_gelu, gelu_of(A + B), gelu_derivative(A + B), gelu_derivative(A + B))
BINARY_CURVATURE(bias_gelu, gelu_derivative(A + B), gelu_derivative(A + B), gelu_bend(A + B),
                 gelu_bend(A + B))
BINARY(fast_gelu, R(0.5) * (A + B) * (1 + gelu_tanh(A + B)), gelu_tanh_derivative(A + B),
       gelu_tanh_derivative(A + B))
BINARY_CURVATURE(fast_gelu, gelu_tanh_derivative(A + B), gelu_tanh_derivative(A + B),
                 gelu_tanh_bend(A + B), gelu_tanh_bend(A + B))

/* onnxruntime's FastGelu; its bias may be missing. */
static int fast_gelu_any_forward(const OpCall *call)
{
    return op_in(call, 1) ? fast_gelu_forward(call) : gelu_approximate_forward(call);
}

static int fast_gelu_any_backward(const OpCall *call)
{
    return op_in(call, 1) ? fast_gelu_backward(call) : gelu_approximate_backward(call);
}

static int fast_gelu_any_square(const OpCall *call, int k, real *acc)
{
    return op_in(call, 1) ? fast_gelu_square(call, k, acc) : ONNXPRESS_UNSUPPORTED;
}

static int fast_gelu_any_curvature(const OpCall *call, const real *const *d_out)
{
    return op_in(call, 1) ? fast_gelu_curvature(call, d_out)
                          : gelu_approximate_curvature(call, d_out);
}

/* The slope is stretched to the input's shape, never the other way. */
static int prelu_checked_forward(const OpCall *call)
{
    int status = op_require(call, 2);
    Shape both;
    if (status)
        return status;
    if (!shape_broadcast(&call->in[0]->shape, &call->in[1]->shape, &both) ||
        !shape_equal(&both, &call->in[0]->shape))
        return op_error(call, ONNXPRESS_FORMAT, "the slope does not fit the input");
    return prelu_forward(call);
}

static int read_gelu(OpNode *node, Arena *arena, Error *err)
{
    const char *approximate = attribute_string(node, "approximate", "none");
    bool *tanh_form = arena_array(arena, 1, sizeof *tanh_form);
    if (!tanh_form)
        return error_memory(err, "a node's parameters");
    *tanh_form = strcmp(approximate, "tanh") == 0;
    if (!*tanh_form && strcmp(approximate, "none") != 0)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "approximate = %s is not known",
                          approximate);
    node->params = tanh_form;
    return ONNXPRESS_OK;
}

static int gelu_forward(const OpCall *call)
{
    return *(const bool *)call->node->params ? gelu_approximate_forward(call)
                                             : gelu_exact_forward(call);
}

static int gelu_backward(const OpCall *call)
{
    return *(const bool *)call->node->params ? gelu_approximate_backward(call)
                                             : gelu_exact_backward(call);
}

static int gelu_curvature(const OpCall *call, const real *const *d_out)
{
    return *(const bool *)call->node->params ? gelu_approximate_curvature(call, d_out)
                                             : gelu_exact_curvature(call, d_out);
}

/* Clip: limits are attributes before opset 11, optional inputs since. They steer the numerics and
 * get no gradient. */
typedef struct {
    bool from_inputs;
    float low, high;
} Clip;

static int read_clip(OpNode *node, Arena *arena, Error *err)
{
    Clip *clip = arena_array(arena, 1, sizeof *clip);
    if (!clip)
        return error_memory(err, "a node's parameters");
    clip->from_inputs = node->opset >= 11;
    clip->low = clip->from_inputs ? -INFINITY : attribute_float(node, "min", -INFINITY);
    clip->high = clip->from_inputs ? INFINITY : attribute_float(node, "max", INFINITY);
    node->params = clip;
    return ONNXPRESS_OK;
}

static int clip_limits(const OpCall *call, Value *low, Value *high, real *bound)
{
    const Clip *clip = call->node->params;
    bound[0] = (real)clip->low;
    bound[1] = (real)clip->high;
    *low = (Value){.r = &bound[0]};
    *high = (Value){.r = &bound[1]};
    for (int k = 1; clip->from_inputs && k <= 2; k++) {
        const Value *limit = op_in(call, k);
        if (!limit)
            continue;
        if (limit->count != 1)
            return op_error(call, ONNXPRESS_FORMAT, "limit %d is not one number", k);
        int status = op_require_alike(call, 0, k);
        if (status)
            return status;
        *(k == 1 ? low : high) = *limit;
    }
    return ONNXPRESS_OK;
}

static int clip_forward(const OpCall *call)
{
    Value low, high;
    real bound[2];
    int status = op_require(call, 1);
    if (status || (status = clip_limits(call, &low, &high, bound)))
        return status;
    const Value *x = call->in[0];
    if ((status = op_output(call, 0, x->dtype, &x->shape)))
        return status;
    Value *y = call->out[0];
    if (dtype_is_real(x->dtype)) {
        for (int64_t e = 0; e < x->count; e++) {
            real raised = x->r[e] < low.r[0] ? low.r[0] : x->r[e];
            y->r[e] = raised > high.r[0] ? high.r[0] : raised;
        }
    } else {
        int64_t least = low.i ? low.i[0] : INT64_MIN, most = high.i ? high.i[0] : INT64_MAX;
        for (int64_t e = 0; e < x->count; e++) {
            int64_t raised = x->i[e] < least ? least : x->i[e];
            y->i[e] = raised > most ? most : raised;
        }
    }
    return ONNXPRESS_OK;
}

static int clip_backward(const OpCall *call)
{
    Value low, high;
    real bound[2];
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = clip_limits(call, &low, &high, bound);
    if (status)
        return status;
    const real *x = call->in[0]->r;
    for (int64_t e = 0; e < call->in[0]->count; e++)
        if (x[e] >= low.r[0] && x[e] <= high.r[0])
            call->d_in[0][e] += call->d_out[0][e];
    return ONNXPRESS_OK;
}

#define FORMULA(type, since, keep, read_function, name)                                            \
    {                                                                                              \
        "", type, since, keep, .read = read_function, .forward = name##_forward,                   \
                               .backward = name##_backward, .curvature = name##_curvature          \
    }
static const OpRow rows[] = {
    FORMULA("Relu", 6, OP_KEEP_OUTPUTS, NULL, relu),
    FORMULA("LeakyRelu", 6, OP_KEEP_INPUTS, read_leaky, leaky),
    FORMULA("ThresholdedRelu", 10, OP_KEEP_INPUTS, read_alpha_one, thresholded),
    FORMULA("Sigmoid", 6, OP_KEEP_OUTPUTS, NULL, sigmoid),
    FORMULA("Tanh", 6, OP_KEEP_OUTPUTS, NULL, hyperbolic_tangent),
    FORMULA("HardSigmoid", 6, OP_KEEP_OUTPUTS, read_hard_sigmoid, hard_sigmoid),
    FORMULA("HardSwish", 14, OP_KEEP_INPUTS, NULL, hard_swish),
    FORMULA("Elu", 6, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, read_alpha_one, elu),
    FORMULA("Celu", 12, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, read_alpha_one, celu),
    FORMULA("Selu", 6, OP_KEEP_INPUTS | OP_KEEP_OUTPUTS, read_selu, selu),
    FORMULA("Swish", 24, OP_KEEP_INPUTS, read_alpha_one, swish),
    FORMULA("Shrink", 9, OP_KEEP_INPUTS, read_shrink, shrink),
    FORMULA("Softplus", 1, OP_KEEP_INPUTS, NULL, softplus),
    FORMULA("Softsign", 1, OP_KEEP_INPUTS, NULL, softsign),
    FORMULA("Mish", 18, OP_KEEP_INPUTS, NULL, mish),
    FORMULA("Gelu", 20, OP_KEEP_INPUTS, read_gelu, gelu),
    FORMULA("Clip", 6, OP_KEEP_INPUTS, read_clip, clip),
    {"", "PRelu", 7, OP_KEEP_INPUTS, .forward = prelu_checked_forward, .backward = prelu_backward,
     .square = prelu_square, .curvature = prelu_curvature},
    {"com.microsoft", "Gelu", 1, OP_KEEP_INPUTS, .forward = gelu_exact_forward,
     .backward = gelu_exact_backward, .curvature = gelu_exact_curvature},
    {"com.microsoft", "QuickGelu", 1, OP_KEEP_INPUTS, .read = read_quick_gelu,
     .forward = swish_forward, .backward = swish_backward, .curvature = swish_curvature},
    {"com.microsoft", "BiasGelu", 1, OP_KEEP_INPUTS, .forward = bias_gelu_forward,
     .backward = bias_gelu_backward, .square = bias_gelu_square, .curvature = bias_gelu_curvature},
    {"com.microsoft", "FastGelu", 1, OP_KEEP_INPUTS, .forward = fast_gelu_any_forward,
     .backward = fast_gelu_any_backward, .square = fast_gelu_any_square,
     .curvature = fast_gelu_any_curvature},
};

const OpFamily op_family_activation = {rows, sizeof rows / sizeof rows[0]};
