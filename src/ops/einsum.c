/* SPDX-License-Identifier: Apache-2.0
 *
 * Einsum: sums of products over labelled axes. Every operand is a pointer and a stride for each
 * label (0: it has no such axis), so that one contraction serves forward and the derivatives. */
#include "model/graph.h"
#include "ops/support_internal.h"

#include <cblas.h>
#include <string.h>

enum { MOST = 3 }; /* inputs: the odometer moves four operands */

typedef struct {
    const real *x;
    real *y;
    int64_t stride[TENSOR_MAX_RANK];
} Operand;

typedef struct {
    int n; /* labels, those of the result first */
    int n_out;
    int64_t dim[TENSOR_MAX_RANK];
    Operand in[MOST], out;
} Einsum;

/* The equation's text, as labels: letters, and ellipsis axes as the characters 1, 2, … from the
 * last axis. */
typedef struct {
    int n;
    char label[TENSOR_MAX_RANK];
} Term;

typedef struct {
    int n_terms;
    bool has_result;
    Term term[MOST], result;
    int ellipsis[MOST], result_ellipsis; /* where in the term it stands; -1: nowhere */
} Equation;

static bool read_term(const char **text, const char *end, Term *term, int *ellipsis)
{
    term->n = 0;
    *ellipsis = -1;
    for (; *text < end && **text != ',' && **text != '-'; (*text)++) {
        char c = **text;
        if (c == ' ')
            continue;
        if (c == '.') {
            if (*ellipsis >= 0 || end - *text < 3 || (*text)[1] != '.' || (*text)[2] != '.')
                return false;
            *text += 2;
            *ellipsis = term->n;
            continue;
        }
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter || term->n == TENSOR_MAX_RANK)
            return false;
        term->label[term->n++] = c;
    }
    return true;
}

static bool read_text(const char *text, size_t length, Equation *equation)
{
    const char *end = text + length;
    *equation = (Equation){.result_ellipsis = -1};
    while (equation->n_terms < MOST) {
        int k = equation->n_terms++;
        if (!read_term(&text, end, &equation->term[k], &equation->ellipsis[k]))
            return false;
        if (text == end || *text != ',')
            break;
        text++;
    }
    if (text == end)
        return true;
    if (end - text < 2 || text[0] != '-' || text[1] != '>')
        return false;
    text += 2;
    equation->has_result = true;
    return read_term(&text, end, &equation->result, &equation->result_ellipsis) && text == end;
}

static int read_equation(OpNode *node, Arena *arena, Error *err)
{
    const Onnx__AttributeProto *text = node_attribute(node->proto, "equation");
    Equation *equation = arena_array(arena, 1, sizeof *equation);
    if (!equation)
        return error_memory(err, "a node's parameters");
    node->params = equation;
    if (!text || !text->has_s ||
        !read_text((const char *)text->s.data, text->s.len, equation))
        return read_error(node, err, ONNXPRESS_UNSUPPORTED,
                          "this equation (or one of more than %d inputs) is not handled", MOST);
    if (equation->n_terms != node->n_in)
        return read_error(node, err, ONNXPRESS_FORMAT, "the equation has %d terms for %d inputs",
                          equation->n_terms, node->n_in);
    return ONNXPRESS_OK;
}

/* Puts `extra` axes in the ellipsis' place. */
static bool widen(Term *term, int ellipsis, int extra)
{
    if (extra < 0 || term->n + extra > TENSOR_MAX_RANK || (extra > 0 && ellipsis < 0))
        return false;
    if (extra == 0)
        return true;
    memmove(term->label + ellipsis + extra, term->label + ellipsis, (size_t)(term->n - ellipsis));
    for (int k = 0; k < extra; k++)
        term->label[ellipsis + k] = (char)(extra - k);
    term->n += extra;
    return true;
}

static int find_label(const char *labels, int n, char label)
{
    int k = 0;
    while (k < n && labels[k] != label)
        k++;
    return k;
}

