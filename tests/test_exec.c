/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/internal.h"
#include "tiny_model.h"

/* A model made by a test, run with inputs that the test sets. */
typedef struct {
    Tiny *tiny;
    Model *model;
    Program *program;
    Exec *exec;
    Value inputs[4];
    Error err;
} Net;

static Tiny *net_begin(Net *net, int64_t opset)
{
    openblas_set_num_threads(1);
    memset(net, 0, sizeof *net);
    net->tiny = tiny_create(opset);
    return net->tiny;
}

static void net_build(Net *net)
{
    net->model = tiny_load(net->tiny);
    ck_assert_msg(!program_build(net->model, &net->program, &net->err), "%s", net->err.message);
    ck_assert_msg(!exec_create(net->program, 0, &net->exec, &net->err), "%s", net->err.message);
}

static void net_free(Net *net)
{
    for (size_t k = 0; k < sizeof net->inputs / sizeof net->inputs[0]; k++) {
        free(net->inputs[k].r);
        free(net->inputs[k].i);
    }
    exec_free(net->exec);
    program_free(net->program);
    model_free(net->model);
    tiny_free(net->tiny);
}

/* Input k: values 0.1, 0.2, … with alternating signs. */
static void set_input(Net *net, int k, Shape shape)
{
    Value *value = &net->inputs[k];
    free(value->r);
    *value = (Value){.dtype = DTYPE_FLOAT, .shape = shape};
    ck_assert(shape_count(&shape, &value->count));
    value->r = calloc((size_t)value->count + 1, sizeof *value->r);
    for (int64_t i = 0; i < value->count; i++)
        value->r[i] = (real)(i + 1) * (i % 2 ? (real)0.1 : (real)-0.1);
}

static void run(Net *net, int keep)
{
    ck_assert_msg(!exec_forward(net->exec, net->inputs, keep, &net->err), "%s", net->err.message);
}

static int weight_named(const Net *net, const char *name)
{
    for (int w = 0; w < program_weights(net->program); w++)
        if (strcmp(program_weight(net->program, w)->name, name) == 0)
            return w;
    ck_abort_msg("no weight %s", name);
    return -1;
}

static const Weight *weight(const Net *net, const char *name)
{
    return program_weight(net->program, weight_named(net, name));
}

/* x [N,3] → y [N,2] = x A' + b, and z = relu(y) B. */
static void two_layers(Net *net)
{
    Tiny *t = net_begin(net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[2,3]", NULL);
    tiny_reals(t, "b", "[2]", NULL);
    tiny_reals(t, "c", "[2,2]", NULL);
    tiny_node(t, "Gemm", "x a b", "y", "transB=1");
    tiny_node(t, "Relu", "y", "r", NULL);
    tiny_node(t, "MatMul", "r c", "z", NULL);
    tiny_output(t, "z");
    net_build(net);
    set_input(net, 0, (Shape){.rank = 2, .dim = {4, 3}});
}

START_TEST(describes)
{
    Net net;
    two_layers(&net);
    ck_assert_int_eq(program_weights(net.program), 3);
    ck_assert_int_eq(program_inputs(net.program), 1);
    ck_assert_str_eq(program_input(net.program, 0)->name, "x");
    ck_assert_int_eq(program_input(net.program, 0)->shape.dim[0], -1);
    ck_assert_int_eq(program_input(net.program, 0)->shape.dim[1], 3);
    ck_assert_str_eq(program_output(net.program, 0)->made_by, "MatMul");
    ck_assert_ptr_null(program_unsupported(net.program));
    ck_assert(weight(&net, "a")->reaches);
    ck_assert(!weight(&net, "a")->steers);
    ck_assert_int_eq(weight(&net, "a")->count, 6);
    ck_assert_int_eq(weight(&net, "a")->n_uses, 1);
    net_free(&net);
}
END_TEST

/* Scores that are moved beside other numbers, and a gate that is multiplied. */
START_TEST(scores_are_seen_through_what_moves_them)
{
    for (int gated = 0; gated < 2; gated++) {
        Net net;
        Tiny *t = net_begin(&net, 13);
        tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
        tiny_reals(t, "a", "[3,2]", NULL);
        tiny_node(t, "MatMul", "x a", "y", NULL);
        tiny_node(t, "Sigmoid", "y", "s", NULL);
        tiny_node(t, gated ? "Mul" : "Transpose", gated ? "y s" : "s", "m", NULL);
        tiny_node(t, "Transpose", gated ? "m" : "y", "n", NULL);
        tiny_node(t, "Concat", gated ? "n n" : "n m", "z", "axis=0");
        tiny_output(t, "z");
        net_build(&net);
        ck_assert_str_eq(program_output(net.program, 0)->made_by, "Concat");
        ck_assert(program_output(net.program, 0)->scored == !gated);
        net_free(&net);
    }
}
END_TEST

START_TEST(gradients_repeat)
{
    Net net;
    two_layers(&net);
    run(&net, EXEC_KEEP);
    real d[8];
    for (int i = 0; i < 8; i++)
        d[i] = (real)i - 3;
    const real *d_outputs[] = {d};
    int a = weight_named(&net, "a");
    real first[6];
    ck_assert_int_eq(exec_backward(net.exec, d_outputs, &net.err), ONNXPRESS_OK);
    memcpy(first, exec_gradient(net.exec, a), sizeof first);
    real total = 0;
    for (int i = 0; i < 6; i++)
        total += (real)fabs((double)first[i]);
    ck_assert(total > 0);
    ck_assert_int_eq(exec_backward(net.exec, d_outputs, &net.err), ONNXPRESS_OK);
    ck_assert_mem_eq(first, exec_gradient(net.exec, a), sizeof first);
    /* A gradient of zero is said to be none. */
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){NULL}, &net.err), ONNXPRESS_OK);
    ck_assert_ptr_null(exec_gradient(net.exec, a));
    net_free(&net);
}
END_TEST

