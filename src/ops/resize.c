/* SPDX-License-Identifier: Apache-2.0
 *
 * Resize and Upsample: one axis after the other, each a sparse matrix (resize_axis.c). */
#include "ops/resize_internal.h"

#include <string.h>

#define LONGEST ((int64_t)1 << 40) /* elements of an axis; far from overflow */

typedef enum { STRETCH, NOT_LARGER, NOT_SMALLER } AspectPolicy;

typedef struct {
    ResizeRule rule;
    float extrapolation;
    int scales_at, sizes_at, roi_at; /* inputs; -1: there is none */
    int n_scales;                    /* of the attribute; -1: none */
    const float *scales;
    int n_axes; /* -1: all */
    const int64_t *axes;
    AspectPolicy policy;
} Resize;

/* The position of a word attribute in a list; -1: not there. */
static int word_of(const OpNode *node, const char *name, const char *const *words, int n)
{
    const char *word = attribute_string(node, name, words[0]);
    for (int k = 0; k < n; k++)
        if (strcmp(word, words[k]) == 0)
            return k;
    return -1;
}

/* The attributes of opset 11 and later; their defaults stand first. */
static int read_rule(OpNode *node, Resize *resize, Error *err)
{
    static const char *const coordinates[] = {
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
        "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"};
    static const char *const roundings[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil"};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller"};
    int how = word_of(node, "coordinate_transformation_mode", coordinates, 7);
    int rounding = word_of(node, "nearest_mode", roundings, 4);
    int policy = word_of(node, "keep_aspect_ratio_policy", policies, 3);
    if (how < 0 || rounding < 0 || policy < 0)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "%s holds a word that is not known",
                          how < 0        ? "coordinate_transformation_mode"
                          : rounding < 0 ? "nearest_mode"
                                         : "keep_aspect_ratio_policy");
    resize->rule.coordinates = (ResizeCoordinates)how;
    resize->rule.rounding = (ResizeRounding)rounding;
    resize->policy = (AspectPolicy)policy;
    resize->rule.exclude_outside = attribute_int(node, "exclude_outside", 0) != 0;
    resize->rule.antialias = attribute_int(node, "antialias", 0) != 0;
    resize->rule.cubic_a = attribute_float(node, "cubic_coeff_a", -0.75f);
    resize->extrapolation = attribute_float(node, "extrapolation_value", 0);
    resize->n_axes = attribute_ints(node, "axes", &resize->axes);
    if (resize->n_axes > TENSOR_MAX_RANK)
        return read_error(node, err, ONNXPRESS_FORMAT, "%d axes", resize->n_axes);
    return ONNXPRESS_OK;
}

static int read_resize(OpNode *node, Arena *arena, Error *err)
{
    static const char *const modes[] = {"nearest", "linear", "cubic", "bilinear"};
    Resize *resize = arena_array(arena, 1, sizeof *resize);
    if (!resize)
        return error_memory(err, "a node's parameters");
    int mode = word_of(node, "mode", modes, 4);
    if (mode < 0)
        return read_error(node, err, ONNXPRESS_UNSUPPORTED, "mode is not known");
    *resize = (Resize){.scales_at = -1, .sizes_at = -1, .roi_at = -1, .n_scales = -1, .n_axes = -1};
    resize->rule.mode = mode == 3 ? RESIZE_LINEAR : (ResizeMode)mode;
    node->params = resize;
    bool upsample = strcmp(node->row->type, "Upsample") == 0;
    if (!upsample && node->opset >= 11) {
        resize->roi_at = 1;
        resize->scales_at = 2;
        resize->sizes_at = 3;
        return read_rule(node, resize, err);
    }
    resize->rule.coordinates = ASYMMETRIC;
    resize->rule.rounding = upsample ? ROUND_DOWN : ROUND_BY_DIRECTION;
    if (upsample && node->opset < 9)
        resize->n_scales = attribute_floats(node, "scales", &resize->scales);
    else
        resize->scales_at = 1;
    return ONNXPRESS_OK;
}

/* Input k, when it is there and not an empty placeholder. */
static const Value *list_input(const OpCall *call, int k)
{
    const Value *list = k < 0 ? NULL : op_in(call, k);
    return list && list->count > 0 ? list : NULL;
}

