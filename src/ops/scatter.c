/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops that write at places given by an integer tensor: a copy of the data in which blocks of updates
 * replace, or are combined with, what is there. Of two updates at one place without a reduction the
 * last one counts. */
#include "ops/index_internal.h"

#include <string.h>

typedef enum {
    SCATTER_SET,
    SCATTER_ADD,
    SCATTER_MULTIPLY,
    SCATTER_MOST,
    SCATTER_LEAST
} ScatterRule;

static int read_scatter(OpNode *node, Arena *arena, Error *err)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *reduction = attribute_string(node, "reduction", "none");
    ScatterRule *rule = arena_array(arena, 1, sizeof *rule);
    if (!rule)
        return error_memory(err, "a node's parameters");
    int known = 0;
    while (known < 5 && strcmp(reduction, names[known]) != 0)
        known++;
    if (known == 5)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "reduction = %s is not known",
                          reduction);
    *rule = (ScatterRule)known;
    node->params = rule;
    return ONNXPRESS_OK;
}

static real scatter_real(ScatterRule rule, real old, real update)
{
    switch (rule) {
    case SCATTER_ADD:
        return old + update;
    case SCATTER_MULTIPLY:
        return old * update;
    case SCATTER_MOST:
        return update > old ? update : old;
    case SCATTER_LEAST:
        return update < old ? update : old;
    default:
        return update;
    }
}

static int64_t scatter_integer(ScatterRule rule, int64_t old, int64_t update)
{
    switch (rule) {
    case SCATTER_ADD:
        return (int64_t)((uint64_t)old + (uint64_t)update);
    case SCATTER_MULTIPLY:
        return (int64_t)((uint64_t)old * (uint64_t)update);
    case SCATTER_MOST:
        return update > old ? update : old;
    case SCATTER_LEAST:
        return update < old ? update : old;
    default:
        return update;
    }
}

/* ScatterElements writes single elements, ScatterND blocks of them. */
static int elements_plan(const OpCall *call, BlocksPlan *plan)
{
    const Value *indices = call->in[1];
    *plan = (BlocksPlan){.shape = indices->shape, .n = indices->count, .block = 1};
    return elements_places(call, &plan->place);
}

typedef int (*ScatterPlan)(const OpCall *call, BlocksPlan *plan);

static int scatter_forward(const OpCall *call, ScatterPlan make_plan)
{
    BlocksPlan plan;
    int status = op_require(call, 3);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = op_require_alike(call, 0, 2)) || (status = make_plan(call, &plan)))
        return status;
    const Value *data = call->in[0], *updates = call->in[2];
    ScatterRule rule = *(const ScatterRule *)call->node->params;
    if (!shape_equal(&updates->shape, &plan.shape))
        return op_error(call, ONNXPRESS_FORMAT, "the updates' shape does not fit the indices'");
    if ((status = op_output(call, 0, data->dtype, &data->shape)) || data->count == 0)
        return status;
    Value *y = call->out[0];
    memcpy(value_data(y), value_data(data), (size_t)data->count * value_element(data));
    for (int64_t u = 0; u < updates->count; u++) {
        int64_t at = plan.place[u / plan.block] + u % plan.block;
        if (dtype_is_real(data->dtype))
            y->r[at] = scatter_real(rule, y->r[at], updates->r[u]);
        else
            y->i[at] = integer_wrap(data->dtype, scatter_integer(rule, y->i[at], updates->i[u]));
    }
    return ONNXPRESS_OK;
}

static void give(real *d_in, int64_t at, real d)
{
    if (d_in)
        d_in[at] += d;
}

/* The gradient of a place goes whole to one of those that could be there: the last update, or of
 * extremes the first value that attains it. */
