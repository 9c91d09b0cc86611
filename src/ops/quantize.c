/* SPDX-License-Identifier: Apache-2.0
 *
 * QuantizeLinear and its kin: to and from integers and small floats. These ops run and have no
 * derivative: what stands before a rounding gets no gradient through it. */
#include "ops/quantized_internal.h"

#include <string.h>

#include "tensor/small.h"

/* How a scale lies along a tensor: one for all, one for each place of an axis, or one a block. */
typedef struct {
    int64_t inner, dim, block, blocks; /* blocks: along the axis; 0: one scale for all */
} Grid;

static int read_grid(OpNode *node, Arena *arena, Error *err)
{
    int64_t *numbers = arena_array(arena, 2, sizeof *numbers); /* axis, block size */
    if (!numbers)
        return error_memory(err, "a node's parameters");
    numbers[0] = attribute_int(node, "axis", 1);
    numbers[1] = attribute_int(node, "block_size", 0);
    node->params = numbers;
    return ONNXPRESS_OK;
}

static int grid_of(const OpCall *call, const Value *scale, Grid *grid)
{
    const Shape *x = &call->in[0]->shape;
    const int64_t *numbers = call->node->params;
    *grid = (Grid){.inner = 1, .dim = 1, .block = 1};
    if (scale->count == 1 && scale->shape.rank <= 1 && numbers[1] == 0)
        return ONNXPRESS_OK;
    int axis, status = op_axis(call, numbers[0], x->rank, &axis);
    if (status)
        return status;
    grid->inner = dims_product(x, axis + 1, x->rank);
    grid->dim = x->dim[axis];
    grid->block = numbers[1] > 0 ? numbers[1] : 1;
    bool fits;
    if (numbers[1] > 0) { /* the scale has the tensor's shape, but for the axis */
        grid->blocks = grid->dim / grid->block + (grid->dim % grid->block != 0);
        fits = scale->shape.rank == x->rank && scale->shape.dim[axis] == grid->blocks;
        for (int a = 0; fits && a < x->rank; a++)
            fits = a == axis || scale->shape.dim[a] == x->dim[a];
    } else {
        grid->blocks = grid->dim;
        fits = scale->shape.rank == 1 && scale->count == grid->dim;
    }
    return fits ? ONNXPRESS_OK
                : op_error(call, ONNXPRESS_FORMAT, "the scale's shape does not fit the tensor's");
}

/* Number of the scale of element e. */
static int64_t grid_at(const OpCall *call, const Grid *grid, int64_t e)
{
    if (grid->blocks == 0)
        return 0;
    int64_t k = e / grid->inner % grid->dim;
    if (((const int64_t *)call->node->params)[1] == 0)
        return k;
    return (e / grid->inner / grid->dim * grid->blocks + k / grid->block) * grid->inner +
           e % grid->inner;
}

/* The zero point fits the scale; its type is the quantized one. */
static int check_zero(const OpCall *call, const Value *scale, const Value *zero)
{
    if (zero && !dtype_is_integer(zero->dtype) && !small_known(zero->dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "quantizing to %s is not handled",
                        dtype_name(zero->dtype));
    if (zero && zero->count != scale->count)
        return op_error(call, ONNXPRESS_FORMAT, "the zero point does not fit the scale");
    return ONNXPRESS_OK;
}

bool quantized_range(int dtype, double *least, double *most)
{
    static const struct {
        int dtype;
        double least, most;
    } ranges[] = {
        {DTYPE_UINT8, 0, UINT8_MAX},
        {DTYPE_INT8, INT8_MIN, INT8_MAX},
        {DTYPE_UINT16, 0, UINT16_MAX},
        {DTYPE_INT16, INT16_MIN, INT16_MAX},
        {DTYPE_UINT4, 0, 15},
        {DTYPE_INT4, -8, 7},
        {DTYPE_UINT2, 0, 3},
        {DTYPE_INT2, -2, 1},
    };
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++)
        if (ranges[k].dtype == dtype) {
            *least = ranges[k].least;
            *most = ranges[k].most;
            return true;
        }
    return false;
}

int64_t quantize_number(double scaled, int64_t zero, double least, double most)
{
    double x = rint(scaled) + (double)zero;
    return x != x ? zero : (int64_t)(x < least ? least : x > most ? most : x);
}

/* How x is quantized: what the zero point or the attribute says, else uint8. */
static int quantized_type(const OpCall *call, const Value *zero)
{
    int64_t asked = attribute_int(call->node, "output_dtype", DTYPE_UNDEFINED);
    return zero                        ? zero->dtype
           : asked != DTYPE_UNDEFINED ? (int)asked
                                       : DTYPE_UINT8;
}

/* Element e of the zero point's numbers, or 0. */
static real zero_at(const Value *zero, int64_t at)
{
    return !zero ? 0 : zero->r ? zero->r[at] : (real)zero->i[at];
}

