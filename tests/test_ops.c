/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

#include <stdio.h>

/* One line an op and kind of shape: its gradient is held against central differences. */
START_TEST(gradients_elementwise)
{
    CHECK({"Add", 7, "r[$A,$B,$C] r[$C]", 0}, {"Add", 13, "r[$B,1] r[$A,1,$C]", 0},
          {"Add", 13, "r[] r[$A,$B]", 0}, {"Add", 13, "r[$N,$C,$H,$W] w[$C,1,1]", 0},
          {"Add", 13, "w[$C] r[$N,$H,$C]", 0}, {"Add", 13, "r[$N,$C] w[1,1]", 0},
          {"Sub", 13, "r[$A,1,$C] r[$B,1]", 0}, {"Sub", 7, "r[$N,$C] w[$C]", 0},
          {"Sub", 7, "w[] r[$N,$C]", 0}, {"Mul", 13, "r[$A,$B,$C] r[$B,1]", 0},
          {"Mul", 7, "w[$C,1] r[$N,$C,$H]", 0}, {"Mul", 14, "r[$N,1,$H] w[$C,1]", 0},
          {"Div", 13, "r[$A,$B] p[$B]", 0}, {"Div", 7, "p[1,$B] p[$A,1]", 0},
          {"Div", 7, "r[$N,$B,$C] w[1,$B,1]", 0}, {"Pow", 13, "p[$A,$B] r[$B]", 0},
          {"Pow", 13, "r[$A,$B] c{2}", 0}, {"Pow", 13, "r[$A,$B] i{3}", 0},
          {"Pow", 12, "p[$A] c[]{0.5}", 0}, {"Pow", 13, "p[$N,$C] w[$C]", 0},
          {"Pow", 13, "w[$C] c[3,1]{1,2,3}", 0}, {"Neg", 13, "r[$A,$B]", 0},
          {"Abs", 13, "r[$A,$B]", 0}, {"Sqrt", 13, "p[$A,$B]", 0}, {"Exp", 13, "r[$A,$B]", 0},
          {"Log", 13, "p[$A,$B]", 0}, {"Reciprocal", 13, "p[$A,$B]", 0}, {"Erf", 13, "r[$A,$B]", 0},
          {"Sin", 7, "r[$A,$B]", 0}, {"Cos", 7, "r[$A,$B]", 0}, {"Tan", 7, "f{-1.2,0.3,1}", 0},
          {"Asin", 7, "f{-0.8,0.1,0.7}", 0}, {"Acos", 7, "f{-0.8,0.1,0.7}", 0},
          {"Atan", 7, "r[$A,$B]", 0}, {"Sinh", 9, "r[$A,$B]", 0}, {"Cosh", 9, "r[$A,$B]", 0},
          {"Asinh", 9, "r[$A,$B]", 0}, {"Acosh", 9, "f{1.2,2,5}", 0},
          {"Atanh", 9, "f{-0.8,0.1,0.7}", 0});
}
END_TEST

START_TEST(gradients_nary)
{
    CHECK({"Sum", 13, "r[$A,$B] r[$B] r[$A,1]", 0}, {"Sum", 8, "r[$A]", 0},
          {"Mean", 13, "r[$A,1,$C] r[$B,1] r[]", 0}, {"Max", 13, "d[$A,$B] d[1,$B] d[$A,1]", 0},
          {"Max", 8, "r[$A,$B] c{0}", 0}, {"Min", 13, "d[$B] r[$A,$B]", 0},
          {"Where", 9, "b[$A,$B] r[$B] r[$C,1,1]", 0}, {"Where", 16, "b[$B] r[$A,1] r[]", 0},
          {"PRelu", 16, "r[$N,$C,$H] w[$C,1]", 0}, {"PRelu", 7, "r[$A,$B] r[1]", 0});
}
END_TEST

START_TEST(gradients_activation)
{
    CHECK({"Relu", 14, "r[$A,$B,$C]", 0}, {"LeakyRelu alpha=0.2", 16, "r[$A,$B]", 0},
          {"LeakyRelu", 6, "r[$A]", 0}, {"ThresholdedRelu alpha=0.03", 10, "r[$A,$B]", 0},
          {"Sigmoid", 13, "r[$A,$B]", 0}, {"Tanh", 13, "r[$A,$B]", 0},
          {"HardSigmoid", 6, "r[$A,$B]", 0},
          {"HardSigmoid alpha=0.7 beta=0.5", 6, "f{-0.9,-0.3,0.2,0.8}", 0},
          {"HardSwish", 14, "f{-4.0,-2.9,-1.5,0.1,2.9,3.5}", 0},
          {"Elu alpha=1.5", 6, "r[$A,$B]", 0}, {"Celu alpha=0.7", 12, "r[$A,$B]", 0},
          {"Selu", 6, "r[$A,$B]", 0}, {"Softplus", 1, "r[$A,$B]", 0},
          {"Softplus", 22, "f{-40,40}", 0}, {"Swish alpha=1.5", 24, "r[$A,$B]", 0},
          {"Shrink lambd=0.4 bias=0.1", 9, "f{-2,-0.5,-0.3,0.2,0.6}", 0},
          {"Softsign", 1, "r[$A,$B]", 0}, {"Mish", 18, "r[$A,$B]", 0}, {"Gelu", 20, "r[$A,$B]", 0},
          {"Gelu approximate=tanh", 20, "r[$A,$B]", 0},
          {"Clip min=-0.03 max=0.04", 6, "r[$A,$B]", 0}, {"Clip max=0.04", 6, "r[$A,$B]", 0},
          {"Clip", 11, "r[$A,$B] c[]{-0.02} c[]{1.5}", 0}, {"Clip", 13, "r[$A,$B] - c[]{0.01}", 0},
          {"Identity", 14, "r[$A,$B]", 0}, {"Dropout", 13, "r[$A,$B]", 2},
          {"Dropout", 7, "r[$A]", 0}, {"Cast to=11", 13, "r[$A,$B]", 0},
          {"CastLike", 15, "r[$A] c{1}", 0});
}
END_TEST

START_TEST(gradients_softmax)
{
    CHECK({"Softmax", 13, "r[$A,$B,$C]", 0}, {"Softmax axis=1", 13, "r[$A,$B,$C]", 0},
          {"Softmax axis=0", 13, "r[$A,$B]", 0}, {"Softmax", 11, "r[$A,$B,$C]", 0},
          {"Softmax axis=2", 11, "r[$A,$B,$C,$D]", 0}, {"Softmax axis=0", 11, "r[$A,$B]", 0},
          {"Softmax axis=-1", 13, "r[]", 0}, {"LogSoftmax", 13, "r[$A,$B,$C]", 0},
          {"LogSoftmax axis=-2", 13, "r[$A,$B,$C]", 0}, {"LogSoftmax axis=1", 9, "r[$A,$B,$C]", 0});
}
END_TEST

