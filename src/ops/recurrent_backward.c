/* SPDX-License-Identifier: Apache-2.0
 *
 * RNN, LSTM and GRU back through time: a direction at a time, its forward steps computed again. */
#include <string.h>

#include "ops/recurrent_internal.h"

static const real *given_gradient(const OpCall *call, int k)
{
    return k < call->n_out ? call->d_out[k] : NULL;
}

static void get_state(const Times *t, int direction, const real *from, real *state)
{
    for (int64_t b = 0; b < t->batch; b++)
        for (int64_t j = 0; j < t->hidden; j++)
            state[b * t->hidden + j] =
                from ? from[direction * t->state_direction + b * t->state_batch + j] : 0;
}

/* Derivatives by the state before the first step. */
static void add_state(const Times *t, int direction, const real *state, real *to)
{
    for (int64_t b = 0; to && b < t->batch; b++)
        add_dense(t->hidden, to + direction * t->state_direction + b * t->state_batch,
                  state + b * t->hidden);
}

static void swap(real **a, real **b)
{
    real *c = *a;
    *a = *b;
    *b = c;
}

static void add_columns(int64_t rows, int64_t columns, int64_t stride, const real *from, real *to)
{
    for (int64_t i = 0; i < rows; i++)
        add_dense(columns, to, from + i * stride);
}

/* From d_pre (and d_u) of all steps to the inputs and weights. */
static void add_weights(const OpCall *call, const Times *t, int d, const CellRun *run,
                        const CellBack *back)
{
    int64_t rows = t->steps * t->batch, n = t->hidden, plain = t->rows;
    bool gru = t->kind->cell == CELL_GRU;
    real *d_w = op_d_in(call, IN_W), *d_r = op_d_in(call, IN_R), *d_bias = op_d_in(call, IN_BIAS);
    if (gru)
        plain -= n; /* R's last gate has rows of its own */
    if (d_w)
        matrix_product(true, false, t->rows, t->inputs, rows, 1, back->d_pre, t->rows, run->x,
                       t->inputs, 1, d_w + d * t->rows * t->inputs, t->inputs);
    if (d_r) {
        d_r += d * t->rows * n;
        matrix_product(true, false, plain, n, rows, 1, back->d_pre, t->rows, run->h, n, 1, d_r, n);
        if (gru)
            matrix_product(true, false, n, n, rows, 1, back->d_u, n,
                           t->kind->reset_after ? run->h : run->u, n, 1, d_r + 2 * n * n, n);
    }
    if (d_bias) {
        d_bias += d * 2 * t->rows;
        add_columns(rows, t->rows, t->rows, back->d_pre, d_bias);
        add_columns(rows, plain, t->rows, back->d_pre, d_bias + t->rows);
        if (gru)
            add_columns(rows, n, n, back->d_u, d_bias + t->rows + 2 * n);
    }
}

static int add_inputs(const OpCall *call, const Times *t, int d, const CellRun *run,
                      const CellBack *back)
{
    real *d_x = op_d_in(call, IN_X), *rows;
    if (!d_x)
        return ONNXPRESS_OK;
    int64_t n = t->steps * t->batch;
    if (!run_take(call, &rows, n, t->inputs))
        return ONNXPRESS_MEMORY;
    memset(rows, 0, (size_t)(n * t->inputs) * sizeof *rows);
    matrix_product(false, false, n, t->inputs, t->rows, 1, back->d_pre, t->rows, run->w, t->inputs,
                   1, rows, t->inputs);
    for (int64_t b = 0; b < t->batch; b++)
        for (int64_t s = 0; s < length_of(t, b); s++)
            add_dense(t->inputs, d_x + time_of(t, d, b, s) * t->x_time + b * t->x_batch,
                      rows + (s * t->batch + b) * t->inputs);
    return ONNXPRESS_OK;
}

static int open_back(const OpCall *call, const Times *t, int d, CellBack *back)
{
    int64_t rows = t->steps * t->batch;
    real *d_peephole = op_d_in(call, IN_PEEPHOLE);
    *back = (CellBack){.d_peephole = d_peephole ? d_peephole + d * 3 * t->hidden : NULL};
    if (!run_take(call, &back->d_pre, rows, t->rows) ||
        !run_take(call, &back->d_u, rows, t->hidden) ||
        !run_take(call, &back->d_h, t->batch, t->hidden) ||
        !run_take(call, &back->d_c, t->batch, t->hidden) ||
        !run_take(call, &back->d_h_before, t->batch, t->hidden) ||
        !run_take(call, &back->d_c_before, t->batch, t->hidden) ||
        !run_take(call, &back->room, t->batch, t->hidden))
        return ONNXPRESS_MEMORY;
    get_state(t, d, given_gradient(call, 1), back->d_h);
    get_state(t, d, given_gradient(call, 2), back->d_c);
    return ONNXPRESS_OK;
}

static void step_back(const OpCall *call, const Times *t, int d, const CellRun *run, CellBack *back,
                      bool *running, int64_t s)
{
    const real *d_y = given_gradient(call, 0);
    for (int64_t b = 0; b < t->batch; b++) {
        real *d_h = back->d_h + b * t->hidden, *d_c = back->d_c + b * t->hidden;
        running[b] = s < length_of(t, b);
        if (running[b] && d_y)
            add_dense(t->hidden, d_h,
                      d_y + time_of(t, d, b, s) * t->y_time + d * t->y_direction + b * t->y_batch);
        for (int64_t j = 0; j < t->hidden; j++) {
            back->d_h_before[b * t->hidden + j] = running[b] ? 0 : d_h[j];
            back->d_c_before[b * t->hidden + j] = running[b] ? 0 : d_c[j];
        }
    }
    cell_backward(run, back, s);
    swap(&back->d_h, &back->d_h_before);
    swap(&back->d_c, &back->d_c_before);
}

int recurrent_backward(const OpCall *call)
{
    Times t = {0};
    int status = recurrent_open(call, &t);
    bool *running = status ? NULL : op_scratch(call, (size_t)t.batch, sizeof *running);
    if (!running)
        return status ? status : ONNXPRESS_MEMORY;
    for (int d = 0; d < t.kind->directions; d++) {
        CellRun run;
        CellBack back;
        status = recurrent_run(call, &t, d, &run);
        if (!status)
            status = open_back(call, &t, d, &back);
        if (status)
            return status;
        back.running = running;
        for (int64_t s = t.steps - 1; s >= 0; s--)
            step_back(call, &t, d, &run, &back, running, s);
        add_weights(call, &t, d, &run, &back);
        add_state(&t, d, back.d_h, op_d_in(call, IN_H));
        if (t.kind->cell == CELL_LSTM)
            add_state(&t, d, back.d_c, op_d_in(call, IN_C));
        if ((status = add_inputs(call, &t, d, &run, &back)))
            return status;
    }
    return ONNXPRESS_OK;
}
