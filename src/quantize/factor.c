/* SPDX-License-Identifier: Apache-2.0
 *
 * From a layer's second moments to the triangular factor that compensation runs on.
 *
 * H = M M' with M upper triangular is a Cholesky factorization of H read backwards; then
 * inv(H) = U'U with U = inv(M), upper triangular too. */
#include "quantize/quantize.h"

#include <math.h>
#include <stdlib.h>

/* LAPACK, of the BLAS library; column-major. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
             size_t, size_t);

/* Added to the diagonal, as a share of its mean: what a few hundred samples say of a direction that
 * they hardly show is not to be relied upon. Between 0.1 and 0.3 the bytes at equal distance differ
 * by under 2 % (LeNet-5); 0.01 and 1 take some 8 % more. */
#define DAMPING 0.2

static int factor_group(size_t n, float *moment, double *work, double *kept, double *whole)
{
    double trace = 0;
    for (size_t i = 0; i < n; i++)
        trace += (double)moment[i * n + i];
    double mean = trace / (double)n, damping = mean > 0 ? DAMPING * mean : 1;
    /* Backwards: row and column i of the work matrix are n - 1 - i of H. */
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double x = (double)moment[i * n + j] + (i == j ? damping : 0);
            work[(n - 1 - i) * n + (n - 1 - j)] = x;
            work[(n - 1 - j) * n + (n - 1 - i)] = x;
        }
    int size = (int)n, info = 0;
    dpotrf_("L", &size, work, &size, &info, 1);
    if (!info)
        dtrtri_("L", "N", &size, work, &size, &info, 1, 1);
    if (info)
        return info;
    for (size_t i = 0; i < n; i++) {
        *whole += (double)moment[i * n + i] + damping;
        for (size_t j = 0; j < n; j++)
            /* Column-major lower (r, c) is work[c * n + r], with r >= c. */
            moment[i * n + j] = j < i ? 0 : (float)work[(n - 1 - j) * n + (n - 1 - i)];
        double pivot = (double)moment[i * n + i];
        *kept += 1 / (pivot * pivot);
    }
    return !isfinite(*kept) || !isfinite(*whole); /* LAPACK lets NaN pass */
}

int quantize_factor(size_t groups, size_t columns, float *moment, double *effect, Error *err)
{
    size_t elements;
    *effect = 1;
    if (!size_mul(columns, columns, &elements) || elements > SIZE_MAX / sizeof(double))
        return error_memory(err, "a layer's second moments");
    double *work = malloc(elements * sizeof *work);
    if (!work)
        return error_memory(err, "a layer's second moments");
    double kept = 0, whole = 0;
    int info = 0;
    for (size_t g = 0; g < groups && !info; g++)
        info = factor_group(columns, moment + g * elements, work, &kept, &whole);
    free(work);
    if (info)
        return error_set(err, ONNXPRESS_DATA,
                         "a layer's inputs have no finite second moments: check the data");
    if (whole > 0)
        *effect = fmin(kept / whole, 1); /* float pivots may say a little more */
    return ONNXPRESS_OK;
}
