/* SPDX-License-Identifier: Apache-2.0 */
#include <cblas.h>
#include <string.h>

#include "ops/support_internal.h"

/* C[m][n] = alpha * op(A)[m][k] * op(B)[k][n] + beta * C, row-major; `lda` and `ldb` are the row
 * lengths of A and B as stored. */
/* The squares of n numbers, in scratch. */
static real *squares(const OpCall *call, const real *x, int64_t n)
{
    real *out = op_scratch(call, (size_t)n, sizeof *out);
    for (int64_t i = 0; out && i < n; i++)
        out[i] = x[i] * x[i];
    return out;
}

/* BLAS counts in int. */
static bool fits_blas(int64_t m, int64_t n, int64_t k)
{
    return m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX;
}

typedef struct {
    real alpha, beta;
    bool trans_a, trans_b;
} GemmParams;

static int gemm_read(OpNode *node, Arena *arena, Error *err)
{
    GemmParams *params = arena_array(arena, 1, sizeof *params);
    if (!params)
        return error_memory(err, "a node's parameters");
    params->alpha = (real)attribute_float(node, "alpha", 1);
    params->beta = (real)attribute_float(node, "beta", 1);
    params->trans_a = attribute_int(node, "transA", 0) != 0;
    params->trans_b = attribute_int(node, "transB", 0) != 0;
    node->params = params;
    return ONNXPRESS_OK;
}

typedef struct {
    int64_t m, n, k;
    int64_t c_row, c_column; /* strides of C broadcast to [m][n] */
} GemmShape;

static int gemm_shape(const OpCall *call, GemmShape *s)
{
    const GemmParams *params = call->node->params;
    const Value *a = call->in[0], *b = call->in[1], *c = op_in(call, 2);
    if (a->shape.rank != 2 || b->shape.rank != 2)
        return op_error(call, ONNXPRESS_FORMAT, "A and B have ranks %d and %d, not 2",
                        a->shape.rank, b->shape.rank);
    s->m = a->shape.dim[params->trans_a];
    s->k = a->shape.dim[!params->trans_a];
    s->n = b->shape.dim[!params->trans_b];
    if (b->shape.dim[params->trans_b] != s->k)
        return op_error(call, ONNXPRESS_FORMAT, "A has inner size %lld, B %lld", (long long)s->k,
                        (long long)b->shape.dim[params->trans_b]);
    if (!fits_blas(s->m, s->n, s->k))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "an axis of more than 2^31 elements");
    Shape out = {.rank = 2, .dim = {s->m, s->n}}, joined;
    int64_t stride[TENSOR_MAX_RANK] = {0};
    if (c) {
        if (!shape_broadcast(&c->shape, &out, &joined) || !shape_equal(&joined, &out))
            return op_error(call, ONNXPRESS_FORMAT, "C does not broadcast to [%lld,%lld]",
                            (long long)s->m, (long long)s->n);
        shape_broadcast_strides(&c->shape, &out, stride);
    }
    s->c_row = stride[0];
    s->c_column = stride[1];
    return ONNXPRESS_OK;
}

static int gemm_forward(const OpCall *call)
{
    const GemmParams *params = call->node->params;
    GemmShape s;
    int status = op_require_reals(call, 2, 3);
    if (!status)
        status = gemm_shape(call, &s);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &(Shape){.rank = 2, .dim = {s.m, s.n}});
    if (status)
        return status;
    const Value *a = call->in[0], *b = call->in[1], *c = op_in(call, 2);
    real *y = call->out[0]->r;
    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++)
            y[i * s.n + j] = c ? params->beta * c->r[i * s.c_row + j * s.c_column] : 0;
    matrix_product(params->trans_a, params->trans_b, s.m, s.n, s.k, params->alpha, a->r,
                   a->shape.dim[1], b->r, b->shape.dim[1], 1, y, s.n);
    return ONNXPRESS_OK;
}

