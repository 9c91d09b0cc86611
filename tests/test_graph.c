/* SPDX-License-Identifier: Apache-2.0 */
/* Builders, saving what was built, and the graph index. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>

#include "model/graph.h"
#include "model_samples.h"

START_TEST(built_models_are_saved)
{
    Model *model = empty_model(), *back;
    const int64_t dims[2] = {2, 3};
    const float values[6] = {1, 2, 3, 4, 5, 6};
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        ck_assert(model_append_initializer(
            model, build_tensor(model, name, DTYPE_FLOAT, 2, dims, values, sizeof values)));
    }
    add_value(model, model->proto->graph, false, "x");
    add_value(model, model->proto->graph, false, "w7");
    add_value(model, model->proto->graph, true, "y");
    const char *inputs[2] = {"x", ""}, *outputs[1] = {"y"};
    Onnx__NodeProto *node = build_node(model, "my.domain", "Thing", inputs, 2, outputs, 1);
    const int64_t ints[3] = {1, -2, 3};
    ck_assert(build_attribute_int(model, node, "axis", -1));
    ck_assert(build_attribute_ints(model, node, "pads", ints, 3));
    ck_assert(build_attribute_tensor(model, node, "value",
                                     build_tensor(model, NULL, DTYPE_INT8, 0, NULL, "\x2a", 1)));
    ck_assert(!build_attribute_tensor(model, node, "value", NULL));
    ck_assert(model_prepend_nodes(model, &node, 1));
    ck_assert(model_append_opset(model, "my.domain", 3));
    ck_assert(model_append_opset(model, "my.domain", 4)); /* is there: stays */
    ck_assert(model_append_opset(model, "ai.onnx", 17));
    ck_assert(model_append_opset(model, "", 18)); /* the same domain */
    Onnx__FunctionProto *function = arena_array(model->arena, 1, sizeof *function);
    onnx__function_proto__init(function);
    function->name = arena_strdup(model->arena, "Thing");
    ck_assert(model_append_function(model, function));
    model_remove_initializer(model, model->proto->graph->initializer[7]);
    size_t size = model_packed_size(model), bytes;
    expect_ok(model_save(model, scratch_path("out.onnx"), &err));
    model_free(model);
    free(scratch_read(scratch_path("out.onnx"), &bytes));
    ck_assert_uint_eq(bytes, size);

    expect_ok(model_load(scratch_path("out.onnx"), &back, &err));
    const Onnx__GraphProto *graph = back->proto->graph;
    ck_assert_uint_eq(graph->n_initializer, 39);
    ck_assert_str_eq(graph->initializer[7]->name, "w8");
    ck_assert_uint_eq(graph->n_input, 1);
    Tensor tensor;
    expect_ok(model_tensor(back, graph->initializer[38], NULL, &tensor, &err));
    ck_assert_mem_eq(tensor.data, values, sizeof values);
    ck_assert_uint_eq(back->proto->n_functions, 1);
    ck_assert_uint_eq(back->proto->n_opset_import, 2);
    ck_assert_int_eq(back->proto->opset_import[0]->version, 3);
    ck_assert_int_eq(back->opset, 17);
    node = graph->node[0];
    ck_assert_str_eq(node->domain, "my.domain");
    ck_assert_uint_eq(node->n_input, 2);
    ck_assert_str_eq(node->input[1], "");
    ck_assert_int_eq(node_attribute(node, "axis")->i, -1);
    ck_assert_uint_eq(node_attribute(node, "pads")->n_ints, 3);
    ck_assert_int_eq(node_attribute(node, "pads")->ints[1], -2);
    ck_assert_uint_eq(node_attribute(node, "value")->t->raw_data.data[0], 0x2a);
    ck_assert_ptr_null(node_attribute(node, "none"));
    model_free(back);
}
END_TEST

