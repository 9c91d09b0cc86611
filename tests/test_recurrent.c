/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "op_harness.h"

START_TEST(rnn_gradients)
{
    CHECK(
        {"RNN hidden_size=$H", 14, "r[$T,$B,$I] r[1,$H,$I] r[1,$H,$H]", 2},
        {"RNN direction=reverse clip=1.5", 7,
         "r[3,3,$I] r[1,2,$I] r[1,2,2] r[1,4] i{1,3,0} r[1,3,2]", 2},
        {"RNN direction=bidirectional layout=1 activations=[Softplus,ScaledTanh]"
         " activation_alpha=[0.7] activation_beta=[1.3]",
         22, "r[$B,3,2] r[2,3,2] r[2,3,3] r[2,6] - r[$B,2,3]", 2});
    static const char *const activations[] = {"Relu",      "Sigmoid",         "Affine",
                                              "LeakyRelu", "ThresholdedRelu", "ScaledTanh",
                                              "Elu",       "HardSigmoid",     "Softsign"};
    for (size_t k = 0; k < sizeof activations / sizeof activations[0]; k++) {
        char node[100];
        snprintf(node, sizeof node, "RNN activations=[%s] activation_alpha=[0.3]", activations[k]);
        op_check_cases(&(OpCase){node, 14, "r[$T,$B,2] r[1,3,2] r[1,3,3] r[1,6]", 2}, 1);
    }
}
END_TEST

START_TEST(lstm_gradients)
{
    CHECK(
        {"LSTM", 14, "r[$T,$B,$I] r[1,8,$I] r[1,8,2]", 3},
        {"LSTM hidden_size=2", 7, "r[3,3,$I] r[1,8,$I] r[1,8,2] r[1,16] i{2,3,1} r[1,3,2] r[1,3,2]",
         3},
        {"LSTM direction=bidirectional clip=1.2", 14,
         "r[3,2,$I] r[2,8,$I] r[2,8,2] r[2,16] i{3,0} r[2,2,2] r[2,2,2] r[2,6]", 3},
        {"LSTM direction=reverse input_forget=1 layout=1", 22,
         "r[$B,3,2] r[1,4,2] r[1,4,1] r[1,8] - r[$B,1,1] r[$B,1,1] r[1,3]", 3},
        {"LSTM activations=[HardSigmoid,Softsign,Elu] activation_alpha=[0.25,0.8]", 14,
         "r[2,$B,2] r[1,8,2] r[1,8,2] r[1,16]", 1});
}
END_TEST

START_TEST(gru_gradients)
{
    CHECK(
        {"GRU", 14, "r[$T,$B,$I] r[1,6,$I] r[1,6,2]", 2},
        {"GRU linear_before_reset=1", 14, "r[$T,$B,$I] r[1,6,$I] r[1,6,2] r[1,12]", 2},
        {"GRU clip=1.1", 7, "r[3,3,$I] r[1,6,$I] r[1,6,2] r[1,12] i{1,3,0} r[1,3,2]", 2},
        {"GRU direction=bidirectional linear_before_reset=1", 14,
         "r[3,2,$I] r[2,6,$I] r[2,6,2] r[2,12] i{3,2} r[2,2,2]", 2},
        {"GRU direction=reverse layout=1 activations=[Sigmoid,LeakyRelu]", 22,
         "r[$B,3,2] r[1,6,2] r[1,6,2] r[1,12] - r[$B,1,2]", 2});
}
END_TEST

START_TEST(reversed_sequences)
{
    CHECK(
        {"ReverseSequence", 10, "r[3,4,$C] i{1,2,3,0}", 0},
        {"ReverseSequence batch_axis=0 time_axis=1", 10, "r[2,4,$C] i{4,2}", 0},
        {"ReverseSequence batch_axis=-1 time_axis=1", 10, "r[$A,3,$B,2] i{3,2}", 0},
        {"ReverseSequence batch_axis=0 time_axis=3", 10, "r[2,$A,$B,3] i{3,2}", 0});
    op_expect("ReverseSequence", 10, "i[3,2]{1,2,3,4,5,6} i{3,2}", "[3,2]{5,4,3,2,1,6}");
    op_expect_error("ReverseSequence", 10, "r[3,2] i{4,0}", "4 steps of 3");
    op_expect_error("ReverseSequence", 10, "r[3,2] i{1}", "1 lengths for 2");
    op_expect_error("ReverseSequence time_axis=1", 10, "r[3,2] i{1,1}", "one axis");
    op_expect_error("ReverseSequence", 10, "r[3] i{1}", "axis 1");
}
END_TEST

START_TEST(recurrent_values)
{
    /* h = relu(x + h / 2): 1, 2.5, 4.25; backwards 3, 3.5, 2.75 */
    op_expect("RNN activations=[Relu]", 14, "c[3,1,1]{1,2,3} c[1,1,1]{1} c[1,1,1]{0.5}",
              "[3,1,1,1]{1,2.5,4.25} [1,1,1]{4.25}");
    op_expect("RNN activations=[Relu] direction=reverse", 14,
              "c[3,1,1]{1,2,3} c[1,1,1]{1} c[1,1,1]{0.5}", "[3,1,1,1]{2.75,3.5,3} [1,1,1]{2.75}");
    /* a sequence of two steps: nothing after it, and the last state is its own */
    op_expect("RNN activations=[relu] direction=reverse layout=1", 14,
              "c[1,3,1]{1,2,3} c[1,1,1]{1} c[1,1,1]{0.5} - i{2}", "[1,3,1,1]{2,2,0} [1,1,1]{2}");
}
END_TEST

START_TEST(recurrent_refuses)
{
    op_expect_error("LSTM", 14, "r[2,1,3] r[1,8,3] r[1,8,3]", "input 1 is [1,8,3], not [1,12,3]");
    op_expect_error("LSTM hidden_size=3", 14, "r[2,1,3] r[1,8,3] r[1,8,2]", "hidden_size is 3");
    op_expect_error("LSTM layout=2", 14, "r[2,1,3] r[1,8,3] r[1,8,2]", "layout is 2");
    op_expect_error("LSTM direction=SOME", 14, "r[2,1,3] r[1,8,3] r[1,8,2]", "direction");
    op_expect_error("LSTM direction=bidirectional", 14, "r[2,1,3] r[1,8,3] r[1,8,2]", "input 1");
    op_expect_error("LSTM", 14, "r[2,3] r[1,8,3] r[1,8,2]", "rank 2");
    op_expect_error("LSTM", 14, "r[2,1,3] r[1,8,3]", "input 2 is missing");
    op_expect_error("GRU", 14, "r[2,1,3] r[1,6,3] r[1,6,2] - i{3}", "3 steps of 2");
    op_expect_error("GRU", 14, "r[2,1,3] r[1,6,3] r[1,6,2] - i{-1}", "-1 steps");
    op_expect_error("GRU", 14, "r[2,1,3] r[1,6,3] r[1,6,2] r[1,6]", "input 3");
    op_expect_error("GRU activations=[Tanh]", 14, "r[2,1,3] r[1,6,3] r[1,6,2]", "1 activations");
    op_expect_error("RNN activations=[Gelu]", 14, "r[2,1,3] r[1,2,3] r[1,2,2]", "not known");
}
END_TEST

OP_SUITE("recurrent", rnn_gradients, lstm_gradients, gru_gradients, reversed_sequences,
         recurrent_values, recurrent_refuses)
