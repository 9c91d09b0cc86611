/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's GroupQueryAttention: causal attention of few heads of keys and values for many of
 * queries, which may lie in one tensor, with a cache of earlier keys and values in front, and rotary
 * embedding on the way. Queries, keys and values are laid out anew as [batch, heads, rows, size]; the
 * derivatives take the same way back. */
#include "ops/attention_internal.h"
#include "ops/rotary_internal.h"

#include <string.h>

enum { QUERY, KEY, VALUE, ROLES };
enum { PAST = 3, LENGTHS = 5, TOTAL, COSINES, SINES, POSITIONS, ADDED, SINK };

typedef struct {
    int64_t heads, kv_heads, window; /* window: columns that a row sees, -1: all before it */
    float scale, softcap;
    bool turned, interleaved;
} Params;

static int read_group(OpNode *node, Arena *arena, Error *err)
{
    Params *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    *params = (Params){.heads = attribute_int(node, "num_heads", 0),
                       .kv_heads = attribute_int(node, "kv_num_heads", 0),
                       .window = attribute_int(node, "local_window_size", -1),
                       .scale = attribute_float(node, "scale", 0),
                       .softcap = attribute_float(node, "softcap", 0),
                       .turned = attribute_int(node, "do_rotary", 0) != 0,
                       .interleaved = attribute_int(node, "rotary_interleaved", 0) != 0};
    if (params->heads < 1 || params->kv_heads < 1 || params->heads % params->kv_heads ||
        params->heads > INT16_MAX || params->window > INT32_MAX || !(params->softcap >= 0))
        return read_error(node, err, ONNXPRESS_FORMAT, "heads, window or softcap is out of range");
    if (attribute_int(node, "smooth_softmax", 0) > 0 || attribute_int(node, "qk_output", 0) > 0)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "smooth_softmax or qk_output is set");
    node->params = params;
    return ONNXPRESS_OK;
}

/* Where the new rows of a role lie in the inputs. */
typedef struct {
    int input;
    int64_t at, heads, row; /* row: from one to the next */
} Source;

typedef struct {
    Attention a;
    Source source[ROLES];
    int64_t before;       /* columns that the cache has room for */
    int64_t half;         /* of the numbers that are turned */
    int64_t *offset;      /* [batch] columns before the new rows */
    Shape out, cache;
} Group;

static int describe_sources(const OpCall *call, Group *g)
{
    const Params *params = call->node->params;
    const Shape *q = &call->in[QUERY]->shape;
    bool packed = !op_in(call, KEY) && !op_in(call, VALUE);
    int64_t heads = params->heads + (packed ? 2 * params->kv_heads : 0);
    if (q->rank != 3 || q->dim[2] % heads || call->in[QUERY]->count < 1 ||
        q->dim[1] > INT32_MAX || q->dim[2] > INT32_MAX)
        return op_error(call, ONNXPRESS_FORMAT, "the query does not fit %lld heads",
                        (long long)heads);
    int64_t size = q->dim[2] / heads, width = params->kv_heads * size;
    g->a = (Attention){.batch = q->dim[0],
                       .heads = params->heads,
                       .kv_heads = params->kv_heads,
                       .rows = q->dim[1],
                       .size = size,
                       .v_size = size,
                       .scale = params->scale != 0 ? (real)params->scale : 1 / REAL_SQRT((real)size),
                       .softcap = (real)params->softcap,
                       .causal = true,
                       .near = params->window > 0,
                       .left = params->window - 1,
                       .right = -1};
    g->source[QUERY] = (Source){QUERY, 0, params->heads, q->dim[2]};
    for (int role = KEY; role < ROLES; role++) {
        const Shape wanted = {.rank = 3, .dim = {q->dim[0], q->dim[1], width}};
        g->source[role] =
            packed ? (Source){QUERY, params->heads * size + (role - KEY) * width, params->kv_heads,
                              q->dim[2]}
                   : (Source){role, 0, params->kv_heads, width};
        int status = packed ? ONNXPRESS_OK : op_require_real(call, role);
        if (status)
            return status;
        if (!packed && !shape_equal(&call->in[role]->shape, &wanted))
            return op_error(call, ONNXPRESS_FORMAT, "input %d does not fit the query", role);
    }
    g->out = (Shape){.rank = 3, .dim = {q->dim[0], q->dim[1], params->heads * size}};
    return ONNXPRESS_OK;
}

