/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/broadcast_internal.h"

static int64_t integer_negate(int64_t x)
{
    return (int64_t)(0 - (uint64_t)x);
}

/* Division by zero has been refused; the one overflowing quotient wraps. */
static int64_t integer_divide(int64_t a, int64_t b)
{
    return b == -1 ? integer_negate(a) : a / b;
}

static int64_t integer_power(int64_t base, int64_t exponent)
{
    if (exponent < 0)
        return base == 1 || base == -1 ? (exponent & 1 ? base : 1) : 0;
    uint64_t result = 1, factor = (uint64_t)base;
    for (uint64_t e = (uint64_t)exponent; e; e >>= 1) {
        if (e & 1)
            result *= factor;
        factor *= factor;
    }
    return (int64_t)result;
}

BINARY_INTEGER(add, A + B, 1, 1, (int64_t)((uint64_t)A + (uint64_t)B))
BINARY_INTEGER(subtract, A - B, 1, -1, (int64_t)((uint64_t)A - (uint64_t)B))
BINARY_INTEGER(multiply, A *B, B, A, (int64_t)((uint64_t)A *(uint64_t)B))
BINARY_INTEGER(divide, A / B, 1 / B, -A / (B * B), integer_divide(A, B))
BINARY_INTEGER(power, REAL_POW(A, B), B == 0 ? 0 : B * REAL_POW(A, B - 1),
               A > 0 ? REAL_POW(A, B) * REAL_LOG(A) : 0, integer_power(A, B))

BINARY_CURVATURE(subtract, 1, -1, 0, 0)
BINARY_CURVATURE(power, B == 0 ? 0 : B * REAL_POW(A, B - 1),
                 A > 0 ? REAL_POW(A, B) * REAL_LOG(A) : 0,
                 B == 0 || B == 1 ? 0 : B * (B - 1) * REAL_POW(A, B - 2),
                 A > 0 ? REAL_POW(A, B) * REAL_LOG(A) * REAL_LOG(A) : 0)
BINARY_CURVATURE(divide, 1 / B, -A / (B * B), 0, 2 * A / (B * B * B))

static int divide_checked_forward(const OpCall *call)
{
    const Value *divisor = op_in(call, 1);
    if (divisor && dtype_is_integer(divisor->dtype))
        for (int64_t i = 0; i < divisor->count; i++)
            if (divisor->i[i] == 0)
                return op_error(call, ONNXPRESS_DATA, "an integer is divided by zero");
    return divide_forward(call);
}

/* The exponent's type need not be the base's: it is converted, and so is the result of an integer
 * base with a fractional exponent. */
static int power_mixed_forward(const OpCall *call)
{
    int status = op_require(call, 2);
    if (status)
        return status;
    const Value *base = call->in[0], *exponent = call->in[1];
    bool real_base = dtype_is_real(base->dtype);
    if (real_base == dtype_is_real(exponent->dtype))
        return power_forward(call);
    Value converted = *exponent;
    converted.dtype = base->dtype;
    size_t n = (size_t)exponent->count;
    if (real_base) {
        if (!(converted.r = op_scratch(call, n, sizeof *converted.r)))
            return ONNXPRESS_MEMORY;
        for (size_t e = 0; e < n; e++)
            converted.r[e] = (real)exponent->i[e];
    } else {
        if (!(converted.i = op_scratch(call, n, sizeof *converted.i)))
            return ONNXPRESS_MEMORY;
        for (size_t e = 0; e < n; e++) {
            real x = exponent->r[e];
            if (!(x == REAL_FLOOR(x) && x > R(-1e9) && x < R(1e9)))
                return op_error(call, ONNXPRESS_UNSUPPORTED,
                                "integers raised to fractional powers are not handled");
            converted.i[e] = (int64_t)x;
        }
    }
    OpCall same = *call;
    same.in = (Value *const[]){call->in[0], &converted};
    same.n_in = 2;
    return power_forward(&same);
}

/* Backward or, with d_out, curvature; of the base alone when the exponent is of an integer type. */
static int power_rule(const OpCall *call, const real *const *d_out)
{
    const Value *exponent = call->in[1];
    if (dtype_is_real(exponent->dtype))
        return d_out ? power_curvature(call, d_out) : power_backward(call);
    Value converted = *exponent;
    if (!(converted.r = op_scratch(call, (size_t)exponent->count, sizeof *converted.r)))
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < exponent->count; e++)
        converted.r[e] = (real)exponent->i[e];
    OpCall same = *call;
    same.in = (Value *const[]){call->in[0], &converted};
    same.d_in = (real *const[]){call->d_in[0], NULL};
    return d_out ? power_curvature(&same, d_out) : power_backward(&same);
}

static int power_mixed_backward(const OpCall *call)
{
    return power_rule(call, NULL);
}