/* The axes that lists speak of, in their order. */
static int listed_axes(const OpCall *call, int *axes, int *n)
{
    const Resize *resize = call->node->params;
    int rank = call->in[0]->shape.rank, status;
    bool marked[TENSOR_MAX_RANK];
    *n = resize->n_axes < 0 ? rank : resize->n_axes;
    if (resize->n_axes >= 0 && (status = op_mark_axes(call, resize->axes, *n, rank, marked)))
        return status;
    for (int k = 0; k < *n; k++)
        axes[k] = resize->n_axes < 0 ? k : shape_axis(resize->axes[k], rank);
    return ONNXPRESS_OK;
}

static int by_scales(const OpCall *call, const float *given, const Value *input, const int *list,
                     int n, ResizeAxis *axes)
{
    for (int k = 0; k < n; k++) {
        ResizeAxis *axis = &axes[list[k]];
        axis->scale = given ? given[k] : (float)input->r[k];
        float length = (float)axis->in * axis->scale;
        if (!(axis->scale > 0) || !(length < (float)LONGEST))
            return op_error(call, ONNXPRESS_FORMAT, "axis %d is scaled by %g", list[k],
                            (double)axis->scale);
        axis->out = (int64_t)length;
    }
    return ONNXPRESS_OK;
}

static int by_sizes(const OpCall *call, const int64_t *sizes, const int *list, int n,
                    ResizeAxis *axes)
{
    const Resize *resize = call->node->params;
    float common = 0;
    for (int k = 0; k < n; k++) {
        ResizeAxis *axis = &axes[list[k]];
        if (sizes[k] < 0 || sizes[k] > LONGEST || (axis->in == 0 && sizes[k] > 0))
            return op_error(call, ONNXPRESS_FORMAT, "axis %d of %lld gets the size %lld", list[k],
                            (long long)axis->in, (long long)sizes[k]);
        axis->out = sizes[k];
        axis->scale = axis->in ? (float)sizes[k] / (float)axis->in : 1;
        bool better = resize->policy == NOT_LARGER ? axis->scale < common : axis->scale > common;
        common = k == 0 || better ? axis->scale : common;
    }
    for (int k = 0; k < n && resize->policy != STRETCH; k++) {
        ResizeAxis *axis = &axes[list[k]];
        float length = floorf(common * (float)axis->in + 0.5f);
        if (!(length < (float)LONGEST))
            return op_error(call, ONNXPRESS_FORMAT, "the aspect ratio gives %g elements",
                            (double)length);
        axis->out = (int64_t)length;
        axis->scale = common;
    }
    return ONNXPRESS_OK;
}

/* Lengths and scales of every axis, and the result's shape. */
static int describe(const OpCall *call, ResizeAxis *axes, Shape *shape)
{
    const Resize *resize = call->node->params;
    const Shape *x = &call->in[0]->shape;
    const Value *scales = list_input(call, resize->scales_at),
                *sizes = list_input(call, resize->sizes_at),
                *roi = resize->rule.coordinates == TF_CROP_AND_RESIZE
                           ? list_input(call, resize->roi_at)
                           : NULL;
    int list[TENSOR_MAX_RANK], n, n_sizes, status = listed_axes(call, list, &n);
    const int64_t *wanted;
    for (int a = 0; a < x->rank; a++)
        axes[a] = (ResizeAxis){x->dim[a], x->dim[a], 1, 0, 1};
    if (status || (roi && (status = op_require_real(call, resize->roi_at))) ||
        (scales && (status = op_require_real(call, resize->scales_at))))
        return status;
    if ((sizes && scales) || (!sizes && !scales && resize->n_scales < 0))
        return op_error(call, ONNXPRESS_FORMAT, "either scales or sizes must be given");
    if (sizes && (status = op_list(call, resize->sizes_at, TENSOR_MAX_RANK, &wanted, &n_sizes)))
        return status;
    int64_t given = sizes ? sizes->count : scales ? scales->count : resize->n_scales;
    if (given != n || (roi && roi->count != 2 * n))
        return op_error(call, ONNXPRESS_FORMAT, "scales, sizes or roi do not fit %d axes", n);
    status = sizes ? by_sizes(call, wanted, list, n, axes)
                   : by_scales(call, scales ? NULL : resize->scales, scales, list, n, axes);
    for (int k = 0; roi && k < n; k++) {
        axes[list[k]].start = (float)roi->r[k];
        axes[list[k]].end = (float)roi->r[n + k];
    }
    shape->rank = x->rank;
    for (int a = 0; a < x->rank; a++)
        shape->dim[a] = axes[a].out;
    return status;
}

