/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/ops.h"

#include <string.h>

static const OpFamily *const families[] = {
    &op_family_conv,        &op_family_gemm,    &op_family_pool,   &op_family_normalization,
    &op_family_elementwise, &op_family_nary,    &op_family_logic,  &op_family_activation,
    &op_family_cast,        &op_family_softmax, &op_family_reduce, &op_family_shape,
    &op_family_move,        &op_family_pad,     &op_family_index,  &op_family_constant,
    &op_family_recurrent,   &op_family_reverse_sequence, &op_family_control,
    &op_family_scatter,     &op_family_search,  &op_family_mask,   &op_family_einsum,
    &op_family_layer_norm,  &op_family_resize,  &op_family_conv_transpose, &op_family_block,
    &op_family_skip_norm,   &op_family_fused,   &op_family_fused_matmul,   &op_family_attention,
    &op_family_packed_attention,                &op_family_lrn,            &op_family_vector_norm,
    &op_family_rotary,      &op_family_lp_pool, &op_family_unpool, &op_family_grid_sample,
    &op_family_affine_grid, &op_family_roi_align,
    &op_family_quantize,    &op_family_quantized, &op_family_qlinear, &op_family_matmul_nbits,
    &op_family_group_query, &op_family_sequence,
    &op_family_bitwise, &op_family_random, &op_family_signal,
    &op_family_detect,
};
#define FAMILIES (sizeof families / sizeof families[0])

const OpRow *op_find(const char *domain, const char *type, int64_t opset)
{
    const OpRow *found = NULL;
    for (size_t f = 0; f < FAMILIES; f++)
        for (size_t k = 0; k < families[f]->count; k++) {
            const OpRow *row = &families[f]->rows[k];
            if (row->since <= opset && (!found || row->since > found->since) &&
                strcmp(row->type, type) == 0 && strcmp(row->domain, domain) == 0)
                found = row;
        }
    return found;
}

const OpRow *op_row(size_t index, size_t *count)
{
    const OpRow *row = NULL;
    size_t n = 0;
    for (size_t f = 0; f < FAMILIES; n += families[f++]->count)
        if (index >= n && index - n < families[f]->count)
            row = &families[f]->rows[index - n];
    if (count)
        *count = n;
    return row;
}
