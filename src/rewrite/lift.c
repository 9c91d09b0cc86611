/* SPDX-License-Identifier: Apache-2.0
 *
 * rewrite_lift: a model of opset 7 to 10 in the words of opset 11, which the decoder needs.
 *
 * A table of the ops that changed in between, each with an adapter that says in the new words what
 * the old ones meant in onnxruntime; the ops that need none are listed too, and any other op is
 * refused. All nodes are checked before the first is changed. What was an attribute and became an
 * input is put into an initializer of the main graph, which subgraphs see.
 */
#include <float.h>
#include <string.h>

#include "model/graph.h"
#include "model/visit.h"
#include "rewrite/rewrite_internal.h"

#define LIFT_FROM 7
#define LIFT_TO 11
#define LIFT_IR 6    /* what came with opset 11 */
#define LOOK_BACK 64 /* constants made before that an equal one is looked for among */

typedef struct {
    Model *model;
    int64_t opset;   /* of the model as it was */
    bool check_only; /* adapters refuse or accept, and change nothing */
    bool only_float; /* float32 is the only real type in the model */
    size_t first;    /* number of the first initializer that is ours */
    NameTable *initializers;
    Error *err;
} Lift;

static int refuse(const Lift *lift, const Onnx__NodeProto *node, const char *what)
{
    const char *name = node->name && *node->name ? node->name
                       : node->n_output          ? node->output[0]
                                                 : "?";
    return error_set(lift->err, ONNXPRESS_UNSUPPORTED,
                     "%s: node '%.80s' (%.40s) cannot be lifted from opset %lld to %d: %s;"
                     " write --form lookup, which needs no lifting",
                     lift->model->path, name, node->op_type ? node->op_type : "",
                     (long long)lift->opset, LIFT_TO, what);
}

static int no_memory(const Lift *lift)
{
    return error_memory(lift->err, "the lifted model");
}

/* The name of an initializer that holds these numbers; NULL: out of memory. */
static const char *constant(Lift *lift, int dtype, int rank, const void *data, size_t n)
{
    const Onnx__GraphProto *graph = lift->model->proto->graph;
    size_t bytes = n * dtype_bytes(dtype), at = graph->n_initializer;
    int64_t dim = (int64_t)n;
    for (int k = 0; k < LOOK_BACK && at > lift->first; k++) {
        const Onnx__TensorProto *old = graph->initializer[--at];
        if (old->data_type == dtype && old->n_dims == (size_t)rank && old->raw_data.len == bytes &&
            (bytes == 0 || memcmp(old->raw_data.data, data, bytes) == 0))
            return old->name;
    }
    const char *name = model_fresh_name(lift->model, "lifted");
    Onnx__TensorProto *made =
        name ? build_tensor(lift->model, name, dtype, rank, &dim, data, bytes) : NULL;
    return model_append_initializer(lift->model, made) ? made->name : NULL;
}

static void drop_attribute(Onnx__NodeProto *node, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < node->n_attribute; i++)
        if (!node->attribute[i]->name || strcmp(node->attribute[i]->name, name) != 0)
            node->attribute[kept++] = node->attribute[i];
    node->n_attribute = kept;
}

/* Inputs of the node, "" those that are left out; a NULL among them: out of memory. */
static int set_inputs(Lift *lift, Onnx__NodeProto *node, const char *const *inputs, size_t n)
{
    while (n > 1 && inputs[n - 1] && !*inputs[n - 1])
        n--;
    char **copy = arena_array(lift->model->arena, n, sizeof *copy);
    for (size_t k = 0; copy && k < n; k++)
        if (!inputs[k] || !(copy[k] = arena_strdup(lift->model->arena, inputs[k])))
            return no_memory(lift);
    if (!copy)
        return no_memory(lift);
    node->input = copy;
    node->n_input = n;
    return ONNXPRESS_OK;
}

static int set_type(Lift *lift, Onnx__NodeProto *node, const char *type)
{
    node->op_type = arena_strdup(lift->model->arena, type);
    return node->op_type ? ONNXPRESS_OK : no_memory(lift);
}

static int set_word(Lift *lift, Onnx__NodeProto *node, const char *name, const char *value)
{
    Emitter emitter = {.model = lift->model};
    drop_attribute(node, name);
    emit_string(&emitter, node, name, value);
    return emitter.failed ? no_memory(lift) : ONNXPRESS_OK;
}

static bool word_is(const Onnx__NodeProto *node, const char *name, const char *value)
{
    const Onnx__AttributeProto *a = node_attribute(node, name);
    return a && a->has_s && a->s.len == strlen(value) &&
           memcmp(a->s.data, value, a->s.len) == 0;
}

