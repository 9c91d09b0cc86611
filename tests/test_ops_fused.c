/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's own ops, of its domain com.microsoft. */
#include "op_harness.h"

#define MS "com.microsoft."

START_TEST(activation_gradients)
{
    CHECK({MS "Gelu", 1, "r[$A,$B]", 0}, {MS "QuickGelu", 1, "r[$A,$B]", 0},
          {MS "QuickGelu alpha=0.7", 1, "r[$A,$B]", 0}, {MS "BiasGelu", 1, "r[$N,$T,$B] w[$B]", 0},
          {MS "FastGelu", 1, "r[$A,$B]", 0}, {MS "FastGelu", 1, "r[$N,$B] w[$B]", 0});
}
END_TEST

START_TEST(norm_gradients)
{
    CHECK({MS "SkipLayerNormalization", 1, "r[$N,$T,3] r[$N,$T,3] w[3] w[3] w[3]", 0},
          {MS "SkipLayerNormalization epsilon=0.1", 1, "r[$N,2,3] r[1,2,3] w[3] - r[3]", 0},
          {MS "SkipLayerNormalization", 1, "r[$N,2,4] r[2,4] w[4] w[4]", 0},
          {MS "SkipSimplifiedLayerNormalization", 1, "r[$N,2,4] r[$N,2,4] w[4] w[4]", 0},
          {MS "EmbedLayerNormalization", 1,
           "i[2,3]{0,4,2,2,2,1} i[2,3]{0,1,1,0,0,1} w[5,3] w[3,3] w[2,3] w[3] w[3]", 0},
          {MS "EmbedLayerNormalization", 1,
           "i[2,2]{0,4,2,2} - w[5,4] w[3,4] - w[4] w[4] - i[1,2]{2,0}", 0});
}
END_TEST

START_TEST(norm_values)
{
    op_expect(MS "SkipLayerNormalization epsilon=0.0", 1,
              "c[1,1,2]{1,2} c[1,1,2]{0,1} c{1,2} c{0,1} c{0,0}", "[1,1,2]{-1,3}");
    op_expect(MS "EmbedLayerNormalization epsilon=0.0", 1,
              "i[1,2]{1,0} - c[2,2]{1,2,3,5} c[2,2]{0,0,1,0} - c{1,1} c{0,0} i[1,2]{1,0}",
              "[1,2,2]{-1,1,0,0} [1]{1}");
    op_expect_error(MS "EmbedLayerNormalization", 1, "i[1,1]{2} - r[2,2] r[2,2] - r[2] r[2] -",
                    "out of table 2");
    op_expect_error(MS "EmbedLayerNormalization", 1, "i[1,3]{1,1,1} - r[2,2] r[2,2] - r[2] r[2]",
                    "out of table 3");
    op_expect_error(MS "SkipLayerNormalization", 1, "r[1,1,2] r[1,1,2] r[3]", "input 2 has 3");
    op_expect_error(MS "SkipLayerNormalization", 1, "r[1,1,2] r[1,1,3] r[2]", "broadcast");
    op_expect_error(MS "SkipLayerNormalization", 1, "r[1,1,2] - r[2]", "missing");
}
END_TEST

