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

/* From the centres in e to where the cost settles; the last step is an assignment. */
static double iterate(Ecsq *e, size_t k, bool has_zero)
{
    ecsq_start(e, k, has_zero);
    ecsq_assign(e); /* nearest: shares are not known yet */
    ecsq_update(e);
    double cost = ecsq_assign(e);
    for (int i = 0; i < MAX_ITERATIONS; i++) {
        double before = cost;
        ecsq_update(e);
        cost = ecsq_assign(e);
        if (!(before - cost > SETTLED * before))
            break;
    }
    return cost;
}

/* The symbols of the cheapest of several starts; *zero is its cluster at 0, or -1. */
static int best_clusters(const QuantizeInput *in, const KMeansOrder *order, double lambda,
                         size_t levels, uint16_t *symbol, int *zero, Arena *scratch, Error *err)
{
    static const KMeansSeeding seeding[] = {kmeans_seed_uniform, kmeans_seed_density,
                                            kmeans_seed_quantiles};
    Ecsq e;
    double least = INFINITY;
    int status = ecsq_create(in, order, lambda, levels, scratch, &e, err);
    for (size_t s = 0; s < sizeof seeding / sizeof *seeding && !status; s++) {
        size_t made;
        status = seeding[s](order, levels, e.centre, &made, scratch, err);
        if (status || made == 0)
            continue;
        double cost = iterate(&e, made, order->has_zero);
        if (s > 0 && !(cost < least))
            continue;
        least = cost;
        for (size_t i = 0; i < e.n; i++)
            symbol[e.index[i]] = e.cluster[i];
        *zero = e.zero == SIZE_MAX ? -1 : (int)e.zero;
    }
    return status;
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
    KMeansOrder *order;
    int status = quantize_kmeans_order(in, steps, weighted, &order, err), cells = 1, zero = -1;
    if (status)
        return status;
    *out = (Quantized){.symbol = arena_array(arena, order->n, sizeof *out->symbol)};
    Arena *scratch = arena_create();
    if (!out->symbol || !scratch)
        status = error_memory(err, "entropy-constrained quantization");
    if (!status && order->n > 0)
        status = best_clusters(in, order, lambda, (size_t)initial_levels, out->symbol, &zero,
                               scratch, err);
    if (!status && order->n > 0)
        status = drop_empty(out->symbol, order->n, &zero, scratch, err, &cells);
    if (!status)
        status = quantize_fit(in, steps, scope, weighted, cells, zero, arena, out, err);
    arena_destroy(scratch);
    quantize_kmeans_order_free(order);
    return status;
}
