/* SPDX-License-Identifier: Apache-2.0
 *
 * Entropy-constrained quantization of a sample, and the way back to all values. */
#include "quantize/ecsq_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where in a group of n ascending values the next is picked: from the middle of the first stride, so
 * that neither side is favoured. SIZE_MAX: no more. */
static size_t next_pick(size_t n, size_t stride, size_t picked)
{
    size_t first = stride < n ? stride / 2 : n / 2;
    if (picked > (n - 1) / stride)
        return SIZE_MAX;
    return picked * stride < n - first ? first + picked * stride : n - 1;
}

static size_t group_of(const Ecsq *all, const KMeansOrder *order, size_t i)
{
    return ecsq_group_of(all, kmeans_weight(order, i));
}

/* Group after group, ascending in each; zeros are no values. Returns how many. */
static size_t pick(const Ecsq *all, const KMeansOrder *order, size_t stride, float *x, float *g)
{
    size_t n[ECSQ_GROUPS] = {0}, seen[ECSQ_GROUPS] = {0}, picked[ECSQ_GROUPS] = {0};
    size_t start[ECSQ_GROUPS + 1] = {0};
    for (size_t i = 0; i < order->n; i++)
        if (order->x[i] != 0)
            n[group_of(all, order, i)]++;
    for (size_t group = 0; group < ECSQ_GROUPS; group++)
        start[group + 1] = start[group] + (n[group] + stride - 1) / stride;
    for (size_t i = 0; i < order->n; i++) {
        if (order->x[i] == 0)
            continue;
        size_t group = group_of(all, order, i);
        if (seen[group]++ == next_pick(n[group], stride, picked[group])) {
            size_t to = start[group] + picked[group]++;
            x[to] = order->x[i];
            g[to] = order->weight[i];
        }
    }
    return start[ECSQ_GROUPS];
}

int ecsq_sample(const Ecsq *all, const KMeansOrder *order, size_t stride, size_t levels,
                Arena *arena, Ecsq *sample, Error *err)
{
    size_t most = all->n / stride + ECSQ_GROUPS;
    size_t *offset = arena_array(arena, 2, sizeof *offset);
    float *x = arena_array(arena, most, sizeof *x), *g = arena_array(arena, most, sizeof *g);
    uint16_t *cluster = arena_array(arena, most, sizeof *cluster);
    if (!offset || !x || !g || !cluster)
        return error_memory(err, "entropy-constrained quantization");
    offset[1] = pick(all, order, stride, x, g);
    QuantizeInput few = {1, offset, x, g};
    int status = ecsq_create(&few, NULL, true, all->lambda, levels, arena, sample, err);
    sample->zeros = (all->zeros + stride - 1) / stride;
    sample->cluster = cluster;
    return status;
}

void ecsq_copy(const Ecsq *from, Ecsq *to)
{
    to->k = from->k;
    to->zero = from->zero;
    memcpy(to->centre, from->centre, from->k * sizeof *to->centre);
    memcpy(to->rate, from->rate, from->k * sizeof *to->rate);
}

/* A centre, and how far it is from the nearest that the sample kept. */
typedef struct {
    double centre, rate, distance;
} Start;

static int by_distance(const void *a, const void *b)
{
    const Start *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance > y->distance ? -1 : 1;
    return (x->centre > y->centre) - (x->centre < y->centre);
}

static int by_centre(const void *a, const void *b)
{
    const Start *x = a, *y = b;
    if (x->centre != y->centre)
        return x->centre < y->centre ? -1 : 1;
    return (x->rate > y->rate) - (x->rate < y->rate);
}

static double nearest_distance(const Ecsq *sample, double x)
{
    double least = INFINITY;
    size_t from = 0, to = sample->k;
    while (from < to) { /* the first centre at x or above */
        size_t middle = from + (to - from) / 2;
        if (sample->centre[middle] < x)
            from = middle + 1;
        else
            to = middle;
    }
    if (from < sample->k)
        least = sample->centre[from] - x;
    return from > 0 ? fmin(least, x - sample->centre[from - 1]) : least;
}

int ecsq_resume(Ecsq *e, const Ecsq *sample, const double *seed, size_t seeds, bool has_zero,
                Error *err)
{
    Start *start = malloc((sample->k + seeds + 1) * sizeof *start), *lost;
    if (!start)
        return error_memory(err, "entropy-constrained quantization");
    double rare = e->lambda * log2((double)(e->n + e->zeros)) + 0.0;
    size_t n = sample->k;
    for (size_t j = 0; j < n; j++)
        start[j] = (Start){sample->centre[j], sample->rate[j], 0};
    lost = start + n;
    for (size_t j = 0; j < seeds; j++) {
        bool zero = has_zero && sample->zero == SIZE_MAX && seed[j] == 0;
        lost[j] = (Start){seed[j], rare, zero ? INFINITY : nearest_distance(sample, seed[j])};
    }
    qsort(lost, seeds, sizeof *lost, by_distance);
    if (seeds > n) /* with the sample's as many as there were */
        n = seeds;
    qsort(start, n, sizeof *start, by_centre);
    e->k = 0;
    e->zero = SIZE_MAX;
    for (size_t j = 0; j < n; j++) {
        if (e->k > 0 && e->centre[e->k - 1] == start[j].centre)
            continue;
        e->centre[e->k] = start[j].centre;
        e->rate[e->k] = start[j].rate;
        if (has_zero && start[j].centre == 0)
            e->zero = e->k;
        e->k++;
    }
    free(start);
    return ONNXPRESS_OK;
}
