/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's normalizations of sums: SkipLayerNormalization (input + skip + bias),
 * SkipSimplifiedLayerNormalization (without a mean), EmbedLayerNormalization (rows of tables). */
#include "ops/row_norm_internal.h"

#include <string.h>

enum { FROM_WORD, FROM_POSITION, FROM_SEGMENT, TABLES };

typedef struct {
    bool embeds, centred;
    int scale, shift, bias, sum; /* inputs and the output; -1: there is none */
    real epsilon;
} SumNorm;

static int read_sum_norm(OpNode *node, Arena *arena, SumNorm like, Error *err)
{
    SumNorm *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    *params = like;
    params->epsilon = (real)attribute_float(node, "epsilon", 1e-12f);
    if (!(params->epsilon >= 0))
        return read_error(node, err, ONNXPRESS_FORMAT, "epsilon is negative");
    node->params = params;
    return ONNXPRESS_OK;
}

static int read_skip(OpNode *node, Arena *arena, Error *err)
{
    SumNorm like = {.centred = true, .scale = 2, .shift = 3, .bias = 4, .sum = 3};
    return read_sum_norm(node, arena, like, err);
}

static int read_skip_simplified(OpNode *node, Arena *arena, Error *err)
{
    return read_sum_norm(node, arena, (SumNorm){.scale = 2, .shift = -1, .bias = 3, .sum = 3}, err);
}

static int read_embed(OpNode *node, Arena *arena, Error *err)
{
    SumNorm like = {.embeds = true, .centred = true, .scale = 5, .shift = 6, .bias = -1, .sum = 2};
    return read_sum_norm(node, arena, like, err);
}

static const Value *input_or_none(const OpCall *call, int k)
{
    return k < 0 ? NULL : op_in(call, k);
}

static const real *reals_or_none(const OpCall *call, int k)
{
    const Value *value = input_or_none(call, k);
    return value ? value->r : NULL;
}

/* Scale, shift and bias have one number a column. */
static int describe(const OpCall *call, int64_t rows, int64_t n, TensorNorm *norm)
{
    const SumNorm *params = call->node->params;
    const int lists[3] = {params->scale, params->shift, params->bias};
    *norm = (TensorNorm){.norm = {.n = n,
                                  .centred = params->centred,
                                  .share = n ? 1 / (real)n : 0,
                                  .epsilon = params->epsilon},
                         .rows = rows,
                         .scale = {1, n},
                         .bias = {1, n}};
    for (int k = 0; k < 3; k++) {
        const Value *list = input_or_none(call, lists[k]);
        int status = list ? op_require_real(call, lists[k]) : ONNXPRESS_OK;
        if (status)
            return status;
        if (list && list->count != n)
            return op_error(call, ONNXPRESS_FORMAT, "input %d has %lld elements for %lld columns",
                            lists[k], (long long)list->count, (long long)n);
    }
    return ONNXPRESS_OK;
}

/* ---- input + skip + bias ---- */

static int skip_shape(const OpCall *call, TensorNorm *norm, Spread *skip)
{
    const Shape *x = &call->in[0]->shape;
    if (x->rank < 1)
        return op_error(call, ONNXPRESS_FORMAT, "the input is a scalar");
    int status = spread_of(call, 1, skip);
    if (status)
        return status;
    if (skip->inner != 1)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "skip is stretched along its last axis");
    int64_t n = x->dim[x->rank - 1];
    return describe(call, dims_product(x, 0, x->rank - 1), n, norm);
}

static void add_skip(const OpCall *call, int64_t n, const Spread *skip, real *sum)
{
    const SumNorm *params = call->node->params;
    const real *x = call->in[0]->r, *other = call->in[1]->r;
    const real *bias = reals_or_none(call, params->bias);
    for (int64_t start = 0; start < call->in[0]->count; start += skip->channels)
        for (int64_t e = 0; e < skip->channels; e++)
            sum[start + e] = x[start + e] + other[e];
    for (int64_t start = 0; bias && start < call->in[0]->count; start += n)
        for (int64_t j = 0; j < n; j++)
            sum[start + j] += bias[j];
}

/* ---- rows of tables ---- */

typedef struct {
    const int64_t *index[TABLES]; /* NULL: the position; of the segments: none */
    int64_t batch, length, n;
} Embedding;