START_TEST(gradients_reduce)
{
    CHECK({"ReduceMean axes=[2,3] keepdims=0", 11, "r[$A,$B,$C,$D]", 0},
          {"ReduceMean", 11, "r[$A,$B]", 0}, {"ReduceMean", 18, "r[$A,$B,$C] i{0,-1}", 0},
          {"ReduceMean axes=[-1]", 13, "r[$A,$B,$C]", 0},
          {"ReduceSum axes=[1]", 11, "r[$A,$B,$C]", 0},
          {"ReduceSum keepdims=0", 13, "r[$A,$B,$C] i{1}", 0},
          {"ReduceSum noop_with_empty_axes=1", 13, "r[$A,$B] i[0]{}", 0},
          {"ReduceSum", 13, "r[$A,$B]", 0}, {"ReduceMax axes=[0,2]", 11, "d[$A,$B,$C]", 0},
          {"ReduceMax", 18, "d[$A,$B] i{1}", 0},
          {"ReduceMin axes=[1] keepdims=0", 11, "d[$A,$B,$C]", 0},
          {"ReduceProd axes=[1]", 11, "r[$A,$B,$C]", 0},
          {"ReduceProd", 18, "f[2,3]{1,0,2,3,0.5,-1} i{1}", 0},
          {"ReduceProd axes=[0]", 11, "f[3,2]{0,1,2,0,0,3}", 0},
          {"ReduceL1 axes=[0]", 11, "r[$A,$B]", 0}, {"ReduceL2 axes=[-1]", 11, "r[$A,$B,$C]", 0},
          {"ReduceL2", 18, "r[$A,$B]", 0}, {"ReduceSumSquare axes=[1]", 11, "r[$A,$B,$C]", 0},
          {"ReduceSumSquare noop_with_empty_axes=1", 18, "r[$A,$B]", 0},
          {"ReduceLogSum axes=[1]", 11, "p[$A,$B]", 0},
          {"ReduceLogSumExp axes=[0] keepdims=0", 11, "r[$A,$B,$C]", 0});
}
END_TEST

START_TEST(gradients_shape)
{
    CHECK({"Reshape", 5, "r[2,3,$A] i{3,-1}", 0}, {"Reshape", 14, "r[$A,$B,$C] i{0,-1}", 0},
          {"Flatten", 13, "r[$A,$B,$C]", 0}, {"Flatten axis=0", 9, "r[$A,$B]", 0},
          {"Flatten axis=-1", 11, "r[$A,$B,$C]", 0}, {"Squeeze axes=[0,2]", 11, "r[1,$A,1,$B]", 0},
          {"Squeeze", 13, "r[1,$A,1] i{-1}", 0}, {"Squeeze", 13, "r[1,3,1]", 0},
          {"Unsqueeze axes=[0,-1]", 11, "r[$A,$B]", 0}, {"Unsqueeze", 13, "r[$A] i{1,0}", 0},
          {"Transpose", 13, "r[$A,$B,$C]", 0}, {"Transpose perm=[2,0,1]", 1, "r[$A,$B,$C]", 0},
          {"Transpose perm=[0,3,1,2]", 1, "r[$A,$B,$C,$D]", 0}, {"Transpose", 1, "r[]", 0},
          {"Expand", 13, "r[$A,1,$C] i{$B,1}", 0}, {"Expand", 8, "r[$A,1] i{2,1,3}", 0},
          {"Expand", 8, "r[] i{2,2}", 0},
          {"Concat axis=1", 13, "r[$A,$B,$C] r[$A,$D,$C] r[$A,1,$C]", 0},
          {"Concat axis=-1", 11, "r[$A,$B] r[$A,$C]", 0},
          {"Concat axis=0", 4, "r[$A] r[0] r[$B]", 0}, {"Split axis=1", 13, "r[$A,4,$B]", 2},
          {"Split axis=-1 split=[1,3]", 11, "r[$A,4]", 2}, {"Split", 13, "r[5,$A] i{2,0,3}", 3},
          {"Split num_outputs=3 axis=0", 18, "r[7,$A]", 3}, {"Tile", 13, "r[$A,$B] i{2,$C}", 0},
          {"Tile", 6, "r[$A,1,$B] i{1,3,2}", 0});
}
END_TEST

START_TEST(gradients_slice_and_pad)
{
    CHECK({"Slice starts=[1,-3] ends=[4,-1] axes=[0,2]", 9, "r[4,$A,5]", 0},
          {"Slice starts=[0,1] ends=[9,9]", 1, "r[3,4,$A]", 0},
          {"Slice", 13, "r[5,$A] i{-1} i{-9} i{0} i{-2}", 0},
          {"Slice", 10, "r[4,7] i{1,6} i{4,0} i{0,1} i{1,-3}", 0},
          {"Slice", 13, "r[$A,5] i{4} i{-9223372036854775808} i{-1} i{-1}", 0},
          {"Slice", 13, "r[$A,5] i{0} i{9223372036854775807} i{1} i{9223372036854775807}", 0},
          {"Slice", 13, "r[3,4,6] i{0,1} i{3,4} - -", 0}, {"Slice", 13, "r[4,4] i{3} i{1} i{0}", 0},
          {"Pad pads=[0,1,2,0]", 2, "r[$A,$B]", 0}, {"Pad", 13, "r[$A,$B] i{1,0,0,2} r[]", 0},
          {"Pad pads=[1,-1,0,-1] value=0.5", 2, "r[$A,4]", 0},
          {"Pad mode=reflect", 11, "r[3,$A,4] i{2,0,3,1,0,3}", 0},
          {"Pad mode=edge", 13, "r[$A,$B] i{2,1,0,3}", 0},
          {"Pad mode=wrap", 19, "r[$A,$B] i{2,1,0,3}", 0},
          {"Pad", 18, "r[$A,$B,$C] i{1,2,3,0} - i{-1,0}", 0});
}
END_TEST

START_TEST(gradients_index)
{
    CHECK({"Gather", 13, "r[5,$A] i[2,2]{0,-1,3,3}", 0},
          {"Gather axis=1", 11, "r[$A,4,$B] i{2,2,-4}", 0},
          {"Gather axis=-1", 1, "r[$A,3] i[]{1}", 0},
          {"GatherElements axis=1", 13, "r[2,4] i[2,3]{0,3,-1,1,1,2}", 0},
          {"GatherElements", 11, "r[3,2] i[4,1]{0,2,2,-1}", 0},
          {"GatherND", 13, "r[3,4,$A] i[2,2]{0,1,-1,3}", 0},
          {"GatherND", 12, "r[3,4,$A] i[2,1]{2,2}", 0},
          {"GatherND batch_dims=1", 13, "r[2,3,$A] i[2,1]{2,-3}", 0},
          {"CumSum", 11, "r[$A,$B,$C] i[]{1}", 0}, {"CumSum exclusive=1", 14, "r[$A,$B] i{-1}", 0},
          {"CumSum reverse=1", 14, "r[$A,$B] i[]{0}", 0},
          {"CumSum exclusive=1 reverse=1", 14, "r[$A,$B] i[]{0}", 0});
}
END_TEST

