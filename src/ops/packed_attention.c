/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's Attention: one product makes Q, K and V side by side in each row. */
#include "ops/attention_internal.h"

#include <cblas.h>
#include <string.h>

enum { INPUT, WEIGHTS, BIAS, MASK, PAST, ADDED };

typedef struct {
    int64_t heads;
    int64_t sizes[3]; /* numbers of Q, K and V in a row; 0: a third each */
    float scale, barred;
    bool causal;
} Params;

static int read_packed(OpNode *node, Arena *arena, Error *err)
{
    Params *params = arena_array(arena, 1, sizeof *params);
    const int64_t *sizes;
    if (!params)
        return error_memory(err, "a node's parameters");
    int n = attribute_ints(node, "qkv_hidden_sizes", &sizes);
    params->heads = attribute_int(node, "num_heads", 0);
    params->scale = attribute_float(node, "scale", 0);
    params->barred = attribute_float(node, "mask_filter_value", -10000);
    params->causal = attribute_int(node, "unidirectional", 0) != 0;
    if (attribute_int(node, "do_rotary", 0))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "do_rotary is set");
    if (params->heads < 1 || (n > 0 && n != 3))
        return read_error(node, err, ONNXPRESS_FORMAT, "num_heads or qkv_hidden_sizes is wrong");
    for (int k = 0; k < n; k++) {
        params->sizes[k] = sizes[k];
        if (sizes[k] < 1 || sizes[k] > INT32_MAX)
            return read_error(node, err, ONNXPRESS_FORMAT, "qkv_hidden_sizes holds %lld",
                              (long long)sizes[k]);
    }
    node->params = params;
    return ONNXPRESS_OK;
}

typedef struct {
    Attention a;
    int64_t rows, channels, width; /* rows of all samples; numbers of one before and after */
    View view[3], y;               /* without data */
    int64_t at[3];                 /* where Q, K and V begin in a row */
    Shape out;
} Packed;

static int describe(const OpCall *call, Packed *p)
{
    const Params *params = call->node->params;
    const Value *x = call->in[INPUT], *w = call->in[WEIGHTS], *bias = op_in(call, BIAS);
    for (int k = 0; k < call->n_in; k++)
        if (call->in[k] && (k == PAST || k > ADDED))
            return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is not handled", k);
    if (x->shape.rank != 3 || w->shape.rank != 2 || x->shape.dim[2] != w->shape.dim[0])
        return op_error(call, ONNXPRESS_FORMAT, "input and weights do not fit each other");
    int64_t batch = x->shape.dim[0], rows = x->shape.dim[1], sizes[3], sum = 0;
    p->channels = x->shape.dim[2];
    p->width = w->shape.dim[1];
    p->rows = batch * rows;
    for (int k = 0; k < 3; k++) {
        sizes[k] = params->sizes[0] ? params->sizes[k] : p->width / 3;
        p->at[k] = sum;
        sum += sizes[k];
        if (sizes[k] % params->heads)
            return op_error(call, ONNXPRESS_FORMAT, "%lld heads for rows of %lld numbers",
                            (long long)params->heads, (long long)sizes[k]);
        p->view[k] = (View){NULL, rows * p->width, sizes[k] / params->heads, p->width};
    }
    if (sum != p->width || sizes[0] != sizes[1] || (bias && bias->count != p->width))
        return op_error(call, ONNXPRESS_FORMAT, "the sizes of Q, K, V and bias do not fit");
    if (x->count < 1 || p->width < 1 || p->rows > INT32_MAX || p->channels > INT32_MAX ||
        p->width > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "an input without elements, or too large");
    p->a = (Attention){.batch = batch,
                       .heads = params->heads,
                       .kv_heads = params->heads,
                       .rows = rows,
                       .columns = rows,
                       .size = sizes[0] / params->heads,
                       .v_size = sizes[2] / params->heads,
                       .causal = params->causal};
    p->a.scale = params->scale != 0 ? (real)params->scale : 1 / REAL_SQRT((real)p->a.size);
    p->out = (Shape){.rank = 3, .dim = {batch, rows, sizes[2]}};
    p->y = (View){NULL, rows * sizes[2], p->a.v_size, sizes[2]};
    return ONNXPRESS_OK;
}

/* Sizes, the projected rows and the masks. */
static int prepare(const OpCall *call, Packed *p)
{
    const Params *params = call->node->params;
    int status = describe(call, p);
    if (status)
        return status;
    const Value *bias = op_in(call, BIAS);
    real *rows = op_scratch(call, (size_t)p->rows, (size_t)p->width * sizeof *rows);
    if (!rows)
        return ONNXPRESS_MEMORY;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t j = 0; j < p->width; j++)
            rows[r * p->width + j] = bias ? bias->r[j] : 0;
    matrix_product(false, false, p->rows, p->width, p->channels, 1, call->in[INPUT]->r, p->channels,
                   call->in[WEIGHTS]->r, p->width, 1, rows, p->width);
    View *const views[3] = {&p->a.q, &p->a.k, &p->a.v};
    for (int k = 0; k < 3; k++) {
        *views[k] = p->view[k];
        views[k]->p = rows + p->at[k];
    }
    if (op_in(call, MASK) && (status = attention_mask(call, &p->a, MASK, (real)params->barred)))
        return status;
    if (op_in(call, ADDED) && (status = op_require_real(call, ADDED)))
        return status;
    return op_in(call, ADDED) ? attention_grid(call, &p->a, ADDED, call->in[ADDED]->r, &p->a.bias)
                              : ONNXPRESS_OK;
}

