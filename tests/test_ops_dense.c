/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

START_TEST(conv_gradients)
{
    CHECK(
        {"Conv", 11, "r[$N,$C,5,6] w[$M,$C,3,2] w[$M]", 0},
        {"Conv pads=[1,2,0,1] strides=[2,1]", 11, "r[$N,$C,5,6] w[$M,$C,3,3] w[$M]", 0},
        {"Conv dilations=[2,1] pads=[1,0,2,3]", 11, "r[$N,2,6,5] w[$M,2,2,3] w[$M]", 0},
        {"Conv auto_pad=SAME_UPPER strides=[2,3]", 11, "r[$N,2,7,5] w[$M,2,3,4]", 0},
        {"Conv auto_pad=SAME_LOWER strides=[2,2]", 11, "r[$N,2,6,6] w[$M,2,3,2]", 0},
        {"Conv auto_pad=VALID", 11, "r[$N,2,6,6] w[$M,2,3,2]", 0},
        {"Conv group=2 pads=[1,1,1,1]", 11, "r[$N,4,4,5] w[6,2,3,3] w[6]", 0},
        {"Conv group=3 strides=[2,1]", 11, "r[$N,6,5,5] w[3,2,2,3] w[3]", 0},
        /* one matrix column for a whole batch, and one tap an output */
        {"Conv", 11, "r[$N,$C,3,3] w[$M,$C,3,3]", 0},
        {"Conv", 11, "r[$N,$C,4,5] w[$M,$C,1,1] w[$M]", 0},
        {"Conv strides=[2,2]", 11, "r[$N,$C,4,5] w[$M,$C,1,1] w[$M]", 0},
        {"Conv group=2", 11, "r[$N,4,2,3] w[6,2,1,1] w[6]", 0},
        /* depthwise, with and without a multiplier */
        {"Conv group=4 pads=[1,1,1,1]", 11, "r[$N,4,5,4] w[4,1,3,3] w[4]", 0},
        {"Conv group=3 strides=[2,2] dilations=[1,2] pads=[0,1,2,1]", 11,
         "r[$N,3,6,5] w[6,1,3,2] w[6]", 0},
        /* other numbers of axes */
        {"Conv pads=[2,1] strides=[2]", 1, "r[$N,$C,7] w[$M,$C,3] w[$M]", 0},
        {"Conv group=3 pads=[1,1]", 1, "r[$N,3,5] w[3,1,3]", 0},
        {"Conv pads=[1,0,1,0,1,1] dilations=[1,2,1]", 11, "r[2,2,3,4,3] w[$M,2,2,2,3] w[$M]", 0},
        {"Conv group=2 strides=[1,2,1]", 11, "r[2,2,3,4,3] w[4,1,2,2,3] w[4]", 0});
}
END_TEST

/* Wide kernels over much padding make large tiles of few elements: here several tiles a sample, the
 * last of which is shorter, and tiles of several samples. */
START_TEST(conv_tiles)
{
    CHECK(
        /* rows shared: lines one by one; 2 and 1 */
        {"Conv pads=[1,100,0,100] group=2", 11, "r[1,4,3,2] w[2,2,2,32] w[2]", 0},
        {"Conv pads=[0,1,150,0,0,150]", 11, "r[1,1,2,3,4] w[1,1,1,2,32]", 0},
        /* 3 and 1 lines, each tap has its rows */
        {"Conv pads=[0,80,0,80] strides=[2,1]", 11, "r[1,1,8,4] w[1,1,2,32]", 0},
        /* 600 positions a sample: tiles of 2 and of 1 */
        {"Conv pads=[10,15,10,15]", 11, "r[3,1,2,2] w[1,1,3,3] w[1]", 0},
        {"Conv pads=[10,15,10,15] dilations=[2,1]", 11, "r[3,1,4,2] w[2,1,3,3]", 0});
}
END_TEST

