/* SPDX-License-Identifier: Apache-2.0
 *
 * Times the quantizers: run_quantize N K [ecsq] (weights, centres; ecsq too), for tools/bench. Weights are Laplacian in
 * 8 tensors, importances spread over some decades. One line a part: name, seconds, CPU seconds, and the
 * most memory so far in copies of the weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "entropy/entropy.h"
#include "quantize/kmeans_internal.h"

#define TENSORS 8
#define MAX_K 4096
#define ITERATIONS 3

static uint64_t random_state = 1;

static double uniform01(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    double wall, cpu;
    size_t n;
} Clock;

/* Seconds since the last. */
static double lap(Clock *clock, const char *name)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (name)
        printf("%-12s %8.3f s %8.3f s CPU %6.2f copies\n", name, wall - clock->wall,
               cpu - clock->cpu, (double)usage.ru_maxrss * 1024 / (4 * (double)clock->n));
    fflush(stdout);
    double since = wall - clock->wall;
    clock->wall = seconds(CLOCK_MONOTONIC);
    clock->cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    return since;
}

/* The cost is what ECSQ minimises. */
static int print_result(const Quantized *q, size_t n, double lambda)
{
    uint64_t *count = calloc((size_t)q->levels, sizeof *count);
    if (!count)
        return 1;
    for (size_t i = 0; i < n; i++)
        count[q->symbol[i]]++;
    double bits = entropy_bits(count, (size_t)q->levels);
    printf("%d levels, %.4f bits a weight, distortion %.6g, cost %.8g\n", q->levels,
           bits / (double)n, q->distortion, q->distortion + lambda * bits);
    free(count);
    return 0;
}

/* One of Lloyd's iterations as it is usually done: each weight goes to its nearest centre, found by
 * bisection. */
static void iterate_plainly(const QuantizeInput *in, size_t k, double *centre)
{
    double above[MAX_K] = {0}, below[MAX_K] = {0};
    for (size_t i = 0; i < in->offset[TENSORS]; i++) {
        double x = (double)in->w[i], g = (double)in->h[i];
        size_t first = 0;
        for (size_t m = k; m > 1; m -= m / 2)
            first += x > 0.5 * (centre[first + m / 2 - 1] + centre[first + m / 2]) ? m / 2 : 0;
        above[first] += g * x;
        below[first] += g;
    }
    for (size_t j = 0; j < k; j++)
        centre[j] = below[j] > 0 ? above[j] / below[j] : centre[j];
}

/* Both from the same centres; they come to the same ones. */
static int time_iteration(const QuantizeInput *in, size_t k, Error *err)
{
    double centre[MAX_K], plain[MAX_K], furthest = 0;
    size_t end[MAX_K] = {0};
    KMeansOrder order;
    Clock clock = {.n = in->offset[TENSORS]};
    lap(&clock, NULL);
    int status = kmeans_order(in, NULL, true, &order, err);
    lap(&clock, "order");
    KMeansClusters clusters = {.centre = centre, .end = end, .zero = SIZE_MAX};
    if (!status)
        status = kmeans_seed_quantiles(&order, k, centre, &clusters.k, order.arena, err);
    if (!status) {
        memcpy(plain, centre, sizeof plain);
        lap(&clock, NULL);
        for (int i = 0; i < ITERATIONS; i++) {
            kmeans_assign(&order, &clusters);
            kmeans_update(&order, &clusters);
        }
        double ours = lap(&clock, "iterations") / ITERATIONS;
        iterate_plainly(in, k, plain);
        double theirs = lap(&clock, "plain");
        for (int i = 1; i < ITERATIONS; i++)
            iterate_plainly(in, k, plain);
        for (size_t j = 0; j < clusters.k; j++)
            furthest = fmax(furthest, fabs(plain[j] - centre[j]));
        printf("a Lloyd iteration over %zu weights: %.6f s, over each weight %.3f s, ratio %.2g "
               "(centres differ by %.2g)\n",
               in->offset[TENSORS], ours, theirs, ours / theirs, furthest);
        if (!(ours < 0.5))
            status = error_set(err, ONNXPRESS_GOAL, "an iteration takes more than 0.5 s");
    }
    kmeans_order_free(&order);
    return status;
}

static int run(size_t n, int k, bool ecsq, float *w, float *h)
{
    size_t offset[TENSORS + 1];
    float relative[TENSORS];
    for (size_t t = 0; t <= TENSORS; t++)
        offset[t] = n / TENSORS * t + (t == TENSORS ? n % TENSORS : 0);
    double mean = 0;
    for (size_t t = 0; t < TENSORS; t++) {
        relative[t] = 1;
        for (size_t i = offset[t]; i < offset[t + 1]; i++) {
            w[i] = (float)(0.02 * log(1 - uniform01()) * (uniform01() < 0.5 ? -1 : 1));
            h[i] = (float)exp((double)t - 8 + 4 * uniform01());
            mean += (double)h[i] / (double)n;
        }
    }
    QuantizeInput in = {TENSORS, offset, w, h};
    Error err = {0};
    Quantized q;
    Clock clock = {.n = n};
    lap(&clock, NULL);
    Arena *arena = arena_create();
    int status = arena ? time_iteration(&in, (size_t)k, &err) : 1;
    lap(&clock, NULL);
    if (!status)
        status = quantize_kmeans(&in, NULL, k, QUANTIZE_SCOPE_MODEL, true, arena, &q, &err);
    lap(&clock, "kmeans");
    if (!status)
        status = print_result(&q, n, 0);
    lap(&clock, NULL);
    for (int exponent = -5; exponent <= -1 && ecsq && !status; exponent++) {
        double lambda = mean * pow(10, exponent) * 0.02 * 0.02;
        status = quantize_ecsq(&in, relative, lambda, 4 * k, QUANTIZE_SCOPE_MODEL, true, arena, &q,
                               &err);
        lap(&clock, "ecsq");
        if (!status)
            status = print_result(&q, n, lambda);
    }
    if (status)
        fprintf(stderr, "%s\n", err.message);
    arena_destroy(arena);
    return status != 0;
}

int main(int argc, char **argv)
{
    size_t n = argc > 2 ? strtoull(argv[1], NULL, 10) : 0;
    int k = argc > 2 ? atoi(argv[2]) : 0;
    float *w = n >= TENSORS && k > 1 && k <= MAX_K ? malloc(2 * n * sizeof *w) : NULL;
    if (!w) {
        fprintf(stderr, "usage: run_quantize N K [ecsq]\n");
        return 1;
    }
    int failed = run(n, k, argc > 3, w, w + n);
    free(w);
    return failed;
}