START_TEST(metadata)
{
    Model *model = empty_model(), *back;
    ck_assert_ptr_null(model_metadata(model, "k"));
    char key[16];
    for (int i = 0; i < 20; i++) {
        snprintf(key, sizeof key, "k%d", i);
        expect_ok(model_set_metadata(model, key, key, &err));
    }
    expect_ok(model_set_metadata(model, "k3", "changed", &err));
    expect_ok(model_set_metadata(model, "k4", NULL, &err));
    expect_ok(model_set_metadata(model, "never", NULL, &err));
    expect_ok(model_set_metadata(model, "empty", "", &err));
    expect_ok(model_save(model, scratch_path("out.onnx"), &err));
    model_free(model);
    expect_ok(model_load(scratch_path("out.onnx"), &back, &err));
    ck_assert_uint_eq(back->proto->n_metadata_props, 20);
    ck_assert_str_eq(model_metadata(back, "k3"), "changed");
    ck_assert_ptr_null(model_metadata(back, "k4"));
    ck_assert_str_eq(model_metadata(back, "k19"), "k19");
    ck_assert_str_eq(model_metadata(back, "empty"), "");
    model_free(back);
}
END_TEST

START_TEST(fresh_names_are_fresh)
{
    Model *model = empty_model();
    add_node(model, "n1", "Relu", "x0 x2", "x4");
    add_init(model, "x6");
    add_value(model, model->proto->graph, false, "x8");
    const char *names[200];
    for (int i = 0; i < 200; i++) {
        names[i] = model_fresh_name(model, i % 2 ? "n" : "x");
        ck_assert_ptr_nonnull(names[i]);
        ck_assert_uint_le(strlen(names[i]), 3);
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(names[i], names[k]);
        for (const char *taken = "n1\0x0\0x2\0x4\0x6\0x8\0"; *taken; taken += 3)
            ck_assert_str_ne(names[i], taken);
        if (i == 100) /* what is built meanwhile counts too */
            for (int k = 0; k < 36; k++) {
                char name[8];
                snprintf(name, sizeof name, "x4%c", "0123456789abcdefghijklmnopqrstuvwxyz"[k]);
                add_init(model, name);
            }
    }
    for (int i = 0; i < 200; i++)
        ck_assert(i < 101 || strncmp(names[i], "x4", 2) != 0 || strlen(names[i]) != 3);
    model_free(model);
}
END_TEST

START_TEST(save_keeps_what_is_there)
{
    Model *model;
    expect_ok(model_load(LENET, &model, &err));
    expect_error(model_save(model, scratch_path("no/out"), &err), ONNXPRESS_IO, "no/out");
    expect_error(model_save(model, scratch, &err), ONNXPRESS_IO, "is a folder");
    FileWriter *writer;
    expect_ok(model_write(model, scratch_path("out"), &writer, &err));
    ck_assert_int_eq(access(scratch_path("out"), F_OK), -1);
    file_abort(writer);
    ck_assert_int_eq(scratch_count(), 0);
    expect_ok(model_save(model, scratch_path("out"), &err));
    size_t a_bytes, b_bytes;
    char *a = scratch_read(LENET, &a_bytes), *b = scratch_read(scratch_path("out"), &b_bytes);
    ck_assert_uint_eq(a_bytes, b_bytes);
    ck_assert_mem_eq(a, b, a_bytes);
    free(a);
    free(b);
    model_free(model);
}
END_TEST

/* A tensor over the 2 GB that a protobuf file can have; its bytes are never touched. */
START_TEST(too_large_is_refused)
{
    Model *model = empty_model();
    add_init(model, "big");
    model->proto->graph->initializer[0]->raw_data.len = (size_t)1 << 31;
    expect_error(model_save(model, scratch_path("out"), &err), ONNXPRESS_UNSUPPORTED,
                 "external data");
    ck_assert_int_eq(access(scratch_path("out"), F_OK), -1);
    model_free(model);
}
END_TEST

