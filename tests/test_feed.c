/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autodiff/feed.h"
#include "tensor/npy.h"
#include "tiny_model.h"

/* A model that passes its inputs on, and arrays for them. */
typedef struct {
    Tiny *tiny;
    Model *model;
    Program *program;
    char path[40];
    Dataset *dataset;
    Feed *feed;
    FeedStore *store;
    FeedOptions options;
    Value values[4];
    Error err;
    int status; /* of feed_create */
} Case;

typedef struct {
    const char *name;
    int dtype;
    const char *shape;
} Input;

static void case_open(Case *c, const Input *inputs, int n, const Tensor *arrays, size_t n_arrays)
{
    c->tiny = tiny_create(17);
    for (int k = 0; k < n; k++) {
        char cast[16];
        snprintf(cast, sizeof cast, "c%d", k);
        tiny_input(c->tiny, inputs[k].name, inputs[k].dtype, inputs[k].shape);
        tiny_node(c->tiny, "Cast", inputs[k].name, cast, "to=1");
        tiny_output(c->tiny, cast);
    }
    c->model = tiny_load(c->tiny);
    ck_assert_msg(!program_build(c->model, &c->program, &c->err), "%s", c->err.message);
    snprintf(c->path, sizeof c->path, "/tmp/onnxpress_feed_%ld.npz", (long)getpid());
    ck_assert_msg(!npz_write(c->path, arrays, n_arrays, &c->err), "%s", c->err.message);
    ck_assert_msg(!dataset_open(c->path, &c->dataset, &c->err), "%s", c->err.message);
    unlink(c->path);
    c->status = feed_create(c->program, c->dataset, &c->options, &c->feed, &c->err);
    c->store = feed_store_create();
}

static void case_close(Case *c)
{
    if (!c->status)
        feed_free(c->feed);
    feed_store_free(c->store);
    dataset_close(c->dataset);
    program_free(c->program);
    model_free(c->model);
    tiny_free(c->tiny);
}

static Tensor array(const char *name, int dtype, Shape shape, const void *data)
{
    Tensor tensor = {.name = name, .dtype = dtype, .shape = shape, .data = data};
    ck_assert(shape_count(&shape, &tensor.count));
    tensor.bytes = (size_t)tensor.count * dtype_bytes(dtype);
    return tensor;
}

static void batch(Case *c, const int64_t *samples, int64_t n)
{
    ck_assert_msg(!c->status, "%s", c->err.message);
    ck_assert_msg(!feed_batch(c->feed, samples, n, c->store, c->values, &c->err), "%s",
                  c->err.message);
}

/* One input, one array; feed_create must refuse with a message that holds `words`. */
static void refused(Input input, Tensor tensor, FeedOptions options, int code, const char *words)
{
    Case c = {.options = options};
    case_open(&c, &input, 1, &tensor, 1);
    ck_assert_int_eq(c.status, code);
    ck_assert_msg(strstr(c.err.message, words) != NULL, "the message is '%s'", c.err.message);
    case_close(&c);
}

static const Input image = {"x", DTYPE_FLOAT, "[-1,2,2]"};
static const float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
static const FeedOptions plain;

START_TEST(samples_are_gathered)
{
    Case c = {0};
    Tensor x = array("x", DTYPE_FLOAT, (Shape){.rank = 3, .dim = {3, 2, 2}}, numbers);
    case_open(&c, &image, 1, &x, 1);
    batch(&c, (const int64_t[]){2, 0}, 2);
    ck_assert_int_eq(feed_samples(c.feed), 3);
    ck_assert(feed_max_batch(c.feed) == INT64_MAX);
    ck_assert_int_eq(c.values[0].count, 8);
    ck_assert_int_eq(c.values[0].shape.dim[0], 2);
    ck_assert_float_eq((float)c.values[0].r[0], 8);
    ck_assert_float_eq((float)c.values[0].r[7], 3);
    batch(&c, (const int64_t[]){1}, 1);
    ck_assert_float_eq((float)c.values[0].r[3], 7);
    ck_assert_int_eq(feed_batch(c.feed, (const int64_t[]){3}, 1, c.store, c.values, &c.err),
                     ONNXPRESS_INTERNAL);
    case_close(&c);
}
END_TEST

