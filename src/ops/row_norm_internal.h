/* Rows of n numbers, normalised: z = (x - mean) r, then scaled and shifted: what the layer,
 * instance, group and root-mean-square normalizations share.
 *
 * r = 1 / sqrt(share * sum of (x - mean)^2 + epsilon); `centred` false: the mean is taken as 0.
 * Derivatives, with c = 1 for centred rows, else 0 (share is 1/n then for centred rows):
 *   dz_j/dx_i = r (d_ij - c/n - share z_i z_j)
 *   d2z_j/dx_i2 = r^2 share (z_j (3 share z_i^2 - 1 + c/n) - 2 z_i (d_ij - c/n))
 * Fails only for want of scratch memory.
 */
#ifndef ONNXPRESS_OPS_ROW_NORM_INTERNAL_H
#define ONNXPRESS_OPS_ROW_NORM_INTERNAL_H

#include "ops/support_internal.h"

typedef struct {
    int64_t n;
    bool centred;
    real share, epsilon;
} RowNorm;

/* Which number of a scale or bias goes with element e: (e / inner) % channels. */
typedef struct {
    int64_t inner, channels;
} Spread;

/* Of input k, which must broadcast to input 0; all ones when it is omitted. */
int spread_of(const OpCall *call, int k, Spread *spread);

/* Rows one after the other, with scale and bias. */
typedef struct {
    RowNorm norm;
    int64_t rows;
    Spread scale, bias;
} TensorNorm;

/* Tensors of one call; NULL: absent, or not wanted. Of a backward run, d_y, d_mean and d_r are
 * gradients; of a second-order run they are second derivatives, and first[0], [1] and [2] the
 * gradients of the same three. */
typedef struct {
    const real *x, *scale, *bias;
    const real *d_y, *d_mean, *d_r;
    const real *first[3];
    real *y, *mean, *r;
    real *d_x, *d_scale, *d_bias;
} NormTensors;

int tensor_norm_forward(const OpCall *call, const TensorNorm *norm, const NormTensors *t);
int tensor_norm_backward(const OpCall *call, const TensorNorm *norm, const NormTensors *t);
int tensor_norm_curvature(const OpCall *call, const TensorNorm *norm, const NormTensors *t);

#endif
