/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests/test_forms.py: writes a model in every output form.
 *   make_forms MODEL FOLDER MODE   rounds the weights crudely, writes FOLDER/FORM.onnx and
 *                                  FOLDER/FORM-sidecar.onnx
 *   make_forms --restore MODEL OUTPUT
 * MODE tensor: a scale a tensor, 15 to 39 levels; model: no scales; wide: 301 levels, no scales;
 * sparse-tensor and sparse-model: the same as the first two, but nine weights in ten become zero.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rewrite/rewrite.h"

static const char *const form_name[] = {"function", "inlined", "lookup", "plain"};

typedef struct {
    Arena *arena;
    Coded coded;
    CodedTensor *tensor;
    float **value;
    size_t n;
} Weights;

static int add_weight(Model *model, Weights *w, const Onnx__TensorProto *proto, const char *name,
                      Error *err)
{
    if (!dtype_is_real(proto->data_type))
        return 0;
    Tensor view;
    int status = model_tensor(model, proto, name, &view, err);
    if (status)
        return status;
    float *value = arena_array(w->arena, (size_t)view.count, sizeof *value);
    if (!value)
        return error_memory(err, "weights");
    w->value[w->n] = value;
    w->tensor[w->n] = (CodedTensor){.name = name,
                                    .dtype = view.dtype,
                                    .shape = view.shape,
                                    .first = w->coded.n_symbols,
                                    .count = (uint64_t)view.count,
                                    .scale = 1};
    w->n++;
    w->coded.n_symbols += (uint64_t)view.count;
    return tensor_to_float(&view, value, err);
}

static int find_weights(Model *model, Weights *w, Error *err)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    size_t most = graph->n_initializer + graph->n_node;
    w->tensor = arena_array(w->arena, most, sizeof *w->tensor);
    w->value = arena_array(w->arena, most, sizeof *w->value);
    if (!w->tensor || !w->value)
        return error_memory(err, "weights");
    int status = 0;
    for (size_t i = 0; i < graph->n_initializer && !status; i++)
        status = add_weight(model, w, graph->initializer[i], graph->initializer[i]->name, err);
    for (size_t i = 0; i < graph->n_node && !status; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        if (strcmp(node->op_type, "Constant") == 0 && node->n_attribute == 1 &&
            node->attribute[0]->t)
            status = add_weight(model, w, node->attribute[0]->t, node->output[0], err);
    }
    return status;
}

static float largest(const Weights *w, size_t tensor)
{
    float most = 0;
    for (uint64_t i = 0; i < w->tensor[tensor].count; i++)
        most = fmaxf(most, fabsf(w->value[tensor][i]));
    return most;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The step at which nine in ten of the tensors' weights round to zero. */
static int sparse_step(const Weights *w, size_t first, size_t end, float *step, Error *err)
{
    uint64_t n = 0;
    float *magnitude = arena_array(w->arena, w->coded.n_symbols, sizeof *magnitude);
    if (!magnitude)
        return error_memory(err, "weights");
    for (size_t t = first; t < end; t++)
        for (uint64_t i = 0; i < w->tensor[t].count; i++)
            magnitude[n++] = fabsf(w->value[t][i]);
    qsort(magnitude, n, sizeof *magnitude, compare);
    *step = n && magnitude[n * 9 / 10] > 0 ? 2 * magnitude[n * 9 / 10] : 1;
    return 0;
}

/* The value of one level, and each tensor's scale. */
static int choose_steps(Weights *w, const char *mode, int half, float *unit, Error *err)
{
    bool scaled = strcmp(mode, "tensor") == 0 || strcmp(mode, "sparse-tensor") == 0;
    bool sparse = strncmp(mode, "sparse", 6) == 0;
    float most = 0;
    *unit = 1;
    if (sparse && !scaled)
        return sparse_step(w, 0, w->n, unit, err);
    for (size_t t = 0; t < w->n; t++) {
        most = fmaxf(most, largest(w, t));
        int status = sparse ? sparse_step(w, t, t + 1, &w->tensor[t].scale, err) : 0;
        if (status)
            return status;
        if (scaled && !sparse && largest(w, t) > 0)
            w->tensor[t].scale = largest(w, t) / (float)(7 + 3 * t % 13);
    }
    if (!scaled)
        *unit = most > 0 ? most / (float)half : 1;
    return 0;
}

static int round_weights(Weights *w, const char *mode, Error *err)
{
    int half = strcmp(mode, "wide") == 0 ? 150 : 19;
    float unit;
    uint16_t *symbol = arena_array(w->arena, w->coded.n_symbols, sizeof *symbol);
    float *codebook = arena_array(w->arena, (size_t)half * 2 + 1, sizeof *codebook);
    if (!symbol || !codebook)
        return error_memory(err, "symbols");
    int status = choose_steps(w, mode, half, &unit, err);
    if (status)
        return status;
    for (int i = -half; i <= half; i++)
        codebook[i + half] = (float)i * unit;
    for (size_t t = 0; t < w->n; t++)
        for (uint64_t i = 0; i < w->tensor[t].count; i++) {
            float level = rintf(w->value[t][i] / (unit * w->tensor[t].scale));
            level = fminf(fmaxf(level, (float)-half), (float)half);
            symbol[w->tensor[t].first + i] = (uint16_t)(half + (int)level);
        }
    w->coded.n_tensors = w->n;
    w->coded.tensors = w->tensor;
    w->coded.symbols = symbol;
    w->coded.levels = 2 * half + 1;
    w->coded.codebook = codebook;
    return 0;
}

static int write_form(const char *path, const char *folder, const char *mode, RewriteForm form,
                      Error *err)
{
    Model *model;
    int status = model_load(path, &model, err);
    if (status)
        return status;
    Weights w = {.arena = arena_create()};
    status = w.arena ? find_weights(model, &w, err) : error_memory(err, "weights");
    if (!status)
        status = round_weights(&w, mode, err);
    if (!status)
        status = rewrite_apply(model, &w.coded, form, "\"tool\":\"make_forms\"", err);
    for (int sidecar = 0; sidecar < 2 && !status; sidecar++) {
        const char *out = arena_printf(w.arena, "%s/%s%s.onnx", folder, form_name[form],
                                       sidecar ? "-sidecar" : "");
        RewriteSizes sizes;
        status =
            out ? rewrite_save(model, out, sidecar ? SIDECAR_ALWAYS : SIDECAR_NEVER, &sizes, err)
                : error_memory(err, "a path");
    }
    arena_destroy(w.arena);
    model_free(model);
    return status;
}

static int restore(const char *from, const char *to, Error *err)
{
    Model *model;
    int status = model_load(from, &model, err);
    if (status)
        return status;
    status = rewrite_restore(model, err);
    if (!status)
        status = model_save(model, to, err);
    model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    Error err = {0};
    int status = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: make_forms MODEL FOLDER MODE\n"
                        "       make_forms --restore MODEL OUTPUT\n");
        return 1;
    }
    if (strcmp(argv[1], "--restore") == 0)
        status = restore(argv[2], argv[3], &err);
    for (int form = FORM_FUNCTION;
         form <= FORM_PLAIN && strcmp(argv[1], "--restore") != 0 && !status; form++)
        status = write_form(argv[1], argv[2], argv[3], (RewriteForm)form, &err);
    if (status)
        fprintf(stderr, "make_forms: %s\n", err.message);
    return status;
}
