/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/graph.h"
#include "model/visit.h"
#include "rewrite/rewrite_internal.h"

/* What a graph can do without: names of nodes, long names of what flows between them, documentation,
 * shapes that inference finds again, attributes that say the default. Names that a caller may know
 * stay: inputs, outputs, what the bodies of If, Loop and Scan mention, and our own. */

typedef struct {
    Model *model;
    Arena *scratch;
    NameTable *kept;  /* names that stay */
    NameTable *given; /* old name -> number of the new one */
    List names;       /* the new ones */
    const char *prefix;
    uint64_t next;
} Shorten;

/* ---- names ---- */

static bool is_ours(const Shorten *s, const char *name)
{
    return *s->prefix && strncmp(name, s->prefix, strlen(s->prefix)) == 0;
}

static int keep(Shorten *s, const char *name)
{
    return !name || name_table_add(s->kept, name, 0) ? ONNXPRESS_OK : ONNXPRESS_MEMORY;
}

static int keep_ends(Shorten *s, const Onnx__GraphProto *graph)
{
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < graph->n_input && !status; i++)
        status = keep(s, graph->input[i]->name);
    for (size_t i = 0; i < graph->n_output && !status; i++)
        status = keep(s, graph->output[i]->name);
    return status;
}

static int keep_body(void *context, Onnx__GraphProto *graph)
{
    return keep_ends(context, graph);
}

static int keep_tensor(void *context, Onnx__TensorProto *tensor)
{
    return keep(context, tensor->name);
}

static int keep_node(void *context, Onnx__NodeProto *node)
{
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < node->n_input && !status; k++)
        status = keep(context, node->input[k]);
    for (size_t k = 0; k < node->n_output && !status; k++)
        status = keep(context, node->output[k]);
    return status;
}

static bool keep_names(Shorten *s, const Onnx__GraphProto *graph)
{
    Visitor bodies = {keep_body, keep_node, keep_tensor, s};
    return !keep_ends(s, graph) && !model_visit_bodies(graph, &bodies);
}