START_TEST(product_gradients)
{
    CHECK({MS "FusedMatMul alpha=0.5", 1, "r[$N,$T,$K] r[$K,$M]", 0},
          {MS "FusedMatMul transA=1 transB=1", 1, "r[$N,$K,$T] r[$M,$K]", 0},
          {MS "FusedMatMul transBatchA=1 alpha=2.0", 1, "r[$T,$N,$K] r[$N,$K,$M]", 0},
          {MS "FusedMatMul transBatchB=1 transB=1 transBatchA=1 transA=1", 1,
           "r[$K,$N,$T] r[$M,$N,$K]", 0},
          {MS "TransposeMatMul transB=1 alpha=0.1", 1, "r[$N,$K] r[$M,$K]", 0},
          {MS "FusedGemm activation=Relu transB=1 alpha=0.5", 1, "r[$N,$K] w[$M,$K] w[$M]", 0},
          {MS "FusedGemm activation=LeakyRelu activation_alpha=0.2", 1, "r[$N,$K] w[$K,$M]", 0},
          {MS "FusedGemm activation=Tanh", 1, "r[$N,$K] w[$K,$M] w[$M]", 0},
          {MS "FusedConv activation=Sigmoid pads=[1,0,1,1]", 1, "r[$N,2,3,4] w[2,2,3,2] w[2]", 0},
          {MS "FusedConv activation=Relu group=2", 1, "r[$N,2,4] w[2,1,2] w[2] r[$N,2,3]", 0},
          {MS "FusedConv activation=HardSigmoid", 1, "r[$N,2,4] w[2,2,2] w[2]", 0},
          {MS "FusedConv", 1, "r[$N,2,4] w[2,2,2] - r[$N,2,3]", 0});
}
END_TEST

START_TEST(product_values)
{
    op_expect(MS "FusedGemm activation=Clip activation_alpha=0.0 activation_beta=6.0", 1,
              "c[1,2]{1,2} c[2,3]{1,-1,3,1,-1,3}", "[1,3]{3,0,6}");
    op_expect(MS "FusedMatMul transA=1 alpha=2.0", 1, "c[2,1]{1,2} c[2,1]{3,4}", "[1,1]{22}");
    op_expect_error(MS "FusedGemm activation=Softmax", 1, "r[1,2] r[2,3]", "activation");
    op_expect_error(MS "FusedGemm activation=LeakyRelu activation_alpha=-1.0", 1, "r[1,2] r[2,3]",
                    "alpha");
    op_expect_error(MS "FusedMatMul transA=1", 1, "r[1,2] r[2,3]", "inner sizes");
    op_expect_error(MS "FusedConv", 1, "r[1,2,4] r[2,2,2] - r[1,2,4]", "another shape");
}
END_TEST

START_TEST(attention_gradients)
{
    CHECK({"Attention", 23, "r[2,$H,3,2] r[2,$H,4,2] r[2,$H,4,3]", 0},
          {"Attention q_num_heads=4 kv_num_heads=2 scale=0.3", 23, "r[$N,3,8] r[$N,2,4] r[$N,2,6]",
           0},
          {"Attention is_causal=1", 23, "r[1,2,3,2] r[1,2,4,2] r[1,2,4,1] r[2,1,4]", 0},
          {"Attention", 23, "r[2,1,2,2] r[2,1,3,2] r[2,1,3,1] b[2,3]{1,0,1,1,1,0}", 0},
          {MS "MultiHeadAttention num_heads=2", 1, "r[$N,3,4] r[$N,2,4] r[$N,2,2]", 0},
          {MS "MultiHeadAttention num_heads=2", 1,
           "r[2,2,4] r[2,3,4] r[2,3,4] - i[2,3]{1,1,0,1,0,1} r[1,2,2,3]", 0},
          {MS "MultiHeadAttention num_heads=1 unidirectional=1", 1,
           "r[2,3,2] r[2,3,2] r[2,3,3] h[7]", 0},
          {MS "MultiHeadAttention num_heads=2 scale=0.7", 1, "r[2,2,4] r[2,2,3,2] r[2,2,3,2]", 0},
          {MS "Attention num_heads=2", 1, "h[$N,3,3] h[3,12] h[12]", 0},
          {MS "Attention num_heads=1 unidirectional=1 qkv_hidden_sizes=[2,2,3] scale=0.5", 1,
           "h[2,3,3] h[3,7] -", 0},
          {MS "Attention num_heads=2", 1, "h[2,3,2] h[2,6] h[6] i[2,3]{1,1,0,1,1,1} - r[2,2,3,3]",
           0});
}
END_TEST