START_TEST(lenet_graph)
{
    Model *model;
    Graph *graph;
    expect_ok(model_load(LENET, &model, &err));
    expect_ok(graph_build(model, model->arena, &graph, &err));
    ck_assert_int_eq(graph->n_nodes, 8);
    ck_assert_int_eq(graph->n_values, 17);
    for (int n = 0; n < 8; n++)
        ck_assert_int_eq(graph->order[n], n);
    ck_assert_int_eq(graph_find(graph, "nothing"), -1);
    const GraphValue *image = &graph->values[graph_find(graph, "image")];
    ck_assert(image->is_input && !image->is_output && image->producer == -1 && !image->init);
    ck_assert_int_eq(image->n_uses, 1);
    ck_assert_int_eq(image->uses[0].node, 0);
    ck_assert_int_eq(image->uses[0].input, 0);
    const GraphValue *bias = &graph->values[graph_find(graph, "2.bias")];
    ck_assert(!bias->is_input && bias->producer == -1 && !bias->is_constant_node);
    ck_assert_str_eq(bias->init->name, "2.bias");
    ck_assert_int_eq(bias->uses[0].node, 2);
    ck_assert_int_eq(bias->uses[0].input, 2);
    int logits = graph_find(graph, "logits");
    ck_assert(graph->values[logits].is_output);
    ck_assert_int_eq(graph->values[logits].producer, 7);
    ck_assert_int_eq(graph->outputs[7][0], logits);
    ck_assert_int_eq(graph->inputs[7][1], graph_find(graph, "7.weight"));
    model_free(model);
}
END_TEST

static int build_graph(Model *model, Graph **graph)
{
    return graph_build(model, model->arena, graph, &err);
}

START_TEST(graph_of_many_shapes)
{
    Model *model = empty_model();
    Graph *graph;
    add_value(model, model->proto->graph, false, "x");
    add_value(model, model->proto->graph, false, "w"); /* an initializer too: its default */
    add_init(model, "w");
    add_node(model, "last", "Add", "b a", "y"); /* in the wrong order */
    add_node(model, "second", "Mul", "a w", "b -");
    add_node(model, "first", "Clip", "x - w", "a");
    add_node(model, "const", "Constant", "", "c");
    ck_assert(build_attribute_tensor(model, model->proto->graph->node[3], "value",
                                     build_tensor(model, NULL, DTYPE_INT8, 0, NULL, "\1", 1)));
    add_value(model, model->proto->graph, true, "y");
    add_value(model, model->proto->graph, true, "x");
    expect_ok(build_graph(model, &graph));
    int place[4];
    for (int i = 0; i < 4; i++)
        place[graph->order[i]] = i;
    ck_assert(place[2] < place[1] && place[1] < place[0]);
    const GraphValue *w = &graph->values[graph_find(graph, "w")];
    ck_assert(w->is_input && w->init && w->producer == -1);
    ck_assert_int_eq(w->n_uses, 2);
    ck_assert_int_eq(w->uses[0].node, 1);
    ck_assert_int_eq(w->uses[1].node, 2);
    ck_assert_int_eq(w->uses[1].input, 2);
    ck_assert_int_eq(graph->inputs[2][1], -1);
    ck_assert_int_eq(graph->outputs[1][1], -1);
    const GraphValue *c = &graph->values[graph_find(graph, "c")];
    ck_assert(c->is_constant_node && c->init && c->producer == 3 && c->n_uses == 0);
    const GraphValue *x = &graph->values[graph_find(graph, "x")];
    ck_assert(x->is_input && x->is_output);
    model_free(model);
}
END_TEST