/* What is to be done: the axes that change, in order. */
typedef struct {
    int n, axis[TENSOR_MAX_RANK];
    AxisTaps taps[TENSOR_MAX_RANK];
    Shape shape[TENSOR_MAX_RANK + 1]; /* before axis k of the list; the last: the result */
    int64_t most;                     /* elements of the largest of them */
} Plan;

static int make_plan(const OpCall *call, const ResizeAxis *axes, Plan *plan)
{
    const Resize *resize = call->node->params;
    plan->shape[0] = call->in[0]->shape;
    plan->most = plan->n = 0;
    for (int a = 0; a < call->in[0]->shape.rank; a++) {
        bool cut = axes[a].start != 0 || axes[a].end != 1;
        if (axes[a].scale == 1 && axes[a].in == axes[a].out && !cut)
            continue;
        if (axes[a].scale == 1 && axes[a].in == axes[a].out)
            return op_error(call, ONNXPRESS_UNSUPPORTED,
                            "axis %d is cropped to its own size (runtimes disagree)", a);
        int64_t count;
        Shape *next = &plan->shape[plan->n + 1];
        *next = plan->shape[plan->n];
        next->dim[a] = axes[a].out;
        if (!shape_count(next, &count))
            return op_error(call, ONNXPRESS_FORMAT, "the result's shape is not possible");
        plan->most = count > plan->most ? count : plan->most;
        int status = resize_taps(call, &resize->rule, &axes[a], &plan->taps[plan->n]);
        if (status)
            return status;
        plan->axis[plan->n++] = a;
    }
    return ONNXPRESS_OK;
}

/* One axis: `from` [outer][in][inner] to `to` [outer][out][inner]. */
static void pass_forward(const AxisTaps *taps, int64_t outer, int64_t inner, const real *from,
                         real *to)
{
    memset(to, 0, (size_t)(outer * taps->out * inner) * sizeof *to);
    for (int64_t b = 0; b < outer; b++, from += taps->in * inner)
        for (int64_t o = 0; o < taps->out; o++, to += inner)
            for (int t = 0; t < taps->taps; t++) {
                real w = taps->weight[o * taps->taps + t];
                const real *source = from + taps->index[o * taps->taps + t] * inner;
                for (int64_t i = 0; w != 0 && i < inner; i++)
                    to[i] += w * source[i];
            }
}

/* Its transpose, added to d_from; `square`: with the weights squared. */
static void pass_backward(const AxisTaps *taps, int64_t outer, int64_t inner, bool square,
                          const real *d_to, real *d_from)
{
    for (int64_t b = 0; b < outer; b++, d_from += taps->in * inner)
        for (int64_t o = 0; o < taps->out; o++, d_to += inner)
            for (int t = 0; t < taps->taps; t++) {
                real w = taps->weight[o * taps->taps + t];
                real *target = d_from + taps->index[o * taps->taps + t] * inner;
                w = square ? w * w : w;
                for (int64_t i = 0; w != 0 && i < inner; i++)
                    target[i] += w * d_to[i];
            }
}

static void pass_integers(const AxisTaps *taps, int64_t outer, int64_t inner, const int64_t *from,
                          int64_t *to)
{
    for (int64_t b = 0; b < outer; b++, from += taps->in * inner)
        for (int64_t o = 0; o < taps->out; o++, to += inner)
            memcpy(to, from + taps->index[o] * inner, (size_t)inner * sizeof *to);
}

static int64_t outer_of(const Plan *plan, int k)
{
    return dims_product(&plan->shape[k], 0, plan->axis[k]);
}

static int64_t inner_of(const Plan *plan, int k)
{
    return dims_product(&plan->shape[k], plan->axis[k] + 1, plan->shape[k].rank);
}

/* Writes `value` wherever one axis lies outside of the input. */
static void fill_outside(const Plan *plan, real *y, real value)
{
    const Shape *shape = &plan->shape[plan->n];
    for (int k = 0; k < plan->n; k++) {
        int64_t outer = dims_product(shape, 0, plan->axis[k]), out = shape->dim[plan->axis[k]];
        int64_t inner = dims_product(shape, plan->axis[k] + 1, shape->rank);
        for (int64_t line = 0; plan->taps[k].outside && line < outer * out; line++)
            for (int64_t i = 0; plan->taps[k].outside[line % out] && i < inner; i++)
                y[line * inner + i] = value;
    }
}

