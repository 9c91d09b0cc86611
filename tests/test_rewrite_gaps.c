/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights that are mostly zero, which blocks code as gaps. Damage to such files in general is in
 * test_rewrite.c; here is what only they have.
 */
#define _GNU_SOURCE
#include "rewrite_samples.h"

static Onnx__TensorProto *found(const Model *model, const char *name)
{
    size_t node;
    return values_find(model, name, &node);
}

/* Applies to a model as of an opset: below 13 sizes stand in the nodes. */
static Model *sparse_model(RewriteForm form, int64_t opset, int levels, bool scaled, Coded *coded)
{
    Model *model = load(LENET);
    model->opset = opset;
    *coded = random_coded(model, levels, scaled, INT64_MAX);
    int status = rewrite_apply(model, coded, form, NOTE, &error);
    ck_assert_msg(status == ONNXPRESS_OK, "%s", error.message);
    assert_names(model);
    return model;
}

START_TEST(sparse_round_trip)
{
    static const int levels[] = {2, 17, 300};
    static const int64_t opsets[] = {11, 17};
    RewriteForm form = _i % 2 ? FORM_INLINED : FORM_FUNCTION;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++)
        for (int k = _i / 2; k < 4; k += 2) {
            Coded coded;
            zero_percent = l == 1 ? 97 : 90;
            Model *model = sparse_model(form, opsets[k / 2], levels[l], k % 2, &coded);
            ck_assert_uint_gt(coded.n_tensors, 4);
            ck_assert(found(model, "_G") && found(model, "_E"));
            ck_assert(!found(model, "_l") == (opsets[k / 2] < 13));
            ck_assert(!found(model, "_a") == (k % 2 == 0));
            restore_and_compare(model, &coded);
            model_free(model);
        }
}
END_TEST

/* All weights the skipped symbol, and all but one. */
START_TEST(nothing_but_zeros)
{
    for (int k = 0; k < 4; k++) {
        Coded coded;
        Model *model = load(LENET);
        zero_percent = 100;
        coded = random_coded(model, 17, k % 2, INT64_MAX);
        uint16_t *symbol = (uint16_t *)(uintptr_t)coded.symbols;
        if (k >= 2)
            symbol[coded.n_symbols - 1] = 0;
        ck_assert_int_eq(rewrite_apply(model, &coded, FORM_FUNCTION, NOTE, &error), 0);
        ck_assert(found(model, "_G") != NULL);
        restore_and_compare(model, &coded);
        model_free(model);
    }
}
END_TEST

/* LeNet-5 with one matrix so large that two blocks are needed. */
static Model *large_model(void)
{
    Model *model = load(LENET);
    Onnx__TensorProto *large = found(model, "5.weight");
    int64_t rows = 1500, columns = 1000;
    size_t bytes = (size_t)(rows * columns) * sizeof(float);
    large->dims[0] = rows;
    large->dims[1] = columns;
    large->raw_data = (ProtobufCBinaryData){bytes, arena_array(model->arena, bytes, 1)};
    ck_assert(large->n_dims == 2 && large->raw_data.data);
    return model;
}

/* One block with gaps and one with tuples, in either order; one kind of function each. */
START_TEST(blocks_of_both_kinds)
{
    RewriteForm form = _i % 2 ? FORM_INLINED : FORM_FUNCTION;
    bool gaps_first = _i < 2;
    Model *model = large_model();
    Coded coded = random_coded(model, 9, _i % 2, INT64_MAX);
    uint16_t *symbol = (uint16_t *)(uintptr_t)coded.symbols;
    ck_assert_uint_gt(coded.n_symbols, REWRITE_BLOCK * 9 / 8);
    ck_assert_uint_lt(coded.n_symbols, REWRITE_BLOCK * 2);
    uint16_t skipped = skipped_symbol(coded.codebook, coded.levels);
    for (uint64_t i = 0; i < coded.n_symbols; i++)
        if ((i < REWRITE_BLOCK) == gaps_first && below(10) > 0)
            symbol[i] = skipped;
    ck_assert_int_eq(rewrite_apply(model, &coded, form, NOTE, &error), ONNXPRESS_OK);
    assert_names(model);
    ck_assert(found(model, "_t") && found(model, "_t1") && !found(model, "_t2"));
    ck_assert(found(model, gaps_first ? "_G" : "_G1") && !found(model, gaps_first ? "_G1" : "_G"));
    if (form == FORM_FUNCTION)
        ck_assert_uint_eq(model->proto->n_functions, 4);
    restore_and_compare(model, &coded);
    model_free(model);
}
END_TEST

