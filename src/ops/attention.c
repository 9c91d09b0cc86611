/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention of opset 23, and onnxruntime's MultiHeadAttention: Q, K and V come as three inputs.
 * Caches of earlier keys, and outputs besides Y, are not handled. */
#include "ops/attention_internal.h"

#include <string.h>

enum { QUERY, KEY, VALUE, ROLES };

typedef struct {
    bool microsoft;
    int64_t heads, kv_heads; /* of inputs without an axis for them */
    float scale;             /* 0: one over the root of a row's length */
    float softcap;           /* 0: none */
    int64_t left, right;     /* of a window of columns; negative: none */
    float barred;            /* what the mask adds, where it says no */
    bool causal;
    int bias, mask, added; /* inputs: of the projections, the mask, what is added; -1: none */
    int last;              /* the inputs from here on are not handled, but for */
    int open;              /* how many columns each sample has; -1: none */
} Params;

static int read_any(OpNode *node, Arena *arena, Params like, Error *err)
{
    Params *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    *params = like;
    params->scale = attribute_float(node, "scale", 0);
    params->softcap = attribute_float(node, "softcap", 0);
    params->left = attribute_int(node, "left_window_size", -1);
    params->right = attribute_int(node, "right_window_size", -1);
    if (!(params->softcap >= 0) || params->left > INT32_MAX || params->right > INT32_MAX)
        return read_error(node, err, ONNXPRESS_FORMAT, "softcap or a window is out of range");
    if (params->heads < 0 || params->kv_heads < 0)
        return read_error(node, err, ONNXPRESS_FORMAT, "the number of heads is negative");
    node->params = params;
    return ONNXPRESS_OK;
}

static int read_attention(OpNode *node, Arena *arena, Error *err)
{
    Params like = {.heads = attribute_int(node, "q_num_heads", 0),
                   .kv_heads = attribute_int(node, "kv_num_heads", 0),
                   .barred = -INFINITY,
                   .causal = attribute_int(node, "is_causal", 0) != 0,
                   .bias = -1,
                   .mask = 3,
                   .added = 3,
                   .last = 4,
                   .open = 6};
    return read_any(node, arena, like, err);
}

static int read_multi_head(OpNode *node, Arena *arena, Error *err)
{
    int64_t heads = attribute_int(node, "num_heads", 0);
    Params like = {.microsoft = true,
                   .heads = heads,
                   .kv_heads = heads,
                   .barred = attribute_float(node, "mask_filter_value", -10000),
                   .causal = attribute_int(node, "unidirectional", 0) != 0,
                   .bias = 3,
                   .mask = 4,
                   .added = 5,
                   .last = 6,
                   .open = -1};
    return read_any(node, arena, like, err);
}

/* The three inputs: [batch, rows, heads * size], or [batch, heads, rows, size]. */
typedef struct {
    Attention a;
    View view[ROLES]; /* without data */
    int64_t heads[ROLES], rows[ROLES], size[ROLES];
    Shape out;
    View y;
} Call;

static int describe_role(const OpCall *call, int role, Call *c)
{
    const Params *params = call->node->params;
    const Shape *s = &call->in[role]->shape;
    int64_t heads = role == QUERY ? params->heads : params->kv_heads;
    if (s->rank != 3 && s->rank != 4)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d has rank %d, not 3 or 4", role,
                        s->rank);
    if (s->rank == 3 && (heads < 1 || s->dim[2] % heads))
        return op_error(call, ONNXPRESS_FORMAT, "%lld heads for rows of %lld numbers",
                        (long long)heads, (long long)s->dim[2]);
    if (s->rank == 4)
        heads = s->dim[1];
    int64_t rows = s->dim[s->rank - 2], size = s->dim[s->rank - 1];
    if (call->in[role]->count < 1 || rows > INT32_MAX || size > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d has no elements, or too many", role);
    c->heads[role] = heads;
    c->rows[role] = rows;
    c->size[role] = s->rank == 4 ? size : size / heads;
    c->view[role] = s->rank == 4 ? (View){NULL, heads * rows * size, rows * size, size}
                                 : (View){NULL, rows * size, size / heads, size};
    return ONNXPRESS_OK;
}

