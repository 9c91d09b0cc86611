/* SPDX-License-Identifier: Apache-2.0
 *
 * What k-means needs of the weights, made once for any k: values in ascending order, and sums of
 * their weights up to every so many of them, from which those in between are counted on.
 */
#include "quantize/kmeans_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIGIT_BITS 11
#define DIGITS (1u << DIGIT_BITS)
#define ZEROS UINT32_MAX /* the index of all exact zeros */

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

static size_t highest_digit(uint32_t key)
{
    return key >> 2 * DIGIT_BITS; /* 10 bits */
}

static float value_of(uint32_t key)
{
    uint32_t bits = key & 0x80000000u ? key & 0x7FFFFFFFu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What is sorted: -0 becomes 0. */
static Keyed keyed_of(const QuantizeInput *in, const float *relative, size_t t, size_t i)
{
    float x = relative ? in->w[i] / relative[t] : in->w[i];
    return (Keyed){key_of(x + 0.0f), (uint32_t)i};
}

/* The tensor of element i. */
static size_t tensor_of(const QuantizeInput *in, size_t i)
{
    size_t low = 0, high = in->n_tensors;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (in->offset[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static double weight_of(const QuantizeInput *in, const float *relative, size_t t, size_t i)
{
    double r = relative ? (double)relative[t] : 1;
    return (double)in->h[i] * r * r;
}

/* ---- the order ---- */

/* How many values have each highest digit; start[d + 1] is that of d. */
static void count_by_highest(const QuantizeInput *in, const float *relative,
                             size_t start[DIGITS + 1])
{
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            if (in->w[i] != 0)
                start[highest_digit(keyed_of(in, relative, t, i).key) + 1]++;
}

/* The indices by the keys' highest digit, of one digit ascending. next[d]: where those of d begin. */
static void place_by_highest(const QuantizeInput *in, const float *relative, uint32_t *index,
                             size_t next[DIGITS + 1])
{
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            if (in->w[i] != 0)
                index[next[highest_digit(keyed_of(in, relative, t, i).key)]++] = (uint32_t)i;
}

/* By their two lower digits, stable; the result is where they were. */
static void sort_keys(Keyed *keyed, Keyed *spare, size_t n)
{
    for (int shift = 0; shift < 2 * DIGIT_BITS; shift += DIGIT_BITS) {
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

/* Exact zeros are one value, without an index: most of a pruned network is neither sorted nor held.
 * The others go straight to where those with the same highest digit are, and are sorted there: room for
 * keys is needed for the most of one digit only. */
static int sort_values(const QuantizeInput *in, const float *relative, KMeansOrder *order,
                       uint32_t *index, Error *err)
{
    size_t start[DIGITS + 1] = {0}, next[DIGITS + 1], zero = highest_digit(key_of(0)), most = 0;
    count_by_highest(in, relative, start);
    start[zero + 1] += order->zeros > 0;
    for (size_t d = 0; d < DIGITS; d++) {
        most = start[d + 1] > most ? start[d + 1] : most;
        start[d + 1] += start[d];
    }
    memcpy(next, start, sizeof next);
    place_by_highest(in, relative, index, next);
    if (order->zeros > 0)
        index[next[zero]] = ZEROS;
    Keyed *keyed = malloc((most + 1) * sizeof *keyed), *spare = malloc((most + 1) * sizeof *spare);
    for (size_t d = 0; d < DIGITS && keyed && spare; d++) {
        size_t n = start[d + 1] - start[d];
        uint32_t *own = index + start[d];
        for (size_t i = 0; i < n; i++)
            keyed[i] = own[i] == ZEROS ? (Keyed){key_of(0), ZEROS}
                                       : keyed_of(in, relative, tensor_of(in, own[i]), own[i]);
        if (n > 1)
            sort_keys(keyed, spare, n);
        for (size_t i = 0; i < n; i++) {
            order->x[start[d] + i] = value_of(keyed[i].key);
            own[i] = keyed[i].index;
            if (own[i] == ZEROS)
                order->zero_at = start[d] + i;
        }
    }
    int status = keyed && spare ? ONNXPRESS_OK : error_memory(err, "the order of the weights");
    free(keyed);
    free(spare);
    return status;
}

/* ---- weights and their sums ---- */

double kmeans_weight(const KMeansOrder *order, size_t i)
{
    return i == order->zero_at ? order->zeros_weight : (double)order->weight[i];
}

/* Weights h * relative^2 in units of w / relative, where the indices were. Where they are all zero,
 * ones: some order is needed, and any is as good. */
static void weigh(const QuantizeInput *in, const float *relative, bool weighted, KMeansOrder *order,
                  uint32_t *index)
{
    double total = 0;
    order->weight = (float *)(void *)index;
    for (size_t t = 0; t < in->n_tensors && weighted; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++) {
            double weight = weight_of(in, relative, t, i);
            total += weight;
            order->zeros_weight += in->w[i] == 0 ? weight : 0;
        }
    bool alike = !(total > 0);
    if (alike)
        order->zeros_weight = (double)order->zeros;
    for (size_t i = 0; i < order->n; i++) {
        size_t from = index[i];
        double weight = 1;
        if (from != ZEROS && !alike) /* beyond a float's range only with steps beyond reason */
            weight = fmin(weight_of(in, relative, tensor_of(in, from), from), (double)FLT_MAX);
        order->weight[i] = (float)weight;
    }
}

static void add_value(const KMeansOrder *order, size_t i, KMeansSums *sums)
{
    double weight = kmeans_weight(order, i);
    sums->gx += weight * (double)order->x[i];
    sums->g += weight;
}

KMeansSums kmeans_sums(const KMeansOrder *order, size_t i)
{
    size_t block = i == order->n ? order->blocks : i / KMEANS_BLOCK;
    KMeansSums sums = {order->g[block], order->gx[block]};
    for (size_t j = block * KMEANS_BLOCK; j < i; j++)
        add_value(order, j, &sums);
    return sums;
}

size_t kmeans_first_weighing(const KMeansOrder *order, size_t from, double goal)
{
    size_t block = from / KMEANS_BLOCK;
    while (block + 1 < order->blocks && order->g[block + 1] < goal)
        block++;
    size_t i = block * KMEANS_BLOCK > from ? block * KMEANS_BLOCK : from;
    KMeansSums sums = kmeans_sums(order, i);
    for (; i + 1 < order->n; i++) {
        add_value(order, i, &sums);
        if (!(sums.g < goal))
            break;
    }
    return i;
}

static void sum_blocks(KMeansOrder *order)
{
    KMeansSums sums = {0, 0};
    for (size_t i = 0; i < order->n; i++) {
        add_value(order, i, &sums);
        order->g[i / KMEANS_BLOCK + 1] = sums.g;
        order->gx[i / KMEANS_BLOCK + 1] = sums.gx;
    }
}

int kmeans_order(const QuantizeInput *in, const float *relative, bool weighted, KMeansOrder *order,
                 Error *err)
{
    size_t n = in->n_tensors ? in->offset[in->n_tensors] : 0;
    *order = (KMeansOrder){.arena = arena_create(), .zero_at = SIZE_MAX};
    if (n >= ZEROS)
        return error_set(err, ONNXPRESS_MEMORY, "k-means: %zu weights are more than %lu", n,
                         (unsigned long)ZEROS - 1);
    if (!order->arena)
        return error_memory(err, "the order of the weights");
    for (size_t i = 0; i < n; i++)
        order->zeros += in->w[i] == 0;
    order->n = n - order->zeros + (order->zeros > 0);
    order->blocks = (order->n + KMEANS_BLOCK - 1) / KMEANS_BLOCK;
    order->x = arena_array(order->arena, order->n, sizeof *order->x);
    uint32_t *index = arena_array(order->arena, order->n, sizeof *index);
    order->g = arena_array(order->arena, order->blocks + 1, sizeof *order->g);
    order->gx = arena_array(order->arena, order->blocks + 1, sizeof *order->gx);
    int status = order->x && index && order->g && order->gx
                     ? ONNXPRESS_OK
                     : error_memory(err, "the order of the weights");
    if (!status)
        status = sort_values(in, relative, order, index, err);
    if (!status) {
        weigh(in, relative, weighted && in->h, order, index);
        sum_blocks(order);
    }
    return status;
}

void kmeans_order_free(KMeansOrder *order)
{
    arena_destroy(order->arena);
    *order = (KMeansOrder){0};
}
