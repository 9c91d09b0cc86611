/* What recurrent.c, recurrent_backward.c and recurrent_cells.c share: RNN, LSTM and GRU.
 *
 * recurrent.c reads the node and goes through time, recurrent_backward.c back; a cell is one step of
 * one direction for the whole batch. Rows of time are in the order in which the direction meets them:
 * step s of sequence b is row s * batch + b. What a sequence has no step for is computed too, and then
 * not used.
 */
#ifndef ONNXPRESS_OPS_RECURRENT_INTERNAL_H
#define ONNXPRESS_OPS_RECURRENT_INTERNAL_H

#include "ops/support_internal.h"

enum { IN_X, IN_W, IN_R, IN_BIAS, IN_LENGTH, IN_H, IN_C, IN_PEEPHOLE };

#define RECURRENT_MOST_ACTIVATIONS 3 /* a direction */

typedef enum { CELL_RNN, CELL_LSTM, CELL_GRU } CellKind;

typedef struct {
    int kind; /* in recurrent_cells.c's list */
    real alpha, beta;
} Activation;

typedef struct {
    CellKind cell;
    int gates, directions;
    bool reverse[2];
    Activation act[2][RECURRENT_MOST_ACTIVATIONS];
    real clip;          /* infinity: none */
    bool batch_first;   /* layout 1 */
    bool coupled;       /* LSTM: the forget gate is 1 - the input gate */
    bool reset_after;   /* GRU: linear_before_reset */
    int64_t hidden;     /* 0: as R says */
} Recurrent;

/* One direction's weights, and all that its steps leave for the way back. */
typedef struct {
    const Recurrent *kind;
    const Activation *act;
    int64_t steps, batch, inputs, hidden, rows; /* rows = gates * hidden */
    const real *w, *r, *bias, *peephole;        /* bias: of W, then of R; NULL: none */
    real *x;    /* [steps][batch][inputs] */
    real *pre;  /* [steps][batch][rows]: what the gates' activations read */
    real *gate; /* [steps][batch][rows] */
    real *h;    /* [steps + 1][batch][hidden], the initial state first */
    real *c;    /* LSTM: as h */
    real *u;    /* GRU: [steps][batch][hidden]: r * h, or with reset_after h R' + bias */
} CellRun;

/* The derivatives at one step, and on the way back to the one before. */
typedef struct {
    real *d_pre;          /* [steps][batch][rows] */
    real *d_u;            /* GRU: [steps][batch][hidden]: by what R's last gate adds */
    real *d_h, *d_c;      /* [batch][hidden]: by the state after the step */
    real *d_h_before, *d_c_before; /* ADDED to: by the state before; rows without a step excepted */
    real *d_peephole;     /* ADDED to; NULL: not wanted */
    real *room;           /* [batch][hidden] */
    const bool *running;  /* [batch]: the sequence has this step */
} CellBack;

/* A node's sizes and layout. */
typedef struct {
    const Recurrent *kind;
    int64_t steps, batch, inputs, hidden, rows;
    int64_t x_time, x_batch; /* strides */
    int64_t y_time, y_batch, y_direction;
    int64_t state_batch, state_direction;
    const int64_t *length; /* [batch]; NULL: all have all steps */
    Shape y, state;
} Times;

static inline int64_t length_of(const Times *t, int64_t b)
{
    return t->length ? t->length[b] : t->steps;
}

/* When in time sequence b is at step s < length_of. */
static inline int64_t time_of(const Times *t, int direction, int64_t b, int64_t s)
{
    return t->kind->reverse[direction] ? length_of(t, b) - 1 - s : s;
}

/* Reads the inputs' sizes and checks them. */
int recurrent_open(const OpCall *call, Times *t);
/* Runs one direction, forward, in scratch of the call. */
int recurrent_run(const OpCall *call, const Times *t, int direction, CellRun *run);
/* Scratch of rows * columns numbers; false: an error is set. */
bool run_take(const OpCall *call, real **where, int64_t rows, int64_t columns);
int recurrent_backward(const OpCall *call);

/* How many gates and activations a direction has; the defaults' names. */
int cell_gates(CellKind cell);
int cell_activations(CellKind cell);
const char *cell_default(CellKind cell, int activation);
/* Which activation a name of `length` bytes means (any case), with its default alpha and beta; the
 * numbers that it takes from the node's lists. False: not known. */
bool activation_find(const char *name, size_t length, Activation *act, bool *alpha, bool *beta);

/* From pre (inputs and biases are in it) and state s to state s + 1. */
void cell_forward(const CellRun *run, int64_t s);
void cell_backward(const CellRun *run, const CellBack *back, int64_t s);

#endif