START_TEST(backward_needs_what_forward_kept)
{
    Net net;
    two_layers(&net);
    real d[8] = {1};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d}, &net.err), ONNXPRESS_INTERNAL);
    net.err.code = ONNXPRESS_OK;
    run(&net, EXEC_DISCARD);
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d}, &net.err), ONNXPRESS_INTERNAL);
    net_free(&net);
}
END_TEST

START_TEST(wanted_prunes)
{
    Net net;
    two_layers(&net);
    bool wanted[3] = {false};
    wanted[weight_named(&net, "c")] = true;
    exec_set_wanted(net.exec, wanted);
    run(&net, EXEC_KEEP);
    size_t pruned = exec_peak_bytes(net.exec);
    real d[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d}, &net.err), ONNXPRESS_OK);
    ck_assert_ptr_null(exec_gradient(net.exec, weight_named(&net, "a")));
    ck_assert_ptr_nonnull(exec_gradient(net.exec, weight_named(&net, "c")));
    ck_assert_uint_gt(pruned, 0);
    /* More than the forward run kept for: refused, not wrong. */
    exec_set_wanted(net.exec, NULL);
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d}, &net.err), ONNXPRESS_INTERNAL);
    net_free(&net);
}
END_TEST

START_TEST(weights_are_replaced)
{
    Net net;
    two_layers(&net);
    run(&net, EXEC_DISCARD);
    real before[8], zero[4] = {0};
    memcpy(before, exec_output(net.exec, 0)->r, sizeof before);
    const real *weights[3] = {NULL};
    weights[weight_named(&net, "c")] = zero;
    exec_set_weights(net.exec, weights);
    run(&net, EXEC_DISCARD);
    for (int i = 0; i < 8; i++)
        ck_assert_float_eq((float)exec_output(net.exec, 0)->r[i], 0);
    exec_set_weights(net.exec, NULL);
    run(&net, EXEC_DISCARD);
    ck_assert_mem_eq(before, exec_output(net.exec, 0)->r, sizeof before);
    net_free(&net);
}
END_TEST

