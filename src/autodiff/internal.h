/* What the files of this folder share: the program's steps and the run's storage.
 *
 * Steps of bodies (of If, Loop, Scan) stand among the others, right before the step that holds them.
 * Those of an If's branch are passed over when the condition says so; a Loop or Scan runs those of
 * its body again and again (loop.c), which everybody else passes over. "Loop" here is either.
 *
 * A Program is immutable once built. Its `value` facts are per graph value number: where a value
 * comes from decides who owns its storage (the program: weights and constants; the caller: inputs;
 * the Exec: all others).
 */
#ifndef ONNXPRESS_AUTODIFF_INTERNAL_H
#define ONNXPRESS_AUTODIFF_INTERNAL_H

#include <string.h>

#include "autodiff/autodiff.h"

typedef enum {
    FROM_NOWHERE, /* not computed: a constant of a type that no op here handles */
    FROM_INPUT,
    FROM_WEIGHT,
    FROM_CONSTANT, /* initializer or folded: `constant` holds it */
    FROM_STEP,
    FROM_LOOP /* an input of a loop's body, set by the loop */
} ValueOrigin;

typedef struct {
    ValueOrigin origin;
    int index;      /* of the program input or the weight; the step that makes it */
    Value constant; /* origins FROM_WEIGHT (original values) and FROM_CONSTANT */
    bool in_model;  /* `constant` is a view of the model's data, not the program's own */
    int n_readers;  /* inputs of steps that name it */
    int first_reader; /* the step of the first of them */
    int n_pending;  /* those within the same round of a loop, after which it can go */
    int loop;       /* the innermost loop's body that it is made in, -1: none */
    bool is_output; /* of the program, or the result of a round */
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
    int body;                /* of the graph, that it stands in; -1: none */
    int loop;                /* the same, of a loop */
    int holds;               /* the body of a Loop or Scan; -1: it is another op */
} Step;

typedef enum {
    BODY_STRANGE, /* of an op that cannot run */
    BODY_BRANCH,  /* runs when value `condition` is `when` */
    BODY_ALWAYS,  /* a branch whose condition is constant */
    BODY_NEVER,
    BODY_LOOP
} BodyKind;

typedef struct {
    BodyKind kind;
    int condition;
    bool when;
    int first, end; /* a loop's steps */
    int end_body;   /* bodies from the next one up to here are within it */
} ProgramBody;

struct Program {
    Model *model;
    Arena *arena;
    Graph *graph;
    ProgramValue *values; /* [graph->n_values] */
    ProgramBody *bodies;  /* [graph->n_bodies] */
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

/* bodies.c: what each body is, and what a step in one needs to know of it. */
int program_read_bodies(Program *program, Error *err);
/* Gives a step that holds bodies the inputs that its row expects; *runs false: they do not fit. */
int program_hold(Program *program, Step *step, bool *runs, Error *err);
/* An If whose condition is constant loses a branch. */
int program_choose(Program *program, Step *step, Error *err);
/* Sets the loops' ranges once all steps are in place, and removes those of branches never taken. */
void program_place_bodies(Program *program);
/* The innermost loop around a body, that body included; -1: none. */
int program_loop(const Program *program, int body);

/* steer.c: sets `steers` of the weights. */
int program_mark_steering(Program *program, Error *err);

/* trace.c: facts that flow along the steps. */
/* From the inputs of loops' bodies back to where they come from; true when that changes something. */
bool program_steer_rounds(const Program *program, bool *steers);
int program_trace(Program *program, Error *err);
/* Whether elements of a value are what Sigmoid or Softmax makes, brought there by ops that only move. */
int program_is_scored(const Program *program, int value, bool *scored, Error *err);
/* From the weights whose gradients are wanted on to all that these depend on. */
void program_spread_needs(const Program *program, bool *needs);
const char *step_name(const Onnx__NodeProto *proto);
const char *step_type(const Onnx__NodeProto *proto);
static inline bool name_in(const char *name, const char *const *list, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (strcmp(name, list[k]) == 0)
            return true;
    return false;
}
#define NAME_IN(name, list) name_in(name, list, sizeof(list) / sizeof *(list))

/* Runs one step whose inputs are all constants, in `exec`; out[k] are then the Exec's values until
 * exec_fold_release. Used while the program is built. */
int exec_fold(Exec *exec, const Step *step, Value **out, Error *err);
void exec_fold_release(Exec *exec, const Step *step);

/* storage.c: reference-counted buffers with a free list a size class, and the bound on them. */
typedef struct Pool Pool;
Pool *pool_create(size_t limit); /* 0: none */
void pool_free(Pool *pool);      /* all buffers must have been released */
/* A buffer of at least `bytes`, with one reference; NULL: no memory or over the limit, which is for
 * those that are `counted`. */
Buffer *pool_take(Pool *pool, size_t bytes, bool counted);
void *buffer_data(Buffer *buffer); /* 64-byte aligned */
void buffer_retain(Buffer *buffer);
void pool_release(Pool *pool, Buffer *buffer); /* NULL is allowed */
size_t pool_limit(const Pool *pool);
void pool_set_limit(Pool *pool, size_t limit);
size_t pool_peak(const Pool *pool); /* most bytes in use at one time */

/* limits.c: what a run may take in bytes, and in rounds of all its loops, where the caller sets no bound:
 * so much for each byte of the file and of the inputs (NULL: none are known). */
size_t limit_memory(const Program *program, const Value *inputs);
int64_t limit_rounds(const Program *program, const Value *inputs);

/* loop_frames.c: what the rounds of a loop leave for the way back. */
typedef struct LoopFrames LoopFrames;

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
    bool by_batch;         /* set by exec_set_by_batch */
    bool *done;            /* [n_steps] ran, and in no branch that was passed over */
    LoopFrames *loops;     /* [graph->n_bodies] */
    int64_t rounds, most_rounds; /* of all loops in this run */
    bool bounded;          /* the caller has set a bound on memory */
    void (*sink)(void *context, int weight, const real *gradient); /* or NULL */
    void *sink_context;
    bool ran;              /* the last forward succeeded */
};

/* Runs, or goes back through, those of the steps [first, end) that stand in this loop's body itself
 * (-1: the program). */
int exec_run_steps(Exec *exec, int first, int end, int loop, int keep, Error *err);
int exec_sweep_steps(Exec *exec, int first, int end, int loop, real *const *acc, Error *err);
void exec_drop_value(Exec *exec, int v);
void exec_drop_gradient(Exec *exec, int v);
/* A Loop or Scan as a whole. */
int loop_forward(Exec *exec, const Step *step, int keep, Error *err);
int loop_backward(Exec *exec, const Step *step, real *const *acc, Error *err);
LoopFrames *loop_frames_create(int n_bodies);
/* Gives back all that the rounds have left. */
void loop_frames_drop(Exec *exec);

/* What the step's derivative rules read outlives the next forward. */
void exec_retain(Exec *exec, const Step *step);
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
