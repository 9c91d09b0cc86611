/* Passes: what the estimators share. Sums over blocks of samples, one double an element of each
 * wanted weight, and runs of an Exec on samples of a block.
 *
 * An Estimate is the whole run: estimate_open fills it in, estimate_run goes over the samples (it
 * may be called again), estimate_results hands out what was summed, estimate_close frees it. A Pass
 * is what one thread works with; its sums are added to the totals in the order of the blocks.
 */
#ifndef ONNXPRESS_IMPORTANCE_PASSES_INTERNAL_H
#define ONNXPRESS_IMPORTANCE_PASSES_INTERNAL_H

#include "autodiff/blocks.h"
#include "importance/importance.h"

typedef struct Estimate Estimate;

typedef struct {
    const Block *block;
    Exec *exec; /* the block's; has run the samples below */
    const int64_t *sample;
    int64_t n;
    real **acc;             /* [n_weights]: sums of a block; NULL: not wanted, or merge keeps its own */
    real **v;               /* [n_outputs]: a vector at each output */
    size_t *room;           /* [n_outputs]: of v */
    const real **d_outputs; /* [n_outputs]: v or NULL */
    void *own;              /* the estimator's */
} Pass;

struct Estimate {
    const Program *program;
    const Feed *feed;
    const int64_t *sample;
    int64_t n;
    int64_t block; /* of estimate_run, all times; 0 before */
    int threads;   /* as block */
    const int64_t *label; /* NULL: none */
    const ImportanceOptions *options;
    int n_weights, n_outputs;
    bool *wanted;   /* [n_weights] */
    double **total; /* [n_weights]; as acc */
    float **h;      /* [n_weights]: what merge sums up in, where it keeps its own */
    /* Adds to pass->acc for pass->sample. */
    int (*visit)(Estimate *estimate, Pass *pass, Error *err);
    /* NULL: acc is added to total. Else there are no acc and total, and merge does, in block order,
     * what it will. */
    int (*merge)(Estimate *estimate, Pass *pass, Error *err);
    bool probing; /* this visit measures the memory that a block takes; no merge follows */
    int (*open)(Estimate *estimate, Pass *pass, Error *err); /* fills pass->own; may be NULL */
    void (*close)(Estimate *estimate, Pass *pass);           /* may be NULL */
    int passes, pass; /* of estimate_run: in all, and this one; for progress */
};

/* wanted NULL: all that a derivative reaches. */
int estimate_open(Estimate *estimate, const bool *wanted, Error *err);
int estimate_run(Estimate *estimate, Error *err);
/* h = total / divisor, at least 0. */
int estimate_results(const Estimate *estimate, double divisor, Arena *arena, float **h, Error *err);
/* ONNXPRESS_DATA: what came out for this weight is not finite. */
int estimate_too_large(const Estimate *estimate, int weight, Error *err);
void estimate_close(Estimate *estimate);

/* Runs the pass's samples again with the Exec's present weights. */
int pass_forward(Pass *pass, Error *err);
/* An output's vector, cleared, and entered in d_outputs; outputs of integers get none (NULL with
 * ONNXPRESS_OK). */
int pass_vector(Pass *pass, int output, Error *err);
/* Refuses outputs that are not finite, naming the sample. */
int pass_check(const Estimate *estimate, const Pass *pass, Error *err);
/* Enters the gradient of the cross-entropy at output 0. */
int pass_label_gradient(const Estimate *estimate, Pass *pass, Error *err);
/* Enters the gradients of answers drawn from the model's own. */
int pass_answer_gradients(const Estimate *estimate, Pass *pass, int64_t draw, Error *err);

/* Calls `each` with samples that exec_square can tell apart: the block, else one at a time. */
int pass_apart(Estimate *estimate, Pass *pass,
               int (*each)(Estimate *estimate, Pass *pass, Error *err), Error *err);

int importance_fisher(Estimate *estimate, Arena *arena, float **h, Error *err);
int importance_hutchinson(Estimate *estimate, Arena *arena, float **h, Error *err);
int importance_adam(Estimate *estimate, Arena *arena, float **h, Error *err);
int importance_becker_lecun(Estimate *estimate, Arena *arena, float **h, Error *err);
int importance_activation(Estimate *estimate, Arena *arena, float **h, Error *err);

#endif
