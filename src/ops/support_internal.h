/* What kernels of several families need: checks of inputs, typed copies, strided moves.
 *
 * Checks leave their message through op_error; moves cannot fail. All strides are in elements.
 */
#ifndef ONNXPRESS_OPS_SUPPORT_INTERNAL_H
#define ONNXPRESS_OPS_SUPPORT_INTERNAL_H

#include "ops/ops.h"
#include "ops/walk.h"

/* Input k, NULL when it is omitted or beyond the node's list. */
static inline Value *op_in(const OpCall *call, int k)
{
    return k < call->n_in ? call->in[k] : NULL;
}

/* The gradient wanted at input k; NULL: none. */
static inline real *op_d_in(const OpCall *call, int k)
{
    return k < call->n_in ? call->d_in[k] : NULL;
}

static inline size_t value_element(const Value *value)
{
    return dtype_is_real(value->dtype) ? sizeof(real) : sizeof(int64_t);
}

static inline void *value_data(const Value *value)
{
    return dtype_is_real(value->dtype) ? (void *)value->r : (void *)value->i;
}

/* A forward of one output starts with this: inputs 0..needed-1 are there, output 0 is asked for. */
int op_require(const OpCall *call, int needed);
/* The same, and those of inputs 0..most-1 that are there hold reals. */
int op_require_reals(const OpCall *call, int needed, int most);
/* Input k is there and holds reals, or integers and bools. */
int op_require_real(const OpCall *call, int k);
int op_require_integer(const OpCall *call, int k);
/* Inputs a and b hold numbers of the same kind. */
int op_require_alike(const OpCall *call, int a, int b);
/* Input k as a list of int64 (rank 0 or 1, at most `limit` of them). */
int op_list(const OpCall *call, int k, int limit, const int64_t **values, int *n);
/* Marks the axes named in a list, negatives counted from the end; refuses repeats. */
int op_mark_axes(const OpCall *call, const int64_t *axes, int n, int rank, bool *marked);
/* One axis, refused when out of range. */
int op_axis(const OpCall *call, int64_t axis, int rank, int *normal);
/* An error for a read function, which has no call yet. */
#define read_error(node, err, code, ...)                                                           \
    op_error(&(OpCall){.node = (node), .err = (err)}, (code), __VA_ARGS__)

/* A row's `forward` that is a function of the call and one thing more. */
#define OP_FORWARD(name, function, argument)                                                       \
    static int name##_forward(const OpCall *call)                                                  \
    {                                                                                              \
        return function(call, argument);                                                           \
    }

/* A row's `backward` where output 0 holds the elements of input 0, in their order. */
int same_backward(const OpCall *call);
/* A row's `curvature` where every derivative is 0 or 1: what is added for a gradient. */
int curvature_as_backward(const OpCall *call, const real *const *d_out);
/* The same for products of inputs 0 and 1: backward with both squared. */
int curvature_of_product(const OpCall *call, const real *const *d_out);

/* A row's `square` for ops that never mix samples: backward, a sample at a time. Bit k of `data` is
 * set for the inputs that hold samples along axis 0. */
int square_by_sample(const OpCall *call, unsigned data, int k, real *acc);

/* What an integer type keeps of a 64-bit result. */
int64_t integer_wrap(int dtype, int64_t value);

void move_strided(int dtype, const Shape *shape, void *to, const int64_t *to_stride,
                  const void *from, const int64_t *from_stride);
void add_strided(const Shape *shape, real *to, const int64_t *to_stride, const real *from,
                 const int64_t *from_stride);
void add_dense(int64_t n, real *to, const real *from);
static inline real sigmoid_of(real x)
{
    real e = REAL_EXP(-REAL_ABS(x)); /* never overflows */
    return (x >= 0 ? 1 : e) / (1 + e);
}
/* C[m][n] = alpha op(A) op(B) + beta C, rows as long as the ld say. Any size may be 0. */
void matrix_product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, real alpha,
                    const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                    int64_t ldc);
/* Product of dims [first, last). Of a shape without elements it may wrap: don't use it then. */
int64_t dims_product(const Shape *shape, int first, int last);

#endif