START_TEST(gradients_scatter)
{
    CHECK({"Scatter axis=1", 9, "r[2,3] i[2,2]{0,2,1,0} r[2,2]", 0},
          {"ScatterElements", 11, "r[3,2] i[4,1]{0,2,2,-1} r[4,1]", 0},
          {"ScatterElements axis=1 reduction=add", 16, "r[2,3] i[1,4]{0,2,2,-1} r[1,4]", 0},
          {"ScatterElements axis=-1 reduction=mul", 18, "r[2,3] i[1,4]{0,2,2,-1} r[1,4]", 0},
          {"ScatterElements reduction=mul", 18, "f{0,2,0} i{0,0,2} f{1,3,0}", 0},
          {"ScatterElements reduction=max", 18, "d[3,2] i[3,2]{0,1,1,2,2,2} f[3,2]{1,2,3,-4,-5,6}", 0},
          {"ScatterElements reduction=min", 18, "d[3,2] i[3,2]{0,1,1,2,2,2} f[3,2]{1,2,3,-4,-5,6}", 0},
          {"ScatterND", 11, "r[4,$A] i[3,1]{0,2,0} r[3,$A]", 0},
          {"ScatterND", 13, "r[2,3,$A] i[2,1,2]{0,-1,1,0} r[2,1,$A]", 0},
          {"ScatterND reduction=add", 16, "r[4,$A] i[3,1]{0,2,0} r[3,$A]", 0},
          {"ScatterND reduction=mul", 16, "r[4,$A] i[3,1]{0,2,0} r[3,$A]", 0},
          {"ScatterND reduction=max", 18, "d[4,2] i[3,1]{0,2,0} f[3,2]{3,-1,-7,2.5,1,4}", 0},
          {"ScatterND reduction=min", 18, "d[4,2] i[3,1]{0,2,0} f[3,2]{3,-1,-7,2.5,1,4}", 0});
}
END_TEST

START_TEST(gradients_search)
{
    CHECK({"TopK axis=1 k=2", 1, "d[$A,4,$B]", 2}, {"TopK", 10, "d[$A,5] i{3}", 2},
          {"TopK largest=0 axis=0", 11, "d[4,$B] i{2}", 2}, {"TopK", 24, "d[5] i{0}", 2},
          {"Compress axis=1", 9, "r[$A,3,$B] b{1,0,1}", 0}, {"Compress", 11, "r[2,2] b{0,1,1}", 0},
          {"Trilu", 14, "r[$A,$B,$C]", 0}, {"Trilu upper=0", 14, "r[$A,$B] i[]{1}", 0},
          {"Trilu upper=1", 14, "r[$B,$C] i{-1}", 0},
          {"CenterCropPad", 18, "r[3,4,$A] i{5,3,2}", 0},
          {"CenterCropPad axes=[-1,0]", 18, "r[4,$A,2] i{3,3}", 0});
}
END_TEST

START_TEST(gradients_einsum)
{
    CHECK({"Einsum equation=ij,jk->ik", 12, "r[$I,$J] r[$J,$K]", 0},
          {"Einsum equation=ij,kj", 12, "r[$I,$J] r[$K,$J]", 0},
          {"Einsum equation=bqhd,bkhd->bhqk", 12, "r[2,$Q,2,$D] r[2,$K,2,$D]", 0},
          {"Einsum equation=bhqk,bkhd->bqhd", 12, "r[2,2,$Q,$K] r[2,$K,2,$D]", 0},
          {"Einsum equation=...ij,...jk->...ik", 12, "r[$A,1,$I,$J] r[$B,$J,$K]", 0},
          {"Einsum equation=...ii->...i", 12, "r[$A,$I,$I]", 0},
          {"Einsum equation=ij->j", 12, "r[$I,$J]", 0}, {"Einsum equation=ii", 12, "r[$I,$I]", 0},
          {"Einsum equation=i,j->ij", 12, "r[$I] r[$J]", 0},
          {"Einsum equation=ij,jk->i", 12, "r[$I,$J] r[$J,$K]", 0},
          {"Einsum equation=ij,jk,kl->il", 12, "r[$I,$J] r[$J,$K] r[$K,$L]", 0},
          {"Einsum equation=ij,ij->", 12, "r[$I,$J] r[1,$J]", 0},
          {"Einsum equation=ab,bc->ca", 12, "r[20,18] r[18,16]", 0},
          {"Einsum equation=zab,zcb->zac", 12, "r[2,17,18] r[2,16,18]", 0},
          {"Einsum equation=ba,zbc->zac", 12, "r[18,17] r[2,18,16]", 0});
}
END_TEST

START_TEST(gradients_signal)
{
    CHECK({"DFT", 17, "r[$A,5,$B,1]", 0}, {"DFT axis=2 inverse=1", 17, "r[$A,$B,3,2]", 0},
          {"DFT onesided=1", 17, "r[2,6,1] i[]{4}", 0}, {"DFT", 20, "r[$A,3,1] i[]{5}", 0},
          {"DFT inverse=1", 20, "r[3,$A,2] - i[]{0}", 0},
          {"STFT", 17, "r[2,9,1] i[]{2} r[4]", 0},
          {"STFT onesided=0", 17, "r[$A,7,2] i[]{3} - i[]{3}", 0});
}
END_TEST

/* Values worked out by hand from the operator's definition. */
START_TEST(quantized)
{
    /* i is int64 here; types are taken on by Cast in models, so that these begin with reals */
    op_expect("QuantizeLinear", 21, "c{-1,0.25,0.75,200} c[]{0.5}", "{0,0,2,255}");
    op_expect("QuantizeLinear output_dtype=3", 21, "c{-100,0.25,0.75,200} c[]{0.5}",
              "{-128,0,2,127}");
    op_expect("QuantizeLinear axis=0", 13, "c[2,2]{1,2,1,2} c{1,0.5}", "[2,2]{1,2,2,4}");
    op_expect("QuantizeLinear axis=1 block_size=2", 21, "c[1,3]{2,4,6} c[1,2]{1,2}", "[1,3]{2,4,3}");
    op_expect("QuantizeLinear", 10, "c{nan} c[]{1}", "{0}");
    op_expect_error("QuantizeLinear axis=2", 13, "c[2,2]{1,2,1,2} c{1,0.5}", "axis 2");
    op_expect_error("QuantizeLinear", 13, "c[2,2]{1,2,1,2} c{1,0.5,1}", "does not fit");
    op_expect_error("QuantizeLinear", 13, "c{1} c[]{1} i[]{0}", "int64 is not handled");
    op_expect_error("QuantizeLinear output_dtype=24", 21, "c{1} c[]{1}", "float8e8m0");
    op_expect("QuantizeLinear output_dtype=17", 21, "c{1,1.07,1000,-0.003,nan} c[]{1}",
              "{1,1.125,448,-0.00390625,nan}");
    op_expect("QuantizeLinear output_dtype=17 saturate=0", 21, "c{1000,inf,448} c[]{1}",
              "{nan,nan,448}");
    op_expect("QuantizeLinear output_dtype=19 saturate=0", 21, "c{1e6,-inf,3e-5} c[]{1}",
              "{inf,-inf,0.000030517578125}");
    op_expect("QuantizeLinear output_dtype=22", 21, "c{1,1.6,-9.5,99} c[]{1}", "{1,2,-8,7}");
    op_expect("Cast to=25", 25, "i{1,3,4,-1}", "{1,3,0,3}");
    op_expect("Cast to=26", 25, "i{1,3,4,-2}", "{1,-1,0,-2}");
    op_expect("Cast to=23", 23, "c{0.2,0.3,7,-inf,nan}", "{0,0.5,6,-6,0}");
    op_expect("DequantizeLinear", 13, "i{1,2,3} c[]{0.5} i[]{2}", "{-0.5,0,0.5}");
    op_expect("DequantizeLinear axis=0", 13, "i[2,2]{1,2,1,2} c{1,0.5}", "[2,2]{1,2,0.5,1}");
    op_expect("DequantizeLinear axis=0 block_size=2", 21, "i[3,1]{1,2,3} c[2,1]{1,2} i[2,1]{0,1}",
              "[3,1]{1,2,4}");
    op_expect_error("DequantizeLinear axis=0 block_size=2", 21, "i[3,1]{1,2,3} c[1,1]{1}",
                    "does not fit");
    op_expect_error("DequantizeLinear", 13, "i{1,2} c{1,2} i{1}", "zero point");
    op_expect("DynamicQuantizeLinear", 11, "c{-1,0,1.55}", "{0,100,255} []{0.01} []{100}");
    op_expect("DynamicQuantizeLinear", 11, "c{0}", "{0} []{1} []{0}");
    op_expect_error("MatMulInteger", 10, "i[1,1]{1} i[1,1]{1}", "int64 are not handled");
    op_expect_error("ConvInteger", 10, "i[1,1,2]{1,2} i[1,2,1]{1,2}", "shapes");
}
END_TEST

