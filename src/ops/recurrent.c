/* SPDX-License-Identifier: Apache-2.0
 *
 * RNN, LSTM and GRU through time. Nothing of a forward run is kept but the inputs: the way back
 * computes the steps again. */
#include <cblas.h>
#include <string.h>

#include "model/graph.h"
#include "ops/recurrent_internal.h"

/* ---- attributes ---- */

static int read_direction(const OpNode *node, Recurrent *kind, Error *err)
{
    const char *direction = attribute_string(node, "direction", "forward");
    bool both = strcmp(direction, "bidirectional") == 0;
    kind->directions = both ? 2 : 1;
    kind->reverse[0] = strcmp(direction, "reverse") == 0;
    kind->reverse[1] = true;
    if (!both && !kind->reverse[0] && strcmp(direction, "forward") != 0)
        return read_error(node, err, ONNXPRESS_FORMAT, "direction = %s is not known", direction);
    return ONNXPRESS_OK;
}

/* Alphas and betas are lists for those activations that take one, in their order. */
static int read_activations(const OpNode *node, Recurrent *kind, Error *err)
{
    const Onnx__AttributeProto *names = node_attribute(node->proto, "activations");
    const Onnx__AttributeProto *alphas = node_attribute(node->proto, "activation_alpha");
    const Onnx__AttributeProto *betas = node_attribute(node->proto, "activation_beta");
    int each = cell_activations(kind->cell), n = each * kind->directions;
    size_t next_alpha = 0, next_beta = 0;
    if (names && names->n_strings > 0 && names->n_strings != (size_t)n)
        return read_error(node, err, ONNXPRESS_FORMAT, "%zu activations, not %d", names->n_strings,
                          n);
    for (int k = 0; k < n; k++) {
        Activation *act = &kind->act[k / each][k % each];
        const char *name = cell_default(kind->cell, k % each);
        size_t length = strlen(name);
        bool alpha, beta;
        if (names && names->n_strings > 0) {
            name = (const char *)names->strings[k].data;
            length = names->strings[k].len;
        }
        if (!activation_find(name, length, act, &alpha, &beta))
            return read_error(node, err, ONNXPRESS_UNSUPPORTED, "activation %d is not known", k);
        if (alpha && alphas && next_alpha < alphas->n_floats)
            act->alpha = (real)alphas->floats[next_alpha++];
        if (beta && betas && next_beta < betas->n_floats)
            act->beta = (real)betas->floats[next_beta++];
    }
    return ONNXPRESS_OK;
}

static int read_recurrent(OpNode *node, CellKind cell, Arena *arena, Error *err)
{
    Recurrent *kind = arena_array(arena, 1, sizeof *kind);
    if (!kind)
        return error_memory(err, "a node's parameters");
    int64_t layout = attribute_int(node, "layout", 0);
    kind->cell = cell;
    kind->gates = cell_gates(cell);
    kind->clip = (real)attribute_float(node, "clip", 0);
    if (!(kind->clip > 0)) /* none; NaN too */
        kind->clip = (real)INFINITY;
    kind->batch_first = layout == 1;
    kind->coupled = attribute_int(node, "input_forget", 0) != 0;
    kind->reset_after = attribute_int(node, "linear_before_reset", 0) != 0;
    kind->hidden = attribute_int(node, "hidden_size", 0);
    node->params = kind;
    if (layout != 0 && layout != 1)
        return read_error(node, err, ONNXPRESS_FORMAT, "layout is %lld", (long long)layout);
    int status = read_direction(node, kind, err);
    return status ? status : read_activations(node, kind, err);
}

static int read_rnn(OpNode *node, Arena *arena, Error *err)
{
    return read_recurrent(node, CELL_RNN, arena, err);
}

static int read_lstm(OpNode *node, Arena *arena, Error *err)
{
    return read_recurrent(node, CELL_LSTM, arena, err);
}

static int read_gru(OpNode *node, Arena *arena, Error *err)
{
    return read_recurrent(node, CELL_GRU, arena, err);
}

/* ---- sizes ---- */

