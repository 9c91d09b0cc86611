/* SPDX-License-Identifier: Apache-2.0
 *
 * MaxUnpool and Col2Im: elements put back to where a pool or a window took them from. */
#include "ops/support_internal.h"
#include "ops/window_internal.h"

#include <string.h>

/* The shape that the attributes give, which the indices count in, and the output's. */
static int unpool_shape(const OpCall *call, Shape *counted, Shape *out)
{
    const WindowParams *params = call->node->params;
    const Shape *x = &call->in[0]->shape;
    int rank = x->rank - 2, n;
    int64_t count;
    if (!params->has_kernel || rank != params->rank || !shape_equal(x, &call->in[1]->shape))
        return op_error(call, ONNXPRESS_FORMAT, "kernel_shape, input and indices do not fit");
    *counted = *x;
    for (int a = 0; a < rank; a++) {
        if (x->dim[2 + a] < 1 || x->dim[2 + a] > WINDOW_LARGEST)
            return op_error(call, ONNXPRESS_FORMAT, "an input without elements, or too many");
        counted->dim[2 + a] = (x->dim[2 + a] - 1) * params->stride[a] + params->kernel[a] -
                              params->begin[a] - params->end[a];
    }
    *out = *counted;
    if (op_in(call, 2)) {
        const int64_t *dims;
        int status = op_list(call, 2, TENSOR_MAX_RANK, &dims, &n);
        if (status)
            return status;
        bool fits = n == x->rank;
        for (int a = 0; fits && a < n; a++) {
            out->dim[a] = dims[a];
            fits = a < 2 ? dims[a] == x->dim[a] : dims[a] >= counted->dim[a];
        }
        if (!fits)
            return op_error(call, ONNXPRESS_UNSUPPORTED, "this output_shape is not handled");
    }
    if (!shape_count(counted, &count) || !shape_count(out, &count))
        return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
    return ONNXPRESS_OK;
}

/* Where in `out` element `at` of `counted` lies. */
static int64_t place_in(const Shape *counted, const Shape *out, int64_t at)
{
    int64_t place = 0, stride = 1;
    for (int a = out->rank - 1; a >= 0; a--) {
        place += at % counted->dim[a] * stride;
        at /= counted->dim[a];
        stride *= out->dim[a];
    }
    return place;
}

static int unpool_forward(const OpCall *call)
{
    Shape counted, out;
    int64_t count;
    int status = op_require_reals(call, 2, 1);
    if (status || (status = op_require_integer(call, 1)) ||
        (status = unpool_shape(call, &counted, &out)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &out)))
        return status;
    const Value *x = call->in[0], *index = call->in[1];
    Value *y = call->out[0];
    shape_count(&counted, &count);
    memset(y->r, 0, (size_t)y->count * sizeof *y->r);
    for (int64_t e = 0; e < x->count; e++) {
        if (index->i[e] < 0 || index->i[e] >= count)
            return op_error(call, ONNXPRESS_DATA, "index %lld of %lld elements",
                            (long long)index->i[e], (long long)count);
        y->r[place_in(&counted, &out, index->i[e])] = x->r[e];
    }
    return ONNXPRESS_OK;
}

static int unpool_backward(const OpCall *call)
{
    Shape counted, out;
    int64_t count;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = unpool_shape(call, &counted, &out);
    if (status)
        return status;
    shape_count(&out, &count);
    int64_t *owner = op_scratch(call, (size_t)count + 1, sizeof *owner);
    if (!owner)
        return ONNXPRESS_MEMORY;
    for (int64_t e = 0; e < count; e++)
        owner[e] = -1;
    for (int64_t e = 0; e < call->in[0]->count; e++) /* the last one written is the one seen */
        owner[place_in(&counted, &out, call->in[1]->i[e])] = e;
    for (int64_t e = 0; e < count; e++)
        if (owner[e] >= 0)
            call->d_in[0][owner[e]] += call->d_out[0][e];
    return ONNXPRESS_OK;
}

/* Col2Im: the window over one image, and planes: samples times channels. */
static int fold_shape(const OpCall *call, Window *w, Shape *out, int64_t *planes)
{
    const Shape *x = &call->in[0]->shape;
    const int64_t *image, *kernel;
    int rank, n, status = op_list(call, 1, TENSOR_MAX_RANK - 2, &image, &rank);
    if (status || (status = op_list(call, 2, TENSOR_MAX_RANK - 2, &kernel, &n)))
        return status;
    if (x->rank != 3 || rank != n)
        return op_error(call, ONNXPRESS_FORMAT, "input, image_shape and block_shape do not fit");
    Shape picture = {.rank = rank + 2, .dim = {1, 1}};
    for (int a = 0; a < rank; a++) {
        picture.dim[2 + a] = image[a];
        if (image[a] < 1)
            return op_error(call, ONNXPRESS_FORMAT, "image_shape holds %lld", (long long)image[a]);
    }
    if ((status = window_make(call, call->node->params, &picture, kernel, w, out)))
        return status;
    if (x->dim[1] % w->kernel_size || x->dim[2] != w->out_size)
        return op_error(call, ONNXPRESS_FORMAT, "%lld rows of %lld blocks, for %lld taps and %lld",
                        (long long)x->dim[1], (long long)x->dim[2], (long long)w->kernel_size,
                        (long long)w->out_size);
    *out = picture;
    out->dim[0] = x->dim[0];
    out->dim[1] = x->dim[1] / w->kernel_size;
    *planes = out->dim[0] * out->dim[1];
    return ONNXPRESS_OK;
}

static int fold_forward(const OpCall *call)
{
    Window w;
    Shape out;
    int64_t planes;
    int status = op_require_reals(call, 3, 1);
    if (status || (status = fold_shape(call, &w, &out, &planes)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &out)))
        return status;
    real *y = call->out[0]->r;
    memset(y, 0, (size_t)call->out[0]->count * sizeof *y);
    for (int64_t k = 0; k < planes; k++)
        window_fold(&w, y + k * w.in_size, call->in[0]->r + k * w.kernel_size * w.out_size);
    return ONNXPRESS_OK;
}

static int fold_backward(const OpCall *call)
{
    Window w;
    Shape out;
    int64_t planes;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = fold_shape(call, &w, &out, &planes);
    if (status || planes == 0)
        return status;
    int64_t n = w.kernel_size * w.out_size;
    real *columns = op_scratch(call, (size_t)n, sizeof *columns);
    if (!columns)
        return ONNXPRESS_MEMORY;
    for (int64_t k = 0; k < planes; k++) {
        window_unfold(&w, call->d_out[0] + k * w.in_size, columns);
        add_dense(n, call->d_in[0] + k * n, columns);
    }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "MaxUnpool", 9, OP_KEEP_INPUTS, .read = window_read, .forward = unpool_forward,
     .backward = unpool_backward, .curvature = curvature_as_backward},
    {"", "Col2Im", 18, OP_KEEP_INPUTS, .read = window_read, .forward = fold_forward,
     .backward = fold_backward, .curvature = curvature_as_backward},
};

const OpFamily op_family_unpool = {rows, sizeof rows / sizeof rows[0]};
