/* SPDX-License-Identifier: Apache-2.0
 *
 * The best start for k-means with few centres: the values are cut into blocks, finer where centres
 * will be, and the best k intervals of whole blocks are found by dynamic programming. The best last
 * cut moves only upwards with the end (the cost satisfies the quadrangle inequality), so that a row
 * takes B log B steps by divide and conquer. With one value a block the start is the optimum.
 */
#include "quantize/kmeans_internal.h"

#include <math.h>

#define MAX_K 256       /* beyond, density alone is as good, and k * B would take long */
#define MAX_BLOCKS 2048 /* 20 ms for 256 centres */
#define BLOCKS_A_CENTRE 32

typedef struct {
    size_t blocks;
    size_t *start;           /* [blocks + 1] positions of x */
    double *sum[3];          /* [blocks + 1] of weight * (x - middle)^0..2 before each */
    double *previous, *cost; /* [blocks + 1] of the best intervals up to an end */
    uint16_t *cut;           /* [k][blocks + 1] where the last interval begins */
} Blocks;

static int blocks_allocate(Blocks *b, size_t limit, size_t k, Arena *scratch, Error *err)
{
    b->start = arena_array(scratch, limit + 1, sizeof *b->start);
    b->previous = arena_array(scratch, limit + 1, sizeof *b->previous);
    b->cost = arena_array(scratch, limit + 1, sizeof *b->cost);
    b->cut = arena_array(scratch, k * (limit + 1), sizeof *b->cut);
    bool whole = b->start && b->previous && b->cost && b->cut;
    for (int power = 0; power < 3; power++) {
        b->sum[power] = arena_array(scratch, limit + 1, sizeof *b->sum[power]);
        whole = whole && b->sum[power];
    }
    return whole ? ONNXPRESS_OK : error_memory(err, "k-means");
}

/* One value a block where that many blocks are allowed, else blocks that the density seeding would
 * give a centre each. */
static int cut_blocks(const KMeansOrder *order, size_t limit, Blocks *b, Arena *scratch, Error *err)
{
    if (order->n <= limit) {
        b->blocks = order->n;
        for (size_t i = 0; i <= order->n; i++)
            b->start[i] = i;
        return ONNXPRESS_OK;
    }
    size_t made;
    double *middle = arena_array(scratch, limit, sizeof *middle);
    if (!middle)
        return error_memory(err, "k-means");
    int status = kmeans_seed_density(order, limit, middle, &made, scratch, err);
    if (status)
        return status;
    b->blocks = 0; /* start[0] is 0 */
    for (size_t j = 0; j < made; j++) {
        double edge = j + 1 < made ? 0.5 * middle[j] + 0.5 * middle[j + 1] : INFINITY;
        size_t end = kmeans_first_above(order, b->start[b->blocks], edge);
        if (end > b->start[b->blocks])
            b->start[++b->blocks] = end;
    }
    return ONNXPRESS_OK;
}

static void sum_blocks(const KMeansOrder *order, Blocks *b)
{
    double middle = kmeans_mean(order, 0, order->n);
    for (size_t j = 0; j < b->blocks; j++) {
        double sum[3] = {0};
        for (size_t i = b->start[j]; i < b->start[j + 1]; i++) {
            double weight = kmeans_weight(order, i), x = (double)order->x[i] - middle;
            sum[0] += weight;
            sum[1] += weight * x;
            sum[2] += weight * x * x;
        }
        for (int power = 0; power < 3; power++)
            b->sum[power][j + 1] = b->sum[power][j] + sum[power];
    }
}

/* Weighted squared distance of blocks start to end - 1 from their mean. */
static double interval_cost(const Blocks *b, size_t start, size_t end)
{
    double weight = b->sum[0][end] - b->sum[0][start];
    double first = b->sum[1][end] - b->sum[1][start];
    double second = b->sum[2][end] - b->sum[2][start];
    return weight > 0 ? fmax(second - first * first / weight, 0) : 0;
}

/* Best last cuts for the ends from..to, known to lie in low..high. */
static void fill_row(Blocks *b, uint16_t *cut, size_t from, size_t to, size_t low, size_t high)
{
    size_t end = from + (to - from) / 2, best = low;
    double least = INFINITY;
    for (size_t start = low; start <= high && start < end; start++) {
        double cost = b->previous[start] + interval_cost(b, start, end);
        if (cost < least) {
            least = cost;
            best = start;
        }
    }
    b->cost[end] = least;
    cut[end] = (uint16_t)best;
    if (end > from)
        fill_row(b, cut, from, end - 1, low, best);
    if (end < to)
        fill_row(b, cut, end + 1, to, best, high);
}

int kmeans_seed_optimal(const KMeansOrder *order, size_t k, double *centre, size_t *made,
                        Arena *scratch, Error *err)
{
    *made = 0;
    if (k > MAX_K)
        return ONNXPRESS_OK;
    size_t limit = k * BLOCKS_A_CENTRE < MAX_BLOCKS ? k * BLOCKS_A_CENTRE : MAX_BLOCKS;
    Blocks b = {0};
    int status = blocks_allocate(&b, limit, k, scratch, err);
    if (!status)
        status = cut_blocks(order, limit, &b, scratch, err);
    if (status)
        return status;
    sum_blocks(order, &b);
    if (k > b.blocks)
        k = b.blocks;
    for (size_t end = 1; end <= b.blocks; end++)
        b.cost[end] = interval_cost(&b, 0, end);
    for (size_t c = 1; c < k; c++) { /* c + 1 intervals, of which none is empty */
        double *swap = b.previous;
        b.previous = b.cost;
        b.cost = swap;
        fill_row(&b, b.cut + c * (limit + 1), c + 1, b.blocks, c, b.blocks - 1);
    }
    size_t end = b.blocks;
    for (size_t c = k; c-- > 0;) {
        size_t start = c ? b.cut[c * (limit + 1) + end] : 0;
        centre[c] = kmeans_mean(order, b.start[start], b.start[end]);
        end = start;
    }
    for (size_t c = 0; c < k; c++) /* blocks of equal values may make equal centres */
        if (*made == 0 || centre[c] > centre[*made - 1])
            centre[(*made)++] = centre[c];
    return ONNXPRESS_OK;
}
