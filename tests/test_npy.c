/* SPDX-License-Identifier: Apache-2.0 */
/* .npy and .npz: what numpy writes, and what lies. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>
#include <time.h>
#include <zip.h>

#include "npy_samples.h"

START_TEST(npy_reads_all_types)
{
    static const struct {
        const char *descr;
        int dtype;
    } cases[] = {
        {"|u1", DTYPE_UINT8},  {"|i1", DTYPE_INT8},    {"|b1", DTYPE_BOOL},   {"<u2", DTYPE_UINT16},
        {"<i2", DTYPE_INT16},  {"<i4", DTYPE_INT32},   {"<u4", DTYPE_UINT32}, {"<i8", DTYPE_INT64},
        {"<u8", DTYPE_UINT64}, {"<f2", DTYPE_FLOAT16}, {"<f4", DTYPE_FLOAT},  {"<f8", DTYPE_DOUBLE},
        {"=f4", DTYPE_FLOAT},  {"f4", DTYPE_FLOAT},    {">u1", DTYPE_UINT8},  {"<b1", DTYPE_BOOL},
    };
    unsigned char data[48];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7 + 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int version = 1; version <= 3; version++) {
            char dict[120];
            snprintf(dict, sizeof dict,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (2, 3), }", cases[i].descr);
            size_t bytes = 6 * dtype_bytes(cases[i].dtype);
            NpyFile *file;
            expect_ok(npy_open(write_npy(version, dict, 64, data, bytes), &file, &err));
            ck_assert_uint_eq(npy_count(file), 1);
            const Tensor *tensor = npy_tensor(file, 0);
            ck_assert_ptr_null(tensor->name);
            ck_assert_int_eq(tensor->dtype, cases[i].dtype);
            ck_assert_int_eq(tensor->shape.rank, 2);
            ck_assert_int_eq(tensor->shape.dim[0], 2);
            ck_assert_int_eq(tensor->shape.dim[1], 3);
            ck_assert_int_eq(tensor->count, 6);
            ck_assert_uint_eq(tensor->bytes, bytes);
            ck_assert_mem_eq(tensor->data, data, bytes);
            npy_close(file);
        }
}
END_TEST

START_TEST(npy_reads_odd_headers)
{
    static const struct {
        const char *dict;
        int rank;
        int64_t first;
        size_t bytes;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 0, 0, 4},
        {"{'shape': (3,), 'fortran_order': False, 'descr': '<f4'}", 1, 3, 12},
        {"{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (3,)}", 1, 3, 12},
        {"{'descr':'<f4','fortran_order':False,'shape':(3L, 1L)}", 2, 3, 12},
        {"{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 3 , ) , }", 1, 3, 12},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5), }", 2, 0, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1, 1, 1, 1, 1, 1, 1), }", 8, 3, 12},
    };
    const float data[3] = {1.5f, -2.0f, 3.25f};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int align = 0; align <= 64; align += 64) { /* 0: the data stand at odd addresses */
            NpyFile *file;
            const char *path = write_npy(1, cases[i].dict, align, data, cases[i].bytes);
            expect_ok(npy_open(path, &file, &err));
            const Tensor *tensor = npy_tensor(file, 0);
            ck_assert_int_eq(tensor->shape.rank, cases[i].rank);
            if (cases[i].rank > 0)
                ck_assert_int_eq(tensor->shape.dim[0], cases[i].first);
            const float *values = tensor->data;
            ck_assert_uint_eq((uintptr_t)values % sizeof *values, 0);
            for (int64_t k = 0; k < tensor->count; k++)
                ck_assert(values[k] == data[k]);
            npy_close(file);
        }
}
END_TEST