static int choice_backward(const OpCall *call, const BlocksPlan *plan, ScatterRule rule)
{
    const Value *data = call->in[0], *updates = call->in[2];
    const real *d_y = call->d_out[0], *y = call->out[0]->r;
    bool *given = op_scratch(call, (size_t)data->count, sizeof *given);
    if (!given)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < data->count; e++) {
        given[e] = rule != SCATTER_SET && data->r[e] == y[e];
        if (given[e])
            give(call->d_in[0], e, d_y[e]);
    }
    for (int64_t k = 0; k < updates->count; k++) {
        int64_t u = rule == SCATTER_SET ? updates->count - 1 - k : k;
        int64_t at = plan->place[u / plan->block] + u % plan->block;
        if (given[at] || (rule != SCATTER_SET && updates->r[u] != y[at]))
            continue;
        given[at] = true;
        give(call->d_in[2], u, d_y[at]);
    }
    for (int64_t e = 0; rule == SCATTER_SET && e < data->count; e++)
        if (!given[e])
            give(call->d_in[0], e, d_y[e]);
    return ONNXPRESS_OK;
}

/* Each factor's derivative is the product of the others, or that squared. */
static int product_backward(const OpCall *call, const BlocksPlan *plan, bool squared)
{
    const Value *data = call->in[0], *updates = call->in[2];
    real *product = op_scratch(call, (size_t)data->count, sizeof *product); /* without zeros */
    int64_t *zeros = op_scratch(call, (size_t)data->count, sizeof *zeros);
    if (!product || !zeros)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < data->count; e++) {
        zeros[e] = data->r[e] == 0;
        product[e] = zeros[e] ? 1 : data->r[e];
    }
    for (int64_t u = 0; u < updates->count; u++) {
        int64_t at = plan->place[u / plan->block] + u % plan->block;
        zeros[at] += updates->r[u] == 0;
        product[at] *= updates->r[u] == 0 ? 1 : updates->r[u];
    }
    for (int64_t k = 0; k < data->count + updates->count; k++) {
        int64_t u = k - data->count;
        int64_t at = u < 0 ? k : plan->place[u / plan->block] + u % plan->block;
        real factor = u < 0 ? data->r[k] : updates->r[u];
        real others = zeros[at] == (factor == 0) ? product[at] / (factor == 0 ? 1 : factor) : 0;
        give(call->d_in[u < 0 ? 0 : 2], u < 0 ? k : u,
             call->d_out[0][at] * (squared ? others * others : others));
    }
    return ONNXPRESS_OK;
}

static int scatter_rule(const OpCall *call, ScatterPlan make_plan, bool squared)
{
    BlocksPlan plan;
    ScatterRule rule = *(const ScatterRule *)call->node->params;
    if ((!call->d_in[0] && !call->d_in[2]) || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = make_plan(call, &plan);
    if (status)
        return status;
    if (rule == SCATTER_MULTIPLY)
        return product_backward(call, &plan, squared);
    if (rule != SCATTER_ADD)
        return choice_backward(call, &plan, rule);
    if (call->d_in[0])
        add_dense(call->in[0]->count, call->d_in[0], call->d_out[0]);
    for (int64_t k = 0; call->d_in[2] && k < plan.n; k++)
        add_dense(plan.block, call->d_in[2] + k * plan.block, call->d_out[0] + plan.place[k]);
    return ONNXPRESS_OK;
}

#define SCATTER(name, PLAN)                                                                        \
    OP_FORWARD(name, scatter_forward, PLAN)                                                        \
    static int name##_backward(const OpCall *call)                                                 \
    {                                                                                              \
        return scatter_rule(call, PLAN, false);                                                    \
    }                                                                                              \
    static int name##_curvature(const OpCall *call, const real *const *d_out)                      \
    {                                                                                              \
        (void)d_out; /* linear in each value */                                                    \
        return scatter_rule(call, PLAN, true);                                                     \
    }

SCATTER(elements, elements_plan)
SCATTER(blocks, blocks_plan)

#define BOTH (OP_KEEP_INPUTS | OP_KEEP_OUTPUTS)
static const OpRow rows[] = {
    {"", "Scatter", 9, BOTH, .read = read_scatter, .forward = elements_forward,
     .backward = elements_backward, .curvature = elements_curvature},
    {"", "ScatterElements", 11, BOTH, .read = read_scatter, .forward = elements_forward,
     .backward = elements_backward, .curvature = elements_curvature},
    {"", "ScatterND", 11, BOTH, .read = read_scatter, .forward = blocks_forward,
     .backward = blocks_backward, .curvature = blocks_curvature},
};

const OpFamily op_family_scatter = {rows, sizeof rows / sizeof rows[0]};