/* A float attribute as a scalar; "" when it is absent or says nothing. */
static const char *scalar(Lift *lift, const Onnx__NodeProto *node, const char *name, float nothing)
{
    const Onnx__AttributeProto *a = node_attribute(node, name);
    if (!a || !a->has_f || a->f == nothing)
        return "";
    return constant(lift, DTYPE_FLOAT, 0, &a->f, 1);
}

static bool has_scalar(const Onnx__NodeProto *node, const char *name, float nothing)
{
    const Onnx__AttributeProto *a = node_attribute(node, name);
    return a && a->has_f && a->f != nothing;
}

static const char *list_input(Lift *lift, const Onnx__NodeProto *node, const char *name)
{
    const Onnx__AttributeProto *a = node_attribute(node, name);
    return a ? constant(lift, DTYPE_INT64, 1, a->ints, a->n_ints) : "";
}

static int lift_clip(Lift *lift, Onnx__NodeProto *node)
{
    if (node->n_input != 1)
        return refuse(lift, node, "it has not one input");
    if (!lift->only_float &&
        (has_scalar(node, "min", -FLT_MAX) || has_scalar(node, "max", FLT_MAX)))
        return refuse(lift, node, "the model has several floating types");
    if (lift->check_only)
        return ONNXPRESS_OK;
    const char *inputs[] = {node->input[0], scalar(lift, node, "min", -FLT_MAX),
                            scalar(lift, node, "max", FLT_MAX)};
    drop_attribute(node, "min");
    drop_attribute(node, "max");
    return set_inputs(lift, node, inputs, 3);
}

static int lift_pad(Lift *lift, Onnx__NodeProto *node)
{
    if (node->n_input != 1 || !node_attribute(node, "pads"))
        return refuse(lift, node, "it has not one input and pads");
    if (!lift->only_float && has_scalar(node, "value", 0))
        return refuse(lift, node, "the model has several floating types");
    if (lift->check_only)
        return ONNXPRESS_OK;
    const char *inputs[] = {node->input[0], list_input(lift, node, "pads"),
                            scalar(lift, node, "value", 0)};
    drop_attribute(node, "pads");
    drop_attribute(node, "value");
    return set_inputs(lift, node, inputs, 3);
}

static int lift_slice(Lift *lift, Onnx__NodeProto *node)
{
    if (lift->opset >= 10)
        return ONNXPRESS_OK;
    if (node->n_input != 1 || !node_attribute(node, "starts") || !node_attribute(node, "ends"))
        return refuse(lift, node, "it has not one input, starts and ends");
    if (lift->check_only)
        return ONNXPRESS_OK;
    const char *inputs[] = {node->input[0], list_input(lift, node, "starts"),
                            list_input(lift, node, "ends"), list_input(lift, node, "axes")};
    drop_attribute(node, "starts");
    drop_attribute(node, "ends");
    drop_attribute(node, "axes");
    return set_inputs(lift, node, inputs, 4);
}

static int lift_top(Lift *lift, Onnx__NodeProto *node)
{
    if (lift->opset >= 10)
        return ONNXPRESS_OK;
    const Onnx__AttributeProto *k = node_attribute(node, "k");
    if (node->n_input != 1 || !k || !k->has_i)
        return refuse(lift, node, "it has not one input and k");
    if (lift->check_only)
        return ONNXPRESS_OK;
    const char *inputs[] = {node->input[0], constant(lift, DTYPE_INT64, 1, &k->i, 1)};
    drop_attribute(node, "k");
    return set_inputs(lift, node, inputs, 2);
}

/* Whether an axis grows and whether one shrinks; false when the scales are computed. */
static bool read_scales(const Lift *lift, const Onnx__NodeProto *node, bool *grows, bool *shrinks)
{
    Tensor tensor;
    Error own = {0};
    *grows = *shrinks = false;
    const Onnx__GraphProto *graph = lift->model->proto->graph;
    const Onnx__TensorProto *init = NULL;
    int at = name_table_find(lift->initializers, node->input[1]);
    if (at >= 0)
        init = graph->initializer[at];
    for (size_t k = 0; !init && k < graph->n_node; k++)
        if (graph->node[k]->n_output == 1 && graph->node[k]->op_type &&
            strcmp(graph->node[k]->op_type, "Constant") == 0 &&
            strcmp(graph->node[k]->output[0], node->input[1]) == 0) {
            const Onnx__AttributeProto *value = node_attribute(graph->node[k], "value");
            init = value ? value->t : NULL;
        }
    if (!init || model_tensor(lift->model, init, "scales", &tensor, &own) ||
        tensor.dtype != DTYPE_FLOAT || tensor.shape.rank != 1)
        return false;
    const float *scale = tensor.data;
    for (int64_t k = 0; k < tensor.count; k++) {
        *grows |= scale[k] > 1;
        *shrinks |= scale[k] < 1;
    }
    return true;
}