START_TEST(npy_refuses)
{
    static const struct {
        const char *dict;
        size_t bytes;
        OnnxPressStatus code;
        const char *part;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", 12, ONNXPRESS_FORMAT,
         "holds 12 bytes of data where its header claims 16"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 12, ONNXPRESS_FORMAT,
         "holds 12 bytes"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3), }", 12, ONNXPRESS_UNSUPPORTED,
         "ascontiguousarray"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (3,), }", 12, ONNXPRESS_UNSUPPORTED,
         "little-endian"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", 12, ONNXPRESS_UNSUPPORTED,
         "'|O' data"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, ONNXPRESS_UNSUPPORTED,
         "'<c8' data"},
        {"{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", 16, ONNXPRESS_UNSUPPORTED,
         "'<U4' data"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", 12,
         ONNXPRESS_UNSUPPORTED, "records"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,3), }", 12,
         ONNXPRESS_UNSUPPORTED, "9 axes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }", 12, ONNXPRESS_FORMAT,
         "damaged"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 12,
         ONNXPRESS_FORMAT, "damaged"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 12,
         ONNXPRESS_FORMAT, "impossible shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }", 12,
         ONNXPRESS_FORMAT, "impossible shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", 12,
         ONNXPRESS_FORMAT, "claims 4000000000000"},
        {"{'descr': '<f4', 'fortran_order': False}", 12, ONNXPRESS_FORMAT, "damaged"},
        {"{'fortran_order': False, 'shape': (3,)}", 12, ONNXPRESS_FORMAT, "damaged"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}", 12, ONNXPRESS_FORMAT, "damaged"},
        {"{'descr': '<f4', 'more': 1, 'shape': (3,)}", 12, ONNXPRESS_FORMAT, "damaged"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,", 12, ONNXPRESS_FORMAT, "damaged"},
        {"{'descr': '<f4", 12, ONNXPRESS_FORMAT, "damaged"},
        {"", 12, ONNXPRESS_FORMAT, "damaged"},
    };
    static const unsigned char data[64];
    NpyFile *file;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = write_npy(1, cases[i].dict, 64, data, cases[i].bytes);
        expect_error(npy_open(path, &file, &err), cases[i].code, cases[i].part);
        ck_assert_ptr_null(file);
    }
    const char *good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    expect_error(npy_open(write_npy(4, good, 64, data, 12), &file, &err), ONNXPRESS_UNSUPPORTED,
                 "version 4");
    scratch_write(scratch_path("text"), "1 2 3\n4 5 6\n", 12);
    expect_error(npy_open(scratch_path("text"), &file, &err), ONNXPRESS_FORMAT, "neither .npy nor");
    scratch_write(scratch_path("empty"), "", 0);
    expect_error(npy_open(scratch_path("empty"), &file, &err), ONNXPRESS_FORMAT, "neither");
    expect_error(npy_open(scratch_path("none"), &file, &err), ONNXPRESS_IO, "No such file");
}
END_TEST

START_TEST(npy_survives_truncation)
{
    float data[30] = {1};
    const char *dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (30,), }";
    size_t bytes;
    char *whole = scratch_read(write_npy(2, dict, 64, data, sizeof data), &bytes);
    const char *path = scratch_path("cut.npy");
    for (size_t n = 0; n < bytes; n++) {
        NpyFile *file;
        scratch_write(path, whole, n);
        expect_error(npy_open(path, &file, &err), ONNXPRESS_FORMAT, "cut.npy");
    }
    free(whole);
}
END_TEST

START_TEST(npz_round_trip)
{
    expect_ok(npz_write(scratch_path("a.npz"), pair, 2, &err));
    setenv("TZ", "Pacific/Kiritimati", 1);
    tzset();
    expect_ok(npz_write(scratch_path("b.npz"), pair, 2, &err));
    size_t a_bytes, b_bytes;
    char *a = scratch_read(scratch_path("a.npz"), &a_bytes);
    char *b = scratch_read(scratch_path("b.npz"), &b_bytes);
    ck_assert_uint_eq(a_bytes, b_bytes);
    ck_assert_mem_eq(a, b, a_bytes);
    free(a);
    free(b);
    NpyFile *file;
    expect_ok(npy_open(scratch_path("a.npz"), &file, &err));
    ck_assert_uint_eq(npy_count(file), 2);
    for (size_t i = 0; i < 2; i++) {
        const Tensor *tensor = npy_find(file, pair[i].name);
        ck_assert_ptr_nonnull(tensor);
        ck_assert_int_eq(tensor->dtype, pair[i].dtype);
        ck_assert(shape_equal(&tensor->shape, &pair[i].shape));
        ck_assert_uint_eq(tensor->bytes, pair[i].bytes);
        ck_assert_mem_eq(tensor->data, pair[i].data, pair[i].bytes);
    }
    ck_assert_ptr_null(npy_find(file, "conv.weight.npy"));
    npy_close(file);
    ck_assert_int_eq(scratch_count(), 2);
}
END_TEST