static int gemm_backward(const OpCall *call)
{
    const GemmParams *params = call->node->params;
    GemmShape s;
    int status = gemm_shape(call, &s);
    if (status || !call->d_out[0])
        return status;
    const Value *a = call->in[0], *b = call->in[1];
    const real *d = call->d_out[0];
    real *d_a = call->d_in[0], *d_b = call->d_in[1], *d_c = op_d_in(call, 2);
    if (d_a && params->trans_a)
        matrix_product(params->trans_b, true, s.k, s.m, s.n, params->alpha, b->r, b->shape.dim[1],
                       d, s.n, 1, d_a, s.m);
    else if (d_a)
        matrix_product(false, !params->trans_b, s.m, s.k, s.n, params->alpha, d, s.n, b->r,
                       b->shape.dim[1], 1, d_a, s.k);
    if (d_b && params->trans_b)
        matrix_product(true, params->trans_a, s.n, s.k, s.m, params->alpha, d, s.n, a->r,
                       a->shape.dim[1], 1, d_b, s.k);
    else if (d_b)
        matrix_product(!params->trans_a, false, s.k, s.n, s.m, params->alpha, a->r, a->shape.dim[1],
                       d, s.n, 1, d_b, s.n);
    for (int64_t i = 0; d_c && i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++)
            d_c[i * s.c_row + j * s.c_column] += params->beta * d[i * s.n + j];
    return ONNXPRESS_OK;
}

/* A sample is a row of A and of D. (a_k d_n)^2 = a_k^2 d_n^2, so one product of squares sums over
 * all samples; a C that is one number for a whole row sums the row first. */
static int gemm_square(const OpCall *call, int k, real *acc)
{
    const GemmParams *params = call->node->params;
    if (k == 0 || (k == 1 && params->trans_a))
        return ONNXPRESS_UNSUPPORTED;
    if (!acc || !call->d_out[0])
        return ONNXPRESS_OK;
    GemmShape s;
    int status = gemm_shape(call, &s);
    if (status)
        return status;
    const real *d = call->d_out[0];
    if (k == 1) {
        const real *d2 = squares(call, d, s.m * s.n);
        const real *a2 = d2 ? squares(call, call->in[0]->r, s.m * s.k) : NULL;
        if (!a2)
            return ONNXPRESS_MEMORY;
        real alpha2 = params->alpha * params->alpha;
        if (params->trans_b)
            matrix_product(true, false, s.n, s.k, s.m, alpha2, d2, s.n, a2, s.k, 1, acc, s.k);
        else
            matrix_product(true, false, s.k, s.n, s.m, alpha2, a2, s.k, d2, s.n, 1, acc, s.n);
        return ONNXPRESS_OK;
    }
    real beta2 = params->beta * params->beta;
    for (int64_t i = 0; i < s.m; i++) {
        real sum = 0;
        for (int64_t j = 0; j < s.n; j++) {
            real g = d[i * s.n + j];
            sum += g;
            if (s.c_column)
                acc[i * s.c_row + j] += beta2 * g * g;
        }
        if (!s.c_column)
            acc[i * s.c_row] += beta2 * sum * sum;
    }
    return ONNXPRESS_OK;
}

static int gemm_curvature(const OpCall *call, const real *const *d_out)
{
    const GemmParams *params = call->node->params;
    GemmParams squared = *params;
    squared.alpha *= params->alpha;
    squared.beta *= params->beta;
    OpNode node = *call->node;
    node.params = &squared;
    OpCall same = *call;
    same.node = &node;
    return curvature_of_product(&same, d_out);
}

static bool gemm_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    const GemmParams *params = node->params;
    if (k != 1 || weight->rank != 2)
        return false;
    bool by_row = params->trans_b; /* one output's weights lie together */
    *matrix = (OpMatrix){.groups = 1,
                         .rows = weight->dim[!by_row],
                         .columns = weight->dim[by_row],
                         .row_stride = by_row ? weight->dim[1] : 1,
                         .column_stride = by_row ? 1 : weight->dim[1]};
    return true;
}

/* acc += A'A of m rows of k numbers, stored as they are or transposed. */
static void add_moment(bool transposed, int64_t m, int64_t k, const real *a, real *acc)
{
    if (m > 0 && k > 0)
        REAL_SYRK(CblasRowMajor, CblasLower, transposed ? CblasNoTrans : CblasTrans, (int)k, (int)m,
                  1, a, (int)(transposed ? m : k), 1, acc, (int)k);
}

static int gemm_moment(const OpCall *call, int k, real *acc)
{
    const GemmParams *params = call->node->params;
    GemmShape s = {0};
    (void)k;
    int status = gemm_shape(call, &s);
    if (!status)
        add_moment(params->trans_a, s.m, s.k, call->in[0]->r, acc);
    return status;
}

/* MatMul: NumPy's rules. A is [batch…][m][k], B [batch…][k][n]; a vector on either side is a matrix
 * of one row or column whose axis the output lacks. */