START_TEST(bits)
{
    op_expect("BitwiseAnd", 18, "i{6,-1} i{3}", "{2,3}");
    op_expect("BitwiseOr", 18, "i{6,-8} i{3}", "{7,-5}");
    op_expect("BitwiseXor", 18, "i{6,3} i{3}", "{5,0}");
    op_expect("BitwiseNot", 18, "i{0,-3}", "{-1,2}");
    op_expect("BitShift direction=LEFT", 11, "i{1,3} i{4,64}", "{16,0}");
    op_expect("BitShift direction=RIGHT", 11, "i{16,3,-5,-5} i{3,1,1,99}", "{2,1,-3,-1}");
    op_expect_error("BitShift", 11, "i{1} i{1}", "direction");
    op_expect_error("BitwiseAnd", 18, "c{1} c{1}", "integer");
}
END_TEST

START_TEST(randoms)
{
    double sum = 0, squares = 0, least = 9, most = -9;
    OpRun *run = op_run("RandomNormal shape=[100,50] seed=3.0 mean=1.0 scale=2.0", 1, "", 1);
    OpRun *again = op_run("RandomNormalLike seed=3.0 mean=1.0 scale=2.0", 1, "r[100,50]", 1);
    OpRun *other = op_run("RandomNormalLike seed=4.0 mean=1.0 scale=2.0", 1, "r[100,50]", 1);
    const Value *x = op_run_output(run, 0);
    ck_assert_int_eq(x->count, 5000);
    for (int e = 0; e < 5000; e++) {
        sum += (double)x->r[e];
        squares += (double)(x->r[e] * x->r[e]);
        ck_assert(x->r[e] == op_run_output(again, 0)->r[e]);
        ck_assert(x->r[e] != op_run_output(other, 0)->r[e]);
    }
    ck_assert(fabs(sum / 5000 - 1) < 0.1 && fabs(squares / 5000 - 5) < 0.3);
    op_run_free(run);
    op_run_free(again);
    op_run_free(other);
    run = op_run("RandomUniformLike low=2.0 high=4.0", 1, "r[5000]", 1);
    for (int e = 0; e < 5000; e++) {
        least = fmin(least, (double)op_run_output(run, 0)->r[e]);
        most = fmax(most, (double)op_run_output(run, 0)->r[e]);
    }
    ck_assert(least >= 2 && least < 2.01 && most < 4 && most > 3.99);
    op_run_free(run);
    run = op_run("Multinomial sample_size=5000 seed=2.0", 7, "c[1,3]{0,0.6931472,-inf}", 1);
    int64_t ones = 0;
    for (int e = 0; e < 5000; e++)
        ones += op_run_output(run, 0)->i[e];
    ck_assert(ones > 3200 && ones < 3470); /* two thirds; the third class never */
    op_run_free(run);
    op_expect("Bernoulli", 15, "c{0,1,1,0}", "{0,1,1,0}");
    op_expect("Bernoulli dtype=7", 15, "c{1}", "{1}");
    op_expect_error("RandomNormal", 1, "", "shape");
    op_expect_error("RandomUniform shape=[2] dtype=6", 1, "", "int32");
    op_expect_error("Multinomial", 7, "c[1,0]{}", "no class");
}
END_TEST

START_TEST(signals)
{
    op_expect("HannWindow periodic=0", 17, "i[]{3}", "{0,1,0}");
    op_expect("HannWindow", 17, "i[]{4}", "{0,0.5,1,0.5}");
    op_expect("BlackmanWindow", 17, "i[]{2}", "{0,1}");
    op_expect("HammingWindow", 17, "i[]{2}", "{0.0869565,1}");
    op_expect("HannWindow periodic=0", 17, "i[]{1}", "{0}");
    op_expect_error("HannWindow", 17, "i[]{-1}", "window of");
    op_expect("DFT", 17, "c[1,2,1]{1,3}", "[1,2,2]{4,0,-2,0}");
    op_expect("DFT", 20, "c[1,4,1]{0,1,0,-1}", "[1,4,2]{0,0,0,-2,0,0,0,2}");
    op_expect_error("DFT", 17, "c[1,2,3]{1,2,3,4,5,6}", "last axis");
    op_expect_error("DFT onesided=1 inverse=1", 17, "c[1,2,1]{1,2}", "onesided");
    op_expect_error("DFT", 17, "c[1,2,1]{1,2} i[]{0}", "length 0");
    op_expect("STFT", 17, "c[1,3,1]{1,2,4} i[]{1} c{1,1}", "[1,2,2,2]{3,0,-1,0,6,0,-2,0}");
    op_expect_error("STFT", 17, "c[1,3,1]{1,2,4} i[]{0} c{1,1}", "not handled");
    op_expect_error("STFT", 17, "c[1,3,1]{1,2,4} i[]{1} c{1,1,1,1}", "not handled");
    op_expect_error("MelWeightMatrix", 17, "i[]{2} i[]{0} i[]{8} c[]{0} c[]{4}", "mel filters");
    op_expect("NonMaxSuppression", 11,
              "c[1,3,4]{0,0,1,1,0,0.1,1,1.1,0,10,1,11} c[1,1,3]{0.9,0.75,0.6} i[]{3} c[]{0.5}",
              "[2,3]{0,0,0,0,0,2}");
    op_expect("NonMaxSuppression", 11, "c[1,1,4]{0,0,1,1} c[1,1,1]{0.9}", "[0,3]{}");
    op_expect_error("NonMaxSuppression", 11, "c[1,1,4]{0,0,1,1} c[1,1,2]{1,2}", "do not fit");
}
END_TEST

