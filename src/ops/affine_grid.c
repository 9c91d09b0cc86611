/* SPDX-License-Identifier: Apache-2.0
 *
 * AffineGrid: the places that affine maps give to the elements of an image, for GridSample. */
#include "ops/support_internal.h"

enum { MOST_AXES = 3 };

typedef struct {
    int axes;
    int64_t samples, length[MOST_AXES], places;
    Shape shape;
} AffineShape;

static int affine_shape(const OpCall *call, AffineShape *s)
{
    const Shape *theta = &call->in[0]->shape;
    const int64_t *size;
    int n, status = op_list(call, 1, TENSOR_MAX_RANK, &size, &n);
    if (status)
        return status;
    s->axes = n - 2;
    if (s->axes < 1 || s->axes > MOST_AXES)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "a size of %d numbers", n);
    if (theta->rank != 3 || theta->dim[0] != size[0] || theta->dim[1] != s->axes ||
        theta->dim[2] != s->axes + 1)
        return op_error(call, ONNXPRESS_FORMAT, "theta does not fit the size");
    s->samples = size[0];
    s->shape = (Shape){.rank = n, .dim = {size[0]}};
    for (int a = 0; a < s->axes; a++)
        s->length[a] = s->shape.dim[1 + a] = size[2 + a];
    s->shape.dim[n - 1] = s->axes;
    int64_t count;
    if (!shape_count(&s->shape, &count))
        return op_error(call, ONNXPRESS_FORMAT, "the size is not possible");
    s->places = dims_product(&s->shape, 1, n - 1);
    return ONNXPRESS_OK;
}

/* The place's coordinates from -1 to 1, the last axis first, and 1 for the shift. */
static void coordinates(const OpCall *call, const AffineShape *s, int64_t place, real *x)
{
    bool align = attribute_int(call->node, "align_corners", 0) != 0;
    for (int a = s->axes - 1; a >= 0; a--) {
        int64_t length = s->length[a], at = place % length;
        place /= length;
        real span = (real)(align ? length - 1 : length);
        x[s->axes - 1 - a] = span > 0 ? (real)(2 * at + !align) / span - 1 : 0;
    }
    x[s->axes] = 1;
}

static int affine_forward(const OpCall *call)
{
    AffineShape s;
    int status = op_require_reals(call, 2, 1);
    if (status || (status = affine_shape(call, &s)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &s.shape)))
        return status;
    real *y = call->out[0]->r, x[MOST_AXES + 1];
    for (int64_t n = 0; n < s.samples; n++)
        for (int64_t p = 0; p < s.places; p++) {
            const real *theta = call->in[0]->r + n * s.axes * (s.axes + 1);
            coordinates(call, &s, p, x);
            for (int i = 0; i < s.axes; i++, y++) {
                *y = 0;
                for (int j = 0; j <= s.axes; j++)
                    *y += *theta++ * x[j];
            }
        }
    return ONNXPRESS_OK;
}

static int affine_add(const OpCall *call, bool square)
{
    AffineShape s;
    if (!call->d_in[0] || !call->d_out[0])
        return ONNXPRESS_OK;
    int status = affine_shape(call, &s);
    const real *d = call->d_out[0];
    real x[MOST_AXES + 1];
    for (int64_t n = 0; !status && n < s.samples; n++)
        for (int64_t p = 0; p < s.places; p++) {
            real *theta = call->d_in[0] + n * s.axes * (s.axes + 1);
            coordinates(call, &s, p, x);
            for (int i = 0; i < s.axes; i++, d++)
                for (int j = 0; j <= s.axes; j++)
                    *theta++ += *d * x[j] * (square ? x[j] : 1);
        }
    return status;
}

static int affine_backward(const OpCall *call)
{
    return affine_add(call, false);
}

static int affine_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear */
    return affine_add(call, true);
}

static const OpRow rows[] = {
    {"", "AffineGrid", 20, OP_KEEP_INPUTS, .forward = affine_forward, .backward = affine_backward,
     .curvature = affine_curvature},
};

const OpFamily op_family_affine_grid = {rows, sizeof rows / sizeof rows[0]};
