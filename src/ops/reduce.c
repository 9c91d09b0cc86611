/* SPDX-License-Identifier: Apache-2.0
 *
 * Reductions share one driver; each is a start, a step, an end and a derivative. */
#include "ops/support_internal.h"

#include <string.h>

typedef struct {
    Shape kept;  /* of the result, reduced axes kept with one element */
    Shape shape; /* of the result as asked for */
    int64_t from[TENSOR_MAX_RANK], to[TENSOR_MAX_RANK];
    int64_t n; /* elements that make one of the result */
} ReducePlan;

/* The axes are an attribute in older opsets and input 1 in newer ones; none at all means every
 * axis; with noop_with_empty_axes it means that each element is reduced alone. */
static int reduce_plan(const OpCall *call, ReducePlan *plan)
{
    const Shape *x = &call->in[0]->shape;
    const int64_t *axes;
    int n = attribute_ints(call->node, "axes", &axes), status;
    bool marked[TENSOR_MAX_RANK];
    if (n > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_FORMAT, "more axes than dimensions");
    if (n < 0 && op_in(call, 1) && (status = op_list(call, 1, TENSOR_MAX_RANK, &axes, &n)))
        return status;
    if ((status = op_mark_axes(call, axes, n > 0 ? n : 0, x->rank, marked)))
        return status;
    bool keep = attribute_int(call->node, "keepdims", 1) != 0;
    bool every = n <= 0 && attribute_int(call->node, "noop_with_empty_axes", 0) == 0;
    *plan = (ReducePlan){.kept = *x, .n = 1};
    for (int a = 0; a < x->rank; a++) {
        bool reduced = every || marked[a];
        if (reduced) {
            plan->n = (int64_t)((uint64_t)plan->n * (uint64_t)x->dim[a]);
            plan->kept.dim[a] = 1;
        }
        if (!reduced || keep)
            plan->shape.dim[plan->shape.rank++] = plan->kept.dim[a];
    }
    shape_strides(x, plan->from);
    shape_broadcast_strides(&plan->kept, x, plan->to);
    return ONNXPRESS_OK;
}

typedef struct {
    double start;
    /* y[j*step_y] takes in x[j*step_x] */
    void (*step)(int64_t n, const real *x, int64_t step_x, real *y, int64_t step_y);
    real (*end)(real y, int64_t n); /* NULL: nothing to do */
    void (*integers)(int64_t n, const int64_t *x, int64_t step_x, int64_t *y, int64_t step_y);
    int64_t integer_start; /* brought into the type's range */
    bool integer_mean;
    /* d[j*step_x] += d_y[j*step_y] * derivative; n: elements that make one of the result */
    void (*derivative)(int64_t run, real *restrict d, const real *restrict d_y, const real *x,
                       int64_t step_x, const real *y, int64_t step_y, int64_t n);
} Reduction;

/* What an extreme of no elements is: the end of the type's range. */
static int64_t integer_clamp(int dtype, int64_t value)
{
    bool is_signed = dtype == DTYPE_INT8 || dtype == DTYPE_INT16 || dtype == DTYPE_INT32;
    int bits = dtype == DTYPE_BOOL ? 1 : 8 * (int)dtype_bytes(dtype);
    if (bits == 64 || bits == 0) /* no extremes of small integers are taken */
        return dtype == DTYPE_UINT64 && value < 0 ? 0 : value;
    int64_t least = is_signed ? -((int64_t)1 << (bits - 1)) : 0;
    int64_t most = ((int64_t)1 << (is_signed ? bits - 1 : bits)) - 1;
    return value < least ? least : value > most ? most : value;
}

static int reduce_forward(const OpCall *call, const Reduction *reduction)
{
    ReducePlan plan;
    int status = op_require(call, 1);
    if (status || (!reduction->integers && (status = op_require_real(call, 0))) ||
        (status = reduce_plan(call, &plan)))
        return status;
    const Value *x = call->in[0];
    if ((status = op_output(call, 0, x->dtype, &plan.shape)))
        return status;
    Value *y = call->out[0];
    bool is_real = dtype_is_real(x->dtype);
    for (int64_t e = 0; e < y->count; e++)
        if (is_real)
            y->r[e] = (real)reduction->start;
        else
            y->i[e] = integer_clamp(x->dtype, reduction->integer_start);
    Walk w;
    if (walk_start(&w, &x->shape, 2, (const int64_t *const[]){plan.from, plan.to}))
        do
            if (is_real)
                reduction->step(w.inner, x->r + w.offset[0], w.step[0], y->r + w.offset[1],
                                w.step[1]);
            else
                reduction->integers(w.inner, x->i + w.offset[0], w.step[0], y->i + w.offset[1],
                                    w.step[1]);
        while (walk_next(&w));
    for (int64_t e = 0; e < y->count; e++)
        if (is_real && reduction->end)
            y->r[e] = reduction->end(y->r[e], plan.n);
        else if (!is_real)
            y->i[e] = integer_wrap(
                x->dtype, reduction->integer_mean && plan.n > 0 ? y->i[e] / plan.n : y->i[e]);
    return ONNXPRESS_OK;
}

