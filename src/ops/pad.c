/* SPDX-License-Identifier: Apache-2.0
 *
 * Ops whose result reads its input through one index map an axis: Pad and Tile. */
#include "ops/support_internal.h"

#include <string.h>

/* map[a][o]: offset in the input of coordinate o of axis a of the result; OUTSIDE: none. */
typedef struct {
    Shape shape;
    int64_t *map[TENSOR_MAX_RANK];
} AxisMaps;

#define OUTSIDE (-1)

/* Room for the maps of maps->shape, whose elements must have been counted. */
static int maps_allocate(const OpCall *call, AxisMaps *maps)
{
    size_t total = 0;
    for (int a = 0; a < maps->shape.rank; a++)
        total += (size_t)maps->shape.dim[a];
    int64_t *room = op_scratch(call, total ? total : 1, sizeof *room);
    if (!room)
        return ONNXPRESS_MEMORY;
    for (int a = 0; a < maps->shape.rank; a++) {
        maps->map[a] = room;
        room += maps->shape.dim[a];
    }
    return ONNXPRESS_OK;
}

/* The result is passed through a row along the last axis at a time; base is where the outer
 * coordinates lead, OUTSIDE when out of the input. Starts all zero. */
typedef struct {
    const int64_t *last;
    int64_t n, base, done; /* elements a row; elements of the result before it */
} MapRow;

static bool maps_row(const AxisMaps *maps, int64_t *index, MapRow *row)
{
    int outer = maps->shape.rank - 1;
    if (row->last) { /* not the first */
        int a = outer - 1;
        for (; a >= 0 && ++index[a] == maps->shape.dim[a]; a--)
            index[a] = 0;
        if (a < 0)
            return false;
        row->done += row->n;
    }
    row->last = maps->map[outer];
    row->n = maps->shape.dim[outer];
    row->base = 0;
    for (int a = 0; a < outer && row->base != OUTSIDE; a++) {
        int64_t step = maps->map[a][index[a]];
        row->base = step == OUTSIDE ? OUTSIDE : row->base + step;
    }
    return true;
}

#define MAPS_READ(to, from, outside)                                                               \
    for (int64_t j = 0; j < row.n; j++) {                                                          \
        bool inside = row.base != OUTSIDE && row.last[j] != OUTSIDE;                               \
        (to)[row.done + j] = inside ? (from)[row.base + row.last[j]] : (outside);                  \
    }

/* `constant` (of x's kind, one element; NULL: zero) fills what lies outside. */
static void maps_forward(const AxisMaps *maps, const Value *x, const Value *constant, Value *y)
{
    int64_t index[TENSOR_MAX_RANK] = {0};
    MapRow row = {0};
    if (dtype_is_real(x->dtype)) {
        real fill = constant ? constant->r[0] : 0;
        while (maps_row(maps, index, &row))
            MAPS_READ(y->r, x->r, fill)
    } else {
        int64_t fill = constant ? constant->i[0] : 0;
        while (maps_row(maps, index, &row))
            MAPS_READ(y->i, x->i, fill)
    }
}

static void maps_backward(const AxisMaps *maps, const real *d_y, real *d_x, real *d_constant)
{
    int64_t index[TENSOR_MAX_RANK] = {0};
    MapRow row = {0};
    while (maps_row(maps, index, &row))
        for (int64_t j = 0; j < row.n; j++) {
            real d = d_y[row.done + j];
            if (row.base != OUTSIDE && row.last[j] != OUTSIDE) {
                if (d_x)
                    d_x[row.base + row.last[j]] += d;
            } else if (d_constant) {
                *d_constant += d;
            }
        }
}

#define PAD_MOST ((int64_t)1 << 40) /* elements; far beyond any memory, far from overflow */

typedef enum { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } PadMode;

typedef struct {
    PadMode mode;
    bool from_inputs; /* since opset 11 */
    int n;            /* attribute pads; -1: none */
    const int64_t *pads;
    real value;
} Pad;

static int read_pad(OpNode *node, Arena *arena, Error *err)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    const char *mode = attribute_string(node, "mode", "constant");
    Pad *pad = arena_array(arena, 1, sizeof *pad);
    if (!pad)
        return error_memory(err, "a node's parameters");
    int known = 0;
    while (known < 4 && strcmp(mode, names[known]) != 0)
        known++;
    if (known == 4)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "mode = %s is not known", mode);
    pad->mode = (PadMode)known;
    pad->from_inputs = node->opset >= 11;
    pad->n = attribute_ints(node, "pads", &pad->pads);
    pad->value = (real)attribute_float(node, "value", 0);
    node->params = pad;
    return ONNXPRESS_OK;
}