typedef struct {
    int64_t m, n, k;
    Shape batch; /* broadcast of both */
    int64_t a_stride[TENSOR_MAX_RANK], b_stride[TENSOR_MAX_RANK];
    Shape out;
    bool flat; /* B has no batch: all rows of A are one matrix */
} MatMulShape;

static int matmul_shape(const OpCall *call, MatMulShape *s)
{
    Shape a = call->in[0]->shape, b = call->in[1]->shape;
    bool row = a.rank == 1, column = b.rank == 1;
    if (a.rank < 1 || b.rank < 1)
        return op_error(call, ONNXPRESS_FORMAT, "a factor is a scalar");
    if (row)
        a = (Shape){.rank = 2, .dim = {1, a.dim[0]}};
    if (column)
        b = (Shape){.rank = 2, .dim = {b.dim[0], 1}};
    s->m = a.dim[a.rank - 2];
    s->k = a.dim[a.rank - 1];
    s->n = b.dim[b.rank - 1];
    if (b.dim[b.rank - 2] != s->k)
        return op_error(call, ONNXPRESS_FORMAT, "inner sizes %lld and %lld differ", (long long)s->k,
                        (long long)b.dim[b.rank - 2]);
    a.rank -= 2;
    b.rank -= 2;
    if (!shape_broadcast(&a, &b, &s->batch))
        return op_error(call, ONNXPRESS_FORMAT, "batch axes do not broadcast");
    shape_broadcast_strides(&a, &s->batch, s->a_stride);
    shape_broadcast_strides(&b, &s->batch, s->b_stride);
    s->flat = b.rank == 0 && a.rank > 0;
    s->out = s->batch;
    if (!row)
        s->out.dim[s->out.rank++] = s->m;
    if (!column)
        s->out.dim[s->out.rank++] = s->n;
    if (s->flat) {
        int64_t rows;
        if (!shape_count(&a, &rows) || !int64_mul(rows, s->m, &s->m))
            return op_error(call, ONNXPRESS_FORMAT, "the output's shape is not possible");
        s->batch.rank = 0;
    }
    if (!fits_blas(s->m, s->n, s->k))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "an axis of more than 2^31 elements");
    return ONNXPRESS_OK;
}

/* One matrix of the batch. */
typedef void MatMulVisit(const MatMulShape *s, const real *a, const real *b, real *y, real *d_a,
                         real *d_b);

static void matmul_each(const MatMulShape *s, const real *a, const real *b, real *y, real *d_a,
                        real *d_b, MatMulVisit *visit)
{
    Walk walk;
    int64_t own[TENSOR_MAX_RANK];
    shape_strides(&s->batch, own);
    if (!walk_start(&walk, &s->batch, 3, (const int64_t *const[]){s->a_stride, s->b_stride, own}))
        return;
    do
        for (int64_t j = 0; j < walk.inner; j++) {
            int64_t at_a = (walk.offset[0] + j * walk.step[0]) * s->m * s->k;
            int64_t at_b = (walk.offset[1] + j * walk.step[1]) * s->k * s->n;
            int64_t at_y = (walk.offset[2] + j * walk.step[2]) * s->m * s->n;
            visit(s, a + at_a, b + at_b, y + at_y, d_a ? d_a + at_a : NULL,
                  d_b ? d_b + at_b : NULL);
        }
    while (walk_next(&walk));
}

static void visit_forward(const MatMulShape *s, const real *a, const real *b, real *y, real *d_a,
                          real *d_b)
{
    (void)d_a, (void)d_b;
    matrix_product(false, false, s->m, s->n, s->k, 1, a, s->k, b, s->n, 0, y, s->n);
}

static void visit_backward(const MatMulShape *s, const real *a, const real *b, real *d, real *d_a,
                           real *d_b)
{
    if (d_a)
        matrix_product(false, true, s->m, s->k, s->n, 1, d, s->n, b, s->n, 1, d_a, s->k);
    if (d_b)
        matrix_product(true, false, s->k, s->n, s->m, 1, a, s->k, d, s->n, 1, d_b, s->n);
}

static int matmul_forward(const OpCall *call)
{
    MatMulShape s;
    int status = op_require(call, 2);
    for (int k = 0; !status && k < 2; k++)
        status = op_require_real(call, k);
    if (!status)
        status = matmul_shape(call, &s);
    if (!status)
        status = op_output(call, 0, call->in[0]->dtype, &s.out);
    if (status)
        return status;
    if (s.k == 0) /* BLAS need not write the output of an empty sum */
        memset(call->out[0]->r, 0, (size_t)call->out[0]->count * sizeof(real));
    matmul_each(&s, call->in[0]->r, call->in[1]->r, call->out[0]->r, NULL, NULL, visit_forward);
    return ONNXPRESS_OK;
}

