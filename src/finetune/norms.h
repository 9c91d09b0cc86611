/* Batch normalization's mean and variance, measured anew.
 *
 * Exact and sequential: statistics of depth 0 are measured first, from what they normalize; those of
 * depth 1 from inputs made with the new ones of depth 0, and so on, a forward run over all samples a
 * depth. The variance is the population's (over samples and positions). Sums are in double, about
 * the old mean, block by block in order: the same numbers for any number of threads. Errors: the
 * executor's; ONNXPRESS_DATA when an input is not finite; ONNXPRESS_INTERRUPTED.
 */
#ifndef ONNXPRESS_FINETUNE_NORMS_H
#define ONNXPRESS_FINETUNE_NORMS_H

#include "autodiff/feed.h"

typedef struct {
    bool by_batch; /* all of them at once, in a run that normalizes each block by its own statistics, as
                      a network trained so expects; else depth after depth */
    int threads;   /* >= 1 */
    size_t memory; /* bytes for activations; 0: no bound */
    int (*progress)(void *context, double share); /* may be NULL; non-zero stops */
    void *context;
} NormsOptions;

/* weight: [weights of the program] values to run with, NULL entries: the originals. The entries of
 * the means and variances are replaced by new arrays in the arena. *done: normalizations measured,
 * *fixed: those whose statistics are no weights of their own, which stay. */
int norms_reestimate(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                     const NormsOptions *options, Arena *arena, real **weight, int64_t *done,
                     int64_t *fixed, Error *err);

#endif
