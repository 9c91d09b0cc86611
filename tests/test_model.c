/* SPDX-License-Identifier: Apache-2.0 */
/* Loading models: good, damaged, hostile, and other things. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>

#include "model/graph.h"
#include "model/sha256.h"
#include "model_samples.h"

START_TEST(lenet_is_read)
{
    Model *model;
    expect_ok(model_load(LENET, &model, &err));
    ck_assert_str_eq(model->path, LENET);
    ck_assert_int_eq(model->opset, 16);
    ck_assert_uint_eq(model->file_bytes, 1725561);
    ck_assert_uint_eq(model->external_bytes, 0);
    ck_assert_str_eq(model->sha256,
                     "42964b284cf1992b282466ef3e94bb92240d8fe5746ad92c18d83b90ae5d8a0e");
    const Onnx__GraphProto *graph = model->proto->graph;
    ck_assert_uint_eq(graph->n_node, 8);
    ck_assert_uint_eq(graph->n_initializer, 8);
    int64_t weights = 0;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        Tensor tensor;
        expect_ok(model_tensor(model, graph->initializer[i], NULL, &tensor, &err));
        ck_assert_int_eq(tensor.dtype, DTYPE_FLOAT);
        ck_assert_uint_eq(tensor.bytes, (size_t)tensor.count * 4);
        weights += tensor.count;
    }
    ck_assert_int_eq(weights, 431080);
    model_free(model);
    model_free(NULL);
}
END_TEST

START_TEST(sha256_test_vectors)
{
    char hex[65];
    sha256_hex("", 0, hex);
    ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    sha256_hex(two, strlen(two), hex);
    ck_assert_str_eq(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    sha256_hex(million, 1000000, hex);
    ck_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}
END_TEST

START_TEST(other_files_are_named)
{
    static const struct {
        const char *content;
        size_t bytes;
        const char *part;
    } cases[] = {
        {"", 0, "is empty"},
        {"hello, world\n", 13, "is text"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", 57, "git lfs pull"},
        {"\x28\xb5\x2f\xfd\x04\x00", 6, "zstd"},
        {"\x1f\x8b\x08\x00", 4, "gzip"},
        {"PK\x03\x04\x14\x00", 6, "zip archive"},
        {"\x08\x08", 2, "holds no graph"},
        {"\x93NUMPY\x01\x00", 8, "not a valid ONNX file"},
        {"\x7f"
         "ELF\x02\x01",
         6, "not a valid ONNX file"},
    };
    Model *model;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_error(load_bytes(cases[i].content, cases[i].bytes, &model), ONNXPRESS_FORMAT,
                     cases[i].part);
        ck_assert_ptr_null(model);
    }
    expect_error(model_load(scratch_path("none"), &model, &err), ONNXPRESS_IO, "No such file");
    expect_error(model_load(scratch, &model, &err), ONNXPRESS_IO, "is a folder");
}
END_TEST

START_TEST(bad_wire_is_refused)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } cases[] = {
        {"\x3a\x05\x0a", 3, "a length runs past the end"},
        {"\x3a\x04\x0a\x05zz", 6, "a length runs past the end"}, /* inside its message, not ours */
        {"\x3a\xff\xff\xff\xff\x0f", 6, "a length runs past the end"},
        {"\x3a\xff\xff\xff\xff\xff\xff", 7, "a length does not end"},
        {"\x08", 1, "a number does not end"},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, "a number does not end"},
        {"\x00\x01", 2, "no valid field"},
        {"\xff\xff\xff\xff\xff\x01", 6, "no valid field"},
        {"\x08\x08\x3b\x3c", 4, "wrong type"},
        {"\xa3\x06\xa4\x06", 4, "a group"},   /* field 100, unknown */
        {"\xa6\x06", 2, "unknown wire type"}, /* wire type 6 */
        {"\xa1\x06\x01\x02", 4, "a number does not end"},
        {"\x38\x01", 2, "wrong type"},     /* graph as a number */
        {"\x0a\x01\x01", 3, "wrong type"}, /* ir_version as bytes */
        {"\x12\x03z\0z\x3a\x00", 7, "contains a NUL"},
        {"\x3a\x00\x3a\x00", 4, "there twice"},
        {"\x3a\x07\x2a\x05\x22\x03\0\0\0", 9, "ends inside an element"}, /* float_data */
        {"\x3a\x04\x2a\x02\x2a\x01", 6, "runs past the end"},
        {"\x3a\x05\x2a\x03\x2a\x01\x80", 7, "a number does not end"}, /* int32_data */
    };
    Model *model;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_error(load_bytes(cases[i].bytes, cases[i].n, &model), ONNXPRESS_FORMAT,
                     cases[i].part);
        ck_assert_ptr_null(model);
    }
}
END_TEST

