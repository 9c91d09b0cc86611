/* Pruning: which weights stay, by size or by what their loss would cost.
 *
 * Knows arrays, no graph: tensor t has count[t] weights w[t], importances h[t]. Masks are bytes, 1
 * for a weight that stays. Exact zeros are always pruned; apart from that exactly round(keep * n)
 * weights stay, ties going to the earlier weight, so that the result is reproducible. Fails for
 * memory only. Example: prune_masks(&input, PRUNE_MAGNITUDE, PRUNE_MODEL, 0.05, mask, err);
 */
#ifndef ONNXPRESS_FINETUNE_PRUNE_H
#define ONNXPRESS_FINETUNE_PRUNE_H

#include <stdbool.h>

#include "ops/real.h"
#include "tensor/arena.h"
#include "tensor/error.h"

/* |w|, or optimal brain damage's h w^2. */
typedef enum { PRUNE_MAGNITUDE, PRUNE_DAMAGE } PruneMeasure;
/* One threshold for all tensors, or one for each. */
typedef enum { PRUNE_MODEL, PRUNE_TENSOR } PruneScope;

typedef struct {
    int n;
    const int64_t *count;
    const real *const *w;
    const float *const *h; /* PRUNE_DAMAGE only; NULL, or an entry NULL: ones */
} PruneInput;

int prune_masks(const PruneInput *input, PruneMeasure measure, PruneScope scope, double keep,
                uint8_t *const *mask, Error *err);

/* Gradual pruning (Zhu and Gupta 2017): from `from` to `to` of the run's steps the kept share falls
 * from 1 to `keep` along a cubic, fast at first; masks are made anew after every `every` steps.
 * Prunable are trained tensors of at least two axes. */
typedef struct {
    int64_t every; /* 0: no pruning */
    double keep;
    double from, to; /* shares of the run */
    PruneMeasure measure;
    PruneScope scope;
    const float *const *h; /* [weights of the program], for PRUNE_DAMAGE */
} PruneSchedule;

double prune_kept_at(const PruneSchedule *schedule, double share);

#endif
