/* SPDX-License-Identifier: Apache-2.0
 *
 * Windows, Fourier transforms and mel filters. A transform is a product with a matrix of sines and
 * cosines: rows of n numbers (real, or pairs) become rows of bins of pairs. */
#include "ops/support_internal.h"

#include <cblas.h>
#include <string.h>

#define PI 3.14159265358979323846

/* ---- windows of a length given as input 0: sums of cosines ---- */
static int window_values(const OpCall *call, const double *weights)
{
    const int64_t *list;
    int n, status = op_require(call, 1);
    if (status || (status = op_list(call, 0, 1, &list, &n)))
        return status;
    int dtype = (int)attribute_int(call->node, "output_datatype", DTYPE_FLOAT);
    if (!dtype_is_real(dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "windows of %s are not handled",
                        dtype_name(dtype));
    Shape shape = {.rank = 1, .dim = {n ? list[0] : -1}};
    if (shape.dim[0] < 0)
        return op_error(call, ONNXPRESS_DATA, "a window of %lld", (long long)shape.dim[0]);
    if ((status = op_output(call, 0, dtype, &shape)))
        return status;
    Value *y = call->out[0];
    bool periodic = attribute_int(call->node, "periodic", 1) != 0;
    double length = (double)(periodic || y->count == 1 ? y->count : y->count - 1);
    for (int64_t e = 0; e < y->count; e++) {
        double angle = 2 * PI * (double)e / length;
        y->r[e] = (real)(weights[0] - weights[1] * cos(angle) + weights[2] * cos(2 * angle));
    }
    return ONNXPRESS_OK;
}

static int hann_forward(const OpCall *call)
{
    return window_values(call, (const double[]){0.5, 0.5, 0});
}

static int hamming_forward(const OpCall *call)
{
    return window_values(call, (const double[]){25.0 / 46, 21.0 / 46, 0});
}

static int blackman_forward(const OpCall *call)
{
    return window_values(call, (const double[]){0.42, 0.5, 0.08});
}

/* ---- transforms ---- */
typedef struct {
    int64_t n, used, bins; /* length of the transform; numbers of it that are given; results */
    int parts;             /* 1: real numbers, 2: pairs */
    bool inverse;
    real *basis;           /* [used * parts][bins * 2] */
} Fourier;

/* Fills the matrix, or that of its squares. */
static int make_basis(const OpCall *call, Fourier *f, bool squared)
{
    int64_t count;
    if (!int64_mul(f->used * f->parts, f->bins * 2, &count) || f->used * f->parts > INT32_MAX ||
        f->bins * 2 > INT32_MAX ||
        !(f->basis = op_scratch(call, (size_t)count + 1, sizeof *f->basis)))
        return op_error(call, ONNXPRESS_MEMORY, "a transform of %lld is too large",
                        (long long)f->n);
    double scale = f->inverse ? 1 / (double)f->n : 1, sign = f->inverse ? 1 : -1;
    for (int64_t j = 0; j < f->used; j++)
        for (int64_t k = 0; k < f->bins; k++) {
            double angle = 2 * PI * (double)(j * k % f->n) / (double)f->n;
            double c = scale * cos(angle), s = scale * sign * sin(angle);
            real *to = f->basis + (j * f->parts * f->bins + k) * 2;
            to[0] = (real)(squared ? c * c : c);
            to[1] = (real)(squared ? s * s : s);
            if (f->parts == 1)
                continue;
            to += f->bins * 2; /* of the imaginary part */
            to[0] = (real)(squared ? s * s : -s);
            to[1] = (real)(squared ? c * c : c);
        }
    return ONNXPRESS_OK;
}

static void transform_row(const Fourier *f, const real *x, real *y)
{
    REAL_GEMV(CblasRowMajor, CblasTrans, (int)(f->used * f->parts), (int)(f->bins * 2), 1,
              f->basis, (int)(f->bins * 2), x, 1, 0, y, 1);
}

static void transform_back(const Fourier *f, const real *d_y, real *d_x)
{
    REAL_GEMV(CblasRowMajor, CblasNoTrans, (int)(f->used * f->parts), (int)(f->bins * 2), 1,
              f->basis, (int)(f->bins * 2), d_y, 1, 0, d_x, 1);
}

/* DFT: lines along an axis of [..., 1 or 2]. */
typedef struct {
    Fourier f;
    int64_t outer, dim, inner; /* of the input, without the last axis */
    Shape shape;
} Lines;

static int one_integer(const OpCall *call, int k, int64_t *value)
{
    const int64_t *list;
    int n;
    if (!op_in(call, k))
        return ONNXPRESS_OK;
    int status = op_list(call, k, 1, &list, &n);
    if (!status && n == 1)
        *value = list[0];
    return status;
}

/* From opset 20 on the axis is an input. */
static int read_dft(OpNode *node, Arena *arena, Error *err)
{
    bool *as_input = arena_array(arena, 1, sizeof *as_input);
    if (!as_input)
        return error_memory(err, "a node's parameters");
    *as_input = node->opset >= 20;
    node->params = as_input;
    return ONNXPRESS_OK;
}

static int dft_plan(const OpCall *call, Lines *lines)
{
    const Shape *x = &call->in[0]->shape;
    bool as_input = *(const bool *)call->node->params;
    int64_t axis = as_input ? -2 : attribute_int(call->node, "axis", 1), length = -1;
    int at, status = one_integer(call, 1, &length);
    if (!status && as_input)
        status = one_integer(call, 2, &axis);
    if (status || (status = op_axis(call, axis, x->rank, &at)))
        return status;
    Fourier *f = &lines->f;
    int64_t parts = x->rank ? x->dim[x->rank - 1] : 0;
    if (x->rank < 2 || at == x->rank - 1 || (parts != 1 && parts != 2))
        return op_error(call, ONNXPRESS_FORMAT, "the last axis must hold numbers or pairs");
    lines->dim = x->dim[at];
    f->parts = (int)parts;
    f->n = length < 0 ? lines->dim : length;
    f->used = lines->dim < f->n ? lines->dim : f->n;
    f->inverse = attribute_int(call->node, "inverse", 0) != 0;
    bool onesided = attribute_int(call->node, "onesided", 0) != 0;
    if (onesided && (f->inverse || f->parts == 2))
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "a onesided transform is handled of real numbers, forwards");
    if (f->n < 1 || f->n > INT32_MAX)
        return op_error(call, ONNXPRESS_DATA, "a transform of length %lld", (long long)f->n);
    f->bins = onesided ? f->n / 2 + 1 : f->n;
    lines->shape = *x;
    lines->shape.dim[at] = f->bins;
    lines->shape.dim[x->rank - 1] = 2;
    lines->outer = dims_product(x, 0, at);
    lines->inner = dims_product(x, at + 1, x->rank - 1);
    return ONNXPRESS_OK;
}