static int reduce_backward(const OpCall *call, const Reduction *reduction)
{
    ReducePlan plan;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = reduce_plan(call, &plan);
    if (status)
        return status;
    const Value *x = call->in[0];
    const Value *y = call->out[0];
    Walk w;
    if (!walk_start(&w, &x->shape, 2, (const int64_t *const[]){plan.from, plan.to}))
        return ONNXPRESS_OK;
    do
        reduction->derivative(w.inner, call->d_in[0] + w.offset[0], call->d_out[0] + w.offset[1],
                              x->r + w.offset[0], w.step[0], y->r ? y->r + w.offset[1] : NULL,
                              w.step[1], plan.n);
    while (walk_next(&w));
    return ONNXPRESS_OK;
}

/* Runs of one target are summed in double: rounding then does not grow with their length. */
#define STEP(name, TERM)                                                                           \
    static void name##_step(int64_t n, const real *x, int64_t step_x, real *y, int64_t step_y)     \
    {                                                                                              \
        if (step_y == 0) {                                                                         \
            double sum = 0;                                                                        \
            for (int64_t j = 0; j < n; j++) {                                                      \
                real v = x[j * step_x];                                                            \
                sum += (double)(TERM);                                                             \
            }                                                                                      \
            *y = (real)((double)*y + sum);                                                         \
        } else {                                                                                   \
            for (int64_t j = 0; j < n; j++) {                                                      \
                real v = x[j * step_x];                                                            \
                y[j * step_y] += (real)(TERM);                                                     \
            }                                                                                      \
        }                                                                                          \
    }
#define FOLD(name, type, RESULT)                                                                   \
    static void name(int64_t n, const type *x, int64_t step_x, type *y, int64_t step_y)            \
    {                                                                                              \
        for (int64_t j = 0; j < n; j++) {                                                          \
            type v = x[j * step_x], t = y[j * step_y];                                             \
            y[j * step_y] = (type)(RESULT);                                                        \
        }                                                                                          \
    }

#define SIGN(x) ((x) > 0 ? 1 : (x) < 0 ? -1 : 0)

STEP(sum, v)
STEP(squares, v *v)
STEP(absolutes, REAL_ABS(v))
FOLD(product_step, real, t *v)
FOLD(most_step, real, v > t || v != v ? v : t)
FOLD(least_step, real, v < t || v != v ? v : t)
FOLD(sum_integers, int64_t, (uint64_t)t + (uint64_t)v)
FOLD(squares_integers, int64_t, (uint64_t)t + (uint64_t)v * (uint64_t)v)
FOLD(product_integers, int64_t, (uint64_t)t *(uint64_t)v)
FOLD(most_integers, int64_t, v > t ? v : t)
FOLD(least_integers, int64_t, v < t ? v : t)

static real mean_end(real y, int64_t n)
{
    return y / (real)n;
}

static real root_end(real y, int64_t n)
{
    (void)n;
    return REAL_SQRT(y);
}

static real log_end(real y, int64_t n)
{
    (void)n;
    return REAL_LOG(y);
}

#define X (x[j * step_x])
#define Y (y[j * step_y])
#define DERIVATIVE(name, FORMULA)                                                                  \
    static void name(int64_t run, real *restrict d, const real *restrict d_y, const real *x,       \
                     int64_t step_x, const real *y, int64_t step_y, int64_t n)                     \
    {                                                                                              \
        (void)x, (void)y, (void)n;                                                                 \
        for (int64_t j = 0; j < run; j++)                                                          \
            d[j * step_x] += d_y[j * step_y] * (real)(FORMULA);                                    \
    }

DERIVATIVE(of_sum, 1)
DERIVATIVE(of_mean, 1 / (real)n)
DERIVATIVE(of_mean_squared, 1 / (real)n / (real)n)
DERIVATIVE(of_squares, 2 * X)
DERIVATIVE(of_squares_squared, 4 * X * X)
DERIVATIVE(of_squares_second, 2)
DERIVATIVE(of_norm, Y > 0 ? X / Y : 0)
DERIVATIVE(of_norm_squared, Y > 0 ? X / Y * (X / Y) : 0)
DERIVATIVE(of_norm_second, Y > 0 ? (1 - X / Y * (X / Y)) / Y : 0)
DERIVATIVE(of_absolutes, SIGN(X))
DERIVATIVE(of_absolutes_squared, X != 0)
DERIVATIVE(of_log_sum, REAL_EXP(-Y))
DERIVATIVE(of_log_sum_squared, REAL_EXP(-2 * Y))
DERIVATIVE(of_log_sum_second, -REAL_EXP(-2 * Y))
DERIVATIVE(of_log_sum_exp, REAL_EXP(X - Y))
DERIVATIVE(of_log_sum_exp_squared, REAL_EXP(2 * (X - Y)))
DERIVATIVE(of_log_sum_exp_second, REAL_EXP(X - Y) - REAL_EXP(2 * (X - Y)))

