/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <string.h>

#include "ops/support_internal.h"
#include "ops/window_internal.h"

/* Y[n][m][o] = b[m] + sum over c, k of W[c][m][k] X[n][c][p], where position p and tap k of the
 * kernel meet output o: the transpose of a convolution from Y's places to X's.
 *
 * Some output channels of a group are taken at a time: the product of their weights with X is a
 * matrix `col` [m·k][p], whose rows are added to (or, backward, gathered from) the places of Y. */

#define BLOCK_BYTES ((int64_t)192 << 10) /* of the matrix: the second-level cache holds it */

typedef struct {
    WindowParams window;
    bool has_shape, has_padding;
    int64_t shape[3], padding[3]; /* output_shape, output_padding */
} Params;

typedef struct {
    Window window;                                      /* `in` is Y's, `out` X's */
    int64_t samples, groups, in_channels, out_channels; /* channels of one group */
    int64_t block;                                      /* output channels taken together */
} Transposed;

static int read_transposed(OpNode *node, Arena *arena, Error *err)
{
    int status = window_read(node, arena, err);
    Params *params = arena_array(arena, 1, sizeof *params);
    if (status)
        return status;
    if (!params)
        return error_memory(err, "a node's parameters");
    params->window = *(const WindowParams *)node->params;
    const int64_t *list;
    int rank = params->window.rank;
    int n = attribute_ints(node, "output_padding", &list);
    params->has_padding = n > 0;
    for (int k = 0; k < n && k < 3; k++) {
        params->padding[k] = list[k];
        if (list[k] < 0 || list[k] > WINDOW_LARGEST)
            return read_error(node, err, ONNXPRESS_FORMAT, "output_padding holds %lld",
                              (long long)list[k]);
    }
    if (n > 3 || (n > 0 && rank && n != rank))
        return read_error(node, err, ONNXPRESS_FORMAT, "output_padding has %d numbers", n);
    params->window.rank = rank = n > 0 ? n : rank;
    n = attribute_ints(node, "output_shape", &list);
    params->has_shape = n > 0;
    if (n > 5 || (n > 0 && rank && n != rank && n != rank + 2))
        return read_error(node, err, ONNXPRESS_FORMAT, "output_shape has %d numbers", n);
    int skip = n > 0 && rank && n == rank + 2 ? 2 : 0; /* some write the first two axes too */
    if (n - skip > 3)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "output_shape has %d numbers", n);
    for (int k = skip; k < n; k++) {
        params->shape[k - skip] = list[k];
        if (list[k] < 1 || list[k] > WINDOW_LARGEST)
            return read_error(node, err, ONNXPRESS_FORMAT, "output_shape holds %lld",
                              (long long)list[k]);
    }
    params->window.rank = n > 0 ? n - skip : rank;
    node->params = params;
    return ONNXPRESS_OK;
}

/* Output length of one axis of `in` elements, and what is cut off before its begin; the end
 * follows. */
static int64_t axis_length(const Params *params, int k, int64_t in, int64_t span, int64_t *begin)
{
    const WindowParams *window = &params->window;
    int64_t stride = window->stride[k], full = (in - 1) * stride + span + params->padding[k];
    bool same = window->auto_pad == PAD_SAME_UPPER || window->auto_pad == PAD_SAME_LOWER;
    if (!params->has_shape && !same) {
        *begin = window->auto_pad == PAD_VALID ? 0 : window->begin[k];
        return full - *begin - (window->auto_pad == PAD_VALID ? 0 : window->end[k]);
    }
    int64_t wanted = params->has_shape ? params->shape[k] : in * stride;
    int64_t cut = full > wanted ? full - wanted : 0;
    *begin = window->auto_pad == PAD_SAME_UPPER ? cut / 2 : cut - cut / 2;
    return params->has_shape ? wanted : full - cut; /* SAME never lengthens, in the runtimes */
}

