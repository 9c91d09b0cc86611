/* SPDX-License-Identifier: Apache-2.0
 *
 * Random tensors. Every run draws the same numbers, which follow from the node's `seed` (0 without
 * one): so a model's answers can be compared. They are not the numbers that a runtime draws. */
#include "ops/support_internal.h"

typedef struct {
    uint64_t state;
} Draws;

static Draws draws_of(const OpCall *call)
{
    double seed = 1024 * (double)attribute_float(call->node, "seed", 0);
    return (Draws){seed > -0x1p62 && seed < 0x1p62 ? (uint64_t)(int64_t)seed : 0};
}

/* splitmix64; [0, 1) */
static double uniform(Draws *draws)
{
    uint64_t z = draws->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double normal(Draws *draws)
{
    double radius = sqrt(-2 * log(1 - uniform(draws)));
    return radius * cos(2 * 3.14159265358979323846 * uniform(draws));
}

/* The type asked for, else `otherwise`; a real type. */
static int real_output(const OpCall *call, int otherwise, const Shape *shape)
{
    int dtype = (int)attribute_int(call->node, "dtype", otherwise);
    if (!dtype_is_real(dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "random numbers of %s are not handled",
                        dtype_name(dtype));
    return op_output(call, 0, dtype, shape);
}

static int make_output(const OpCall *call, bool like)
{
    int status = op_require(call, like ? 1 : 0);
    if (status)
        return status;
    if (like)
        return real_output(call, call->in[0]->dtype, &call->in[0]->shape);
    const int64_t *dims;
    int n = attribute_ints(call->node, "shape", &dims);
    Shape shape = {.rank = n};
    if (n < 0 || n > TENSOR_MAX_RANK)
        return op_error(call, ONNXPRESS_FORMAT, "the shape is missing or of more than %d axes",
                        TENSOR_MAX_RANK);
    for (int a = 0; a < n; a++)
        shape.dim[a] = dims[a];
    return real_output(call, DTYPE_FLOAT, &shape);
}

static int fill_uniform(const OpCall *call, bool like)
{
    double low = (double)attribute_float(call->node, "low", 0);
    double high = (double)attribute_float(call->node, "high", 1);
    int status = make_output(call, like);
    Draws draws = draws_of(call);
    for (int64_t e = 0; !status && e < call->out[0]->count; e++)
        call->out[0]->r[e] = (real)(low + (high - low) * uniform(&draws));
    return status;
}

static int fill_normal(const OpCall *call, bool like)
{
    double mean = (double)attribute_float(call->node, "mean", 0);
    double scale = (double)attribute_float(call->node, "scale", 1);
    int status = make_output(call, like);
    Draws draws = draws_of(call);
    for (int64_t e = 0; !status && e < call->out[0]->count; e++)
        call->out[0]->r[e] = (real)(mean + scale * normal(&draws));
    return status;
}

OP_FORWARD(uniform, fill_uniform, false)
OP_FORWARD(uniform_like, fill_uniform, true)
OP_FORWARD(normal, fill_normal, false)
OP_FORWARD(normal_like, fill_normal, true)

/* 1 with the probability that the input gives. */
static int bernoulli_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)))
        return status;
    const Value *x = call->in[0];
    int dtype = (int)attribute_int(call->node, "dtype", x->dtype);
    if (!dtype_is_real(dtype) && !dtype_is_integer(dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "random numbers of %s are not handled",
                        dtype_name(dtype));
    if ((status = op_output(call, 0, dtype, &x->shape)))
        return status;
    Draws draws = draws_of(call);
    for (int64_t e = 0; e < x->count; e++) {
        bool one = uniform(&draws) < (double)x->r[e];
        if (call->out[0]->r)
            call->out[0]->r[e] = one;
        else
            call->out[0]->i[e] = one;
    }
    return ONNXPRESS_OK;
}

/* Classes drawn from rows of log-probabilities, not normalized: the largest of each logit plus a
 * draw of Gumbel's distribution. */
static int multinomial_forward(const OpCall *call)
{
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)))
        return status;
    const Value *x = call->in[0];
    int dtype = (int)attribute_int(call->node, "dtype", DTYPE_INT32);
    int64_t samples = attribute_int(call->node, "sample_size", 1);
    if (x->shape.rank != 2 || samples < 0 || !dtype_is_integer(dtype))
        return op_error(call, ONNXPRESS_FORMAT, "samples of integers from rows of rank 2");
    int64_t classes = x->shape.dim[1];
    Shape shape = {.rank = 2, .dim = {x->shape.dim[0], samples}};
    if ((status = op_output(call, 0, dtype, &shape)))
        return status;
    if (classes == 0 && call->out[0]->count > 0)
        return op_error(call, ONNXPRESS_DATA, "there is no class to draw");
    Draws draws = draws_of(call);
    for (int64_t e = 0; e < call->out[0]->count; e++) {
        const real *logit = x->r + e / samples * classes;
        double most = -INFINITY;
        call->out[0]->i[e] = 0;
        for (int64_t k = 0; k < classes; k++) {
            double key = (double)logit[k] - log(-log(uniform(&draws) + 0x1p-54));
            if (key > most) {
                most = key;
                call->out[0]->i[e] = integer_wrap(dtype, k);
            }
        }
    }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "RandomUniform", 1, 0, .forward = uniform_forward},
    {"", "RandomUniformLike", 1, 0, .forward = uniform_like_forward},
    {"", "RandomNormal", 1, 0, .forward = normal_forward},
    {"", "RandomNormalLike", 1, 0, .forward = normal_like_forward},
    {"", "Bernoulli", 15, 0, .forward = bernoulli_forward},
    {"", "Multinomial", 7, 0, .forward = multinomial_forward},
};

const OpFamily op_family_random = {rows, sizeof rows / sizeof rows[0]};
