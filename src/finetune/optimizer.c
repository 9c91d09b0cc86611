/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

OptimizerStep optimizer_step(const FinetuneOptions *options, double rate, int64_t t)
{
    return (OptimizerStep){.kind = options->optimizer,
                           .rate = (real)rate,
                           .momentum = (real)options->momentum,
                           .beta1 = (real)options->beta1,
                           .beta2 = (real)options->beta2,
                           .epsilon = (real)options->epsilon,
                           .unbias1 = (real)(1 / (1 - pow(options->beta1, (double)t))),
                           .unbias2 = (real)(1 / (1 - pow(options->beta2, (double)t)))};
}

static void update_sgd(const OptimizerStep *step, real decay, const real *restrict g, size_t n,
                       real *restrict w, real *restrict m)
{
    real rate = step->rate, momentum = step->momentum;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        m[i] = momentum * m[i] + (g[i] + decay * w[i]);
        w[i] -= rate * m[i];
    }
}

static void update_adam(const OptimizerStep *step, real decay, const real *restrict g, size_t n,
                        real *restrict w, real *restrict m, real *restrict v)
{
    real beta1 = step->beta1, beta2 = step->beta2, epsilon = step->epsilon, rate = step->rate;
    real unbias1 = step->unbias1, unbias2 = step->unbias2;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        m[i] = beta1 * m[i] + (1 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
        real way = m[i] * unbias1 / (REAL_SQRT(v[i] * unbias2) + epsilon);
        w[i] -= rate * (way + decay * w[i]);
    }
}

void optimizer_update(const OptimizerStep *step, real decay, const real *g, const uint8_t *mask,
                      size_t n, real *w, real *m, real *v)
{
    if (step->kind == FINETUNE_SGD)
        update_sgd(step, decay, g, n, w, m);
    else
        update_adam(step, decay, g, n, w, m, v);
    for (size_t i = 0; mask && i < n; i++) {
        w[i] = mask[i] ? w[i] : 0;
        m[i] = mask[i] ? m[i] : 0;
    }
    for (size_t i = 0; mask && v && i < n; i++)
        v[i] = mask[i] ? v[i] : 0;
}