/* Two rooms for what lies between passes, as large as any of it. */
static int make_rooms(const OpCall *call, const Plan *plan, real *room[2])
{
    room[0] = op_scratch(call, (size_t)plan->most, sizeof **room);
    room[1] = room[0] ? op_scratch(call, (size_t)plan->most, sizeof **room) : NULL;
    return room[1] ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
}

static int run_forward(const OpCall *call, const Plan *plan)
{
    const Resize *resize = call->node->params;
    real *room[2] = {NULL}; /* integers are of 8 bytes, reals of 4 or 8 */
    const Value *x = call->in[0];
    bool is_real = dtype_is_real(x->dtype);
    void *from = value_data(x);
    if (plan->n > 1) {
        int64_t elements = plan->most * (int64_t)(is_real ? 1 : sizeof(int64_t) / sizeof(real));
        Plan larger = {.most = elements};
        int status = make_rooms(call, &larger, room);
        if (status)
            return status;
    }
    for (int k = 0; k < plan->n; k++) {
        void *to = k + 1 == plan->n ? value_data(call->out[0]) : room[k % 2];
        if (is_real)
            pass_forward(&plan->taps[k], outer_of(plan, k), inner_of(plan, k), from, to);
        else
            pass_integers(&plan->taps[k], outer_of(plan, k), inner_of(plan, k), from, to);
        from = to;
    }
    if (is_real)
        fill_outside(plan, call->out[0]->r, (real)resize->extrapolation);
    return ONNXPRESS_OK;
}

static int resize_forward(const OpCall *call)
{
    const Resize *resize = call->node->params;
    ResizeAxis axes[TENSOR_MAX_RANK];
    Plan plan;
    Shape shape;
    int status = op_require(call, 1);
    if (status || (status = describe(call, axes, &shape)))
        return status;
    const Value *x = call->in[0];
    bool plain =
        resize->rule.mode == RESIZE_NEAREST && resize->rule.coordinates != TF_CROP_AND_RESIZE;
    if (!plain && (status = op_require_real(call, 0)))
        return status;
    if ((status = op_output(call, 0, x->dtype, &shape)) || call->out[0]->count == 0)
        return status;
    if ((status = make_plan(call, axes, &plan)))
        return status;
    if (plan.n)
        return run_forward(call, &plan);
    memcpy(value_data(call->out[0]), value_data(x), (size_t)x->count * value_element(x));
    return ONNXPRESS_OK;
}

static int resize_add(const OpCall *call, bool square)
{
    ResizeAxis axes[TENSOR_MAX_RANK];
    Plan plan;
    Shape shape;
    real *room[2];
    if (!call->d_in[0] || !call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = describe(call, axes, &shape);
    if (status || (status = make_plan(call, axes, &plan)) ||
        (status = make_rooms(call, &plan, room)))
        return status;
    if (plan.n == 0) {
        add_dense(call->in[0]->count, call->d_in[0], call->d_out[0]);
        return ONNXPRESS_OK;
    }
    const real *d = call->d_out[0];
    if (plan.taps[0].outside) { /* what is extrapolated depends on nothing */
        memcpy(room[plan.n % 2], d, (size_t)call->out[0]->count * sizeof *d);
        fill_outside(&plan, room[plan.n % 2], 0);
        d = room[plan.n % 2];
    }
    for (int k = plan.n - 1; k >= 0; k--) {
        real *to = k ? room[k % 2] : call->d_in[0];
        int64_t outer = outer_of(&plan, k), inner = inner_of(&plan, k);
        if (k)
            memset(to, 0, (size_t)(outer * plan.taps[k].in * inner) * sizeof *to);
        pass_backward(&plan.taps[k], outer, inner, square, d, to);
        d = to;
    }
    return ONNXPRESS_OK;
}

static int resize_backward(const OpCall *call)
{
    return resize_add(call, false);
}

static int resize_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear */
    return resize_add(call, true);
}

static const OpRow rows[] = {
    {"", "Resize", 10, OP_KEEP_INPUTS, read_resize, resize_forward, resize_backward,
     .curvature = resize_curvature},
    {"", "Upsample", 7, OP_KEEP_INPUTS, read_resize, resize_forward, resize_backward,
     .curvature = resize_curvature},
};

const OpFamily op_family_resize = {rows, sizeof rows / sizeof rows[0]};