/* Input k has this shape; an omitted one is right. */
static int require_shape(const OpCall *call, int k, int rank, int64_t a, int64_t b, int64_t c)
{
    const Value *value = op_in(call, k);
    if (!value)
        return ONNXPRESS_OK;
    int status = k == IN_LENGTH ? op_require_integer(call, k) : op_require_real(call, k);
    Shape wanted = {.rank = rank, .dim = {a, b, c}};
    char found[100], expected[100];
    if (!status && !shape_equal(&value->shape, &wanted))
        status = op_error(call, ONNXPRESS_FORMAT, "input %d is %s, not %s", k,
                          shape_text(&value->shape, found, sizeof found),
                          shape_text(&wanted, expected, sizeof expected));
    return status;
}

static int require_inputs(const OpCall *call, const Times *t)
{
    int64_t d = t->kind->directions, n = t->hidden;
    int status = require_shape(call, IN_W, 3, d, t->rows, t->inputs);
    if (!status)
        status = require_shape(call, IN_R, 3, d, t->rows, n);
    if (!status)
        status = require_shape(call, IN_BIAS, 2, d, 2 * t->rows, 0);
    if (!status)
        status = require_shape(call, IN_LENGTH, 1, t->batch, 0, 0);
    for (int k = IN_H; k <= IN_C && !status; k++)
        status = require_shape(call, k, 3, t->state.dim[0], t->state.dim[1], t->state.dim[2]);
    if (!status)
        status = require_shape(call, IN_PEEPHOLE, 2, d, 3 * n, 0);
    for (int64_t b = 0; t->length && b < t->batch && !status; b++)
        if (t->length[b] < 0 || t->length[b] > t->steps)
            status = op_error(call, ONNXPRESS_DATA, "sequence %lld has %lld steps of %lld",
                              (long long)b, (long long)t->length[b], (long long)t->steps);
    return status;
}

int recurrent_open(const OpCall *call, Times *t)
{
    const Recurrent *kind = call->node->params;
    int status = ONNXPRESS_OK;
    for (int k = IN_X; k <= IN_R && !status; k++) {
        status = op_require_real(call, k);
        if (!status && call->in[k]->shape.rank != 3)
            status = op_error(call, ONNXPRESS_FORMAT, "input %d has rank %d, not 3", k,
                              call->in[k]->shape.rank);
    }
    if (status)
        return status;
    const int64_t *x = call->in[IN_X]->shape.dim;
    bool first = kind->batch_first;
    int64_t d = kind->directions, n = call->in[IN_R]->shape.dim[2];
    *t = (Times){.kind = kind,
                 .steps = x[first],
                 .batch = x[!first],
                 .inputs = x[2],
                 .hidden = n,
                 .length = op_in(call, IN_LENGTH) ? call->in[IN_LENGTH]->i : NULL};
    int64_t limit = INT32_MAX / 16, rows; /* BLAS counts in int */
    if (t->hidden > limit || t->inputs > limit || !int64_mul(t->steps, t->batch, &rows) ||
        rows > limit)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "an axis is too long");
    if (kind->hidden && kind->hidden != n)
        return op_error(call, ONNXPRESS_FORMAT, "hidden_size is %lld, R has %lld",
                        (long long)kind->hidden, (long long)n);
    t->rows = kind->gates * n;
    if (first) {
        t->y = (Shape){4, {t->batch, t->steps, d, n}};
        t->state = (Shape){3, {t->batch, d, n}};
    } else {
        t->y = (Shape){4, {t->steps, d, t->batch, n}};
        t->state = (Shape){3, {d, t->batch, n}};
    }
    t->x_time = first ? t->inputs : t->batch * t->inputs;
    t->x_batch = first ? t->steps * t->inputs : t->inputs;
    t->y_time = first ? d * n : d * t->batch * n;
    t->y_batch = first ? t->steps * d * n : n;
    t->y_direction = first ? n : t->batch * n;
    t->state_batch = first ? d * n : n;
    t->state_direction = first ? n : t->batch * n;
    return require_inputs(call, t);
}

/* ---- one direction ---- */

bool run_take(const OpCall *call, real **where, int64_t rows, int64_t columns)
{
    int64_t count;
    if (!int64_mul(rows, columns, &count)) {
        op_error(call, ONNXPRESS_MEMORY, "the steps need more than the address space");
        return false;
    }
    return (*where = op_scratch(call, (size_t)count, sizeof **where)) != NULL;
}