/* The cache, and where each sample's new rows begin. */
static int describe_cache(const OpCall *call, Group *g)
{
    int status = op_require_integer(call, LENGTHS);
    if (status || (status = op_require_integer(call, TOTAL)))
        return status;
    const Value *lengths = call->in[LENGTHS], *total = call->in[TOTAL];
    if (lengths->count != g->a.batch || total->count != 1 || total->i[0] < g->a.rows ||
        total->i[0] > INT32_MAX)
        return op_error(call, ONNXPRESS_FORMAT, "the lengths do not fit");
    for (int k = PAST; k < PAST + 2; k++) {
        const Value *past = op_in(call, k);
        if (!past)
            continue;
        if ((status = op_require_real(call, k)))
            return status;
        const Shape *s = &past->shape;
        if (s->rank != 4 || s->dim[0] != g->a.batch || s->dim[1] != g->a.kv_heads ||
            s->dim[3] != g->a.size || s->dim[2] > INT32_MAX ||
            !shape_equal(s, &op_in(call, PAST)->shape))
            return op_error(call, ONNXPRESS_FORMAT, "the cache does not fit");
        g->before = s->dim[2];
    }
    g->a.columns = g->before > total->i[0] ? g->before : total->i[0];
    g->cache = (Shape){.rank = 4, .dim = {g->a.batch, g->a.kv_heads, g->a.columns, g->a.size}};
    g->offset = op_scratch(call, (size_t)g->a.batch, sizeof *g->offset);
    if (!g->offset)
        return ONNXPRESS_MEMORY;
    bool first = total->i[0] == g->a.rows; /* a prompt: shorter ones have their end left open */
    for (int64_t b = 0; b < g->a.batch; b++) {
        int64_t at = first ? 0 : lengths->i[b] < INT32_MAX ? lengths->i[b] + 1 - g->a.rows : -1;
        if (at < 0 || at > g->before || at + g->a.rows > g->a.columns)
            return op_error(call, ONNXPRESS_DATA, "sample %lld's length does not fit the cache",
                            (long long)b);
        g->offset[b] = at;
    }
    g->a.offset = g->offset;
    return ONNXPRESS_OK;
}

static int64_t position(const OpCall *call, const Group *g, int64_t b, int64_t row)
{
    const Value *given = op_in(call, POSITIONS);
    return given ? given->i[b * g->a.rows + row] : g->offset[b] + row;
}

static int describe_rotation(const OpCall *call, Group *g)
{
    const Params *params = call->node->params;
    const Value *positions = op_in(call, POSITIONS);
    int status = params->turned ? op_require_real(call, COSINES) : ONNXPRESS_OK;
    if (!params->turned || status || (status = op_require_real(call, SINES)))
        return status;
    const Shape *table = &call->in[COSINES]->shape;
    if (table->rank != 2 || !shape_equal(table, &call->in[SINES]->shape) ||
        table->dim[1] > g->a.size / 2 ||
        (positions && (!positions->i || positions->count != g->a.batch * g->a.rows)))
        return op_error(call, ONNXPRESS_FORMAT, "the rotation's tables or positions do not fit");
    g->half = table->dim[1];
    for (int64_t b = 0; b < g->a.batch; b++)
        for (int64_t row = 0; row < g->a.rows; row++) {
            int64_t at = position(call, g, b, row);
            if (at < 0 || at >= table->dim[0])
                return op_error(call, ONNXPRESS_DATA, "position %lld of %lld", (long long)at,
                                (long long)table->dim[0]);
        }
    return ONNXPRESS_OK;
}

/* The new rows of a role: from the inputs to `laid` [batch, heads, rows from `offset` on, size], or
 * derivatives by them back. */
static void move_rows(const OpCall *call, const Group *g, int role, Turn turn, const real *from,
                      real *to)
{
    const Params *params = call->node->params;
    const Source *s = &g->source[role];
    int64_t size = g->a.size, columns = role == QUERY ? g->a.rows : g->a.columns;
    for (int64_t b = 0; b < g->a.batch; b++)
        for (int64_t row = 0; row < g->a.rows; row++) {
            bool turned = params->turned && role != VALUE;
            int64_t at = turned ? position(call, g, b, row) * g->half : 0;
            const real *cosine = turned ? call->in[COSINES]->r + at : NULL;
            const real *sine = turned ? call->in[SINES]->r + at : NULL;
            int64_t in_laid = role == QUERY ? row : g->offset[b] + row;
            for (int64_t head = 0; head < s->heads; head++) {
                int64_t given = s->at + (b * g->a.rows + row) * s->row + head * size;
                int64_t laid = ((b * s->heads + head) * columns + in_laid) * size;
                rotary_turn(params->interleaved, turned ? g->half : 0, size, turn, cosine, sine,
                            from + (turn == FORWARD ? given : laid),
                            to + (turn == FORWARD ? laid : given));
            }
        }
}

/* The cache's rows of a role before each sample's new ones: into `laid`, or added to d_past. */
static void move_past(const OpCall *call, const Group *g, int role, real *laid, real *d_past)
{
    const real *past = call->in[PAST + role - KEY]->r;
    for (int64_t b = 0; b < g->a.batch; b++)
        for (int64_t head = 0; head < g->a.kv_heads; head++) {
            int64_t n = g->offset[b] * g->a.size, k = b * g->a.kv_heads + head;
            real *row = laid + k * g->a.columns * g->a.size;
            int64_t at = k * g->before * g->a.size;
            if (d_past)
                add_dense(n, d_past + at, row);
            else
                memcpy(row, past + at, (size_t)n * sizeof *row);
        }
}