/* Types in types in types; the last lies `depth` messages down. */
static size_t nested(unsigned char *out, int depth)
{
    /* From the inside: Sequence{elem_type: TypeProto{sequence_type: ...}}, two levels a step. */
    static unsigned char buffer[1 << 20], next[1 << 20];
    size_t n = 0;
    for (int level = 0; level < depth; level++) {
        static const unsigned char tags[2] = {4 << 3 | 2, 1 << 3 | 2};
        size_t at = 0;
        next[at++] = tags[(depth - 1 - level) % 2];
        for (uint64_t v = n;; v >>= 7) {
            next[at++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
            if (v <= 127)
                break;
        }
        memcpy(next + at, buffer, n);
        n += at;
        memcpy(buffer, next, n);
    }
    memcpy(out, buffer, n);
    return n;
}

/* ModelProto > GraphProto > ValueInfoProto > TypeProto and so on: three levels above. */
static int load_nested(int depth, Model **model)
{
    static unsigned char type[1 << 20], file[1 << 20];
    size_t n = nested(type, depth), at;
    unsigned fields[3] = {2, 11, 7};
    for (int i = 0; i < 3; i++) {
        at = 0;
        file[at++] = (unsigned char)(fields[i] << 3 | 2);
        for (uint64_t v = n;; v >>= 7) {
            file[at++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
            if (v <= 127)
                break;
        }
        memcpy(file + at, type, n);
        n += at;
        memcpy(type, file, n);
    }
    return load_bytes(file, n, model);
}

/* What protobuf's own parsers accept, a hundred messages below the file, and not one more. */
START_TEST(deep_nesting_is_refused)
{
    Model *model;
    expect_ok(load_nested(101 - 4, &model));
    expect_ok(model_save(model, scratch_path("out"), &err));
    model_free(model);
    expect_error(load_nested(101 - 3, &model), ONNXPRESS_FORMAT, "nested too deeply");
    expect_error(load_nested(10000, &model), ONNXPRESS_FORMAT, "nested too deeply");
}
END_TEST

START_TEST(truncated_models)
{
    size_t bytes;
    char *whole = scratch_read(LENET, &bytes);
    int refused = 0;
    for (int i = 0; i < 50; i++) {
        Model *model;
        int status = load_bytes(whole, bytes * (size_t)i / 50, &model);
        ck_assert_int_eq(status, (int)err.code);
        ck_assert((status != 0) == (model == NULL));
        refused += status == ONNXPRESS_FORMAT;
        model_free(model);
        err = (Error){0};
    }
    ck_assert_int_eq(refused, 50); /* the graph is one message, nearly as long as the file */
    free(whole);
}
END_TEST

/* The bytes that are not weights: there damage can do most. */
static size_t structure_of(const char *path, const char *data, size_t bytes, size_t *positions)
{
    Model *model;
    expect_ok(model_load(path, &model, &err));
    char *weight = calloc(bytes, 1);
    for (size_t i = 0; i < model->proto->graph->n_initializer; i++) {
        ProtobufCBinaryData raw = model->proto->graph->initializer[i]->raw_data;
        const char *at = memmem(data, bytes, raw.data, raw.len);
        ck_assert_ptr_nonnull(at);
        memset(weight + (at - data), 1, raw.len);
    }
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        if (!weight[i])
            positions[n++] = i;
    free(weight);
    model_free(model);
    return n;
}

/* Everything that can be done with a model that loads. */
static int use(Model *model)
{
    Graph *graph;
    int status = graph_build(model, model->arena, &graph, &err);
    ck_assert_int_eq(status, (int)err.code);
    for (size_t i = 0; i < model->proto->graph->n_initializer; i++) {
        Tensor tensor;
        Error local = {0};
        int view = model_tensor(model, model->proto->graph->initializer[i], "?", &tensor, &local);
        ck_assert_int_eq(view, (int)local.code);
        size_t sum = 0;
        for (size_t k = 0; !view && k < tensor.bytes; k += 1000) /* ASan: all of it is there */
            sum += ((const unsigned char *)tensor.data)[k];
        ck_assert_uint_le(sum, SIZE_MAX / 2);
    }
    FileWriter *writer;
    Error local = {0};
    ck_assert_int_eq(model_write(model, scratch_path("out.onnx"), &writer, &local), ONNXPRESS_OK);
    file_abort(writer);
    return status;
}

/* Flips a bit, loads, uses, and flips it back, `seeds` times. Counts what was refused, what loaded
 * with a graph that is not one, and what was as good as before. */
static void flip_bits(const char *source, int seeds, int counts[3])
{
    size_t bytes;
    char *whole = scratch_read(source, &bytes);
    size_t *positions = malloc(bytes * sizeof *positions);
    size_t n = structure_of(source, whole, bytes, positions);
    ck_assert_uint_gt(n, 400);
    ck_assert_uint_lt(n, 4000);
    char path[300];
    snprintf(path, sizeof path, "%s/flipped.onnx", scratch);
    scratch_write(path, whole, bytes);
    FILE *file = fopen(path, "r+b");
    uint64_t random = 12345;
    for (int seed = 0; seed < seeds; seed++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t draw = (size_t)(random >> 33);
        size_t at = seed % 16 == 0 ? draw % bytes : positions[draw % n];
        char flipped = (char)(whole[at] ^ 1 << (random >> 30 & 7));
        ck_assert_int_eq(pwrite(fileno(file), &flipped, 1, (off_t)at), 1);
        Model *model;
        int status = model_load(path, &model, &err);
        ck_assert_int_eq(status, (int)err.code);
        ck_assert((status != 0) == (model == NULL));
        counts[status ? 0 : use(model) ? 1 : 2]++;
        model_free(model);
        err = (Error){0};
        ck_assert_int_eq(pwrite(fileno(file), &whole[at], 1, (off_t)at), 1);
    }
    fclose(file);
    free(positions);
    free(whole);
}

START_TEST(flipped_bits)
{
    int counts[3] = {0, 0, 0};
    flip_bits(LENET, 100, counts);
    /* The same with few weights, which takes a twentieth of the time. */
    Model *model;
    expect_ok(model_load(LENET, &model, &err));
    for (size_t i = 0; i < model->proto->graph->n_initializer; i++) {
        Onnx__TensorProto *tensor = model->proto->graph->initializer[i];
        tensor->n_dims = 1;
        tensor->dims[0] = 10;
        tensor->raw_data.len = 40;
    }
    expect_ok(model_save(model, scratch_path("thin.onnx"), &err));
    model_free(model);
    flip_bits(scratch_path("thin.onnx"), 2000, counts);
    for (int i = 0; i < 3; i++) /* all three ends were met, or this looked at nothing */
        ck_assert_int_gt(counts[i], 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    ADD(suite, "load", lenet_is_read, sha256_test_vectors, other_files_are_named,
        bad_wire_is_refused, deep_nesting_is_refused);
    ADD(suite, "damage", truncated_models, flipped_bits);
    return run_suite(suite);
}
