/* Fine-tuning: gradient descent on a model's weights (with a mask) or on its shared centres.
 *
 * finetune_run trains the weights that a derivative reaches, with the executor: a minibatch is cut
 * into a fixed number of lanes, their gradients are added in lane order, and so the results do not
 * depend on the number of threads. Settings that make no difference to the bytes of the result:
 * threads, memory, checkpoints, interruption and resumption. BLAS must be set to one thread.
 * The result's arrays live in the arena given. What can fail: labels out of range, a loss that is
 * not finite (ONNXPRESS_DATA, naming step and tensor; the last checkpoint stays), a checkpoint of
 * another model or of other settings, memory, ONNXPRESS_INTERRUPTED after a checkpoint was saved.
 *   FinetuneOptions o = finetune_defaults();  o.epochs = 3;
 *   rc = finetune_run(&task, &o, arena, &tuned, err);  … tuned.weight[w] …
 */
#ifndef ONNXPRESS_FINETUNE_FINETUNE_H
#define ONNXPRESS_FINETUNE_FINETUNE_H

#include "autodiff/feed.h"
#include "autodiff/loss.h"
#include "finetune/prune.h"
#include "quantize/quantize.h"

/* Classic momentum with the decay added to the gradient, or Adam with decoupled decay. Only tensors
 * of two axes or more decay; centres and scales never do. */
typedef enum { FINETUNE_SGD, FINETUNE_ADAM } FinetuneOptimizer;
/* The rate over the run: constant; half a cosine down to `floor` of it; times `factor` every
 * `step_epochs`. */
typedef enum { FINETUNE_CONSTANT, FINETUNE_COSINE, FINETUNE_STEP } FinetuneSchedule;
/* The gradient of a shared centre: the plain mean of its members', or weighted by h. */
typedef enum { FINETUNE_MEAN, FINETUNE_HESSIAN } FinetuneCentre;

/* Weights that share centres, as quantize.h makes them. */
typedef struct {
    const int *weight;          /* [input->n_tensors] the program's weight of each tensor */
    const QuantizeInput *input; /* offsets, and h for FINETUNE_HESSIAN */
    const Quantized *quantized; /* start; a centre of exactly 0 stays there */
    FinetuneCentre gradient;
    bool train_scales;
    bool relative; /* the rate of a centre is in units of the mean size of all weights' centres but
                      0, that of a scale in units of its first value */
} FinetuneShared;

/* What is trained, and on what. */
typedef struct {
    const Model *model; /* of the program: checkpoints carry its SHA-256 */
    const Program *program;
    const Feed *feed;
    const int64_t *sample; /* [n] of the feed, each seen once an epoch, in shuffled order */
    int64_t n;
    const int64_t *label;         /* one a sample of the feed: cross-entropy. NULL: distillation */
    const Program *teacher;       /* whose answers are the target, and with labels half of it; NULL:
                                     the program with its original values, where there are no labels.
                                     Its inputs and outputs must be the program's. */
    const char *teacher_sha256;   /* for checkpoints; NULL: no other teacher */
    const OutputKind *kind;       /* per output */
    const double *variance;       /* per output; NULL: 1. Of plain values, for distillation */
    const real *const *start;     /* [weights] or NULL; entries NULL: the original values */
    const bool *trained;          /* [weights] or NULL: all that can be. Batch normalization's mean
                                     and variance, and what steers, never are */
    const uint8_t *const *mask;   /* [weights] or NULL; entries NULL: all ones. 0: exactly zero */
    const FinetuneShared *shared; /* NULL: every weight is its own */
} FinetuneTask;

typedef struct {
    int epoch, epochs;
    int64_t step, steps;   /* of the whole run */
    double loss, accuracy; /* means over this epoch so far; accuracy NaN without labels */
    double kept;           /* share of the prunable weights that is not pruned */
    double seconds, seconds_left;
} FinetuneProgress;

typedef struct {
    int epochs;
    int64_t batch;
    int lanes; /* parts of a minibatch that may run at once; decides rounding */
    uint64_t seed;
    FinetuneOptimizer optimizer;
    double rate, momentum, beta1, beta2, epsilon, decay;
    FinetuneSchedule schedule;
    double floor, factor;
    int step_epochs;
    int64_t warmup; /* steps during which the rate grows from 0 */
    bool norm_by_batch; /* batch normalization by the statistics of each lane's samples; the model's
                           own stay as they are, to be measured after the run (norms.h) */
    int shift;      /* pixels, 0: none */
    bool flip;
    PruneSchedule prune;      /* prune.every 0: none */
    int threads;              /* >= 1 */
    size_t memory;            /* bytes for activations, all lanes together; 0: no bound */
    const char *checkpoint;   /* a file to resume from when it is there, and to write; or NULL */
    int64_t checkpoint_steps; /* also written after this many steps; 0: after each epoch only */
    int (*progress)(void *context, const FinetuneProgress *progress); /* may be NULL; each step;
                                                                         non-zero stops */
    void *context;
} FinetuneOptions;

FinetuneOptions finetune_defaults(void);

typedef struct {
    real **weight;           /* [weights] all of them, trained or not */
    uint8_t **mask;          /* [weights] NULL where nothing is masked */
    real **second_moment;    /* [weights] Adam's, bias-corrected; NULL where none */
    float *centre, *scale;   /* as in Quantized; NULL without shared */
    double *loss, *accuracy; /* [epochs] means over each epoch, while training */
    int64_t steps;
    double seconds; /* of this call */
} Finetuned;

int finetune_run(const FinetuneTask *task, const FinetuneOptions *options, Arena *arena,
                 Finetuned *result, Error *err);

#endif