/* Without "->": the ellipsis, then the letters that occur once, in the alphabet's order. */
static bool imply_result(Equation *equation, int widest)
{
    int times[128] = {0};
    for (int k = 0; k < equation->n_terms; k++)
        for (int a = 0; a < equation->term[k].n; a++)
            times[(int)equation->term[k].label[a]]++;
    equation->result.n = 0;
    equation->result_ellipsis = 0;
    for (int c = 'A'; c <= 'z'; c++)
        if (times[c] == 1) {
            if (equation->result.n == TENSOR_MAX_RANK)
                return false;
            equation->result.label[equation->result.n++] = (char)c;
        }
    return widen(&equation->result, 0, widest);
}

/* Axes of an operand as strides by label; a repeated label walks the diagonal. */
static bool place_axes(const Term *term, const Shape *shape, const char *labels, Einsum *sum,
                       int64_t *stride)
{
    int64_t own[TENSOR_MAX_RANK];
    shape_strides(shape, own);
    for (int a = 0; a < term->n; a++) {
        int l = find_label(labels, sum->n, term->label[a]);
        if (shape->dim[a] == sum->dim[l])
            stride[l] = (int64_t)((uint64_t)stride[l] + (uint64_t)own[a]);
        else if (shape->dim[a] != 1)
            return false;
    }
    return true;
}

static int einsum_plan(const OpCall *call, Einsum *sum, Shape *shape)
{
    Equation equation = *(const Equation *)call->node->params;
    char labels[TENSOR_MAX_RANK];
    int widest = 0;
    bool fits = call->n_in == equation.n_terms;
    for (int k = 0; fits && k < equation.n_terms; k++) {
        int extra = call->in[k]->shape.rank - equation.term[k].n;
        fits = widen(&equation.term[k], equation.ellipsis[k], extra);
        widest = extra > widest ? extra : widest;
    }
    if (fits && !equation.has_result)
        fits = imply_result(&equation, widest);
    else if (fits)
        fits = widen(&equation.result, equation.result_ellipsis,
                     equation.result_ellipsis < 0 ? 0 : widest);
    if (!fits)
        return op_error(call, ONNXPRESS_FORMAT, "the equation does not fit the inputs' ranks");
    *sum = (Einsum){.n_out = equation.result.n};
    for (int k = -1; k < equation.n_terms; k++) {
        const Term *term = k < 0 ? &equation.result : &equation.term[k];
        for (int a = 0; a < term->n; a++) {
            int l = find_label(labels, sum->n, term->label[a]);
            if (k < 0 && l < sum->n)
                return op_error(call, ONNXPRESS_FORMAT, "the result has a label twice");
            if (l == TENSOR_MAX_RANK)
                return op_error(call, ONNXPRESS_UNSUPPORTED, "more than %d labels",
                                TENSOR_MAX_RANK);
            if (l == sum->n) {
                labels[sum->n++] = term->label[a];
                sum->dim[l] = k < 0 ? -1 : 1;
            }
            if (k >= 0 && (sum->dim[l] == -1 || sum->dim[l] == 1))
                sum->dim[l] = call->in[k]->shape.dim[a];
        }
    }
    *shape = (Shape){.rank = sum->n_out};
    for (int l = 0; l < sum->n_out; l++) {
        if (sum->dim[l] < 0)
            return op_error(call, ONNXPRESS_FORMAT, "the result has a label that no input has");
        shape->dim[l] = sum->dim[l];
    }
    for (int k = 0; k < equation.n_terms; k++)
        if (!place_axes(&equation.term[k], &call->in[k]->shape, labels, sum, sum->in[k].stride))
            return op_error(call, ONNXPRESS_FORMAT, "input %d's axes differ from another's", k);
    shape_strides(shape, sum->out.stride);
    return ONNXPRESS_OK;
}

/* A label's size when the operand moves along it, else 1. */
static int64_t extent(const Einsum *sum, const Operand *operand, int l)
{
    return operand->stride[l] ? sum->dim[l] : 1;
}

