/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/build.h"
#include "model/graph.h"
#include "rewrite/rewrite_internal.h"

/* Batch normalization at inference is affine a channel, so the convolution before it can do its work:
 * with f = scale / sqrt(variance + epsilon), weights w f and bias (b - mean) f + shift. */

enum { INPUT, SCALE, SHIFT, MEAN, VARIANCE, NORM_INPUTS };

typedef struct {
    Onnx__TensorProto *proto; /* NULL: there is none */
    Tensor view;
} Initializer;

typedef struct {
    Onnx__NodeProto *conv, *norm;
    Initializer weight, bias;
    Initializer of[NORM_INPUTS];
    bool own_bias;       /* nothing else reads the convolution's */
    float epsilon;
} Pair;

/* The initializer at an input: of floats, and no graph input that a caller may set. */
static bool read_initializer(Model *model, const Graph *graph, int v, Initializer *found,
                             Error *err)
{
    const GraphValue *value = v >= 0 ? &graph->values[v] : NULL;
    found->proto = value ? (Onnx__TensorProto *)(uintptr_t)value->init : NULL;
    return found->proto && !value->is_constant_node && !value->is_input &&
           !value->is_output && value->body < 0 && value->init->data_type == DTYPE_FLOAT &&
           !model_tensor(model, value->init, value->name, &found->view, err);
}

static bool is_op(const Graph *graph, int node, const char *type)
{
    const Onnx__NodeProto *proto = node >= 0 ? graph->nodes[node] : NULL;
    /* With bodies a node would have more inputs in the graph than in its message. */
    return proto && graph->node_body[node] < 0 && graph->first_body[node] < 0 &&
           node_is(proto, type);
}

/* Whether normalization `n` folds; fills in the pair. */
static bool read_pair(Model *model, const Graph *graph, int n, Pair *pair, Error *err)
{
    const int *in = graph->inputs[n];
    const Onnx__NodeProto *norm = graph->nodes[n];
    if (!is_op(graph, n, "BatchNormalization") || graph->n_inputs[n] != NORM_INPUTS ||
        node_int(norm, "training_mode", 0) || !node_int(norm, "spatial", 1) || in[INPUT] < 0)
        return false;
    for (size_t k = 1; k < norm->n_output; k++)
        if (*norm->output[k])
            return false;
    const GraphValue *between = &graph->values[in[INPUT]];
    int c = between->producer;
    if (!is_op(graph, c, "Conv") || between->n_uses != 1 || between->is_output ||
        graph->n_inputs[c] < 2)
        return false;
    const int *of_conv = graph->inputs[c];
    *pair = (Pair){.conv = (Onnx__NodeProto *)(uintptr_t)graph->nodes[c],
                   .norm = (Onnx__NodeProto *)(uintptr_t)norm,
                   .epsilon = 1e-5f};
    const Onnx__AttributeProto *epsilon = node_attribute(norm, "epsilon");
    if (epsilon)
        pair->epsilon = epsilon->f;
    if (!read_initializer(model, graph, of_conv[1], &pair->weight, err) ||
        graph->values[of_conv[1]].n_uses != 1 || pair->weight.view.shape.rank < 3)
        return false;
    int64_t channels = pair->weight.view.shape.dim[0];
    for (int k = SCALE; k < NORM_INPUTS; k++)
        if (!read_initializer(model, graph, in[k], &pair->of[k], err) ||
            pair->of[k].view.count != channels || graph->values[in[k]].n_uses != 1)
            return false;
    if (graph->n_inputs[c] < 3 || of_conv[2] < 0)
        return true;
    pair->own_bias = graph->values[of_conv[2]].n_uses == 1;
    return read_initializer(model, graph, of_conv[2], &pair->bias, err) &&
           pair->bias.view.count == channels;
}

/* The new weights and bias; false: some are not finite, and the pair stays as it is. */
static bool compute(const Pair *pair, float *weight, float *bias)
{
    const float *w = pair->weight.view.data, *b = pair->bias.view.data;
    const float *of[NORM_INPUTS];
    int64_t channels = pair->weight.view.shape.dim[0];
    int64_t row = channels ? pair->weight.view.count / channels : 0;
    double probe = 0;
    for (int k = SCALE; k < NORM_INPUTS; k++)
        of[k] = pair->of[k].view.data;
    for (int64_t c = 0; c < channels; c++) {
        double factor = (double)of[SCALE][c] / sqrt((double)of[VARIANCE][c] + (double)pair->epsilon);
        double before = b ? (double)b[c] : 0;
        bias[c] = (float)((before - (double)of[MEAN][c]) * factor + (double)of[SHIFT][c]);
        probe += 0 * (double)bias[c];
        for (int64_t i = c * row; i < (c + 1) * row; i++) {
            weight[i] = (float)((double)w[i] * factor);
            probe += 0 * (double)weight[i];
        }
    }
    return probe == 0;
}

static int fold_pair(Model *model, const Pair *pair, int *folded, Error *err)
{
    size_t channels = (size_t)pair->weight.view.shape.dim[0];
    float *weight = arena_array(model->arena, (size_t)pair->weight.view.count + 1, sizeof *weight);
    float *bias = arena_array(model->arena, channels + 1, sizeof *bias);
    char **input = arena_array(model->arena, 3, sizeof *input);
    if (!weight || !bias || !input)
        return error_memory(err, "the folded weights");
    if (!compute(pair, weight, bias))
        return ONNXPRESS_OK;
    Onnx__NodeProto *conv = pair->conv;
    int status = values_store(model, pair->weight.proto, weight, pair->weight.view.count, err);
    if (!status)
        status = values_store(model, pair->of[SHIFT].proto, bias, (int64_t)channels, err);
    if (status)
        return status;
    if (pair->own_bias)
        model_remove_initializer(model, pair->bias.proto);
    model_remove_initializer(model, pair->of[SCALE].proto);
    model_remove_initializer(model, pair->of[MEAN].proto);
    model_remove_initializer(model, pair->of[VARIANCE].proto);
    input[0] = conv->input[0];
    input[1] = conv->input[1];
    input[2] = pair->norm->input[SHIFT];
    conv->input = input;
    conv->n_input = 3;
    conv->output[0] = pair->norm->output[0];
    graph_remove_node(model->proto->graph, pair->norm);
    ++*folded;
    return ONNXPRESS_OK;
}

int rewrite_fold(Model *model, int *folded, Error *err)
{
    Arena *scratch = arena_create();
    Graph *graph;
    Error ignored = {0}; /* what cannot be read is whoever's who needs it */
    *folded = 0;
    int status = scratch ? graph_build(model, scratch, &graph, err)
                         : error_memory(err, "the normalizations");
    int n = status ? 0 : graph->n_nodes, found = 0;
    Pair *pair = status ? NULL : arena_array(scratch, (size_t)n + 1, sizeof *pair);
    if (!status && !pair)
        status = error_memory(err, "the normalizations");
    for (int k = 0; !status && k < n; k++)
        found += read_pair(model, graph, k, &pair[found], &ignored);
    for (int k = 0; !status && k < found; k++)
        status = fold_pair(model, &pair[k], folded, err);
    arena_destroy(scratch);
    return status;
}