START_TEST(memory_is_bounded)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3,50]", NULL);
    tiny_node(t, "MatMul", "x a", "y", NULL);
    tiny_node(t, "Tanh", "y", "t1", NULL);
    tiny_node(t, "Tanh", "t1", "t2", NULL);
    tiny_node(t, "Tanh", "t2", "t3", NULL);
    tiny_output(t, "t3");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {4, 3}});
    run(&net, EXEC_DISCARD);
    size_t discarding = exec_peak_bytes(net.exec);
    run(&net, EXEC_KEEP);
    size_t keeping = exec_peak_bytes(net.exec);
    /* Two values of the chain live at a time, or all three that backward reads. */
    ck_assert_uint_ge(discarding, 2 * 200 * sizeof(real));
    ck_assert_uint_lt(discarding, 3 * 200 * sizeof(real));
    ck_assert_uint_ge(keeping, 3 * 200 * sizeof(real));
    Exec *tight, *exact;
    ck_assert_int_eq(exec_create(net.program, keeping - 1, &tight, &net.err), ONNXPRESS_OK);
    ck_assert_int_eq(exec_forward(tight, net.inputs, EXEC_KEEP, &net.err), ONNXPRESS_MEMORY);
    ck_assert_ptr_nonnull(strstr(net.err.message, "memory bound"));
    net.err.code = ONNXPRESS_OK;
    ck_assert_int_eq(exec_forward(tight, net.inputs, EXEC_DISCARD, &net.err), ONNXPRESS_OK);
    ck_assert_int_eq(exec_create(net.program, keeping, &exact, &net.err), ONNXPRESS_OK);
    for (int k = 0; k < 3; k++)
        ck_assert_int_eq(exec_forward(exact, net.inputs, EXEC_KEEP, &net.err), ONNXPRESS_OK);
    ck_assert_uint_le(exec_peak_bytes(exact), keeping);
    ck_assert_mem_eq(exec_output(tight, 0)->r, exec_output(exact, 0)->r, 200 * sizeof(real));
    /* Gradients count too. */
    real *d = calloc(200, sizeof *d);
    ck_assert_int_eq(exec_backward(exact, (const real *[]){d}, &net.err), ONNXPRESS_MEMORY);
    free(d);
    exec_free(tight);
    exec_free(exact);
    net_free(&net);
}
END_TEST

START_TEST(unsupported_is_named)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3,3]", NULL);
    tiny_reals(t, "late", "[3]", NULL);
    tiny_node(t, "MatMul", "x a", "y", NULL);
    tiny_node(t, "NoSuchOp", "y", "z", NULL);
    tiny_node(t, "Add", "z late", "out", NULL);
    tiny_output(t, "out");
    net_build(&net);
    ck_assert_str_eq(program_unsupported(net.program), "n_z (NoSuchOp, opset 17)");
    ck_assert(!weight(&net, "a")->reaches);
    ck_assert_str_eq(weight(&net, "a")->blocked_by, "n_z (NoSuchOp)");
    ck_assert(weight(&net, "late")->reaches);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {1, 3}});
    ck_assert_int_eq(exec_forward(net.exec, net.inputs, EXEC_DISCARD, &net.err),
                     ONNXPRESS_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(net.err.message, "n_z (NoSuchOp, opset 17)"));
    net_free(&net);
}
END_TEST

/* A node that no output depends on is no reason to refuse a graph. */
START_TEST(dead_nodes_are_skipped)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3]", NULL);
    tiny_reals(t, "b", "[3]", NULL);
    tiny_node(t, "Mul", "x a", "y", NULL);
    tiny_node(t, "NoSuchOp", "y b", "z", NULL);
    tiny_output(t, "y");
    net_build(&net);
    ck_assert_ptr_null(program_unsupported(net.program));
    ck_assert(!weight(&net, "b")->reaches);
    ck_assert(weight(&net, "a")->reaches);
    net_free(&net);
}
END_TEST

