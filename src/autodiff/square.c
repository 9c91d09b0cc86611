/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"
#include "ops/walk.h"

#include <string.h>

/* Squares of each sample's gradient can be summed in one sweep over a whole batch when the samples
 * stay apart, along axis 0, on every way from a weight to an output. What follows errs on the side
 * of "no": the caller then runs one sample at a time. */

static int64_t run_samples(const Exec *exec)
{
    const Program *program = exec->program;
    int64_t samples = exec->samples;
    for (int k = 0; k < program->n_inputs && !exec->samples; k++) {
        const Shape *shape = &exec->values[program->input_value[k]].shape;
        if (shape->rank < 1 || (k && shape->dim[0] != samples))
            return 0;
        samples = shape->dim[0];
    }
    return samples;
}

static bool op_is(const Step *step, const char *type)
{
    return strcmp(step->op.proto->op_type, type) == 0;
}

static bool is_tainted(const Exec *exec, int v)
{
    return v >= 0 && exec->program->values[v].tainted;
}

static bool names_axis_0(const int64_t *axes, int64_t n, int rank)
{
    for (int64_t k = 0; k < n; k++)
        if (shape_axis(axes[k], rank) == 0)
            return true;
    return n == 0; /* an empty list means all axes */
}

/* Axis 0 of a factor with samples must be a batch axis of the product, or the rows of the left. */
static bool matmul_mixes(const Exec *exec, const Step *step)
{
    if (step->op.n_in < 2 || step->in[0] < 0 || step->in[1] < 0)
        return true;
    int left = exec->values[step->in[0]].shape.rank, right = exec->values[step->in[1]].shape.rank;
    bool in_left = is_tainted(exec, step->in[0]), in_right = is_tainted(exec, step->in[1]);
    if (in_left && in_right)
        return left != right || left < 3;
    return in_left ? left < right || left < 2 : right < left || right < 3;
}

/* Axis 0 is scaled or cropped, though it may keep its length. */
static bool resize_mixes(const Exec *exec, const Step *step)
{
    const int64_t *axes;
    int n = attribute_ints(&step->op, "axes", &axes), rank = exec->values[step->in[0]].shape.rank;
    if (n >= 0 && names_axis_0(axes, n, rank))
        return true;
    for (int k = 1; k < step->op.n_in && n < 0; k++) {
        const Value *list = step->in[k] < 0 ? NULL : &exec->values[step->in[k]];
        if (list && list->r && list->count > 0 && (list->count != rank || list->r[0] != 1))
            return true;
    }
    return false;
}

/* Ops with one axis. Their defaults differ by version; an axis that is not spelled out is taken for
 * 0, but the softmaxes' old default of 1 and the later one of -1 both keep samples apart, and
 * normalizations always had -1. *listed: it is one of them. */
static bool mixes_by_axis(const Step *step, int rank, bool *listed)
{
    static const char *const softmaxes[] = {"Softmax", "LogSoftmax"};
    static const char *const normalizations[] = {"LayerNormalization", "RMSNormalization",
                                                 "SimplifiedLayerNormalization", "LpNormalization"};
    static const char *const others[] = {"Hardmax",  "Concat", "Split",  "Gather",
                                         "CumSum",   "ArgMax", "ArgMin", "GatherElements",
                                         "Compress", "TopK"};
    const char *type = step->op.proto->op_type;
    bool softmax = NAME_IN(type, softmaxes), last = NAME_IN(type, normalizations);
    *listed = softmax || last || NAME_IN(type, others);
    int64_t fallback = softmax ? (rank > 1 ? 1 : 0) : last ? -1 : 0;
    return *listed && shape_axis(attribute_int(&step->op, "axis", fallback), rank) <= 0;
}

/* Ops with a list of axes, as an attribute or as an input: that counts when its values are still
 * there. An op that reads them in backward keeps them, and constants are always there. */
static bool mixes_by_axes(const Exec *exec, const Step *step, int rank)
{
    static const char *const types[] = {"Slice", "Squeeze", "Unsqueeze",
                                        "MeanVarianceNormalization"};
    const char *type = step->op.proto->op_type;
    if (strncmp(type, "Reduce", 6) != 0 && !NAME_IN(type, types))
        return false;
    const int64_t *axes;
    int n = attribute_ints(&step->op, "axes", &axes);
    if (n >= 0)
        return names_axis_0(axes, n, rank);
    int from = op_is(step, "Slice") ? 3 : 1;
    if (step->op.n_in <= from || step->in[from] < 0)
        return true; /* axes 0, 1, … or all of them */
    const Value *list = &exec->values[step->in[from]];
    return !list->i || names_axis_0(list->i, list->count, rank);
}

/* Whether the op combines or moves elements along axis 0 though its output's axis 0 may be as long.
 */
