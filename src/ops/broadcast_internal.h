/* Drivers of elementwise ops. An op is a macro line (its formulas) and a row.
 *
 * UNARY(name, forward, derivative): name_forward and name_backward of y = forward, with dy/dx =
 * derivative. Formulas use X and Y (a derivative only what the row's `keep` keeps) and P[0..2], the
 * node's parameters (real[ELEMENTWISE_PARAMS], made by the row's read function).
 * BINARY(name, forward, d_a, d_b): broadcasting y = forward of A and B, with its two partial
 * derivatives in A and B: name_forward, name_backward, and name_square for a weight that is
 * broadcast over the samples.
 * UNARY_SECOND(name, second): name_curvature, from name_backward and the second derivative; UNARY_LINES
 * when that is zero. BINARY_CURVATURE(name, d_a, d_b, dd_a, dd_b): name_curvature.
 * UNARY_INTEGER and BINARY_INTEGER take one formula more, for integer tensors, in XI or in A and B;
 * UNARY and BINARY refuse integers.
 */
#ifndef ONNXPRESS_OPS_BROADCAST_INTERNAL_H
#define ONNXPRESS_OPS_BROADCAST_INTERNAL_H

#include "ops/support_internal.h"

#define R(constant) ((real)(constant))
#define ELEMENTWISE_PARAMS 3

typedef struct {
    int64_t n;
    const real *x, *d_y;
    real *y, *d_x;
    const int64_t *xi;
    int64_t *yi;
    const real *p;
    int dtype;
} Unary;

#define X (u.x[e])
#define Y (u.y[e])
#define P (u.p)
#define XI (u.xi[e])

int unary_forward(const OpCall *call, void (*run)(const Unary), void (*integers)(const Unary));
/* False when there is nothing to add. */
bool unary_backward(const OpCall *call, Unary *unary);
/* `second` adds the second derivative times d_y; NULL: it is zero. */
int unary_curvature(const OpCall *call, const real *const *d_out, void (*second)(const Unary));

#define UNARY_RUN(name, FORWARD)                                                                   \
    static void name##_run(const Unary u)                                                          \
    {                                                                                              \
        for (int64_t e = 0; e < u.n; e++)                                                          \
            Y = (real)(FORWARD);                                                                   \
    }
#define UNARY_INTEGER_RUN(name, INTEGER)                                                           \
    static void name##_integers(const Unary u)                                                     \
    {                                                                                              \
        for (int64_t e = 0; e < u.n; e++)                                                          \
            u.yi[e] = integer_wrap(u.dtype, INTEGER);                                              \
    }