START_TEST(steering_is_found)
{
    static const float one = 1, two = 2;
    static const int64_t axis_ends[] = {0, 1, 0, 1};
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,4]");
    tiny_reals(t, "low", "[]", &one);
    tiny_reals(t, "high", "[]", &two);
    tiny_reals(t, "exponent", "[]", &two);
    tiny_reals(t, "fill", "[]", &one);
    tiny_reals(t, "half", "[1]", &two);
    tiny_reals(t, "factor", "[1]", &two);
    tiny_reals(t, "unused", "[3]", NULL);
    tiny_reals(t, "w", "[4]", NULL);
    tiny_integers(t, "pads", "[4]", axis_ends);
    tiny_node(t, "Clip", "x low high", "c", NULL);
    tiny_node(t, "Pow", "c exponent", "p", NULL);
    tiny_node(t, "Pad", "p pads fill", "q", NULL);
    tiny_node(t, "Shape", "q", "s", "start=1");
    /* a size in floating point: 6 * half / half, cast back */
    tiny_node(t, "Cast", "s", "sf", "to=1");
    tiny_node(t, "Mul", "sf half", "sm", NULL);
    tiny_node(t, "Div", "sm half", "sd", NULL);
    tiny_node(t, "Cast", "sd", "si", "to=7");
    tiny_node(t, "Expand", "factor si", "e", NULL);
    tiny_node(t, "Mul", "q e", "m", NULL);
    tiny_node(t, "Relu", "w", "rw", NULL);
    tiny_node(t, "ReduceSum", "rw", "total", "keepdims=0");
    tiny_node(t, "Mul", "m total", "out", NULL);
    tiny_output(t, "out");
    net_build(&net);
    static const char *const steering[] = {"low", "high", "exponent", "fill", "half", "unused"};
    for (size_t k = 0; k < sizeof steering / sizeof steering[0]; k++)
        ck_assert_msg(weight(&net, steering[k])->steers, "%s", steering[k]);
    ck_assert(!weight(&net, "factor")->steers);
    ck_assert(!weight(&net, "w")->steers);
    ck_assert(weight(&net, "w")->reaches);
    /* What steers is never replaced. */
    set_input(&net, 0, (Shape){.rank = 2, .dim = {2, 4}});
    run(&net, EXEC_DISCARD);
    real before = exec_output(net.exec, 0)->r[1], ten = 10;
    const real *weights[8] = {NULL};
    weights[weight_named(&net, "exponent")] = &ten;
    exec_set_weights(net.exec, weights);
    run(&net, EXEC_DISCARD);
    ck_assert(exec_output(net.exec, 0)->r[1] == before);
    net_free(&net);
}
END_TEST

START_TEST(constants_are_folded)
{
    static const int64_t shape[] = {2, 3}, first = 0, one = 1;
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1]");
    tiny_integers(t, "shape", "[2]", shape);
    tiny_integers(t, "first", "[1]", &first);
    tiny_reals(t, "w", "[2,3]", NULL);
    tiny_make_constant_node(t, "shape");
    tiny_make_constant_node(t, "w");
    tiny_integers(t, "one", "[1]", &one);
    tiny_node(t, "Slice", "shape first one - one", "rows", NULL);
    tiny_node(t, "ConstantOfShape", "rows", "zeros", NULL);
    tiny_node(t, "Concat", "rows shape", "joined", "axis=0");
    tiny_node(t, "ReduceSum", "w", "sum", "keepdims=0");
    tiny_node(t, "Mul", "x sum", "out", NULL);
    tiny_output(t, "out");
    tiny_output(t, "zeros");
    tiny_output(t, "joined");
    net_build(&net);
    /* The sum is of a weight and stays. */
    ck_assert_int_eq(net.program->n_steps, 2);
    ck_assert_int_eq(program_weights(net.program), 1);
    set_input(&net, 0, (Shape){.rank = 1, .dim = {3}});
    run(&net, EXEC_KEEP);
    ck_assert_int_eq(exec_output(net.exec, 1)->count, 2);
    const Value *joined = exec_output(net.exec, 2);
    ck_assert_int_eq(joined->count, 3);
    ck_assert_int_eq(joined->i[0] * 100 + joined->i[1] * 10 + joined->i[2], 223);
    real d[] = {1, 1, 1};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d, NULL, NULL}, &net.err),
                     ONNXPRESS_OK);
    ck_assert_float_eq_tol((float)exec_gradient(net.exec, 0)[0], -0.2f, 1e-6f);
    net_free(&net);
}
END_TEST

