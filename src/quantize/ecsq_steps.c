/* SPDX-License-Identifier: Apache-2.0
 *
 * The two steps of entropy-constrained quantization.
 *
 * As functions of x the costs g (x - c)^2 + rate of all centres differ by straight lines, so those
 * that win somewhere are the lower hull of the points (c, g c^2 + rate). A centre above a chord of
 * that hull stays above it for every smaller g: the hull of a group's largest weight has all that
 * can win in the group, and few more, among which a search from the nearest soon ends. */
#include "quantize/ecsq_internal.h"

#include <math.h>
#include <string.h>

int ecsq_allocate(Ecsq *e, size_t levels, Arena *arena, Error *err)
{
    e->x = arena_array(arena, e->n, sizeof *e->x);
    e->g = arena_array(arena, e->n, sizeof *e->g);
    e->index = arena_array(arena, e->n, sizeof *e->index);
    e->cluster = arena_array(arena, e->n, sizeof *e->cluster);
    e->centre = arena_array(arena, levels, sizeof *e->centre);
    e->rate = arena_array(arena, levels, sizeof *e->rate);
    e->above = arena_array(arena, levels, sizeof *e->above);
    e->below = arena_array(arena, levels, sizeof *e->below);
    e->count = arena_array(arena, levels, sizeof *e->count);
    e->candidate = arena_array(arena, levels, sizeof *e->candidate);
    if (!e->x || !e->g || !e->index || !e->cluster || !e->centre || !e->rate || !e->above ||
        !e->below || !e->count || !e->candidate)
        return error_memory(err, "entropy-constrained quantization");
    return ONNXPRESS_OK;
}

static size_t group_of(double g, int top)
{
    int exponent;
    if (!(g > 0))
        return ECSQ_GROUPS - 1;
    frexp(g, &exponent);
    int group = top - exponent;
    return group < ECSQ_GROUPS ? (size_t)group : ECSQ_GROUPS - 1;
}

int ecsq_create(const QuantizeInput *in, const KMeansOrder *order, double lambda, size_t levels,
                Arena *arena, Ecsq *e, Error *err)
{
    *e = (Ecsq){.n = order->n - (order->zeros > 0),
                .zeros = order->zeros,
                .lambda = lambda,
                .zero = SIZE_MAX};
    int status = ecsq_allocate(e, levels, arena, err);
    if (status)
        return status;
    double most = 0;
    int top;
    for (size_t i = 0; i < order->n; i++)
        if (order->index[i] != KMEANS_ZEROS)
            most = fmax(most, kmeans_weight(in, order, order->index[i]));
    bool weighted = most > 0; /* else, as k-means: any order is as good */
    frexp(weighted ? most : 1, &top);
    for (size_t i = 0; i < order->n; i++)
        if (order->index[i] != KMEANS_ZEROS)
            e->start[group_of(weighted ? kmeans_weight(in, order, order->index[i]) : 1, top) + 1]++;
    for (size_t group = 0; group < ECSQ_GROUPS; group++)
        e->start[group + 1] += e->start[group];
    size_t next[ECSQ_GROUPS];
    memcpy(next, e->start, sizeof next);
    for (size_t i = 0; i < order->n; i++) {
        if (order->index[i] == KMEANS_ZEROS)
            continue;
        double g = weighted ? kmeans_weight(in, order, order->index[i]) : 1;
        size_t at = next[group_of(g, top)]++;
        e->x[at] = order->x[i];
        e->g[at] = g;
        e->index[at] = order->index[i];
    }
    return ONNXPRESS_OK;
}

void ecsq_start(Ecsq *e, size_t k, bool has_zero)
{
    e->k = k;
    e->zero = has_zero ? 0 : SIZE_MAX;
    for (size_t j = 0; j < k; j++) {
        e->rate[j] = 0;
        if (has_zero && fabs(e->centre[j]) < fabs(e->centre[e->zero]))
            e->zero = j;
    }
    if (has_zero)
        e->centre[e->zero] = 0;
}

/* Whether b lies above the chord from a to c by more than rounding could make of it. */
static bool is_above(const EcsqCandidate *a, const EcsqCandidate *b, const EcsqCandidate *c,
                     double g)
{
    const double rounding = 1e-12; /* of the terms' size */
    double left = b->centre - a->centre, right = c->centre - b->centre;
    /* b's cost less the chord's, times the chord's length: g drops out but for the curvature. */
    double rise = (b->rate - a->rate) * right + (b->rate - c->rate) * left;
    double bend = g * left * right * (left + right);
    return rise - bend > rounding * (fabs(rise) + fabs(bend));
}

static size_t find_candidates(Ecsq *e, double g)
{
    size_t kept = 0;
    for (size_t j = 0; j < e->k; j++) {
        EcsqCandidate next = {.centre = e->centre[j], .rate = e->rate[j], .cluster = (uint32_t)j};
        while (kept > 1 && is_above(&e->candidate[kept - 2], &e->candidate[kept - 1], &next, g))
            kept--;
        e->candidate[kept++] = next;
    }
    double least = INFINITY;
    for (size_t j = 0; j < kept; j++)
        e->candidate[j].least_below = least = fmin(least, e->candidate[j].rate);
    least = INFINITY;
    for (size_t j = kept; j-- > 0;)
        e->candidate[j].least_above = least = fmin(least, e->candidate[j].rate);
    return kept;
}

static double distance(const EcsqCandidate *candidate, double x, double g)
{
    double difference = x - candidate->centre;
    return g * difference * difference;
}