/* Begin and end of every axis. */
static int pad_amounts(const OpCall *call, int64_t begin[], int64_t end[])
{
    const Pad *pad = call->node->params;
    const int64_t *pads = pad->pads, *axes;
    int rank = call->in[0]->shape.rank, n = pad->n, n_axes = rank, status;
    bool marked[TENSOR_MAX_RANK], listed = false;
    memset(begin, 0, TENSOR_MAX_RANK * sizeof *begin);
    memset(end, 0, TENSOR_MAX_RANK * sizeof *end);
    if (pad->from_inputs) {
        if ((status = op_list(call, 1, 2 * TENSOR_MAX_RANK, &pads, &n)))
            return status;
        if ((listed = op_in(call, 3)) &&
            ((status = op_list(call, 3, TENSOR_MAX_RANK, &axes, &n_axes)) ||
             (status = op_mark_axes(call, axes, n_axes, rank, marked))))
            return status;
    }
    if (n != 2 * n_axes)
        return op_error(call, ONNXPRESS_FORMAT, "%d pads for %d axes", n, n_axes);
    for (int k = 0; k < n_axes; k++) {
        int axis = listed ? shape_axis(axes[k], rank) : k;
        begin[axis] = pads[k];
        end[axis] = pads[n_axes + k];
        if (begin[axis] < -PAD_MOST || begin[axis] > PAD_MOST || end[axis] < -PAD_MOST ||
            end[axis] > PAD_MOST)
            return op_error(call, ONNXPRESS_FORMAT, "axis %d is padded by %lld, %lld", axis,
                            (long long)begin[axis], (long long)end[axis]);
    }
    return ONNXPRESS_OK;
}

static int pad_shape(const OpCall *call, const int64_t *begin, const int64_t *end, Shape *shape)
{
    const Shape *from = &call->in[0]->shape;
    const Pad *pad = call->node->params;
    shape->rank = from->rank;
    for (int a = 0; a < from->rank; a++) {
        int64_t *dim = &shape->dim[a];
        if (__builtin_add_overflow(from->dim[a], begin[a], dim) ||
            __builtin_add_overflow(*dim, end[a], dim) || *dim < 0)
            return op_error(call, ONNXPRESS_FORMAT,
                            "axis %d of %lld cannot be padded by %lld, %lld", a,
                            (long long)from->dim[a], (long long)begin[a], (long long)end[a]);
        if (pad->mode != PAD_CONSTANT && from->dim[a] == 0 && *dim > 0)
            return op_error(call, ONNXPRESS_FORMAT, "axis %d has nothing to repeat", a);
    }
    return ONNXPRESS_OK;
}

static int64_t modulo(int64_t x, int64_t period)
{
    int64_t rest = x % period;
    return rest < 0 ? rest + period : rest;
}

/* Where coordinate i, which may lie outside, is read; dim >= 1 unless the mode is constant. */
static int64_t pad_source(PadMode mode, int64_t i, int64_t dim)
{
    if (i >= 0 && i < dim)
        return i;
    switch (mode) {
    case PAD_EDGE:
        return i < 0 ? 0 : dim - 1;
    case PAD_WRAP:
        return modulo(i, dim);
    case PAD_REFLECT: {
        int64_t period = 2 * (dim - 1), folded = period ? modulo(i, period) : 0;
        return folded < dim ? folded : period - folded;
    }
    default:
        return OUTSIDE;
    }
}

static int pad_maps(const OpCall *call, const int64_t *begin, AxisMaps *maps)
{
    const Pad *pad = call->node->params;
    const Shape *from = &call->in[0]->shape;
    int64_t stride[TENSOR_MAX_RANK];
    int status = maps_allocate(call, maps);
    if (status)
        return status;
    shape_strides(from, stride);
    for (int a = 0; a < from->rank; a++)
        for (int64_t o = 0; o < maps->shape.dim[a]; o++) {
            int64_t i = pad_source(pad->mode, o - begin[a], from->dim[a]);
            bool inside = i != OUTSIDE && call->in[0]->count > 0;
            maps->map[a][o] = inside ? i * stride[a] : OUTSIDE;
        }
    return ONNXPRESS_OK;
}