START_TEST(attention_values)
{
    op_expect("Attention", 23, "c[1,1,1,1]{0} c[1,1,2,1]{3,4} c[1,1,2,1]{1,5}", "[1,1,1,1]{3}");
    op_expect("Attention", 23, "c[1,1,1,1]{1} c[1,1,2,1]{3,4} c[1,1,2,1]{1,5} b[1,2]{0,1}",
              "[1,1,1,1]{5}");
    op_expect(MS "MultiHeadAttention num_heads=1", 1,
              "c[1,1,1]{0} c[1,2,1]{3,4} c[1,2,1]{1,5} - i[1]{1}", "[1,1,1]{1}");
    op_expect_error("Attention softcap=-1.0", 23, "r[1,1,1,1] r[1,1,1,1] r[1,1,1,1]", "softcap");
    op_expect_error("Attention left_window_size=99999999999", 25,
                    "r[1,1,1,1] r[1,1,1,1] r[1,1,1,1]", "window");
    op_expect_error("Attention", 23, "r[1,1,1,1] r[1,1,1,1] r[1,1,1,1] - r[1,1,1,1]",
                    "input 4 is not handled");
    op_expect_error("Attention", 23, "r[1,2,4] r[1,2,4] r[1,2,4]", "0 heads");
    op_expect_error("Attention", 23, "r[1,3,2,2] r[1,2,2,2] r[1,2,2,2]", "do not fit");
    op_expect_error("Attention", 23, "r[1,1,2,2] r[1,1,3,2] r[1,1,3,2] r[2,2]", "broadcast");
    op_expect_error(MS "MultiHeadAttention num_heads=2", 1, "r[1,2,3] r[1,2,4] r[1,2,4]",
                    "2 heads");
    op_expect_error(MS "MultiHeadAttention num_heads=2", 1, "r[1,2,4] r[1,2,4] r[1,2,4] r[11]",
                    "bias");
    op_expect_error(MS "MultiHeadAttention num_heads=2", 1,
                    "r[1,2,4] r[1,2,4] r[1,2,4] - i[5]{1,1,1,1,1}", "mask of this shape");
    op_expect_error(MS "Attention num_heads=2", 1, "r[1,2,4] r[3,6]", "do not fit");
    op_expect_error(MS "Attention num_heads=0", 1, "r[1,2,4] r[4,6]", "num_heads");
    op_expect_error(MS "Attention num_heads=2", 1, "r[1,2,4] r[4,9]", "2 heads");
    op_expect_error(MS "Attention num_heads=2", 1, "r[1,2,4] r[4,12] - - r[1]", "input 4");
}
END_TEST

START_TEST(rotary)
{
    CHECK({"RotaryEmbedding", 23,
           "r[2,$H,2,4] c[3,2]{0.6,1,0.8,0,0.1,0.3} "
           "c[3,2]{0.8,0,0.6,1,0.5,0.2} i[2,2]{0,1,2,1}",
           0},
          {"RotaryEmbedding num_heads=2 interleaved=1", 23,
           "r[1,2,8] c[1,2,2]{0.6,1,0.8,0} c[1,2,2]{0.8,0,0.6,1}", 0},
          {MS "RotaryEmbedding", 1,
           "r[2,2,8] i[1]{1} c[3,2]{0.6,1,0.8,0,0.1,0.3} "
           "c[3,2]{0.8,0,0.6,1,0.5,0.2}",
           0},
          {MS "RotaryEmbedding rotary_embedding_dim=2 num_heads=2", 1,
           "r[1,2,6] i[1,2]{1,0} c[2,1]{0.6,0.8} c[2,1]{0.8,0.6}", 0});
    op_expect("RotaryEmbedding num_heads=1", 23, "c[1,1,2]{1,2} c[1,1,1]{0.6} c[1,1,1]{0.8}",
              "[1,1,2]{-1,2}");
    op_expect_error("RotaryEmbedding", 23, "r[1,1,2] c[1,1,3]{1,1,1} c[1,1,3]{1,1,1}", "heads");
    op_expect_error("RotaryEmbedding", 23, "r[1,1,1,2] c[2,1]{1,1} c[2,1]{1,1} i[1,1]{2}",
                    "is not there");
    op_expect_error("RotaryEmbedding", 23, "r[1,1,1,2] c[2,1]{1,1} c[1,1]{1} i[1,1]{0}", "fit");
    op_expect_error("RotaryEmbedding", 23, "r[1,1,1,2] c[2,1]{1,1} c[2,1]{1,1}", "do not fit");
}
END_TEST

