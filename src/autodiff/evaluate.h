/* Evaluate: answers of a model on samples, and how another's differ from them.
 *
 * Answers caches the outputs of one program (with its own weights) on samples sample[0..n) of a
 * feed; the caller frees it with answers_free. Comparisons run in parallel over blocks of a fixed
 * number of samples, and their sums are added in block order: the same numbers for any number of
 * threads. Errors: the executor's; ONNXPRESS_DATA when the first model's output is not finite.
 */
#ifndef ONNXPRESS_AUTODIFF_EVALUATE_H
#define ONNXPRESS_AUTODIFF_EVALUATE_H

#include "autodiff/feed.h"
#include "autodiff/loss.h"

typedef struct {
    int threads;   /* >= 1 */
    size_t memory; /* bytes for activations, all threads together; 0: no bound */
    /* As importance.h's. */
    int (*progress)(void *context, double share);
    void *context;
} EvaluateOptions;

typedef struct Answers Answers;

int answers_create(const Program *program, const Feed *feed, const int64_t *sample, int64_t n,
                   const EvaluateOptions *options, Answers **answers, Error *err);
void answers_free(Answers *answers); /* NULL is allowed */
/* The shape of output `output` for the first block, and mean and variance of its elements. */
const Shape *answers_shape(const Answers *answers, int output);
double answers_variance(const Answers *answers, int output);
/* The mean over a sample's elements of their variance from sample to sample; NaN where that cannot be
 * said (one sample, or samples of different size). */
double answers_variation(const Answers *answers, int output);
bool answers_sum_to_one(const Answers *answers, int output); /* every row: output_sums_to_one */
int64_t answers_samples(const Answers *answers);
size_t answers_bytes(const Answers *answers); /* that are kept */
/* Mean entropy a row of output `output` read as `kind`, nats. */
double answers_entropy(const Answers *answers, int output, OutputKind kind);

/* Samples whose largest element of output 0 is their label. */
typedef struct {
    int64_t correct, samples;
} Score;

/* Runs `program` (the same model with replaced weights, or another with the same inputs and
 * outputs; weights NULL: its own) on the samples of `answers` and fills distance[output]. With
 * `label` (one a sample of the feed, else NULL) score[0] is the first model's, score[1] the
 * second's; `n_labels` must be the feed's number of samples. */
int answers_compare(const Answers *answers, const Program *program, const Feed *feed,
                    const real *const *weights, const OutputKind *kind,
                    const EvaluateOptions *options, const int64_t *label, Distance *distance,
                    Score score[2], Error *err);

/* The score of the first model alone. */
Score answers_score(const Answers *answers, const int64_t *label);

#endif