static int pad_forward(const OpCall *call)
{
    const Pad *pad = call->node->params;
    int64_t begin[TENSOR_MAX_RANK], end[TENSOR_MAX_RANK];
    AxisMaps maps;
    int status = op_require(call, 1);
    if (status || (status = pad_amounts(call, begin, end)) ||
        (status = pad_shape(call, begin, end, &maps.shape)))
        return status;
    const Value *x = call->in[0], *constant = pad->from_inputs ? op_in(call, 2) : NULL;
    if (constant && constant->count != 1)
        return op_error(call, ONNXPRESS_FORMAT, "the constant is not one number");
    if (constant && (status = op_require_alike(call, 0, 2)))
        return status;
    if (x->shape.rank == 0)
        return op_alias(call, 0, x, &x->shape);
    if ((status = op_output(call, 0, x->dtype, &maps.shape)) || call->out[0]->count == 0 ||
        (status = pad_maps(call, begin, &maps)))
        return status;
    real attribute = pad->value;
    Value from_attribute = {.r = &attribute};
    if (!constant && dtype_is_real(x->dtype))
        constant = &from_attribute;
    maps_forward(&maps, x, constant, call->out[0]);
    return ONNXPRESS_OK;
}

static int pad_backward(const OpCall *call)
{
    int64_t begin[TENSOR_MAX_RANK], end[TENSOR_MAX_RANK];
    AxisMaps maps = {.shape = call->out[0]->shape};
    if (!call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    if (maps.shape.rank == 0) {
        if (call->d_in[0])
            call->d_in[0][0] += call->d_out[0][0];
        return ONNXPRESS_OK;
    }
    int status = pad_amounts(call, begin, end);
    if (status || (status = pad_maps(call, begin, &maps)))
        return status;
    maps_backward(&maps, call->d_out[0], call->d_in[0], op_d_in(call, 2));
    return ONNXPRESS_OK;
}

static int tile_maps(const OpCall *call, AxisMaps *maps)
{
    const Shape *from = &call->in[0]->shape;
    int64_t stride[TENSOR_MAX_RANK];
    int status = maps_allocate(call, maps);
    if (status)
        return status;
    shape_strides(from, stride);
    for (int a = 0; a < from->rank; a++)
        for (int64_t o = 0; o < maps->shape.dim[a]; o++)
            maps->map[a][o] = o % from->dim[a] * stride[a];
    return ONNXPRESS_OK;
}

static int tile_forward(const OpCall *call)
{
    const int64_t *repeats;
    int n, status = op_require(call, 2);
    if (status || (status = op_list(call, 1, TENSOR_MAX_RANK, &repeats, &n)))
        return status;
    const Value *x = call->in[0];
    AxisMaps maps = {.shape = x->shape};
    if (n != x->shape.rank)
        return op_error(call, ONNXPRESS_FORMAT, "%d repeats for %d axes", n, x->shape.rank);
    for (int a = 0; a < n; a++)
        if (repeats[a] < 0 || !int64_mul(x->shape.dim[a], repeats[a], &maps.shape.dim[a]))
            return op_error(call, ONNXPRESS_FORMAT, "%lld repeats of axis %d",
                            (long long)repeats[a], a);
    if (n == 0)
        return op_alias(call, 0, x, &x->shape);
    if ((status = op_output(call, 0, x->dtype, &maps.shape)) || call->out[0]->count == 0 ||
        (status = tile_maps(call, &maps)))
        return status;
    maps_forward(&maps, x, NULL, call->out[0]);
    return ONNXPRESS_OK;
}

static int tile_backward(const OpCall *call)
{
    AxisMaps maps = {.shape = call->out[0]->shape};
    if (!call->d_in[0] || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    if (maps.shape.rank == 0) {
        call->d_in[0][0] += call->d_out[0][0];
        return ONNXPRESS_OK;
    }
    int status = tile_maps(call, &maps);
    if (!status)
        maps_backward(&maps, call->d_out[0], call->d_in[0], NULL);
    return status;
}

static const OpRow rows[] = {
    {"", "Pad", 2, OP_KEEP_INPUTS, .read = read_pad, .forward = pad_forward,
     .backward = pad_backward, .curvature = curvature_as_backward},
    {"", "Tile", 6, 0, .forward = tile_forward, .backward = tile_backward,
     .curvature = curvature_as_backward},
};

const OpFamily op_family_pad = {rows, sizeof rows / sizeof rows[0]};
