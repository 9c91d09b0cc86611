/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/window_internal.h"

#include "ops/support_internal.h"

#include <string.h>

static int read_list(OpNode *node, const char *name, int n_groups, int64_t low,
                     WindowParams *params, int64_t *out, bool *present, Error *err)
{
    const int64_t *values;
    int n = attribute_ints(node, name, &values);
    if (present)
        *present = n > 0;
    if (n <= 0)
        return ONNXPRESS_OK;
    int rank = n / n_groups;
    if (n % n_groups || (params->rank && rank != params->rank))
        return read_error(node, err, ONNXPRESS_FORMAT, "%s has %d numbers", name, n);
    if (rank > 3)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED,
                          "%d spatial axes (at most 3 are handled)", rank);
    params->rank = rank;
    for (int k = 0; k < n; k++) {
        if (values[k] < low || values[k] > WINDOW_LARGEST)
            return read_error(node, err, ONNXPRESS_FORMAT, "%s holds %lld", name,
                              (long long)values[k]);
        out[k] = values[k];
    }
    return ONNXPRESS_OK;
}

int window_read(OpNode *node, Arena *arena, Error *err)
{
    static const struct {
        const char *name;
        AutoPad mode;
    } modes[] = {{"NOTSET", PAD_EXPLICIT},
                 {"SAME_UPPER", PAD_SAME_UPPER},
                 {"SAME_LOWER", PAD_SAME_LOWER},
                 {"VALID", PAD_VALID}};
    WindowParams *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    int64_t pads[6] = {0};
    bool has_pads;
    for (int k = 0; k < 3; k++)
        params->stride[k] = params->dilation[k] = 1;
    int status =
        read_list(node, "kernel_shape", 1, 1, params, params->kernel, &params->has_kernel, err);
    if (!status)
        status = read_list(node, "strides", 1, 1, params, params->stride, NULL, err);
    if (!status)
        status = read_list(node, "dilations", 1, 1, params, params->dilation, NULL, err);
    if (!status)
        status = read_list(node, "pads", 2, 0, params, pads, &has_pads, err);
    if (status)
        return status;
    for (int k = 0; k < params->rank && has_pads; k++) {
        params->begin[k] = pads[k];
        params->end[k] = pads[params->rank + k];
    }
    const char *mode = attribute_string(node, "auto_pad", "NOTSET");
    size_t m = 0;
    while (m < sizeof modes / sizeof modes[0] && strcmp(mode, modes[m].name))
        m++;
    if (m == sizeof modes / sizeof modes[0])
        return read_error(node, err, ONNXPRESS_FORMAT, "auto_pad is %s", mode);
    params->auto_pad = modes[m].mode;
    params->ceil_mode = attribute_int(node, "ceil_mode", 0) != 0;
    params->count_include_pad = attribute_int(node, "count_include_pad", 0) != 0;
    params->group = attribute_int(node, "group", 1);
    if (params->group < 1)
        return read_error(node, err, ONNXPRESS_FORMAT, "group is %lld", (long long)params->group);
    node->params = params;
    return ONNXPRESS_OK;
}

/* Output length of one axis; settles the padding first when the attributes leave it open. */
static int64_t axis_length(const WindowParams *params, int64_t in, int64_t kernel, int64_t stride,
                           int64_t dilation, int64_t *begin, int64_t *end)
{
    int64_t span = (kernel - 1) * dilation + 1;
    if (params->auto_pad == PAD_VALID)
        *begin = *end = 0;
    if (params->auto_pad == PAD_SAME_UPPER || params->auto_pad == PAD_SAME_LOWER) {
        int64_t out = (in + stride - 1) / stride;
        int64_t pad = (out - 1) * stride + span - in;
        pad = pad > 0 ? pad : 0;
        *begin = params->auto_pad == PAD_SAME_UPPER ? pad / 2 : pad - pad / 2;
        *end = pad - *begin;
    }
    int64_t room = in + *begin + *end - span;
    if (room < 0)
        return 0;
    if (!params->ceil_mode)
        return room / stride + 1;
    int64_t out = (room + stride - 1) / stride + 1;
    /* The last window must start inside the input or its leading padding. */
    return (out - 1) * stride >= in + *begin ? out - 1 : out;
}