static void start_state(const OpCall *call, const Times *t, int direction, int k, real *state)
{
    const Value *given = op_in(call, k);
    for (int64_t b = 0; b < t->batch; b++) {
        int64_t from = direction * t->state_direction + b * t->state_batch;
        size_t bytes = (size_t)t->hidden * sizeof *state;
        if (given)
            memcpy(state + b * t->hidden, given->r + from, bytes);
        else
            memset(state + b * t->hidden, 0, bytes);
    }
}

/* Inputs in the direction's order of steps (zero where a sequence has ended), and biases in pre. */
static void start_steps(const OpCall *call, const Times *t, int direction, const CellRun *run)
{
    int64_t biased = run->rows; /* by R's biases: reset_after puts the last gate's elsewhere */
    if (t->kind->cell == CELL_GRU && t->kind->reset_after)
        biased -= run->hidden;
    for (int64_t s = 0; s < t->steps; s++)
        for (int64_t b = 0; b < t->batch; b++) {
            int64_t row = s * t->batch + b;
            real *x = run->x + row * t->inputs, *pre = run->pre + row * t->rows;
            if (s < length_of(t, b))
                memcpy(x,
                       call->in[IN_X]->r + time_of(t, direction, b, s) * t->x_time + b * t->x_batch,
                       (size_t)t->inputs * sizeof *x);
            else
                memset(x, 0, (size_t)t->inputs * sizeof *x);
            for (int64_t j = 0; j < t->rows; j++)
                pre[j] = !run->bias ? 0
                                    : run->bias[j] + (j < biased ? run->bias[t->rows + j] : 0);
        }
}

int recurrent_run(const OpCall *call, const Times *t, int direction, CellRun *run)
{
    const Value *bias = op_in(call, IN_BIAS), *peephole = op_in(call, IN_PEEPHOLE);
    CellKind cell = t->kind->cell;
    int64_t rows = t->steps * t->batch, state = t->batch * t->hidden;
    *run = (CellRun){.kind = t->kind,
                     .act = t->kind->act[direction],
                     .steps = t->steps,
                     .batch = t->batch,
                     .inputs = t->inputs,
                     .hidden = t->hidden,
                     .rows = t->rows,
                     .w = call->in[IN_W]->r + direction * t->rows * t->inputs,
                     .r = call->in[IN_R]->r + direction * t->rows * t->hidden,
                     .bias = bias ? bias->r + direction * 2 * t->rows : NULL,
                     .peephole = cell == CELL_LSTM && peephole
                                     ? peephole->r + direction * 3 * t->hidden
                                     : NULL};
    if (!run_take(call, &run->x, rows, t->inputs) || !run_take(call, &run->pre, rows, t->rows) ||
        !run_take(call, &run->gate, rows, t->rows) ||
        !run_take(call, &run->h, rows + t->batch, t->hidden) ||
        (cell == CELL_LSTM && !run_take(call, &run->c, rows + t->batch, t->hidden)) ||
        (cell == CELL_GRU && !run_take(call, &run->u, rows, t->hidden)))
        return ONNXPRESS_MEMORY;
    start_state(call, t, direction, IN_H, run->h);
    if (run->c)
        start_state(call, t, direction, IN_C, run->c);
    start_steps(call, t, direction, run);
    matrix_product(false, true, rows, t->rows, t->inputs, 1, run->x, t->inputs, run->w, t->inputs,
                   1, run->pre, t->rows);
    for (int64_t s = 0; s < t->steps; s++) {
        cell_forward(run, s);
        for (int64_t b = 0; t->length && b < t->batch; b++) {
            int64_t at = s * state + b * t->hidden;
            size_t bytes = (size_t)t->hidden * sizeof(real);
            if (s < t->length[b])
                continue;
            memcpy(run->h + at + state, run->h + at, bytes); /* the state stays */
            if (run->c)
                memcpy(run->c + at + state, run->c + at, bytes);
        }
    }
    return ONNXPRESS_OK;
}

static Value *wanted_output(const OpCall *call, int k)
{
    return k < call->n_out ? call->out[k] : NULL;
}

/* Between an output's layout and rows of steps; `end` for Y_h and Y_c: the last state only. */
static void put_state(const Times *t, int direction, const real *state, Value *to)
{
    for (int64_t b = 0; to && b < t->batch; b++)
        memcpy(to->r + direction * t->state_direction + b * t->state_batch, state + b * t->hidden,
               (size_t)t->hidden * sizeof *state);
}