#define GQA MS "GroupQueryAttention num_heads=4 kv_num_heads=2"
START_TEST(group_query_gradients)
{
    CHECK({GQA, 1, "r[2,3,8] r[2,3,4] r[2,3,4] - - i{2,2} i{3}", 3},
          {GQA " scale=0.7 softcap=1.5", 1, "r[2,3,16] - - - - i{2,1} i{3}", 1},
          {GQA " local_window_size=2", 1, "r[1,2,8] r[1,2,4] r[1,2,4] r[1,2,3,2] r[1,2,3,2] i{4} i{5}",
           3},
          {GQA, 1, "r[2,1,8] r[2,1,4] r[2,1,4] r[2,2,4,2] r[2,2,4,2] i{3,1} i{4}", 3},
          {GQA " do_rotary=1", 1,
           "h[1,2,32] - - r[1,2,1,4] r[1,2,1,4] i{2} i{3} c[3,2]{1,1,0.6,0.8,0,1} "
           "c[3,2]{0,0,0.8,0.6,1,0}", 3},
          {GQA " do_rotary=1 rotary_interleaved=1", 1,
           "h[1,2,32] - - - - i{1} i{2} c[3,1]{1,0.6,0} c[3,1]{0,0.8,1} i[1,2]{2,1} r[1,4,2,2]", 3});
    op_expect_error(GQA, 1, "r[2,3,8] r[2,3,4] r[2,3,4] - - i{2} i{3}", "lengths");
    op_expect_error(GQA, 1, "r[1,3,8] r[1,3,5] r[1,3,4] - - i{2} i{3}", "input 1");
    op_expect_error(GQA, 1, "r[1,3,9] r[1,3,4] r[1,3,4] - - i{2} i{3}", "4 heads");
    op_expect_error(GQA, 1, "r[1,1,8] r[1,1,4] r[1,1,4] r[1,2,3,2] r[1,2,3,2] i{9} i{4}", "length");
    op_expect_error(GQA, 1, "r[1,1,8] r[1,1,4] r[1,1,4] r[1,2,3,3] r[1,2,3,2] i{3} i{4}", "cache");
    op_expect_error(GQA " do_rotary=1", 1,
                    "r[1,2,16] - - - - i{1} i{2} c[1,1]{1} c[1,1]{1}", "position 1 of 1");
    op_expect_error(GQA " do_rotary=1", 1,
                    "r[1,1,16] - - - - i{0} i{1} c[1,2]{1,1} c[1,2]{1,1}", "tables");
    op_expect_error(MS "GroupQueryAttention num_heads=3 kv_num_heads=2", 1, "r[1,1,3]", "heads");
}
END_TEST

/* Soft caps, windows, and lengths of samples. */
START_TEST(attention_frontier)
{
    CHECK({"Attention softcap=1.2", 23, "r[2,1,$T,3] r[2,1,4,3] r[2,1,4,2] r[$T,4]", 0},
          {"Attention left_window_size=1 right_window_size=0", 25,
           "r[1,2,4,2] r[1,2,4,2] r[1,2,4,3]", 0},
          {"Attention is_causal=1 softcap=0.8", 24,
           "r[2,1,2,2] r[2,1,4,2] r[2,1,4,3] - - - i{4,2}", 0});
    op_expect_error("Attention", 24, "r[1,1,2,2] r[1,1,4,2] r[1,1,4,3] - - - i{5}", "5 columns");
    op_expect_error("Attention", 24, "r[1,1,2,2] r[1,1,4,2] r[1,1,4,3] - - - i{5,1}", "length");
}
END_TEST

