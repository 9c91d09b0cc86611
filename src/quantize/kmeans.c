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

typedef struct {
    size_t k;
    double *centre; /* [k], ascending */
    size_t *end;    /* [k]: cluster j is x[end[j-1]] to x[end[j]] */
    size_t zero;    /* the cluster kept at 0; SIZE_MAX: none */
} Clusters;

static int clusters_allocate(Clusters *clusters, size_t k, Arena *scratch, Error *err)
{
    *clusters = (Clusters){.zero = SIZE_MAX};
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

void kmeans_place_zeros(const QuantizeInput *in, uint16_t zero, uint16_t *symbol)
{
    for (size_t i = 0; i < in->offset[in->n_tensors]; i++)
        if (in->w[i] == 0)
            symbol[i] = zero;
}

/* Nearest centres (the lower of two as near); clusters without members are dropped. Returns whether
 * anything has changed. */
static bool assign(const KMeansOrder *order, Clusters *c)
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
    double weight = order->g[end] - order->g[start], mean;
    if (weight > 0) {
        mean = (order->gx[end] - order->gx[start]) / weight;
    } else {
        double sum = 0;
        for (size_t i = start; i < end; i++)
            sum += (double)order->x[i];
        mean = sum / (double)(end - start);
    }
    /* Beside much larger weights a small one's difference of prefix sums is rounding alone. */
    return fmin(fmax(mean, (double)order->x[start]), (double)order->x[end - 1]);
}

static void update(const KMeansOrder *order, Clusters *c)
{
    for (size_t j = 0, start = 0; j < c->k; start = c->end[j++])
        c->centre[j] = j == c->zero ? 0 : kmeans_mean(order, start, c->end[j]);
}

static double clusters_distortion(const KMeansOrder *order, const Clusters *c)
{
    double sum = 0;
    for (size_t j = 0, i = 0; j < c->k; j++)
        for (; i < c->end[j]; i++) {
            double difference = (double)order->x[i] - c->centre[j];
            sum += (order->g[i + 1] - order->g[i]) * difference * difference;
        }
    return sum;
}

static void keep_zero(Clusters *c)
{
    size_t nearest = 0;
    for (size_t j = 1; j < c->k; j++)
        if (fabs(c->centre[j]) < fabs(c->centre[nearest]))
            nearest = j;
    c->centre[nearest] = 0;
    c->zero = nearest;
}

/* From the centres in c to where they settle. */
static double run_lloyd(const KMeansOrder *order, Clusters *c)
{
    memset(c->end, 0, c->k * sizeof *c->end);
    c->zero = SIZE_MAX;
    if (order->zeros > 0)
        keep_zero(c);
    for (int i = 0; i < MAX_ITERATIONS && assign(order, c); i++)
        update(order, c);
    return clusters_distortion(order, c);
}

static int best_clusters(const KMeansOrder *order, size_t k, Clusters *best, Arena *scratch,
                         Error *err)
{
    static const KMeansSeeding seeding[] = {kmeans_seed_quantiles, kmeans_seed_uniform,
                                            kmeans_seed_density, kmeans_seed_optimal};
    Clusters trial;
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
            Clusters swap = *best;
            *best = trial;
            trial = swap;
            least = distortion;
        }
    }
    return status;
}

int quantize_kmeans(const QuantizeInput *in, const KMeansOrder *order, int k, QuantizeScope scope,
                    Arena *arena, Quantized *out, Error *err)
{
    if (k < 1)
        return error_set(err, ONNXPRESS_USAGE, "k-means: %d clusters; at least 1 is needed", k);
    if (k > QUANTIZE_MAX_LEVELS)
        return error_set(err, ONNXPRESS_GOAL, "k-means: %d clusters are more than %d", k,
                         QUANTIZE_MAX_LEVELS);
    *out = (Quantized){.symbol = arena_array(arena, in->n_tensors ? in->offset[in->n_tensors] : 0,
                                               sizeof *out->symbol)};
    if (!out->symbol)
        return error_memory(err, "k-means");
    if (order->n == 0) /* one level, so that a codebook is never empty */
        return quantize_fit(in, order->relative, scope, order->weighted, 1, -1, arena, out, err);
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "k-means");
    Clusters best;
    int status = best_clusters(order, (size_t)k, &best, scratch, err);
    if (!status) {
        for (size_t j = 0, i = 0; j < best.k; j++)
            for (; i < best.end[j]; i++)
                if (order->index[i] != KMEANS_ZEROS)
                    out->symbol[order->index[i]] = (uint16_t)j;
        if (order->zeros > 0)
            kmeans_place_zeros(in, (uint16_t)best.zero, out->symbol);
        status = quantize_fit(in, order->relative, scope, order->weighted, (int)best.k,
                              best.zero == SIZE_MAX ? -1 : (int)best.zero, arena, out, err);
    }
    arena_destroy(scratch);
    return status;
}
