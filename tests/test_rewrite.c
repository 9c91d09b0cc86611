/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "rewrite_samples.h"

START_TEST(round_trip_in_memory)
{
    static const int levels[] = {1, 17, 256, 300};
    RewriteForm form = (RewriteForm)(_i % 4), found;
    const char *note;
    for (size_t k = 0; k < sizeof levels / sizeof levels[0]; k++) {
        Coded coded;
        Model *model =
            applied(form, levels[k], _i >= 4, levels[k] == 17 ? INT64_MAX : 9000, &coded);
        ck_assert(rewrite_is_ours(model, &found, &note));
        ck_assert_int_eq(found, form);
        ck_assert_str_eq(note, NOTE);
        ck_assert_int_ge(model->proto->ir_version, form == FORM_FUNCTION ? 8 : 4);
        restore_and_compare(model, &coded);
        model_free(model);
    }
}
END_TEST

START_TEST(round_trip_in_files)
{
    RewriteForm form = (RewriteForm)(_i % 4);
    RewriteSidecar sidecar = _i >= 4 ? SIDECAR_ALWAYS : SIDECAR_AUTO;
    Coded coded;
    Model *model = applied(form, 17, true, INT64_MAX, &coded);
    RewriteSizes sizes;
    struct stat info;
    const char *path = scratch_path("m.onnx"), *data = scratch_path("m.onnx.data");
    ck_assert_int_eq(rewrite_save(model, path, sidecar, &sizes, &error), ONNXPRESS_OK);
    ck_assert_int_eq(scratch_count(), sidecar == SIDECAR_ALWAYS ? 2 : 1);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq((uint64_t)info.st_size, sizes.model_bytes);
    if (sidecar == SIDECAR_ALWAYS) {
        ck_assert_int_eq(stat(data, &info), 0);
        ck_assert_uint_eq((uint64_t)info.st_size, sizes.sidecar_bytes);
        ck_assert_uint_lt(sizes.model_bytes, 12000);
    }
    restore_and_compare(model, &coded); /* saving has left it as it was */
    model_free(model);
    model = load(path);
    restore_and_compare(model, &coded);

    /* From a sidecar into one file, and into another folder with a sidecar of the same name. */
    model_free(model);
    model = load(path);
    ck_assert_int_eq(rewrite_save(model, scratch_path("one.onnx"), SIDECAR_NEVER, &sizes, &error),
                     0);
    ck_assert_uint_eq(sizes.sidecar_bytes, 0);
    ck_assert_int_eq(mkdir(scratch_path("sub"), 0777), 0);
    ck_assert_int_eq(
        rewrite_save(model, scratch_path("sub/m.onnx"), SIDECAR_ALWAYS, &sizes, &error), 0);
    model_free(model);
    static const char *const written[] = {"one.onnx", "sub/m.onnx"};
    for (int k = 0; k < 2; k++) {
        model = load(scratch_path("%s", written[k]));
        restore_and_compare(model, &coded);
        model_free(model);
    }
}
END_TEST

/* A few weights of one value: the smallest code there is. */
START_TEST(few_symbols)
{
    for (int64_t most = 10; most <= 500; most += 245)
        for (int form = FORM_FUNCTION; form <= FORM_PLAIN; form++) {
            Coded coded;
            Model *model = applied((RewriteForm)form, 1, true, most, &coded);
            ck_assert_uint_ge(coded.n_symbols, 10);
            restore_and_compare(model, &coded);
            model_free(model);
        }
}
END_TEST

START_TEST(blocks_cover_all)
{
    static const uint64_t sizes[] = {1,
                                     2,
                                     REWRITE_BLOCK - 1,
                                     REWRITE_BLOCK,
                                     REWRITE_BLOCK + 1,
                                     2 * REWRITE_BLOCK - 1,
                                     5 * REWRITE_BLOCK + 17};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        uint64_t first = 0;
        while (first < sizes[k]) {
            uint64_t count = rewrite_block(sizes[k], first);
            ck_assert(count == REWRITE_BLOCK || first + count == sizes[k]);
            ck_assert(count >= 2 || sizes[k] == 1);
            first += count;
        }
        ck_assert_uint_eq(first, sizes[k]);
    }
}
END_TEST

START_TEST(shared_names_get_another_prefix)
{
    Model *model = load(LENET);
    model->proto->graph->node[0]->output[0] = arena_strdup(model->arena, "_taken");
    ck_assert_str_eq(choose_prefix(model, arena), "x0_");
    model->proto->graph->node[1]->output[0] = arena_strdup(model->arena, "x0_");
    ck_assert_str_eq(choose_prefix(model, arena), "x1_");
    model_free(model);
}
END_TEST

