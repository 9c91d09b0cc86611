/* SPDX-License-Identifier: Apache-2.0
 *
 * RotaryEmbedding of opset 23 and onnxruntime's: pairs of numbers are turned by angles whose
 * cosines and sines stand in two tables. The tables steer; only the input has a gradient. */
#include "ops/rotary_internal.h"
#include "ops/support_internal.h"

#include <string.h>

typedef struct {
    int64_t heads, turned; /* 0: left open; numbers of a row that are turned */
    bool interleaved;
    int cosines, sines, positions; /* inputs */
} Rotary;

static int read_rotary(OpNode *node, Arena *arena, Rotary like, Error *err)
{
    Rotary *rotary = arena_array(arena, 1, sizeof *rotary);
    if (!rotary)
        return error_memory(err, "a node's parameters");
    *rotary = like;
    rotary->heads = attribute_int(node, "num_heads", 0);
    rotary->turned = attribute_int(node, "rotary_embedding_dim", 0);
    rotary->interleaved = attribute_int(node, "interleaved", 0) != 0;
    if (rotary->heads < 0 || rotary->turned < 0)
        return read_error(node, err, ONNXPRESS_FORMAT, "an attribute is negative");
    if (attribute_float(node, "scale", 1) != 1 || attribute_int(node, "is_packed_batching", 0))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "scale or is_packed_batching is set");
    node->params = rotary;
    return ONNXPRESS_OK;
}

static int read_standard(OpNode *node, Arena *arena, Error *err)
{
    return read_rotary(node, arena, (Rotary){.cosines = 1, .sines = 2, .positions = 3}, err);
}

static int read_microsoft(OpNode *node, Arena *arena, Error *err)
{
    return read_rotary(node, arena, (Rotary){.cosines = 2, .sines = 3, .positions = 1}, err);
}

typedef struct {
    int64_t batch, heads, rows, size, half; /* half of the numbers that are turned */
    int64_t batch_stride, head_stride, row_stride;
} RotaryShape;

static int rotary_shape(const OpCall *call, RotaryShape *s)
{
    const Rotary *rotary = call->node->params;
    const Value *cosines = call->in[rotary->cosines], *sines = call->in[rotary->sines];
    const Shape *x = &call->in[0]->shape, *table = &cosines->shape;
    int64_t width = x->rank ? x->dim[x->rank - 1] : 0;
    if (x->rank == 4) {
        *s =
            (RotaryShape){.batch = x->dim[0], .heads = x->dim[1], .rows = x->dim[2], .size = width};
        s->row_stride = width;
        s->head_stride = s->rows * width;
    } else if (x->rank == 3) {
        int64_t heads = rotary->heads;
        if (!heads && table->rank > 0 && !rotary->turned && table->dim[table->rank - 1] > 0)
            heads = width / 2 / table->dim[table->rank - 1];
        if (heads < 1 || width % heads)
            return op_error(call, ONNXPRESS_FORMAT, "%lld heads for rows of %lld numbers",
                            (long long)heads, (long long)width);
        *s = (RotaryShape){
            .batch = x->dim[0], .heads = heads, .rows = x->dim[1], .size = width / heads};
        s->row_stride = width;
        s->head_stride = s->size;
    } else {
        return op_error(call, ONNXPRESS_FORMAT, "an input of rank %d, not 3 or 4", x->rank);
    }
    s->batch_stride = s->heads * s->rows * s->size;
    int64_t turned = rotary->turned ? rotary->turned : s->size;
    s->half = turned / 2;
    if (turned % 2 || turned > s->size || table->rank < 2 || !shape_equal(table, &sines->shape) ||
        table->dim[table->rank - 1] != s->half)
        return op_error(call, ONNXPRESS_FORMAT, "the tables do not fit rows of %lld numbers",
                        (long long)turned);
    return ONNXPRESS_OK;
}

/* The row of the tables for a sample's row; -1: out of range. Without positions the tables have an
 * axis of samples; one position only is that of the first row. */
static int64_t table_row(const OpCall *call, const RotaryShape *s, int64_t sample, int64_t row)
{
    const Rotary *rotary = call->node->params;
    const Value *positions = op_in(call, rotary->positions), *table = call->in[rotary->cosines];
    int64_t at = sample * s->rows + row, rows = s->half ? table->count / s->half : 0;
    if (positions && positions->count == 1 && positions->shape.rank <= 1)
        at = positions->i[0] > rows || positions->i[0] < 0 ? -1 : positions->i[0] + row;
    else if (positions)
        at = positions->i[at];
    return at >= 0 && at < rows ? at : -1;
}

