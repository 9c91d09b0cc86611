/* What program.c, exec.c and square.c share: the program's steps and the run's storage.
 *
 * A Program is immutable once built. Its `value` facts are per graph value number: where a value
 * comes from decides who owns its storage (the program: weights and constants; the caller: inputs;
 * the Exec: all others).
 */
#ifndef ONNXPRESS_AUTODIFF_INTERNAL_H
#define ONNXPRESS_AUTODIFF_INTERNAL_H

#include "autodiff/autodiff.h"

typedef enum {
    FROM_NOWHERE, /* not computed: a constant of a type that no op here handles */
    FROM_INPUT,
    FROM_WEIGHT,
    FROM_CONSTANT, /* initializer or folded: `constant` holds it */
    FROM_STEP
} ValueOrigin;

typedef struct {
    ValueOrigin origin;
    int index;      /* of the program input or the weight; the step that makes it */
    Value constant; /* origins FROM_WEIGHT (original values) and FROM_CONSTANT */
    int n_readers;  /* inputs of steps that name it */
    bool is_output;
    bool useful;  /* a float path of ops with backward leads to an output */
    bool tainted; /* holds numbers computed from a graph input (not only its shape) */
} ProgramValue;

typedef struct {
    OpNode op;
    int node;      /* in the graph */
    const int *in; /* value numbers, -1: omitted */
    const int *out;
    const char *unsupported; /* why it cannot run; NULL: it can */
    bool differentiable;     /* it can run, has a backward rule and makes reals */
} Step;

struct Program {
    Model *model;
    Arena *arena;
    Graph *graph;
    ProgramValue *values; /* [graph->n_values] */
    Step *steps;          /* in execution order; folded ones are removed */
    int n_steps;
    int most_in, most_out; /* of any step */
    Weight *weights;
    int *weight_value;
    int n_weights;
    ProgramInput *inputs;
    int *input_value;
    int n_inputs;
    ProgramOutput *outputs;
    int *output_value;
    int n_outputs;
    const char *unsupported;
};

/* Runs one step whose inputs are all constants, in `exec`; out[k] are then the Exec's values until
 * exec_fold_release. Used while the program is built. */
int exec_fold(Exec *exec, const Step *step, Value **out, Error *err);
void exec_fold_release(Exec *exec, const Step *step);

/* storage.c: reference-counted buffers with a free list a size class, and the bound on them. */
typedef struct Pool Pool;
Pool *pool_create(size_t limit); /* 0: none */
void pool_free(Pool *pool);      /* all buffers must have been released */
/* A buffer of at least `bytes`, with one reference; NULL: no memory or over the limit. */
Buffer *pool_take(Pool *pool, size_t bytes);
void *buffer_data(Buffer *buffer); /* 64-byte aligned */
void buffer_retain(Buffer *buffer);
void pool_release(Pool *pool, Buffer *buffer); /* NULL is allowed */
size_t pool_limit(const Pool *pool);
size_t pool_peak(const Pool *pool); /* most bytes in use at one time */

struct Exec {
    const Program *program;
    Pool *pool;
    Value *values;     /* [graph->n_values] of the last forward */
    Value **in, **out; /* argument lists of the current call */
    const real **d_out;
    real **d_in;
    Buffer **scratch; /* of the current call */
    int n_scratch, room_scratch;
    const real **override; /* [n_weights]; NULL: original */
    bool *wanted;          /* [n_weights] */
    bool *needs;           /* [n_values] a gradient is wanted here or further up */
    bool *retain;          /* [n_values] some backward rule reads it */
    bool *kept;            /* [n_steps] the last forward kept what this step's backward reads */
    int *pending;          /* [n_values] consumers that the current forward has not yet run */
    Buffer **gradient;     /* [n_values]; those of weights stay until the next run */
    int64_t samples;       /* set by exec_set_samples; 0: axis 0 of the inputs */
    bool ran;              /* the last forward succeeded */
};

/* Fills in a call of the step on the Exec's argument lists; all gradients NULL. */
void exec_call(Exec *exec, const Step *step, OpCall *call, Error *err);
/* Gives back what op_scratch lent to the call before. */
void exec_release_scratch(Exec *exec);
/* The place where derivatives of value v are added up: made, and cleared, on first use. */
int exec_open_gradient(Exec *exec, Buffer **slot, int v, real **where, Error *err);
/* One reverse sweep. With acc, squares of samples' gradients are added there, through the ops'
 * `square`, and weights get no gradients; exec_square_batches must have said yes. */
int exec_sweep(Exec *exec, const real *const *d_outputs, real *const *acc, Error *err);

#endif