/* The gradient of an extreme goes to the first element that attains it. */
static int extreme_backward(const OpCall *call)
{
    ReducePlan plan;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = reduce_plan(call, &plan);
    if (status)
        return status;
    const Value *x = call->in[0], *y = call->out[0];
    bool *given = op_scratch(call, (size_t)y->count, sizeof *given);
    if (!given)
        return ONNXPRESS_MEMORY;
    memset(given, 0, (size_t)y->count * sizeof *given);
    Walk w;
    if (!walk_start(&w, &x->shape, 2, (const int64_t *const[]){plan.from, plan.to}))
        return ONNXPRESS_OK;
    do
        for (int64_t j = 0; j < w.inner; j++) {
            int64_t i = w.offset[0] + j * w.step[0], o = w.offset[1] + j * w.step[1];
            if (!given[o] && x->r[i] == y->r[o]) {
                given[o] = true;
                call->d_in[0][i] += call->d_out[0][o];
            }
        }
    while (walk_next(&w));
    return ONNXPRESS_OK;
}

/* The product of the others, or that squared: y / x unless a factor is zero. */
static int product_rule(const OpCall *call, bool squared)
{
    ReducePlan plan;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = reduce_plan(call, &plan);
    if (status)
        return status;
    const Value *x = call->in[0];
    size_t n = (size_t)call->out[0]->count;
    real *product = op_scratch(call, n, sizeof *product); /* of the factors that are not zero */
    int64_t *zeros = op_scratch(call, n, sizeof *zeros);
    if (!product || !zeros)
        return ONNXPRESS_MEMORY;
    for (size_t e = 0; e < n; e++) {
        product[e] = 1;
        zeros[e] = 0;
    }
    for (int pass = 0; pass < 2; pass++) {
        Walk w;
        if (!walk_start(&w, &x->shape, 2, (const int64_t *const[]){plan.from, plan.to}))
            return ONNXPRESS_OK;
        do
            for (int64_t j = 0; j < w.inner; j++) {
                int64_t i = w.offset[0] + j * w.step[0], o = w.offset[1] + j * w.step[1];
                bool zero = x->r[i] == 0;
                if (pass == 0 && zero)
                    zeros[o]++;
                else if (pass == 0)
                    product[o] *= x->r[i];
                else if (zeros[o] == (zero ? 1 : 0)) {
                    real others = product[o] / (zero ? 1 : x->r[i]);
                    call->d_in[0][i] += call->d_out[0][o] * (squared ? others * others : others);
                }
            }
        while (walk_next(&w));
    }
    return ONNXPRESS_OK;
}

static int product_backward(const OpCall *call)
{
    return product_rule(call, false);
}

static int product_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear in each factor */
    return product_rule(call, true);
}

/* log of a sum of exponentials, each less the largest, so that none overflows. */
static int log_sum_exp_forward(const OpCall *call)
{
    static const Reduction largest = {.start = -INFINITY, .step = most_step};
    ReducePlan plan;
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) || (status = reduce_plan(call, &plan)) ||
        (status = reduce_forward(call, &largest)))
        return status;
    const Value *x = call->in[0];
    Value *y = call->out[0];
    real *sum = op_scratch(call, (size_t)y->count, sizeof *sum);
    if (!sum)
        return ONNXPRESS_MEMORY;
    memset(sum, 0, (size_t)y->count * sizeof *sum);
    for (int64_t e = 0; e < y->count; e++)
        if (y->r[e] == (real)INFINITY || y->r[e] == -(real)INFINITY)
            y->r[e] = 0; /* no difference of infinities below */
    Walk w;
    if (walk_start(&w, &x->shape, 2, (const int64_t *const[]){plan.from, plan.to}))
        do
            for (int64_t j = 0; j < w.inner; j++)
                sum[w.offset[1] + j * w.step[1]] +=
                    REAL_EXP(x->r[w.offset[0] + j * w.step[0]] - y->r[w.offset[1] + j * w.step[1]]);
        while (walk_next(&w));
    for (int64_t e = 0; e < y->count; e++)
        y->r[e] += REAL_LOG(sum[e]);
    return ONNXPRESS_OK;
}

