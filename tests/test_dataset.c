/* SPDX-License-Identifier: Apache-2.0 */
/* Samples and labels, from arrays and from folders of .pb files. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>
#include <sys/stat.h>

#include "npy_samples.h"
#include "tensor/dataset.h"

START_TEST(dataset_of_arrays)
{
    float images[4 * 3] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const char *dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }";
    const char *path = write_npy(1, dict, 64, images, sizeof images);
    Dataset *dataset;
    expect_ok(dataset_open(path, &dataset, &err));
    ck_assert_str_eq(dataset_path(dataset), path);
    ck_assert_int_eq(dataset_samples(dataset), 4);
    ck_assert_uint_eq(dataset_inputs(dataset), 1);
    ck_assert_ptr_null(dataset_input(dataset, 0)->name);
    ck_assert_mem_eq(dataset_input(dataset, 0)->data, images, sizeof images);
    dataset_close(dataset);
    dataset_close(NULL);

    expect_ok(npz_write(scratch_path("two.npz"), pair, 2, &err));
    expect_ok(dataset_open(scratch_path("two.npz"), &dataset, &err));
    ck_assert_int_eq(dataset_samples(dataset), 2);
    ck_assert_uint_eq(dataset_inputs(dataset), 2);
    ck_assert_str_eq(dataset_input(dataset, 1)->name, "steps/2");
    dataset_close(dataset);
}
END_TEST

START_TEST(dataset_refuses)
{
    Dataset *dataset;
    Tensor odd[2] = {pair[0], pair[1]};
    odd[0].shape = (Shape){2, {3, 2}};
    expect_ok(npz_write(scratch_path("a.npz"), odd, 2, &err));
    expect_error(dataset_open(scratch_path("a.npz"), &dataset, &err), ONNXPRESS_DATA,
                 "'steps/2' has 2 samples where the arrays before it have 3");
    ck_assert_ptr_null(dataset);
    odd[0] = (Tensor){"s", DTYPE_FLOAT, {0, {0}}, 1, numbers, 4};
    expect_ok(npz_write(scratch_path("a.npz"), odd, 1, &err));
    expect_error(dataset_open(scratch_path("a.npz"), &dataset, &err), ONNXPRESS_DATA,
                 "single number");
    odd[0] = (Tensor){"s", DTYPE_FLOAT, {2, {3, 0}}, 0, NULL, 0};
    expect_ok(npz_write(scratch_path("a.npz"), odd, 1, &err));
    expect_error(dataset_open(scratch_path("a.npz"), &dataset, &err), ONNXPRESS_DATA, "no samples");
    expect_error(dataset_open(scratch_path("no"), &dataset, &err), ONNXPRESS_IO, "No such file");
    ck_assert_int_eq(mkdir(scratch_path("folder"), 0700), 0);
    expect_error(dataset_open(scratch_path("folder"), &dataset, &err), ONNXPRESS_DATA,
                 "neither input_*.pb files nor test_data_set_* folders");
}
END_TEST

/* A TensorProto [n, 2] of floats on the wire; name NULL: none. */
static void write_pb(const char *path, const char *name, int n, const float *values)
{
    unsigned char data[256];
    size_t at = 0;
    const unsigned char head[] = {0x08, (unsigned char)n, 0x08, 2, 0x10, 1};
    memcpy(data, head, sizeof head);
    at = sizeof head;
    if (name) {
        data[at++] = 0x42;
        data[at++] = (unsigned char)strlen(name);
        memcpy(data + at, name, strlen(name));
        at += strlen(name);
    }
    data[at++] = 0x4a;
    data[at++] = (unsigned char)(n * 8);
    memcpy(data + at, values, (size_t)n * 8);
    scratch_write(path, data, at + (size_t)n * 8);
}

START_TEST(dataset_of_a_folder)
{
    float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    write_pb(scratch_path("input_0.pb"), "x", 3, values);
    write_pb(scratch_path("input_10.pb"), NULL, 3, values + 2);
    write_pb(scratch_path("input_2.pb"), "y", 3, values + 1);
    write_pb(scratch_path("output_0.pb"), "z", 1, values);
    write_pb(scratch_path("input_02.pb"), "not one of them", 1, values);
    Dataset *dataset;
    expect_ok(dataset_open(scratch, &dataset, &err));
    ck_assert_uint_eq(dataset_inputs(dataset), 3);
    ck_assert_int_eq(dataset_samples(dataset), 3);
    ck_assert_str_eq(dataset_input(dataset, 0)->name, "x");
    ck_assert_str_eq(dataset_input(dataset, 1)->name, "y"); /* in the order of numbers */
    ck_assert_ptr_null(dataset_input(dataset, 2)->name);
    ck_assert_mem_eq(dataset_input(dataset, 1)->data, values + 1, 24);
    dataset_close(dataset);

    write_pb(scratch_path("input_3.pb"), "w", 2, values);
    expect_error(dataset_open(scratch, &dataset, &err), ONNXPRESS_DATA, "has 2 samples");
    scratch_write(scratch_path("input_3.pb"), "not a tensor", 12);
    expect_error(dataset_open(scratch, &dataset, &err), ONNXPRESS_FORMAT, "input_3.pb");
    scratch_write(scratch_path("input_3.pb"), "", 0);
    expect_error(dataset_open(scratch, &dataset, &err), ONNXPRESS_FORMAT, "input_3.pb: is empty");
}
END_TEST