static int describe(const OpCall *call, Call *c)
{
    const Params *params = call->node->params;
    int status = ONNXPRESS_OK;
    for (int k = 0; !status && k < ROLES; k++)
        status = op_require_real(call, k);
    for (int k = params->last; !status && k < call->n_in; k++)
        if (call->in[k] && k != params->open)
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is not handled", k);
    for (int role = 0; !status && role < ROLES; role++)
        status = describe_role(call, role, c);
    if (status)
        return status;
    int64_t batch = call->in[0]->shape.dim[0];
    if (batch != call->in[1]->shape.dim[0] || batch != call->in[2]->shape.dim[0] ||
        c->heads[KEY] != c->heads[VALUE] || c->rows[KEY] != c->rows[VALUE] ||
        c->size[QUERY] != c->size[KEY] || c->heads[QUERY] % c->heads[KEY])
        return op_error(call, ONNXPRESS_FORMAT, "the shapes of query, key and value do not fit");
    c->a = (Attention){.batch = batch,
                       .heads = c->heads[QUERY],
                       .kv_heads = c->heads[KEY],
                       .rows = c->rows[QUERY],
                       .columns = c->rows[KEY],
                       .size = c->size[QUERY],
                       .v_size = c->size[VALUE],
                       .softcap = (real)params->softcap,
                       .causal = params->causal,
                       .near = params->left >= 0 || params->right >= 0,
                       .left = params->left,
                       .right = params->right};
    c->a.scale = params->scale != 0 ? (real)params->scale : 1 / REAL_SQRT((real)c->a.size);
    int64_t width;
    if (!int64_mul(c->a.heads, c->a.v_size, &width) || width > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "rows of too many numbers");
    bool flat = call->in[QUERY]->shape.rank == 3;
    c->out = flat ? (Shape){.rank = 3, .dim = {batch, c->a.rows, width}}
                  : (Shape){.rank = 4, .dim = {batch, c->a.heads, c->a.rows, c->a.v_size}};
    c->y = flat ? (View){NULL, c->a.rows * width, c->a.v_size, width}
                : (View){NULL, c->a.rows * width, c->a.rows * c->a.v_size, c->a.v_size};
    return ONNXPRESS_OK;
}

int attention_grid(const OpCall *call, const Attention *a, int k, const real *numbers, Grid *grid)
{
    const Shape whole = {.rank = 4, .dim = {a->batch, a->heads, a->rows, a->columns}};
    Shape joined;
    if (!shape_broadcast(&call->in[k]->shape, &whole, &joined) || !shape_equal(&joined, &whole))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d does not broadcast to the scores",
                        k);
    shape_broadcast_strides(&call->in[k]->shape, &whole, grid->stride);
    grid->p = numbers;
    return ONNXPRESS_OK;
}

/* What each number of a mask adds, 0 or `barred`; NULL: out of memory. */
static real *barriers(const OpCall *call, const Value *mask, real barred)
{
    real *room = op_scratch(call, (size_t)mask->count, sizeof *room);
    for (int64_t e = 0; room && e < mask->count; e++)
        room[e] = mask->i[e] > 0 ? 0 : barred;
    return room;
}

int attention_mask(const OpCall *call, Attention *a, int k, real barred)
{
    const Value *mask = call->in[k];
    const Shape *s = &mask->shape;
    int status = op_require_integer(call, k);
    if (status)
        return status;
    bool lengths = s->rank == 1, by_row = s->rank == 3 && s->dim[1] == a->rows;
    if ((!lengths && s->rank != 2 && !by_row) || s->dim[0] != a->batch ||
        (!lengths && s->dim[s->rank - 1] != a->columns))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "a mask of this shape is not handled");
    if (!lengths) {
        int64_t row = by_row ? a->columns : 0;
        a->mask = (Grid){barriers(call, mask, barred),
                         {by_row ? a->rows * a->columns : a->columns, 0, row, 1}};
        return a->mask.p ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
    }
    real *room = op_scratch(call, (size_t)a->batch, (size_t)a->columns * sizeof *room);
    if (!room)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < a->batch * a->columns; e++)
        room[e] = e % a->columns < mask->i[e / a->columns] ? 0 : barred;
    a->mask = (Grid){room, {a->columns, 0, 0, 1}};
    return ONNXPRESS_OK;
}

/* The columns that each sample has, and where its rows stand: the last of them. */
static int bind_lengths(const OpCall *call, Attention *a, int k)
{
    int status = op_require_integer(call, k);
    if (status)
        return status;
    const Value *lengths = call->in[k];
    if (lengths->shape.rank != 1 || lengths->count != a->batch)
        return op_error(call, ONNXPRESS_FORMAT, "input %d has no length for each sample", k);
    int64_t *offset = op_scratch(call, (size_t)a->batch, sizeof *offset);
    if (!offset)
        return ONNXPRESS_MEMORY;
    for (int64_t b = 0; b < a->batch; b++) {
        if (lengths->i[b] < 0 || lengths->i[b] > a->columns)
            return op_error(call, ONNXPRESS_DATA, "%lld columns of %lld",
                            (long long)lengths->i[b], (long long)a->columns);
        offset[b] = lengths->i[b] - a->rows;
    }
    a->open = lengths->i;
    a->offset = offset;
    return ONNXPRESS_OK;
}

/* Data, with the projections' bias added where there is one. */
static int bind_data(const OpCall *call, Call *c)
{
    const Params *params = call->node->params;
    const Value *bias = params->bias < 0 ? NULL : op_in(call, params->bias);
    View *const views[ROLES] = {&c->a.q, &c->a.k, &c->a.v};
    int64_t offset = 0;
    for (int role = 0; role < ROLES; role++) {
        const Value *x = call->in[role];
        *views[role] = c->view[role];
        views[role]->p = x->r;
        if (!bias)
            continue;
        int64_t width = x->shape.dim[x->shape.rank - 1];
        if (x->shape.rank != 3 || bias->shape.rank != 1 || offset + width > bias->count)
            return op_error(call, ONNXPRESS_FORMAT, "the bias does not fit input %d", role);
        real *sum = op_scratch(call, (size_t)x->count, sizeof *sum);
        if (!sum)
            return ONNXPRESS_MEMORY;
        for (int64_t e = 0; e < x->count; e++)
            sum[e] = x->r[e] + bias->r[offset + e % width];
        views[role]->p = sum;
        offset += width;
    }
    return ONNXPRESS_OK;
}

