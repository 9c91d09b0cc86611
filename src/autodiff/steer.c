/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights that steer shapes or numerics, and must never be changed. */
#include "autodiff/internal.h"

#include <string.h>

/* Inputs that set shapes or numerics: rounding them breaks a graph instead of blurring it. */
static bool input_steers(const char *type, int input)
{
    static const struct {
        const char *type;
        int first, last;
    } rules[] = {
        {"Resize", 1, 3},
        {"Upsample", 1, 1},
        {"AffineGrid", 1, 1},
        {"RoiAlign", 1, 2},
        {"MaxUnpool", 1, 2},
        {"Col2Im", 1, 2},
        {"RotaryEmbedding", 1, 3},
        {"GroupQueryAttention", 5, 9},
        {"Clip", 1, 2},
        {"Pad", 1, 3},
        {"Pow", 1, 1},
        {"Range", 0, 2},
        {"Dropout", 1, 2},
        {"TopK", 1, 1},
        {"Reshape", 1, 1},
        {"Expand", 1, 1},
        {"Tile", 1, 2},
        {"Slice", 1, 4},
        {"OneHot", 1, 2},
        {"CumSum", 1, 1},
        {"Mod", 1, 1},
        {"ConstantOfShape", 0, 0},
        {"Split", 1, 1},
        {"Squeeze", 1, 1},
        {"NonMaxSuppression", 2, 4},
        {"Unsqueeze", 1, 1},
        {"QuantizeLinear", 1, 2},
        {"DequantizeLinear", 1, 2},
        {"BlackmanWindow", 0, 0},
        {"HannWindow", 0, 0},
        {"HammingWindow", 0, 0},
        {"MatMulNBits", 1, 4},
        {"MatMulIntegerToFloat", 2, 5},
        {"DynamicQuantizeMatMul", 2, 3},
        {"QLinearConv", 1, 2},
        {"QLinearConv", 4, 7},
        {"QLinearMatMul", 1, 2},
        {"QLinearMatMul", 4, 7},
        {"QLinearAdd", 1, 2},
        {"QLinearAdd", 4, 7},
        {"QLinearMul", 1, 2},
        {"QLinearMul", 4, 7},
        {"QLinearSigmoid", 1, 4},
        {"QLinearLeakyRelu", 1, 4},
        {"QLinearSoftmax", 1, 4},
        {"QLinearAveragePool", 1, 4},
        {"QLinearGlobalAveragePool", 1, 4},
        {"QGemm", 1, 2},
        {"QGemm", 4, 5},
        {"QGemm", 7, 8},
    };
    if (strcmp(type, "QLinearConcat") == 0)
        return input < 2 || input % 3 != 2; /* the result's, and behind each tensor its own */
    for (size_t k = 0; k < sizeof rules / sizeof rules[0]; k++)
        if (strcmp(type, rules[k].type) == 0 && input >= rules[k].first && input <= rules[k].last)
            return true;
    return false;
}

/* From the inputs that steer, back through arithmetic on them. The ops below end the search: they
 * read shapes only, or they are the network itself, whose answers may choose indices. */
int program_mark_steering(Program *program, Error *err)
{
    static const char *const ends[] = {"Shape",         "Size",   "NonZero", "Conv",
                                       "ConvTranspose", "Gemm",   "MatMul",  "LSTM",
                                       "GRU",           "RNN",    "Einsum",  "BatchNormalization",
                                       "ArgMax",        "ArgMin", "TopK"};
    bool *steers =
        arena_array(program->arena, (size_t)program->graph->n_values + 1, sizeof *steers);
    if (!steers)
        return error_memory(err, "the program");
    do {
        for (int s = program->n_steps - 1; s >= 0; s--) {
            const Step *step = &program->steps[s];
            const char *type = step_type(step->op.proto);
            bool all = false;
            for (int k = 0; k < step->op.n_out; k++)
                all |= step->out[k] >= 0 && steers[step->out[k]];
            all = all && !NAME_IN(type, ends);
            for (int k = 0; k < step->op.n_in; k++)
                if (step->in[k] >= 0 && (all || input_steers(type, k)))
                    steers[step->in[k]] = true;
        }
    } while (program_steer_rounds(program, steers));
    for (int w = 0; w < program->n_weights; w++)
        program->weights[w].steers =
            steers[program->weights[w].value] || !program->weights[w].n_uses;
    return ONNXPRESS_OK;
}