/* Tensors of like statistics share a code, and others do not, wherever they are in the model. */
START_TEST(groups_by_statistics)
{
    Model *model = load(LENET);
    Coded coded = random_coded(model, 17, _i % 2, INT64_MAX);
    uint16_t *symbol = (uint16_t *)(uintptr_t)coded.symbols;
    uint16_t skipped = skipped_symbol(coded.codebook, 17);
    size_t offset[MAX_TENSORS + 1] = {0};
    bool seen[MAX_TENSORS] = {false};
    for (size_t t = 0; t < coded.n_tensors; t++) {
        const CodedTensor *tensor = &coded.tensors[t];
        offset[t + 1] = offset[t] + tensor->count;
        bool sparse = tensor->count > 100000;
        for (size_t i = offset[t]; i < offset[t + 1]; i++)
            symbol[i] = sparse && below(100) < 95 ? skipped : (uint16_t)below(17);
    }
    Groups groups;
    BlockPlan plan;
    uint64_t bytes = 0;
    ck_assert_int_eq(
        groups_find(symbol, offset, coded.n_tensors, coded.codebook, 17, arena, &groups, &error),
        0);
    ck_assert_uint_ge(groups.n_blocks, 2);
    ck_assert(groups.first[0] == 0 && groups.first[groups.n_blocks] == coded.n_symbols);
    uint16_t *together = arena_array(arena, coded.n_symbols, sizeof *together), *at = together;
    for (size_t b = 0; b < groups.n_blocks; b++) {
        ck_assert(groups.first[b] % 12 == 0 && groups.first[b] < groups.first[b + 1]);
        groups_gather(symbol, offset, &groups, b, at);
        at += groups.first[b + 1] - groups.first[b];
    }
    at = together;
    for (size_t k = 0; k < coded.n_tensors; k++) {
        size_t t = groups.order[k];
        for (size_t i = offset[t]; i < offset[t + 1]; i++)
            ck_assert_uint_eq(*at++, symbol[i]);
        ck_assert(!seen[t]);
        seen[t] = true;
    }
    ck_assert_int_eq(block_plan(symbol, coded.n_symbols, skipped, 17, &plan, &error), 0);
    ck_assert_int_eq(
        rewrite_estimate(symbol, offset, coded.n_tensors, coded.codebook, 17, &bytes, &error), 0);
    ck_assert_uint_lt(bytes, plan.bytes * 9 / 10);
    RewriteForm form = _i / 2 ? FORM_INLINED : FORM_FUNCTION;
    ck_assert_int_eq(rewrite_apply(model, &coded, form, NOTE, &error), 0);
    assert_names(model);
    ck_assert(found(model, "_t1") != NULL);
    restore_and_compare(model, &coded);
    model_free(model);
}
END_TEST

/* What a block adds to the model: its initializers, its node, and the nodes of its levels. */
static uint64_t block_bytes(const Model *model)
{
    uint64_t bytes = 0;
    const Onnx__ModelProto *proto = model->proto;
    for (size_t i = 0; i < proto->graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = proto->graph->initializer[i];
        if (tensor->name[0] == '_' && strchr("slnkrtGE", tensor->name[1]))
            bytes += onnx__tensor_proto__get_packed_size(tensor) + 4;
    }
    for (size_t i = 0; i < proto->graph->n_node; i++)
        if (strncmp(proto->graph->node[i]->op_type, "Huffman", 7) == 0)
            bytes += onnx__node_proto__get_packed_size(proto->graph->node[i]) + 3;
    for (size_t f = 0; f < proto->n_functions; f++)
        if (strncmp(proto->functions[f]->name, "Huffman", 7) == 0)
            bytes += onnx__function_proto__get_packed_size(proto->functions[f]) + 4;
    return bytes;
}

