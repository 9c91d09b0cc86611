/* SPDX-License-Identifier: Apache-2.0
 *
 * Lloyd's iterations in one dimension: a cluster is an interval of the sorted values, found by
 * binary search, its centre a difference of prefix sums. An iteration costs k log n, whatever n is.
 */
#include "quantize/kmeans_internal.h"
#include "quantize/quantize_internal.h"

#include <math.h>
#include <string.h>

#define MAX_ITERATIONS 200 /* distortion has settled to 0.1 % long before, where it goes so far */

static int clusters_allocate(KMeansClusters *clusters, size_t k, Arena *scratch, Error *err)
{
    *clusters = (KMeansClusters){.zero = SIZE_MAX};
    clusters->centre = arena_array(scratch, k, sizeof *clusters->centre);
    clusters->end = arena_array(scratch, k, sizeof *clusters->end);
    if (!clusters->centre || !clusters->end)
        return error_memory(err, "k-means");
    return ONNXPRESS_OK;
}

size_t kmeans_first_above(const KMeansOrder *order, size_t from, double limit)
{
    size_t to = order->n;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if ((double)order->x[middle] > limit)
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

bool kmeans_assign(const KMeansOrder *order, KMeansClusters *c)
{
    bool changed = false;
    size_t kept = 0, start = 0, zero = SIZE_MAX;
    for (size_t j = 0; j < c->k; j++) {
        size_t end = order->n;
        if (j + 1 < c->k)
            end = kmeans_first_above(order, start, 0.5 * c->centre[j] + 0.5 * c->centre[j + 1]);
        changed |= end != c->end[j];
        if (end == start) {
            changed = true;
            continue;
        }
        if (j == c->zero)
            zero = kept;
        c->centre[kept] = c->centre[j];
        c->end[kept++] = start = end;
    }
    c->k = kept;
    c->zero = zero;
    return changed;
}

double kmeans_mean(const KMeansOrder *order, size_t start, size_t end)
{
    KMeansSums before = kmeans_sums(order, start), after = kmeans_sums(order, end);
    double weight = after.g - before.g, mean;
    if (weight > 0) {
        mean = (after.gx - before.gx) / weight;
    } else {
        double sum = 0;
        for (size_t i = start; i < end; i++)
            sum += (double)order->x[i];
        mean = sum / (double)(end - start);
    }
    /* Beside much larger weights a small one's difference of prefix sums is rounding alone. */
    return fmin(fmax(mean, (double)order->x[start]), (double)order->x[end - 1]);
}

void kmeans_update(const KMeansOrder *order, KMeansClusters *c)
{
    for (size_t j = 0, start = 0; j < c->k; start = c->end[j++])
        c->centre[j] = j == c->zero ? 0 : kmeans_mean(order, start, c->end[j]);
}

static double clusters_distortion(const KMeansOrder *order, const KMeansClusters *c)
{
    double sum = 0;
    for (size_t j = 0, i = 0; j < c->k; j++)
        for (; i < c->end[j]; i++) {
            double difference = (double)order->x[i] - c->centre[j];
            sum += kmeans_weight(order, i) * difference * difference;
        }
    return sum;
}

static void keep_zero(KMeansClusters *c)
{
    size_t nearest = 0;
    for (size_t j = 1; j < c->k; j++)
        if (fabs(c->centre[j]) < fabs(c->centre[nearest]))
            nearest = j;
    c->centre[nearest] = 0;
    c->zero = nearest;
}

/* From the centres in c to where they settle. */
static double run_lloyd(const KMeansOrder *order, KMeansClusters *c)
{
    memset(c->end, 0, c->k * sizeof *c->end);
    c->zero = SIZE_MAX;
    if (order->zeros > 0)
        keep_zero(c);
    for (int i = 0; i < MAX_ITERATIONS && kmeans_assign(order, c); i++)
        kmeans_update(order, c);
    return clusters_distortion(order, c);
}

static int best_clusters(const KMeansOrder *order, size_t k, KMeansClusters *best, Arena *scratch,
                         Error *err)
{
    static const KMeansSeeding seeding[] = {kmeans_seed_quantiles, kmeans_seed_uniform,
                                            kmeans_seed_density, kmeans_seed_optimal};
    KMeansClusters trial;
    int status = clusters_allocate(&trial, k, scratch, err);
    if (!status)
        status = clusters_allocate(best, k, scratch, err);
    double least = INFINITY;
    for (size_t s = 0; s < sizeof seeding / sizeof *seeding && !status; s++) {
        status = seeding[s](order, k, trial.centre, &trial.k, scratch, err);
        if (status || trial.k == 0)
            continue;
        double distortion = run_lloyd(order, &trial);
        if (s == 0 || distortion < least || (distortion == least && trial.k > best->k)) {
            KMeansClusters swap = *best;
            *best = trial;
            trial = swap;
            least = distortion;
        }
    }
    return status;
}

/* Where the best clusters end: upto[j] is the largest value in cluster j; *zero is the one at 0, or
 * SIZE_MAX. The order is held only as long as that takes. */
static int find_clusters(const QuantizeInput *in, const float *relative, bool weighted, size_t k,
                         float **upto, size_t *clusters, size_t *zero, Arena *scratch, Error *err)
{
    KMeansOrder order;
    KMeansClusters best = {0};
    int status = kmeans_order(in, relative, weighted, &order, err);
    if (!status)
        status = best_clusters(&order, k, &best, scratch, err);
    if (!status && !(*upto = arena_array(scratch, best.k, sizeof **upto)))
        status = error_memory(err, "k-means");
    for (size_t j = 0; j < best.k && !status; j++)
        (*upto)[j] = order.x[best.end[j] - 1];
    *clusters = best.k;
    *zero = best.zero;
    kmeans_order_free(&order);
    return status;
}

/* Of the first cluster that does not end below x. */
static uint16_t cluster_of(const float *upto, size_t clusters, float x)
{
    const float *first = upto;
    for (size_t n = clusters; n > 1; n -= n / 2)
        first += x > first[n / 2 - 1] ? n / 2 : 0;
    return (uint16_t)(first - upto);
}

int quantize_kmeans(const QuantizeInput *in, const float *relative, int k, QuantizeScope scope,
                    bool weighted, Arena *arena, Quantized *out, Error *err)
{
    if (k < 1)
        return error_set(err, ONNXPRESS_USAGE, "k-means: %d clusters; at least 1 is needed", k);
    if (k > QUANTIZE_MAX_LEVELS)
        return error_set(err, ONNXPRESS_GOAL, "k-means: %d clusters are more than %d", k,
                         QUANTIZE_MAX_LEVELS);
    const float *steps = scope == QUANTIZE_SCOPE_TENSOR ? relative : NULL;
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0, clusters = 1, zero = SIZE_MAX;
    float *upto;
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "k-means");
    int status = ONNXPRESS_OK; /* one level without weights, so that a codebook is never empty */
    if (n > 0)
        status = find_clusters(in, steps, weighted, (size_t)k, &upto, &clusters, &zero, scratch,
                               err);
    *out = (Quantized){.symbol = status ? NULL : arena_array(arena, n, sizeof *out->symbol)};
    if (!status && !out->symbol)
        status = error_memory(err, "k-means");
    for (size_t t = 0; t < in->n_tensors && !status; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            float x = steps ? in->w[i] / steps[t] : in->w[i];
            out->symbol[i] = in->w[i] == 0 ? (uint16_t)zero : cluster_of(upto, clusters, x);
        }
    arena_destroy(scratch);
    if (!status)
        status = quantize_fit(in, steps, scope, weighted, (int)clusters,
                              zero == SIZE_MAX ? -1 : (int)zero, arena, out, err);
    return status;
}
