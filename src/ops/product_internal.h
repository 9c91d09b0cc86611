/* Two small matrix products whose second factor is read where it lies, row by row through a table of
 * offsets: what a convolution needs of its input without copying every tap.
 *
 * Plain C on vectors, compiled for each width the processor may have; the widest that it has is
 * taken when called. Sums are in an order that depends on sizes only. No allocation, no failure.
 */
#ifndef ONNXPRESS_OPS_PRODUCT_INTERNAL_H
#define ONNXPRESS_OPS_PRODUCT_INTERNAL_H

#include "ops/real.h"

#include <stdint.h>

/* Elements that may be read (and must be there, their values don't matter for product_rows) after the
 * last one of a row. */
#define PRODUCT_SLACK 64

/* out[i * out_step + p] = start[i] + sum over t of a[a_row[i] + a_tap[t]] * b[b_tap[t] + p],
 * for i < rows and p < n. */
typedef struct {
    int64_t rows, taps, n;
    const real *a;
    const int64_t *a_row, *a_tap;
    const real *b;
    const int64_t *b_tap;
    const real *start; /* NULL: zeros */
    real *out;
    int64_t out_step;
} RowsProduct;

/* out[i * taps + t] += sum over s and p of a[s * a_sample + i * a_row + p] * b[s * b_sample +
 * b_tap[t] + p], for i < rows and t < taps, s < samples, p < n. The rows of `a` must go on with
 * zeros, and those of b with finite numbers, for PRODUCT_SLACK elements. */
typedef struct {
    int64_t rows, taps, n, samples;
    const real *a;
    int64_t a_row, a_sample;
    const real *b;
    const int64_t *b_tap;
    int64_t b_sample;
    real *out;
} DotsProduct;

void product_rows(const RowsProduct *product);
void product_dots(const DotsProduct *product);

#endif