START_TEST(estimate_is_near)
{
    static const uint32_t zeros[] = {0, 80, 90, 97};
    static const int levels[] = {2, 17, 300};
    int with_gaps = 0;
    for (size_t z = 0; z < sizeof zeros / sizeof zeros[0]; z++)
        for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
            Coded coded;
            zero_percent = zeros[z];
            Model *model = sparse_model(FORM_FUNCTION, 17, levels[l], false, &coded);
            uint64_t estimate, real = block_bytes(model);
            size_t *offset = calloc(coded.n_tensors + 1, sizeof *offset);
            for (size_t t = 0; t < coded.n_tensors; t++)
                offset[t + 1] = offset[t] + coded.tensors[t].count;
            ck_assert_int_eq(rewrite_estimate(coded.symbols, offset, coded.n_tensors,
                                              coded.codebook, coded.levels, &estimate, &error),
                             ONNXPRESS_OK);
            free(offset);
            uint64_t slack = real * 3 / 100 + 1024;
            ck_assert_msg(estimate <= real + slack && real <= estimate + slack,
                          "%u %%, %d levels: estimated %llu, really %llu", zeros[z], levels[l],
                          (unsigned long long)estimate, (unsigned long long)real);
            with_gaps += found(model, "_G") != NULL;
            model_free(model);
        }
    ck_assert_int_ge(with_gaps, 4);
    ck_assert_int_le(with_gaps, 9);
}
END_TEST

/* Gaps only where they pay: a block takes no more bytes than with tuples. */
START_TEST(plan_takes_the_cheaper)
{
    static uint16_t symbol[20000], pair[40000];
    int gaps = 0, tuples = 0;
    for (int round = 0; round < 60; round++) {
        uint64_t n = 2 + below(round % 3 ? 19998 : 300), bytes;
        uint32_t zeros = 60 + below(40), alphabet = 2 + below(12);
        for (uint64_t i = 0; i < n; i++)
            symbol[i] = below(100) < zeros ? 1 : (uint16_t)below(alphabet);
        BlockPlan plan;
        int tuple, length;
        Arena *own = arena_create();
        ck_assert_int_eq(block_plan(symbol, n, 1, (int)alphabet, &plan, &error), ONNXPRESS_OK);
        ck_assert_int_eq(
            wavelet_choose(symbol, n, (int)alphabet, own, &tuple, &length, &bytes, &error), 0);
        ck_assert_uint_le(plan.bytes, bytes);
        if (plan.gap_limit == 0) {
            ck_assert_uint_eq(plan.bytes, bytes);
            ck_assert_int_eq(plan.tuple, tuple);
            tuples++;
        } else {
            WaveletBlock block;
            uint64_t pairs = gaps_split(symbol, n, plan.skipped, plan.gap_limit, pair);
            ck_assert_int_eq(
                wavelet_encode(pair, 2 * pairs, plan.tuple, plan.max_length, own, &block, &error),
                ONNXPRESS_OK);
            ck_assert_uint_gt(plan.bytes, wavelet_bytes(&block));
            ck_assert_uint_lt(plan.bytes, wavelet_bytes(&block) + 300);
            gaps++;
        }
        arena_destroy(own);
    }
    ck_assert_int_gt(gaps, 5);
    ck_assert_int_gt(tuples, 5);
}
END_TEST

START_TEST(skipped_is_nearest_zero)
{
    static const float codebook[] = {-0.5f, -0.1f, 0.1f, 0.4f, 0.0f, -0.0f};
    ck_assert_uint_eq(skipped_symbol(codebook, 1), 0);
    ck_assert_uint_eq(skipped_symbol(codebook, 2), 1);
    ck_assert_uint_eq(skipped_symbol(codebook, 4), 1);
    ck_assert_uint_eq(skipped_symbol(codebook, 6), 4);
}
END_TEST

static void assert_damaged(Model *model, const char *part)
{
    error = (Error){0};
    ck_assert_int_eq(rewrite_restore(model, &error), ONNXPRESS_FORMAT);
    ck_assert_msg(strstr(error.message, part) != NULL, "'%s' lacks '%s'", error.message, part);
}

/* No checksum covers the number of elements: a wrong one is refused by what the pairs cover, a huge
 * one before anything is allocated for it (that would be ONNXPRESS_MEMORY). */