static int recurrent_forward(const OpCall *call)
{
    Times t = {0};
    int status = recurrent_open(call, &t), most = t.kind && t.kind->cell == CELL_LSTM ? 3 : 2;
    for (int k = 0; k < most && !status; k++)
        if (wanted_output(call, k))
            status = op_output(call, k, call->in[IN_X]->dtype, k ? &t.state : &t.y);
    Value *y = wanted_output(call, 0);
    if (!status && y)
        memset(y->r, 0, (size_t)y->count * sizeof *y->r);
    for (int d = 0; !status && d < t.kind->directions; d++) {
        CellRun run;
        int64_t state = t.batch * t.hidden;
        status = recurrent_run(call, &t, d, &run);
        if (status)
            return status;
        for (int64_t b = 0; y && b < t.batch; b++)
            for (int64_t s = 0; s < length_of(&t, b); s++)
                memcpy(y->r + time_of(&t, d, b, s) * t.y_time + d * t.y_direction + b * t.y_batch,
                       run.h + (s + 1) * state + b * t.hidden, (size_t)t.hidden * sizeof *y->r);
        put_state(&t, d, run.h + t.steps * state, wanted_output(call, 1));
        if (run.c)
            put_state(&t, d, run.c + t.steps * state, wanted_output(call, 2));
    }
    return status;
}

/* ---- weights as matrices ---- */

/* A GRU's last gate reads another vector than its first two. */
static bool splits_gates(const Recurrent *kind, int k)
{
    return k == IN_R && kind->cell == CELL_GRU && !kind->reset_after;
}

static bool recurrent_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const Recurrent *kind = node->params;
    if ((k != IN_W && k != IN_R) || weight->rank != 3)
        return false;
    int64_t gates = splits_gates(kind, k) ? kind->gates : 1;
    *matrix = (OpMatrix){.groups = weight->dim[0] * gates,
                         .rows = weight->dim[1] / gates,
                         .columns = weight->dim[2],
                         .row_stride = weight->dim[2],
                         .column_stride = 1};
    return true;
}

static void add_moment(int64_t rows, int64_t columns, const real *x, real *acc)
{
    if (rows > 0 && columns > 0)
        REAL_SYRK(CblasRowMajor, CblasLower, CblasTrans, (int)columns, (int)rows, 1, x,
                  (int)columns, 1, acc, (int)columns);
}

static int recurrent_moment(const OpCall *call, int k, real *acc)
{
    Times t = {0};
    int status = recurrent_open(call, &t);
    for (int d = 0; !status && d < t.kind->directions; d++) {
        CellRun run;
        int64_t rows = t.steps * t.batch, n = t.hidden;
        status = recurrent_run(call, &t, d, &run);
        /* What ended sequences hold meets no weight. */
        for (int64_t b = 0; !status && b < t.batch; b++)
            for (int64_t s = length_of(&t, b); s < t.steps; s++) {
                memset(run.h + (s * t.batch + b) * n, 0, (size_t)n * sizeof *run.h);
                if (run.u)
                    memset(run.u + (s * t.batch + b) * n, 0, (size_t)n * sizeof *run.u);
            }
        if (status)
            return status;
        if (k == IN_W) {
            add_moment(rows, t.inputs, run.x, acc + d * t.inputs * t.inputs);
            continue;
        }
        int groups = splits_gates(t.kind, k) ? t.kind->gates : 1;
        for (int g = 0; g < groups; g++)
            add_moment(rows, n, g == 2 ? run.u : run.h, acc + (d * groups + g) * n * n);
    }
    return status;
}

#define RECURRENT(type, read_function)                                                             \
    {                                                                                              \
        "", type, 7, OP_KEEP_INPUTS, .read = read_function, .forward = recurrent_forward,          \
                                     .backward = recurrent_backward, .matrix = recurrent_matrix,   \
                                     .moment = recurrent_moment                                    \
    }
static const OpRow rows[] = {
    RECURRENT("RNN", read_rnn),
    RECURRENT("LSTM", read_lstm),
    RECURRENT("GRU", read_gru),
};

const OpFamily op_family_recurrent = {rows, sizeof rows / sizeof rows[0]};