START_TEST(integers)
{
    op_expect("Add", 14, "i{9223372036854775807,1} i{1,-2}", "{-9223372036854775808,-1}");
    op_expect("Mul", 14, "i[2,1]{2,3} i{4,-5}", "[2,2]{8,-10,12,-15}");
    op_expect("Div", 14, "i{7,-7,-9223372036854775808} i{2,2,-1}", "{3,-3,-9223372036854775808}");
    op_expect_error("Div", 14, "i{1,2} i{1,0}", "divided by zero");
    op_expect("Mod", 13, "i{7,-7,7,-7} i{3,3,-3,-3}", "{1,2,-2,-1}");
    op_expect("Mod fmod=1", 13, "i{7,-7,7,-7} i{3,3,-3,-3}", "{1,-1,1,-1}");
    op_expect("Mod", 13, "i{-9223372036854775808} i{-1}", "{0}");
    op_expect_error("Mod", 13, "i{1} i{0}", "divided by zero");
    op_expect("Pow", 13, "i{2,-3,5} i{10,3,0}", "{1024,-27,1}");
    op_expect("Pow", 13, "i{2,-3} c{2.0,3.0}", "{4,-27}");
    op_expect("Neg", 13, "i{1,-9223372036854775808}", "{-1,-9223372036854775808}");
    op_expect("Abs", 13, "i{-4,4}", "{4,4}");
    op_expect("Max", 12, "i{1,5} i{3} i[2,1]{2,4}", "[2,2]{3,5,4,5}");
    op_expect("Min", 12, "i{1,5} i{3}", "{1,3}");
    op_expect("Where", 9, "b{1,0} i{1,2} i{3,4}", "{1,4}");
    op_expect("ReduceProd keepdims=0", 13, "i{2,3,4}", "[]{24}");
    op_expect("ReduceSum", 13, "i[2,2]{1,2,3,4} i{0}", "[1,2]{4,6}");
    op_expect("ReduceMax axes=[0] keepdims=0", 12, "i[2,2]{1,8,3,4}", "{3,8}");
    op_expect("CumSum reverse=1", 11, "i{1,2,3} i[]{0}", "{6,5,3}");
    op_expect("Clip", 12, "i{-5,0,5} i[]{-1} i[]{3}", "{-1,0,3}");
}
END_TEST

START_TEST(comparisons)
{
    op_expect("Equal", 13, "i{1,2,3} i{2}", "{0,1,0}");
    op_expect("Less", 13, "c{1,2,nan} c{2}", "{1,0,0}");
    op_expect("Greater", 13, "c[2,1]{1,3} c{2,0}", "[2,2]{0,1,1,1}");
    op_expect("LessOrEqual", 16, "i{1,2,3} i{2}", "{1,1,0}");
    op_expect("GreaterOrEqual", 16, "i{1,2,3} i{2}", "{0,1,1}");
    op_expect("And", 7, "b{0,0,1,1} b{0,1,0,1}", "{0,0,0,1}");
    op_expect("Or", 7, "b{0,0,1,1} b{0,1,0,1}", "{0,1,1,1}");
    op_expect("Xor", 7, "b{0,0,1,1} b{0,1,0,1}", "{0,1,1,0}");
    op_expect("Not", 1, "b{0,1}", "{1,0}");
    op_expect("IsNaN", 13, "c{1,nan}", "{0,1}");
    op_expect("IsInf", 10, "c{1,nan,inf,-inf}", "{0,0,1,1}");
    op_expect("IsInf detect_negative=0", 10, "c{inf,-inf}", "{1,0}");
    op_expect("Floor", 13, "c{-1.5,1.5}", "{-2,1}");
    op_expect("Ceil", 13, "c{-1.5,1.5}", "{-1,2}");
    op_expect("Round", 11, "c{0.5,1.5,-2.5,2.6}", "{0,2,-2,3}");
    op_expect("Sign", 13, "c{-2,0,0.5}", "{-1,0,1}");
    op_expect("Mod fmod=1", 13, "c{-4.5,5} c{2,3}", "{-0.5,2}");
    op_expect("Mod", 13, "c{-4.5,5,1} c{2,-3,-inf}", "{1.5,-1,-inf}");
    op_expect("Max", 13, "c{nan,1} c{0,nan}", "{nan,nan}");
}
END_TEST

START_TEST(casts)
{
    op_expect("Cast to=7", 13, "c{1.9,-1.9,nan,1e30}", "{1,-1,0,0}");
    op_expect("Cast to=2", 13, "i{257,-1}", "{1,255}");
    op_expect("Cast to=3", 13, "i{200}", "{-56}");
    op_expect("Cast to=9", 13, "c{0.5,0}", "{1,0}");
    op_expect("Cast to=9", 13, "i{256,0}", "{1,0}");
    op_expect("Cast to=1", 13, "i{3,-2}", "{3,-2}");
    op_expect_error("Cast to=8", 13, "i{3}", "string");
    op_expect_error("Cast", 13, "i{3}", "not handled");
    op_expect("Dropout", 13, "c{1,2}", "{1,2} {1,1}");
    op_expect_error("Dropout", 13, "c{1,2} c[]{0.5} b[]{1}", "training");
}
END_TEST

START_TEST(constants)
{
    op_expect("Constant value_int=3", 13, "", "[]{3}");
    op_expect("Constant value_float=1.5", 12, "", "[]{1.5}");
    op_expect("Constant value_ints=[1,-2]", 12, "", "{1,-2}");
    op_expect_error("Constant", 12, "", "value");
    op_expect("ConstantOfShape", 9, "i{2,1}", "[2,1]{0,0}");
    op_expect("ConstantOfShape", 9, "i[0]{}", "[]{0}");
    op_expect_error("ConstantOfShape", 9, "i{-1}", "negative");
    op_expect_error("ConstantOfShape", 9, "i{4611686018427387904,4}", "");
    op_expect_error("ConstantOfShape", 9, "i{1,1,1,1,1,1,1,1,1}", "at most 8");
    op_expect("Range", 11, "i[]{3} i[]{9} i[]{3}", "{3,6}");
    op_expect("Range", 11, "c[]{1} c[]{0} c[]{-0.4}", "{1,0.6,0.2}");
    op_expect("Range", 11, "i[]{3} i[]{1} i[]{1}", "[0]{}");
    op_expect_error("Range", 11, "i[]{3} i[]{1} i[]{0}", "range");
}
END_TEST