START_TEST(conv_values)
{
    op_expect("Conv", 11, "c[1,1,2,3]{1,2,3,4,5,6} c[1,1,2,2]{1,10,100,1000} c[1]{0.5}",
              "[1,1,1,2]{5421.5,6532.5}");
    op_expect("Conv pads=[0,1,0,0]", 11, "c[1,1,1,2]{1,2} c[1,1,1,2]{1,10}", "[1,1,1,2]{10,21}");
    op_expect("Conv group=2", 11, "c[1,2,1]{3,5} c[2,1,1]{2,7}", "[1,2,1]{6,35}");
}
END_TEST

START_TEST(conv_refuses)
{
    op_expect_error("Conv", 11, "r[1,3,4,4] r[2,2,3,3]", "3 input channels");
    op_expect_error("Conv", 11, "r[1,3,4,4] r[2,3,5,3]", "does not fit");
    op_expect_error("Conv", 11, "r[1,3,4,4] r[2,3,3,3] r[3]", "3 biases");
    op_expect_error("Conv", 11, "r[1,3] r[2,3]", "ranks");
    op_expect_error("Conv", 11, "r[1,3,4,4] r[2,3,3]", "ranks");
    op_expect_error("Conv", 11, "r[1,1,2,2,2,2] r[1,1,1,1,1,1]", "spatial axes");
    op_expect_error("Conv kernel_shape=[2,2]", 11, "r[1,3,4,4] r[2,3,3,3]", "kernel_shape");
    op_expect_error("Conv strides=[0,1]", 11, "r[1,3,4,4] r[2,3,3,3]", "strides holds 0");
    op_expect_error("Conv strides=[1]", 11, "r[1,3,4,4] r[2,3,3,3]", "1 spatial axes");
    op_expect_error("Conv pads=[1,1,1]", 11, "r[1,3,4,4] r[2,3,3,3]", "pads has 3");
    op_expect_error("Conv pads=[1,1,1,-1]", 11, "r[1,3,4,4] r[2,3,3,3]", "pads holds -1");
    op_expect_error("Conv dilations=[1,9223372036854775807]", 11, "r[1,3,4,4] r[2,3,3,3]",
                    "dilations holds");
    op_expect_error("Conv group=0", 11, "r[1,3,4,4] r[2,3,3,3]", "group is 0");
    op_expect_error("Conv auto_pad=SOME", 11, "r[1,3,4,4] r[2,3,3,3]", "auto_pad");
    op_expect_error("Conv", 11, "r[1,3,4,4]", "input 1 is missing");
}
END_TEST

START_TEST(gemm_gradients)
{
    CHECK(
        {"Gemm alpha=0.5 beta=1.5", 13, "r[$N,$K] w[$K,$M] w[$M]", 0},
        {"Gemm transB=1 alpha=2.0", 13, "r[$N,$K] w[$M,$K] w[1,$M]", 0},
        {"Gemm transA=1", 13, "r[$K,$N] r[$K,$M] w[1]", 0},
        {"Gemm transA=1 transB=1 alpha=0.7", 13, "r[$K,$N] r[$M,$K] w[]", 0},
        {"Gemm beta=0.3", 13, "r[3,$K] r[$K,$M] w[3,1]", 0},
        {"Gemm beta=0.3", 13, "r[3,$K] r[$K,$M] w[3,$M]", 0},
        {"Gemm", 13, "r[$N,$K] w[$K,$M]", 0},
        {"Gemm", 13, "r[$N,$K] w[$K,$M] -", 0});
}
END_TEST