START_TEST(npz_write_odd_arrays)
{
    const double one = 0.5;
    Tensor odd[2] = {{"scalar", DTYPE_DOUBLE, {0, {0}}, 1, &one, sizeof one},
                     {"none", DTYPE_FLOAT16, {2, {0, 7}}, 0, NULL, 0}};
    expect_ok(npz_write(scratch_path("a.npz"), odd, 2, &err));
    NpyFile *file;
    expect_ok(npy_open(scratch_path("a.npz"), &file, &err));
    ck_assert_int_eq(npy_find(file, "scalar")->shape.rank, 0);
    ck_assert_mem_eq(npy_find(file, "scalar")->data, &one, sizeof one);
    ck_assert_int_eq(npy_find(file, "none")->count, 0);
    npy_close(file);

    odd[1].name = "scalar";
    const char *path = scratch_path("b.npz");
    expect_error(npz_write(path, odd, 2, &err), ONNXPRESS_MEMORY, "already exists");
    odd[1] = (Tensor){"b", DTYPE_BFLOAT16, {1, {1}}, 1, &one, 2};
    expect_error(npz_write(path, odd, 2, &err), ONNXPRESS_UNSUPPORTED, "'b' of bfloat16");
    odd[1].name = NULL;
    expect_error(npz_write(path, odd, 2, &err), ONNXPRESS_UNSUPPORTED, "cannot be written");
    expect_error(npz_write(path, odd, 0, &err), ONNXPRESS_USAGE, "no arrays");
    expect_error(npz_write(scratch_path("no/x.npz"), odd, 1, &err), ONNXPRESS_IO, "no/x.npz");
    ck_assert_int_eq(scratch_count(), 1);
}
END_TEST

/* An archive with one member, deflated or stored. */
static const char *write_zip(const char *member, const void *data, size_t bytes, int method)
{
    const char *path = scratch_path("one.npz");
    zip_t *archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);
    zip_source_t *source = zip_source_buffer(archive, data, bytes, 0);
    zip_int64_t index = zip_file_add(archive, member, source, 0);
    ck_assert_int_eq(index, 0);
    ck_assert_int_eq(zip_set_file_compression(archive, 0, method, 9), 0);
    ck_assert_int_eq(zip_close(archive), 0);
    return path;
}

/* The bytes of a .npy of n float zeros. */
static char *zeros_npy(int n, size_t *bytes)
{
    char dict[100];
    snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }", n);
    float *zeros = calloc((size_t)n, sizeof *zeros);
    char *npy = scratch_read(write_npy(1, dict, 64, zeros, (size_t)n * sizeof *zeros), bytes);
    free(zeros);
    return npy;
}

START_TEST(npz_deflated)
{
    size_t bytes;
    char *npy = zeros_npy(1000000, &bytes); /* as close to the limit of deflate as can be */
    NpyFile *file;
    expect_ok(npy_open(write_zip("x.npy", npy, bytes, ZIP_CM_DEFLATE), &file, &err));
    const Tensor *tensor = npy_find(file, "x");
    ck_assert_int_eq(tensor->count, 1000000);
    int zeros = 0;
    for (int i = 0; i < 1000000; i++)
        zeros += ((const float *)tensor->data)[i] == 0;
    ck_assert_int_eq(zeros, 1000000);
    npy_close(file);
    free(npy);
}
END_TEST