/* Copies element j's parts of a line between its place in a tensor and a dense row. */
static void line_take(const Lines *l, const real *x, int64_t dim, int64_t n, int parts,
                      int64_t line, real *row)
{
    int64_t o = line / l->inner, i = line % l->inner;
    for (int64_t j = 0; j < n; j++)
        for (int p = 0; p < parts; p++)
            row[j * parts + p] = x[((o * dim + j) * l->inner + i) * parts + p];
}

static int dft_forward(const OpCall *call)
{
    Lines lines;
    int status = op_require(call, 1);
    if (status || (status = op_require_real(call, 0)) || (status = dft_plan(call, &lines)))
        return status;
    Fourier *f = &lines.f;
    if ((status = op_output(call, 0, call->in[0]->dtype, &lines.shape)) ||
        call->out[0]->count == 0 || (status = make_basis(call, f, false)))
        return status;
    real *row = op_scratch(call, (size_t)(f->used * f->parts) + 1, sizeof *row);
    real *result = op_scratch(call, (size_t)f->bins * 2, sizeof *result);
    if (!row || !result)
        return ONNXPRESS_MEMORY;
    real *y = call->out[0]->r;
    for (int64_t line = 0; line < lines.outer * lines.inner; line++) {
        int64_t o = line / lines.inner, i = line % lines.inner;
        line_take(&lines, call->in[0]->r, lines.dim, f->used, f->parts, line, row);
        transform_row(f, row, result);
        for (int64_t k = 0; k < f->bins; k++)
            memcpy(y + ((o * f->bins + k) * lines.inner + i) * 2, result + k * 2,
                   2 * sizeof *result);
    }
    return ONNXPRESS_OK;
}

