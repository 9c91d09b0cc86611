/* The state of entropy-constrained quantization between its two steps: internal to quantize/.
 *
 * Exact zeros are no values here: they are counted, and have a cluster. Values stand in groups of like
 * weight (within a factor of two), ascending in each. */
#ifndef ONNXPRESS_QUANTIZE_ECSQ_INTERNAL_H
#define ONNXPRESS_QUANTIZE_ECSQ_INTERNAL_H

#include "quantize/kmeans_internal.h"

#define ECSQ_GROUPS 64 /* the last holds all that weigh less than 2^-63 of the most */

/* A centre that is nearest, rate counted, for some value of a group; with the least rate of all
 * candidates up to and from this one. */
typedef struct {
    double centre, rate, least_below, least_above;
    uint32_t cluster;
} EcsqCandidate;

typedef struct {
    size_t n, k;
    size_t zeros;             /* exact ones, all in cluster `zero` */
    size_t start[ECSQ_GROUPS + 1];
    float *x;                 /* [n] w / relative */
    double *g;                /* [n] weight: h * relative^2 */
    uint32_t *index;          /* [n] of x in w */
    uint16_t *cluster;        /* [n], by ecsq_assign */
    double *centre;           /* [k] ascending */
    double *rate;             /* [k] -lambda log2 of the share of values */
    double *above, *below;    /* [k] of a centre's quotient */
    size_t *count;            /* [k] */
    EcsqCandidate *candidate; /* [k] */
    double lambda;
    size_t zero; /* the cluster at 0, to which exact zeros go; SIZE_MAX: none */
} Ecsq;

/* Arrays for e->n values and as many levels. */
int ecsq_allocate(Ecsq *ecsq, size_t levels, Arena *arena, Error *err);
/* Groups the order's values. Clusters are still to be set with ecsq_start. */
int ecsq_create(const QuantizeInput *in, const KMeansOrder *order, double lambda, size_t levels,
                Arena *arena, Ecsq *ecsq, Error *err);
/* Every stride-th value of each group (at least one), with room for as many levels. */
int ecsq_sample(const Ecsq *all, size_t stride, size_t levels, Arena *arena, Ecsq *sample,
                Error *err);
/* The clusters of one that has settled: centres and rates. */
void ecsq_copy(const Ecsq *from, Ecsq *to);
/* Begins with the clusters of a settled sample. Those of its `seed` centres that it has lost come back
 * where they are farthest from what is left, at the rate of a single value, as does 0 when there are
 * exact zeros: a sample may lack what few values need. */
int ecsq_resume(Ecsq *ecsq, const Ecsq *sample, const double *seed, size_t seeds, bool has_zero,
                Error *err);
/* k of the centres (strictly ascending, already in ecsq->centre), all rates 0; one of them is moved
 * to 0 when there are exact zeros. */
void ecsq_start(Ecsq *ecsq, size_t k, bool has_zero);
/* Each value to the cluster of least g (x - centre)^2 + rate. Returns the sum of these costs. */
double ecsq_assign(Ecsq *ecsq);
/* Centres and rates that are best for the clusters as they are; empty clusters are dropped, those
 * that meet become one. `cluster` is void until the next ecsq_assign. */
void ecsq_update(Ecsq *ecsq);

#endif
