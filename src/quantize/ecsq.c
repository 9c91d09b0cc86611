/* SPDX-License-Identifier: Apache-2.0
 *
 * Entropy-constrained scalar quantization: clusters and their centres and rates in turns, from
 * several starts, of which the cheapest result is taken. */
#include "quantize/ecsq_internal.h"
#include "quantize/quantize_internal.h"

#include <math.h>
#include <string.h>

/* A turn that gains less than this part of the cost is the last: some 0.1 % above where the cost
 * would end, in half of the time (LeNet-5). */
#define SETTLED 1e-4
#define MAX_ITERATIONS 200
/* Values on which starts are tried. */
#define SAMPLE ((size_t)1 << 15)

/* From the last assignment, of that cost, to where the cost settles; the last step is an assignment. */
static double settle(Ecsq *e, double cost)
{
    for (int i = 0; i < MAX_ITERATIONS; i++) {
        double before = cost;
        ecsq_update(e);
        cost = ecsq_assign(e);
        if (!(before - cost > SETTLED * before))
            break;
    }
    return cost;
}

/* Settles a sample from each start; the cheapest result's clusters are left in `best`, their start
 * in seed[*seeds]. */
static int try_starts(const KMeansOrder *order, size_t levels, Ecsq *sample, Ecsq *best,
                      double *seed, size_t *seeds, Arena *scratch, Error *err)
{
    static const KMeansSeeding seeding[] = {kmeans_seed_uniform, kmeans_seed_density,
                                            kmeans_seed_quantiles};
    double least = INFINITY;
    *seeds = 0;
    for (size_t s = 0; s < sizeof seeding / sizeof *seeding; s++) {
        size_t made;
        int status = seeding[s](order, levels, sample->centre, &made, scratch, err);
        if (status)
            return status;
        if (made == 0)
            continue;
        double *start = arena_array(scratch, made, sizeof *start);
        if (!start)
            return error_memory(err, "entropy-constrained quantization");
        ecsq_start(sample, made, order->zeros > 0);
        memcpy(start, sample->centre, made * sizeof *start);
        ecsq_assign(sample); /* nearest: shares are not known yet */
        ecsq_update(sample);
        double cost = settle(sample, ecsq_assign(sample));
        if (*seeds > 0 && !(cost < least))
            continue;
        least = cost;
        ecsq_copy(sample, best);
        memcpy(seed, start, made * sizeof *seed);
        *seeds = made;
    }
    return ONNXPRESS_OK;
}

/* Of all values in their order and groups, each with its cluster, and of every so manieth of them: this
 * is where the turns are taken. A sample finds where the clusters are, all values then settle in a few
 * turns; the clusters are left in `all`. */
static int settle_values(Ecsq *all, size_t levels, Arena *scratch, Error *err)
{
    Ecsq values, sample, best = {0};
    KMeansOrder order;
    size_t seeds = 0;
    double *seed = arena_array(scratch, levels, sizeof *seed);
    int status = kmeans_order(&all->in, all->relative, all->weighted, &order, err);
    size_t stride = order.n / SAMPLE > 1 ? order.n / SAMPLE : 1;
    if (!status && !seed)
        status = error_memory(err, "entropy-constrained quantization");
    if (!status)
        status = ecsq_sample(all, &order, 1, levels, scratch, &values, err);
    if (!status)
        status = ecsq_sample(all, &order, stride, levels, scratch, &sample, err);
    if (!status)
        status = ecsq_allocate(levels, scratch, &best, err);
    if (!status)
        status = try_starts(&order, levels, &sample, &best, seed, &seeds, scratch, err);
    kmeans_order_free(&order);
    if (!status)
        status = ecsq_resume(&values, &best, seed, seeds, all->zeros > 0, err);
    if (!status) {
        settle(&values, ecsq_assign(&values));
        ecsq_copy(&values, all);
    }
    return status;
}

/* The symbols of the cheapest of several starts; *zero is its cluster at 0, or -1. */
static int best_clusters(const QuantizeInput *in, const float *relative, bool weighted,
                         double lambda, size_t levels, Arena *arena, uint16_t **symbol, int *zero,
                         Arena *scratch, Error *err)
{
    Ecsq all;
    int status = ecsq_create(in, relative, weighted, lambda, levels, scratch, &all, err);
    Arena *values = arena_create(); /* no longer there when the symbols are */
    if (!status && !values)
        status = error_memory(err, "entropy-constrained quantization");
    if (!status)
        status = settle_values(&all, levels, values, err);
    arena_destroy(values);
    if (status)
        return status;
    *symbol = all.cluster = arena_array(arena, in->offset[in->n_tensors], sizeof *all.cluster);
    if (!all.cluster)
        return error_memory(err, "entropy-constrained quantization");
    ecsq_assign(&all);
    *zero = all.zero == SIZE_MAX ? -1 : (int)all.zero;
    return ONNXPRESS_OK;
}

/* Numbers the clusters that have members 0, 1, …; returns how many. */
static int drop_empty(uint16_t *symbol, size_t n, int *zero, Arena *scratch, Error *err, int *cells)
{
    uint32_t *number = arena_array(scratch, QUANTIZE_MAX_LEVELS + 1, sizeof *number); /* + 1 */
    if (!number)
        return error_memory(err, "entropy-constrained quantization");
    uint32_t made = 0;
    for (size_t i = 0; i < n; i++) {
        if (number[symbol[i]] == 0)
            number[symbol[i]] = ++made;
    }
    if (*zero >= 0)
        *zero = (int)number[*zero] - 1;
    for (size_t i = 0; i < n; i++)
        symbol[i] = (uint16_t)(number[symbol[i]] - 1);
    *cells = (int)made;
    return ONNXPRESS_OK;
}

int quantize_ecsq(const QuantizeInput *in, const float *relative, double lambda, int initial_levels,
                  QuantizeScope scope, bool weighted, Arena *arena, Quantized *out, Error *err)
{
    if (!(lambda >= 0) || !isfinite(lambda))
        return error_set(err, ONNXPRESS_USAGE,
                         "entropy-constrained quantization: lambda is %g; it must be 0 or more",
                         lambda);
    if (initial_levels < 1)
        return error_set(err, ONNXPRESS_USAGE,
                         "entropy-constrained quantization: %d levels; at least 1 is needed",
                         initial_levels);
    if (initial_levels > QUANTIZE_MAX_LEVELS)
        return error_set(err, ONNXPRESS_GOAL,
                         "entropy-constrained quantization: %d levels are more than %d",
                         initial_levels, QUANTIZE_MAX_LEVELS);
    const float *steps = scope == QUANTIZE_SCOPE_TENSOR ? relative : NULL;
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    int status = ONNXPRESS_OK, cells = 1, zero = -1;
    *out = (Quantized){0};
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "entropy-constrained quantization");
    if (n > 0) {
        status = best_clusters(in, steps, weighted, lambda, (size_t)initial_levels, arena,
                               &out->symbol, &zero, scratch, err);
        if (!status)
            status = drop_empty(out->symbol, n, &zero, scratch, err, &cells);
    }
    arena_destroy(scratch);
    if (!status)
        status = quantize_fit(in, steps, scope, weighted, cells, zero, arena, out, err);
    return status;
}
