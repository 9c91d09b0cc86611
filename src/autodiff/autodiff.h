/* Automatic differentiation of an ONNX graph: a Program (what to run) and an Exec (one run of it).
 *
 * A Program is built once from a Model (which must outlive it) and is read-only afterwards, so that
 * several Execs may share it, one a thread. Nodes whose inputs are all constants (no weight among
 * them) are folded when it is built. An Exec owns the activations and gradients of its last run.
 * Results do not depend on the number of threads: an Exec is single-threaded, BLAS too.
 *
 * What can fail: an op without a row (ONNXPRESS_UNSUPPORTED, naming node and op), shapes that do
 * not fit (ONNXPRESS_DATA or _FORMAT), memory.
 *
 * Example:
 *   program_build(model, &program, err);  exec_create(program, 0, &exec, err);
 *   exec_forward(exec, inputs, EXEC_KEEP, err);  exec_backward(exec, d_outputs, err);
 *   const real *g = exec_gradient(exec, weight);
 */
#ifndef ONNXPRESS_AUTODIFF_AUTODIFF_H
#define ONNXPRESS_AUTODIFF_AUTODIFF_H

#include "model/graph.h"
#include "ops/ops.h"

typedef struct Program Program;
typedef struct Exec Exec;

/* A float tensor of the model that gradients are taken of: an initializer or the tensor of a
 * Constant node, floating, of rank >= 0, with a path of derivatives to an output or not. */
typedef struct {
    const char *name;  /* of the graph value */
    int value;         /* graph value number */
    int dtype;         /* as stored */
    Shape shape;
    int64_t count;
    const real *data;  /* original values, owned by the program */
    bool reaches;      /* a float path leads to an output through ops that all have backward */
    const char *blocked_by; /* when !reaches: "node (Op)" that has no derivative, or NULL */
    bool steers;       /* feeds an input that sets shapes or numerics (Resize scales, Clip limits,
                          Pad value, Pow exponent, Range, epsilon): must never be changed */
    int n_uses;        /* consuming node inputs */
} Weight;

typedef struct {
    const char *name;
    int dtype;
    Shape shape;       /* as declared; dim -1: not fixed, a name in the model */
    const char *dim_name[TENSOR_MAX_RANK]; /* of axes that are not fixed; NULL: none */
    bool shape_known;  /* a rank is declared */
} ProgramInput;

typedef struct {
    const char *name;
    int dtype;
    const char *made_by; /* op type that makes it, through Identity/Dropout/Cast/Reshape/Flatten; "" for none */
    bool scored; /* holds what Sigmoid or Softmax makes, moved there: a detector's boxes beside their scores */
} ProgramOutput;

int program_build(Model *model, Program **program, Error *err);
void program_free(Program *program); /* NULL is allowed */
const Graph *program_graph(const Program *program);
int program_weights(const Program *program);
const Weight *program_weight(const Program *program, int weight);
/* The weight's numbers, of which the caller has a copy, are read from there from now on (the caller
 * keeps it as long as the program runs); the memory they had in the program is given back. Not while
 * an Exec runs. */
void program_move_weight(Program *program, int weight, const real *data);
int program_inputs(const Program *program); /* graph inputs without an initializer */
const ProgramInput *program_input(const Program *program, int input);
int program_outputs(const Program *program);
const ProgramOutput *program_output(const Program *program, int output);
/* The first node without a forward rule, as "node (Op, opset N)"; NULL: the whole graph can run. */
const char *program_unsupported(const Program *program);

enum { EXEC_DISCARD = 0, EXEC_KEEP = 1 }; /* keep what a backward run needs */

/* `memory` bounds the bytes of activations and their gradients, not those of weights' gradients (0: as
 * the sizes of file and inputs allow, limits.c). */
int exec_create(const Program *program, size_t memory, Exec **exec, Error *err);
void exec_free(Exec *exec); /* NULL is allowed */
/* weights[k] replaces weight k's values in later runs (not copied; NULL: the original). A NULL
 * array restores all. */