static int dft_rule(const OpCall *call, bool squared)
{
    Lines lines;
    if (!call->d_in[0] || !call->d_out[0] || call->in[0]->count == 0)
        return ONNXPRESS_OK;
    int status = dft_plan(call, &lines);
    Fourier *f = &lines.f;
    if (status || (status = make_basis(call, f, squared)))
        return status;
    real *row = op_scratch(call, (size_t)(f->used * f->parts) + 1, sizeof *row);
    real *result = op_scratch(call, (size_t)f->bins * 2, sizeof *result);
    if (!row || !result)
        return ONNXPRESS_MEMORY;
    for (int64_t line = 0; line < lines.outer * lines.inner; line++) {
        int64_t o = line / lines.inner, i = line % lines.inner;
        line_take(&lines, call->d_out[0], f->bins, f->bins, 2, line, result);
        transform_back(f, result, row);
        for (int64_t j = 0; j < f->used; j++)
            add_dense(f->parts,
                      call->d_in[0] + ((o * lines.dim + j) * lines.inner + i) * f->parts,
                      row + j * f->parts);
    }
    return ONNXPRESS_OK;
}

static int dft_backward(const OpCall *call)
{
    return dft_rule(call, false);
}

static int dft_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear */
    return dft_rule(call, true);
}

/* STFT: frames of a signal [batch, length, 1 or 2], times a window. */
typedef struct {
    Fourier f;
    int64_t batch, length, step, frames;
    const Value *window; /* NULL: ones */
    Shape shape;
} Frames;

static int stft_plan(const OpCall *call, Frames *plan)
{
    const Shape *x = &call->in[0]->shape;
    *plan = (Frames){.window = op_in(call, 2), .step = 0};
    Fourier *f = &plan->f;
    int64_t n = plan->window ? plan->window->count : -1;
    int status = one_integer(call, 1, &plan->step);
    if (status || (status = one_integer(call, 3, &n)))
        return status;
    bool onesided = attribute_int(call->node, "onesided", 1) != 0;
    bool fits = x->rank == 3 && (x->dim[2] == 1 || x->dim[2] == 2) && plan->step > 0 && n > 0 &&
                (!plan->window || (plan->window->r && plan->window->count == n)) &&
                n <= x->dim[1] && n <= INT32_MAX;
    if (!fits)
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "this signal, frame step, window or frame length is not handled");
    f->parts = (int)x->dim[2];
    if (onesided && f->parts == 2)
        return op_error(call, ONNXPRESS_UNSUPPORTED,
                        "a onesided transform is handled of real numbers only");
    f->n = f->used = n;
    f->bins = onesided ? n / 2 + 1 : n;
    plan->batch = x->dim[0];
    plan->length = x->dim[1];
    plan->frames = (plan->length - n) / plan->step + 1;
    plan->shape = (Shape){.rank = 4, .dim = {plan->batch, plan->frames, f->bins, 2}};
    return ONNXPRESS_OK;
}

static int stft_forward(const OpCall *call)
{
    Frames plan;
    int status = op_require(call, 2);
    if (status || (status = op_require_real(call, 0)) || (status = stft_plan(call, &plan)))
        return status;
    Fourier *f = &plan.f;
    if ((status = op_output(call, 0, call->in[0]->dtype, &plan.shape)) ||
        call->out[0]->count == 0 || (status = make_basis(call, f, false)))
        return status;
    real *row = op_scratch(call, (size_t)(f->n * f->parts), sizeof *row);
    if (!row)
        return ONNXPRESS_MEMORY;
    for (int64_t frame = 0; frame < plan.batch * plan.frames; frame++) {
        const real *x = call->in[0]->r + (frame / plan.frames * plan.length +
                                          frame % plan.frames * plan.step) * f->parts;
        for (int64_t e = 0; e < f->n * f->parts; e++)
            row[e] = x[e] * (plan.window ? plan.window->r[e / f->parts] : 1);
        transform_row(f, row, call->out[0]->r + frame * f->bins * 2);
    }
    return ONNXPRESS_OK;
}

