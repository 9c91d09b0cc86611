/* A Check suite whose tests each have a scratch folder and an Error, and what asks about them.
 * Needs _GNU_SOURCE before the first header. Its main: suite_create, ADD, run_suite. */
#ifndef ONNXPRESS_TESTS_SUITE_H
#define ONNXPRESS_TESTS_SUITE_H

#include <check.h>

#include "scratch.h"
#include "tensor/error.h"

static Error err;

static inline void setup(void)
{
    scratch_make();
    err = (Error){0};
}

/* The error of the code, with that text in it; then forgets it. */
static inline void expect_error(int status, OnnxPressStatus code, const char *part)
{
    ck_assert_int_eq(status, (int)code);
    ck_assert_int_eq((int)err.code, (int)code);
    ck_assert_msg(strstr(err.message, part) != NULL, "'%s' lacks '%s'", err.message, part);
    err = (Error){0};
}

static inline void expect_ok(int status)
{
    ck_assert_msg(status == 0, "%s", err.message);
}

static inline void add_case(Suite *suite, const char *name, const TTest *const *tests, size_t n)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, setup, scratch_remove);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < n; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
}

#define ADD(suite, name, ...)                                                                      \
    do {                                                                                           \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        add_case(suite, name, tests, sizeof tests / sizeof tests[0]);                              \
    } while (0)

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
