/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "ops/recurrent_internal.h"

/* ---- activations ---- */

typedef enum {
    ACT_RELU,
    ACT_TANH,
    ACT_SIGMOID,
    ACT_AFFINE,
    ACT_LEAKY_RELU,
    ACT_THRESHOLDED_RELU,
    ACT_SCALED_TANH,
    ACT_HARD_SIGMOID,
    ACT_ELU,
    ACT_SOFTSIGN,
    ACT_SOFTPLUS
} ActivationKind;

static const struct {
    const char *name;
    bool takes_alpha, takes_beta;
    float alpha, beta;
} activations[] = {
    [ACT_RELU] = {"Relu", false, false, 0, 0},
    [ACT_TANH] = {"Tanh", false, false, 0, 0},
    [ACT_SIGMOID] = {"Sigmoid", false, false, 0, 0},
    [ACT_AFFINE] = {"Affine", true, true, 1, 0},
    [ACT_LEAKY_RELU] = {"LeakyRelu", true, false, 0.01f, 0},
    [ACT_THRESHOLDED_RELU] = {"ThresholdedRelu", true, false, 1, 0},
    [ACT_SCALED_TANH] = {"ScaledTanh", true, true, 1, 1},
    [ACT_HARD_SIGMOID] = {"HardSigmoid", true, true, 0.2f, 0.5f},
    [ACT_ELU] = {"Elu", true, false, 1, 0},
    [ACT_SOFTSIGN] = {"Softsign", false, false, 0, 0},
    [ACT_SOFTPLUS] = {"Softplus", false, false, 0, 0},
};

bool activation_find(const char *name, size_t length, Activation *act, bool *alpha, bool *beta)
{
    for (size_t k = 0; k < sizeof activations / sizeof activations[0]; k++)
        if (strlen(activations[k].name) == length &&
            strncasecmp(activations[k].name, name, length) == 0) {
            *act = (Activation){(int)k, (real)activations[k].alpha, (real)activations[k].beta};
            *alpha = activations[k].takes_alpha;
            *beta = activations[k].takes_beta;
            return true;
        }
    return false;
}

static real activate(const Activation *act, real x)
{
    real a = act->alpha, b = act->beta, t;
    switch ((ActivationKind)act->kind) {
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_TANH:
        return REAL_TANH(x);
    case ACT_SIGMOID:
        return sigmoid_of(x);
    case ACT_AFFINE:
        return a * x + b;
    case ACT_LEAKY_RELU:
        return x < 0 ? a * x : x;
    case ACT_THRESHOLDED_RELU:
        return x > a ? x : 0;
    case ACT_SCALED_TANH:
        return a * REAL_TANH(b * x);
    case ACT_HARD_SIGMOID:
        t = a * x + b;
        return t < 0 ? 0 : t > 1 ? 1 : t;
    case ACT_ELU:
        return x < 0 ? a * REAL_EXPM1(x) : x;
    case ACT_SOFTSIGN:
        return x / (1 + REAL_ABS(x));
    case ACT_SOFTPLUS:
        return (x > 0 ? x : 0) + REAL_LOG1P(REAL_EXP(-REAL_ABS(x)));
    }
    return x;
}

/* The derivative at x, where the value is y. */
static real slope(const Activation *act, real x, real y)
{
    real a = act->alpha, b = act->beta, t;
    switch ((ActivationKind)act->kind) {
    case ACT_RELU:
        return x > 0 ? 1 : 0;
    case ACT_TANH:
        return 1 - y * y;
    case ACT_SIGMOID:
        return y * (1 - y);
    case ACT_AFFINE:
        return a;
    case ACT_LEAKY_RELU:
        return x < 0 ? a : 1;
    case ACT_THRESHOLDED_RELU:
        return x > a ? 1 : 0;
    case ACT_SCALED_TANH:
        t = REAL_TANH(b * x);
        return a * b * (1 - t * t);
    case ACT_HARD_SIGMOID:
        return y > 0 && y < 1 ? a : 0;
    case ACT_ELU:
        return x < 0 ? y + a : 1;
    case ACT_SOFTSIGN:
        t = 1 + REAL_ABS(x);
        return 1 / (t * t);
    case ACT_SOFTPLUS:
        return sigmoid_of(x);
    }
    return 1;
}

/* ---- cells ---- */

int cell_gates(CellKind cell)
{
    return cell == CELL_LSTM ? 4 : cell == CELL_GRU ? 3 : 1;
}

int cell_activations(CellKind cell)
{
    return cell == CELL_LSTM ? 3 : cell == CELL_GRU ? 2 : 1;
}

const char *cell_default(CellKind cell, int activation)
{
    return cell != CELL_RNN && activation == 0 ? "Sigmoid" : "Tanh";
}

static real clipped(const CellRun *run, real x)
{
    real clip = run->kind->clip;
    return x > clip ? clip : x < -clip ? -clip : x;
}

