/* Models with coded weights, for tests of rewrite/: from LeNet-5, with random symbols. Needs
 * _GNU_SOURCE before the first header. setup and teardown are the tests' fixtures. */
#ifndef ONNXPRESS_TESTS_REWRITE_SAMPLES_H
#define ONNXPRESS_TESTS_REWRITE_SAMPLES_H

#include <check.h>
#include <string.h>

#include "rewrite/rewrite_internal.h"
#include "scratch.h"

#define LENET "testdata/lenet5_mnist.onnx"
#define NOTE "\"tool\":\"test 1.0\",\"nested\":{\"form\":\"no\"}"
#define MAX_TENSORS 64

static uint64_t random_state;
static uint32_t zero_percent; /* 0: dense; else so many symbols are the one that gaps skip */

static inline uint32_t draw(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

static inline uint32_t below(uint32_t n)
{
    return (uint32_t)((uint64_t)draw() * n >> 32);
}

static Arena *arena;
static Error error;

static inline void setup(void)
{
    scratch_make();
    arena = arena_create();
    error = (Error){0};
    random_state = 7;
    zero_percent = 0;
}

static inline void teardown(void)
{
    arena_destroy(arena);
    scratch_remove();
}

static inline Model *load(const char *path)
{
    Model *model = NULL;
    int status = model_load(path, &model, &error);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", error.message);
    return model;
}

/* Random symbols for the real initializers of at most `most` elements. */
static inline Coded random_coded(Model *model, int levels, bool scaled, int64_t most)
{
    CodedTensor *tensor = arena_array(arena, MAX_TENSORS, sizeof *tensor);
    Coded coded = {.tensors = tensor, .levels = levels};
    for (size_t i = 0; i < model->proto->graph->n_initializer; i++) {
        const Onnx__TensorProto *proto = model->proto->graph->initializer[i];
        Tensor view;
        ck_assert_int_eq(model_tensor(model, proto, "test", &view, &error), ONNXPRESS_OK);
        if (!dtype_is_real(view.dtype) || view.count > most)
            continue;
        ck_assert_uint_lt(coded.n_tensors, MAX_TENSORS);
        tensor[coded.n_tensors++] =
            (CodedTensor){.name = arena_strdup(arena, proto->name),
                          .dtype = view.dtype,
                          .shape = view.shape,
                          .first = coded.n_symbols,
                          .count = (uint64_t)view.count,
                          .scale = scaled && i % 3 ? 0.1f + (float)below(1000) / 999.0f : 1.0f};
        coded.n_symbols += (uint64_t)view.count;
    }
    uint16_t *symbol = arena_array(arena, coded.n_symbols, sizeof *symbol);
    float *codebook = arena_array(arena, (size_t)levels, sizeof *codebook);
    for (uint64_t i = 0; i < coded.n_symbols; i++) /* peaked in the middle */
        symbol[i] = (uint16_t)((below((uint32_t)levels) + below((uint32_t)levels)) / 2);
    for (int i = 0; i < levels; i++)
        codebook[i] = ((float)i - (float)levels / 2) / 37.0f;
    for (uint64_t i = 0; zero_percent > 0 && i < coded.n_symbols; i++)
        if (below(100) < zero_percent)
            symbol[i] = skipped_symbol(codebook, levels);
    coded.symbols = symbol;
    coded.codebook = codebook;
    return coded;
}

/* Every coded tensor is an initializer of exactly the values that were coded. */
static inline void assert_values(Model *model, const Coded *coded)
{
    for (size_t t = 0; t < coded->n_tensors; t++) {
        const CodedTensor *tensor = &coded->tensors[t];
        size_t node;
        Tensor view;
        Onnx__TensorProto *proto = values_find(model, tensor->name, &node);
        ck_assert_msg(proto != NULL, "%s is gone", tensor->name);
        ck_assert_int_eq(model_tensor(model, proto, "test", &view, &error), ONNXPRESS_OK);
        ck_assert_int_eq(view.dtype, tensor->dtype);
        ck_assert(shape_equal(&view.shape, &tensor->shape));
        const float *value = view.data;
        for (uint64_t i = 0; i < tensor->count; i++) {
            float expected = tensor->scale * coded->codebook[coded->symbols[tensor->first + i]];
            if (memcmp(&value[i], &expected, sizeof expected) != 0) /* an assertion each is slow */
                ck_abort_msg("%s[%llu]: %a, not %a", tensor->name, (unsigned long long)i,
                             (double)value[i], (double)expected);
        }
    }
}

/* What the graph is apart from the order of its initializers. */
static inline void assert_same_graph(const Model *a, const Model *b)
{
    const Onnx__GraphProto *x = a->proto->graph, *y = b->proto->graph;
    ck_assert_uint_eq(x->n_node, y->n_node);
    for (size_t i = 0; i < x->n_node; i++) {
        size_t bytes = onnx__node_proto__get_packed_size(x->node[i]);
        ck_assert_uint_eq(bytes, onnx__node_proto__get_packed_size(y->node[i]));
        uint8_t *p = arena_array(arena, bytes, 1), *q = arena_array(arena, bytes, 1);
        onnx__node_proto__pack(x->node[i], p);
        onnx__node_proto__pack(y->node[i], q);
        ck_assert_mem_eq(p, q, bytes);
    }
    ck_assert_uint_eq(x->n_initializer, y->n_initializer);
    for (size_t i = 0; i < x->n_initializer; i++) {
        size_t node;
        ck_assert(values_find(b, x->initializer[i]->name, &node) != NULL);
    }
    ck_assert_uint_eq(a->proto->n_functions, b->proto->n_functions);
    ck_assert_uint_eq(a->proto->n_opset_import, b->proto->n_opset_import);
    ck_assert_uint_eq(a->proto->n_metadata_props, b->proto->n_metadata_props);
    ck_assert_int_eq(a->proto->ir_version, b->proto->ir_version);
}

/* LeNet-5 without its largest matrix, for tests that load it a thousand times. */
static inline const char *small_model(void)
{
    static const int64_t one[2] = {1, 1};
    const char *path = scratch_path("small.onnx");
    Model *model = load(LENET);
    size_t node;
    Onnx__TensorProto *large = values_find(model, "5.weight", &node);
    ck_assert(large && large->raw_data.len == 4 * 400000);
    large->dims = (int64_t *)(uintptr_t)one;
    large->raw_data.len = sizeof(float);
    ck_assert_int_eq(model_save(model, path, &error), ONNXPRESS_OK);
    model_free(model);
    return path;
}

static inline void add_once(NameTable *names, const char *name, const char *where)
{
    if (name_table_find(names, name) >= 0)
        ck_abort_msg("%s: '%s' is made twice", where, name);
    ck_assert(name_table_add(names, name, 1));
}

static inline void assert_assigned_once(NameTable *names, Onnx__NodeProto *const *node, size_t n,
                                        const char *where)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < node[i]->n_input; k++)
            if (node[i]->input[k][0] && name_table_find(names, node[i]->input[k]) < 0)
                ck_abort_msg("%s: '%s' is read before it is made", where, node[i]->input[k]);
        for (size_t k = 0; k < node[i]->n_output; k++)
            add_once(names, node[i]->output[k], where);
    }
}