static int transposed_window(const OpCall *call, Window *window, Shape *out)
{
    const Params *params = call->node->params;
    const Shape *x = &call->in[0]->shape, *weight = &call->in[1]->shape;
    int rank = x->rank - 2;
    *window = (Window){.in = {1, 1, 1}, .out = {1, 1, 1}, .kernel = {1, 1, 1}};
    for (int k = 0; k < 3; k++)
        window->stride[k] = window->dilation[k] = 1;
    for (int k = 0; k < rank; k++) {
        int wide = 3 - rank + k;
        int64_t in = x->dim[2 + k], kernel = weight->dim[2 + k];
        if (in < 1 || in > WINDOW_LARGEST || kernel < 1 || kernel > WINDOW_LARGEST)
            return op_error(call, ONNXPRESS_FORMAT,
                            "spatial axis %d has %lld elements, kernel %lld", k, (long long)in,
                            (long long)kernel);
        if (params->window.has_kernel && params->window.kernel[k] != kernel)
            return op_error(call, ONNXPRESS_FORMAT, "kernel_shape and the weight's shape differ");
        int64_t span = (kernel - 1) * params->window.dilation[k] + 1;
        window->out[wide] = in;
        window->kernel[wide] = kernel;
        window->stride[wide] = params->window.stride[k];
        window->dilation[wide] = params->window.dilation[k];
        int64_t length = axis_length(params, k, in, span, &window->begin[wide]);
        if (length < 1 || length > WINDOW_LARGEST)
            return op_error(call, ONNXPRESS_FORMAT, "spatial axis %d would have %lld elements", k,
                            (long long)length);
        window->in[wide] = out->dim[2 + k] = length;
    }
    return window_sizes(call, window);
}

static int transposed_shape(const OpCall *call, Transposed *t, Shape *out)
{
    const Params *params = call->node->params;
    const Shape *x = &call->in[0]->shape, *weight = &call->in[1]->shape;
    const Value *b = op_in(call, 2);
    if (x->rank < 3 || weight->rank != x->rank)
        return op_error(call, ONNXPRESS_FORMAT, "input and weight have ranks %d and %d", x->rank,
                        weight->rank);
    if (x->rank > 5)
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "an input of rank %d (1 to 3 spatial axes are handled)", x->rank);
    if (params->window.rank && params->window.rank != x->rank - 2)
        return op_error(call, ONNXPRESS_FORMAT, "attributes for %d spatial axes, input has %d",
                        params->window.rank, x->rank - 2);
    t->groups = params->window.group;
    if (x->dim[1] != weight->dim[0] || x->dim[1] % t->groups)
        return op_error(call, ONNXPRESS_FORMAT,
                        "%lld input channels in %lld groups do not fit a weight for %lld",
                        (long long)x->dim[1], (long long)t->groups, (long long)weight->dim[0]);
    t->samples = x->dim[0];
    t->in_channels = x->dim[1] / t->groups;
    t->out_channels = weight->dim[1];
    out->rank = x->rank;
    out->dim[0] = t->samples;
    if (!int64_mul(t->out_channels, t->groups, &out->dim[1]))
        return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    if (b && b->count != out->dim[1])
        return op_error(call, ONNXPRESS_FORMAT, "%lld biases for %lld channels",
                        (long long)b->count, (long long)out->dim[1]);
    int status = transposed_window(call, &t->window, out);
    int64_t taps;
    if (status)
        return status;
    if (t->in_channels < 1 || t->out_channels < 1)
        return op_error(call, ONNXPRESS_FORMAT, "a weight without elements");
    /* BLAS counts in int. */
    if (!int64_mul(t->out_channels, t->window.kernel_size, &taps) || taps > INT32_MAX ||
        t->window.out_size > INT32_MAX || t->in_channels > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "more than 2^31 elements a channel");
    int64_t row = t->window.kernel_size * t->window.out_size * (int64_t)sizeof(real);
    t->block = row > 0 && BLOCK_BYTES / row > 1 ? BLOCK_BYTES / row : 1;
    t->block = t->block < t->out_channels ? t->block : t->out_channels;
    return ONNXPRESS_OK;
}

/* One block of one sample's group: where it lies. */
typedef struct {
    int64_t channel, channels; /* of the group's output channels; 0 before the first */
    int64_t x, y, w;
} Block;

static bool block_next(const Transposed *t, Block *b, int64_t sample, int64_t group)
{
    int64_t at = sample * t->groups + group, k = t->window.kernel_size;
    b->channel += b->channels;
    if (b->channel >= t->out_channels)
        return false;
    int64_t left = t->out_channels - b->channel;
    b->channels = left < t->block ? left : t->block;
    b->x = at * t->in_channels * t->window.out_size;
    b->y = (at * t->out_channels + b->channel) * t->window.in_size;
    b->w = (group * t->in_channels * t->out_channels + b->channel) * k;
    return true;
}

static real *block_matrix(const OpCall *call, const Transposed *t)
{
    int64_t rows = t->block * t->window.kernel_size;
    return op_scratch(call, (size_t)rows, (size_t)t->window.out_size * sizeof(real));
}

