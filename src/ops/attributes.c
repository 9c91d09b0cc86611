/* SPDX-License-Identifier: Apache-2.0 */
#include "model/graph.h"
#include "ops/ops.h"

#include <string.h>

int64_t attribute_int(const OpNode *node, const char *name, int64_t fallback)
{
    const Onnx__AttributeProto *attribute = node_attribute(node->proto, name);
    return attribute && attribute->has_i ? attribute->i : fallback;
}

float attribute_float(const OpNode *node, const char *name, float fallback)
{
    const Onnx__AttributeProto *attribute = node_attribute(node->proto, name);
    return attribute && attribute->has_f ? attribute->f : fallback;
}

/* The message's bytes carry no terminating zero, so what is handed out is our own copy of each word
 * that a handled op knows. */
static const char *const words[] = {
    "NOTSET",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID", /* auto_pad */
    "constant",
    "reflect",
    "edge",
    "wrap", /* Pad mode */
    "none",
    "tanh",
    "add",
    "mul",
    "min",
    "max", /* approximate, reduction */
    "DCR",
    "CRD",
    "nearest",
    "linear",
    "bilinear",
    "cubic", /* DepthToSpace, Resize mode */
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
    "round_prefer_floor",
    "round_prefer_ceil",
    "floor",
    "ceil",
    "forward",
    "reverse",
    "bidirectional",
    "stretch",
    "not_larger",
    "not_smaller",
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "Clip",
    "HardSigmoid", /* activations of fused ops */
    "zeros",
    "border",
    "reflection",
    "bicubic",
    "avg",
    "output_half_pixel", /* GridSample, RoiAlign */
    "LEFT",
    "RIGHT", /* BitShift */
};

const char *attribute_string(const OpNode *node, const char *name, const char *fallback)
{
    const Onnx__AttributeProto *attribute = node_attribute(node->proto, name);
    if (!attribute || !attribute->has_s)
        return fallback;
    for (size_t k = 0; k < sizeof words / sizeof words[0]; k++)
        if (strlen(words[k]) == attribute->s.len &&
            memcmp(words[k], attribute->s.data, attribute->s.len) == 0)
            return words[k];
    return "an unknown word";
}

int attribute_ints(const OpNode *node, const char *name, const int64_t **values)
{
    const Onnx__AttributeProto *attribute = node_attribute(node->proto, name);
    if (!attribute)
        return -1;
    *values = attribute->ints;
    return attribute->n_ints > INT16_MAX ? INT16_MAX : (int)attribute->n_ints;
}

int attribute_floats(const OpNode *node, const char *name, const float **values)
{
    const Onnx__AttributeProto *attribute = node_attribute(node->proto, name);
    if (!attribute)
        return -1;
    *values = attribute->floats;
    return attribute->n_floats > INT16_MAX ? INT16_MAX : (int)attribute->n_floats;
}