static bool mixes_samples(const Exec *exec, const Step *step)
{
    static const char *const broadcasts[] = {"Add", "Sub", "Mul", "Div",  "Pow",
                                             "Min", "Max", "Sum", "Where"};
    const char *type = step->op.proto->op_type;
    int data = -1, rank;
    for (int k = 0; k < step->op.n_in && data < 0; k++)
        if (is_tainted(exec, step->in[k]))
            data = k;
    if (data < 0)
        return false;
    rank = exec->values[step->in[data]].shape.rank;
    if (op_is(step, "Transpose")) {
        const int64_t *perm;
        int n = attribute_ints(&step->op, "perm", &perm);
        return n > 0 ? perm[0] != 0 : rank > 1;
    }
    if (op_is(step, "FusedMatMul") || op_is(step, "TransposeMatMul"))
        return true;
    if (op_is(step, "Gemm") || op_is(step, "FusedGemm"))
        return data != 0 || attribute_int(&step->op, "transA", 0) || is_tainted(exec, step->in[1]);
    if (op_is(step, "MatMul"))
        return matmul_mixes(exec, step);
    if (op_is(step, "LSTM") || op_is(step, "GRU") || op_is(step, "RNN"))
        return attribute_int(&step->op, "layout", 0) != 1; /* else axis 0 is time */
    if (op_is(step, "If"))
        return is_tainted(exec, step->in[0]); /* each sample would choose for itself */
    if (op_is(step, "ReverseSequence"))
        return data != 0 || rank < 2 ||
               shape_axis(attribute_int(&step->op, "time_axis", 0), rank) <= 0;
    if (strstr(type, "Sequence"))
        return true; /* what lies along axis 0 of its items is not seen here */
    if (op_is(step, "Resize") || op_is(step, "Upsample"))
        return data != 0 || resize_mixes(exec, step);
    if (strncmp(type, "Gather", 6) == 0 && data != 0)
        return false; /* samples' indices into a table */
    for (int j = data + 1; NAME_IN(type, broadcasts) && j < step->op.n_in; j++)
        if (is_tainted(exec, step->in[j]) && exec->values[step->in[j]].shape.rank != rank)
            return true;
    bool listed, mixes = mixes_by_axis(step, rank, &listed);
    return listed ? mixes : mixes_by_axes(exec, step, rank);
}

/* A value computed from weights alone, or a weight, whose gradient is wanted. */
static bool is_parameter(const Exec *exec, int v)
{
    return v >= 0 && exec->needs[v] && !exec->program->values[v].tainted;
}

/* A step that only moves the elements of a parameter: squares pass through it as gradients do. */
static bool carries_parameter(const Exec *exec, const Step *step)
{
    static const char *const carriers[] = {"Identity",  "Reshape",   "Flatten", "Squeeze",
                                           "Unsqueeze", "Transpose", "Cast",    "Dropout"};
    return NAME_IN(step->op.proto->op_type, carriers) && step->op.n_in > 0 &&
           is_parameter(exec, step->in[0]) && step->out[0] >= 0 &&
           exec->values[step->in[0]].count == exec->values[step->out[0]].count;
}

/* Every parameter that samples meet here can be squared for these shapes. */
static bool inputs_have_square(const Exec *exec, const Step *step, int64_t samples)
{
    for (int k = 0; k < step->op.n_in; k++) {
        if (!is_parameter(exec, step->in[k]))
            continue;
        bool data = false;
        for (int j = 0; j < step->op.n_in; j++) {
            if (j == k || !is_tainted(exec, step->in[j]))
                continue;
            const Shape *shape = &exec->values[step->in[j]].shape;
            if (shape->rank < 1 || shape->dim[0] != samples)
                return false;
            data = true;
        }
        OpCall call;
        Error ignored = {0};
        /* The argument lists are scratch of the Exec: what it has computed is not changed. */
        exec_call((Exec *)(uintptr_t)exec, step, &call, &ignored);
        if (!data || !step->op.row->square || step->op.row->square(&call, k, NULL) != ONNXPRESS_OK)
            return false;
    }
    return true;
}

static bool step_squares(const Exec *exec, const Step *step, int64_t samples)
{
    const Program *program = exec->program;
    bool differentiable = false, parameter = false;
    for (int k = 0; k < step->op.n_out; k++) {
        int v = step->out[k];
        if (v < 0 || !exec->needs[v])
            continue;
        differentiable = true;
        parameter |= !program->values[v].tainted;
        const Shape *shape = &exec->values[v].shape;
        if (!parameter && (shape->rank < 1 || shape->dim[0] != samples))
            return false;
    }
    if (!differentiable)
        return true;
    for (int k = 0; k < step->op.n_in; k++) /* gradients of several uses add before squaring */
        if (is_parameter(exec, step->in[k]) &&
            (program->values[step->in[k]].n_readers != 1 || program->values[step->in[k]].is_output))
            return false;
    return parameter ? carries_parameter(exec, step) : inputs_have_square(exec, step, samples);
}

bool exec_square_batches(const Exec *exec)
{
    const Program *program = exec->program;
    int64_t samples = run_samples(exec);
    if (!exec->ran || samples < 1)
        return false;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        if (step->loop >= 0 || step->holds >= 0)
            return false; /* rounds add up before squaring */
        if (exec->done[s] && (mixes_samples(exec, step) || !step_squares(exec, step, samples)))
            return false;
    }
    /* A parameter that is an output itself is of no sample. */
    for (int o = 0; o < program->n_outputs; o++)
        if (is_parameter(exec, program->output_value[o]))
            return false;
    return true;
}

int exec_square(Exec *exec, const real *const *d_outputs, real *const *acc, Error *err)
{
    const Program *program = exec->program;
    if (exec_square_batches(exec) && run_samples(exec) > 1)
        return exec_sweep(exec, d_outputs, acc, err);
    int status = exec_sweep(exec, d_outputs, NULL, err);
    for (int w = 0; !status && w < program->n_weights; w++) {
        const real *gradient = exec_gradient(exec, w);
        for (int64_t i = 0; gradient && acc[w] && i < program->weights[w].count; i++)
            acc[w][i] += gradient[i] * gradient[i];
    }
    return status;
}