/* In the graph and in each function, a name is that of one input, one initializer or one node's
 * output, and nothing reads a name before it is there: else a role's letter, a constant or a local
 * name of the decoder has met another. */
static inline void assert_names(const Model *model)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    NameTable *names = name_table_create(arena);
    for (size_t i = 0; i < graph->n_initializer; i++)
        add_once(names, graph->initializer[i]->name, "graph");
    for (size_t i = 0; i < graph->n_input; i++) /* which an initializer may be too */
        ck_assert(name_table_add(names, graph->input[i]->name, 1));
    assert_assigned_once(names, graph->node, graph->n_node, "graph");
    for (size_t f = 0; f < model->proto->n_functions; f++) {
        const Onnx__FunctionProto *function = model->proto->functions[f];
        names = name_table_create(arena);
        for (size_t i = 0; i < function->n_input; i++)
            add_once(names, function->input[i], function->name);
        assert_assigned_once(names, function->node, function->n_node, function->name);
        ck_assert_int_ge(name_table_find(names, function->output[0]), 0);
    }
}

static inline Model *applied_to(const char *path, RewriteForm form, int levels, bool scaled,
                                int64_t most, Coded *coded)
{
    Model *model = load(path);
    *coded = random_coded(model, levels, scaled, most);
    int status = rewrite_apply(model, coded, form, NOTE, &error);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", error.message);
    assert_names(model);
    return model;
}

static inline Model *applied(RewriteForm form, int levels, bool scaled, int64_t most, Coded *coded)
{
    return applied_to(LENET, form, levels, scaled, most, coded);
}

static inline void restore_and_compare(Model *model, const Coded *coded)
{
    Model *original = load(LENET);
    int status = rewrite_restore(model, &error);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", error.message);
    ck_assert(!rewrite_is_ours(model, NULL, NULL));
    assert_values(model, coded);
    assert_same_graph(model, original);
    model_free(original);
}

static inline void try_restore(const char *path)
{
    Model *model;
    error = (Error){0};
    int status = model_load(path, &model, &error);
    if (!status) {
        status = rewrite_restore(model, &error);
        if (!status)
            ck_assert_uint_gt(model_packed_size(model), 0);
        model_free(model);
    }
    ck_assert(status == ONNXPRESS_OK || strlen(error.message) > 10);
    ck_assert_int_ne(status, ONNXPRESS_INTERNAL);
}

#endif
