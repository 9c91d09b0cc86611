/* What an output means, and the distillation loss between two answers of it.
 *
 * Logits and probabilities are distributions along the last axis (axis 1 for outputs of rank 4,
 * class maps), Bernoulli outputs one coin an element, values plain numbers. The loss of an output
 * is KL(original ‖ small) in nats, averaged over samples and positions; for values the squared error
 * relative to the output's variance over the data. Its generalised Gauss–Newton matrix is J'HJ; the
 * columns here are the vectors v with sum v v' = H (exact) or E v v' = H (draws), to be sent
 * backwards. No allocation; no failure.
 *
 * H for a row p: logits diag(p) - pp'; probabilities diag(1/p) - 11' (of the KL to q / sum q, so
 * that nothing depends on how well a float32 softmax sums to one); Bernoulli 1 / (p (1 - p));
 * values 1 / variance (of half the squared error). What float32 cannot tell from 0 or 1 counts as
 * certain: its part of H is 0.
 *
 * `n` is the number of samples that the batch holds; the rows of a sample lie together.
 */
#ifndef ONNXPRESS_AUTODIFF_LOSS_H
#define ONNXPRESS_AUTODIFF_LOSS_H

#include "autodiff/autodiff.h"

typedef enum {
    OUTPUT_LOGITS,
    OUTPUT_PROBABILITIES,
    OUTPUT_BERNOULLI,
    OUTPUT_VALUES
} OutputKind;

const char *output_kind_name(OutputKind kind);
bool output_kind_parse(const char *text, OutputKind *kind);
/* Guess from the op that makes the output (Softmax: probabilities; LogSoftmax, and Gemm, MatMul or
 * Add of a [N, C >= 2] output: logits; Sigmoid: Bernoulli; else values). `shape` is a run's. */
OutputKind output_kind_guess(const ProgramOutput *output, const Shape *shape);
/* Whether an answer's rows, of two classes or more, are distributions, whatever ops made them. */
bool output_sums_to_one(const Shape *shape, const real *answer);

/* A sample's output seen as rows of `classes` (1 for Bernoulli and values). */
typedef struct {
    int64_t rows, classes;            /* rows of the whole batch */
    int64_t row_stride, class_stride;
    int64_t inner;                    /* row r starts at (r / inner) * row_stride + r % inner */
} OutputLayout;
OutputLayout output_layout(OutputKind kind, const Shape *shape); /* of a whole batch's output */
/* Where a row begins in the output. */
static inline int64_t row_start(const OutputLayout *layout, int64_t row)
{
    return row / layout->inner * layout->row_stride + row % layout->inner;
}

/* Number of columns of the exact factor: a sample's rows * classes (classes is 1 for Bernoulli and
 * values). Within a row the columns come in order of weight, most often small after the first few;
 * the last one of a distribution is 0. */
int64_t loss_columns(OutputKind kind, const Shape *shape, int64_t n);
/* Column `column` of the exact factor, of every sample of a batch: v of the output's shape.
 * `variance` (one number) is used by values only. The loss is a mean over a sample's rows: columns
 * are scaled so. */
void loss_column(OutputKind kind, const Value *output, int64_t n, double variance, int64_t column,
                 real *v);
/* One random draw for a whole batch: all columns at once, each with a random sign. `seed`, `draw`
 * and the samples' numbers decide the signs, nothing else. */
void loss_draw(OutputKind kind, const Value *output, double variance, uint64_t seed,
               const int64_t *sample, int64_t n, int64_t draw, real *v);

/* Gradients at an output, v of its shape, of the sum over a batch's samples of a loss that is a mean
 * over a sample's rows.
 *
 * Cross-entropy with labels: label[s] is feed sample s's class (of a Bernoulli output, 0 or 1).
 * loss_check_labels first: one row a sample, classes in range (ONNXPRESS_DATA names the sample). */
int loss_check_labels(OutputKind kind, const char *name, const Shape *shape, const int64_t *label,
                      const int64_t *sample, int64_t n, Error *err);
void loss_label_gradient(OutputKind kind, const Value *output, const int64_t *label,
                         const int64_t *sample, int64_t n, real *v);
/* Negative log-likelihood of an answer drawn from what the model itself says (a class, a coin, a
 * normal number), one a row and scaled as loss_draw does: E v v' = H. Keyed as loss_draw. */
void loss_answer_gradient(OutputKind kind, const Value *output, double variance, uint64_t seed,
                          const int64_t *sample, int64_t n, int64_t draw, real *v);
/* KL(original || output), or half the squared error over the variance. */
void loss_distance_gradient(OutputKind kind, const Value *output, double variance, int64_t n,
                            const real *original, real *v);
/* First and diagonal second derivative of the cross-entropy with the labels, or, label NULL, with
 * the model's own answer. `log_softmax`: the logits are made by LogSoftmax, so that the loss is
 * linear in them, and LogSoftmax's own rule makes the second derivative. */
void loss_curvature(OutputKind kind, bool log_softmax, const Value *output, double variance,
                    const int64_t *label, const int64_t *sample, int64_t n, real *d, real *dd);

/* Sums over a batch of what distances and entropies need. */
typedef struct {
    double kl;          /* sum over rows, nats */
    double entropy;     /* of the original's answer, sum over rows, nats */
    double squared;     /* sum of squared differences */
    /* Sums over samples of the squares of a sample's mean KL a row and mean squared difference an
     * element, for the errors of the means: rows of one sample are wrong together. */
    double kl2, squared2;
    double max_error;   /* largest absolute difference */
    double sum, sum2;   /* of the original's elements, for the variance */
    int64_t samples, rows, elements, same_top1; /* same_top1: rows whose largest class agrees (Bernoulli:
                                          the same side of 1/2; values: 0) */
} Distance;
void distance_add(Distance *sum, const Distance *part);
/* A row that is not finite in either answer counts as an infinite KL and error. For values kl and
 * entropy stay 0 otherwise. An output whose rows do not divide by n counts as one sample. */
void loss_distance(OutputKind kind, const Shape *shape, int64_t n, const real *original,
                   const real *small, Distance *add_to);

#endif