static int quantize_forward(const OpCall *call)
{
    Grid grid;
    double least = 0, most = 0;
    int status = op_require(call, 2);
    if (status || (status = op_require_real(call, 1)))
        return status;
    const Value *x = call->in[0], *scale = call->in[1], *zero = op_in(call, 2);
    int dtype = quantized_type(call, zero);
    if ((status = check_zero(call, scale, zero)) || (status = grid_of(call, scale, &grid)))
        return status;
    bool integers = quantized_range(dtype, &least, &most);
    if ((!integers && !small_known(dtype)) || dtype == DTYPE_FLOAT8E8M0)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "quantizing to %s is not handled",
                        dtype_name(dtype));
    if ((status = op_output(call, 0, dtype, &x->shape)))
        return status;
    bool saturate = attribute_int(call->node, "saturate", 1) != 0;
    for (int64_t e = 0; e < x->count; e++) {
        int64_t at = grid_at(call, &grid, e);
        real value = x->r ? x->r[e] : (real)x->i[e]; /* divided in the tensor's own precision */
        if (integers)
            call->out[0]->i[e] =
                quantize_number((double)(value / scale->r[at]), zero ? zero->i[at] : 0, least, most);
        else
            call->out[0]->r[e] = (real)small_round(
                dtype, (double)(value / scale->r[at] + zero_at(zero, at)), saturate);
    }
    return ONNXPRESS_OK;
}

static int dequantize_forward(const OpCall *call)
{
    Grid grid;
    int status = op_require(call, 2);
    if (status || (status = op_require_real(call, 1)))
        return status;
    const Value *x = call->in[0], *scale = call->in[1], *zero = op_in(call, 2);
    if (x->r && !small_known(x->dtype) && (status = op_require_integer(call, 0)))
        return status;
    int dtype = (int)attribute_int(call->node, "output_dtype", 0);
    if (!dtype_is_real(dtype))
        dtype = scale->dtype;
    if (zero && dtype_is_real(zero->dtype) != dtype_is_real(x->dtype))
        return op_error(call, ONNXPRESS_FORMAT, "the zero point does not fit the tensor");
    if ((status = check_zero(call, scale, zero)) || (status = grid_of(call, scale, &grid)) ||
        (status = op_output(call, 0, dtype, &x->shape)))
        return status;
    for (int64_t e = 0; e < x->count; e++) {
        int64_t at = grid_at(call, &grid, e);
        real whole = x->r ? x->r[e] - zero_at(zero, at)
                          : (real)(int64_t)((uint64_t)x->i[e] - (uint64_t)(zero ? zero->i[at] : 0));
        call->out[0]->r[e] = whole * scale->r[at];
    }
    return ONNXPRESS_OK;
}

void dynamic_scale(const Value *x, real *scale, int64_t *zero)
{
    real low = 0, high = 0;
    for (int64_t e = 0; e < x->count; e++) {
        low = x->r[e] < low ? x->r[e] : low;
        high = x->r[e] > high ? x->r[e] : high;
    }
    *scale = high > low ? (high - low) / 255 : 1;
    *zero = quantize_number((double)(-low / *scale), 0, 0, 255);
}

static int dynamic_forward(const OpCall *call)
{
    static const Shape scalar = {0};
    if (call->n_out < 3 || !call->out[0] || !call->out[1] || !call->out[2])
        return op_error(call, ONNXPRESS_UNSUPPORTED, "fewer than three outputs are not handled");
    int status = op_require_real(call, 0);
    if (status || (status = op_output(call, 0, DTYPE_UINT8, &call->in[0]->shape)) ||
        (status = op_output(call, 1, DTYPE_FLOAT, &scalar)) ||
        (status = op_output(call, 2, DTYPE_UINT8, &scalar)))
        return status;
    const Value *x = call->in[0];
    real scale;
    int64_t zero;
    dynamic_scale(x, &scale, &zero);
    for (int64_t e = 0; e < x->count; e++)
        call->out[0]->i[e] = quantize_number((double)(x->r[e] / scale), zero, 0, 255);
    call->out[1]->r[0] = scale;
    call->out[2]->i[0] = zero;
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "QuantizeLinear", 10, 0, .read = read_grid, .forward = quantize_forward},
    {"", "DequantizeLinear", 10, 0, .read = read_grid, .forward = dequantize_forward},
    {"", "DynamicQuantizeLinear", 11, 0, .forward = dynamic_forward},
    {"com.microsoft", "QuantizeLinear", 1, 0, .read = read_grid, .forward = quantize_forward},
    {"com.microsoft", "DequantizeLinear", 1, 0, .read = read_grid, .forward = dequantize_forward},
};

const OpFamily op_family_quantize = {rows, sizeof rows / sizeof rows[0]};
