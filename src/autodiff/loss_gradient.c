/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/loss_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Losses here are -sum t_c log p_c with a target t of one row. At logits the gradient is p - t; at
 * probabilities 1 - t / p (of the loss of q / sum q), which the softmax's own derivative takes back
 * to p - t; at a coin (p - t) / (p (1 - p)). */

int loss_check_labels(OutputKind kind, const char *name, const Shape *shape, const int64_t *label,
                      const int64_t *sample, int64_t n, Error *err)
{
    OutputLayout layout = output_layout(kind, shape);
    if (kind == OUTPUT_VALUES)
        return error_set(err, ONNXPRESS_DATA,
                         "labels need a classifier, but output %s is plain values: leave the "
                         "labels out, or say what the output is",
                         name);
    if (layout.rows != n)
        return error_set(err, ONNXPRESS_DATA,
                         "there is one label a sample, but output %s has %lld answers for %lld "
                         "samples: use an importance that needs no labels",
                         name, (long long)layout.rows, (long long)n);
    int64_t classes = kind == OUTPUT_BERNOULLI ? 2 : layout.classes;
    for (int64_t s = 0; s < n; s++)
        if (label[sample[s]] < 0 || label[sample[s]] >= classes)
            return error_set(err, ONNXPRESS_DATA,
                             "sample %lld: label %lld, but output %s has the classes 0 to %lld",
                             (long long)sample[s], (long long)label[sample[s]], name,
                             (long long)classes - 1);
    return ONNXPRESS_OK;
}

/* What float32 cannot tell from 0 or 1 counts as certain. */
static bool coin_is_open(double p)
{
    return p > FLT_MIN && p < 1;
}

static double coin_gradient(double p, double target)
{
    return coin_is_open(p) ? (p - target) / (p * (1 - p)) : 0.0;
}

/* v = scale * gradient for a target that is class `answer` alone. */
static void row_answer(const Row *row, int64_t answer, double scale, real *v)
{
    for (int64_t c = 0; c < row->classes; c++) {
        double p = row_p(row, c), target = c == answer ? 1.0 : 0.0;
        double g = row->is_logits ? p - target : 1 - target / fmax(p, FLT_MIN);
        v[c * row->stride] = (real)(scale * g);
    }
}

void loss_label_gradient(OutputKind kind, const Value *output, const int64_t *label,
                         const int64_t *sample, int64_t n, real *v)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    for (int64_t s = 0; s < n; s++) {
        int64_t start = row_start(&layout, s);
        if (is_distribution(kind)) {
            Row row = row_open(kind, &layout, output->r + start);
            row_answer(&row, label[sample[s]], 1, v + start);
        } else {
            v[start] = (real)coin_gradient((double)output->r[start], label[sample[s]] ? 1.0 : 0.0);
        }
    }
}

/* In [0, 1), from the upper 53 bits. */
static double uniform(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

static double normal(uint64_t key)
{
    double radius = sqrt(-2 * log(1 - uniform(hash_step(key, 0))));
    return radius * cos(6.28318530717958647692 * uniform(hash_step(key, 1)));
}

static int64_t row_class(const Row *row, double u)
{
    int64_t last = 0;
    for (int64_t c = 0; c < row->classes; c++) {
        double p = row_p(row, c);
        if (p <= 0)
            continue;
        last = c;
        u -= p;
        if (u < 0)
            break;
    }
    return last;
}

void loss_answer_gradient(OutputKind kind, const Value *output, double variance, uint64_t seed,
                          const int64_t *sample, int64_t n, int64_t draw, real *v)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    memset(v, 0, sizeof *v * (size_t)output->count);
    if (n <= 0 || layout.rows <= 0)
        return;
    int64_t rows = layout.rows / n;
    double scale = 1 / sqrt((double)rows);
    for (int64_t s = 0; s < n; s++) {
        uint64_t key =
            hash_step(hash_step(hash_step(0, seed), (uint64_t)sample[s]), (uint64_t)draw);
        for (int64_t r = 0; r < rows; r++) {
            int64_t start = row_start(&layout, s * rows + r);
            uint64_t bits = hash_step(key, (uint64_t)r);
            double z = (double)output->r[start];
            if (is_distribution(kind)) {
                Row row = row_open(kind, &layout, output->r + start);
                row_answer(&row, row_class(&row, uniform(bits)), scale, v + start);
            } else if (kind == OUTPUT_BERNOULLI) {
                v[start] = (real)(scale * coin_gradient(z, uniform(bits) < z ? 1.0 : 0.0));
            } else {
                v[start] = (real)(scale * normal(bits) / sqrt(variance > 0 ? variance : 1));
            }
        }
    }
}