START_TEST(shapes)
{
    op_expect("Shape", 13, "r[2,3,4]", "{2,3,4}");
    op_expect("Shape start=-2 end=9", 15, "r[2,3,4]", "{3,4}");
    op_expect("Shape start=2 end=1", 15, "r[2,3,4]", "[0]{}");
    op_expect("Size", 13, "r[2,3,4]", "[]{24}");
    op_expect("Reshape allowzero=1", 14, "r[0,3] i{3,0}", "[3,0]{}");
    op_expect_error("Reshape", 14, "r[2,3] i{4,-1}", "[2,3] does not reshape");
    op_expect_error("Reshape", 14, "r[2,3] i{-1,-1}", "-1 twice");
    op_expect_error("Reshape", 14, "r[2,3] i{2,3,0}", "no axis");
    op_expect_error("Reshape", 14, "r[2,3] i{-2,-3}", "does not reshape");
    op_expect_error("Reshape", 14, "r[2,3] i{4611686018427387904,4}", "does not reshape");
    op_expect_error("Flatten axis=3", 14, "r[2,3]", "axis 3");
    op_expect_error("Squeeze", 13, "r[2,1] i{0}", "not one");
    op_expect_error("Unsqueeze", 13, "r[2] i{0,0}", "twice");
    op_expect_error("Transpose perm=[0,0]", 13, "r[2,3]", "twice");
    op_expect_error("Transpose perm=[0]", 13, "r[2,3]", "perm has 1");
    op_expect_error("Concat axis=0", 13, "r[2,3] r[2,4]", "differs");
    op_expect_error("Concat axis=0", 13, "r[2,3] -", "missing");
    op_expect("Concat axis=0", 13, "i{1} i{2,3}", "{1,2,3}");
    op_expect_error("Expand", 13, "r[2,3] i{2,2}", "does not expand");
    op_expect_error("Add", 13, "r[2,3] r[2]", "do not broadcast");
    op_expect_error("Add", 13, "r[2]", "missing");
    op_expect_error("Add", 13, "r[2] i{1,2}", "are of");
    op_expect("Add", 13, "r[0,3] r[3]", "[0,3]{}");
    op_expect_error("Split", 13, "r[4] i{1,2}", "pieces");
    op_expect("Split axis=0 num_outputs=3", 18, "i{1,2,3,4,5}", "{1,2} {3,4} {5}");
    op_expect_error("Tile", 13, "r[2] i{-1}", "repeats");
    op_expect("Tile", 13, "i{1,2} i{2}", "{1,2,1,2}");
}
END_TEST

START_TEST(slices_and_pads)
{
    op_expect("Slice", 13, "i{0,1,2,3,4,5} i{-1} i{-100} i{0} i{-2}", "{5,3,1}");
    op_expect("Slice", 13, "i{0,1,2,3} i{1} i{-1}", "{1,2}");
    op_expect("Slice", 13, "i[0]{} i{0} i{5} i{0} i{-1}", "[0]{}");
    op_expect("Slice", 13, "i{0,1,2,3,4} i{0} i{9} i{0} i{9223372036854775807}", "{0}");
    op_expect("Slice", 13, "i{0,1,2,3,4} i{4} i{-9} i{0} i{-9223372036854775808}", "{4}");
    op_expect_error("Slice", 13, "i{0,1} i{0} i{1} i{0} i{0}", "step is zero");
    op_expect_error("Slice", 13, "i{0,1} i{0} i{1} i{1}", "axis 1");
    op_expect_error("Slice", 13, "i{0,1} i{0,0} i{1}", "agree");
    op_expect("Pad", 13, "i{1,2} i{1,2} i[]{9}", "{9,1,2,9,9}");
    op_expect("Pad mode=reflect", 13, "i{1,2,3} i{2,4}", "{3,2,1,2,3,2,1,2,3}");
    op_expect("Pad mode=edge", 13, "i{1,2} i{1,1}", "{1,1,2,2}");
    op_expect("Pad mode=wrap", 19, "i{1,2,3} i{1,1}", "{3,1,2,3,1}");
    op_expect("Pad", 13, "i{1,2,3} i{-1,0}", "{2,3}");
    op_expect_error("Pad", 13, "i{1,2,3} i{-2,-2}", "cannot be padded");
    op_expect_error("Pad", 13, "i{1,2} i{-9223372036854775808,9223372036854775807}", "padded");
    op_expect_error("Pad", 13, "i{1,2} i{1,1,1}", "pads");
    op_expect_error("Pad mode=cubic", 13, "i{1,2} i{1,1}", "mode");
    op_expect_error("Pad mode=edge", 13, "i[0]{} i{1,1}", "nothing to repeat");
}
END_TEST

START_TEST(indices)
{
    op_expect("Gather", 13, "i{5,6,7} i[1,2]{-1,0}", "[1,2]{7,5}");
    op_expect_error("Gather", 13, "i{5,6,7} i{3}", "index 3");
    op_expect_error("Gather", 13, "i{5,6,7} i{-4}", "index -4");
    op_expect_error("Gather axis=1", 13, "i{5,6,7} i{0}", "axis 1");
    op_expect("ScatterElements axis=0", 13, "c{1,2,3} i{-1,0} c{9,8}", "{8,2,9}");
    op_expect("ScatterElements reduction=add", 16, "c{1,2,3} i{1,1} c{9,8}", "{1,19,3}");
    op_expect_error("ScatterElements", 13, "c{1,2,3} i{3} c{9}", "index 3");
    op_expect_error("GatherElements", 13, "c[2,2]{1,2,3,4} i[1,3]{0,0,0}", "does not fit");
    op_expect_error("GatherND", 13, "c[2,2]{1,2,3,4} i[1,3]{0,0,0}", "does not fit");
    op_expect_error("GatherND", 13, "c[2,2]{1,2,3,4} i[1,2]{0,2}", "index 2");
    op_expect_error("CumSum", 13, "c{1,2} i[]{1}", "axis 1");
    op_expect("Scatter", 9, "c{1,2,3} i{-1,0} c{9,8}", "{8,2,9}");
    op_expect("ScatterElements reduction=max", 18, "i{1,5} i{0,1} i{4,4}", "{4,5}");
    op_expect("ScatterElements reduction=mul", 18, "c{2,5} i{0,0} c{4,3}", "{24,5}");
    op_expect_error("ScatterElements", 18, "c{1,2} i{0} c{1,2}", "does not fit");
    op_expect("ScatterND reduction=add", 18, "i[2,2]{1,2,3,4} i[2,1]{1,1} i[2,2]{1,1,2,3}",
              "[2,2]{1,2,6,8}");
    op_expect("ScatterND", 11, "c[2,2]{1,2,3,4} i[1,2]{1,0} c{9}", "[2,2]{1,2,9,4}");
    op_expect_error("ScatterND", 11, "c[2,2]{1,2,3,4} i[1,1]{2} c[1,2]{1,2}", "index 2");
    op_expect_error("ScatterND", 11, "c[2,2]{1,2,3,4} i[1,1]{1} c{1,2}", "does not fit");
}
END_TEST