/* A matrix product hidden in a contraction of two operands: rows (first and result), columns (second
 * and result) and the summed label, with strides that BLAS takes. */
typedef struct {
    int row, column, depth;
    bool turn_a, turn_b;
    int lead_a, lead_b, lead_y;
} Product;

/* One of the strides is 1 and the other spans at least `least` elements. */
static bool leading(int64_t row, int64_t column, int64_t rows, int64_t columns, bool *turn,
                    int *lead)
{
    *turn = column != 1;
    int64_t other = *turn ? column : row, least = *turn ? rows : columns;
    if ((*turn ? row : column) != 1 || other < least || other > INT32_MAX)
        return false;
    *lead = (int)other;
    return true;
}

static bool find_product(const Einsum *sum, const Operand *a, const Operand *b, const Operand *y,
                         Product *found)
{
    int64_t best = 1 << 12; /* multiplications that are worth a call */
    bool any = false, turn_y;
    for (int r = 0; r < sum->n; r++)
        for (int c = 0; c < sum->n; c++)
            for (int d = 0; d < sum->n; d++) {
                int64_t m = sum->dim[r], n = sum->dim[c], k = sum->dim[d], size;
                Product p = {.row = r, .column = c, .depth = d};
                if (r == c || c == d || r == d || !a->stride[r] || b->stride[r] || !y->stride[r] ||
                    a->stride[c] || !b->stride[c] || !y->stride[c] || !a->stride[d] ||
                    !b->stride[d] || y->stride[d] || m > INT32_MAX || n > INT32_MAX ||
                    k > INT32_MAX || !int64_mul(m, n, &size) || !int64_mul(size, k, &size) ||
                    size <= best ||
                    !leading(a->stride[r], a->stride[d], m, k, &p.turn_a, &p.lead_a) ||
                    !leading(b->stride[d], b->stride[c], k, n, &p.turn_b, &p.lead_b) ||
                    !leading(y->stride[r], y->stride[c], m, n, &turn_y, &p.lead_y) || turn_y)
                    continue;
                best = size;
                *found = p;
                any = true;
            }
    return any;
}

/* y += sum over all labels of the product of n operands, for labels that any of them has. */
static void contract(const Einsum *sum, int n, const Operand *const *in, const Operand *y)
{
    Shape shape = {.rank = sum->n};
    const int64_t *stride[MOST + 1] = {y->stride};
    Product p;
    const Operand *a = in[0], *b = n > 1 ? in[1] : NULL;
    bool product = false;
    if (n == 2 && !(product = find_product(sum, a, b, y, &p))) {
        a = in[1];
        b = in[0];
        product = find_product(sum, a, b, y, &p);
    }
    for (int l = 0; l < sum->n; l++) {
        bool used = y->stride[l] != 0;
        for (int k = 0; k < n; k++)
            used |= in[k]->stride[l] != 0;
        bool within = product && (l == p.row || l == p.column || l == p.depth);
        shape.dim[l] = used && !within ? sum->dim[l] : 1;
    }
    for (int k = 0; k < n; k++)
        stride[k + 1] = in[k]->stride;
    Walk w;
    if (!walk_start(&w, &shape, n + 1, stride))
        return;
    int first = a == in[0] ? 1 : 2; /* the walk's number of a */
    do
        for (int64_t j = 0; j < w.inner; j++) {
            real *to = y->y + w.offset[0] + j * w.step[0], value = 1;
            if (product) {
                REAL_GEMM(CblasRowMajor, p.turn_a ? CblasTrans : CblasNoTrans,
                          p.turn_b ? CblasTrans : CblasNoTrans, (int)sum->dim[p.row],
                          (int)sum->dim[p.column], (int)sum->dim[p.depth], 1,
                          a->x + w.offset[first] + j * w.step[first], p.lead_a,
                          b->x + w.offset[3 - first] + j * w.step[3 - first], p.lead_b, 1, to,
                          p.lead_y);
                continue;
            }
            for (int k = 0; k < n; k++)
                value *= in[k]->x[w.offset[k + 1] + j * w.step[k + 1]];
            *to += value;
        }
    while (walk_next(&w));
}