/* The cheapest candidate, from the nearest outwards until even the least rate left is too dear. */
static double cheapest(const EcsqCandidate *candidate, size_t n, size_t nearest, double x, double g,
                       size_t *found)
{
    double best = distance(&candidate[nearest], x, g) + candidate[nearest].rate;
    *found = nearest;
    for (size_t j = nearest + 1; j < n; j++) {
        double d = distance(&candidate[j], x, g);
        if (d + candidate[j].least_above >= best)
            break;
        if (d + candidate[j].rate < best) {
            best = d + candidate[j].rate;
            *found = j;
        }
    }
    for (size_t j = nearest; j-- > 0;) {
        double d = distance(&candidate[j], x, g);
        if (d + candidate[j].least_below >= best)
            break;
        if (d + candidate[j].rate < best) {
            best = d + candidate[j].rate;
            *found = j;
        }
    }
    return best;
}

static double assign_group(Ecsq *e, size_t from, size_t to)
{
    const EcsqCandidate *candidate = e->candidate;
    double most = 0, sum = 0;
    for (size_t i = from; i < to; i++)
        most = fmax(most, e->g[i]);
    size_t n = find_candidates(e, most), nearest = 0, found;
    for (size_t i = from; i < to; i++) {
        double x = (double)e->x[i];
        if (x == 0 && e->zero != SIZE_MAX) {
            e->cluster[i] = (uint16_t)e->zero;
            sum += e->rate[e->zero];
            continue;
        }
        while (nearest + 1 < n &&
               x > 0.5 * candidate[nearest].centre + 0.5 * candidate[nearest + 1].centre)
            nearest++;
        sum += cheapest(candidate, n, nearest, x, e->g[i], &found);
        e->cluster[i] = (uint16_t)candidate[found].cluster;
    }
    return sum;
}

double ecsq_assign(Ecsq *e)
{
    double cost = e->zeros > 0 ? (double)e->zeros * e->rate[e->zero] : 0;
    for (size_t group = 0; group < ECSQ_GROUPS; group++)
        if (e->start[group] < e->start[group + 1])
            cost += assign_group(e, e->start[group], e->start[group + 1]);
    return cost;
}

/* ---- centres ---- */

/* Those of clusters whose members weigh nothing: plain means. */
static void plain_means(Ecsq *e)
{
    for (size_t j = 0; j < e->k; j++)
        if (!(e->below[j] > 0))
            e->above[j] = 0;
    for (size_t i = 0; i < e->n; i++)
        if (!(e->below[e->cluster[i]] > 0))
            e->above[e->cluster[i]] += (double)e->x[i];
    for (size_t j = 0; j < e->k; j++)
        if (!(e->below[j] > 0) && e->count[j] > 0)
            e->centre[j] = e->above[j] / (double)e->count[j];
}

static void find_means(Ecsq *e)
{
    bool all = true;
    for (size_t j = 0; j < e->k; j++) {
        e->above[j] = e->below[j] = 0;
        e->count[j] = 0;
    }
    for (size_t i = 0; i < e->n; i++) {
        size_t j = e->cluster[i];
        e->count[j]++;
        e->below[j] += e->g[i];
        e->above[j] += e->g[i] * (double)e->x[i];
    }
    for (size_t j = 0; j < e->k; j++) {
        if (e->below[j] > 0)
            e->centre[j] = e->above[j] / e->below[j];
        else
            all &= e->count[j] == 0;
    }
    if (!all)
        plain_means(e);
    if (e->zero != SIZE_MAX) {
        e->centre[e->zero] = 0;
        e->count[e->zero] += e->zeros;
    }
}

/* Values of unlike weight may share a cluster across another, so that means pass each other; they
 * are nearly sorted still. */
static void sort_clusters(Ecsq *e)
{
    for (size_t j = 1; j < e->k; j++) {
        double centre = e->centre[j];
        size_t count = e->count[j], to = j, zero = e->zero;
        for (; to > 0 && e->centre[to - 1] > centre; to--) {
            e->centre[to] = e->centre[to - 1];
            e->count[to] = e->count[to - 1];
            if (zero == to - 1)
                e->zero = to;
        }
        e->centre[to] = centre;
        e->count[to] = count;
        if (zero == j)
            e->zero = to;
    }
}

void ecsq_update(Ecsq *e)
{
    find_means(e);
    size_t kept = 0, zero = SIZE_MAX;
    for (size_t j = 0; j < e->k; j++) { /* the empty ones' centres mean nothing */
        if (e->count[j] == 0)
            continue;
        if (j == e->zero)
            zero = kept;
        e->centre[kept] = e->centre[j];
        e->count[kept++] = e->count[j];
    }
    e->k = kept;
    e->zero = zero;
    sort_clusters(e);
    kept = 0;
    zero = SIZE_MAX;
    for (size_t j = 0; j < e->k; j++) {
        if (kept > 0 && e->centre[kept - 1] == e->centre[j]) {
            e->count[kept - 1] += e->count[j];
        } else {
            e->centre[kept] = e->centre[j];
            e->count[kept++] = e->count[j];
        }
        if (j == e->zero)
            zero = kept - 1;
    }
    e->k = kept;
    e->zero = zero;
    for (size_t j = 0; j < e->k; j++)
        e->rate[j] = -e->lambda * log2((double)e->count[j] / (double)(e->n + e->zeros)) + 0.0;
}
