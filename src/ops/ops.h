/* Operators: one row each, in the table of its family's file.
 *
 * A row names the functions that the executor calls; the kernels know tensors, never a loss or a
 * graph. Values that are real (float, double, float16, bfloat16) are computed in `real`; all
 * integers and bools are held as int64 with the ONNX type beside them, since graphs use them for
 * shapes and indices only. Buffers come from the executor through op_output and op_scratch, and are
 * freed by it; a row owns nothing. What can fail: shapes that do not fit, attributes out of range,
 * memory; each leaves a message that names the node (op_error does it).
 * To add an op: a row, its functions, a line in tests/test_ops.c. See README.md here.
 */
#ifndef ONNXPRESS_OPS_OPS_H
#define ONNXPRESS_OPS_OPS_H

#include "model/model.h"
#include "ops/real.h"
#include "tensor/tensor.h"

typedef struct Buffer Buffer; /* the executor's reference-counted storage */

typedef struct {
    int dtype; /* DType; decides which of r and i is set */
    Shape shape;
    int64_t count;
    real *r;     /* real types, else NULL; 64-byte aligned */
    int64_t *i;  /* integers and bool (0 or 1), else NULL */
    Buffer *buffer;
    /* A sequence's tensors, whose elements lie one behind the other in r or i, while `shape` is that
     * of the whole list of numbers. In the buffer too; NULL: the value is a tensor. */
    const Shape *items;
    int64_t n_items;
} Value;

struct OpRow;

/* A node of the program, ready to run. */
typedef struct {
    const struct OpRow *row;
    const Onnx__NodeProto *proto; /* attributes; names for messages */
    int64_t opset;                /* version of the row's domain that the model imports */
    void *params;                 /* made by row->read in the program's arena; NULL without read */
    int n_in, n_out;
} OpNode;

/* One call of a row's function. `in[k]` is NULL for an omitted optional input. */
typedef struct OpCall {
    const OpNode *node;
    int n_in, n_out;
    Value *const *in;
    Value *const *out;       /* forward: to be made with op_output or op_alias; NULL: not wanted */
    const real *const *d_out; /* backward: dL/d(out k); NULL: zero */
    real *const *d_in;        /* backward: dL/d(in k) is ADDED here; NULL: not wanted */
    bool by_batch;            /* batch normalization goes by the statistics of this call's samples */
    void *executor;           /* for op_output, op_alias, op_scratch */
    Error *err;
} OpCall;

/* Which values backward reads besides d_out; the executor frees the others early. */
enum { OP_KEEP_INPUTS = 1, OP_KEEP_OUTPUTS = 2 };

/* A weight as the matrix whose rows are multiplied with the op's inputs: element (r, c) of group g is
 * at (g * rows + r) * row_stride + c * column_stride. */
typedef struct {
    int64_t groups, rows, columns; /* rows of one group */
    int64_t row_stride, column_stride;
} OpMatrix;

typedef struct OpRow {
    const char *domain; /* "" is the default domain */
    const char *type;
    int since; /* the row holds from this version of the domain on, until another row's */
    int keep;  /* OP_KEEP_… */
    /* Reads attributes (and what else never changes) into *params, allocated in `arena`.
     * NULL: the row has no parameters. Version differences end here. */
    int (*read)(OpNode *node, Arena *arena, Error *err);
    /* Makes the outputs. Never NULL. */
    int (*forward)(const OpCall *call);
    /* Adds to the wanted d_in. NULL: the op has no derivative. */
    int (*backward)(const OpCall *call);
    /* For a weight at input k whose samples lie along axis 0 of the op's other tensors: adds to
     * acc[0..count of in k) the sum over samples of the squared gradient of each sample's loss,
     * given d_out of all samples. NULL: the executor runs backward a sample at a time.
     * acc NULL only asks: ONNXPRESS_OK when it can for these shapes and this k, else
     * ONNXPRESS_UNSUPPORTED without a message. */
    int (*square)(const OpCall *call, int k, real *acc);
    /* For a weight at input k that the op multiplies with its other input: how it is a matrix (false:
     * it is none), and the second moments of what it is multiplied with, sum of a a' over samples and
     * positions, added to the lower triangles of acc[groups][columns][columns]. Both or neither. */
    bool (*matrix)(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix);
    int (*moment)(const OpCall *call, int k, real *acc);
    /* Second-order back-propagation of diagonals: call->d_out is d2L/d(out k)2 of every element,
     * d_out[k] the first derivative (NULL: zero); ADDS to call->d_in, the same of the inputs,
     *   sum over outputs of (d out / d in)^2 call->d_out + (d2 out / d in2) d_out,
     * without cross terms. Reads what `keep` keeps. NULL: there is no rule. */
    int (*curvature)(const OpCall *call, const real *const *d_out);
} OpRow;

/* The newest row of (domain, type) whose `since` is at most `opset`; NULL when there is none. */
const OpRow *op_find(const char *domain, const char *type, int64_t opset);
/* All rows, for listings and tests. */
const OpRow *op_row(size_t index, size_t *count);

/* What kernels call (implemented by the executor in autodiff/kernel.c, and by tests/op_harness.c). */
int op_output(const OpCall *call, int k, int dtype, const Shape *shape); /* contents undefined */
int op_sequence(const OpCall *call, int k, int dtype, const Shape *items, int64_t n); /* as above */
int op_alias(const OpCall *call, int k, const Value *source, const Shape *shape); /* shares */
void *op_scratch(const OpCall *call, size_t count, size_t size); /* until the call returns; NULL:
                                                                    out of memory, error is set */
/* Message "NODE (TYPE): …" with the given code; returns the code. */
int op_error(const OpCall *call, OnnxPressStatus code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Attribute readers with defaults, for `read` (implemented in ops/attributes.c). */
int64_t attribute_int(const OpNode *node, const char *name, int64_t fallback);
float attribute_float(const OpNode *node, const char *name, float fallback);
/* A word from the list in attributes.c; any other value reads as "an unknown word". */
const char *attribute_string(const OpNode *node, const char *name, const char *fallback);
/* Number of values, -1 when the attribute is absent; *values points into the message. */
int attribute_ints(const OpNode *node, const char *name, const int64_t **values);
int attribute_floats(const OpNode *node, const char *name, const float **values);

/* The families. Each file defines one table; ops/table.c lists them. */
typedef struct {
    const OpRow *rows;
    size_t count;
} OpFamily;
extern const OpFamily op_family_conv, op_family_gemm, op_family_pool, op_family_normalization,
    op_family_elementwise, op_family_nary, op_family_logic, op_family_activation, op_family_cast,
    op_family_softmax, op_family_reduce, op_family_shape, op_family_move, op_family_pad,
    op_family_index, op_family_constant, op_family_recurrent, op_family_reverse_sequence,
    op_family_control, op_family_scatter, op_family_search, op_family_mask, op_family_einsum,
    op_family_layer_norm, op_family_resize, op_family_conv_transpose, op_family_block,
    op_family_skip_norm, op_family_fused, op_family_fused_matmul, op_family_attention,
    op_family_packed_attention, op_family_lrn, op_family_vector_norm, op_family_rotary,
    op_family_lp_pool, op_family_unpool, op_family_grid_sample, op_family_affine_grid,
    op_family_roi_align,
    op_family_quantize, op_family_quantized, op_family_qlinear, op_family_matmul_nbits,
    op_family_group_query, op_family_sequence,
    op_family_bitwise, op_family_random, op_family_signal, op_family_detect;

#endif
