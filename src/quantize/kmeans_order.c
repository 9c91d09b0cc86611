/* SPDX-License-Identifier: Apache-2.0
 *
 * What k-means needs of the weights, made once for any k: values in ascending order and prefix
 * sums.
 */
#include "quantize/kmeans_internal.h"

#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)

typedef struct {
    uint32_t key, index;
} Keyed;

/* Floats as unsigned numbers that sort alike: all bits of negative ones turned, the sign bit of
 * others. */
static uint32_t key_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float value_of(uint32_t key)
{
    uint32_t bits = key & 0x80000000u ? key & 0x7FFFFFFFu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Three passes of 11 bits, stable; the result is in spare. */
static void sort_keys(Keyed *keyed, Keyed *spare, size_t n)
{
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        size_t start[DIGITS + 1] = {0};
        for (size_t i = 0; i < n; i++)
            start[(keyed[i].key >> shift & (DIGITS - 1)) + 1]++;
        for (size_t d = 0; d < DIGITS; d++)
            start[d + 1] += start[d];
        for (size_t i = 0; i < n; i++)
            spare[start[keyed[i].key >> shift & (DIGITS - 1)]++] = keyed[i];
        Keyed *swap = keyed;
        keyed = spare;
        spare = swap;
    }
}

double kmeans_weight(const QuantizeInput *in, const KMeansOrder *order, size_t i)
{
    size_t low = 0, high = in->n_tensors;
    if (!order->weighted || !in->h)
        return 1;
    while (order->relative && high - low > 1) { /* the element's tensor */
        size_t middle = low + (high - low) / 2;
        if (in->offset[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    double r = order->relative ? (double)order->relative[low] : 1;
    return (double)in->h[i] * r * r;
}

/* Exact zeros are one value, without an index: most of a pruned network is neither sorted nor held. */
static int sort_values(const QuantizeInput *in, KMeansOrder *order, Error *err)
{
    Arena *scratch = arena_create();
    Keyed *keyed = scratch ? arena_array(scratch, order->n, sizeof *keyed) : NULL;
    Keyed *sorted = scratch ? arena_array(scratch, order->n, sizeof *sorted) : NULL;
    if (!keyed || !sorted) {
        arena_destroy(scratch);
        return error_memory(err, "the order of the weights");
    }
    size_t n = 0;
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            if (in->w[i] != 0) {
                float x = order->relative ? in->w[i] / order->relative[t] : in->w[i];
                keyed[n++] = (Keyed){key_of(x + 0.0f), (uint32_t)i}; /* -0 becomes 0 */
            }
    if (order->zeros > 0)
        keyed[n] = (Keyed){key_of(0), KMEANS_ZEROS};
    sort_keys(keyed, sorted, order->n);
    order->x = arena_array(order->arena, order->n, sizeof *order->x);
    order->index = arena_array(order->arena, order->n, sizeof *order->index);
    if (!order->x || !order->index) {
        arena_destroy(scratch);
        return error_memory(err, "the order of the weights");
    }
    for (size_t i = 0; i < order->n; i++) {
        order->x[i] = value_of(sorted[i].key);
        order->index[i] = sorted[i].index;
    }
    arena_destroy(scratch);
    return ONNXPRESS_OK;
}

/* Weights h * relative^2 in units of w / relative. Where they are all zero, ones: some order is
 * needed, and any is as good. */
static int sum_prefixes(const QuantizeInput *in, KMeansOrder *order, Error *err)
{
    order->g = arena_array(order->arena, order->n + 1, sizeof *order->g);
    order->gx = arena_array(order->arena, order->n + 1, sizeof *order->gx);
    if (!order->g || !order->gx)
        return error_memory(err, "the order of the weights");
    double total = 0, zeros = 0;
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    for (size_t i = 0; i < n; i++) {
        double weight = kmeans_weight(in, order, i);
        total += weight;
        zeros += in->w[i] == 0 ? weight : 0;
    }
    for (size_t i = 0; i < order->n; i++) {
        bool zero = order->index[i] == KMEANS_ZEROS;
        double g = zero ? zeros : kmeans_weight(in, order, zero ? 0 : order->index[i]);
        if (!(total > 0))
            g = zero ? (double)order->zeros : 1;
        order->gx[i + 1] = order->gx[i] + g * (double)order->x[i];
        order->g[i + 1] = order->g[i] + g;
    }
    return ONNXPRESS_OK;
}

int quantize_kmeans_order(const QuantizeInput *in, const float *relative, bool weighted,
                          KMeansOrder **result, Error *err)
{
    *result = NULL;
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    if (n >= KMEANS_ZEROS)
        return error_set(err, ONNXPRESS_MEMORY, "k-means: %zu weights are more than %lu", n,
                         (unsigned long)KMEANS_ZEROS - 1);
    Arena *arena = arena_create();
    KMeansOrder *order = arena ? arena_array(arena, 1, sizeof *order) : NULL;
    if (!order) {
        arena_destroy(arena);
        return error_memory(err, "the order of the weights");
    }
    *order = (KMeansOrder){.arena = arena, .weighted = weighted};
    for (size_t i = 0; i < n; i++)
        order->zeros += in->w[i] == 0;
    order->n = n - order->zeros + (order->zeros > 0);
    float *steps = relative ? arena_array(arena, in->n_tensors, sizeof *steps) : NULL;
    int status = relative && !steps ? error_memory(err, "the order of the weights") : ONNXPRESS_OK;
    if (steps)
        memcpy(steps, relative, in->n_tensors * sizeof *steps);
    order->relative = steps;
    if (!status)
        status = sort_values(in, order, err);
    if (!status)
        status = sum_prefixes(in, order, err);
    if (status) {
        arena_destroy(arena);
        return status;
    }
    *result = order;
    return ONNXPRESS_OK;
}

void quantize_kmeans_order_free(KMeansOrder *order)
{
    if (order)
        arena_destroy(order->arena);
}
