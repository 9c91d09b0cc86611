/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/loss_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const char *const kind_names[] = {"logits", "probabilities", "bernoulli", "values"};

const char *output_kind_name(OutputKind kind)
{
    return kind_names[kind];
}

bool output_kind_parse(const char *text, OutputKind *kind)
{
    for (int k = 0; k < 4; k++) {
        if (!strcmp(text, kind_names[k])) {
            *kind = (OutputKind)k;
            return true;
        }
    }
    return false;
}

OutputKind output_kind_guess(const ProgramOutput *output, const Shape *shape)
{
    const char *op = output->made_by;
    if (!strcmp(op, "Softmax"))
        return OUTPUT_PROBABILITIES;
    if (!strcmp(op, "LogSoftmax"))
        return OUTPUT_LOGITS;
    if (!strcmp(op, "Sigmoid"))
        return OUTPUT_BERNOULLI;
    if ((!strcmp(op, "Gemm") || !strcmp(op, "MatMul") || !strcmp(op, "Add")) && shape->rank == 2 &&
        shape->dim[1] >= 2)
        return OUTPUT_LOGITS;
    return OUTPUT_VALUES;
}

bool output_sums_to_one(const Shape *shape, const real *answer)
{
    OutputLayout layout = output_layout(OUTPUT_PROBABILITIES, shape);
    for (int64_t r = 0; r < layout.rows; r++) {
        const real *row = answer + row_start(&layout, r);
        double sum = 0;
        for (int64_t c = 0; c < layout.classes; c++) {
            double p = (double)row[c * layout.class_stride];
            if (!(p >= 0))
                return false;
            sum += p;
        }
        if (!(fabs(sum - 1) < 1e-3))
            return false;
    }
    return layout.rows > 0 && layout.classes >= 2;
}

OutputLayout output_layout(OutputKind kind, const Shape *shape)
{
    OutputLayout layout = {.classes = 1, .row_stride = 1, .class_stride = 1, .inner = 1};
    int64_t count = 1;
    for (int k = 0; k < shape->rank; k++)
        count *= shape->dim[k];
    if (is_distribution(kind) && shape->rank == 4) {
        layout.classes = shape->dim[1];
        layout.inner = layout.class_stride = shape->dim[2] * shape->dim[3];
        layout.row_stride = layout.classes * layout.inner;
    } else if (is_distribution(kind) && shape->rank > 0) {
        layout.classes = layout.row_stride = shape->dim[shape->rank - 1];
    }
    layout.rows = layout.classes > 0 ? count / layout.classes : 0;
    return layout;
}

int64_t loss_columns(OutputKind kind, const Shape *shape, int64_t n)
{
    OutputLayout layout = output_layout(kind, shape);
    return n > 0 ? layout.rows / n * layout.classes : 0;
}

/* ---- one row ---- */

double row_p(const Row *row, int64_t c)
{
    double z = (double)row->z[c * row->stride];
    if (row->is_logits)
        return exp(z - row->shift) * row->factor;
    return z > FLT_MIN ? z * row->factor : 0.0;
}

Row row_open(OutputKind kind, const OutputLayout *layout, const real *z)
{
    Row row = {z, layout->classes, layout->class_stride, kind == OUTPUT_LOGITS, 0, 1};
    if (row.is_logits) {
        row.shift = -INFINITY;
        for (int64_t c = 0; c < row.classes; c++)
            row.shift = fmax(row.shift, (double)z[c * row.stride]);
    }
    double total = 0;
    for (int64_t c = 0; c < row.classes; c++)
        total += row_p(&row, c);
    if (total > 0)
        row.factor = 1 / total;
    return row;
}

/* Whether class a comes before class b when the largest comes first. */
static bool row_before(const Row *row, int64_t a, int64_t b)
{
    real za = row->z[a * row->stride], zb = row->z[b * row->stride];
    return za > zb || (za == zb && a < b);
}

/* Dividing by p takes a vector at the logits to one at the probabilities that the softmax's own
 * derivative takes back: the logits' columns sum to zero. */
static double row_pull(const Row *row, double p, double v)
{
    if (row->is_logits)
        return v;
    return p > FLT_MIN ? v / p : 0.0;
}

