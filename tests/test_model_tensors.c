/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of a model: in every field that can hold their data, and in other files. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>

#include "model_samples.h"

static int view_of(const Wire *tensor, Model **model, Tensor *view)
{
    Wire graph = {0};
    put_wire(&graph, 5, tensor);
    int status = load_graph(&graph, model);
    return status ? status
                  : model_tensor(*model, (*model)->proto->graph->initializer[0], NULL, view, &err);
}

START_TEST(typed_fields_are_narrowed)
{
    static const struct {
        int dtype;
        unsigned field;
        int64_t count;
        size_t bytes;
        unsigned char expected[8];
    } cases[] = {
        {DTYPE_INT8, 5, 3, 3, {0xff, 2, 3}},
        {DTYPE_UINT8, 5, 3, 3, {0xff, 2, 3}},
        {DTYPE_BOOL, 5, 3, 3, {0xff, 2, 3}},
        {DTYPE_INT16, 5, 3, 6, {0xff, 0xff, 2, 0, 3, 0}},
        {DTYPE_FLOAT16, 5, 3, 6, {0xff, 0xff, 2, 0, 3, 0}},
        {DTYPE_BFLOAT16, 5, 3, 6, {0xff, 0xff, 2, 0, 3, 0}},
        {DTYPE_UINT32, 11, 2, 8, {0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0}},
        {ONNX__TENSOR_PROTO__DATA_TYPE__INT4, 5, 5, 3, {0xff, 2, 3}},
        {ONNX__TENSOR_PROTO__DATA_TYPE__UINT2, 5, 9, 3, {0xff, 2, 3}},
        {ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT8E5M2, 5, 3, 3, {0xff, 2, 3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire tensor = tensor_wire("t", cases[i].dtype, 1, &cases[i].count), packed = {0};
        put_varint(&packed, UINT64_MAX); /* -1 */
        put_varint(&packed, 2);
        if (cases[i].field == 5)
            put_varint(&packed, 3);
        put_wire(&tensor, cases[i].field, &packed);
        Model *model;
        Tensor view, again;
        expect_ok(view_of(&tensor, &model, &view));
        ck_assert_str_eq(view.name, "t");
        ck_assert_int_eq(view.dtype, cases[i].dtype);
        ck_assert_int_eq(view.count, cases[i].count);
        ck_assert_uint_eq(view.bytes, cases[i].bytes);
        ck_assert_mem_eq(view.data, cases[i].expected, cases[i].bytes);
        expect_ok(model_tensor(model, model->proto->graph->initializer[0], NULL, &again, &err));
        ck_assert_ptr_eq(again.data, view.data); /* converted once */
        model_free(model);
    }
}
END_TEST

START_TEST(typed_fields_are_viewed)
{
    const int64_t three = 3, values64[3] = {-1, 2, INT64_MAX};
    const float values[3] = {1.0f, -2.5f, 3.0f};
    const double doubles[3] = {1.0, -2.5, 1e300};
    Wire f = tensor_wire("f", DTYPE_FLOAT, 1, &three);
    put_bytes(&f, 4, values, sizeof values);
    Wire d = tensor_wire("d", DTYPE_DOUBLE, 1, &three);
    put_bytes(&d, 10, doubles, sizeof doubles);
    Wire l = tensor_wire("l", DTYPE_INT64, 1, &three);
    for (int i = 0; i < 3; i++) /* not packed, which is legal too */
        put_int(&l, 7, (uint64_t)values64[i]);
    Wire r = tensor_wire("r", DTYPE_FLOAT, 1, &three);
    put_bytes(&r, 9, values, sizeof values);
    const struct {
        Wire *wire;
        const void *expected;
        size_t bytes;
    } cases[] = {{&f, values, 12}, {&d, doubles, 24}, {&l, values64, 24}, {&r, values, 12}};
    for (int i = 0; i < 4; i++) {
        Model *model;
        Tensor view;
        expect_ok(view_of(cases[i].wire, &model, &view));
        ck_assert_int_eq(view.count, 3);
        ck_assert_uint_eq(view.bytes, cases[i].bytes);
        ck_assert_mem_eq(view.data, cases[i].expected, cases[i].bytes);
        model_free(model);
    }
    Wire scalar = tensor_wire("s", DTYPE_FLOAT, 0, NULL);
    put_bytes(&scalar, 9, values, 4);
    const int64_t none[2] = {0, 7};
    Wire empty = tensor_wire("e", DTYPE_FLOAT, 2, none);
    Model *model;
    Tensor view;
    expect_ok(view_of(&scalar, &model, &view));
    ck_assert_int_eq(view.shape.rank, 0);
    ck_assert_int_eq(view.count, 1);
    model_free(model);
    expect_ok(view_of(&empty, &model, &view));
    ck_assert_int_eq(view.count, 0);
    model_free(model);
}
END_TEST

START_TEST(bad_tensors_are_refused)
{
    static const struct {
        int dtype, rank;
        int64_t dims[9];
        unsigned field; /* 0: no data */
        size_t bytes;
        OnnxPressStatus code;
        const char *part;
    } cases[] = {
        {DTYPE_FLOAT, 1, {3}, 9, 8, ONNXPRESS_FORMAT, "has 8 bytes of data, its shape needs 12"},
        {DTYPE_FLOAT, 1, {3}, 9, 16, ONNXPRESS_FORMAT, "has 16 bytes of data"},
        {DTYPE_FLOAT, 1, {3}, 4, 8, ONNXPRESS_FORMAT, "number of its values"},
        {DTYPE_FLOAT, 1, {3}, 0, 0, ONNXPRESS_FORMAT, "has no data"},
        {DTYPE_FLOAT, 1, {3}, 10, 24, ONNXPRESS_FORMAT, "has no data"}, /* another type's field */
        {DTYPE_FLOAT, 1, {-3}, 9, 12, ONNXPRESS_FORMAT, "negative"},
        {DTYPE_FLOAT, 2, {INT64_MAX, 4}, 9, 12, ONNXPRESS_FORMAT, "impossibly large"},
        {DTYPE_FLOAT, 1, {INT64_MAX}, 9, 12, ONNXPRESS_FORMAT, "impossibly large"},
        {DTYPE_DOUBLE, 1, {(int64_t)1 << 40}, 9, 12, ONNXPRESS_FORMAT, "has 12 bytes"},
        {DTYPE_FLOAT, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 9, 4, ONNXPRESS_UNSUPPORTED, "has 9 axes"},
        {DTYPE_UNDEFINED, 1, {1}, 9, 4, ONNXPRESS_FORMAT, "no data type"},
        {DTYPE_STRING, 1, {2}, 0, 0, ONNXPRESS_FORMAT, "number of its strings"},
        {ONNX__TENSOR_PROTO__DATA_TYPE__UINT4, 1, {3}, 9, 3, ONNXPRESS_FORMAT, "needs 2"},
    };
    static const unsigned char data[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire tensor = tensor_wire("bad", cases[i].dtype, cases[i].rank, cases[i].dims);
        if (cases[i].field)
            put_bytes(&tensor, cases[i].field, data, cases[i].bytes);
        Model *model;
        Tensor view;
        expect_error(view_of(&tensor, &model, &view), cases[i].code, cases[i].part);
        model_free(model);
    }
    /* A type of the future is no error: its bytes are kept, not understood. */
    const int64_t two = 2;
    Wire tensor = tensor_wire("new", 77, 1, &two);
    put_bytes(&tensor, 9, data, 5);
    Model *model;
    Tensor view;
    expect_ok(view_of(&tensor, &model, &view));
    ck_assert_int_eq(view.dtype, 77);
    ck_assert_uint_eq(view.bytes, 5);
    model_free(model);
}
END_TEST

static Wire external_wire(const char *location, const char *offset, const char *length)
{
    const int64_t three = 3;
    Wire tensor = tensor_wire("w", DTYPE_FLOAT, 1, &three);
    const char *entries[3][2] = {{"location", location}, {"offset", offset}, {"length", length}};
    for (int i = 0; i < 3; i++) {
        Wire entry = {0};
        if (!entries[i][1])
            continue;
        put_text(&entry, 1, entries[i][0]);
        put_text(&entry, 2, entries[i][1]);
        put_wire(&tensor, 13, &entry);
    }
    put_int(&tensor, 14, 1);
    return tensor;
}

START_TEST(external_data_is_read)
{
    const float values[3] = {1.0f, -2.5f, 3.0f};
    char file[32] = {0};
    memcpy(file + 4, values, 12);
    memcpy(file + 17, values, 12); /* at an odd address */
    scratch_write(scratch_path("w.bin"), file, 29);
    const char *offsets[2] = {"4", "17"};
    for (int i = 0; i < 2; i++) {
        Wire tensor = external_wire("w.bin", offsets[i], i ? NULL : "12");
        Model *model;
        Tensor view, again;
        expect_ok(view_of(&tensor, &model, &view));
        ck_assert_uint_eq(view.bytes, 12);
        ck_assert_uint_eq((uintptr_t)view.data % sizeof(float), 0);
        for (int k = 0; k < 3; k++)
            ck_assert(((const float *)view.data)[k] == values[k]);
        ck_assert_uint_eq(model->external_bytes, 29);
        expect_ok(model_tensor(model, model->proto->graph->initializer[0], NULL, &again, &err));
        ck_assert_ptr_eq(again.data, view.data);
        ck_assert_uint_eq(again.bytes, view.bytes);
        model_free(model);
    }
}
END_TEST

START_TEST(each_external_file_counts_once)
{
    scratch_write(scratch_path("w.bin"), "123456789012", 12);
    scratch_write(scratch_path("v.bin"), "123456789012345", 15);
    Wire graph = {0};
    const char *locations[4] = {"w.bin", "v.bin", "./w.bin", "w.bin"};
    for (int i = 0; i < 4; i++) {
        Wire tensor = external_wire(locations[i], NULL, NULL);
        put_wire(&graph, 5, &tensor);
    }
    Model *model;
    expect_ok(load_graph(&graph, &model));
    ck_assert_uint_eq(model->external_bytes, 27);
    model_free(model);
}
END_TEST

START_TEST(bad_external_data_is_refused)
{
    static const struct {
        const char *offset, *length, *part;
    } cases[] = {
        {"20", "12", "runs past the end of 'w.bin'"},
        {"24", NULL, "runs past the end of 'w.bin'"},
        {"30", NULL, "runs past the end of 'w.bin'"},
        {"18446744073709551615", "12", "runs past the end"},
        {"4", "18446744073709551615", "runs past the end"},
        {"99999999999999999999", "12", "offset of its external data is no number"},
        {"-4", "12", "offset of its external data is no number"},
        {"", "12", "offset of its external data is no number"},
        {"0", "0x0c", "length of its external data is no number"},
        {"0", "8", "has 8 bytes of external data, its shape needs 12"},
    };
    char file[29] = {0};
    scratch_write(scratch_path("w.bin"), file, sizeof file);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Wire tensor = external_wire("w.bin", cases[i].offset, cases[i].length);
        Model *model;
        Tensor view;
        expect_error(view_of(&tensor, &model, &view), ONNXPRESS_FORMAT, cases[i].part);
        model_free(model);
    }
    Wire tensor = external_wire("gone.bin", NULL, NULL);
    Model *model;
    Tensor view;
    expect_error(view_of(&tensor, &model, &view), ONNXPRESS_IO,
                 "tensor 'w': its external data 'gone.bin' cannot be read: No such file");
    ck_assert_ptr_null(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_tensors");
    ADD(suite, "tensors", typed_fields_are_narrowed, typed_fields_are_viewed,
        bad_tensors_are_refused, external_data_is_read, each_external_file_counts_once,
        bad_external_data_is_refused);
    return run_suite(suite);
}