/* pre is clipped here, so that it stays what the activation has read. */
static real open_gate(const CellRun *run, const Activation *act, real *pre)
{
    *pre = clipped(run, *pre);
    return activate(act, *pre);
}

static real gate_slope(const CellRun *run, const Activation *act, real pre, real gate)
{
    return REAL_ABS(pre) < run->kind->clip ? slope(act, pre, gate) : 0;
}

/* pre[..][first .. first + gates) += h R' of those gates. */
static void recur(const CellRun *run, int64_t first, int64_t gates, const real *h, real *pre)
{
    int64_t n = run->hidden;
    matrix_product(false, true, run->batch, gates * n, n, 1, h, n, run->r + first * n * n, n, 1,
                   pre + first * n, run->rows);
}

static void rnn_forward(const CellRun *run, const real *before, real *pre, real *gate, real *h)
{
    recur(run, 0, 1, before, pre);
    for (int64_t e = 0; e < run->batch * run->hidden; e++)
        h[e] = gate[e] = open_gate(run, &run->act[0], &pre[e]);
}

/* Gates i, o, f, c; peepholes i, o, f. */
static void lstm_forward(const CellRun *run, const real *before, real *pre, real *gate, real *h,
                         const real *c_before, real *c)
{
    int64_t n = run->hidden;
    const real *p = run->peephole;
    recur(run, 0, 4, before, pre);
    for (int64_t b = 0; b < run->batch; b++)
        for (int64_t j = 0; j < n; j++) {
            real *at = pre + b * run->rows + j, *y = gate + b * run->rows + j;
            int64_t e = b * n + j;
            at[0] += p ? p[j] * c_before[e] : 0;
            at[2 * n] += p ? p[2 * n + j] * c_before[e] : 0;
            y[0] = open_gate(run, &run->act[0], &at[0]);
            y[2 * n] = run->kind->coupled ? 1 - y[0] : open_gate(run, &run->act[0], &at[2 * n]);
            y[3 * n] = open_gate(run, &run->act[1], &at[3 * n]);
            c[e] = y[2 * n] * c_before[e] + y[0] * y[3 * n];
            at[n] += p ? p[n + j] * c[e] : 0;
            y[n] = open_gate(run, &run->act[0], &at[n]);
            h[e] = y[n] * activate(&run->act[2], c[e]);
        }
}

/* Gates z, r, h. */
static void gru_forward(const CellRun *run, const real *before, real *pre, real *gate, real *h,
                        real *u)
{
    int64_t n = run->hidden;
    const real *r_bias = run->bias ? run->bias + run->rows + 2 * n : NULL;
    recur(run, 0, 2, before, pre);
    for (int64_t b = 0; b < run->batch; b++)
        for (int64_t j = 0; j < n; j++) {
            real *at = pre + b * run->rows + j, *y = gate + b * run->rows + j;
            y[0] = open_gate(run, &run->act[0], &at[0]);
            y[n] = open_gate(run, &run->act[0], &at[n]);
            u[b * n + j] = run->kind->reset_after ? (r_bias ? r_bias[j] : 0)
                                                  : y[n] * before[b * n + j];
        }
    if (run->kind->reset_after) {
        matrix_product(false, true, run->batch, n, n, 1, before, n, run->r + 2 * n * n, n, 1, u, n);
        for (int64_t b = 0; b < run->batch; b++)
            for (int64_t j = 0; j < n; j++)
                pre[b * run->rows + 2 * n + j] += gate[b * run->rows + n + j] * u[b * n + j];
    } else {
        recur(run, 2, 1, u, pre);
    }
    for (int64_t b = 0; b < run->batch; b++)
        for (int64_t j = 0; j < n; j++) {
            real *at = pre + b * run->rows + j, *y = gate + b * run->rows + j;
            y[2 * n] = open_gate(run, &run->act[1], &at[2 * n]);
            h[b * n + j] = (1 - y[0]) * y[2 * n] + y[0] * before[b * n + j];
        }
}

void cell_forward(const CellRun *run, int64_t s)
{
    int64_t state = run->batch * run->hidden, gates = run->batch * run->rows;
    const real *before = run->h + s * state;
    real *pre = run->pre + s * gates, *gate = run->gate + s * gates, *h = run->h + (s + 1) * state;
    if (run->kind->cell == CELL_RNN)
        rnn_forward(run, before, pre, gate, h);
    else if (run->kind->cell == CELL_LSTM)
        lstm_forward(run, before, pre, gate, h, run->c + s * state, run->c + (s + 1) * state);
    else
        gru_forward(run, before, pre, gate, h, run->u + s * state);
}

/* d_h_before += d_pre R of some gates. */
static void recur_back(const CellRun *run, int64_t first, int64_t gates, const real *d_pre,
                       real *d_h_before)
{
    int64_t n = run->hidden;
    matrix_product(false, false, run->batch, n, gates * n, 1, d_pre + first * n, run->rows,
                   run->r + first * n * n, n, 1, d_h_before, n);
}