START_TEST(bytes_are_scaled)
{
    static const uint8_t bytes[8] = {0, 255, 51, 102, 255, 0, 0, 51};
    Tensor x = array("x", DTYPE_UINT8, (Shape){.rank = 3, .dim = {2, 2, 2}}, bytes);
    Case c = {0};
    case_open(&c, &image, 1, &x, 1);
    batch(&c, (const int64_t[]){0}, 1);
    ck_assert_float_eq_tol((float)c.values[0].r[2], 0.2f, 1e-6f);
    case_close(&c);
    /* by channel, axis 1 */
    Case d = {.options = {.n_mean = 2, .n_std = 2, .mean = {0.5, 0.2}, .std = {0.5, 2}}};
    case_open(&d, &image, 1, &x, 1);
    batch(&d, (const int64_t[]){0, 1}, 2);
    static const float expected[8] = {-1, 1, 0, 0.1f, 1, -1, -0.1f, 0};
    for (int i = 0; i < 8; i++)
        ck_assert_float_eq_tol((float)d.values[0].r[i], expected[i], 1e-6f);
    case_close(&d);
    Case e = {.options = {.scale = 2, .n_mean = 1, .mean = {1}}};
    case_open(&e, &image, 1, &x, 1);
    batch(&e, (const int64_t[]){0}, 1);
    ck_assert_float_eq((float)e.values[0].r[2], 101);
    case_close(&e);
}
END_TEST

START_TEST(types_are_converted)
{
    static const double wide[4] = {0.5, -1, 2, 1e-3};
    static const int64_t whole[4] = {-3, 0, 7, 9};
    Tensor x = array("x", DTYPE_DOUBLE, (Shape){.rank = 3, .dim = {1, 2, 2}}, wide);
    Case c = {0};
    case_open(&c, &image, 1, &x, 1);
    batch(&c, (const int64_t[]){0}, 1);
    ck_assert_float_eq_tol((float)c.values[0].r[3], 1e-3f, 1e-9f);
    case_close(&c);
    Case d = {.options = {.scale = 0.5}};
    x = array("x", DTYPE_INT64, (Shape){.rank = 3, .dim = {1, 2, 2}}, whole);
    case_open(&d, &image, 1, &x, 1);
    batch(&d, (const int64_t[]){0}, 1);
    ck_assert_float_eq((float)d.values[0].r[2], 3.5f);
    case_close(&d);
    /* An integer input is not scaled. */
    Case e = {.options = {.scale = 0.5}};
    case_open(&e, &(Input){"x", DTYPE_INT64, "[-1,2,2]"}, 1, &x, 1);
    batch(&e, (const int64_t[]){0}, 1);
    ck_assert_ptr_null(e.values[0].r);
    ck_assert_int_eq(e.values[0].i[2], 7);
    case_close(&e);
}
END_TEST

START_TEST(inputs_go_by_name)
{
    const Input two[] = {{"a", DTYPE_FLOAT, "[-1,2]"}, {"b", DTYPE_FLOAT, "[-1,2]"}};
    Tensor arrays[] = {array("b", DTYPE_FLOAT, (Shape){.rank = 2, .dim = {2, 2}}, numbers),
                       array("label", DTYPE_FLOAT, (Shape){.rank = 1, .dim = {2}}, numbers),
                       array("a", DTYPE_FLOAT, (Shape){.rank = 2, .dim = {2, 2}}, numbers + 4)};
    Case c = {0};
    case_open(&c, two, 2, arrays, 3);
    batch(&c, (const int64_t[]){1}, 1);
    ck_assert_float_eq((float)c.values[0].r[0], 6);
    ck_assert_float_eq((float)c.values[1].r[0], 2);
    case_close(&c);
    Case d = {0};
    case_open(&d, two, 2, arrays, 2);
    ck_assert_int_eq(d.status, ONNXPRESS_DATA);
    ck_assert_ptr_nonnull(strstr(d.err.message, "no array for input a"));
    case_close(&d);
    /* The only array goes to the only input, whatever its name. */
    Case e = {0};
    case_open(&e, &(Input){"x", DTYPE_FLOAT, "[-1]"}, 1, &arrays[1], 1);
    batch(&e, (const int64_t[]){1}, 1);
    ck_assert_float_eq((float)e.values[0].r[0], 1);
    case_close(&e);
}
END_TEST