static int transposed_forward(const OpCall *call)
{
    Transposed t;
    Shape shape;
    int status = op_require_reals(call, 2, 3);
    if (!status)
        status = transposed_shape(call, &t, &shape);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &shape);
    if (status)
        return status;
    const Value *bias = op_in(call, 2);
    const real *x = call->in[0]->r, *w = call->in[1]->r;
    real *y = call->out[0]->r, *col = block_matrix(call, &t);
    if (!col)
        return ONNXPRESS_MEMORY;
    for (int64_t row = 0; row < t.samples * shape.dim[1]; row++)
        for (int64_t p = 0; p < t.window.in_size; p++)
            y[row * t.window.in_size + p] = bias ? bias->r[row % shape.dim[1]] : 0;
    int positions = (int)t.window.out_size, ld = (int)(t.out_channels * t.window.kernel_size);
    for (int64_t n = 0; n < t.samples; n++)
        for (int64_t g = 0; g < t.groups; g++)
            for (Block b = {0}; block_next(&t, &b, n, g);) {
                REAL_GEMM(CblasRowMajor, CblasTrans, CblasNoTrans,
                          (int)(b.channels * t.window.kernel_size), positions, (int)t.in_channels,
                          1, w + b.w, ld, x + b.x, positions, 0, col, positions);
                for (int64_t m = 0; m < b.channels; m++)
                    window_fold(&t.window, y + b.y + m * t.window.in_size,
                                col + m * t.window.kernel_size * t.window.out_size);
            }
    return ONNXPRESS_OK;
}

/* The gradients by X and W (NULL: not wanted) of one sample. */
static void sample_backward(const OpCall *call, const Transposed *t, int64_t sample, real *col,
                            real *d_x, real *d_w)
{
    const real *x = call->in[0]->r, *w = call->in[1]->r;
    int positions = (int)t->window.out_size, ld = (int)(t->out_channels * t->window.kernel_size);
    for (int64_t g = 0; g < t->groups; g++)
        for (Block b = {0}; block_next(t, &b, sample, g);) {
            int rows = (int)(b.channels * t->window.kernel_size);
            for (int64_t m = 0; m < b.channels; m++)
                window_unfold(&t->window, call->d_out[0] + b.y + m * t->window.in_size,
                              col + m * t->window.kernel_size * t->window.out_size);
            if (d_x)
                REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)t->in_channels, positions,
                          rows, 1, w + b.w, ld, col, positions, 1, d_x + b.x, positions);
            if (d_w)
                REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (int)t->in_channels, rows,
                          positions, 1, x + b.x, positions, col, positions, 1, d_w + b.w, ld);
        }
}

static int transposed_backward(const OpCall *call)
{
    Transposed t;
    Shape shape;
    int status = transposed_shape(call, &t, &shape);
    if (status || !call->d_out[0])
        return status;
    real *d_b = op_d_in(call, 2), *col = block_matrix(call, &t);
    if (!col)
        return ONNXPRESS_MEMORY;
    for (int64_t row = 0; d_b && row < t.samples * shape.dim[1]; row++)
        for (int64_t p = 0; p < t.window.in_size; p++)
            d_b[row % shape.dim[1]] += call->d_out[0][row * t.window.in_size + p];
    for (int64_t n = 0; n < t.samples && (call->d_in[0] || call->d_in[1]); n++)
        sample_backward(call, &t, n, col, call->d_in[0], call->d_in[1]);
    return ONNXPRESS_OK;
}

static int transposed_square(const OpCall *call, int k, real *acc)
{
    return square_by_sample(call, 1, k, acc);
}

/* Every channel and tap of the output is a row; with groups they are not evenly spaced. */
static bool transposed_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const Params *params = node->params;
    int64_t count;
    if (k != 1 || weight->rank < 3 || params->window.group != 1 || weight->dim[0] < 1 ||
        !shape_count(weight, &count) || count < 1)
        return false;
    int64_t rows = count / weight->dim[0];
    *matrix = (OpMatrix){.groups = 1,
                         .rows = rows,
                         .columns = weight->dim[0],
                         .row_stride = 1,
                         .column_stride = rows};
    return true;
}

static int transposed_moment(const OpCall *call, int k, real *acc)
{
    Transposed t;
    Shape shape;
    (void)k;
    int status = transposed_shape(call, &t, &shape);
    int channels = (int)t.in_channels, positions = (int)t.window.out_size;
    for (int64_t n = 0; !status && n < t.samples; n++)
        REAL_SYRK(CblasRowMajor, CblasLower, CblasNoTrans, channels, positions, 1,
                  call->in[0]->r + n * channels * positions, positions, 1, acc, channels);
    return status;
}

static const OpRow rows[] = {
    {"", "ConvTranspose", 1, OP_KEEP_INPUTS, read_transposed, transposed_forward,
     transposed_backward, transposed_square, transposed_matrix, transposed_moment,
     .curvature = curvature_of_product},
};

const OpFamily op_family_conv_transpose = {rows, sizeof rows / sizeof rows[0]};