static View view_of(const Group *g, int role, real *laid)
{
    int64_t columns = role == QUERY ? g->a.rows : g->a.columns;
    return (View){laid, g->source[role].heads * columns * g->a.size, columns * g->a.size,
                  g->a.size};
}

static size_t laid_count(const Group *g, int role)
{
    return (size_t)(g->a.batch * g->source[role].heads *
                    (role == QUERY ? g->a.rows : g->a.columns) * g->a.size);
}

/* Everything that the attention reads; keys and values lie in outputs 1 and 2 where `keep` and they
 * are wanted. */
static int prepare(const OpCall *call, Group *g, bool keep)
{
    *g = (Group){0};
    int status = op_require_reals(call, 1, 1);
    int64_t count;
    if (!status && op_in(call, SINK))
        status = op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is not handled", SINK);
    if (status || (status = describe_sources(call, g)) || (status = describe_cache(call, g)) ||
        (status = describe_rotation(call, g)))
        return status;
    if (!shape_count(&g->cache, &count))
        return op_error(call, ONNXPRESS_FORMAT, "the cache's shape is not possible");
    View *const views[ROLES] = {&g->a.q, &g->a.k, &g->a.v};
    for (int role = 0; role < ROLES; role++) {
        bool output = keep && role != QUERY && role < call->n_out && call->out[role];
        if (output && (status = op_output(call, role, call->in[QUERY]->dtype, &g->cache)))
            return status;
        real *laid = output ? call->out[role]->r
                            : op_scratch(call, laid_count(g, role), sizeof *laid);
        if (!laid)
            return ONNXPRESS_MEMORY;
        memset(laid, 0, laid_count(g, role) * sizeof *laid);
        if (role != QUERY && op_in(call, PAST + role - KEY))
            move_past(call, g, role, laid, NULL);
        move_rows(call, g, role, FORWARD, call->in[g->source[role].input]->r, laid);
        *views[role] = view_of(g, role, laid);
    }
    if (op_in(call, ADDED) && (status = op_require_real(call, ADDED)))
        return status;
    return op_in(call, ADDED) ? attention_grid(call, &g->a, ADDED, call->in[ADDED]->r, &g->a.bias)
                              : ONNXPRESS_OK;
}

static View out_view(const Group *g, real *y)
{
    int64_t width = g->a.heads * g->a.size;
    return (View){y, g->a.rows * width, g->a.size, width};
}

static int group_forward(const OpCall *call)
{
    Group g;
    int status = op_require(call, 1);
    if (status || (status = prepare(call, &g, true)) ||
        (status = op_output(call, 0, call->in[QUERY]->dtype, &g.out)))
        return status;
    AttentionRun run = {.y = out_view(&g, call->out[0]->r)};
    return attention_forward(call, &g.a, &run);
}

/* `first` NULL: backward; else the second-order rule. */
static int group_add(const OpCall *call, const real *const *first)
{
    Group g;
    int status = prepare(call, &g, false);
    if (status)
        return status;
    AttentionRun run = {.y = out_view(&g, NULL),
                        .d_y = first ? first[0] : call->d_out[0],
                        .dd_y = call->d_out[0],
                        .bias = g.a.bias.p ? op_d_in(call, ADDED) : NULL};
    View *const views[ROLES] = {&run.q, &run.k, &run.v};
    for (int role = 0; role < ROLES; role++) {
        real *laid = op_scratch(call, laid_count(&g, role), sizeof *laid);
        if (!laid)
            return ONNXPRESS_MEMORY;
        memset(laid, 0, laid_count(&g, role) * sizeof *laid);
        if (role != QUERY && role < call->n_out && call->d_out[role])
            add_dense((int64_t)laid_count(&g, role), laid, call->d_out[role]);
        *views[role] = view_of(&g, role, laid);
    }
    if (call->d_out[0])
        status = first ? attention_curvature(call, &g.a, &run)
                       : attention_backward(call, &g.a, &run);
    for (int role = 0; !status && role < ROLES; role++) {
        real *target = call->d_in[g.source[role].input];
        real *d_past = role == QUERY ? NULL : op_d_in(call, PAST + role - KEY);
        if (target)
            move_rows(call, &g, role, first ? SQUARED : BACKWARD, views[role]->p, target);
        if (d_past)
            move_past(call, &g, role, views[role]->p, d_past);
    }
    return status;
}

static int group_backward(const OpCall *call)
{
    return group_add(call, NULL);
}

static const OpRow rows[] = {
    {"com.microsoft", "GroupQueryAttention", 1, OP_KEEP_INPUTS, .read = read_group,
     .forward = group_forward, .backward = group_backward, .curvature = group_add},
};

const OpFamily op_family_group_query = {rows, sizeof rows / sizeof rows[0]};
