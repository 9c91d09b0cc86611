/* SPDX-License-Identifier: Apache-2.0
 *
 * What the message of a node says by itself. */
#include <string.h>

#include "model/graph_internal.h"

const Onnx__AttributeProto *node_attribute(const Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++)
        if (node->attribute[i]->name && strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    return NULL;
}

int64_t node_int(const Onnx__NodeProto *node, const char *name, int64_t fallback)
{
    const Onnx__AttributeProto *attribute = node_attribute(node, name);
    return attribute && attribute->has_i ? attribute->i : fallback;
}

const char *plain_domain(const char *domain)
{
    return !domain || strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

bool is_default_domain(const char *domain)
{
    return !*plain_domain(domain);
}

bool node_is(const Onnx__NodeProto *node, const char *type)
{
    return is_default_domain(node->domain) && strcmp(graph_text(node->op_type), type) == 0;
}