/* Weights of 4, 2 and 8 bits in blocks of 4 along rows of 6: two blocks, the second half empty. */
START_TEST(nbits_gradients)
{
    CHECK({MS "MatMulNBits K=6 N=2 bits=4 block_size=4", 1,
           "r[$N,$T,6] i[2,2,2]{16,50,84,0,239,205,171,0} c[4]{0.5,0.25,1,2}", 0},
          {MS "MatMulNBits K=6 N=2 bits=4 block_size=4", 1,
           "r[$N,6] i[2,2,2]{16,50,84,0,239,205,171,0} c[4]{0.5,0.25,1,2} i[2]{56,150} - w[2]", 0},
          {MS "MatMulNBits K=6 N=2 bits=2 block_size=4", 1,
           "r[$N,6] i[2,2,1]{27,228,200,3} c[4]{0.5,0.25,1,2} i[2]{6,9}", 0},
          {MS "MatMulNBits K=2 N=3 bits=8 block_size=2", 1,
           "r[$N,2] i[3,1,2]{1,255,128,7,0,99} c[3]{0.5,0.25,1} c[3]{100,3.5,0}", 0});
    op_expect(MS "MatMulNBits K=2 N=1 bits=4 block_size=2", 1, "c[1,2]{1,10} i[1,1,1]{146} c[1]{0.5}",
              "[1,1]{2}");
    op_expect(MS "MatMulNBits K=2 N=1 bits=4 block_size=2", 1,
              "c[1,2]{1,10} i[1,1,1]{146} c[1]{0.5} i[1]{1}", "[1,1]{40.5}");
    op_expect_error(MS "MatMulNBits K=2 N=1 bits=4 block_size=2", 1, "r[1,2] i[1,1,2]{1,1} c[1]{1}",
                    "input 1 has 2");
    op_expect_error(MS "MatMulNBits K=3 N=1 bits=4 block_size=4", 1, "r[1,2] i[1,1,2]{1,1} c[1]{1}",
                    "rows of A");
    op_expect_error(MS "MatMulNBits K=2 N=1 bits=3 block_size=8", 1, "r[1,2] i[1,1,3]{1,1,1} c{1}",
                    "bits");
    op_expect_error(MS "MatMulNBits K=2 N=1 block_size=2", 1, "r[1,2] i[1,1,1]{1} c{1} - i{0,1}",
                    "input 4");
}
END_TEST

/* Inputs are int64 in this notation, so the type of a result comes from the zero point's cast. */
START_TEST(quantized_refuses)
{
    op_expect_error(MS "QLinearAdd", 1, "i{1} c{1} i{0} i{1} c{1} i{0} c{1} i{0}", "int64");
    op_expect_error(MS "QLinearMul", 1, "i{1} c{1} i{0} i{1,2} c{1,2} i{0} c{1} i{0}", "input 4");
    op_expect_error(MS "QLinearSigmoid", 1, "r[1] c{1} i{0} c{1} i{0}", "input 0");
    op_expect_error(MS "QLinearConcat axis=0", 1, "c{1} i{0} i{1} c{1}", "4 inputs");
    op_expect_error(MS "QGemm", 1, "i[1,2]{1,2} c{1} i{0} i[1,2]{1,2} c{1} i{0}", "do not fit");
    op_expect(MS "QGemm transB=1 alpha=2.0", 1,
              "i[1,2]{1,2} c{0.5} i{1} i[2,2]{1,2,3,4} c{1,10} i{0,1} i{5,6}", "[1,2]{7,90}");
}
END_TEST

OP_SUITE("ops_fused", activation_gradients, norm_gradients, norm_values, product_gradients,
         product_values, attention_gradients, attention_values, rotary, group_query_gradients,
         attention_frontier, nbits_gradients, quantized_refuses)