START_TEST(matmul_gradients)
{
    CHECK(
        {"MatMul", 13, "r[$N,$K] w[$K,$M]", 0},
        {"MatMul", 13, "r[$N,$K] w[$K]", 0},
        {"MatMul", 13, "r[$K] r[$K,$M]", 0},
        {"MatMul", 13, "r[$K] r[$K]", 0},
        {"MatMul", 13, "r[$N,$T,$K] w[$K,$M]", 0},
        {"MatMul", 13, "r[$N,$T,$K] w[$K]", 0},
        {"MatMul", 13, "r[$N,$H,$T,$K] w[$K,$M]", 0},
        {"MatMul", 13, "r[$N,$H,$T,$K] w[$H,$K,$M]", 0},
        {"MatMul", 13, "r[$N,$H,$T,$K] r[$N,$H,$K,$M]", 0},
        {"MatMul", 13, "r[$N,1,$T,$K] r[$H,$K,$M]", 0},
        {"MatMul", 13, "w[$T,$K] r[$N,$K,$M]", 0},
        {"MatMul", 13, "w[$H,$T,$K] r[$N,$H,$K,$M]", 0},
        {"MatMul", 13, "r[$K] r[$N,$K,$M]", 0});
}
END_TEST

START_TEST(products_refuse)
{
    op_expect_error("Gemm", 13, "r[2,3] r[2,3]", "inner size 3");
    op_expect_error("Gemm", 13, "r[2,3,1] r[3,2]", "ranks");
    op_expect_error("Gemm", 13, "r[2,3] r[3,2] r[3]", "broadcast");
    op_expect_error("Gemm", 13, "r[2,3] r[3,2] r[1,2,2]", "broadcast");
    op_expect_error("MatMul", 13, "r[2,3] r[2,3]", "inner sizes");
    op_expect_error("MatMul", 13, "r[2,2,3] r[3,3,2]", "broadcast");
    op_expect_error("MatMul", 13, "r[] r[3,3]", "scalar");
    op_expect_error("MatMul", 13, "i[1,1]{2} i[1,1]{3}", "int64");
}
END_TEST

/* Empty sums and empty batches are shapes like others. */
START_TEST(products_of_nothing)
{
    op_expect("MatMul", 13, "r[2,0] r[0,1]", "[2,1]{0,0}");
    op_expect("Gemm", 13, "r[2,0] r[0,1] c[1]{3}", "[2,1]{3,3}");
    OpRun *run = op_run("MatMul", 13, "r[0,3] r[3,2]", 0);
    ck_assert_int_eq(op_run_status(run), ONNXPRESS_OK);
    ck_assert_int_eq(op_run_output(run, 0)->count, 0);
    op_run_free(run);
}
END_TEST

START_TEST(pool_gradients)
{
    CHECK(
        {"MaxPool kernel_shape=[2,2] strides=[2,2]", 12, "d[$N,$C,6,4]", 0},
        {"MaxPool kernel_shape=[2,2] strides=[1,1]", 12, "d[$N,$C,3,4]", 0},
        {"MaxPool kernel_shape=[3,2] strides=[2,1] pads=[1,0,1,1]", 12, "d[$N,$C,5,4]", 0},
        {"MaxPool kernel_shape=[2,2] dilations=[2,1] strides=[1,2]", 12, "d[$N,$C,5,4]", 0},
        {"MaxPool kernel_shape=[3] strides=[2] ceil_mode=1", 12, "d[$N,$C,6]", 0},
        {"MaxPool kernel_shape=[2,2] strides=[2,2] auto_pad=SAME_UPPER", 12, "d[$N,$C,5,5]", 0},
        {"MaxPool kernel_shape=[2,1,2]", 12, "d[$N,$C,3,2,3]", 0},
        {"AveragePool kernel_shape=[2,3] strides=[2,1] pads=[1,1,0,1]", 11, "r[$N,$C,5,4]", 0},
        {"AveragePool kernel_shape=[2,3] pads=[1,1,0,1] count_include_pad=1", 11, "r[$N,$C,5,4]",
         0},
        {"AveragePool kernel_shape=[3] strides=[2] ceil_mode=1", 11, "r[$N,$C,6]", 0},
        {"AveragePool kernel_shape=[2,2] dilations=[2,2]", 19, "r[$N,$C,4,5]", 0},
        {"AveragePool kernel_shape=[2,1,2]", 11, "r[$N,$C,3,2,3]", 0},
        {"GlobalAveragePool", 1, "r[$N,$C,3,$W]", 0},
        {"GlobalAveragePool", 1, "r[$N,$C,$W]", 0},
        {"GlobalMaxPool", 1, "d[$N,$C,3,$W]", 0});
}
END_TEST