START_TEST(hostile_elements)
{
    Coded coded;
    zero_percent = 90;
    Model *model = sparse_model(FORM_FUNCTION, _i % 2 ? 11 : 17, 17, _i >= 2, &coded);
    Onnx__TensorProto *filled = found(model, "_E"), *tuples = found(model, "_k");
    ck_assert(filled && filled->n_int64_data == 1 && tuples && tuples->n_int64_data == 1);
    int64_t sound = filled->int64_data[0], most = tuples->int64_data[0] * 256;
    ck_assert_int_eq(sound, (int64_t)coded.n_symbols);
    const int64_t outside[] = {(int64_t)1 << 40, most + 1, 0, -1, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        filled->int64_data[0] = outside[i];
        assert_damaged(model, "its gaps do not fit its table");
    }
    const int64_t inside[] = {sound - 1, sound + 1, 1, most};
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        filled->int64_data[0] = inside[i];
        assert_damaged(model, _i >= 2             ? "damaged"
                              : inside[i] < sound ? "past the end"
                                                  : "too early");
    }
    filled->int64_data[0] = sound;
    restore_and_compare(model, &coded); /* a refusal has changed nothing */
    model_free(model);
}
END_TEST

START_TEST(hostile_gaps)
{
    Coded coded;
    zero_percent = 90;
    Model *model = sparse_model(FORM_FUNCTION, 17, 17, true, &coded);
    Onnx__TensorProto *gaps = found(model, "_G"), *filled = found(model, "_E");
    uint8_t kept = gaps->raw_data.data[0];
    gaps->raw_data.data[0] = 0;
    assert_damaged(model, "a gap is wrong");
    gaps->raw_data.data[0] = (uint8_t)(kept % 255 + 1);
    assert_damaged(model, "checksum");
    gaps->raw_data.data[0] = kept;
    gaps->dims[0]--;
    gaps->raw_data.len--;
    assert_damaged(model, "its gaps do not fit its table");
    gaps->dims[0]++;
    gaps->raw_data.len++;
    filled->name[1] = '?';
    assert_damaged(model, "_E");
    filled->name[1] = 'E';
    gaps->name[1] = '?';
    assert_damaged(model, "");
    gaps->name[1] = 'G';
    restore_and_compare(model, &coded);
    model_free(model);
}
END_TEST

/* All of a block's bytes are in the sidecar, small as they may be. */
START_TEST(sidecar_has_the_gaps)
{
    Coded coded;
    RewriteSizes sizes;
    zero_percent = 95;
    Model *model = sparse_model(FORM_FUNCTION, 17, 17, true, &coded);
    ck_assert_uint_lt(found(model, "_G")->raw_data.len, 1000);
    const char *path = scratch_path("m.onnx");
    ck_assert_int_eq(rewrite_save(model, path, SIDECAR_ALWAYS, &sizes, &error), ONNXPRESS_OK);
    model_free(model);
    model = load(path);
    static const char *const outside[] = {"_s", "_n", "_t", "_G", "_c"};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
        ck_assert_msg(found(model, outside[i])->n_external_data > 0, "%s", outside[i]);
    restore_and_compare(model, &coded);
    model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rewrite_gaps");
    TCase *round = tcase_create("round trip"), *bad = tcase_create("bad input");
    tcase_add_checked_fixture(round, setup, teardown);
    tcase_add_loop_test(round, sparse_round_trip, 0, 4);
    tcase_add_test(round, nothing_but_zeros);
    tcase_add_loop_test(round, blocks_of_both_kinds, 0, 4);
    tcase_add_loop_test(round, groups_by_statistics, 0, 4);
    tcase_add_test(round, estimate_is_near);
    tcase_add_test(round, plan_takes_the_cheaper);
    tcase_add_test(round, skipped_is_nearest_zero);
    tcase_add_test(round, sidecar_has_the_gaps);
    tcase_set_timeout(round, 120);
    suite_add_tcase(suite, round);
    tcase_add_checked_fixture(bad, setup, teardown);
    tcase_add_loop_test(bad, hostile_elements, 0, 4);
    tcase_add_test(bad, hostile_gaps);
    tcase_set_timeout(bad, 120);
    suite_add_tcase(suite, bad);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