static int matmul_backward(const OpCall *call)
{
    MatMulShape s;
    int status = matmul_shape(call, &s);
    if (status || !call->d_out[0])
        return status;
    /* The visitor's third matrix is read only here. */
    matmul_each(&s, call->in[0]->r, call->in[1]->r, (real *)(uintptr_t)call->d_out[0],
                call->d_in[0], call->d_in[1], visit_backward);
    return ONNXPRESS_OK;
}

/* The other factor carries the samples along its axis 0, which must be axis 0 of the output too and
 * none of the weight's own: either the rows of a plain product (one product of squares), or the
 * first batch axis (one sample's gradient at a time). */
static int matmul_square(const OpCall *call, int k, real *acc)
{
    const Value *weight = call->in[k], *data = call->in[1 - k];
    MatMulShape s;
    OpCall quiet = *call;
    Error ignored = {0};
    quiet.err = &ignored;
    if (matmul_shape(&quiet, &s) != ONNXPRESS_OK)
        return ONNXPRESS_UNSUPPORTED;
    bool rows = k == 1 && data->shape.rank == 2 && weight->shape.rank <= 2;
    bool batch = data->shape.rank > 2 && weight->shape.rank < data->shape.rank;
    if (!rows && !batch)
        return ONNXPRESS_UNSUPPORTED;
    if (!acc || !call->d_out[0])
        return ONNXPRESS_OK;
    if (rows) {
        const real *d2 = squares(call, call->d_out[0], s.m * s.n);
        const real *a2 = d2 ? squares(call, data->r, s.m * s.k) : NULL;
        if (!a2)
            return ONNXPRESS_MEMORY;
        matrix_product(true, false, s.k, s.n, s.m, 1, a2, s.k, d2, s.n, 1, acc, s.n);
        return ONNXPRESS_OK;
    }
    int64_t samples = data->shape.dim[0];
    real *g = op_scratch(call, (size_t)weight->count, sizeof *g);
    if (!g)
        return ONNXPRESS_MEMORY;
    if (samples < 1)
        return ONNXPRESS_OK;
    Value one = *data;
    one.count = data->count / samples;
    one.shape.dim[0] = 1;
    Value *in[2];
    in[k] = (Value *)(uintptr_t)weight;
    in[1 - k] = &one;
    quiet.in = in;
    if (matmul_shape(&quiet, &s) != ONNXPRESS_OK)
        return ONNXPRESS_UNSUPPORTED;
    int64_t d_count;
    if (!shape_count(&s.out, &d_count))
        return ONNXPRESS_UNSUPPORTED;
    for (int64_t n = 0; n < samples; n++) {
        memset(g, 0, (size_t)weight->count * sizeof *g);
        one.r = data->r + n * one.count;
        matmul_each(&s, in[0]->r, in[1]->r, (real *)(uintptr_t)call->d_out[0] + n * d_count,
                    k == 0 ? g : NULL, k == 1 ? g : NULL, visit_backward);
        for (int64_t i = 0; i < weight->count; i++)
            acc[i] += g[i] * g[i];
    }
    return ONNXPRESS_OK;
}

static bool matmul_matrix(const OpNode *node, int k, const Shape *weight, OpMatrix *matrix)
{
    (void)node;
    if (k != 1 || weight->rank != 2)
        return false;
    *matrix = (OpMatrix){.groups = 1,
                         .rows = weight->dim[1],
                         .columns = weight->dim[0],
                         .row_stride = 1,
                         .column_stride = weight->dim[1]};
    return true;
}

static int matmul_moment(const OpCall *call, int k, real *acc)
{
    MatMulShape s = {0};
    (void)k;
    int status = matmul_shape(call, &s);
    if (!status)
        add_moment(false, s.k ? call->in[0]->count / s.k : 0, s.k, call->in[0]->r, acc);
    return status;
}

static const OpRow rows[] = {
    {"", "Gemm", 7, OP_KEEP_INPUTS, gemm_read, gemm_forward, gemm_backward, gemm_square,
     gemm_matrix, gemm_moment, .curvature = gemm_curvature},
    {"", "MatMul", 1, OP_KEEP_INPUTS, NULL, matmul_forward, matmul_backward, matmul_square,
     matmul_matrix, matmul_moment, .curvature = curvature_of_product},
};

const OpFamily op_family_gemm = {rows, sizeof rows / sizeof rows[0]};
