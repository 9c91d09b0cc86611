/* Scaled dot-product attention of strided tensors, which the attention ops share.
 *
 * Y = P V, with P the softmax over columns (keys) of cap(scale Q K') + mask + bias, a head of a sample
 * at a time. Heads of K and V may serve several heads of Q in a row. The second-order rule is exact
 * for Q, K, V and the bias. Can fail for want of scratch memory only.
 */
#ifndef ONNXPRESS_OPS_ATTENTION_INTERNAL_H
#define ONNXPRESS_OPS_ATTENTION_INTERNAL_H

#include "ops/support_internal.h"

/* Rows of numbers that lie together: the strides between samples, heads and rows. */
typedef struct {
    real *p; /* NULL: absent, or not wanted */
    int64_t batch, head, row;
} View;

/* Numbers for [sample, head, row, column]; an axis that is stretched has stride 0. */
typedef struct {
    const real *p; /* NULL: none */
    int64_t stride[4];
} Grid;

typedef struct {
    int64_t batch, heads, kv_heads, rows, columns;
    int64_t size, v_size; /* numbers a row of Q and K, and of V and Y */
    View q, k, v;
    real scale;
    real softcap; /* scores go through softcap tanh(score / softcap) before the mask; 0: they don't */
    Grid mask, bias;
    /* Row i stands at place i + offset of its sample, and sees the columns from `left` before it to
     * `right` behind it (-1: all), if `causal` none behind, and only the first `open` ones. */
    bool causal;
    bool near;                    /* left and right are set */
    int64_t left, right;
    const int64_t *offset, *open; /* [batch]; NULL: 0; all */
} Attention;

/* What a run writes or adds to, and what it reads of Y's gradients. */
typedef struct {
    View y;                 /* forward */
    View q, k, v;           /* gradients, or second derivatives */
    real *bias;             /* the same, with the bias's strides */
    const real *d_y, *dd_y; /* with y's strides; d_y NULL: zero */
} AttentionRun;

/* All sizes are at least 1, and rows, columns, sizes and row strides fit an int. */
int attention_forward(const OpCall *call, const Attention *a, const AttentionRun *run);
int attention_backward(const OpCall *call, const Attention *a, const AttentionRun *run);
int attention_curvature(const OpCall *call, const Attention *a, const AttentionRun *run);

/* Input k seen as [batch, heads, rows, columns], on numbers of its count. */
int attention_grid(const OpCall *call, const Attention *a, int k, const real *numbers, Grid *grid);
/* Input k as onnxruntime's mask of integers, where 0 bars a column by adding `barred`: of shape
 * [batch, columns], or [batch, rows, columns], or [batch] with the number of open columns. */
int attention_mask(const OpCall *call, Attention *a, int k, real barred);

#endif