static void assert_refused(Model *model, const Coded *coded, RewriteForm form, const char *note,
                           int code)
{
    size_t before = model_packed_size(model);
    error = (Error){0};
    ck_assert_int_eq(rewrite_apply(model, coded, form, note, &error), code);
    ck_assert_uint_gt(strlen(error.message), 10);
    ck_assert_uint_eq(model_packed_size(model), before); /* as it was */
}

START_TEST(refusals)
{
    Model *model = load(LENET);
    Coded coded = random_coded(model, 17, true, 1000);
    CodedTensor *tensor = (CodedTensor *)coded.tensors;
    model->opset = 6; /* from 7 on a model is lifted to the decoder's opset */
    assert_refused(model, &coded, FORM_FUNCTION, NOTE, ONNXPRESS_UNSUPPORTED);
    assert_refused(model, &coded, FORM_INLINED, NOTE, ONNXPRESS_UNSUPPORTED);
    assert_refused(model, &coded, FORM_LOOKUP, NOTE, ONNXPRESS_UNSUPPORTED);
    model->opset = 17;
    assert_refused(model, &coded, FORM_FUNCTION, "\"a\":", ONNXPRESS_INTERNAL);
    coded.levels = 16;
    ((uint16_t *)coded.symbols)[5] = 16;
    assert_refused(model, &coded, FORM_FUNCTION, NOTE, ONNXPRESS_INTERNAL);
    coded.levels = 17;
    tensor[0].count++;
    assert_refused(model, &coded, FORM_LOOKUP, NOTE, ONNXPRESS_INTERNAL);
    tensor[0].count--;
    tensor[0].name = "nobody";
    assert_refused(model, &coded, FORM_PLAIN, NOTE, ONNXPRESS_INTERNAL);
    error = (Error){0};
    ck_assert_int_eq(rewrite_restore(model, &error), ONNXPRESS_FORMAT);
    ck_assert(strstr(error.message, "nothing to restore") != NULL);
    model_free(model);

    model = applied(FORM_FUNCTION, 17, true, 1000, &coded);
    assert_refused(model, &coded, FORM_FUNCTION, NOTE, ONNXPRESS_USAGE);
    model_free(model);
}
END_TEST

/* Each form says which stream is damaged. */
START_TEST(damaged_stream_is_named)
{
    Coded coded;
    Model *model = applied((RewriteForm)_i, 17, true, INT64_MAX, &coded);
    size_t node;
    Onnx__TensorProto *stream = values_find(model, _i == FORM_LOOKUP ? "_i" : "_s", &node);
    ck_assert(stream != NULL);
    stream->raw_data.data[stream->raw_data.len / 2] ^= 4;
    error = (Error){0};
    ck_assert_int_eq(rewrite_restore(model, &error), ONNXPRESS_FORMAT);
    ck_assert_msg(strstr(error.message, "stream 0 is damaged: its checksum") != NULL, "%s",
                  error.message);
    stream->raw_data.data[stream->raw_data.len / 2] ^= 4;
    Onnx__TensorProto *codebook = values_find(model, "_c", &node);
    codebook->raw_data.data[3] ^= 1;
    error = (Error){0};
    ck_assert_int_eq(rewrite_restore(model, &error), ONNXPRESS_FORMAT);
    ck_assert_msg(strstr(error.message, "tables' checksum") != NULL, "%s", error.message);
    codebook->raw_data.data[3] ^= 1;
    restore_and_compare(model, &coded); /* a refusal has changed nothing */
    model_free(model);
}
END_TEST

START_TEST(truncated_sidecar)
{
    Coded coded;
    Model *model = applied(FORM_FUNCTION, 17, true, INT64_MAX, &coded);
    RewriteSizes sizes;
    ck_assert_int_eq(rewrite_save(model, scratch_path("m.onnx"), SIDECAR_ALWAYS, &sizes, &error),
                     0);
    model_free(model);
    ck_assert_int_eq(truncate(scratch_path("m.onnx.data"), (off_t)sizes.sidecar_bytes / 2), 0);
    int status = model_load(scratch_path("m.onnx"), &model, &error);
    if (!status) {
        status = rewrite_restore(model, &error);
        model_free(model);
    }
    ck_assert_int_eq(status, ONNXPRESS_FORMAT);
    ck_assert(strstr(error.message, "m.onnx.data") != NULL);
}
END_TEST