static int embed_shape(const OpCall *call, TensorNorm *norm, Embedding *e)
{
    const Value *ids = call->in[0], *segments = op_in(call, 1), *positions = op_in(call, 8);
    int status = op_require_integer(call, 0);
    if (status || (segments && (status = op_require_integer(call, 1))) ||
        (positions && (status = op_require_integer(call, 8))))
        return status;
    if (ids->shape.rank != 2)
        return op_error(call, ONNXPRESS_FORMAT, "ids of rank %d, not 2", ids->shape.rank);
    *e = (Embedding){{ids->i, positions ? positions->i : NULL, segments ? segments->i : NULL},
                     ids->shape.dim[0],
                     ids->shape.dim[1],
                     0};
    if ((segments && segments->count != ids->count) ||
        (positions && positions->count != ids->count && positions->count != e->length))
        return op_error(call, ONNXPRESS_FORMAT, "the lists of indices differ in length");
    if (!!segments != !!op_in(call, 4))
        return op_error(call, ONNXPRESS_FORMAT, "segments without their table, or without ids");
    for (int k = 0; k < TABLES; k++) {
        const Value *table = op_in(call, 2 + k);
        if (!table && k == FROM_SEGMENT)
            continue;
        if ((status = op_require_real(call, 2 + k)))
            return status;
        if (table->shape.rank != 2 || (k && table->shape.dim[1] != e->n))
            return op_error(call, ONNXPRESS_FORMAT, "table %d has another width", 2 + k);
        e->n = table->shape.dim[1];
    }
    return describe(call, ids->count, e->n, norm);
}

/* The row of table k at a place, -1: out of range. */
static int64_t embed_row(const OpCall *call, const Embedding *e, int k, int64_t place)
{
    int64_t row = place % e->length;
    if (k == FROM_POSITION && e->index[k] && call->in[8]->count == e->length)
        row = e->index[k][row];
    else if (e->index[k])
        row = e->index[k][place];
    return row >= 0 && row < call->in[2 + k]->shape.dim[0] ? row : -1;
}

static int add_embeddings(const OpCall *call, const Embedding *e, real *sum)
{
    memset(sum, 0, (size_t)(e->batch * e->length * e->n) * sizeof *sum);
    for (int64_t place = 0; place < e->batch * e->length; place++)
        for (int k = 0; k < TABLES; k++) {
            if (!op_in(call, 2 + k))
                continue;
            int64_t row = embed_row(call, e, k, place);
            if (row < 0)
                return op_error(call, ONNXPRESS_DATA, "place %lld points out of table %d",
                                (long long)place, 2 + k);
            add_dense(e->n, sum + place * e->n, call->in[2 + k]->r + row * e->n);
        }
    return ONNXPRESS_OK;
}

/* Output 1: how many of each sample's tokens the mask leaves. */
static int count_mask(const OpCall *call, const Embedding *e)
{
    const Value *mask = op_in(call, 7);
    Shape shape = {.rank = 1, .dim = {e->batch}};
    if (call->n_out < 2 || !call->out[1])
        return ONNXPRESS_OK;
    int status = mask ? op_require_integer(call, 7) : ONNXPRESS_OK;
    if (status || (status = op_output(call, 1, DTYPE_INT32, &shape)))
        return status;
    if (mask && mask->count != e->batch * e->length)
        return op_error(call, ONNXPRESS_FORMAT, "the mask has another shape");
    for (int64_t b = 0; b < e->batch; b++) {
        call->out[1]->i[b] = 0;
        for (int64_t s = 0; mask && s < e->length; s++)
            call->out[1]->i[b] += mask->i[b * e->length + s] == 1;
    }
    return ONNXPRESS_OK;
}

/* ---- both ---- */

typedef struct {
    TensorNorm norm;
    Spread skip;
    Embedding embedding;
    Shape shape;
} Sum;

static int sum_shape(const OpCall *call, Sum *s)
{
    const SumNorm *params = call->node->params;
    int status = params->embeds ? embed_shape(call, &s->norm, &s->embedding)
                                : skip_shape(call, &s->norm, &s->skip);
    s->shape =
        params->embeds
            ? (Shape){.rank = 3, .dim = {s->embedding.batch, s->embedding.length, s->embedding.n}}
            : call->in[0]->shape;
    return status;
}

static int fill_sum(const OpCall *call, const Sum *s, real *sum)
{
    const SumNorm *params = call->node->params;
    if (params->embeds)
        return add_embeddings(call, &s->embedding, sum);
    add_skip(call, s->norm.norm.n, &s->skip, sum);
    return ONNXPRESS_OK;
}