static int prepare(const OpCall *call, Call *c)
{
    const Params *params = call->node->params;
    int status = describe(call, c);
    const Value *bias = params->bias < 0 ? NULL : op_in(call, params->bias);
    const Value *mask = op_in(call, params->mask), *added = op_in(call, params->added);
    if (!status && bias)
        status = op_require_real(call, params->bias);
    if (!status)
        status = bind_data(call, c);
    if (!status && params->open >= 0 && op_in(call, params->open))
        status = bind_lengths(call, &c->a, params->open);
    if (status)
        return status;
    if (params->microsoft) {
        if (mask && (status = attention_mask(call, &c->a, params->mask, (real)params->barred)))
            return status;
        if (added && (status = op_require_real(call, params->added)))
            return status;
    } else if (mask && dtype_is_integer(mask->dtype)) {
        const real *bars = barriers(call, mask, (real)params->barred);
        return bars ? attention_grid(call, &c->a, params->mask, bars, &c->a.mask)
                    : ONNXPRESS_MEMORY;
    }
    return added ? attention_grid(call, &c->a, params->added, added->r, &c->a.bias) : ONNXPRESS_OK;
}

static int any_forward(const OpCall *call)
{
    Call c;
    int status = op_require(call, ROLES);
    for (int k = 1; !status && k < call->n_out; k++)
        if (call->out[k])
            status = op_error(call, ONNXPRESS_UNSUPPORTED, "output %d is not handled", k);
    if (status || (status = prepare(call, &c)) ||
        (status = op_output(call, 0, call->in[QUERY]->dtype, &c.out)))
        return status;
    AttentionRun run = {.y = c.y};
    run.y.p = call->out[0]->r;
    return attention_forward(call, &c.a, &run);
}

/* Gradients by the sums of inputs and bias go to both. */
static void pass_to_bias(const OpCall *call, real *d_bias, const real *const *sums)
{
    int64_t offset = 0;
    for (int role = 0; role < ROLES; role++) {
        const Value *x = call->in[role];
        int64_t width = x->shape.dim[x->shape.rank - 1];
        for (int64_t e = 0; sums[role] && e < x->count; e++)
            d_bias[offset + e % width] += sums[role][e];
        if (call->d_in[role])
            add_dense(x->count, call->d_in[role], sums[role]);
        offset += width;
    }
}

/* `first` NULL: backward; else the second-order rule, which takes the biases for independent of
 * each other's places, as the recursion between ops does. */
static int any_add(const OpCall *call, const real *const *first)
{
    const Params *params = call->node->params;
    Call c;
    if (!call->d_out[0])
        return ONNXPRESS_OK;
    int status = prepare(call, &c);
    if (status)
        return status;
    AttentionRun run = {.y = c.y,
                        .q = c.view[QUERY],
                        .k = c.view[KEY],
                        .v = c.view[VALUE],
                        .d_y = first ? first[0] : call->d_out[0],
                        .dd_y = call->d_out[0],
                        .bias = c.a.bias.p ? op_d_in(call, params->added) : NULL};
    View *const targets[ROLES] = {&run.q, &run.k, &run.v};
    real *d_bias = params->bias < 0 ? NULL : op_d_in(call, params->bias);
    const real *sums[ROLES];
    for (int role = 0; role < ROLES; role++) {
        targets[role]->p = call->d_in[role];
        if (!d_bias)
            continue;
        targets[role]->p = op_scratch(call, (size_t)call->in[role]->count, sizeof(real));
        if (!targets[role]->p)
            return ONNXPRESS_MEMORY;
        memset(targets[role]->p, 0, (size_t)call->in[role]->count * sizeof(real));
        sums[role] = targets[role]->p;
    }
    status = first ? attention_curvature(call, &c.a, &run) : attention_backward(call, &c.a, &run);
    if (!status && d_bias)
        pass_to_bias(call, d_bias, sums);
    return status;
}

static int any_backward(const OpCall *call)
{
    return any_add(call, NULL);
}

static int any_curvature(const OpCall *call, const real *const *d_out)
{
    return any_add(call, d_out);
}

static int multi_head_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5, k, acc);
}

static const OpRow rows[] = {
    {"", "Attention", 23, OP_KEEP_INPUTS, .read = read_attention, .forward = any_forward,
     .backward = any_backward, .curvature = any_curvature},
    {"com.microsoft", "MultiHeadAttention", 1, OP_KEEP_INPUTS, .read = read_multi_head,
     .forward = any_forward, .backward = any_backward, .square = multi_head_square,
     .curvature = any_curvature},
};

const OpFamily op_family_attention = {rows, sizeof rows / sizeof rows[0]};