#define REDUCTION(name, ...)                                                                       \
    static const Reduction reduction_##name = {__VA_ARGS__};                                       \
    OP_FORWARD(name, reduce_forward, &reduction_##name)
#define REDUCTION_BACKWARD(name)                                                                   \
    static int name##_backward(const OpCall *call)                                                 \
    {                                                                                              \
        return reduce_backward(call, &reduction_##name);                                           \
    }

REDUCTION(sum, .step = sum_step, .integers = sum_integers, .derivative = of_sum)
REDUCTION_BACKWARD(sum)
REDUCTION(mean, .step = sum_step, .end = mean_end, .integers = sum_integers, .integer_mean = true,
          .derivative = of_mean)
REDUCTION_BACKWARD(mean)
REDUCTION(square_sum, .step = squares_step, .integers = squares_integers, .derivative = of_squares)
REDUCTION_BACKWARD(square_sum)
REDUCTION(norm, .step = squares_step, .end = root_end, .derivative = of_norm)
REDUCTION_BACKWARD(norm)
REDUCTION(absolute_sum, .step = absolutes_step, .derivative = of_absolutes)
REDUCTION_BACKWARD(absolute_sum)
REDUCTION(log_sum, .step = sum_step, .end = log_end, .derivative = of_log_sum)
REDUCTION_BACKWARD(log_sum)
REDUCTION(product, .start = 1, .step = product_step, .integers = product_integers,
          .integer_start = 1)
REDUCTION(most, .start = -INFINITY, .step = most_step, .integers = most_integers,
          .integer_start = INT64_MIN)
REDUCTION(least, .start = INFINITY, .step = least_step, .integers = least_integers,
          .integer_start = INT64_MAX)

static int log_sum_exp_backward(const OpCall *call)
{
    static const Reduction reduction = {.derivative = of_log_sum_exp};
    return reduce_backward(call, &reduction);
}

/* With the squared slope and the second derivative (NULL: zero) as derivatives. */
static int reduce_curvature(const OpCall *call, const real *const *d_out, const Reduction *squared,
                            const Reduction *second)
{
    OpCall first = *call;
    first.d_out = d_out;
    int status = reduce_backward(call, squared);
    return status || !second->derivative ? status : reduce_backward(&first, second);
}

#define REDUCTION_CURVATURE(name, SQUARED, SECOND)                                                 \
    static int name##_curvature(const OpCall *call, const real *const *d_out)                      \
    {                                                                                              \
        static const Reduction squared = {.derivative = SQUARED}, second = {.derivative = SECOND}; \
        return reduce_curvature(call, d_out, &squared, &second);                                   \
    }

REDUCTION_CURVATURE(mean, of_mean_squared, NULL)
REDUCTION_CURVATURE(square_sum, of_squares_squared, of_squares_second)
REDUCTION_CURVATURE(norm, of_norm_squared, of_norm_second)
REDUCTION_CURVATURE(absolute_sum, of_absolutes_squared, NULL)
REDUCTION_CURVATURE(log_sum, of_log_sum_squared, of_log_sum_second)
REDUCTION_CURVATURE(log_sum_exp, of_log_sum_exp_squared, of_log_sum_exp_second)

#define BOTH (OP_KEEP_INPUTS | OP_KEEP_OUTPUTS)
static const OpRow rows[] = {
    {"", "ReduceSum", 1, OP_KEEP_INPUTS, .forward = sum_forward, .backward = sum_backward,
     .curvature = curvature_as_backward},
    {"", "ReduceMean", 1, OP_KEEP_INPUTS, .forward = mean_forward, .backward = mean_backward,
     .curvature = mean_curvature},
    {"", "ReduceMax", 1, BOTH, .forward = most_forward, .backward = extreme_backward,
     .curvature = curvature_as_backward},
    {"", "ReduceMin", 1, BOTH, .forward = least_forward, .backward = extreme_backward,
     .curvature = curvature_as_backward},
    {"", "ReduceProd", 1, OP_KEEP_INPUTS, .forward = product_forward,
     .backward = product_backward, .curvature = product_curvature},
    {"", "ReduceL1", 1, OP_KEEP_INPUTS, .forward = absolute_sum_forward,
     .backward = absolute_sum_backward, .curvature = absolute_sum_curvature},
    {"", "ReduceL2", 1, BOTH, .forward = norm_forward,
     .backward = norm_backward, .curvature = norm_curvature},
    {"", "ReduceSumSquare", 1, OP_KEEP_INPUTS, .forward = square_sum_forward,
     .backward = square_sum_backward, .curvature = square_sum_curvature},
    {"", "ReduceLogSum", 1, BOTH, .forward = log_sum_forward,
     .backward = log_sum_backward, .curvature = log_sum_curvature},
    {"", "ReduceLogSumExp", 1, BOTH, .forward = log_sum_exp_forward,
     .backward = log_sum_exp_backward, .curvature = log_sum_exp_curvature},
};

const OpFamily op_family_reduce = {rows, sizeof rows / sizeof rows[0]};
