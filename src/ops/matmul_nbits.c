/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxruntime's MatMulNBits: a product with a matrix of whole numbers of a few bits, each block of a
 * row with its scale. The matrix has no derivative, what it is multiplied with has. */
#include <cblas.h>

#include "ops/support_internal.h"

#define CHUNK_BYTES ((int64_t)1 << 22) /* of the matrix in reals, at a time */

enum { A, PACKED, SCALES, ZEROS, ORDER, BIAS };

typedef struct {
    int64_t columns, depth; /* the matrix is [columns][depth], Y = A of its transpose */
    int64_t bits, block, blocks, bytes;   /* bytes: of a block */
    int64_t rows, chunk;                  /* of A; of the matrix at a time */
    Shape shape;
} Plan;

/* An input of so many elements that is real or integer. */
static int check_input(const OpCall *call, int k, bool is_real, int64_t count)
{
    int status = is_real ? op_require_real(call, k) : op_require_integer(call, k);
    if (!status && call->in[k]->count != count)
        status = op_error(call, ONNXPRESS_FORMAT, "input %d has %lld elements, not %lld", k,
                          (long long)call->in[k]->count, (long long)count);
    return status;
}

/* Zero points of whole numbers are packed as the matrix is, each row to whole bytes. */
static int64_t zero_row(const Plan *p)
{
    return (p->blocks * p->bits + 7) / 8;
}

static int make_plan(const OpCall *call, Plan *p)
{
    const OpNode *node = call->node;
    *p = (Plan){.columns = attribute_int(node, "N", 0),
                .depth = attribute_int(node, "K", 0),
                .bits = attribute_int(node, "bits", 4),
                .block = attribute_int(node, "block_size", 0)};
    if (p->columns < 1 || p->depth < 1 || p->columns > INT32_MAX || p->depth > INT32_MAX ||
        p->block < 1 || p->block > INT32_MAX || (p->bits != 2 && p->bits != 4 && p->bits != 8) ||
        p->block * p->bits % 8)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "K, N, bits or block_size is not handled");
    if (op_in(call, ORDER))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "input %d is not handled", ORDER);
    p->blocks = (p->depth + p->block - 1) / p->block;
    p->bytes = p->block * p->bits / 8;
    int64_t scales = p->columns * p->blocks, packed;
    int status = op_require_reals(call, 2, 1);
    if (status)
        return status;
    if (!int64_mul(scales, p->bytes, &packed))
        return op_error(call, ONNXPRESS_FORMAT, "the matrix is not possible");
    if ((status = check_input(call, PACKED, false, packed)) ||
        (status = check_input(call, SCALES, true, scales)))
        return status;
    const Value *zeros = op_in(call, ZEROS);
    if (zeros && (status = zeros->r ? check_input(call, ZEROS, true, scales)
                                    : check_input(call, ZEROS, false, p->columns * zero_row(p))))
        return status;
    if (op_in(call, BIAS) && (status = check_input(call, BIAS, true, p->columns)))
        return status;
    p->shape = call->in[A]->shape;
    if (p->shape.rank < 1 || p->shape.dim[p->shape.rank - 1] != p->depth)
        return op_error(call, ONNXPRESS_FORMAT, "rows of A are not of %lld numbers",
                        (long long)p->depth);
    p->rows = call->in[A]->count / p->depth;
    p->shape.dim[p->shape.rank - 1] = p->columns;
    if (p->rows > INT32_MAX)
        return op_error(call, ONNXPRESS_UNSUPPORTED, "A has too many rows");
    p->chunk = CHUNK_BYTES / (p->depth * (int64_t)sizeof(real)) + 1;
    return ONNXPRESS_OK;
}

static int64_t unpack(const int64_t *bytes, int64_t bits, int64_t k)
{
    int64_t a_byte = 8 / bits;
    return bytes[k / a_byte] >> k % a_byte * bits & ((1 << bits) - 1);
}

/* Row n of the matrix; `square`: of its squares. */
static void matrix_row(const OpCall *call, const Plan *p, int64_t n, bool square, real *row)
{
    const Value *zeros = op_in(call, ZEROS);
    for (int64_t b = 0; b < p->blocks; b++) {
        int64_t at = n * p->blocks + b;
        const int64_t *bytes = call->in[PACKED]->i + at * p->bytes;
        real scale = call->in[SCALES]->r[at], zero = (real)(1 << (p->bits - 1));
        if (zeros)
            zero = zeros->r ? zeros->r[at]
                            : (real)unpack(zeros->i + n * zero_row(p), p->bits, b);
        int64_t left = p->depth - b * p->block, count = left < p->block ? left : p->block;
        for (int64_t k = 0; k < count; k++) {
            real w = ((real)unpack(bytes, p->bits, k) - zero) * scale;
            row[b * p->block + k] = square ? w * w : w;
        }
    }
}

/* For some columns of Y at a time: y gets the product, or d_a what d is worth to A. */
static int products(const OpCall *call, const Plan *p, bool square, real *y, const real *d,
                    real *d_a)
{
    int64_t most = p->chunk < p->columns ? p->chunk : p->columns;
    real *w = op_scratch(call, (size_t)most, (size_t)p->depth * sizeof *w);
    if (!w)
        return ONNXPRESS_MEMORY;
    int depth = (int)p->depth, rows = (int)p->rows, stride = (int)p->columns;
    for (int64_t first = 0; first < p->columns && rows > 0; first += most) {
        int64_t left = p->columns - first;
        int n = (int)(left < most ? left : most);
        for (int64_t k = 0; k < n; k++)
            matrix_row(call, p, first + k, square, w + k * depth);
        if (y)
            REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, depth, 1, call->in[A]->r,
                      depth, w, depth, 0, y + first, stride);
        else
            REAL_GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, depth, n, 1, d + first,
                      stride, w, depth, 1, d_a, depth);
    }
    return ONNXPRESS_OK;
}

static int nbits_forward(const OpCall *call)
{
    Plan p;
    int status = make_plan(call, &p);
    if (status || (status = op_output(call, 0, call->in[A]->dtype, &p.shape)) ||
        (status = products(call, &p, false, call->out[0]->r, NULL, NULL)))
        return status;
    const Value *bias = op_in(call, BIAS);
    for (int64_t e = 0; bias && e < call->out[0]->count; e++)
        call->out[0]->r[e] += bias->r[e % p.columns];
    return ONNXPRESS_OK;
}

static int nbits_add(const OpCall *call, bool square)
{
    Plan p;
    const real *d = call->d_out[0];
    real *d_bias = op_d_in(call, BIAS);
    int status = make_plan(call, &p);
    if (status || !d)
        return status;
    for (int64_t e = 0; d_bias && e < p.rows * p.columns; e++)
        d_bias[e % p.columns] += d[e];
    return call->d_in[A] ? products(call, &p, square, NULL, d, call->d_in[A]) : ONNXPRESS_OK;
}

static int nbits_backward(const OpCall *call)
{
    return nbits_add(call, false);
}

static int nbits_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear */
    return nbits_add(call, true);
}

static int nbits_square(const OpCall *call, int k, real *acc)
{
    return k == BIAS ? square_by_sample(call, 1 << A, k, acc) : ONNXPRESS_UNSUPPORTED;
}

static const OpRow rows[] = {
    {"com.microsoft", "MatMulNBits", 1, OP_KEEP_INPUTS, .forward = nbits_forward,
     .backward = nbits_backward, .square = nbits_square, .curvature = nbits_curvature},
};

const OpFamily op_family_matmul_nbits = {rows, sizeof rows / sizeof rows[0]};