/* onnxruntime takes the pixel at floor(x / scale) where an axis grows and at ceil(x / scale) where it
 * shrinks; interpolation is the same in both opsets. */
static int to_resize(Lift *lift, Onnx__NodeProto *node, const char *scales, const char *nearest)
{
    const char *roi = constant(lift, DTYPE_FLOAT, 1, NULL, 0);
    int status = set_type(lift, node, "Resize");
    if (!status)
        status = set_inputs(lift, node, (const char *[]){node->input[0], roi, scales}, 3);
    if (!status)
        status = set_word(lift, node, "coordinate_transformation_mode", "asymmetric");
    if (!status && !word_is(node, "mode", "linear"))
        status = set_word(lift, node, "nearest_mode", nearest);
    return status;
}

static bool known_mode(const Onnx__NodeProto *node)
{
    return !node_attribute(node, "mode") || word_is(node, "mode", "nearest") ||
           word_is(node, "mode", "linear");
}

static int lift_resize(Lift *lift, Onnx__NodeProto *node)
{
    bool grows, shrinks;
    if (node->n_input != 2 || !known_mode(node))
        return refuse(lift, node, "its inputs or its mode are not known");
    if (!read_scales(lift, node, &grows, &shrinks)) {
        if (!word_is(node, "mode", "linear"))
            return refuse(lift, node, "its scales are computed by the graph");
    } else if (grows && shrinks && !word_is(node, "mode", "linear")) {
        return refuse(lift, node, "one axis grows and another shrinks");
    }
    if (lift->check_only)
        return ONNXPRESS_OK;
    return to_resize(lift, node, node->input[1], shrinks ? "ceil" : "floor");
}

/* Upsample only grows. */
static int lift_upsample(Lift *lift, Onnx__NodeProto *node)
{
    const Onnx__AttributeProto *scales = node_attribute(node, "scales");
    if (lift->opset >= 10)
        return refuse(lift, node, "opset 10 has no such op");
    if (!known_mode(node))
        return refuse(lift, node, "its mode is not known");
    if (lift->opset == 9 ? node->n_input != 2 : node->n_input != 1 || !scales)
        return refuse(lift, node, "it has no scales");
    if (lift->check_only)
        return ONNXPRESS_OK;
    const char *given = lift->opset == 9
                            ? node->input[1]
                            : constant(lift, DTYPE_FLOAT, 1, scales->floats, scales->n_floats);
    drop_attribute(node, "scales");
    return to_resize(lift, node, given, "floor");
}

static int lift_scatter(Lift *lift, Onnx__NodeProto *node)
{
    return lift->check_only ? ONNXPRESS_OK : set_type(lift, node, "ScatterElements");
}

/* `spatial`, gone in opset 9. */
static int lift_normalization(Lift *lift, Onnx__NodeProto *node)
{
    if (node_int(node, "spatial", 1) != 1)
        return refuse(lift, node, "spatial = 0");
    if (!lift->check_only)
        drop_attribute(node, "spatial");
    return ONNXPRESS_OK;
}

/* The mask is of another type from opset 10 on. */
static int lift_dropout(Lift *lift, Onnx__NodeProto *node)
{
    if (lift->opset < 10 && node->n_output > 1 && *node->output[1])
        return refuse(lift, node, "its mask is read");
    return ONNXPRESS_OK;
}

/* Opset 11 deals an odd number of pads out anew. */
static int lift_transposed(Lift *lift, Onnx__NodeProto *node)
{
    if (node_attribute(node, "output_shape") ||
        word_is(node, "auto_pad", "SAME_UPPER") || word_is(node, "auto_pad", "SAME_LOWER"))
        return refuse(lift, node, "it derives its pads from the output's shape");
    return ONNXPRESS_OK;
}

static int lift_scan(Lift *lift, Onnx__NodeProto *node)
{
    return lift->opset < 9 ? refuse(lift, node, "Scan of opset 8") : ONNXPRESS_OK;
}

static const struct {
    const char *type;
    int (*adapt)(Lift *lift, Onnx__NodeProto *node);
} changed[] = {
    {"BatchNormalization", lift_normalization},
    {"Clip", lift_clip},
    {"ConvTranspose", lift_transposed},
    {"Dropout", lift_dropout},
    {"Pad", lift_pad},
    {"Resize", lift_resize},
    {"Scan", lift_scan},
    {"Scatter", lift_scatter},
    {"Slice", lift_slice},
    {"TopK", lift_top},
    {"Upsample", lift_upsample},
};

/* Ops that say in opset 11 what they said in 7 to 10: newer versions only allow more types, negative
 * axes or omitted inputs. */