static void lstm_back(const CellRun *run, const CellBack *back, int64_t s, int64_t b, real *d_pre)
{
    int64_t n = run->hidden, state = run->batch * n;
    const real *pre = run->pre + (s * run->batch + b) * run->rows, *p = run->peephole;
    const real *gate = run->gate + (s * run->batch + b) * run->rows;
    const real *c_before = run->c + s * state + b * n, *c = c_before + state;
    const Activation *f = &run->act[0];
    for (int64_t j = 0; j < n; j++) {
        real i = gate[j], o = gate[n + j], forget = gate[2 * n + j], fresh = gate[3 * n + j];
        real d_h = back->d_h[b * n + j], seen = activate(&run->act[2], c[j]);
        real d_o = d_h * seen * gate_slope(run, f, pre[n + j], o);
        real d_c = back->d_c[b * n + j] + d_h * o * slope(&run->act[2], c[j], seen);
        d_c += p ? d_o * p[n + j] : 0;
        real d_i = d_c * fresh, d_f = d_c * c_before[j];
        if (run->kind->coupled) {
            d_i -= d_f;
            d_f = 0;
        }
        d_i *= gate_slope(run, f, pre[j], i);
        d_f *= run->kind->coupled ? 0 : gate_slope(run, f, pre[2 * n + j], forget);
        d_pre[j] = d_i;
        d_pre[n + j] = d_o;
        d_pre[2 * n + j] = d_f;
        d_pre[3 * n + j] = d_c * i * gate_slope(run, &run->act[1], pre[3 * n + j], fresh);
        back->d_c_before[b * n + j] += d_c * forget;
        if (p)
            back->d_c_before[b * n + j] += d_i * p[j] + d_f * p[2 * n + j];
        if (back->d_peephole) {
            back->d_peephole[j] += d_i * c_before[j];
            back->d_peephole[n + j] += d_o * c[j];
            back->d_peephole[2 * n + j] += d_f * c_before[j];
        }
    }
}

/* The last gate first; z and r need what R's last gate hands back. */
static void gru_backward(const CellRun *run, const CellBack *back, int64_t s, real *d_pre)
{
    int64_t n = run->hidden, state = run->batch * n;
    const real *pre = run->pre + s * run->batch * run->rows;
    const real *gate = run->gate + s * run->batch * run->rows;
    const real *before = run->h + s * state, *u = run->u + s * state;
    real *d_u = back->d_u + s * state, *d_reset = back->room;
    bool after = run->kind->reset_after;
    memset(d_u, 0, (size_t)state * sizeof *d_u);
    memset(d_reset, 0, (size_t)state * sizeof *d_reset);
    for (int64_t b = 0; b < run->batch; b++)
        for (int64_t j = 0; back->running[b] && j < n; j++) {
            int64_t at = b * run->rows + j, e = b * n + j;
            real d = back->d_h[e] * (1 - gate[at]) *
                     gate_slope(run, &run->act[1], pre[at + 2 * n], gate[at + 2 * n]);
            d_pre[at + 2 * n] = d;
            d_u[e] = after ? d * gate[at + n] : d;
        }
    matrix_product(false, false, run->batch, n, n, 1, d_u, n, run->r + 2 * n * n, n, 1,
                   after ? back->d_h_before : d_reset, n);
    for (int64_t b = 0; b < run->batch; b++)
        for (int64_t j = 0; back->running[b] && j < n; j++) {
            int64_t at = b * run->rows + j, e = b * n + j;
            real d_z = back->d_h[e] * (before[e] - gate[at + 2 * n]);
            real d_r = after ? d_pre[at + 2 * n] * u[e] : d_reset[e] * before[e];
            d_pre[at] = d_z * gate_slope(run, &run->act[0], pre[at], gate[at]);
            d_pre[at + n] = d_r * gate_slope(run, &run->act[0], pre[at + n], gate[at + n]);
            back->d_h_before[e] += back->d_h[e] * gate[at];
            if (!after)
                back->d_h_before[e] += d_reset[e] * gate[at + n];
        }
    recur_back(run, 0, 2, d_pre, back->d_h_before);
}

void cell_backward(const CellRun *run, const CellBack *back, int64_t s)
{
    int64_t n = run->hidden, gates = run->batch * run->rows;
    const real *pre = run->pre + s * gates, *gate = run->gate + s * gates;
    real *d_pre = back->d_pre + s * gates;
    memset(d_pre, 0, (size_t)gates * sizeof *d_pre);
    if (run->kind->cell == CELL_GRU) {
        gru_backward(run, back, s, d_pre);
        return;
    }
    for (int64_t b = 0; b < run->batch; b++) {
        if (!back->running[b])
            continue;
        if (run->kind->cell == CELL_LSTM)
            lstm_back(run, back, s, b, d_pre + b * run->rows);
        else
            for (int64_t e = b * n; e < (b + 1) * n; e++)
                d_pre[e] = back->d_h[e] * gate_slope(run, &run->act[0], pre[e], gate[e]);
    }
    recur_back(run, 0, run->kind->gates, d_pre, back->d_h_before);
}