/* One fault a case, named with its node. */
START_TEST(bad_graphs_are_refused)
{
    static const char *const parts[] = {
        "node 'two' (Relu) makes a value that is already there: 'y'",
        "node 'over' (Relu) makes a value that is already there: 'x'",
        "node 'over' (Relu) makes a value that is already there: 'w'",
        "node 'reads' (Relu) reads a value that nothing makes: 'gone'",
        "is part of a cycle through the value",
        "node 'self' (Relu) is part of a cycle through the value 'y'",
        "the graph has an output that nothing makes: 'gone'",
        "the graph has two initializers 'w'",
        "the graph has two inputs 'x'",
        "the graph has an initializer without a name",
        "node 0 (Relu) reads a value that nothing makes: 'gone'",
    };
    for (int i = 0; i < (int)(sizeof parts / sizeof parts[0]); i++) {
        Model *model = empty_model();
        Graph *graph;
        add_value(model, model->proto->graph, false, "x");
        add_init(model, "w");
        switch (i) {
        case 0:
            add_node(model, "one", "Relu", "x", "y");
            add_node(model, "two", "Relu", "x", "y");
            break;
        case 1:
            add_node(model, "over", "Relu", "w", "x");
            break;
        case 2:
            add_node(model, "over", "Relu", "x", "w");
            break;
        case 3:
            add_node(model, "reads", "Relu", "gone", "y");
            break;
        case 4:
            add_node(model, "a", "Add", "x d", "b");
            add_node(model, "b", "Relu", "b", "c");
            add_node(model, "c", "Relu", "c", "d");
            break;
        case 5:
            add_node(model, "self", "Relu", "y", "y");
            break;
        case 6:
            add_value(model, model->proto->graph, true, "gone");
            break;
        case 7:
            add_init(model, "w");
            break;
        case 8:
            add_value(model, model->proto->graph, false, "x");
            break;
        case 9:
            add_init(model, "");
            break;
        case 10:
            add_node(model, "", "Relu", "gone", "y");
            break;
        }
        expect_error(build_graph(model, &graph), ONNXPRESS_FORMAT, parts[i]);
        ck_assert_ptr_null(graph);
        model_free(model);
    }
}
END_TEST

/* Gives node n a subgraph attribute and returns the subgraph as a model's worth of room. */
static Onnx__GraphProto *add_subgraph(Model *model, Onnx__NodeProto *node)
{
    ck_assert(build_attribute_int(model, node, "body", 0));
    Onnx__GraphProto *graph = arena_array(model->arena, 1, sizeof *graph);
    onnx__graph_proto__init(graph);
    node->attribute[node->n_attribute - 1]->g = graph;
    return graph;
}

static Onnx__NodeProto *add_inner(Model *model, Onnx__GraphProto *graph, const char *in,
                                  const char *out)
{
    graph->node = arena_array(model->arena, 1, sizeof *graph->node);
    graph->n_node = 1;
    graph->node[0] = build_node(model, "", "Relu", &in, 1, &out, 1);
    return graph->node[0];
}