START_TEST(batches_are_limited)
{
    Tensor x = array("x", DTYPE_FLOAT, (Shape){.rank = 3, .dim = {3, 2, 2}}, numbers);
    Case c = {0};
    case_open(&c, &(Input){"x", DTYPE_FLOAT, "[2,2,2]"}, 1, &x, 1);
    ck_assert_int_eq(c.status, ONNXPRESS_OK);
    ck_assert_int_eq(feed_max_batch(c.feed), 2);
    case_close(&c);
    /* One rank more than the input: a row is a whole input. */
    Case d = {0};
    case_open(&d, &(Input){"x", DTYPE_FLOAT, "[2,-1]"}, 1, &x, 1);
    batch(&d, (const int64_t[]){1}, 1);
    ck_assert_int_eq(feed_max_batch(d.feed), 1);
    ck_assert_int_eq(d.values[0].shape.rank, 2);
    ck_assert_int_eq(d.values[0].shape.dim[0], 2);
    ck_assert_float_eq((float)d.values[0].r[0], 4);
    ck_assert_int_eq(feed_batch(d.feed, (const int64_t[]){0, 1}, 2, d.store, d.values, &d.err),
                     ONNXPRESS_INTERNAL);
    case_close(&d);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    float bad[12];
    memcpy(bad, numbers, sizeof bad);
    Shape three = {.rank = 3, .dim = {3, 2, 2}}, wide = {.rank = 3, .dim = {2, 2, 3}},
          flat = {.rank = 1, .dim = {12}};
    refused(image, array("x", DTYPE_FLOAT, wide, numbers), plain, ONNXPRESS_DATA,
            "input x expects shape [?,2,2], x has [2,2,3]");
    refused(image, array("x", DTYPE_FLOAT, flat, numbers), plain, ONNXPRESS_DATA, "has [12]");
    refused((Input){"x", DTYPE_FLOAT, "[3,2]"}, array("x", DTYPE_FLOAT, three, numbers), plain,
            ONNXPRESS_DATA, "expects shape [3,2]");
    refused((Input){"x", DTYPE_INT64, "[-1,2,2]"}, array("x", DTYPE_FLOAT, three, numbers), plain,
            ONNXPRESS_DATA, "expects int64, x is of float32");
    bad[9] = NAN;
    refused(image, array("x", DTYPE_FLOAT, three, bad), plain, ONNXPRESS_DATA,
            "sample 2 of x holds a value that is not finite");
    bad[9] = 0;
    bad[4] = -INFINITY;
    refused(image, array("x", DTYPE_FLOAT, three, bad), plain, ONNXPRESS_DATA, "sample 1");
    refused(image, array("x", DTYPE_FLOAT, three, numbers),
            (FeedOptions){.n_mean = 3, .mean = {1, 2, 3}}, ONNXPRESS_USAGE, "2 channels");
    refused(image, array("x", DTYPE_FLOAT, three, numbers), (FeedOptions){.n_std = 1},
            ONNXPRESS_USAGE, "--std");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("feed");
    TCase *feed = tcase_create("feed");
    tcase_add_test(feed, samples_are_gathered);
    tcase_add_test(feed, bytes_are_scaled);
    tcase_add_test(feed, types_are_converted);
    tcase_add_test(feed, inputs_go_by_name);
    tcase_add_test(feed, batches_are_limited);
    tcase_add_test(feed, what_does_not_fit_is_refused);
    suite_add_tcase(suite, feed);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
