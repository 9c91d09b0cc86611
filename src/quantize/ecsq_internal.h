/* The state of entropy-constrained quantization between its two steps: internal to quantize/.
 *
 * Values are gone through where they stand, so that nothing but a cluster is held for each; in ascending
 * order it is quicker. They belong to groups of like weight h * relative^2 (within a factor of two).
 * Exact zeros have a cluster and are only counted. */
#ifndef ONNXPRESS_QUANTIZE_ECSQ_INTERNAL_H
#define ONNXPRESS_QUANTIZE_ECSQ_INTERNAL_H

#include "quantize/kmeans_internal.h"

#define ECSQ_GROUPS 64 /* the last holds all that weigh less than 2^-63 of the most */

/* A centre that is nearest, rate counted, for some value of a group; with the least rate of all
 * candidates up to and from this one. */
typedef struct {
    double centre, rate, least_below, least_above;
    double upto; /* where the next one is as near; unused of the last */
    uint32_t cluster;
} EcsqCandidate;

typedef struct {
    size_t n;                 /* values in it */
    double most;              /* the largest weight of one */
    size_t candidates, nearest; /* how many, and the one nearest to the last value */
    EcsqCandidate *candidate; /* [levels], when there are values */
} EcsqGroup;

typedef struct {
    QuantizeInput in;
    const float *relative;    /* [n_tensors], NULL: 1 */
    bool weighted;            /* else each value counts as 1 */
    size_t n, k;              /* values that are not exactly 0, clusters */
    size_t zeros;             /* exact ones, all in cluster `zero`; a sample's are only counted */
    int top;                  /* exponent of the largest weight */
    EcsqGroup group[ECSQ_GROUPS];
    uint16_t *cluster;        /* one a value of in, by ecsq_assign */
    double *centre;           /* [k] ascending */
    double *rate;             /* [k] -lambda log2 of the share of values */
    double *above, *below;    /* [k] of a centre's quotient, by ecsq_assign; as is */
    size_t *count;            /* [k] */
    double lambda;
    size_t zero; /* the cluster at 0, to which exact zeros go; SIZE_MAX: none */
} Ecsq;

/* Groups the input's values (in, relative are to live as long) and makes room for as many levels.
 * Clusters are still to be set with ecsq_start. `cluster` is left to be set. */
int ecsq_create(const QuantizeInput *in, const float *relative, bool weighted, double lambda,
                size_t levels, Arena *arena, Ecsq *ecsq, Error *err);
/* Room for the clusters alone. */
int ecsq_allocate(size_t levels, Arena *arena, Ecsq *ecsq, Error *err);
/* w / relative of element i, which is of tensor t, and what it weighs. */
float ecsq_value(const Ecsq *ecsq, size_t t, size_t i);
double ecsq_weight(const Ecsq *ecsq, size_t t, size_t i);
size_t ecsq_group_of(const Ecsq *ecsq, double weight);
/* Every stride-th value of each group in ascending order (at least one), with room for as many
 * levels. */
int ecsq_sample(const Ecsq *all, const KMeansOrder *order, size_t stride, size_t levels,
                Arena *arena, Ecsq *sample, Error *err);
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