START_TEST(searches)
{
    op_expect("TopK", 11, "c{1,nan,3,3} i{3}", "{nan,3,3} {1,2,3}");
    op_expect("TopK largest=0", 11, "i{5,1,1} i{2}", "{1,1} {1,2}");
    op_expect("TopK axis=0", 11, "i[2,2]{1,4,3,2} i{1}", "[1,2]{3,4} [1,2]{1,0}");
    op_expect_error("TopK", 11, "c{1,2} i{3}", "k = 3");
    op_expect_error("TopK", 1, "c{1,2}", "k = -1");
    op_expect("ArgMax axis=1", 13, "c[2,3]{1,3,3,5,4,5}", "[2,1]{1,0}");
    op_expect("ArgMax axis=1 keepdims=0 select_last_index=1", 13, "c[2,3]{1,3,3,5,4,5}", "{2,2}");
    op_expect("ArgMin", 13, "i[3,2]{1,3,0,5,0,3}", "[1,2]{1,0}");
    op_expect("ArgMin select_last_index=1", 13, "i[3,2]{1,3,0,5,0,3}", "[1,2]{2,2}");
    op_expect_error("ArgMax", 13, "c[0]{}", "nothing along");
    op_expect("NonZero", 13, "c[2,2]{1,0,-1,2}", "[2,3]{0,1,1,0,0,1}");
    op_expect("NonZero", 13, "i[]{3}", "[0,1]{}");
    op_expect("Compress axis=0", 11, "i[3,1]{1,2,3} b{0,1}", "[1,1]{2}");
    op_expect("Compress", 11, "i[3,1]{1,2,3} b{1,1}", "{1,2}");
    op_expect_error("Compress", 11, "i{1} b{1,1}", "does not fit");
    op_expect("Unique", 11, "c{2,1,1,3}", "{1,2,3}");
    op_expect("Unique sorted=0", 11, "i{2,1,1,3}", "{2,1,3} {0,1,3} {0,1,1,2} {1,2,1}");
    op_expect("Unique axis=0", 11, "i[3,2]{3,0,1,5,3,0}",
              "[2,2]{1,5,3,0} {1,0} {1,0,1} {1,2}");
    op_expect("Unique axis=1", 11, "i[2,3]{3,1,3,0,5,0}", "[2,2]{1,3,5,0}");
}
END_TEST

START_TEST(masks)
{
    op_expect("Trilu upper=0", 14, "i[2,3]{1,2,3,4,5,6}", "[2,3]{1,0,0,4,5,0}");
    op_expect("Trilu", 14, "i[2,3]{1,2,3,4,5,6} i[]{9223372036854775807}", "[2,3]{0,0,0,0,0,0}");
    op_expect_error("Trilu", 14, "i{1}", "rank 1");
    op_expect("EyeLike k=1", 9, "c[2,3]{0,0,0,0,0,0}", "[2,3]{0,1,0,0,0,1}");
    op_expect("EyeLike dtype=7", 22, "c[2,2]{0,0,0,0}", "[2,2]{1,0,0,1}");
    op_expect("OneHot", 11, "i{0,-1,3} i[]{3} c{0,2}", "[3,3]{2,0,0,0,0,2,0,0,0}");
    op_expect("OneHot", 9, "i{0,-1} i[]{2} c{0,2}", "[2,2]{2,0,0,0}");
    op_expect("OneHot axis=0", 11, "c{1,0} c{2} i{5,7}", "[2,2]{5,7,7,5}");
    op_expect_error("OneHot", 11, "i{0} i[]{-1} c{0,1}", "depth");
    op_expect_error("OneHot", 11, "i{0} i[]{1} c{0}", "two values");
    op_expect("CenterCropPad", 18, "i{1,2,3,4,5} i{2}", "{2,3}");
    op_expect("CenterCropPad axes=[0]", 18, "i[2,1]{1,2} i{5}", "[5,1]{0,1,2,0,0}");
    op_expect_error("CenterCropPad", 18, "i{1,2} i{-1}", "size of -1");
    op_expect_error("CenterCropPad", 18, "i{1,2} i{1,2}", "one size an axis");
    op_expect("Einsum equation=ij,jk", 12, "c[1,2]{1,2} c[2,2]{1,2,3,4}", "[1,2]{7,10}");
    op_expect("Einsum equation=ba", 12, "c[1,2]{1,2}", "[2,1]{1,2}");
    op_expect("Einsum equation=bij,bjk->ik", 12, "c[0,1,2]{} c[0,2,1]{}", "[1,1]{0}");
    op_expect_error("Einsum equation=ij,jk->ik", 12, "c[1,2]{1,2} c[3,1]{1,2,3}", "differ");
    op_expect_error("Einsum equation=ij,jk->im", 12, "c[1,2]{1,2} c[2,1]{1,2}", "no input has");
    op_expect_error("Einsum equation=ij->ii", 12, "c[1,2]{1,2}", "label twice");
    op_expect_error("Einsum equation=i1->i", 12, "c[1,2]{1,2}", "not handled");
    op_expect_error("Einsum equation=ijk->i", 12, "c[1,2]{1,2}", "ranks");
    op_expect_error("Einsum equation=i->i", 12, "c{1} c{2}", "1 terms for 2");
}
END_TEST

/* Where differences say nothing: at kinks and ties. */
START_TEST(kinks)
{
    op_expect_gradient("Relu", 14, "f{0,1,-1}", 0, "{0,1,0}");
    op_expect_gradient("Clip", 13, "f{0,1,2,3} c[]{1} c[]{2}", 0, "{0,1,1,0}");
    op_expect_gradient("Max", 13, "f{1,2} f{1,0}", 0, "{1,1}");
    op_expect_gradient("Max", 13, "f{1,2} f{1,0}", 1, "{0,0}");
    op_expect_gradient("Min", 13, "f{1,2} f{1,0} c{1}", 1, "{0,1}");
    op_expect_gradient("ReduceMax", 13, "f{1,3,3}", 0, "{0,1,0}");
    op_expect_gradient("ReduceL2", 13, "f{0,0}", 0, "{0,0}");
    op_expect_gradient("Pow", 13, "f{0,0,0} c{2,1,0}", 0, "{0,1,0}");
    op_expect_gradient("Abs", 13, "f{0}", 0, "{0}");
}
END_TEST

START_TEST(numerics)
{
    op_expect("Softmax", 11, "c[1,2,2]{0,0,0,0}", "[1,2,2]{0.25,0.25,0.25,0.25}");
    op_expect("Softmax", 13, "c[1,2,2]{0,0,0,0}", "[1,2,2]{0.5,0.5,0.5,0.5}");
    op_expect("Softmax", 13, "c{1000,1000}", "{0.5,0.5}");
    op_expect("LogSoftmax", 13, "c{-1000,1000}", "{-2000,0}");
    op_expect("Sigmoid", 13, "c{-1000,1000}", "{0,1}");
    op_expect("Softplus", 13, "c{-1000,1000}", "{0,1000}");
    op_expect("ReduceLogSumExp keepdims=0", 13, "c{1000,1000}", "[]{1000.693147}");
    op_expect("ReduceMean", 13, "c[2,2]{1,2,3,6}", "[1,1]{3}");
    op_expect("ReduceSum", 13, "c[0,2]{} i{0}", "[1,2]{0,0}");
    op_expect("Relu", 13, "c{nan,-1}", "{nan,0}");
    op_expect_error("ReduceSum", 13, "c[2]{1,2} i{0,0}", "twice");
    op_expect_error("Softmax axis=2", 13, "c[2]{1,2}", "axis 2");
    op_expect_error("Sqrt", 13, "i{4}", "floating");
    op_expect_error("PRelu", 13, "c{1,2} c[2,1]{1,2}", "does not fit");
}
END_TEST