START_TEST(pool_values)
{
    op_expect("MaxPool kernel_shape=[2] strides=[2] ceil_mode=1", 12, "c[1,1,5]{1,3,-2,-1,7}",
              "[1,1,3]{3,-1,7}");
    /* a window that would start in the trailing padding is not made */
    op_expect("MaxPool kernel_shape=[1] strides=[2] ceil_mode=1", 12, "c[1,1,4]{1,3,2,9}",
              "[1,1,2]{1,2}");
    op_expect("AveragePool kernel_shape=[2] pads=[1,1]", 11, "c[1,1,2]{2,4}", "[1,1,3]{2,3,4}");
    op_expect("AveragePool kernel_shape=[2] pads=[1,1] count_include_pad=1", 11, "c[1,1,2]{2,4}",
              "[1,1,3]{1,3,2}");
}
END_TEST

START_TEST(pools_refuse)
{
    op_expect_error("MaxPool", 12, "r[1,1,4]", "kernel_shape is missing");
    op_expect_error("MaxPool kernel_shape=[5]", 12, "r[1,1,4]", "does not fit");
    op_expect_error("MaxPool kernel_shape=[2] pads=[2,0]", 12, "r[1,1,4]", "padding");
    op_expect_error("MaxPool kernel_shape=[2]", 12, "r[1,1,4,4]", "1 spatial axes");
    op_expect_error("GlobalAveragePool", 1, "r[4]", "rank 1");
    op_expect_error("GlobalMaxPool", 1, "r[2,2,0]", "without elements");
}
END_TEST

START_TEST(normalization_gradients)
{
    CHECK(
        {"BatchNormalization epsilon=0.01", 15, "r[$N,$C,3,$W] w[$C] w[$C] w[$C] p[$C]", 0},
        {"BatchNormalization", 9, "r[$N,$C] w[$C] w[$C] w[$C] p[$C]", 0},
        {"BatchNormalization", 7, "r[$N,$C,$T] r[$C] r[$C] r[$C] p[$C]", 0});
}
END_TEST

START_TEST(normalization_gradients_by_batch)
{
    CHECK(
        {"BatchNormalization epsilon=0.01", 15, "r[$N,$C,3,$W] r[$C] r[$C] r[$C] p[$C]", 0, true},
        {"BatchNormalization epsilon=0.1", 9, "r[3,$C] r[$C] r[$C] r[$C] p[$C]", 0, true},
        {"BatchNormalization epsilon=0.1", 7, "r[$N,$C,$T] r[$C] r[$C] r[$C] p[$C]", 0, true});
}
END_TEST

START_TEST(normalization_values)
{
    op_expect("BatchNormalization epsilon=0.0", 15,
              "c[1,2,2]{1,3,5,7} c[2]{2,1} c[2]{0,10} c[2]{1,6} c[2]{4,1}", "[1,2,2]{0,2,9,11}");
    op_expect_error("BatchNormalization", 15, "r[1,2,2] r[2] r[2] r[3] p[2]", "input 3");
    op_expect_error("BatchNormalization training_mode=1", 15, "r[1,2,2] r[2] r[2] r[2] p[2]",
                    "training_mode");
    op_expect_error("BatchNormalization", 15, "r[1,2,2] r[2] r[2] r[2]", "input 4 is missing");
}
END_TEST

OP_SUITE("ops_dense", conv_gradients, conv_tiles, conv_values, conv_refuses, gemm_gradients,
         matmul_gradients, products_refuse, products_of_nothing, pool_gradients, pool_values,
         pools_refuse, normalization_gradients,
         normalization_gradients_by_batch, normalization_values)