#define UNARY_FORWARD_CALL(name, INTEGERS)                                                         \
    static int name##_forward(const OpCall *call)                                                  \
    {                                                                                              \
        return unary_forward(call, name##_run, INTEGERS);                                          \
    }
#define UNARY_BACKWARD_CALL(name, DERIVATIVE)                                                      \
    static int name##_backward(const OpCall *call)                                                 \
    {                                                                                              \
        Unary u;                                                                                   \
        if (unary_backward(call, &u))                                                              \
            for (int64_t e = 0; e < u.n; e++)                                                      \
                u.d_x[e] += u.d_y[e] * (real)(DERIVATIVE);                                         \
        return ONNXPRESS_OK;                                                                       \
    }

#define UNARY(name, FORWARD, DERIVATIVE)                                                           \
    UNARY_RUN(name, FORWARD)                                                                       \
    UNARY_FORWARD_CALL(name, NULL)                                                                 \
    UNARY_BACKWARD_CALL(name, DERIVATIVE)
#define UNARY_CURVATURE_CALL(name, SECOND)                                                         \
    static int name##_curvature(const OpCall *call, const real *const *d_out)                      \
    {                                                                                              \
        return unary_curvature(call, d_out, SECOND);                                               \
    }
#define UNARY_SECOND(name, DERIVATIVE)                                                             \
    static void name##_second(const Unary u)                                                       \
    {                                                                                              \
        for (int64_t e = 0; e < u.n; e++)                                                          \
            u.d_x[e] += u.d_y[e] * (real)(DERIVATIVE);                                             \
    }                                                                                              \
    UNARY_CURVATURE_CALL(name, name##_second)
#define UNARY_LINES(name) UNARY_CURVATURE_CALL(name, NULL)
#define UNARY_INTEGER(name, FORWARD, DERIVATIVE, INTEGER)                                          \
    UNARY_RUN(name, FORWARD)                                                                       \
    UNARY_INTEGER_RUN(name, INTEGER)                                                               \
    UNARY_FORWARD_CALL(name, name##_integers)                                                      \
    UNARY_BACKWARD_CALL(name, DERIVATIVE)
/* Without a derivative. */
#define UNARY_FORWARD(name, FORWARD)                                                               \
    UNARY_RUN(name, FORWARD)                                                                       \
    UNARY_FORWARD_CALL(name, NULL)

/* The inner runs over two broadcast operands, with steps sa and sb of 0, 1 or more. */
typedef struct {
    void (*forward)(int64_t n, real *restrict y, const real *a, int64_t sa, const real *b,
                    int64_t sb);
    /* d += d_y * derivative, d advancing as its operand does */
    void (*derivative[2])(int64_t n, real *restrict d, const real *restrict d_y, const real *a,
                          int64_t sa, const real *b, int64_t sb);
    /* NULL: integers are refused */
    void (*integers)(int64_t n, int64_t *restrict y, int dtype, const int64_t *a, int64_t sa,
                     const int64_t *b, int64_t sb);
} Binary;

int binary_forward(const OpCall *call, const Binary *binary);
int binary_backward(const OpCall *call, const Binary *binary);
int binary_square(const OpCall *call, const Binary *binary, int k, real *acc);

#define A (a[j * sa])
#define B (b[j * sb])

/* The statement for every j, in a loop of its own for the usual steps: those are vectorised. */
#define BROADCAST_LOOP(STATEMENT)                                                                  \
    do {                                                                                           \
        if (step_a == 1 && step_b == 1) {                                                          \
            enum { sa = 1, sb = 1 };                                                               \
            for (int64_t j = 0; j < n; j++)                                                        \
                STATEMENT;                                                                         \
        } else if (step_a == 1 && step_b == 0) {                                                   \
            enum { sa = 1, sb = 0 };                                                               \
            for (int64_t j = 0; j < n; j++)                                                        \
                STATEMENT;                                                                         \
        } else {                                                                                   \
            const int64_t sa = step_a, sb = step_b;                                                \
            for (int64_t j = 0; j < n; j++)                                                        \
                STATEMENT;                                                                         \
            (void)sa, (void)sb;                                                                    \
        }                                                                                          \
    } while (0)

#define BINARY_RUN(name, PARAMETERS, type, STATEMENT)                                              \
    static void name(int64_t n, PARAMETERS, const type *a, int64_t step_a, const type *b,          \
                     int64_t step_b)                                                               \
    {                                                                                              \
        (void)a, (void)b;                                                                          \
        BROADCAST_LOOP(STATEMENT);                                                                 \
    }
#define COMMA ,

#define BINARY_FORWARD_CALL(name)                                                                  \
    static int name##_forward(const OpCall *call)                                                  \
    {                                                                                              \
        return binary_forward(call, &name##_binary);                                               \
    }
#define BINARY_BACKWARD_CALLS(name)                                                                \
    static int name##_backward(const OpCall *call)                                                 \
    {                                                                                              \
        return binary_backward(call, &name##_binary);                                              \
    }                                                                                              \
    static int name##_square(const OpCall *call, int k, real *acc)                                 \
    {                                                                                              \
        return binary_square(call, &name##_binary, k, acc);                                        \
    }
#define BINARY_REAL_RUN(name, FORWARD)                                                             \
    BINARY_RUN(name##_run, real *restrict y, real, y[j] = (real)(FORWARD))
#define BINARY_INTEGER_RUN(name, INTEGER)                                                          \
    BINARY_RUN(name##_integers, int64_t *restrict y COMMA int dtype, int64_t,                      \
               y[j] = integer_wrap(dtype, INTEGER))
#define BINARY_DERIVATIVE_RUNS(name, D_A, D_B)                                                     \
    BINARY_RUN(name##_d_a, real *restrict d COMMA const real *restrict d_y, real,                  \
               d[j * sa] += d_y[j] * (real)(D_A))                                                  \
    BINARY_RUN(name##_d_b, real *restrict d COMMA const real *restrict d_y, real,                  \
               d[j * sb] += d_y[j] * (real)(D_B))

#define BINARY(name, FORWARD, D_A, D_B)                                                            \
    BINARY_REAL_RUN(name, FORWARD)                                                                 \
    BINARY_DERIVATIVE_RUNS(name, D_A, D_B)                                                         \
    static const Binary name##_binary = {name##_run, {name##_d_a, name##_d_b}, NULL};              \
    BINARY_FORWARD_CALL(name)                                                                      \
    BINARY_BACKWARD_CALLS(name)
#define BINARY_INTEGER(name, FORWARD, D_A, D_B, INTEGER)                                           \
    BINARY_REAL_RUN(name, FORWARD)                                                                 \
    BINARY_DERIVATIVE_RUNS(name, D_A, D_B)                                                         \
    BINARY_INTEGER_RUN(name, INTEGER)                                                              \
    static const Binary name##_binary = {name##_run, {name##_d_a, name##_d_b}, name##_integers};   \
    BINARY_FORWARD_CALL(name)                                                                      \
    BINARY_BACKWARD_CALLS(name)
#define BINARY_CURVATURE(name, D_A, D_B, DD_A, DD_B)                                               \
    BINARY_DERIVATIVE_RUNS(name##_squared, (D_A) * (D_A), (D_B) * (D_B))                           \
    BINARY_DERIVATIVE_RUNS(name##_second, DD_A, DD_B)                                              \
    static int name##_curvature(const OpCall *call, const real *const *d_out)                      \
    {                                                                                              \
        static const Binary squared = {NULL, {name##_squared_d_a, name##_squared_d_b}, NULL};      \
        static const Binary second = {NULL, {name##_second_d_a, name##_second_d_b}, NULL};         \
        OpCall first = *call;                                                                      \
        first.d_out = d_out;                                                                       \
        int status = binary_backward(call, &squared);                                              \
        return status ? status : binary_backward(&first, &second);                                 \
    }
/* Without derivatives. */
#define BINARY_FORWARD(name, FORWARD, INTEGER)                                                     \
    BINARY_REAL_RUN(name, FORWARD)                                                                 \
    BINARY_INTEGER_RUN(name, INTEGER)                                                              \
    static const Binary name##_binary = {name##_run, {NULL, NULL}, name##_integers};               \
    BINARY_FORWARD_CALL(name)

#endif