/* Lists that no exporter writes: any answer or refusal will do, but no undefined behaviour (this
 * test is run with sanitizers). */
START_TEST(hostile)
{
    static const struct {
        const char *node;
        int opset;
        const char *inputs; /* # is replaced by a number */
    } nodes[] = {
        {"Slice", 13, "r[3,0,5] i{#,#} i{#,#} i{#,#} i{#,#}"},
        {"Slice", 13, "i[3,4]{1,2,3,4,5,6,7,8,9,10,11,12} i{#} i{#} i{#} i{#}"},
        {"Slice starts=[#,#] ends=[#,#] axes=[1,#]", 9, "r[3,5]"},
        {"Pad mode=reflect", 13, "r[2,3] i{#,#,#,#}"},
        {"Pad mode=edge", 13, "r[2,3] i{#,#,#,#}"},
        {"Pad", 18, "r[2,0,3] i{#,#} - i{#}"},
        {"Pad pads=[#,#,#,#]", 2, "r[2,3]"},
        {"Reshape", 13, "r[2,3] i{#,#,#}"},
        {"Reshape allowzero=1", 14, "r[2,0,3] i{#,#}"},
        {"Expand", 13, "r[2,1] i{#,#,#}"},
        {"Tile", 13, "r[0,2] i{#,#}"},
        {"Tile", 13, "r[2] i{#}"},
        {"Gather axis=#", 13, "r[2,3] i{#,#}"},
        {"GatherElements axis=#", 13, "r[2,3] i[2,1]{#,#}"},
        {"GatherND batch_dims=#", 13, "r[2,3] i[2,2]{#,#,#,#}"},
        {"ScatterElements axis=#", 13, "r[2,3] i[1,2]{#,#} r[1,2]"},
        {"ScatterND", 13, "r[2,3] i[1,2]{#,#} r[1]"},
        {"QuantizeLinear axis=# block_size=#", 21, "c[2,3]{1,2,3,4,5,1e30} c[2,1]{1,0}"},
        {"DequantizeLinear axis=# block_size=#", 21, "i[2,3]{#,#,#,#,#,#} c[2,1]{1,0} i[2,1]{#,#}"},
        {"BitShift direction=LEFT", 11, "i{#,#} i{#,#}"},
        {"RandomNormal shape=[#,#]", 1, ""},
        {"DFT axis=#", 17, "r[2,3,1] i[]{#}"},
        {"STFT", 17, "r[2,3,1] i[]{#} - i[]{#}"},
        {"MelWeightMatrix", 17, "i[]{#} i[]{#} i[]{#} c[]{0} c[]{4}"},
        {"HannWindow", 17, "i[]{#}"},
        {"NonMaxSuppression", 11, "c[1,1,4]{0,0,1,1} c[1,1,1]{0.9} i[]{#}"},
        {"TopK axis=#", 11, "r[2,3] i{#}"},
        {"TopK axis=#", 11, "r[2,0,3] i{#}"},
        {"ArgMax axis=#", 11, "i[2,2]{#,#,#,#}"},
        {"Compress axis=#", 11, "r[2,3] i{#,#}"},
        {"Unique axis=#", 11, "i[2,3]{#,#,#,#,#,#}"},
        {"Unique axis=#", 11, "r[2,0,3]"},
        {"Trilu", 14, "r[2,3] i[]{#}"},
        {"EyeLike k=# dtype=#", 9, "r[2,3]"},
        {"OneHot axis=#", 11, "i{#,#} i[]{#} c{0,1}"},
        {"CenterCropPad", 18, "r[2,3] i{#,#}"},
        {"CenterCropPad axes=[#]", 18, "r[2,3] i{#}"},
        {"Split axis=#", 13, "r[4,2] i{#,#}"},
        {"Split num_outputs=# axis=1", 18, "r[4,2]"},
        {"Concat axis=#", 13, "r[2,3] r[2,1]"},
        {"Flatten axis=#", 13, "r[2,3,4]"},
        {"Squeeze", 13, "r[1,2,1] i{#,#}"},
        {"Unsqueeze", 13, "r[2] i{#,#}"},
        {"Transpose perm=[#,#]", 13, "r[2,3]"},
        {"Shape start=# end=#", 15, "r[2,3]"},
        {"ConstantOfShape", 9, "i{#,#}"},
        {"Range", 11, "i[]{#} i[]{#} i[]{#}"},
        {"CumSum", 11, "i{#,#} i[]{#}"},
        {"ReduceSum", 13, "i[2,2]{#,#,#,#} i{#}"},
        {"ReduceProd keepdims=#", 18, "i{#,#} i{#}"},
        {"Softmax axis=#", 11, "r[2,3]"},
        {"Div", 13, "i{#,#} i{#,#}"},
        {"Mod fmod=#", 13, "i{#,#} i{#,#}"},
        {"Mul", 13, "i{#,#} i{#}"},
        {"Pow", 13, "i{#,#} i{#}"},
        {"Pow", 13, "i{#,#} c{1e30}"},
        {"Sub", 13, "i{#,#} i{#}"},
        {"Cast to=#", 13, "c{1e30,-1e30,nan,3e9}"},
        {"Cast to=3", 13, "i{#}"},
        {"Clip", 13, "i{#} i[]{#} i[]{#}"},
    };
    static const long long numbers[] = {
        0, 1,         2,         3,         -1,           -2,        -3,        5,
        7, 1LL << 31, 1LL << 40, 1LL << 62, -(1LL << 62), INT64_MAX, INT64_MIN, INT64_MIN + 1};
    uint64_t random = 1;
    for (int draw = 0; draw < 8000; draw++) {
        size_t n = (size_t)draw % (sizeof nodes / sizeof nodes[0]);
        char text[2][300];
        for (int part = 0; part < 2; part++) {
            size_t used = 0;
            for (const char *c = part ? nodes[n].inputs : nodes[n].node; *c; c++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                long long number = numbers[random >> 60];
                if (*c == '#')
                    used += (size_t)sprintf(text[part] + used, "%lld", number);
                else
                    text[part][used++] = *c;
                text[part][used] = 0;
            }
        }
        OpRun *run = op_run(text[0], nodes[n].opset, text[1], 2);
        ck_assert(op_run_status(run) == ONNXPRESS_OK || *op_run_message(run));
        op_run_free(run);
    }
}
END_TEST

OP_SUITE("ops", gradients_elementwise, gradients_nary, gradients_activation, gradients_softmax,
         gradients_reduce, gradients_shape, gradients_slice_and_pad, gradients_index,
         gradients_scatter, gradients_search, gradients_einsum, gradients_signal, quantized, bits,
         randoms, signals, integers, comparisons, casts, constants, shapes, slices_and_pads,
         indices, searches, masks, kinks, numerics, hostile)