/* Neither of the two files is touched when the second cannot be put in place. */
START_TEST(both_files_or_neither)
{
    Coded coded;
    Model *model = applied(FORM_FUNCTION, 17, true, 1000, &coded);
    RewriteSizes sizes;
    const char *path = scratch_path("m.onnx"), *data = scratch_path("m.onnx.data");
    ck_assert_int_eq(mkdir(path, 0777), 0);
    ck_assert_int_ne(rewrite_save(model, path, SIDECAR_ALWAYS, &sizes, &error), ONNXPRESS_OK);
    ck_assert_int_eq(scratch_count(), 1);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(mkdir(data, 0777), 0);
    ck_assert_int_ne(rewrite_save(model, path, SIDECAR_ALWAYS, &sizes, &error), ONNXPRESS_OK);
    ck_assert_int_eq(scratch_count(), 1);
    model_free(model);
}
END_TEST

/* Loop tests take forms, and from GAPS on those of them that code gaps. */
#define GAPS 3
#define GAPS_END (GAPS + 2)

/* Bits flipped in the whole file, but mostly outside of what the checksums cover. */
START_TEST(flipped_bits)
{
    Coded coded;
    zero_percent = _i < GAPS ? 0 : 90;
    Model *model = applied_to(small_model(), (RewriteForm)(_i % GAPS), 17, true,
                              _i < GAPS ? 600 : 25000, &coded);
    size_t node;
    ck_assert((values_find(model, "_G", &node) != NULL) == (_i >= GAPS));
    for (size_t i = 0; i < model->proto->graph->n_initializer; i++) { /* uncoded: not of interest */
        Onnx__TensorProto *tensor = model->proto->graph->initializer[i];
        if (tensor->raw_data.len > 4000) {
            tensor->n_dims = 0;
            tensor->raw_data.len = sizeof(float);
        }
    }
    const char *path = scratch_path("m.onnx");
    RewriteSizes sizes;
    ck_assert_int_eq(rewrite_save(model, path, SIDECAR_NEVER, &sizes, &error), 0);
    model_free(model);
    size_t bytes;
    char *file = scratch_read(path, &bytes);
    for (int seed = 0; seed < 700; seed++) {
        random_state = (uint64_t)seed;
        uint32_t flips = 1 + below(3), place[3];
        for (uint32_t f = 0; f < flips; f++) {
            place[f] = below((uint32_t)bytes * 8);
            file[place[f] / 8] ^= (char)(1 << place[f] % 8);
        }
        scratch_write(path, file, bytes);
        try_restore(path);
        for (uint32_t f = 0; f < flips; f++)
            file[place[f] / 8] ^= (char)(1 << place[f] % 8);
    }
    free(file);
}
END_TEST

/* What a flipped bit seldom reaches: our tensors and nodes changed with meaning, the checksums of
 * the streams made to fit. */
static void mutate_tensor(Onnx__TensorProto *tensor)
{
    static const int64_t nasty[] = {0, 1, -1, 2, 255, 65536, INT32_MAX, INT64_MAX, INT64_MIN};
    int64_t value = nasty[below(sizeof nasty / sizeof nasty[0])];
    switch (below(5)) {
    case 0:
        if (tensor->n_int64_data > 0)
            tensor->int64_data[below((uint32_t)tensor->n_int64_data)] = value;
        break;
    case 1:
        if (tensor->raw_data.len > 0)
            tensor->raw_data.data[below((uint32_t)tensor->raw_data.len)] ^=
                (uint8_t)(1 << below(8));
        break;
    case 2:
        if (tensor->n_dims > 0)
            tensor->dims[below((uint32_t)tensor->n_dims)] = value;
        break;
    case 3:
        tensor->raw_data.len -= tensor->raw_data.len > 2 ? 2 : 0;
        if (tensor->n_dims > 0)
            tensor->dims[0] -= 2;
        tensor->n_int64_data -= tensor->n_int64_data > 2 ? 2 : 0;
        break;
    default:
        tensor->data_type = (int32_t)below(17);
    }
}

static void mutate_node(Onnx__NodeProto *node)
{
    switch (below(4)) {
    case 0:
        node->n_input -= node->n_input > 0;
        break;
    case 1:
        node->n_output = below((uint32_t)node->n_output + 1);
        break;
    case 2:
        node->output[0] = node->input[0];
        break;
    default:
        node->n_attribute = 0;
    }
}

static void fix_checksums(Model *model, Metadata *metadata)
{
    for (size_t i = 0; i < metadata->coded.n_streams; i++) {
        size_t node;
        const char *name = metadata->form == FORM_LOOKUP ? "_i" : "_s";
        Onnx__TensorProto *stream =
            values_find(model, i ? arena_printf(arena, "%s%zu", name, i) : name, &node);
        if (stream)
            metadata->coded.stream[i] = (StreamNote){
                stream->raw_data.len, entropy_crc32(stream->raw_data.data, stream->raw_data.len)};
    }
    ck_assert_int_eq(metadata_write(model, metadata, &error), ONNXPRESS_OK);
}

