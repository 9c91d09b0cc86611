/* The sorted weights that k-means works on: internal to quantize/. */
#ifndef ONNXPRESS_QUANTIZE_KMEANS_INTERNAL_H
#define ONNXPRESS_QUANTIZE_KMEANS_INTERNAL_H

#include "quantize/quantize.h"

#define KMEANS_ZEROS UINT32_MAX

struct KMeansOrder {
    Arena *arena; /* holds all of it, this struct too */
    bool weighted;
    size_t zeros;          /* weights that are exactly 0 */
    size_t n;              /* values: one a weight, but one for all zeros */
    const float *relative; /* [n_tensors], NULL: 1 */
    float *x;              /* [n] w / relative, ascending */
    uint32_t *index;       /* [n] of x in w; KMEANS_ZEROS: of all zeros */
    double *g, *gx;        /* [n + 1] sums of weight and weight * x before each */
};

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

/* h * relative^2 of element i of w; 1 unweighted. */
double kmeans_weight(const QuantizeInput *in, const KMeansOrder *order, size_t i);
/* The symbol of all exact zeros. */
void kmeans_place_zeros(const QuantizeInput *in, uint16_t zero, uint16_t *symbol);
/* The first position at or after `from` whose value is above `limit`. */
size_t kmeans_first_above(const KMeansOrder *order, size_t from, double limit);
/* The weighted mean of x[start] to x[end - 1], the plain one when they have no weight. */
double kmeans_mean(const KMeansOrder *order, size_t start, size_t end);

#endif
