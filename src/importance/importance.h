/* Importance: an estimate of the diagonal of the loss's Hessian, one number a weight.
 *
 * h[w][i] is the mean over the samples of the second derivative of a sample's loss by element i of
 * weight w. The caller owns the result (an arena of its own); weights that no derivative reaches get
 * NULL. The same seed and data give the same bits whatever the number of threads: samples are cut
 * into blocks of a fixed size, each block is summed by one thread, blocks are added in order.
 * Errors: whatever the executor says; ONNXPRESS_DATA when an output is not finite (sample named).
 */
#ifndef ONNXPRESS_IMPORTANCE_IMPORTANCE_H
#define ONNXPRESS_IMPORTANCE_IMPORTANCE_H

#include "autodiff/feed.h"
#include "autodiff/loss.h"

typedef struct {
    const OutputKind *kind;  /* per program output */
    const double *variance;  /* per program output, for values */
    uint64_t seed;
    int threads;             /* >= 1 */
    int64_t exact_columns;   /* up to this many columns an output is exact; above it, draws */
    int draws;               /* draws a sample above it */
    const bool *wanted;      /* per weight; NULL: all. The others get no importance */
    size_t memory;           /* bytes for activations, all threads together; 0: no bound */
    /* Called with the share done, from one thread at a time; non-zero stops the run
     * (ONNXPRESS_INTERRUPTED). May be NULL. */
    int (*progress)(void *context, double share);
    void *context;
} ImportanceOptions;

#define IMPORTANCE_EXACT_COLUMNS 64 /* one backward pass a column: beyond it draws are cheaper */
#define IMPORTANCE_DRAWS 8

/* Generalised Gauss–Newton diagonal of the distillation loss between the model and itself, over
 * samples sample[0..n) of the feed. h: array of program_weights pointers, filled in. */
int importance_gauss_newton(const Program *program, const Feed *feed, const int64_t *sample,
                            int64_t n, const ImportanceOptions *options, Arena *arena, float **h,
                            Error *err);

/* The other estimates of the diagonal, by name. h comes out as from importance_gauss_newton: never
 * negative, the same bits for any number of threads, weights that the method says nothing about get
 * NULL. `label`: a class for each sample of the feed, or NULL; it belongs to output 0, and the other
 * outputs are then left out of the loss.
 *
 *  gauss-newton      as above
 *  becker-lecun      second-order back-propagation that keeps the diagonal alone (Becker and LeCun
 *                    1988), of the cross-entropy with the labels or the model's own answers; NULL
 *                    for weights behind an op without a rule (OpRow's curvature)
 *  empirical-fisher  mean square of a sample's gradient of the cross-entropy; needs labels
 *  mc-fisher         the same with answers drawn from what the model itself says, `draws` a sample
 *  hutchinson        diagonal of the true Hessian: z (g(w + e z) - g(w - e z)) / 2e for random signs
 *                    z, `draws` for each block of samples; of the cross-entropy with labels, else
 *                    of the distance from the original's answers. e is HUTCHINSON_STEP times a
 *                    tensor's root mean square (less where all its numbers have one sign: they
 *                    keep it). What comes out negative becomes 0. An element's error is
 *                    what the rest of its row of the Hessian makes of the signs: for a network that
 *                    is sure of its answers, more than the element itself for hundreds of draws
 *  adam              square root of Adam's second moment (decay 0.999, bias corrected) of the
 *                    gradients of blocks of samples at the original weights, in order: one pass over
 *                    the data with labels, else `draws` passes with answers drawn as in mc-fisher
 *  activation        mean square of what a weight is multiplied with, summed over positions: how
 *                    much its own op's outputs move. Needs no derivative of what comes after
 *  none              1 everywhere
 */
#define HUTCHINSON_STEP (sizeof(real) == 4 ? 0x1p-8 : 0x1p-17) /* about the cube root of epsilon */

typedef enum {
    IMPORTANCE_GAUSS_NEWTON,
    IMPORTANCE_BECKER_LECUN,
    IMPORTANCE_EMPIRICAL_FISHER,
    IMPORTANCE_MC_FISHER,
    IMPORTANCE_HUTCHINSON,
    IMPORTANCE_ADAM,
    IMPORTANCE_ACTIVATION,
    IMPORTANCE_NONE
} ImportanceKind;

const char *importance_name(ImportanceKind kind);
bool importance_parse(const char *text, ImportanceKind *kind);
int importance_estimate(ImportanceKind kind, const Program *program, const Feed *feed,
                        const int64_t *sample, int64_t n, const int64_t *label,
                        const ImportanceOptions *options, Arena *arena, float **h, Error *err);

/* Second moments of what each wanted weight is multiplied with: moment[w] = mean over samples of
 * sum over positions of a a', [groups][columns][columns], lower triangles; NULL for the weights that
 * are not wanted, no matrix (program_matrix) or over the bounds below. Forward runs only. */
#define IMPORTANCE_MOMENT_COLUMNS 4608
#define IMPORTANCE_MOMENT_BYTES ((size_t)1 << 30) /* of all sums together */
int importance_moments(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                       const bool *wanted, const ImportanceOptions *options, Arena *arena,
                       float **moment, Error *err);

/* Without data: every element of a weight gets 1 / mean square of the weight, so that all weights are
 * rounded with the same relative error. small_finer: so many times more as the weight is smaller than
 * the typical one (bounded): what a layer passes on is as wrong, relatively, as its weights are, however
 * few they are, and finer steps cost small tensors (depthwise kernels, biases) little, where indices
 * are no bytes. */
int importance_from_weights(const Program *program, bool small_finer, Arena *arena, float **h,
                            Error *err);

#endif