static int stft_backward(const OpCall *call)
{
    Frames plan;
    real *d_x = call->d_in[0], *d_window = op_d_in(call, 2);
    if ((!d_x && !d_window) || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = stft_plan(call, &plan);
    Fourier *f = &plan.f;
    if (status || (status = make_basis(call, f, false)))
        return status;
    real *row = op_scratch(call, (size_t)(f->n * f->parts), sizeof *row);
    if (!row)
        return ONNXPRESS_MEMORY;
    for (int64_t frame = 0; frame < plan.batch * plan.frames; frame++) {
        int64_t first = (frame / plan.frames * plan.length + frame % plan.frames * plan.step) *
                        f->parts;
        transform_back(f, call->d_out[0] + frame * f->bins * 2, row);
        for (int64_t e = 0; e < f->n * f->parts; e++) {
            if (d_x)
                d_x[first + e] += row[e] * (plan.window ? plan.window->r[e / f->parts] : 1);
            if (d_window)
                d_window[e / f->parts] += row[e] * call->in[0]->r[first + e];
        }
    }
    return ONNXPRESS_OK;
}

/* ---- mel filters: triangles over the bins of a transform ---- */
static void mel_triangle(const int64_t *edge, int64_t bins, int64_t columns, real *column)
{
    int64_t low = edge[0], centre = edge[1], high = edge[2];
    if (low == centre && centre < bins)
        column[centre * columns] = 1;
    for (int64_t j = low; low < centre && j <= centre && j < bins; j++)
        column[j * columns] = (real)((double)(j - low) / (double)(centre - low));
    for (int64_t j = centre; j < high && j < bins; j++)
        column[j * columns] = (real)((double)(high - j) / (double)(high - centre));
}

static int mel_forward(const OpCall *call)
{
    int64_t size[3] = {-1, -1, -1}; /* mel bins, transform, samples a second */
    int status = op_require(call, 5);
    for (int k = 0; k < 3 && !status; k++)
        status = one_integer(call, k, &size[k]);
    for (int k = 3; k < 5 && !status; k++)
        status = op_require_real(call, k);
    if (status)
        return status;
    int dtype = (int)attribute_int(call->node, "output_datatype", DTYPE_FLOAT);
    double from = call->in[3]->count == 1 ? (double)call->in[3]->r[0] : -1;
    double to = call->in[4]->count == 1 ? (double)call->in[4]->r[0] : -1;
    if (size[0] < 0 || size[1] < 1 || size[2] < 1 || !(from >= 0 && from <= to && to < 1e9) ||
        size[0] > INT32_MAX || size[1] > INT32_MAX || !dtype_is_real(dtype))
        return op_error(call, ONNXPRESS_DATA, "these sizes and limits make no mel filters");
    Shape shape = {.rank = 2, .dim = {size[1] / 2 + 1, size[0]}};
    if ((status = op_output(call, 0, dtype, &shape)))
        return status;
    Value *y = call->out[0];
    double low = 2595 * log10(1 + from / 700), high = 2595 * log10(1 + to / 700);
    memset(y->r, 0, (size_t)y->count * sizeof *y->r);
    for (int64_t column = 0; column < size[0] && y->count > 0; column++) {
        int64_t edge[3];
        for (int k = 0; k < 3; k++) {
            double mel = low + (double)(column + k) * (high - low) / (double)(size[0] + 2);
            double hertz = 700 * (pow(10, mel / 2595) - 1);
            edge[k] = (int64_t)floor((double)(size[1] + 1) * hertz / (double)size[2]);
        }
        mel_triangle(edge, shape.dim[0], size[0], y->r + column);
    }
    return ONNXPRESS_OK;
}

static const OpRow rows[] = {
    {"", "HannWindow", 17, 0, .forward = hann_forward},
    {"", "HammingWindow", 17, 0, .forward = hamming_forward},
    {"", "BlackmanWindow", 17, 0, .forward = blackman_forward},
    {"", "DFT", 17, OP_KEEP_INPUTS, .read = read_dft, .forward = dft_forward,
     .backward = dft_backward, .curvature = dft_curvature},
    {"", "STFT", 17, OP_KEEP_INPUTS, .forward = stft_forward, .backward = stft_backward},
    {"", "MelWeightMatrix", 17, 0, .forward = mel_forward},
};

const OpFamily op_family_signal = {rows, sizeof rows / sizeof rows[0]};