static int einsum_forward(const OpCall *call)
{
    Einsum sum;
    Shape shape;
    int status = op_require(call, call->n_in);
    for (int k = 0; !status && k < call->n_in; k++)
        status = op_require_real(call, k);
    if (status || (status = einsum_plan(call, &sum, &shape)) ||
        (status = op_output(call, 0, call->in[0]->dtype, &shape)) || call->out[0]->count == 0)
        return status;
    const Operand *in[MOST];
    sum.out.y = call->out[0]->r;
    memset(sum.out.y, 0, (size_t)call->out[0]->count * sizeof *sum.out.y);
    for (int k = 0; k < call->n_in; k++) {
        sum.in[k].x = call->in[k]->r;
        in[k] = &sum.in[k];
    }
    contract(&sum, call->n_in, in, &sum.out);
    return ONNXPRESS_OK;
}

/* The product of the other inputs, summed over the labels that neither input k nor the result has:
 * what input k is multiplied with. */
static int others_of(const OpCall *call, const Einsum *sum, int k, Operand *others)
{
    const Operand *in[MOST];
    int n = 0;
    Shape shape = {.rank = sum->n};
    int64_t count;
    for (int o = 0; o < call->n_in; o++)
        if (o != k)
            in[n++] = &sum->in[o];
    for (int l = 0; l < sum->n; l++) {
        bool has = false;
        for (int o = 0; o < n; o++)
            has |= in[o]->stride[l] != 0;
        bool stays = has && (sum->out.stride[l] || sum->in[k].stride[l]);
        shape.dim[l] = stays ? sum->dim[l] : 1;
    }
    if (!shape_count(&shape, &count) ||
        !(others->y = op_scratch(call, (size_t)count, sizeof *others->y)))
        return op_error(call, ONNXPRESS_MEMORY, "the derivative is too large");
    memset(others->y, 0, (size_t)count * sizeof *others->y);
    shape_strides(&shape, others->stride);
    for (int l = 0; l < sum->n; l++)
        if (shape.dim[l] == 1)
            others->stride[l] = 0;
    contract(sum, n, in, others);
    others->x = others->y;
    return ONNXPRESS_OK;
}

static int einsum_rule(const OpCall *call, bool squared)
{
    Einsum sum;
    Shape shape;
    if (!call->d_out[0] || call->out[0]->count == 0)
        return ONNXPRESS_OK;
    int status = einsum_plan(call, &sum, &shape);
    for (int k = 0; !status && k < call->n_in; k++)
        sum.in[k].x = call->in[k]->r;
    Operand d_y = sum.out;
    d_y.x = call->d_out[0];
    for (int k = 0; !status && k < call->n_in; k++) {
        if (!call->d_in[k])
            continue;
        Operand others = {0}, d_x = sum.in[k];
        d_x.y = call->d_in[k];
        if (call->n_in > 1 && (status = others_of(call, &sum, k, &others)))
            return status;
        int64_t count = 1;
        for (int l = 0; l < sum.n; l++)
            count *= extent(&sum, &others, l);
        for (int64_t e = 0; squared && others.y && e < count; e++)
            others.y[e] *= others.y[e];
        contract(&sum, call->n_in > 1 ? 2 : 1, (const Operand *const[]){&d_y, &others}, &d_x);
    }
    return status;
}

static int einsum_backward(const OpCall *call)
{
    return einsum_rule(call, false);
}

static int einsum_curvature(const OpCall *call, const real *const *d_out)
{
    (void)d_out; /* linear in each input */
    return einsum_rule(call, true);
}

static const OpRow rows[] = {
    {"", "Einsum", 12, OP_KEEP_INPUTS, .read = read_equation, .forward = einsum_forward,
     .backward = einsum_backward, .curvature = einsum_curvature},
};

const OpFamily op_family_einsum = {rows, sizeof rows / sizeof rows[0]};
