/* SPDX-License-Identifier: Apache-2.0 */
/* Files: mapping, and replacing whole or not at all. */
#define _GNU_SOURCE /* memmem, nftw */
#include <check.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "suite.h"
#include "tensor/file.h"

static void expect_content(const char *path, const char *text)
{
    char *data = scratch_read(path, NULL);
    ck_assert_str_eq(data, text);
    free(data);
}

START_TEST(map_reads_a_file)
{
    FileMap map;
    scratch_write(scratch_path("a"), "hello", 5);
    expect_ok(file_map(scratch_path("a"), &map, &err));
    ck_assert_uint_eq(map.size, 5);
    ck_assert_mem_eq(map.data, "hello", 5);
    file_unmap(&map);
    scratch_write(scratch_path("empty"), "", 0);
    expect_ok(file_map(scratch_path("empty"), &map, &err));
    ck_assert_ptr_null(map.data);
    ck_assert_uint_eq(map.size, 0);
    file_unmap(&map);
}
END_TEST

START_TEST(map_refuses)
{
    FileMap map;
    expect_error(file_map(scratch_path("none"), &map, &err), ONNXPRESS_IO, "No such file");
    expect_error(file_map(scratch, &map, &err), ONNXPRESS_IO, "is a folder");
    expect_error(file_map("/dev/null", &map, &err), ONNXPRESS_IO, "not a regular file");
    ck_assert_int_eq(mkfifo(scratch_path("fifo"), 0600), 0);
    expect_error(file_map(scratch_path("fifo"), &map, &err), ONNXPRESS_IO, "not a regular file");
}
END_TEST

START_TEST(write_replaces_whole)
{
    const char *path = scratch_path("out");
    FileWriter *writer;
    struct stat info;
    scratch_write(path, "old", 3);
    umask(027);
    expect_ok(file_create(path, &writer, &err));
    ck_assert_int_eq(scratch_count(), 2);
    for (int i = 0; i < 300000 && !err.code; i++) /* more than the buffer holds */
        file_write(writer, "abc", 3, &err);
    expect_ok((int)err.code);
    expect_content(path, "old");
    expect_ok(file_prepare(writer, &err));
    expect_content(path, "old");
    expect_ok(file_commit(writer, &err));
    size_t bytes;
    char *data = scratch_read(path, &bytes);
    ck_assert_uint_eq(bytes, 900000);
    size_t right = 0;
    for (size_t i = 0; i < bytes; i++)
        right += data[i] == "abc"[i % 3];
    ck_assert_uint_eq(right, bytes);
    free(data);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0640);
    ck_assert_int_eq(scratch_count(), 1);
}
END_TEST

START_TEST(write_in_one_large_piece)
{
    size_t bytes = (size_t)3 << 20;
    char *data = malloc(bytes + 1);
    memset(data, 'x', bytes);
    data[bytes] = '\0';
    FileWriter *writer;
    expect_ok(file_create(scratch_path("out"), &writer, &err));
    expect_ok(file_write(writer, "head", 4, &err));
    expect_ok(file_write(writer, data, bytes, &err));
    expect_ok(file_write(writer, NULL, 0, &err));
    expect_ok(file_write(writer, "tail", 4, &err));
    expect_ok(file_commit(writer, &err));
    size_t got;
    char *back = scratch_read(scratch_path("out"), &got);
    ck_assert_uint_eq(got, bytes + 8);
    ck_assert_mem_eq(back, "head", 4);
    ck_assert_mem_eq(back + 4, data, bytes);
    ck_assert_str_eq(back + 4 + bytes, "tail");
    free(back);
    free(data);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
    FileWriter *writer;
    scratch_write(scratch_path("out"), "old", 3);
    expect_ok(file_create(scratch_path("out"), &writer, &err));
    expect_ok(file_write(writer, "new", 3, &err));
    file_abort(writer);
    expect_ok(file_create(scratch_path("out"), &writer, &err));
    expect_ok(file_prepare(writer, &err));
    file_abort(writer);
    file_abort(NULL);
    expect_content(scratch_path("out"), "old");
    ck_assert_int_eq(scratch_count(), 1);
}
END_TEST

START_TEST(create_refuses)
{
    FileWriter *writer;
    expect_error(file_create(scratch, &writer, &err), ONNXPRESS_IO, "is a folder");
    expect_error(file_create(scratch_path("new/"), &writer, &err), ONNXPRESS_IO, "is a folder");
    expect_error(file_create("", &writer, &err), ONNXPRESS_IO, "is a folder");
    expect_error(file_create(scratch_path("no/x"), &writer, &err), ONNXPRESS_IO, "No such file");
    expect_error(file_create("/dev/full", &writer, &err), ONNXPRESS_IO, "not a regular file");
    scratch_write(scratch_path("file"), "", 0);
    expect_error(file_create(scratch_path("file/x"), &writer, &err), ONNXPRESS_IO, "Not a dir");
    ck_assert_ptr_null(writer);
    ck_assert_int_eq(mkdir(scratch_path("locked"), 0500), 0);
    if (geteuid() != 0) /* nothing is locked for root */
        expect_error(file_create(scratch_path("locked/x"), &writer, &err), ONNXPRESS_IO, "denied");
    expect_error(file_create("/proc/x", &writer, &err), ONNXPRESS_IO, "/proc/x: cannot be written");
    /* A long name, which the temporary one must not exceed. */
    char name[250];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    expect_ok(file_create(scratch_path("%.199s", name), &writer, &err));
    expect_ok(file_commit(writer, &err));
}
END_TEST