static int power_mixed_curvature(const OpCall *call, const real *const *d_out)
{
    return power_rule(call, d_out);
}

static int power_mixed_square(const OpCall *call, int k, real *acc)
{
    return dtype_is_real(call->in[1]->dtype) ? power_square(call, k, acc) : ONNXPRESS_UNSUPPORTED;
}

static int64_t integer_modulo(int64_t a, int64_t b, bool truncated)
{
    int64_t rest = b == -1 ? 0 : a % b;
    return !truncated && rest && (rest < 0) != (b < 0) ? rest + b : rest;
}

/* The rest with the divisor's sign. */
static real real_modulo(real a, real b)
{
    real rest = REAL_FMOD(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

BINARY_FORWARD(modulo, real_modulo(A, B), integer_modulo(A, B, false))
BINARY_FORWARD(remainder, REAL_FMOD(A, B), integer_modulo(A, B, true))

static int modulo_checked_forward(const OpCall *call)
{
    int status = op_require(call, 2);
    if (status)
        return status;
    const Value *divisor = call->in[1];
    bool truncated = attribute_int(call->node, "fmod", 0) != 0;
    for (int64_t i = 0; dtype_is_integer(divisor->dtype) && i < divisor->count; i++)
        if (divisor->i[i] == 0)
            return op_error(call, ONNXPRESS_DATA, "an integer is divided by zero");
    return truncated ? remainder_forward(call) : modulo_forward(call);
}

#define TWO_OVER_SQRT_PI 1.12837916709551257390
#define SIGN(x) ((x) > 0 ? 1 : (x) < 0 ? -1 : 0)

UNARY_INTEGER(negate, -X, -1, integer_negate(XI))
UNARY_INTEGER(absolute, REAL_ABS(X), SIGN(X), XI < 0 ? integer_negate(XI) : XI)
UNARY_RUN(sign, SIGN(X))
UNARY_INTEGER_RUN(sign, SIGN(XI))
UNARY_FORWARD_CALL(sign, sign_integers)
UNARY(square_root, REAL_SQRT(X), R(0.5) / Y)
UNARY(exponential, REAL_EXP(X), Y)
UNARY(logarithm, REAL_LOG(X), 1 / X)
UNARY(reciprocal, 1 / X, -Y *Y)
UNARY(error_function, REAL_ERF(X), R(TWO_OVER_SQRT_PI) * REAL_EXP(-X * X))
UNARY(sine, REAL_SIN(X), REAL_COS(X))
UNARY(cosine, REAL_COS(X), -REAL_SIN(X))
UNARY(tangent, REAL_TAN(X), 1 + Y * Y)
UNARY(arc_sine, REAL_ASIN(X), 1 / REAL_SQRT(1 - X * X))
UNARY(arc_cosine, REAL_ACOS(X), -1 / REAL_SQRT(1 - X * X))
UNARY(arc_tangent, REAL_ATAN(X), 1 / (1 + X * X))
UNARY(hyperbolic_sine, REAL_SINH(X), REAL_COSH(X))
UNARY(hyperbolic_cosine, REAL_COSH(X), REAL_SINH(X))
UNARY(area_sine, REAL_ASINH(X), 1 / REAL_SQRT(X * X + 1))
UNARY(area_cosine, REAL_ACOSH(X), 1 / REAL_SQRT(X * X - 1))
UNARY(area_tangent, REAL_ATANH(X), 1 / (1 - X * X))
UNARY_LINES(negate)
UNARY_LINES(absolute)
UNARY_SECOND(square_root, R(-0.25) / (Y * Y * Y))
UNARY_SECOND(exponential, Y)
UNARY_SECOND(logarithm, -1 / (X * X))
UNARY_SECOND(reciprocal, 2 * Y * Y * Y)
UNARY_SECOND(error_function, R(-2 * TWO_OVER_SQRT_PI) * X * REAL_EXP(-X * X))
UNARY_SECOND(sine, -REAL_SIN(X))
UNARY_SECOND(cosine, -REAL_COS(X))
UNARY_SECOND(tangent, 2 * Y * (1 + Y * Y))
UNARY_SECOND(arc_sine, X / ((1 - X * X) * REAL_SQRT(1 - X * X)))
UNARY_SECOND(arc_cosine, -X / ((1 - X * X) * REAL_SQRT(1 - X * X)))
UNARY_SECOND(arc_tangent, -2 * X / ((1 + X * X) * (1 + X * X)))
UNARY_SECOND(hyperbolic_sine, REAL_SINH(X))
UNARY_SECOND(hyperbolic_cosine, REAL_COSH(X))
UNARY_SECOND(area_sine, -X / ((X * X + 1) * REAL_SQRT(X * X + 1)))
UNARY_SECOND(area_cosine, -X / ((X * X - 1) * REAL_SQRT(X * X - 1)))
UNARY_SECOND(area_tangent, 2 * X / ((1 - X * X) * (1 - X * X)))
UNARY_FORWARD(floor_to_integer, REAL_FLOOR(X))
UNARY_FORWARD(ceiling, REAL_CEIL(X))
UNARY_FORWARD(nearest, REAL_RINT(X)) /* to nearest, ties to even: the default rounding mode */

static const OpRow rows[] = {
    {"", "Add", 7, 0, .forward = add_forward, .backward = add_backward, .square = add_square,
     .curvature = curvature_as_backward},
    {"", "Sub", 7, 0, .forward = subtract_forward, .backward = subtract_backward,
     .square = subtract_square, .curvature = subtract_curvature},
    {"", "Mul", 7, OP_KEEP_INPUTS, .forward = multiply_forward, .backward = multiply_backward,
     .square = multiply_square, .curvature = curvature_of_product},
    {"", "Div", 7, OP_KEEP_INPUTS, .forward = divide_checked_forward, .backward = divide_backward,
     .square = divide_square, .curvature = divide_curvature},
    {"", "Pow", 7, OP_KEEP_INPUTS, .forward = power_mixed_forward, .backward = power_mixed_backward,
     .square = power_mixed_square, .curvature = power_mixed_curvature},
    {"", "Mod", 10, 0, .forward = modulo_checked_forward},
    {"", "Neg", 6, 0, .forward = negate_forward, .backward = negate_backward,
     .curvature = negate_curvature},
    {"", "Abs", 6, OP_KEEP_INPUTS, .forward = absolute_forward, .backward = absolute_backward,
     .curvature = absolute_curvature},
    {"", "Sqrt", 6, OP_KEEP_OUTPUTS, .forward = square_root_forward,
     .backward = square_root_backward, .curvature = square_root_curvature},
    {"", "Exp", 6, OP_KEEP_OUTPUTS, .forward = exponential_forward,
     .backward = exponential_backward, .curvature = exponential_curvature},
    {"", "Log", 6, OP_KEEP_INPUTS, .forward = logarithm_forward, .backward = logarithm_backward,
     .curvature = logarithm_curvature},
    {"", "Reciprocal", 6, OP_KEEP_OUTPUTS, .forward = reciprocal_forward,
     .backward = reciprocal_backward, .curvature = reciprocal_curvature},
    {"", "Erf", 9, OP_KEEP_INPUTS, .forward = error_function_forward,
     .backward = error_function_backward, .curvature = error_function_curvature},
    {"", "Sin", 7, OP_KEEP_INPUTS, .forward = sine_forward, .backward = sine_backward,
     .curvature = sine_curvature},
    {"", "Cos", 7, OP_KEEP_INPUTS, .forward = cosine_forward, .backward = cosine_backward,
     .curvature = cosine_curvature},
    {"", "Tan", 7, OP_KEEP_OUTPUTS, .forward = tangent_forward,
     .backward = tangent_backward, .curvature = tangent_curvature},
    {"", "Asin", 7, OP_KEEP_INPUTS, .forward = arc_sine_forward,
     .backward = arc_sine_backward, .curvature = arc_sine_curvature},
    {"", "Acos", 7, OP_KEEP_INPUTS, .forward = arc_cosine_forward,
     .backward = arc_cosine_backward, .curvature = arc_cosine_curvature},
    {"", "Atan", 7, OP_KEEP_INPUTS, .forward = arc_tangent_forward,
     .backward = arc_tangent_backward, .curvature = arc_tangent_curvature},
    {"", "Sinh", 9, OP_KEEP_INPUTS, .forward = hyperbolic_sine_forward,
     .backward = hyperbolic_sine_backward, .curvature = hyperbolic_sine_curvature},
    {"", "Cosh", 9, OP_KEEP_INPUTS, .forward = hyperbolic_cosine_forward,
     .backward = hyperbolic_cosine_backward, .curvature = hyperbolic_cosine_curvature},
    {"", "Asinh", 9, OP_KEEP_INPUTS, .forward = area_sine_forward,
     .backward = area_sine_backward, .curvature = area_sine_curvature},
    {"", "Acosh", 9, OP_KEEP_INPUTS, .forward = area_cosine_forward,
     .backward = area_cosine_backward, .curvature = area_cosine_curvature},
    {"", "Atanh", 9, OP_KEEP_INPUTS, .forward = area_tangent_forward,
     .backward = area_tangent_backward, .curvature = area_tangent_curvature},
    {"", "Floor", 6, 0, .forward = floor_to_integer_forward},
    {"", "Ceil", 6, 0, .forward = ceiling_forward},
    {"", "Round", 11, 0, .forward = nearest_forward},
    {"", "Sign", 9, 0, .forward = sign_forward},
};

const OpFamily op_family_elementwise = {rows, sizeof rows / sizeof rows[0]};