void exec_set_weights(Exec *exec, const real *const *weights);
/* inputs[k] in program_input order. The values' storage is the caller's. */
int exec_forward(Exec *exec, const Value *inputs, int keep, Error *err);
const Value *exec_output(const Exec *exec, int output); /* until the next forward */
/* d_outputs[k]: gradient at output k, of its count; NULL: zero. May be called several times after
 * one EXEC_KEEP forward: gradients are of this call alone, not summed over calls. */
int exec_backward(Exec *exec, const real *const *d_outputs, Error *err);
const real *exec_gradient(const Exec *exec, int weight); /* NULL: zero or not reached */
/* Later backward runs hand each weight's gradient to `sink` once it is complete, and keep it no longer:
 * exec_gradient has none then. NULL: they are kept, as at first. */
void exec_set_sink(Exec *exec, void (*sink)(void *context, int weight, const real *gradient),
                   void *context);
/* Which weights later backward and square runs want (default all); wanted[k] per weight. */
void exec_set_wanted(Exec *exec, const bool *wanted);
/* How many samples later runs hold: 0 (the default) means as many as the inputs have along axis 0.
 * For inputs without a batch axis, 1. */
void exec_set_samples(Exec *exec, int64_t samples);
/* Later runs, forward and backward, normalize a batch by its own mean and variance, as training does,
 * in place of those that the model holds (default: false). */
void exec_set_by_batch(Exec *exec, bool by_batch);
/* As exec_backward, but adds to acc[k] (NULL: not wanted), for every weight, the sum over samples of
 * the squared gradient of that sample's term. Needs a batch along axis 0 (exec_square_batches says
 * whether the last forward's batch can be squared at once; if not, run it with one sample: the run
 * is then taken as one, whatever its axis 0). */
bool exec_square_batches(const Exec *exec);
int exec_square(Exec *exec, const real *const *d_outputs, real *const *acc, Error *err);
/* How a weight is the matrix of the one op that reads it; false when it is none or has more uses. */
bool program_matrix(const Program *program, int weight, OpMatrix *matrix);
/* After an EXEC_KEEP forward: adds to acc[k] (NULL: not wanted) the second moments of what weight k is
 * multiplied with, as OpRow's moment does. Only for weights that program_matrix knows. */
int exec_moments(Exec *exec, real *const *acc, Error *err);
/* Second-order back-propagation of diagonals (curvature.c), through OpRow's curvature.
 * known[k]: all ways from weight k to the outputs have rules; others can't be asked for. */
int program_curvature(const Program *program, bool *known, Error *err);
/* After an EXEC_KEEP forward that wanted them: adds to acc[k] (NULL: not wanted) the second derivatives
 * by weight k, given first (NULL: zero) and second ones at each output (NULL: zero). */
int exec_curvature(Exec *exec, const real *const *d_outputs, const real *const *dd_outputs,
                   real *const *acc, Error *err);
/* How much the outputs of the ops that read a weight move with it, whatever follows them: the sum over
 * outputs of (d out / d w)^2. Known for a weight whose readers all have a rule and meet samples. */
void program_sensitivity(const Program *program, bool *known);
/* Later EXEC_KEEP forwards keep what exec_sensitivity reads for these weights, and nothing else. */
void exec_set_sensed(Exec *exec, const bool *wanted);
int exec_sensitivity(Exec *exec, real *const *acc, Error *err);
size_t exec_peak_bytes(const Exec *exec);

/* A BatchNormalization whose mean and variance are weights that nothing else reads. */
typedef struct {
    int input;          /* graph value that it normalizes */
    int mean, variance; /* weights */
    int depth;          /* most other normalizations on a way from the inputs to this one */
} ProgramNorm;
/* All of them, in order of execution; *fixed counts the others, whose statistics are shared,
 * constants or computed. */
int program_norms(const Program *program, Arena *arena, ProgramNorm **norm, int *n, int *fixed,
                  Error *err);
/* A value of the last forward run; NULL when it was not kept. After an EXEC_KEEP run that wanted a
 * normalization's mean, its input is there. */
const Value *exec_value(const Exec *exec, int value);

#endif