/* The next name that nobody has: a letter, then letters and digits. */
static const char *new_name(Shorten *s)
{
    static const char digit[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    enum { LETTERS = 52, DIGITS = 62 };
    for (;;) {
        char text[16], *end = text;
        uint64_t rest = s->next++;
        *end++ = digit[rest % LETTERS];
        for (rest /= LETTERS; rest > 0; rest = (rest - 1) / DIGITS)
            *end++ = digit[(rest - 1) % DIGITS];
        *end = 0;
        if (name_table_find(s->kept, text) < 0 && !is_ours(s, text))
            return arena_strdup(s->model->arena, text);
    }
}

/* Puts the new name in place of the old one; NULL and "" stay. */
static bool rename_one(Shorten *s, char **name)
{
    if (!*name || !**name || is_ours(s, *name) || name_table_find(s->kept, *name) >= 0)
        return true;
    int k = name_table_find(s->given, *name);
    if (k < 0) {
        const char *made = new_name(s);
        k = (int)s->names.n;
        if (!made || !list_add(&s->names, s->scratch, (char *)(uintptr_t)made) ||
            !name_table_add(s->given, *name, k))
            return false;
    }
    *name = s->names.item[k];
    return true;
}

/* ---- what says nothing ---- */

/* Attributes of the default domain's ops by which every element, or the word, is the default in all
 * versions since 7. */
static const struct {
    const char *type, *attribute;
    int64_t value;
} defaults[] = {
    {"Conv", "dilations", 1},          {"Conv", "group", 1},
    {"Conv", "strides", 1},            {"Conv", "pads", 0},
    {"ConvTranspose", "dilations", 1}, {"ConvTranspose", "group", 1},
    {"ConvTranspose", "strides", 1},   {"ConvTranspose", "pads", 0},
    {"MaxPool", "strides", 1},         {"MaxPool", "pads", 0},
    {"MaxPool", "dilations", 1},       {"MaxPool", "ceil_mode", 0},
    {"MaxPool", "storage_order", 0},   {"AveragePool", "strides", 1},
    {"AveragePool", "pads", 0},        {"AveragePool", "ceil_mode", 0},
    {"AveragePool", "count_include_pad", 0},
    {"Gemm", "transA", 0},             {"Gemm", "transB", 0},
    {"Gemm", "alpha", 1},              {"Gemm", "beta", 1},
    {"Flatten", "axis", 1},
    {"Reshape", "allowzero", 0},       {"Shape", "start", 0},
};

static bool is_default(const Onnx__NodeProto *node, const Onnx__AttributeProto *a)
{
    for (size_t k = 0; k < sizeof defaults / sizeof defaults[0]; k++) {
        if (strcmp(node->op_type, defaults[k].type) != 0 ||
            strcmp(a->name, defaults[k].attribute) != 0)
            continue;
        bool same = true;
        if (a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT)
            return a->i == defaults[k].value;
        if (a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)
            return (double)a->f == (double)defaults[k].value;
        if (a->type != ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS)
            return false;
        for (size_t i = 0; i < a->n_ints; i++)
            same &= a->ints[i] == defaults[k].value;
        return same;
    }
    return false;
}

static void drop_defaults(Onnx__NodeProto *node)
{
    size_t kept = 0;
    if (!node->op_type || (node->domain && *node->domain))
        return;
    for (size_t k = 0; k < node->n_attribute; k++) {
        const Onnx__AttributeProto *a = node->attribute[k];
        if (!a->name || a->ref_attr_name || !is_default(node, a))
            node->attribute[kept++] = node->attribute[k];
    }
    node->n_attribute = kept;
}

static bool holds_bodies(const Onnx__NodeProto *node)
{
    for (size_t k = 0; k < node->n_attribute; k++)
        if (node->attribute[k]->g || node->attribute[k]->n_graphs)
            return true;
    return false;
}

static void strip_graph(Onnx__GraphProto *graph);

/* Bodies too, as deep as the file's nesting, which loading bounds. */
static void strip_node(Onnx__NodeProto *node)
{
    node->doc_string = NULL;
    node->n_metadata_props = 0;
    for (size_t k = 0; k < node->n_attribute; k++) {
        const Onnx__AttributeProto *attribute = node->attribute[k];
        if (attribute->g)
            strip_graph(attribute->g);
        for (size_t i = 0; i < attribute->n_graphs; i++)
            strip_graph(attribute->graphs[i]);
    }
}

static void strip_graph(Onnx__GraphProto *graph)
{
    for (size_t i = 0; i < graph->n_node; i++)
        strip_node(graph->node[i]);
    for (size_t i = 0; i < graph->n_initializer; i++) {
        graph->initializer[i]->doc_string = NULL;
        graph->initializer[i]->n_metadata_props = 0;
    }
    graph->n_metadata_props = 0;
}

void rewrite_strip(Model *model)
{
    strip_graph(model->proto->graph);
}

static bool shorten_node(Shorten *s, Onnx__NodeProto *node)
{
    bool fine = true;
    for (size_t k = 0; k < node->n_input; k++)
        fine &= rename_one(s, &node->input[k]);
    for (size_t k = 0; k < node->n_output; k++)
        fine &= rename_one(s, &node->output[k]);
    if (!holds_bodies(node)) /* values in a body may be known by its holder's name */
        node->name = NULL;
    drop_defaults(node);
    return fine;
}

static bool shorten_graph(Shorten *s, Onnx__GraphProto *graph)
{
    bool fine = true;
    for (size_t i = 0; i < graph->n_node; i++)
        fine &= shorten_node(s, graph->node[i]);
    for (size_t i = 0; i < graph->n_initializer; i++)
        fine &= rename_one(s, &graph->initializer[i]->name);
    for (size_t i = 0; i < graph->n_sparse_initializer; i++)
        if (graph->sparse_initializer[i]->values)
            fine &= rename_one(s, &graph->sparse_initializer[i]->values->name);
    for (size_t i = 0; i < graph->n_input; i++)
        graph->input[i]->doc_string = NULL;
    for (size_t i = 0; i < graph->n_output; i++)
        graph->output[i]->doc_string = NULL;
    graph->doc_string = NULL;
    graph->n_value_info = graph->n_quantization_annotation = 0;
    return fine;
}

int rewrite_shorten(Model *model, const char **name, size_t n, Error *err)
{
    Arena *scratch = arena_create();
    Metadata metadata = {.prefix = ""};
    int status = scratch ? ONNXPRESS_OK : error_memory(err, "the short names");
    if (!status && rewrite_is_ours(model, NULL, NULL))
        status = metadata_read(model, scratch, &metadata, err);
    Shorten s = {.model = model, .scratch = scratch, .prefix = metadata.prefix};
    rewrite_strip(model);
    bool fine = !status && (s.kept = name_table_create(scratch)) &&
                (s.given = name_table_create(scratch)) &&
                keep_names(&s, model->proto->graph) && shorten_graph(&s, model->proto->graph);
    for (size_t k = 0; fine && k < n; k++) {
        int number = name_table_find(s.given, name[k]);
        if (number >= 0)
            name[k] = s.names.item[number];
    }
    if (!status && !fine)
        status = error_memory(err, "the short names");
    if (!status)
        model->proto->doc_string = NULL;
    arena_destroy(scratch);
    return status;
}