int window_make(const OpCall *call, const WindowParams *params, const Shape *data,
                const int64_t *kernel, Window *window, Shape *out)
{
    int rank = data->rank - 2;
    if (rank < 1 || rank > 3)
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "an input of rank %d (1 to 3 spatial axes are handled)", data->rank);
    if (params->rank && params->rank != rank)
        return op_error(call, ONNXPRESS_FORMAT, "attributes for %d spatial axes, input has %d",
                        params->rank, rank);
    for (int k = 0; k < 3; k++) {
        window->in[k] = window->out[k] = window->kernel[k] = 1;
        window->stride[k] = window->dilation[k] = 1;
        window->begin[k] = window->end[k] = 0;
    }
    out->rank = data->rank;
    for (int k = 0; k < rank; k++) {
        int wide = 3 - rank + k;
        int64_t length = data->dim[2 + k];
        if (length > WINDOW_LARGEST || kernel[k] < 1 || kernel[k] > WINDOW_LARGEST)
            return op_error(call, ONNXPRESS_FORMAT,
                            "spatial axis %d has %lld elements, kernel %lld", k, (long long)length,
                            (long long)kernel[k]);
        window->in[wide] = length;
        window->kernel[wide] = kernel[k];
        window->stride[wide] = params->stride[k];
        window->dilation[wide] = params->dilation[k];
        window->begin[wide] = params->begin[k];
        window->end[wide] = params->end[k];
        window->out[wide] = out->dim[2 + k] =
            axis_length(params, length, kernel[k], params->stride[k], params->dilation[k],
                        &window->begin[wide], &window->end[wide]);
        if (window->out[wide] < 1)
            return op_error(call, ONNXPRESS_FORMAT,
                            "the window does not fit spatial axis %d of %lld elements", k,
                            (long long)length);
    }
    return window_sizes(call, window);
}

int window_sizes(const OpCall *call, Window *window)
{
    int64_t plane;
    if (!int64_mul(window->out[0], window->out[1], &plane) ||
        !int64_mul(plane, window->out[2], &window->out_size) ||
        !int64_mul(window->in[0], window->in[1], &plane) ||
        !int64_mul(plane, window->in[2], &window->in_size) ||
        !int64_mul(window->kernel[0], window->kernel[1], &plane) ||
        !int64_mul(plane, window->kernel[2], &window->kernel_size))
        return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    return ONNXPRESS_OK;
}

/* One tap's row of the matrix and the plane: the row is added to the places that the tap reaches,
 * or (`gather`) read from them. */
static void row_move(const Window *w, const int64_t tap[3], real *restrict plane,
                     real *restrict row, bool gather)
{
    int64_t first[3], last[3];
    for (int a = 0; a < 3; a++)
        window_range(w, a, tap[a], &first[a], &last[a]);
    if (gather)
        memset(row, 0, (size_t)w->out_size * sizeof *row);
    int64_t stride = w->stride[2];
    for (int64_t i = first[0]; i < last[0]; i++)
        for (int64_t j = first[1]; j < last[1]; j++) {
            int64_t d = i * w->stride[0] + tap[0] * w->dilation[0] - w->begin[0];
            int64_t h = j * w->stride[1] + tap[1] * w->dilation[1] - w->begin[1];
            real *line =
                plane + (d * w->in[1] + h) * w->in[2] + tap[2] * w->dilation[2] - w->begin[2];
            real *from = row + (i * w->out[1] + j) * w->out[2];
            if (gather)
                for (int64_t k = first[2]; k < last[2]; k++)
                    from[k] = line[k * stride];
            else
                for (int64_t k = first[2]; k < last[2]; k++)
                    line[k * stride] += from[k];
        }
}

static void matrix_move(const Window *w, real *plane, real *columns, bool gather)
{
    int64_t tap[3];
    for (tap[0] = 0; tap[0] < w->kernel[0]; tap[0]++)
        for (tap[1] = 0; tap[1] < w->kernel[1]; tap[1]++)
            for (tap[2] = 0; tap[2] < w->kernel[2]; tap[2]++, columns += w->out_size)
                row_move(w, tap, plane, columns, gather);
}

/* What a move only reads it gets without const. */
void window_fold(const Window *w, real *plane, const real *columns)
{
    matrix_move(w, plane, (real *)(uintptr_t)columns, false);
}

void window_unfold(const Window *w, const real *plane, real *columns)
{
    matrix_move(w, (real *)(uintptr_t)plane, columns, true);
}