/* ResNets of torch's exporter carry shape arithmetic for their shortcuts. */
START_TEST(resnet_shortcuts_are_folded)
{
    Error err = {0};
    Model *model;
    Program *program;
    ck_assert_msg(!model_load("testdata/resnet20.onnx", &model, &err), "%s", err.message);
    ck_assert_msg(!program_build(model, &program, &err), "%s", err.message);
    for (int s = 0; s < program->n_steps; s++) {
        const char *type = program->steps[s].op.proto->op_type;
        ck_assert_msg(strcmp(type, "ConstantOfShape") && strcmp(type, "Concat") &&
                          strcmp(type, "Transpose") && strcmp(type, "Cast"),
                      "%s is left", type);
    }
    program_free(program);
    model_free(model);
}
END_TEST

START_TEST(initializers_may_be_inputs)
{
    static const float two = 2;
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1]");
    tiny_input(t, "w", DTYPE_FLOAT, "[1]");
    tiny_reals(t, "w", "[1]", &two);
    tiny_node(t, "Mul", "x w", "y", NULL);
    tiny_output(t, "y");
    net_build(&net);
    ck_assert_int_eq(program_inputs(net.program), 1);
    ck_assert_int_eq(program_weights(net.program), 1);
    set_input(&net, 0, (Shape){.rank = 1, .dim = {2}});
    run(&net, EXEC_DISCARD);
    ck_assert_float_eq_tol((float)exec_output(net.exec, 0)->r[1], 0.4f, 1e-6f);
    net_free(&net);
}
END_TEST

/* A weight, an input and a constant may be outputs; a value may be two outputs. */
START_TEST(any_value_may_be_an_output)
{
    static const int64_t seven = 7;
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1]");
    tiny_reals(t, "w", "[2]", NULL);
    tiny_integers(t, "k", "[1]", &seven);
    tiny_node(t, "Mul", "x w", "y", NULL);
    tiny_output(t, "w");
    tiny_output(t, "x");
    tiny_output(t, "k");
    tiny_output(t, "y");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 1, .dim = {2}});
    run(&net, EXEC_KEEP);
    ck_assert_int_eq(exec_output(net.exec, 2)->i[0], 7);
    ck_assert_ptr_eq(exec_output(net.exec, 1)->r, net.inputs[0].r);
    real d_w[] = {1, 10}, d_y[] = {1, 1};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d_w, NULL, NULL, d_y}, &net.err),
                     ONNXPRESS_OK);
    ck_assert_float_eq_tol((float)exec_gradient(net.exec, 0)[0], 0.9f, 1e-6f);
    ck_assert_float_eq_tol((float)exec_gradient(net.exec, 0)[1], 10.2f, 1e-5f);
    ck_assert(!exec_square_batches(net.exec));
    net_free(&net);
}
END_TEST

/* A value that is read again after it has become an output is still there at the end. */
START_TEST(outputs_survive_their_readers)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1]");
    tiny_node(t, "Neg", "x", "y", NULL);
    tiny_node(t, "Relu", "y", "r", NULL);
    tiny_node(t, "Neg", "r", "z", NULL);
    tiny_output(t, "y");
    tiny_output(t, "z");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 1, .dim = {2}});
    run(&net, EXEC_DISCARD);
    ck_assert_ptr_nonnull(exec_output(net.exec, 0)->r);
    ck_assert_float_eq((float)exec_output(net.exec, 0)->r[0], 0.1f);
    ck_assert_float_eq((float)exec_output(net.exec, 1)->r[0], -0.1f);
    net_free(&net);
}
END_TEST

