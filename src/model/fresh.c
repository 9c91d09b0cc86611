/* SPDX-License-Identifier: Apache-2.0 */
#include "model/build.h"

#include "model/model_internal.h"
#include "model/visit.h"

bool model_note_name(Model *model, const char *name)
{
    NameTable *names = model->private_data->names;
    return !names || name_table_add(names, name, 0);
}

static int note(Model *model, const char *name)
{
    return name && *name && !model_note_name(model, name) ? ONNXPRESS_MEMORY : ONNXPRESS_OK;
}

static int note_values(Model *model, Onnx__ValueInfoProto **values, size_t n)
{
    int status = ONNXPRESS_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = note(model, values[i]->name);
    return status;
}

static int note_graph(void *context, Onnx__GraphProto *graph)
{
    int status = note_values(context, graph->input, graph->n_input);
    if (!status)
        status = note_values(context, graph->output, graph->n_output);
    return status ? status : note_values(context, graph->value_info, graph->n_value_info);
}

static int note_node(void *context, Onnx__NodeProto *node)
{
    int status = note(context, node->name);
    for (size_t i = 0; i < node->n_input && !status; i++)
        status = note(context, node->input[i]);
    for (size_t i = 0; i < node->n_output && !status; i++)
        status = note(context, node->output[i]);
    return status;
}

static int note_tensor(void *context, Onnx__TensorProto *tensor)
{
    return note(context, tensor->name);
}

/* The names of function bodies are their own; they are noted with the rest, which costs nothing and
 * keeps names apart when somebody inlines them. */
static bool note_everything(Model *model)
{
    model->private_data->names = name_table_create(model->arena);
    Visitor visitor = {note_graph, note_node, note_tensor, model};
    if (model->private_data->names && !model_visit(model->proto, &visitor))
        return true;
    model->private_data->names = NULL;
    return false;
}

static const char *base36(uint64_t number, char text[16])
{
    char *at = text + 15;
    *at = '\0';
    do {
        *--at = "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36];
        number /= 36;
    } while (number > 0);
    return at;
}

const char *model_fresh_name(Model *model, const char *prefix)
{
    struct ModelPrivate *own = model->private_data;
    if (!own->names && !note_everything(model))
        return NULL;
    for (;;) {
        char digits[16];
        const char *name = arena_printf(model->arena, "%s%s", prefix, base36(own->fresh++, digits));
        if (!name)
            return NULL;
        if (name_table_find(own->names, name) < 0)
            return name_table_add(own->names, name, 0) ? name : NULL;
    }
}