static int sum_forward(const OpCall *call)
{
    const SumNorm *params = call->node->params;
    Sum s;
    static const int needed[2][4] = {{0, 1, 2, 2}, {2, 3, 5, 6}};
    int status = op_require(call, 1);
    for (int k = 0; !status && k < 4; k++)
        status = op_require_real(call, needed[params->embeds][k]);
    for (int k = 1; !status && !params->embeds && k < call->n_out && k < 3; k++)
        if (call->out[k])
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "an output of training is asked for");
    if (status || (status = sum_shape(call, &s)))
        return status;
    int dtype = call->in[params->scale]->dtype;
    bool wanted = params->sum < call->n_out && call->out[params->sum];
    if ((status = op_output(call, 0, dtype, &s.shape)) ||
        (wanted && (status = op_output(call, params->sum, dtype, &s.shape))) ||
        (params->embeds && (status = count_mask(call, &s.embedding))) || !call->out[0]->count)
        return status;
    real *sum = wanted ? call->out[params->sum]->r
                       : op_scratch(call, (size_t)call->out[0]->count, sizeof *sum);
    if (!sum)
        return ONNXPRESS_MEMORY;
    if ((status = fill_sum(call, &s, sum)))
        return status;
    return tensor_norm_forward(call, &s.norm,
                               &(NormTensors){.x = sum,
                                              .scale = reals_or_none(call, params->scale),
                                              .bias = reals_or_none(call, params->shift),
                                              .y = call->out[0]->r});
}

/* From the sum on to what was added: every slope is 1, for second derivatives too. */
static void spread_gradient(const OpCall *call, const Sum *s, const real *d_sum)
{
    const SumNorm *params = call->node->params;
    const Embedding *e = &s->embedding;
    int64_t n = s->norm.norm.n, count = s->norm.rows * n;
    if (params->embeds) {
        for (int64_t place = 0; place < e->batch * e->length; place++)
            for (int k = 0; k < TABLES; k++)
                if (op_d_in(call, 2 + k))
                    add_dense(n, call->d_in[2 + k] + embed_row(call, e, k, place) * n,
                              d_sum + place * n);
        return;
    }
    real *d_bias = params->bias < call->n_in ? call->d_in[params->bias] : NULL;
    if (call->d_in[0])
        add_dense(count, call->d_in[0], d_sum);
    for (int64_t start = 0; call->d_in[1] && start < count; start += s->skip.channels)
        add_dense(s->skip.channels, call->d_in[1], d_sum + start);
    for (int64_t start = 0; d_bias && start < count; start += n)
        add_dense(n, d_bias, d_sum + start);
}

/* `first` NULL: backward; else the second-order rule. */
static int sum_backpropagate(const OpCall *call, const real *const *first)
{
    const SumNorm *params = call->node->params;
    Sum s;
    int status = sum_shape(call, &s);
    if (status || call->out[0]->count == 0)
        return status;
    size_t count = (size_t)call->out[0]->count;
    real *sum = op_scratch(call, count, sizeof *sum);
    real *d_sum = sum ? op_scratch(call, count, sizeof *d_sum) : NULL;
    if (!d_sum)
        return ONNXPRESS_MEMORY;
    if ((status = fill_sum(call, &s, sum)))
        return status;
    memset(d_sum, 0, count * sizeof *d_sum);
    NormTensors t = {.x = sum,
                     .scale = reals_or_none(call, params->scale),
                     .d_y = call->d_out[0],
                     .d_x = d_sum,
                     .d_scale = op_d_in(call, params->scale),
                     .d_bias = params->shift < 0 ? NULL : op_d_in(call, params->shift)};
    t.first[0] = first ? first[0] : NULL;
    if (t.d_y)
        status = first ? tensor_norm_curvature(call, &s.norm, &t)
                       : tensor_norm_backward(call, &s.norm, &t);
    if (status)
        return status;
    if (params->sum < call->n_out && call->d_out[params->sum])
        add_dense((int64_t)count, d_sum, call->d_out[params->sum]);
    spread_gradient(call, &s, d_sum);
    return ONNXPRESS_OK;
}

static int sum_backward(const OpCall *call)
{
    return sum_backpropagate(call, NULL);
}

static int sum_curvature(const OpCall *call, const real *const *d_out)
{
    return sum_backpropagate(call, d_out);
}

static int skip_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 3, k, acc);
}

static int embed_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 1 << 0 | 1 << 1 | 1 << 7 | 1 << 8, k, acc);
}

#define MICROSOFT(type, read_function, square_function)                                            \
    {                                                                                              \
        "com.microsoft", type, 1, OP_KEEP_INPUTS, read_function, sum_forward, sum_backward,        \
            square_function, .curvature = sum_curvature                                            \
    }
static const OpRow rows[] = {
    MICROSOFT("SkipLayerNormalization", read_skip, skip_square),
    MICROSOFT("SkipSimplifiedLayerNormalization", read_skip_simplified, skip_square),
    MICROSOFT("EmbedLayerNormalization", read_embed, embed_square),
};

const OpFamily op_family_skip_norm = {rows, sizeof rows / sizeof rows[0]};