/* Of equal maxima the first gets the gradient, as in onnxruntime's trainers. */
START_TEST(first_maximum_wins)
{
    static const float ties[] = {5, 5, 1, 5, 5, 5};
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[1]");
    tiny_reals(t, "line", "[1,1,6]", ties);
    tiny_reals(t, "square", "[1,1,2,2]", ties);
    tiny_node(t, "MaxPool", "line", "a", "kernel_shape=[3] strides=[3]");
    tiny_node(t, "MaxPool", "square", "b", "kernel_shape=[2,2]");
    tiny_node(t, "GlobalMaxPool", "line", "c", NULL);
    tiny_node(t, "Mul", "x x", "d", NULL);
    tiny_output(t, "a");
    tiny_output(t, "b");
    tiny_output(t, "c");
    tiny_output(t, "d");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 1, .dim = {1}});
    run(&net, EXEC_KEEP);
    real d[] = {1, 2}, ten[] = {10};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d, d, ten, NULL}, &net.err),
                     ONNXPRESS_OK);
    static const float line[] = {11, 0, 0, 2, 0, 0}, square[] = {1, 0, 0, 0};
    for (int i = 0; i < 6; i++)
        ck_assert_float_eq((float)exec_gradient(net.exec, weight_named(&net, "line"))[i], line[i]);
    for (int i = 0; i < 4; i++)
        ck_assert_float_eq((float)exec_gradient(net.exec, weight_named(&net, "square"))[i],
                           square[i]);
    net_free(&net);
}
END_TEST

/* Numbers that were integers on the way have no derivative. */
START_TEST(integers_block)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1]");
    tiny_reals(t, "w", "[2]", NULL);
    tiny_node(t, "Cast", "w", "whole", "to=7");
    tiny_node(t, "Cast", "whole", "back", "to=1");
    tiny_node(t, "Mul", "x back", "y", NULL);
    tiny_output(t, "y");
    net_build(&net);
    ck_assert(!weight(&net, "w")->reaches);
    ck_assert_str_eq(weight(&net, "w")->blocked_by, "n_whole (Cast)");
    net_free(&net);
}
END_TEST

/* A shape that an activation lends to a Reshape carries no derivative and mixes no samples. */
START_TEST(shapes_carry_no_gradient)
{
    static const int64_t zero = 0, rest = -1;
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3,4]", NULL);
    tiny_integers(t, "zero", "[1]", &zero);
    tiny_integers(t, "rest", "[1]", &rest);
    tiny_node(t, "MatMul", "x a", "y", NULL);
    tiny_node(t, "Shape", "y", "shape", NULL);
    tiny_node(t, "Gather", "shape zero", "samples", NULL);
    tiny_node(t, "Concat", "samples rest", "target", "axis=0");
    tiny_node(t, "Reshape", "y target", "z", NULL);
    tiny_output(t, "z");
    net_build(&net);
    ck_assert(weight(&net, "a")->reaches);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {2, 3}});
    run(&net, EXEC_KEEP);
    ck_assert(exec_square_batches(net.exec));
    real d[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    ck_assert_int_eq(exec_backward(net.exec, (const real *[]){d}, &net.err), ONNXPRESS_OK);
    ck_assert_float_eq_tol((float)exec_gradient(net.exec, 0)[0], -0.1f + 0.4f, 1e-6f);
    net_free(&net);
}
END_TEST

/* The square of a run's whole gradient, for graphs whose samples cannot be squared together. */
static void check_single_square(Net *net, int64_t n_out)
{
    real *d = calloc((size_t)n_out, sizeof *d), *acc[8] = {NULL};
    for (int64_t i = 0; i < n_out; i++)
        d[i] = (real)(i + 1);
    int n = program_weights(net->program);
    for (int w = 0; w < n; w++)
        acc[w] = calloc((size_t)program_weight(net->program, w)->count, sizeof(real));
    const real *d_outputs[] = {d};
    ck_assert_int_eq(exec_square(net->exec, d_outputs, acc, &net->err), ONNXPRESS_OK);
    ck_assert_int_eq(exec_backward(net->exec, d_outputs, &net->err), ONNXPRESS_OK);
    for (int w = 0; w < n; w++) {
        const real *g = exec_gradient(net->exec, w);
        for (int64_t i = 0; i < program_weight(net->program, w)->count; i++)
            ck_assert_float_eq_tol((float)acc[w][i], g ? (float)(g[i] * g[i]) : 0,
                                   1e-5f * (1 + (float)acc[w][i]));
        free(acc[w]);
    }
    free(d);
}

