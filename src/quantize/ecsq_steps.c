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

int ecsq_allocate(size_t levels, Arena *arena, Ecsq *e, Error *err)
{
    e->centre = arena_array(arena, levels, sizeof *e->centre);
    e->rate = arena_array(arena, levels, sizeof *e->rate);
    e->above = arena_array(arena, levels, sizeof *e->above);
    e->below = arena_array(arena, levels, sizeof *e->below);
    e->count = arena_array(arena, levels, sizeof *e->count);
    return e->centre && e->rate && e->above && e->below && e->count
               ? ONNXPRESS_OK
               : error_memory(err, "entropy-constrained quantization");
}

float ecsq_value(const Ecsq *e, size_t t, size_t i)
{
    return e->relative ? e->in.w[i] / e->relative[t] : e->in.w[i];
}

double ecsq_weight(const Ecsq *e, size_t t, size_t i)
{
    if (!e->weighted)
        return 1;
    double r = e->relative ? (double)e->relative[t] : 1;
    return (double)e->in.h[i] * r * r;
}

size_t ecsq_group_of(const Ecsq *e, double g)
{
    int exponent;
    if (!(g > 0))
        return ECSQ_GROUPS - 1;
    frexp(g, &exponent);
    int group = e->top - exponent < 0 ? 0 : e->top - exponent; /* a rounded one may be above all */
    return group < ECSQ_GROUPS ? (size_t)group : ECSQ_GROUPS - 1;
}

static void find_groups(Ecsq *e)
{
    const QuantizeInput *in = &e->in;
    double most = 0;
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            e->zeros += in->w[i] == 0;
            if (in->w[i] != 0)
                most = fmax(most, ecsq_weight(e, t, i));
        }
    e->weighted = e->weighted && most > 0; /* as k-means: any order is as good */
    frexp(e->weighted ? most : 1, &e->top);
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            if (in->w[i] == 0)
                continue;
            double g = ecsq_weight(e, t, i);
            EcsqGroup *group = &e->group[ecsq_group_of(e, g)];
            group->n++;
            group->most = fmax(group->most, g);
        }
}

int ecsq_create(const QuantizeInput *in, const float *relative, bool weighted, double lambda,
                size_t levels, Arena *arena, Ecsq *e, Error *err)
{
    *e = (Ecsq){.in = *in,
                .relative = relative,
                .weighted = weighted && in->h,
                .lambda = lambda,
                .zero = SIZE_MAX};
    int status = ecsq_allocate(levels, arena, e, err);
    find_groups(e);
    for (size_t group = 0; group < ECSQ_GROUPS && !status; group++) {
        EcsqGroup *own = &e->group[group];
        e->n += own->n;
        if (own->n > 0 && !(own->candidate = arena_array(arena, levels, sizeof *own->candidate)))
            status = error_memory(err, "entropy-constrained quantization");
    }
    return status;
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

static void find_candidates(const Ecsq *e, EcsqGroup *group)
{
    EcsqCandidate *candidate = group->candidate;
    size_t kept = 0;
    for (size_t j = 0; j < e->k; j++) {
        EcsqCandidate next = {.centre = e->centre[j], .rate = e->rate[j], .cluster = (uint32_t)j};
        while (kept > 1 &&
               is_above(&candidate[kept - 2], &candidate[kept - 1], &next, group->most))
            kept--;
        candidate[kept++] = next;
    }
    double least = INFINITY;
    for (size_t j = 0; j < kept; j++)
        candidate[j].least_below = least = fmin(least, candidate[j].rate);
    least = INFINITY;
    for (size_t j = kept; j-- > 0;)
        candidate[j].least_above = least = fmin(least, candidate[j].rate);
    for (size_t j = 0; j + 1 < kept; j++)
        candidate[j].upto = 0.5 * candidate[j].centre + 0.5 * candidate[j + 1].centre;
    group->candidates = kept;
    group->nearest = 0;
}

/* The lower of two that are as near: mostly the last one's, where values ascend. */
static size_t nearest_candidate(const EcsqGroup *group, size_t last, double x)
{
    const EcsqCandidate *first = group->candidate;
    if ((last == 0 || x > first[last - 1].upto) &&
        (last + 1 == group->candidates || !(x > first[last].upto)))
        return last;
    for (size_t n = group->candidates; n > 1; n -= n / 2)
        first += x > first[n / 2 - 1].upto ? n / 2 : 0;
    return (size_t)(first - group->candidate);
}

static double distance(const EcsqCandidate *candidate, double x, double g)
{
    double difference = x - candidate->centre;
    return g * difference * difference;
}

/* The cheapest candidate, from the nearest outwards until even the least rate left is too dear. */
static double cheapest(EcsqGroup *group, double x, double g, size_t *found)
{
    const EcsqCandidate *candidate = group->candidate;
    size_t n = group->candidates, nearest = nearest_candidate(group, group->nearest, x);
    double best = distance(&candidate[nearest], x, g) + candidate[nearest].rate;
    *found = group->nearest = nearest;
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

double ecsq_assign(Ecsq *e)
{
    const QuantizeInput *in = &e->in;
    double cost = e->zeros > 0 ? (double)e->zeros * e->rate[e->zero] : 0;
    for (size_t group = 0; group < ECSQ_GROUPS; group++)
        if (e->group[group].n > 0)
            find_candidates(e, &e->group[group]);
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            double x = (double)ecsq_value(e, t, i);
            if (x == 0 && e->zero != SIZE_MAX) {
                e->cluster[i] = (uint16_t)e->zero;
                cost += in->w[i] != 0 ? e->rate[e->zero] : 0; /* the others are counted above */
                continue;
            }
            size_t found;
            double g = ecsq_weight(e, t, i);
            EcsqGroup *group = &e->group[ecsq_group_of(e, g)];
            cost += cheapest(group, x, g, &found);
            e->cluster[i] = (uint16_t)group->candidate[found].cluster;
        }
    return cost;
}

/* ---- centres ---- */

/* Those of clusters whose members weigh nothing: plain means. */
static void plain_means(Ecsq *e)
{
    const QuantizeInput *in = &e->in;
    for (size_t j = 0; j < e->k; j++)
        if (!(e->below[j] > 0))
            e->above[j] = 0;
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            if (!(e->below[e->cluster[i]] > 0))
                e->above[e->cluster[i]] += (double)ecsq_value(e, t, i);
    for (size_t j = 0; j < e->k; j++)
        if (!(e->below[j] > 0) && e->count[j] > 0)
            e->centre[j] = e->above[j] / (double)e->count[j];
}

static void find_means(Ecsq *e)
{
    const QuantizeInput *in = &e->in;
    bool all = true;
    for (size_t j = 0; j < e->k; j++) {
        e->above[j] = e->below[j] = 0;
        e->count[j] = 0;
    }
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            if (in->w[i] == 0)
                continue;
            size_t j = e->cluster[i];
            double g = ecsq_weight(e, t, i);
            e->count[j]++;
            e->below[j] += g;
            e->above[j] += g * (double)ecsq_value(e, t, i);
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
