/* What the files of finetune/ share: one optimiser step, the rate, augmentation, the loss, θ.
 *
 * θ is one array of all that is trained: first the free weights, tensor after tensor, then the
 * shared centres, then their scales. Optimiser state and mask have θ's layout.
 */
#ifndef ONNXPRESS_FINETUNE_INTERNAL_H
#define ONNXPRESS_FINETUNE_INTERNAL_H

#include "finetune/finetune.h"

/* optimizer.c */
typedef struct {
    FinetuneOptimizer kind;
    real rate, momentum, beta1, beta2, epsilon;
    real unbias1, unbias2; /* Adam: 1 / (1 - beta^t) */
} OptimizerStep;

/* Settings of step number `t`, which counts from 1. */
OptimizerStep optimizer_step(const FinetuneOptions *options, double rate, int64_t t);
/* Moves w[0..n) along -g; m (both kinds) and v (Adam) are its state. Where mask (NULL: ones) is 0,
 * weight and state are set to 0. */
void optimizer_update(const OptimizerStep *step, real decay, const real *g, const uint8_t *mask,
                      size_t n, real *w, real *m, real *v);

/* schedule.c: the rate at `step` of `steps`, counted from 0. */
double schedule_rate(const FinetuneOptions *options, int64_t step, int64_t steps);

/* augment.c */
uint64_t random_hash(uint64_t a, uint64_t b, uint64_t c);
/* Order of the samples in an epoch: a permutation that seed and epoch decide. */
void shuffle(int64_t *index, int64_t n, uint64_t seed, int64_t epoch);
/* Moves images (rank 4: axes 2 and 3 of each sample) by up to `pixels` in each direction, zeros
 * coming in, and mirrors half of them; seed, epoch and sample number decide. */
void augment(Value *image, const int64_t *sample, int64_t n, int pixels, bool flip, uint64_t seed,
             int64_t epoch);

/* objective.c: adds the loss of a block, as part of the mean over `batch` samples, and fills
 * d_out[o] (NULL where output o has no part in it). `teacher` NULL: cross-entropy with labels. */
typedef struct {
    double loss;     /* sum over samples */
    int64_t correct; /* of output 0 */
} Objective;
int objective_check(const FinetuneTask *task, Error *err);
/* After a forward run: all labels are classes of output 0. */
int objective_check_classes(const FinetuneTask *task, const Exec *exec, Error *err);
int objective_block(const FinetuneTask *task, const Exec *exec, const Exec *teacher,
                    const int64_t *sample, int64_t n, int64_t batch, real *const *d_out,
                    Objective *sum, Error *err);

/* parameters.c */
#define PARAMETER_PIECES 16 /* of the shared weights, for sums that do not depend on threads */

typedef struct {
    int weight;   /* of the program */
    size_t at, n; /* in θ */
    bool decays, prunable;
} FreeTensor;

typedef struct {
    const FinetuneTask *task;
    int n_weights;
    size_t n;            /* of θ */
    real *theta, *m, *v; /* v NULL without Adam */
    uint8_t *mask;       /* NULL: nothing is masked */
    FreeTensor *free;
    int n_free;
    size_t centre_at, scale_at; /* n when there are none */
    int levels;
    double centre_unit;     /* of a centre's rate */
    double *members;        /* [levels] sum of the weights (1 or h) of each centre's members */
    double *tensor_members; /* [tensors] the same for scales */
    double *sums;           /* [PARAMETER_PIECES][levels + tensors] */
    real **weight;          /* [n_weights] current values */
    bool *wanted;           /* [n_weights] */
    size_t prunable;        /* elements */
} Parameters;

int parameters_create(const FinetuneTask *task, const FinetuneOptions *options, Arena *arena,
                      Parameters *p, Error *err);
/* Recomputes the shared weights from centres and scales. */
void parameters_spread(const Parameters *p, int threads);
/* One step: gradient[lane][weight] (NULL: zero), added in lane order. False when a gradient was not
 * finite: then θ is spoilt. */
bool parameters_update(Parameters *p, const real *const *const *gradient, int lanes,
                       const FinetuneOptions *options, double rate, int64_t t);
/* Masks anew; weights that go become zero. */
int parameters_prune(Parameters *p, const PruneSchedule *schedule, double share, Error *err);
double parameters_kept(const Parameters *p); /* counts them: not for every step of a large model */

/* checkpoint.c: where a run stands. */
typedef struct {
    int64_t step;            /* done so far */
    Objective epoch;         /* sums over the current epoch */
    double *loss, *accuracy; /* [epochs] of the epochs that are done */
} Progress;

int checkpoint_save(const FinetuneTask *task, const FinetuneOptions *options, const Parameters *p,
                    const Progress *progress, Error *err);
/* *found false, and nothing is changed, when there is no such file. */
int checkpoint_load(const FinetuneTask *task, const FinetuneOptions *options, Parameters *p,
                    Progress *progress, bool *found, Error *err);

#endif