/* Weights that are moved before they are used: squares follow them back. */
START_TEST(moved_weights_are_squared_in_batches)
{
    static const int64_t row[] = {1, 2};
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[2,3]", NULL);
    tiny_reals(t, "b", "[2,1]", NULL);
    tiny_integers(t, "row", "[2]", row);
    tiny_node(t, "Transpose", "a", "at", "perm=[1,0]");
    tiny_node(t, "Identity", "at", "same", NULL);
    tiny_node(t, "Reshape", "b row", "flat", NULL);
    tiny_node(t, "MatMul", "x same", "y", NULL);
    tiny_node(t, "Add", "y flat", "z", NULL);
    tiny_output(t, "z");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {4, 3}});
    run(&net, EXEC_KEEP);
    ck_assert(exec_square_batches(net.exec));
    real d[8] = {1, -2, 3, 4, -5, 6, 7, 8}, a[6] = {0}, b[2] = {0};
    real *acc[2];
    acc[weight_named(&net, "a")] = a;
    acc[weight_named(&net, "b")] = b;
    ck_assert_int_eq(exec_square(net.exec, (const real *[]){d}, acc, &net.err), ONNXPRESS_OK);
    for (int r = 0; r < 2; r++) {
        double bias = 0;
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            for (int n = 0; n < 4; n++)
                sum += pow((double)(net.inputs[0].r[n * 3 + c] * d[n * 2 + r]), 2);
            ck_assert_float_eq_tol((float)a[r * 3 + c], (float)sum, 1e-5f * (float)sum);
        }
        for (int n = 0; n < 4; n++)
            bias += (double)(d[n * 2 + r] * d[n * 2 + r]);
        ck_assert_float_eq_tol((float)b[r], (float)bias, 1e-5f * (float)bias);
    }
    net_free(&net);
}
END_TEST

/* A scaled weight's squares would need the square of the scale: one sample at a time. */
START_TEST(computed_weights_are_not_squared_in_batches)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3,2]", NULL);
    tiny_node(t, "Relu", "a", "positive", NULL);
    tiny_node(t, "MatMul", "x positive", "y", NULL);
    tiny_output(t, "y");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {2, 3}});
    run(&net, EXEC_KEEP);
    ck_assert(!exec_square_batches(net.exec));
    set_input(&net, 0, (Shape){.rank = 2, .dim = {1, 3}});
    run(&net, EXEC_KEEP);
    check_single_square(&net, 2);
    net_free(&net);
}
END_TEST

START_TEST(shared_weights_are_not_squared_in_batches)
{
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "a", "[3,3]", NULL);
    tiny_node(t, "MatMul", "x a", "y", NULL);
    tiny_node(t, "MatMul", "y a", "z", NULL);
    tiny_output(t, "z");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {2, 3}});
    run(&net, EXEC_KEEP);
    ck_assert(!exec_square_batches(net.exec));
    set_input(&net, 0, (Shape){.rank = 2, .dim = {1, 3}});
    run(&net, EXEC_KEEP);
    check_single_square(&net, 3);
    net_free(&net);
}
END_TEST

/* Whether a graph from x [N,3] (N = 3 in the run, so that shapes fit by chance) to its output keeps
 * samples apart along axis 0. */
static bool batches(const char *type, const char *inputs, const char *attributes)
{
    static const int64_t axis[] = {0}, other[] = {1}, shape[] = {0, 3, 1}, starts[] = {0},
                         ends[] = {3};
    Net net;
    Tiny *t = net_begin(&net, 17);
    tiny_input(t, "x", DTYPE_FLOAT, "[-1,3]");
    tiny_reals(t, "w", "[3,3]", NULL);
    tiny_integers(t, "axis0", "[1]", axis);
    tiny_integers(t, "axis1", "[1]", other);
    tiny_integers(t, "shape", "[3]", shape);
    tiny_integers(t, "starts", "[1]", starts);
    tiny_integers(t, "ends", "[1]", ends);
    tiny_node(t, "MatMul", "x w", "h", NULL);
    tiny_node(t, type, inputs, "y", attributes);
    tiny_output(t, "y");
    net_build(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {3, 3}});
    run(&net, EXEC_KEEP);
    bool result = exec_square_batches(net.exec);
    net_free(&net);
    return result;
}

