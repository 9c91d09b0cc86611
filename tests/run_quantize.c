/* SPDX-License-Identifier: Apache-2.0
 *
 * Times the quantizers: run_quantize N K [ecsq] (weights, centres; ecsq too), for tools/bench. Weights are Laplacian in
 * 8 tensors, importances spread over some decades. One line a part: name, seconds, CPU seconds, and the
 * most memory so far in copies of the weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "entropy/entropy.h"
#include "quantize/quantize.h"

#define TENSORS 8

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

static void lap(Clock *clock, const char *name)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (name)
        printf("%-12s %8.3f s %8.3f s CPU %6.2f copies\n", name, wall - clock->wall,
               cpu - clock->cpu, (double)usage.ru_maxrss * 1024 / (4 * (double)clock->n));
    fflush(stdout);
    clock->wall = seconds(CLOCK_MONOTONIC);
    clock->cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
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
    KMeansOrder *order;
    Arena *arena = arena_create();
    int status = arena ? quantize_kmeans_order(&in, NULL, true, &order, &err) : 1;
    if (!status) {
        lap(&clock, "order");
        status = quantize_kmeans(&in, order, k, QUANTIZE_SCOPE_MODEL, arena, &q, &err);
        lap(&clock, "kmeans");
        if (!status)
            status = print_result(&q, n, 0);
        quantize_kmeans_order_free(order);
    }
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
    float *w = n >= TENSORS && k > 1 ? malloc(2 * n * sizeof *w) : NULL;
    if (!w) {
        fprintf(stderr, "usage: run_quantize N K [ecsq]\n");
        return 1;
    }
    int failed = run(n, k, argc > 3, w, w + n);
    free(w);
    return failed;
}