static void put32(char *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

/* The fields of the (only) directory entry of a zip file. */
static char *directory_entry(char *zip, size_t bytes)
{
    char *entry = memmem(zip, bytes, "PK\1\2", 4);
    ck_assert_ptr_nonnull(entry);
    return entry;
}

START_TEST(npz_refuses)
{
    NpyFile *file;
    size_t bytes, zip_bytes;
    char *npy = zeros_npy(100, &bytes);
    expect_error(npy_open(write_zip("x.txt", npy, bytes, ZIP_CM_STORE), &file, &err),
                 ONNXPRESS_FORMAT, "member 'x.txt': is no .npy");
    expect_error(npy_open(write_zip("x.npy", "short", 5, ZIP_CM_STORE), &file, &err),
                 ONNXPRESS_FORMAT, "too short");
    expect_error(
        npy_open(write_zip("x.npy", "long enough, no array", 21, ZIP_CM_STORE), &file, &err),
        ONNXPRESS_FORMAT, "is no .npy array");
    expect_error(npy_open(write_zip("x.npy", npy, bytes - 4, ZIP_CM_STORE), &file, &err),
                 ONNXPRESS_FORMAT, "holds 396 bytes of data where its header claims 400");

    /* A directory that claims 2 GB of data in these few bytes. */
    char *zip = scratch_read(write_zip("x.npy", npy, bytes, ZIP_CM_DEFLATE), &zip_bytes);
    put32(directory_entry(zip, zip_bytes) + 24, 0x7fffffff);
    const char *path = scratch_path("lie.npz");
    scratch_write(path, zip, zip_bytes);
    expect_error(npy_open(path, &file, &err), ONNXPRESS_FORMAT, "than its compressed bytes can");
    put32(directory_entry(zip, zip_bytes) + 20, 0x7fffffff); /* compressed size */
    scratch_write(path, zip, zip_bytes);
    ck_assert_int_eq(npy_open(path, &file, &err), ONNXPRESS_FORMAT);
    err = (Error){0};
    free(zip);

    /* A wrong checksum. */
    zip = scratch_read(write_zip("x.npy", npy, bytes, ZIP_CM_STORE), &zip_bytes);
    zip[30 + 5 + bytes - 1] ^= 1; /* local header, name, all but the last byte of the data */
    scratch_write(path, zip, zip_bytes);
    expect_error(npy_open(path, &file, &err), ONNXPRESS_FORMAT, "damaged");
    free(zip);
    free(npy);
}
END_TEST

START_TEST(npz_survives_damage)
{
    expect_ok(npz_write(scratch_path("a.npz"), pair, 2, &err));
    size_t bytes;
    char *whole = scratch_read(scratch_path("a.npz"), &bytes);
    const char *path = scratch_path("bad.npz");
    for (size_t n = 0; n < bytes; n += 7) {
        NpyFile *file;
        scratch_write(path, whole, n);
        ck_assert_int_ne(npy_open(path, &file, &err), ONNXPRESS_OK);
        ck_assert_ptr_null(file);
        err = (Error){0};
    }
    uint32_t random = 1;
    for (int seed = 0; seed < 2000; seed++) {
        random = random * 1664525u + 1013904223u;
        size_t bit = random % (8 * bytes);
        whole[bit / 8] ^= (char)(1 << bit % 8);
        NpyFile *file;
        scratch_write(path, whole, bytes);
        int status = npy_open(path, &file, &err);
        ck_assert_int_eq(status, (int)err.code);
        if (!status) /* what was accepted must be whole and readable */
            for (size_t i = 0; i < npy_count(file); i++) {
                const Tensor *tensor = npy_tensor(file, i);
                double values[6];
                ck_assert_int_le(tensor->count, 6);
                ck_assert_uint_eq(tensor->bytes,
                                  (size_t)tensor->count * dtype_bytes(tensor->dtype));
                ck_assert_int_eq(tensor_to_double(tensor, values, &err), ONNXPRESS_OK);
            }
        npy_close(file);
        err = (Error){0};
        whole[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(whole);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("npy");
    ADD(suite, "npy", npy_reads_all_types, npy_reads_odd_headers, npy_refuses,
        npy_survives_truncation);
    ADD(suite, "npz", npz_round_trip, npz_write_odd_arrays, npz_deflated, npz_refuses,
        npz_survives_damage);
    return run_suite(suite);
}