START_TEST(mixed_samples_are_seen)
{
    ck_assert(batches("Relu", "h", NULL));
    ck_assert(batches("Softmax", "h", "axis=1"));
    ck_assert(batches("Softmax", "h", NULL));
    ck_assert(batches("Reshape", "h shape", NULL));
    ck_assert(batches("ReduceSum", "h axis1", NULL));
    ck_assert(batches("Slice", "h starts ends axis1", NULL));
    ck_assert(batches("Transpose", "h", "perm=[0,1]"));
    ck_assert(batches("Concat", "h h", "axis=1"));
    ck_assert(!batches("Softmax", "h", "axis=0"));
    ck_assert(!batches("Transpose", "h", NULL));
    ck_assert(!batches("Transpose", "h", "perm=[1,0]"));
    ck_assert(!batches("MatMul", "h h", NULL));
    ck_assert(!batches("MatMul", "w h", NULL));
    ck_assert(!batches("Gemm", "h h", NULL));
    ck_assert(!batches("ReduceSum", "h axis0", NULL));
    ck_assert(!batches("ReduceSum", "h axis0", "keepdims=0"));
    ck_assert(!batches("ReduceMean", "h", NULL));
    ck_assert(!batches("Concat", "h h", "axis=0"));
    ck_assert(!batches("Gather", "h axis0", NULL));
    ck_assert(!batches("Slice", "h starts ends axis0", NULL));
    ck_assert(!batches("Slice", "h starts ends", NULL));
}
END_TEST

/* An input without a batch axis: the caller says that a run is one sample. */
START_TEST(samples_can_be_told)
{
    Net net;
    two_layers(&net);
    run(&net, EXEC_KEEP);
    ck_assert(exec_square_batches(net.exec));
    exec_set_samples(net.exec, 1);
    run(&net, EXEC_KEEP);
    ck_assert(!exec_square_batches(net.exec));
    check_single_square(&net, 8);
    net_free(&net);
}
END_TEST

START_TEST(wrong_shapes_are_refused)
{
    Net net;
    two_layers(&net);
    set_input(&net, 0, (Shape){.rank = 2, .dim = {4, 5}});
    ck_assert_int_eq(exec_forward(net.exec, net.inputs, EXEC_KEEP, &net.err), ONNXPRESS_FORMAT);
    ck_assert_ptr_nonnull(strstr(net.err.message, "n_y (Gemm)"));
    net.err.code = ONNXPRESS_OK;
    set_input(&net, 0, (Shape){.rank = 2, .dim = {4, 3}});
    run(&net, EXEC_KEEP); /* the executor is as good as new */
    net_free(&net);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exec");
    TCase *program = tcase_create("program"), *exec = tcase_create("run"),
          *square = tcase_create("square");
    tcase_add_test(program, describes);
    tcase_add_test(program, scores_are_seen_through_what_moves_them);
    tcase_add_test(program, unsupported_is_named);
    tcase_add_test(program, dead_nodes_are_skipped);
    tcase_add_test(program, steering_is_found);
    tcase_add_test(program, constants_are_folded);
    tcase_add_test(program, resnet_shortcuts_are_folded);
    tcase_add_test(program, initializers_may_be_inputs);
    tcase_add_test(program, integers_block);
    tcase_add_test(program, shapes_carry_no_gradient);
    tcase_add_test(exec, gradients_repeat);
    tcase_add_test(exec, backward_needs_what_forward_kept);
    tcase_add_test(exec, wanted_prunes);
    tcase_add_test(exec, weights_are_replaced);
    tcase_add_test(exec, memory_is_bounded);
    tcase_add_test(exec, any_value_may_be_an_output);
    tcase_add_test(exec, outputs_survive_their_readers);
    tcase_add_test(exec, first_maximum_wins);
    tcase_add_test(exec, wrong_shapes_are_refused);
    tcase_add_test(square, shared_weights_are_not_squared_in_batches);
    tcase_add_test(square, moved_weights_are_squared_in_batches);
    tcase_add_test(square, computed_weights_are_not_squared_in_batches);
    tcase_add_test(square, mixed_samples_are_seen);
    tcase_add_test(square, samples_can_be_told);
    suite_add_tcase(suite, program);
    suite_add_tcase(suite, exec);
    suite_add_tcase(suite, square);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