static int check_positions(const OpCall *call, const RotaryShape *s)
{
    const Rotary *rotary = call->node->params;
    const Value *positions = op_in(call, rotary->positions), *table = call->in[rotary->cosines];
    int status = positions ? op_require_integer(call, rotary->positions) : ONNXPRESS_OK;
    if (status)
        return status;
    bool one = positions && positions->count == 1 && positions->shape.rank <= 1;
    if ((positions && !one && positions->count != s->batch * s->rows) ||
        (!positions && table->count != s->batch * s->rows * s->half))
        return op_error(call, ONNXPRESS_FORMAT, "positions or tables do not fit the input");
    for (int64_t sample = 0; sample < s->batch; sample++)
        for (int64_t row = 0; row < s->rows; row++)
            if (table_row(call, s, sample, row) < 0)
                return op_error(call, ONNXPRESS_DATA, "position %lld of sample %lld is not there",
                                (long long)row, (long long)sample);
    return ONNXPRESS_OK;
}

void rotary_turn(bool interleaved, int64_t half, int64_t size, Turn turn, const real *cosine,
                 const real *sine, const real *from, real *to)
{
    int64_t step = interleaved ? 2 : 1, gap = interleaved ? 1 : half;
    for (int64_t j = 0; j < half; j++) {
        const real *a = from + j * step, *b = a + gap;
        real *to_a = to + j * step, *to_b = to_a + gap, c = cosine[j], d = sine[j];
        if (turn == FORWARD) {
            *to_a = c * *a - d * *b;
            *to_b = d * *a + c * *b;
        } else if (turn == BACKWARD) {
            *to_a += c * *a + d * *b;
            *to_b += c * *b - d * *a;
        } else {
            *to_a += c * c * *a + d * d * *b;
            *to_b += c * c * *b + d * d * *a;
        }
    }
    for (int64_t j = 2 * half; j < size; j++)
        to[j] = turn == FORWARD ? from[j] : to[j] + from[j];
}

static void turn_all(const OpCall *call, const RotaryShape *s, Turn turn, const real *from,
                     real *to)
{
    const Rotary *rotary = call->node->params;
    for (int64_t sample = 0; sample < s->batch; sample++)
        for (int64_t row = 0; row < s->rows; row++) {
            int64_t at = table_row(call, s, sample, row) * s->half;
            for (int64_t head = 0; head < s->heads; head++) {
                int64_t offset =
                    sample * s->batch_stride + head * s->head_stride + row * s->row_stride;
                rotary_turn(rotary->interleaved, s->half, s->size, turn,
                            call->in[rotary->cosines]->r + at, call->in[rotary->sines]->r + at,
                            from + offset, to + offset);
            }
        }
}

static int rotary_forward(const OpCall *call)
{
    const Rotary *rotary = call->node->params;
    RotaryShape s;
    int status = op_require_real(call, 0);
    if (status || (status = op_require(call, 1)) ||
        (status = op_require_real(call, rotary->cosines)) ||
        (status = op_require_real(call, rotary->sines)) || (status = rotary_shape(call, &s)) ||
        (status = check_positions(call, &s)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &call->in[0]->shape)))
        return status;
    turn_all(call, &s, FORWARD, call->in[0]->r, call->out[0]->r);
    return ONNXPRESS_OK;
}

static int rotary_add(const OpCall *call, Turn turn)
{
    RotaryShape s;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = rotary_shape(call, &s);
    if (!status)
        turn_all(call, &s, turn, call->d_out[0], call->d_in[0]);
    return status;
}

static int rotary_backward(const OpCall *call)
{
    return rotary_add(call, BACKWARD);
}

static int rotary_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear */
    return rotary_add(call, SQUARED);
}

static const OpRow rows[] = {
    {"", "RotaryEmbedding", 23, OP_KEEP_INPUTS, .read = read_standard, .forward = rotary_forward,
     .backward = rotary_backward, .curvature = rotary_curvature},
    {"com.microsoft", "RotaryEmbedding", 1, OP_KEEP_INPUTS, .read = read_microsoft,
     .forward = rotary_forward, .backward = rotary_backward, .curvature = rotary_curvature},
};

const OpFamily op_family_rotary = {rows, sizeof rows / sizeof rows[0]};