/* Column k of the Cholesky factor of diag(p) - pp', the classes taken from the likeliest down. With
 * m the mass of class c = order[k] and all after it, what is left of the matrix is diag(p) - pp'/m,
 * so all that is needed are sums of positive numbers: no digits cancel when the network is sure. */
static void row_column(const Row *row, int64_t k, double scale, real *v)
{
    int64_t pivot = -1;
    for (int64_t step = 0; step <= k; step++) {
        int64_t next = -1;
        for (int64_t c = 0; c < row->classes; c++) {
            if ((pivot < 0 || row_before(row, pivot, c)) && (next < 0 || row_before(row, c, next)))
                next = c;
        }
        pivot = next;
    }
    double p = row_p(row, pivot), rest = 0;
    for (int64_t c = 0; c < row->classes; c++)
        rest += row_before(row, pivot, c) ? row_p(row, c) : 0.0;
    if (p <= 0 || rest <= 0)
        return;
    double mass = p + rest, along = sqrt(p / mass / rest);
    v[pivot * row->stride] = (real)(scale * row_pull(row, p, sqrt(p * (rest / mass))));
    for (int64_t c = 0; c < row->classes; c++) {
        if (row_before(row, pivot, c)) {
            double pc = row_p(row, c);
            v[c * row->stride] = (real)(scale * row_pull(row, pc, -pc * along));
        }
    }
}

/* Square root of a diagonal H's element. */
static double element_root(OutputKind kind, real z, double variance)
{
    if (kind == OUTPUT_VALUES)
        return variance > 0 ? 1 / sqrt(variance) : 1.0;
    double p = (double)z;
    return p > FLT_MIN && p < 1 ? 1 / sqrt(p * (1 - p)) : 0.0;
}

void loss_column(OutputKind kind, const Value *output, int64_t n, double variance, int64_t column,
                 real *v)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    memset(v, 0, sizeof *v * (size_t)output->count);
    if (n <= 0 || layout.rows <= 0)
        return;
    int64_t rows = layout.rows / n, k = column % layout.classes;
    double scale = 1 / sqrt((double)rows);
    for (int64_t s = 0; s < n; s++) {
        int64_t start = row_start(&layout, s * rows + column / layout.classes);
        if (is_distribution(kind)) {
            Row row = row_open(kind, &layout, output->r + start);
            row_column(&row, k, scale, v + start);
        } else {
            v[start] = (real)(scale * element_root(kind, output->r[start], variance));
        }
    }
}

/* ---- draws ---- */

/* diag(sqrt(p)) s - p (sqrt(p)' s): the sum of all columns sqrt(p_c) (e_c - p), each with a sign. A
 * class drawn from p would do too, but is the likeliest class nearly always where the network is
 * sure, and then says nothing about the others. */
static void row_draw(const Row *row, uint64_t key, double scale, real *v)
{
    double along = 0;
    for (int64_t c = 0; c < row->classes; c++)
        along += sign_of(key, c) * sqrt(row_p(row, c));
    for (int64_t c = 0; c < row->classes; c++) {
        double p = row_p(row, c), root = sqrt(p);
        v[c * row->stride] =
            (real)(scale * row_pull(row, p, root * (sign_of(key, c) - root * along)));
    }
}

void loss_draw(OutputKind kind, const Value *output, double variance, uint64_t seed,
               const int64_t *sample, int64_t n, int64_t draw, real *v)
{
    OutputLayout layout = output_layout(kind, &output->shape);
    memset(v, 0, sizeof *v * (size_t)output->count);
    if (n <= 0 || layout.rows <= 0)
        return;
    int64_t rows = layout.rows / n;
    double scale = 1 / sqrt((double)rows);
    for (int64_t s = 0; s < n; s++) {
        uint64_t key =
            hash_step(hash_step(hash_step(0, seed), (uint64_t)sample[s]), (uint64_t)draw);
        for (int64_t r = 0; r < rows; r++) {
            int64_t start = row_start(&layout, s * rows + r);
            if (is_distribution(kind)) {
                Row row = row_open(kind, &layout, output->r + start);
                row_draw(&row, hash_step(key, (uint64_t)r), scale, v + start);
            } else {
                double root = element_root(kind, output->r[start], variance);
                v[start] = (real)(scale * sign_of(key, r) * root);
            }
        }
    }
}

/* ---- distance ---- */

