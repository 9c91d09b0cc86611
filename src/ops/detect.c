/* SPDX-License-Identifier: Apache-2.0
 *
 * NonMaxSuppression: of boxes that overlap, the best. */
#include "ops/support_internal.h"

#include <stdlib.h>

typedef struct {
    real score;
    int64_t box;
} Candidate;

/* The best first; of equals the first. */
static int compare_candidates(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->box < y->box ? -1 : 1;
}

typedef struct {
    real low[2], high[2];
} Box;

/* Corners in any order, or centre and size as x, y, width, height. */
static Box box_at(const real *given, bool centred)
{
    Box box;
    for (int a = 0; a < 2; a++) {
        real first = centred ? given[a] - given[a + 2] / 2 : given[a];
        real second = centred ? given[a] + given[a + 2] / 2 : given[a + 2];
        box.low[a] = first < second ? first : second;
        box.high[a] = first < second ? second : first;
    }
    return box;
}

static bool overlap(const Box *a, const Box *b, real limit)
{
    real common = 1, area_a = 1, area_b = 1;
    for (int k = 0; k < 2; k++) {
        real low = a->low[k] > b->low[k] ? a->low[k] : b->low[k];
        real high = a->high[k] < b->high[k] ? a->high[k] : b->high[k];
        if (!(high > low))
            return false;
        common *= high - low;
        area_a *= a->high[k] - a->low[k];
        area_b *= b->high[k] - b->low[k];
    }
    return area_a > 0 && area_b > 0 && common / (area_a + area_b - common) > limit;
}

typedef struct {
    int64_t batches, classes, boxes, most;
    real overlap, least; /* limits; least: -infinity without one */
    bool centred;
} Limits;

static int one_real(const OpCall *call, int k, real *value)
{
    if (!op_in(call, k) || call->in[k]->count == 0)
        return ONNXPRESS_OK;
    int status = op_require_real(call, k);
    if (!status)
        *value = call->in[k]->r[0];
    return status;
}

static int read_limits(const OpCall *call, Limits *limits)
{
    int status = op_require(call, 2);
    if (status || (status = op_require_real(call, 0)) || (status = op_require_real(call, 1)))
        return status;
    const Shape *boxes = &call->in[0]->shape, *scores = &call->in[1]->shape;
    if (boxes->rank != 3 || scores->rank != 3 || boxes->dim[2] != 4 ||
        boxes->dim[0] != scores->dim[0] || boxes->dim[1] != scores->dim[2])
        return op_error(call, ONNXPRESS_FORMAT, "boxes and scores do not fit");
    *limits = (Limits){.batches = scores->dim[0],
                       .classes = scores->dim[1],
                       .boxes = scores->dim[2],
                       .least = -(real)INFINITY,
                       .centred = attribute_int(call->node, "center_point_box", 0) != 0};
    if (op_in(call, 2)) {
        const int64_t *list;
        int n;
        if ((status = op_list(call, 2, 1, &list, &n)))
            return status;
        limits->most = n && list[0] > 0 ? list[0] : 0;
    }
    if ((status = one_real(call, 3, &limits->overlap)))
        return status;
    return one_real(call, 4, &limits->least);
}

/* The boxes chosen for one class of one image, in order; returns their number. */
static int64_t suppress(const Limits *limits, const real *boxes, const real *scores,
                        Candidate *candidate, Box *chosen, int64_t *index)
{
    int64_t n = 0, kept = 0;
    for (int64_t k = 0; k < limits->boxes; k++)
        if (scores[k] > limits->least)
            candidate[n++] = (Candidate){scores[k], k};
    qsort(candidate, (size_t)n, sizeof *candidate, compare_candidates);
    for (int64_t k = 0; k < n && kept < limits->most; k++) {
        Box box = box_at(boxes + candidate[k].box * 4, limits->centred);
        bool free = true;
        for (int64_t c = 0; free && c < kept; c++)
            free = !overlap(&box, &chosen[c], limits->overlap);
        if (!free)
            continue;
        chosen[kept] = box;
        index[kept++] = candidate[k].box;
    }
    return kept;
}

static int suppression_forward(const OpCall *call)
{
    Limits limits = {0};
    int64_t lists, room, found = 0;
    int status = read_limits(call, &limits);
    if (status)
        return status;
    int64_t each = limits.most < limits.boxes ? limits.most : limits.boxes;
    if (!int64_mul(limits.batches, limits.classes, &lists) || !int64_mul(lists, each, &room) ||
        !int64_mul(room, 3, &room))
        return op_error(call, ONNXPRESS_MEMORY, "too many boxes");
    size_t n = call->in[1]->count > 0 ? (size_t)limits.boxes : 0;
    Candidate *candidate = op_scratch(call, n + 1, sizeof *candidate);
    Box *chosen = op_scratch(call, n + 1, sizeof *chosen);
    int64_t *index = op_scratch(call, n + 1, sizeof *index);
    int64_t *all = op_scratch(call, (size_t)room + 1, sizeof *all);
    if (!candidate || !chosen || !index || !all)
        return ONNXPRESS_MEMORY;
    for (int64_t list = 0; n > 0 && list < lists; list++) {
        int64_t batch = list / limits.classes;
        int64_t kept = suppress(&limits, call->in[0]->r + batch * limits.boxes * 4,
                                call->in[1]->r + list * limits.boxes, candidate, chosen, index);
        for (int64_t k = 0; k < kept; k++, found++) {
            all[found * 3] = batch;
            all[found * 3 + 1] = list % limits.classes;
            all[found * 3 + 2] = index[k];
        }
    }
    Shape shape = {.rank = 2, .dim = {found, 3}};
    if ((status = op_output(call, 0, DTYPE_INT64, &shape)))
        return status;
    for (int64_t e = 0; e < found * 3; e++)
        call->out[0]->i[e] = all[e];
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "NonMaxSuppression", 10, 0, .forward = suppression_forward},
};

const OpFamily op_family_detect = {rows, sizeof rows / sizeof rows[0]};