START_TEST(dataset_of_sets)
{
    float values[24];
    for (int i = 0; i < 24; i++)
        values[i] = (float)i;
    static const int rows[3] = {1, 3, 2}, numbers_of[3] = {0, 2, 10};
    int done = 0;
    for (int s = 0; s < 3; s++) {
        const char *folder = scratch_path("test_data_set_%d", numbers_of[s]);
        ck_assert_int_eq(mkdir(folder, 0700), 0);
        write_pb(scratch_path("test_data_set_%d/input_0.pb", numbers_of[s]), "x", rows[s],
                 values + 2 * done);
        write_pb(scratch_path("test_data_set_%d/input_1.pb", numbers_of[s]), "y", rows[s],
                 values + 2 * done + 6);
        done += rows[s];
    }
    Dataset *dataset;
    expect_ok(dataset_open(scratch, &dataset, &err));
    ck_assert_uint_eq(dataset_inputs(dataset), 2);
    ck_assert_int_eq(dataset_samples(dataset), 6);
    ck_assert_int_eq(dataset_input(dataset, 0)->count, 12);
    ck_assert_mem_eq(dataset_input(dataset, 0)->data, values, 48);
    ck_assert_mem_eq(dataset_input(dataset, 1)->data, values + 6, 48);
    dataset_close(dataset);

    write_pb(scratch_path("test_data_set_2/input_1.pb"), "other", 3, values);
    expect_error(dataset_open(scratch, &dataset, &err), ONNXPRESS_DATA, "input 1 has another name");
    ck_assert_int_eq(remove(scratch_path("test_data_set_2/input_1.pb")), 0);
    expect_error(dataset_open(scratch, &dataset, &err), ONNXPRESS_DATA, "has 1 inputs where");
}
END_TEST

START_TEST(labels)
{
    Arena *arena = arena_create();
    int64_t *out, count;
    const unsigned char bytes[4] = {3, 0, 255, 1};
    const char *path =
        write_npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 1), }", 64, bytes, 4);
    expect_ok(labels_read(path, arena, &out, &count, &err));
    ck_assert_int_eq(count, 4);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(out[i], bytes[i]);
    path = write_npy(1, "{'descr': '|i1', 'fortran_order': False, 'shape': (4,), }", 64, bytes, 4);
    expect_error(labels_read(path, arena, &out, &count, &err), ONNXPRESS_DATA, "label 2 is -1");
    ck_assert_ptr_null(out);
    path =
        write_npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }", 64, bytes, 4);
    expect_error(labels_read(path, arena, &out, &count, &err), ONNXPRESS_DATA, "uint8 [2,2]");
    path = write_npy(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 64, bytes, 4);
    expect_error(labels_read(path, arena, &out, &count, &err), ONNXPRESS_DATA, "float32 [1]");
    path = write_npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }", 64, bytes, 0);
    expect_error(labels_read(path, arena, &out, &count, &err), ONNXPRESS_DATA, "no labels");

    Tensor both[2] = {pair[0], {"labels", DTYPE_UINT8, {1, {4}}, 4, bytes, 4}};
    expect_ok(npz_write(scratch_path("l.npz"), both, 2, &err));
    expect_ok(labels_read(scratch_path("l.npz"), arena, &out, &count, &err));
    ck_assert_int_eq(count, 4);
    both[1].name = "other";
    expect_ok(npz_write(scratch_path("l.npz"), both, 2, &err));
    expect_error(labels_read(scratch_path("l.npz"), arena, &out, &count, &err), ONNXPRESS_DATA,
                 "none of them named");
    arena_destroy(arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dataset");
    ADD(suite, "dataset", dataset_of_arrays, dataset_refuses, dataset_of_a_folder, dataset_of_sets,
        labels);
    return run_suite(suite);
}