static const char *const unchanged[] = {
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "AveragePool", "Cast", "Ceil", "Compress", "Concat", "Constant", "ConstantOfShape", "Conv",
    "ConvInteger", "Cos", "Cosh", "DepthToSpace", "DequantizeLinear", "Div", "Elu", "Equal", "Erf",
    "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "Gemm", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "Greater", "HardSigmoid", "Hardmax", "Identity", "If",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM", "LeakyRelu", "Less", "Log",
    "LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool",
    "MaxRoiPool", "MaxUnpool", "Mean", "MeanVarianceNormalization", "Min", "Mod", "Mul",
    "Multinomial", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pow",
    "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RNN", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "ReverseSequence", "RoiAlign", "Selu", "Shape", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Softmax", "Softplus", "Softsign", "SpaceToDepth",
    "Split", "Sqrt", "Squeeze", "StringNormalizer", "Sub", "Sum", "Tan", "Tanh", "TfIdfVectorizer",
    "ThresholdedRelu", "Tile", "Transpose", "Unsqueeze", "Where", "Xor",
};

static int lift_node(void *context, Onnx__NodeProto *node)
{
    Lift *lift = context;
    if (!is_default_domain(node->domain))
        return ONNXPRESS_OK; /* its version stays */
    const char *type = node->op_type ? node->op_type : "";
    for (size_t k = 0; k < sizeof changed / sizeof changed[0]; k++)
        if (strcmp(type, changed[k].type) == 0)
            return changed[k].adapt(lift, node);
    for (size_t k = 0; k < sizeof unchanged / sizeof unchanged[0]; k++)
        if (strcmp(type, unchanged[k]) == 0)
            return ONNXPRESS_OK;
    return refuse(lift, node, "the op is not known");
}

static void note_type(Lift *lift, int64_t dtype)
{
    if (dtype == DTYPE_DOUBLE || dtype == DTYPE_FLOAT16 || dtype == DTYPE_BFLOAT16)
        lift->only_float = false;
}

static int type_of_tensor(void *context, Onnx__TensorProto *tensor)
{
    note_type(context, tensor->data_type);
    return ONNXPRESS_OK;
}

static int type_of_cast(void *context, Onnx__NodeProto *node)
{
    if (node->op_type && strcmp(node->op_type, "Cast") == 0)
        note_type(context, node_int(node, "to", DTYPE_UNDEFINED));
    return ONNXPRESS_OK;
}

static int type_of_inputs(void *context, Onnx__GraphProto *graph)
{
    for (size_t k = 0; k < graph->n_input; k++) {
        const Onnx__TypeProto *type = graph->input[k]->type;
        if (type && type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
            note_type(context, type->tensor_type->elem_type);
    }
    return ONNXPRESS_OK;
}

static int lift_all(Lift *lift, bool check_only)
{
    Onnx__ModelProto *proto = lift->model->proto;
    for (size_t k = 0; k < proto->graph->n_initializer; k++) {
        const char *name = proto->graph->initializer[k]->name;
        if (name && !name_table_add(lift->initializers, name, (int)k))
            return no_memory(lift);
    }
    Visitor types = {type_of_inputs, type_of_cast, type_of_tensor, lift};
    Visitor nodes = {.node = lift_node, .context = lift};
    model_visit(proto, &types);
    lift->check_only = true;
    int status = model_visit(proto, &nodes);
    lift->check_only = false;
    if (!status && !check_only)
        status = model_visit(proto, &nodes);
    if (status || check_only)
        return status;
    for (size_t k = 0; k < proto->n_opset_import; k++)
        if (is_default_domain(proto->opset_import[k]->domain))
            proto->opset_import[k]->version = LIFT_TO;
    lift->model->opset = LIFT_TO;
    if (proto->ir_version < LIFT_IR) {
        proto->ir_version = LIFT_IR;
        proto->has_ir_version = true;
    }
    return ONNXPRESS_OK;
}

static int lift_model(Model *model, bool check_only, Error *err)
{
    if (model->opset >= LIFT_TO)
        return ONNXPRESS_OK;
    if (model->opset < LIFT_FROM || model->proto->n_functions > 0)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: has opset %lld, and the decoder needs %d; models of opset %d and"
                         " newer can be lifted: convert this one first (onnx.version_converter)"
                         " or write --form plain",
                         model->path, (long long)model->opset, LIFT_TO, LIFT_FROM);
    Arena *scratch = arena_create();
    NameTable *names = scratch ? name_table_create(scratch) : NULL;
    Lift lift = {.model = model,
                 .opset = model->opset,
                 .only_float = true,
                 .first = model->proto->graph->n_initializer,
                 .initializers = names,
                 .err = err};
    int status = names ? lift_all(&lift, check_only) : no_memory(&lift);
    arena_destroy(scratch);
    return status;
}

int rewrite_lift(Model *model, Error *err)
{
    return lift_model(model, false, err);
}

int rewrite_lift_check(Model *model, Error *err)
{
    return lift_model(model, true, err);
}