START_TEST(hostile_numbers)
{
    int restored = 0;
    const char *small = arena_strdup(arena, small_model());
    zero_percent = _i < GAPS ? 0 : 90;
    for (int seed = 0; seed < 250; seed++) {
        random_state = (uint64_t)seed;
        Coded coded;
        Model *model =
            applied_to(small, (RewriteForm)(_i % GAPS), 17, true, _i < GAPS ? 5000 : 25000, &coded);
        if (seed % 3 == 0) /* as a model below opset 13 is read */
            model->opset = 11;
        Metadata metadata;
        ck_assert_int_eq(metadata_read(model, arena, &metadata, &error), ONNXPRESS_OK);
        const Onnx__GraphProto *graph = model->proto->graph;
        for (uint32_t changes = 1 + below(2); changes > 0;) {
            Onnx__TensorProto *tensor = graph->initializer[below((uint32_t)graph->n_initializer)];
            Onnx__NodeProto *ours = graph->node[below((uint32_t)graph->n_node)];
            if (below(4) == 0)
                mutate_node(ours);
            else if (tensor->name[0] == '_')
                mutate_tensor(tensor);
            else
                continue;
            changes--;
        }
        fix_checksums(model, &metadata);
        error = (Error){0};
        int status = rewrite_restore(model, &error);
        ck_assert(status == ONNXPRESS_OK || strlen(error.message) > 10);
        ck_assert_int_ne(status, ONNXPRESS_INTERNAL);
        restored += status == ONNXPRESS_OK;
        model_free(model);
    }
    ck_assert_int_lt(restored, 200); /* most changes must be seen */
}
END_TEST

START_TEST(hostile_metadata)
{
    static const char *const text[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"form\":7}",
        "{\"form\":\"magic\"}",
        "{\"form\":\"function\"}",
        "{\"form\":\"function\",\"prefix\":\"\",\"streams\":[],\"tables\":\"00000000\"}",
        "{\"form\":\"function\",\"prefix\":\"_\",\"streams\":[],\"tables\":\"00000000\"}",
        "{\"form\":\"lookup\",\"prefix\":\"_\",\"streams\":[],\"tables\":\"00000000\"}",
        "{\"form\":\"inlined\",\"prefix\":\"_\",\"streams\":[{\"n\":-1,\"crc\":\"00000000\"}],"
        "\"tables\":\"00000000\"}",
        "{\"form\":\"inlined\",\"prefix\":\"_\",\"streams\":[{\"n\":1e99,\"crc\":\"00000000\"}],"
        "\"tables\":\"00000000\"}",
        "{\"form\":\"inlined\",\"prefix\":\"_\",\"streams\":[{\"n\":5,\"crc\":\"0000000g\"}],"
        "\"tables\":\"00000000\"}",
    };
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        Coded coded;
        Model *model = applied(FORM_FUNCTION, 17, true, 1000, &coded);
        ck_assert_int_eq(model_set_metadata(model, "onnxpress", text[i], &error), ONNXPRESS_OK);
        error = (Error){0};
        ck_assert_msg(rewrite_restore(model, &error) == ONNXPRESS_FORMAT, "%s", text[i]);
        model_free(model);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rewrite");
    TCase *round = tcase_create("round trip"), *bad = tcase_create("bad input");
    tcase_add_checked_fixture(round, setup, teardown);
    tcase_add_loop_test(round, round_trip_in_memory, 0, 8);
    tcase_add_loop_test(round, round_trip_in_files, 0, 8);
    tcase_add_test(round, few_symbols);
    tcase_add_test(round, blocks_cover_all);
    tcase_add_test(round, shared_names_get_another_prefix);
    tcase_set_timeout(round, 120);
    suite_add_tcase(suite, round);
    tcase_add_checked_fixture(bad, setup, teardown);
    tcase_add_test(bad, refusals);
    tcase_add_loop_test(bad, damaged_stream_is_named, 0, 3);
    tcase_add_test(bad, truncated_sidecar);
    tcase_add_test(bad, both_files_or_neither);
    tcase_add_loop_test(bad, flipped_bits, 0, GAPS_END);
    tcase_add_loop_test(bad, hostile_numbers, 0, GAPS_END);
    tcase_add_test(bad, hostile_metadata);
    tcase_set_timeout(bad, 120);
    suite_add_tcase(suite, bad);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