/* Next to 1 a float32 has 24 bits: what it rounds to 1 is on average this far from it. */
#define BERNOULLI_REST 0x1p-26

static double log_ratio(double p, double q)
{
    return p > 0 ? p * log(p / q) : 0.0;
}

static void coin_distance(double p, double q, Distance *d)
{
    double rest = p < 1 ? 1 - p : 0.0;
    d->entropy -= log_ratio(p, 1) + log_ratio(rest, 1);
    d->kl +=
        fmax(0.0, log_ratio(p, fmax(q, FLT_MIN)) + log_ratio(rest, fmax(1 - q, BERNOULLI_REST)));
    d->same_top1 += (p > 0.5) == (q > 0.5);
}

static void row_distance(OutputKind kind, const OutputLayout *layout, const real *original,
                         const real *small, Distance *d)
{
    Row a = row_open(kind, layout, original), b = row_open(kind, layout, small);
    double log_a = log(a.factor), log_b = log(b.factor), kl = 0;
    int64_t top_a = 0, top_b = 0;
    for (int64_t c = 0; c < a.classes; c++) {
        double p = row_p(&a, c);
        top_a = row_before(&a, c, top_a) ? c : top_a;
        top_b = row_before(&b, c, top_b) ? c : top_b;
        if (p <= 0)
            continue;
        double za = (double)original[c * a.stride], zb = (double)small[c * b.stride];
        double log_p = a.is_logits ? za - a.shift + log_a : log(za) + log_a;
        double log_q = b.is_logits ? zb - b.shift + log_b : log(fmax(zb, FLT_MIN)) + log_b;
        kl += p * (log_p - log_q);
        d->entropy -= p * log_p;
    }
    d->kl += fmax(0.0, kl);
    d->same_top1 += top_a == top_b;
}

static bool row_finite(const OutputLayout *layout, const real *z)
{
    for (int64_t c = 0; c < layout->classes; c++) {
        if (!isfinite(z[c * layout->class_stride]))
            return false;
    }
    return true;
}

void distance_add(Distance *sum, const Distance *part)
{
    sum->kl += part->kl;
    sum->entropy += part->entropy;
    sum->squared += part->squared;
    sum->kl2 += part->kl2;
    sum->squared2 += part->squared2;
    sum->max_error = fmax(sum->max_error, part->max_error);
    sum->sum += part->sum;
    sum->sum2 += part->sum2;
    sum->samples += part->samples;
    sum->rows += part->rows;
    sum->elements += part->elements;
    sum->same_top1 += part->same_top1;
}

/* Rows [first, end) as one sample. */
static void sample_distance(OutputKind kind, const OutputLayout *layout, int64_t first, int64_t end,
                            const real *original, const real *small, Distance *sum)
{
    Distance d = {.samples = 1, .rows = end - first, .elements = (end - first) * layout->classes};
    for (int64_t r = first; r < end; r++) {
        int64_t start = row_start(layout, r);
        const real *a = original + start, *b = small + start;
        if (!row_finite(layout, a) || !row_finite(layout, b)) {
            d.kl = d.squared = d.max_error = INFINITY;
            continue;
        }
        for (int64_t c = 0; c < layout->classes; c++) {
            double x = (double)a[c * layout->class_stride];
            double error = (double)b[c * layout->class_stride] - x;
            d.squared += error * error;
            d.max_error = fmax(d.max_error, fabs(error));
            d.sum += x;
            d.sum2 += x * x;
        }
        if (is_distribution(kind))
            row_distance(kind, layout, a, b, &d);
        else if (kind == OUTPUT_BERNOULLI)
            coin_distance((double)*a, (double)*b, &d);
    }
    double kl = d.kl / (double)d.rows, squared = d.squared / (double)d.elements;
    d.kl2 = kl * kl;
    d.squared2 = squared * squared;
    distance_add(sum, &d);
}

void loss_distance(OutputKind kind, const Shape *shape, int64_t n, const real *original,
                   const real *small, Distance *add_to)
{
    OutputLayout layout = output_layout(kind, shape);
    int64_t rows = n > 0 && layout.rows % n == 0 ? layout.rows / n : layout.rows;
    for (int64_t first = 0; first < layout.rows; first += rows)
        sample_distance(kind, &layout, first, first + rows, original, small, add_to);
}