/* The system's own limit stands in for a full disk: both come back from write. */
START_TEST(a_full_disk_is_said)
{
    FileWriter *writer;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {1 << 20, 1 << 20};
    scratch_write(scratch_path("out"), "old", 3);
    expect_ok(file_create(scratch_path("out"), &writer, &err));
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    static char piece[4096];
    int status = 0;
    for (int i = 0; i < 1000 && !status; i++)
        status = file_write(writer, piece, sizeof piece, &err);
    expect_error(status, ONNXPRESS_IO, "out: cannot be written: File too large");
    file_abort(writer);
    expect_content(scratch_path("out"), "old");

    /* What is still in the buffer fails as late as in commit, and still leaves all as it was. */
    expect_ok(file_create(scratch_path("out"), &writer, &err));
    for (int i = 0; i < 257; i++)
        expect_ok(file_write(writer, piece, sizeof piece, &err));
    expect_error(file_commit(writer, &err), ONNXPRESS_IO, "File too large");
    expect_content(scratch_path("out"), "old");
    ck_assert_int_eq(scratch_count(), 1);
}
END_TEST

START_TEST(a_signal_removes_temporaries)
{
    FileWriter *a, *b, *done;
    scratch_write(scratch_path("a"), "old", 3);
    expect_ok(file_create(scratch_path("a"), &a, &err));
    expect_ok(file_create(scratch_path("b"), &b, &err));
    expect_ok(file_create(scratch_path("done"), &done, &err));
    expect_ok(file_prepare(b, &err));
    expect_ok(file_commit(done, &err));
    ck_assert_int_eq(scratch_count(), 4);
    file_remove_temporaries();
    ck_assert_int_eq(scratch_count(), 2);
    expect_content(scratch_path("a"), "old");
    expect_content(scratch_path("done"), "");
    expect_error(file_commit(b, &err), ONNXPRESS_IO, "cannot be put in place");
    file_abort(a);
    ck_assert_int_eq(scratch_count(), 2);
}
END_TEST

START_TEST(attached_files_appear_together)
{
    FileWriter *main_file, *side;
    expect_ok(file_create(scratch_path("m"), &main_file, &err));
    expect_ok(file_create(scratch_path("m.data"), &side, &err));
    file_attach(main_file, side);
    expect_ok(file_write(side, "side", 4, &err));
    expect_ok(file_write(main_file, "main", 4, &err));
    expect_ok(file_commit(main_file, &err));
    expect_content(scratch_path("m"), "main");
    expect_content(scratch_path("m.data"), "side");

    /* The main file's rename fails: the new side file goes too, one that was there stays. */
    for (int existed = 0; existed < 2; existed++) {
        const char *path = scratch_path("n.data%d", existed),
                   *blocked = scratch_path("n%d", existed);
        if (existed)
            scratch_write(path, "old", 3);
        expect_ok(file_create(blocked, &main_file, &err));
        expect_ok(file_create(path, &side, &err));
        file_attach(main_file, side);
        ck_assert_int_eq(mkdir(blocked, 0700), 0);
        expect_error(file_commit(main_file, &err), ONNXPRESS_IO, "cannot be put in place");
        ck_assert_int_eq(access(path, F_OK), existed ? 0 : -1);
    }
    expect_ok(file_create(scratch_path("p"), &main_file, &err));
    expect_ok(file_create(scratch_path("p.data"), &side, &err));
    file_attach(main_file, side);
    file_abort(main_file);
    ck_assert_int_eq(scratch_count(), 5); /* m, m.data, n0, n1, n.data1 */
}
END_TEST

START_TEST(writers_are_limited_and_given_back)
{
    FileWriter *writers[64];
    for (int round = 0; round < 3; round++) {
        int n = 0, status = 0;
        while (n < 64 && !(status = file_create(scratch_path("f%d", n), &writers[n], &err)))
            n++;
        ck_assert_int_ge(n, 16);
        expect_error(status, ONNXPRESS_MEMORY, "are being written");
        for (int i = 0; i < n; i++) /* by either way out */
            if (i % 2)
                file_abort(writers[i]);
            else
                expect_ok(file_commit(writers[i], &err));
    }
    ck_assert_int_eq(scratch_count(), 16); /* what was committed */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    ADD(suite, "file", map_reads_a_file, map_refuses, write_replaces_whole,
        write_in_one_large_piece, abort_leaves_nothing, create_refuses, a_full_disk_is_said,
        a_signal_removes_temporaries, attached_files_appear_together,
        writers_are_limited_and_given_back);
    return run_suite(suite);
}