void loss_distance_gradient(OutputKind kind, const Value *output, double variance, int64_t n,
                            const real *original, real *v)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    if (n <= 0 || layout.rows <= 0)
        return;
    double scale = (double)n / (double)layout.rows;
    for (int64_t r = 0; r < layout.rows; r++) {
        int64_t start = row_start(&layout, r);
        const real *z = output->r + start, *target = original + start;
        if (is_distribution(kind)) {
            Row now = row_open(kind, &layout, z), then = row_open(kind, &layout, target);
            for (int64_t c = 0; c < now.classes; c++) {
                double p = row_p(&now, c), t = row_p(&then, c);
                double g = now.is_logits ? p - t : p > 0 ? (p - t) / p : 0.0;
                v[start + c * now.stride] = (real)(scale * g);
            }
        } else if (kind == OUTPUT_BERNOULLI) {
            v[start] = (real)(scale * coin_gradient((double)*z, (double)*target));
        } else {
            v[start] =
                (real)(scale * ((double)*z - (double)*target) / (variance > 0 ? variance : 1));
        }
    }
}

/* One row with target t (label -1: the row's own p). At probabilities the loss's second derivative
 * is diagonal, so nothing is lost there: the softmax's rule then makes p (1 - p) of it. */
static void row_curvature(const Row *row, bool log_softmax, int64_t label, double scale, real *d,
                          real *dd)
{
    for (int64_t c = 0; c < row->classes; c++) {
        double p = row_p(row, c), t = label < 0 ? p : c == label ? 1.0 : 0.0;
        double first = p - t, second = p * (1 - p);
        if (log_softmax) {
            first = -t;
            second = 0;
        } else if (!row->is_logits) {
            double floor = fmax(p, FLT_MIN);
            first = -t / floor;
            second = fmin(t / floor / floor, FLT_MAX);
        }
        d[c * row->stride] = (real)(scale * first);
        dd[c * row->stride] = (real)(scale * second);
    }
}

void loss_curvature(OutputKind kind, bool log_softmax, const Value *output, double variance,
                    const int64_t *label, const int64_t *sample, int64_t n, real *d, real *dd)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    double scale = layout.rows > 0 ? (double)n / (double)layout.rows : 0;
    for (int64_t r = 0; r < layout.rows; r++) {
        int64_t start = row_start(&layout, r), answer = label ? label[sample[r]] : -1;
        double p = (double)output->r[start];
        if (is_distribution(kind)) {
            Row row = row_open(kind, &layout, output->r + start);
            row_curvature(&row, log_softmax, answer, scale, d + start, dd + start);
        } else if (kind == OUTPUT_BERNOULLI) {
            double t = answer < 0 ? p : answer ? 1.0 : 0.0;
            bool open = coin_is_open(p);
            d[start] = (real)(scale * coin_gradient(p, t));
            dd[start] = (real)(open ? scale * (t / (p * p) + (1 - t) / ((1 - p) * (1 - p))) : 0.0);
        } else {
            d[start] = 0;
            dd[start] = (real)(scale / (variance > 0 ? variance : 1));
        }
    }
}
