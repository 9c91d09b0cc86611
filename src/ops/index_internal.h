/* What ops that gather and ops that scatter share: where index tensors point in the data.
 *
 * Indices are checked against the data's shape; errors through op_error, memory from op_scratch.
 */
#ifndef ONNXPRESS_OPS_INDEX_INTERNAL_H
#define ONNXPRESS_OPS_INDEX_INTERNAL_H

#include "ops/support_internal.h"

/* An index, negatives counted from the end; false when out of range. */
static inline bool index_normal(int64_t *index, int64_t dim)
{
    if (*index < 0)
        *index += dim;
    return *index >= 0 && *index < dim;
}

/* GatherElements and ScatterElements: the place in the data (input 0) of each element of the indices
 * (input 1). */
int elements_places(const OpCall *call, int64_t **places);

/* GatherND and ScatterND: each row of the index tensor's last axis names one block of the data. */
typedef struct {
    Shape shape;      /* of all blocks, as they are gathered or given */
    int64_t n, block; /* blocks, and elements of each */
    int64_t *place;   /* [n] */
} BlocksPlan;
int blocks_plan(const OpCall *call, BlocksPlan *plan);

#endif
