/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/build.h"
#include "model/graph.h"
#include "rewrite/rewrite_internal.h"

/* Batch normalization at inference is affine a channel, so the convolution before it can do its work:
 * with f = scale / sqrt(variance + epsilon), weights w f and bias (b - mean) f + shift. */

enum { INPUT, SCALE, SHIFT, MEAN, VARIANCE, NORM_INPUTS };

/* One pair of nodes. Tensors are views of the initializers and Constant nodes. */
typedef struct {
    Onnx__NodeProto *conv, *norm;
    Onnx__NodeProto *shift; /* the Constant node that makes the normalization's shift, or NULL */
    Tensor weight, bias; /* bias.data NULL: none */
    Tensor of[NORM_INPUTS];
    bool own_bias;       /* nothing else reads the convolution's */
    float epsilon;
} Pair;

/* The initializer or Constant node at an input: of floats, and no graph input that a caller may set. */
static bool read_constant(Model *model, const Graph *graph, int v, Tensor *tensor, Error *err)
{
    const GraphValue *value = v >= 0 ? &graph->values[v] : NULL;
    return value && value->init && !value->is_input && !value->is_output && value->body < 0 &&
           value->init->data_type == DTYPE_FLOAT &&
           !model_tensor(model, value->init, value->name, tensor, err);
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
    if (!read_constant(model, graph, of_conv[1], &pair->weight, err) ||
        graph->values[of_conv[1]].n_uses != 1 || pair->weight.shape.rank < 3)
        return false;
    int64_t channels = pair->weight.shape.dim[0];
    for (int k = SCALE; k < NORM_INPUTS; k++)
        if (!read_constant(model, graph, in[k], &pair->of[k], err) ||
            pair->of[k].count != channels || graph->values[in[k]].n_uses != 1)
            return false;
    if (graph->values[in[SHIFT]].is_constant_node)
        pair->shift = (Onnx__NodeProto *)(uintptr_t)graph->nodes[graph->values[in[SHIFT]].producer];
    if (graph->n_inputs[c] < 3 || of_conv[2] < 0)
        return true;
    pair->own_bias = graph->values[of_conv[2]].n_uses == 1;
    return read_constant(model, graph, of_conv[2], &pair->bias, err) &&
           pair->bias.count == channels;
}

/* Constant nodes that are read earlier than before: they go to the graph's front. */
typedef struct {
    Onnx__NodeProto **node;
    size_t n;
} Constants;

/* The new weights and bias; false: some are not finite, and the pair stays as it is. */
static bool compute(const Pair *pair, float *weight, float *bias)
{
    const float *w = pair->weight.data, *b = pair->bias.data;
    const float *of[NORM_INPUTS];
    int64_t channels = pair->weight.shape.dim[0];
    int64_t row = channels ? pair->weight.count / channels : 0;
    double probe = 0;
    for (int k = SCALE; k < NORM_INPUTS; k++)
        of[k] = pair->of[k].data;
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

static int fold_pair(Model *model, const Pair *pair, Constants *moved, int *folded, Error *err)
{
    size_t channels = (size_t)pair->weight.shape.dim[0];
    float *weight = arena_array(model->arena, (size_t)pair->weight.count + 1, sizeof *weight);
    float *bias = arena_array(model->arena, channels + 1, sizeof *bias);
    char **input = arena_array(model->arena, 3, sizeof *input);
    if (!weight || !bias || !input)
        return error_memory(err, "the folded weights");
    if (!compute(pair, weight, bias))
        return ONNXPRESS_OK;
    Onnx__NodeProto *conv = pair->conv;
    char *const *norm = pair->norm->input;
    int status = rewrite_values(model, conv->input[1], weight, pair->weight.count, err);
    if (!status)
        status = rewrite_values(model, norm[SHIFT], bias, (int64_t)channels, err);
    if (status)
        return status;
    if (pair->own_bias)
        values_remove(model, conv->input[2]);
    values_remove(model, norm[SCALE]);
    values_remove(model, norm[MEAN]);
    values_remove(model, norm[VARIANCE]);
    input[0] = conv->input[0];
    input[1] = conv->input[1];
    input[2] = norm[SHIFT];
    conv->input = input;
    conv->n_input = 3;
    conv->output[0] = pair->norm->output[0];
    graph_remove_node(model->proto->graph, pair->norm);
    if (pair->shift) {
        graph_remove_node(model->proto->graph, pair->shift);
        moved->node[moved->n++] = pair->shift;
    }
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
    Constants moved = {
        .node = status ? NULL : arena_array(scratch, (size_t)n + 1, sizeof(Onnx__NodeProto *))};
    if (!status && (!pair || !moved.node))
        status = error_memory(err, "the normalizations");
    for (int k = 0; !status && k < n; k++)
        found += read_pair(model, graph, k, &pair[found], &ignored);
    for (int k = 0; !status && k < found; k++)
        status = fold_pair(model, &pair[k], &moved, folded, err);
    if (!status && moved.n > 0 && !model_prepend_nodes(model, moved.node, moved.n))
        status = error_memory(err, "the normalizations");
    arena_destroy(scratch);
    return status;
}