static int packed_forward(const OpCall *call)
{
    Packed p;
    int status = op_require(call, 2);
    for (int k = 0; !status && k <= BIAS; k++)
        if (op_in(call, k))
            status = op_require_real(call, k);
    for (int k = 1; !status && k < call->n_out; k++)
        if (call->out[k])
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "output %d is not handled", k);
    if (status || (status = prepare(call, &p)) ||
        (status = op_output(call, 0, call->in[INPUT]->dtype, &p.out)))
        return status;
    AttentionRun run = {.y = p.y};
    run.y.p = call->out[0]->r;
    return attention_forward(call, &p.a, &run);
}

/* A copy with every number squared; NULL: out of memory. */
static const real *squared(const OpCall *call, const Value *x)
{
    real *to = op_scratch(call, (size_t)x->count, sizeof *to);
    for (int64_t e = 0; to && e < x->count; e++)
        to[e] = x->r[e] * x->r[e];
    return to;
}

/* `first` NULL: backward; else the second-order rule, which like the recursion between ops leaves
 * out what several projected numbers do together. */
static int packed_add(const OpCall *call, const real *const *first)
{
    Packed p;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    int status = prepare(call, &p);
    if (status)
        return status;
    size_t bytes = (size_t)p.width * sizeof(real);
    real *d_rows = op_scratch(call, (size_t)p.rows, bytes);
    const real *x = call->in[INPUT]->r, *w = call->in[WEIGHTS]->r;
    if (first && (!(x = squared(call, call->in[INPUT])) || !(w = squared(call, call->in[WEIGHTS]))))
        return ONNXPRESS_MEMORY;
    if (!d_rows)
        return ONNXPRESS_MEMORY;
    memset(d_rows, 0, (size_t)p.rows * bytes);
    AttentionRun run = {.y = p.y,
                        .q = p.view[0],
                        .k = p.view[1],
                        .v = p.view[2],
                        .d_y = first ? first[0] : call->d_out[0],
                        .dd_y = call->d_out[0],
                        .bias = op_d_in(call, ADDED)};
    run.q.p = d_rows + p.at[0];
    run.k.p = d_rows + p.at[1];
    run.v.p = d_rows + p.at[2];
    status = first ? attention_curvature(call, &p.a, &run) : attention_backward(call, &p.a, &run);
    if (status)
        return status;
    if (call->d_in[INPUT])
        matrix_product(false, true, p.rows, p.channels, p.width, 1, d_rows, p.width, w, p.width, 1,
                       call->d_in[INPUT], p.channels);
    if (call->d_in[WEIGHTS])
        matrix_product(true, false, p.channels, p.width, p.rows, 1, x, p.channels, d_rows, p.width,
                       1, call->d_in[WEIGHTS], p.width);
    for (int64_t r = 0; op_d_in(call, BIAS) && r < p.rows; r++)
        add_dense(p.width, call->d_in[BIAS], d_rows + r * p.width);
    return ONNXPRESS_OK;
}

static int packed_backward(const OpCall *call)
{
    return packed_add(call, NULL);
}

static int packed_curvature(const OpCall *call, const real *const *d_out)
{
    return packed_add(call, d_out);
}

static int packed_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 1 << INPUT | 1 << MASK | 1 << ADDED, k, acc);
}

static bool packed_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    (void)node;
    if (k != WEIGHTS || weight->rank != 2)
        return false;
    *matrix = (OpMatrix){.groups = 1,
                         .rows = weight->dim[1],
                         .columns = weight->dim[0],
                         .row_stride = 1,
                         .column_stride = weight->dim[1]};
    return true;
}

static int packed_moment(const OpCall *call, int k, real *acc)
{
    Packed p = {0};
    (void)k;
    int status = describe(call, &p);
    if (!status)
        REAL_SYRK(CblasRowMajor, CblasLower, CblasTrans, (int)p.channels, (int)p.rows, 1,
                  call->in[INPUT]->r, (int)p.channels, 1, acc, (int)p.channels);
    return status;
}

static const OpRow rows[] = {
    {"com.microsoft", "Attention", 1, OP_KEEP_INPUTS, read_packed, packed_forward, packed_backward,
     packed_square, packed_matrix, packed_moment, .curvature = packed_curvature},
};

const OpFamily op_family_packed_attention = {rows, sizeof rows / sizeof rows[0]};