START_TEST(bodies_are_taken_apart)
{
    Model *model = empty_model();
    Graph *graph;
    add_value(model, model->proto->graph, false, "x");
    add_init(model, "w");
    add_node(model, "if", "If", "x", "y"); /* reads z, made below, from inside */
    add_node(model, "z", "Relu", "x", "z");
    Onnx__GraphProto *body = add_subgraph(model, model->proto->graph->node[0]);
    Onnx__NodeProto *inner = add_inner(model, body, "w", "t");
    add_value(model, body, true, "t");
    Onnx__GraphProto *deeper = add_subgraph(model, inner);
    add_inner(model, deeper, "z", "v");
    add_value(model, deeper, true, "v");
    Onnx__GraphProto *second = add_subgraph(model, model->proto->graph->node[0]);
    add_inner(model, second, "w", "t");
    add_value(model, second, true, "t");
    expect_ok(build_graph(model, &graph));
    ck_assert(graph->n_nodes == 5 && graph->n_bodies == 3);
    /* z, the deeper body, what holds it, the second body, If */
    const int order[5] = {1, 3, 2, 4, 0};
    ck_assert_mem_eq(graph->order, order, sizeof order);
    ck_assert_int_eq(graph_find(graph, "t"), -1);
    ck_assert_int_ge(graph_find(graph, "t/body/v"), 0);
    const GraphBody *bodies = graph->bodies;
    const GraphValue *values = graph->values;
    ck_assert(bodies[0].node == 0 && bodies[1].node == 2 && bodies[2].node == 0);
    ck_assert(bodies[1].parent == 0 && bodies[0].next == 2 && bodies[2].next == -1);
    ck_assert_str_eq(values[bodies[0].outputs[0]].name, "if/body/t");
    ck_assert_str_eq(values[bodies[0].outputs[0]].local, "t");
    ck_assert_str_eq(values[bodies[2].outputs[0]].name, "if/body/t.1");
    ck_assert_int_eq(graph->n_inputs[0], 3);
    ck_assert_int_eq(graph->inputs[0][2], bodies[2].outputs[0]);
    ck_assert_int_eq(graph->n_captures[0], 2);
    ck_assert_int_eq(graph->captures[2][0], graph_find(graph, "z"));
    const GraphValue *w = &values[graph_find(graph, "w")];
    ck_assert(w->n_uses == 2 && w->uses[0].node == 2 && w->uses[1].node == 4);
    add_inner(model, second, "gone", "t");
    expect_error(build_graph(model, &graph), ONNXPRESS_FORMAT,
                 "node 4 (Relu) reads a value that nothing makes: 'gone'");
    add_inner(model, second, "w", "t");
    second->output[0]->name = arena_strdup(model->arena, "v"); /* of another body */
    expect_error(build_graph(model, &graph), ONNXPRESS_FORMAT,
                 "has a body with an output that nothing makes: 'v'");
    /* A cycle that runs through a body. */
    second->output[0]->name = arena_strdup(model->arena, "t");
    model->proto->graph->node[1]->input[0] = arena_strdup(model->arena, "y");
    expect_error(build_graph(model, &graph), ONNXPRESS_FORMAT, "is part of a cycle");
    model_free(model);
}
END_TEST

START_TEST(sparse_initializers_are_made)
{
    const int64_t one = 1;
    Wire values = tensor_wire("sparse", DTYPE_FLOAT, 1, &one), graph = {0}, sparse = {0},
         node = {0};
    put_bytes(&values, 9, "\0\0\0\0", 4);
    put_wire(&sparse, 1, &values);
    put_wire(&graph, 15, &sparse);
    put_text(&node, 1, "sparse");
    put_text(&node, 2, "y");
    put_wire(&graph, 1, &node);
    Model *model;
    Graph *index;
    expect_ok(load_graph(&graph, &model));
    expect_ok(build_graph(model, &index));
    const GraphValue *value = &index->values[graph_find(index, "sparse")];
    ck_assert(!value->init && value->producer == -1 && value->n_uses == 1);
    model_free(model);
}
END_TEST

/* A chain as long as this would overflow the stack of a recursive walk. */
START_TEST(long_chains)
{
    enum { LENGTH = 200000 };
    Model *model = empty_model();
    Onnx__GraphProto *proto = model->proto->graph;
    Onnx__NodeProto **nodes = arena_array(model->arena, LENGTH, sizeof *nodes);
    add_value(model, proto, false, "v0");
    for (int i = 0; i < LENGTH; i++) {
        char in[16], out[16];
        const char *inputs = in, *outputs = out;
        snprintf(in, sizeof in, "v%d", LENGTH - 1 - i);
        snprintf(out, sizeof out, "v%d", LENGTH - i);
        nodes[i] = build_node(model, "", "Relu", &inputs, 1, &outputs, 1);
    }
    ck_assert(model_prepend_nodes(model, nodes, LENGTH));
    Graph *graph;
    expect_ok(build_graph(model, &graph));
    int wrong = 0;
    for (int i = 0; i < LENGTH; i++)
        wrong += graph->order[i] != LENGTH - 1 - i;
    ck_assert_int_eq(wrong, 0);
    model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("graph");
    ADD(suite, "build", built_models_are_saved, metadata, fresh_names_are_fresh,
        save_keeps_what_is_there, too_large_is_refused);
    ADD(suite, "graph", lenet_graph, graph_of_many_shapes, bad_graphs_are_refused,
        bodies_are_taken_apart, sparse_initializers_are_made, long_chains);
    return run_suite(suite);
}
