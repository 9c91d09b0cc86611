/* Runs one op by itself, without a model or an executor: for tests of kernels.
 *
 * The harness implements op_output, op_alias, op_scratch and op_error in place of autodiff/kernel.c
 * (a test that links it must not use the executor). Outputs and scratch start as NaN and nonsense,
 * so that what a kernel forgets to write is seen.
 *
 * A node is text: its type (after "DOMAIN." if it has one), then attributes. A number is an int,
 * with a point a float, a word a string; [..] ints, with a point in it floats, with a letter first
 * strings:
 *                                      "Conv strides=[2,1] auto_pad=SAME_UPPER group=2 alpha=0.5"
 * Inputs are text, separated by spaces; shapes are [a,b,..], [] a scalar, and {..} lists values:
 *   r[2,3]       reals, random in (-2, 2), at least 0.05 away from zero; differentiated
 *   p[2,3]       the same, positive (0.3 to 2)
 *   d[2,3]       the same, all distinct by at least 0.02 (for maxima)
 *   w[2,3]       as r; a weight: the row's square is checked too (samples along axis 0 of output 0)
 *   h[2,3]       as w, if the row has a square; its second-order rule is not checked, since it
 *                leaves out what hidden values of the op do together
 *   c[2]{0,1.5}  reals given, not differentiated;   c{0,1.5} has rank 1
 *   i[2]{1,-1}   int64 given;  i{1,-1} has rank 1;  b[2]{0,1} bool;  b[2,3] random bools
 *   f[2]{1,2}    reals given and differentiated
 *   q[2,3]+[1]   a sequence of tensors of reals, as r; its elements one behind the other, as outputs
 *                that are sequences show theirs
 *   -            an omitted input
 * "$A" to "$Z" in node or inputs are sizes drawn at random from 1 to 4, the same letter the same
 * size. In f64 builds gradients are held against central differences to 1e-6 relative. Example:
 * {"Gemm transB=1", 13, "r[$N,$K] w[$M,$K] w[$M]", 0}, in the list of a CHECK.
 */
#ifndef ONNXPRESS_TESTS_OP_HARNESS_H
#define ONNXPRESS_TESTS_OP_HARNESS_H

#include <check.h>

#include "ops/ops.h"

typedef struct {
    const char *node;
    int opset;
    const char *inputs;
    int outputs; /* 0: one */
    bool by_batch; /* gradients alone: those of OpCall's by_batch */
} OpCase;

/* Forward, backward against central differences, square against single samples, curvature
 * against first and second differences; several draws of
 * sizes and values each. Also: gradients are added, and nothing is read that `keep` does not keep.
 * Fails the current Check test with the case's text. */
void op_check_cases(const OpCase *cases, size_t count);
/* The same of cases that are listed in place. */
#define CHECK(...)                                                                                 \
    do {                                                                                           \
        static const OpCase cases[] = {__VA_ARGS__};                                               \
        op_check_cases(cases, sizeof cases / sizeof cases[0]);                                     \
    } while (0)

/* One forward run; free with op_run_free. Fails the test when the op is not known. */
typedef struct OpRun OpRun;
OpRun *op_run(const char *node, int opset, const char *inputs, int outputs);
void op_run_free(OpRun *run);
int op_run_status(const OpRun *run);
const char *op_run_message(const OpRun *run);
const Value *op_run_output(const OpRun *run, int k);

/* Output 0 has the shape and values written, as in "[2,2]{1,2,3,4}" (to 1e-5); further outputs
 * follow, separated by spaces. */
void op_expect(const char *node, int opset, const char *inputs, const char *outputs);
/* The gradient at input k (an f, r, p, d or w), every output element having gradient 1. */
void op_expect_gradient(const char *node, int opset, const char *inputs, int k,
                        const char *gradient);
/* The op refuses with a message that holds `words`. */
void op_expect_error(const char *node, int opset, const char *inputs, const char *words);

/* The main of a suite of such tests. */
int op_suite(const char *name, const TTest *const *tests, size_t count);
#define OP_SUITE(name, ...)                                                                        \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return op_suite(name, tests, sizeof tests / sizeof tests[0]);                              \
    }

#endif
