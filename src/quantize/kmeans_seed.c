/* SPDX-License-Identifier: Apache-2.0
 *
 * Quick deterministic starts for k-means. None is best everywhere, so all are tried.
 */
#include "quantize/kmeans_internal.h"

#include <math.h>

#define BLOCKS 4096 /* of equal count, over which density is taken as constant */

static size_t add_ascending(double *centre, size_t made, double value)
{
    if (made == 0 || value > centre[made - 1])
        centre[made++] = value;
    return made;
}

/* The middles of k parts of equal weight. */
int kmeans_seed_quantiles(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                          Arena *scratch, Error *err)
{
    (void)scratch, (void)err;
    size_t i = 0;
    double total = kmeans_sums(order, order->n).g;
    *made = 0;
    for (size_t j = 0; j < k; j++) {
        i = kmeans_first_weighing(order, i, total * ((double)j + 0.5) / (double)k);
        *made = add_ascending(centre, *made, (double)order->x[i]);
    }
    return ONNXPRESS_OK;
}

int kmeans_seed_uniform(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err)
{
    (void)scratch, (void)err;
    double low = (double)order->x[0], width = (double)order->x[order->n - 1] - low;
    *made = 0;
    for (size_t j = 0; j < k; j++)
        *made = add_ascending(centre, *made, low + width * ((double)j + 0.5) / (double)k);
    return ONNXPRESS_OK;
}

/* The best centres at high rate lie as densely as the cube root of the weighted density p: equal
 * parts of the integral of p^(1/3), which is (weight * width^2)^(1/3) for a block. */
static double block_share(const KMeansOrder *order, size_t blocks, size_t b, double *low,
                          double *width)
{
    size_t last = order->n - 1; /* at most 2^32, so that the products fit */
    size_t from = last * b / blocks, to = last * (b + 1) / blocks;
    *low = (double)order->x[from];
    *width = (double)order->x[to] - *low;
    double weight = kmeans_sums(order, to + 1).g - kmeans_sums(order, from).g;
    return cbrt(weight) * cbrt(*width) * cbrt(*width);
}

int kmeans_seed_density(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err)
{
    (void)scratch, (void)err;
    size_t blocks = order->n - 1 < BLOCKS ? order->n - 1 : BLOCKS, j = 0;
    double total = 0, before = 0, low, width;
    *made = 0;
    for (size_t b = 0; b < blocks; b++)
        total += block_share(order, blocks, b, &low, &width);
    if (!(total > 0)) {
        *made = add_ascending(centre, 0, (double)order->x[0]);
        return ONNXPRESS_OK;
    }
    for (size_t b = 0; b < blocks; b++) {
        double share = block_share(order, blocks, b, &low, &width);
        for (; j < k; j++) {
            double goal = total * ((double)j + 0.5) / (double)k;
            if (goal > before + share)
                break;
            double within = share > 0 ? fmax(goal - before, 0) / share : 0;
            *made = add_ascending(centre, *made, low + width * within);
        }
        before += share;
    }
    return ONNXPRESS_OK;
}
