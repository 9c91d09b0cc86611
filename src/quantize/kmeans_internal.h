/* The sorted weights that k-means works on: internal to quantize/. */
#ifndef ONNXPRESS_QUANTIZE_KMEANS_INTERNAL_H
#define ONNXPRESS_QUANTIZE_KMEANS_INTERNAL_H

#include "quantize/quantize.h"

#define KMEANS_BLOCK ((size_t)32) /* values between two of the sums that are held */

typedef struct {
    Arena *arena; /* holds the arrays */
    size_t zeros; /* weights that are exactly 0 */
    size_t n;     /* values: one a weight, but one for all zeros, at zero_at */
    size_t zero_at; /* SIZE_MAX: there are none */
    double zeros_weight;
    float *x;      /* [n] w / relative, ascending */
    float *weight; /* [n] h * relative^2, 1 unweighted and where all are 0; without meaning at zero_at */
    size_t blocks;
    double *g, *gx; /* [blocks + 1] sums of weight and weight * x before each, and of all */
} KMeansOrder;

/* Sums of weight and of weight * x over the values before a position. */
typedef struct {
    double g, gx;
} KMeansSums;

/* Starting centres, strictly ascending, at most k of them; *made 0: this seeding is not for this k.
 */
typedef int (*KMeansSeeding)(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                             Arena *scratch, Error *err);
int kmeans_seed_quantiles(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                          Arena *scratch, Error *err);
int kmeans_seed_uniform(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err);
int kmeans_seed_density(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err);
int kmeans_seed_optimal(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err);

/* relative NULL: 1. To be freed in any case; nothing of the input is needed afterwards. */
int kmeans_order(const QuantizeInput *in, const float *relative, bool weighted, KMeansOrder *order,
                 Error *err);
void kmeans_order_free(KMeansOrder *order);
double kmeans_weight(const KMeansOrder *order, size_t i);
KMeansSums kmeans_sums(const KMeansOrder *order, size_t i);
/* The first value at or after `from` with which the sum of weights comes to `goal`, or the last. */
size_t kmeans_first_weighing(const KMeansOrder *order, size_t from, double goal);
/* The first position at or after `from` whose value is above `limit`. */
size_t kmeans_first_above(const KMeansOrder *order, size_t from, double limit);
/* The weighted mean of x[start] to x[end - 1], the plain one when they have no weight. */
double kmeans_mean(const KMeansOrder *order, size_t start, size_t end);

typedef struct {
    size_t k;
    double *centre; /* [k], ascending */
    size_t *end;    /* [k]: cluster j is x[end[j-1]] to x[end[j]] */
    size_t zero;    /* the cluster kept at 0; SIZE_MAX: none */
} KMeansClusters;

/* Lloyd's two steps. Nearest centres (the lower of two as near); clusters without members are dropped.
 * Returns whether anything has changed. */
bool kmeans_assign(const KMeansOrder *order, KMeansClusters *clusters);
void kmeans_update(const KMeansOrder *order, KMeansClusters *clusters);

#endif
