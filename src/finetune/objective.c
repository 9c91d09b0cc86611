/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#include <string.h>

/* Answers closer to 0 or 1 than this count as this far away, so that logarithms stay finite. */
#define NEAR 1e-12
/* Of the target, where both labels and a teacher speak. */
#define TEACHER_SHARE 0.5

int objective_check(const FinetuneTask *task, Error *err)
{
    if (program_outputs(task->program) < 1)
        return error_set(err, ONNXPRESS_DATA, "%s: has no output to train", task->model->path);
    if (task->label && task->kind[0] != OUTPUT_LOGITS && task->kind[0] != OUTPUT_PROBABILITIES)
        return error_set(err, ONNXPRESS_DATA,
                         "output %s holds %s: labels need logits or probabilities",
                         program_output(task->program, 0)->name, output_kind_name(task->kind[0]));
    for (int64_t i = 0; task->label && i < task->n; i++)
        if (task->label[task->sample[i]] < 0)
            return error_set(err, ONNXPRESS_DATA, "sample %lld has the label %lld: it must be >= 0",
                             (long long)task->sample[i], (long long)task->label[task->sample[i]]);
    return ONNXPRESS_OK;
}

static int64_t largest(const real *x, int64_t classes, int64_t stride)
{
    int64_t best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (x[c * stride] > x[best * stride])
            best = c;
    return best;
}

/* log(sum exp(x - top)) + top, in double: losses are compared over thousands of steps. */
static double log_sum(const real *x, int64_t classes, int64_t stride)
{
    double top = (double)x[largest(x, classes, stride) * stride], sum = 0;
    for (int64_t c = 0; c < classes; c++)
        sum += exp((double)x[c * stride] - top);
    return top + log(sum);
}

static double row_total(const real *q, int64_t classes, int64_t stride)
{
    double total = 0;
    for (int64_t c = 0; c < classes; c++)
        total += (double)q[c * stride];
    return total;
}

/* Where the target distribution of one row comes from. */
typedef struct {
    int64_t label;
    const real *teacher; /* its answer, laid out as the row; NULL: the label is all */
    double normal;       /* of the teacher's: log of the sum of exponentials, or the sum */
} Target;

static double target_of(OutputKind kind, const Target *target, int64_t c, int64_t stride)
{
    double label = c == target->label;
    if (!target->teacher)
        return label;
    double p = (double)target->teacher[c * stride];
    p = kind == OUTPUT_LOGITS ? exp(p - target->normal) : p / target->normal;
    return (1 - TEACHER_SHARE) * label + TEACHER_SHARE * p;
}

/* - sum target log(share) over the classes; d gets its gradient times `weight`. */
static double cross_entropy(OutputKind kind, const real *x, int64_t classes, int64_t stride,
                            const Target *target, double weight, real *d)
{
    bool logits = kind == OUTPUT_LOGITS;
    double normal = logits ? log_sum(x, classes, stride) : row_total(x, classes, stride), loss = 0;
    for (int64_t c = 0; c < classes; c++) {
        double t = target_of(kind, target, c, stride), at = (double)x[c * stride];
        if (logits) {
            loss += t > 0 ? t * (normal - at) : 0;
            d[c * stride] = (real)(weight * (exp(at - normal) - t));
        } else {
            at = at < NEAR ? NEAR : at;
            loss += t > 0 ? t * (log(normal) - log(at)) : 0;
            d[c * stride] = (real)(weight * (1 / normal - t / at));
        }
    }
    return loss;
}

static double distil_logits(const real *p, const real *x, int64_t classes, int64_t stride,
                            double weight, real *d)
{
    double of_p = log_sum(p, classes, stride), of_x = log_sum(x, classes, stride), loss = 0;
    for (int64_t c = 0; c < classes; c++) {
        double log_p = (double)p[c * stride] - of_p, log_x = (double)x[c * stride] - of_x;
        loss += exp(log_p) * (log_p - log_x);
        d[c * stride] = (real)(weight * (exp(log_x) - exp(log_p)));
    }
    return loss;
}

static double distil_probabilities(const real *p, const real *q, int64_t classes, int64_t stride,
                                   double weight, real *d)
{
    double of_p = row_total(p, classes, stride), of_q = row_total(q, classes, stride), loss = 0;
    for (int64_t c = 0; c < classes; c++) {
        double share = (double)p[c * stride] / of_p, other = (double)q[c * stride];
        other = other < NEAR ? NEAR : other;
        if (share > 0)
            loss += share * (log(share) - log(other / of_q));
        d[c * stride] = (real)(weight * (1 / of_q - share / other));
    }
    return loss;
}

static double distil_coin(double p, double q, double weight, real *d)
{
    q = q < NEAR ? NEAR : q > 1 - NEAR ? 1 - NEAR : q;
    *d = (real)(weight * (q - p) / (q * (1 - q)));
    return (p > 0 ? p * log(p / q) : 0) + (p < 1 ? (1 - p) * log((1 - p) / (1 - q)) : 0);
}

static int bad_label(const FinetuneTask *task, int64_t sample, int64_t classes, Error *err)
{
    return error_set(err, ONNXPRESS_DATA,
                     "sample %lld has the label %lld, output %s has %lld classes",
                     (long long)sample, (long long)task->label[sample],
                     program_output(task->program, 0)->name, (long long)classes);
}

static int label_block(const FinetuneTask *task, const Exec *exec, const Exec *teacher,
                       const int64_t *sample, int64_t n, int64_t batch, real *d, Objective *sum,
                       Error *err)
{
    OutputKind kind = task->kind[0];
    const Value *old = teacher ? exec_output(teacher, 0) : NULL, *output = exec_output(exec, 0);
    OutputLayout layout = output_layout(task->kind[0], &output->shape);
    const char *name = program_output(task->program, 0)->name;
    if (layout.rows != n)
        return error_set(err, ONNXPRESS_DATA,
                         "output %s has %lld answers for %lld samples: labels need one each", name,
                         (long long)layout.rows, (long long)n);
    if (old && (!old->r || !shape_equal(&old->shape, &output->shape)))
        return error_set(err, ONNXPRESS_DATA, "output %s and the teacher's have different shapes",
                         name);
    for (int64_t j = 0; j < n; j++) {
        int64_t label = task->label[sample[j]], at = row_start(&layout, j);
        const real *p = old ? old->r + at : NULL;
        if (label < 0 || label >= layout.classes)
            return error_set(
                err, ONNXPRESS_DATA, "sample %lld has the label %lld, output %s has %lld classes",
                (long long)sample[j], (long long)label, name, (long long)layout.classes);
        Target target = {label, p, 1};
        if (p)
            target.normal = kind == OUTPUT_LOGITS ? log_sum(p, layout.classes, layout.class_stride)
                                                  : row_total(p, layout.classes, layout.class_stride);
        sum->loss += cross_entropy(kind, output->r + at, layout.classes, layout.class_stride,
                                   &target, 1 / (double)batch, d + at);
        sum->correct += largest(output->r + at, layout.classes, layout.class_stride) == label;
    }
    return ONNXPRESS_OK;
}

int objective_check_classes(const FinetuneTask *task, const Exec *exec, Error *err)
{
    OutputLayout layout = output_layout(task->kind[0], &exec_output(exec, 0)->shape);
    for (int64_t i = 0; i < task->n; i++) {
        int64_t sample = task->sample[i];
        if (task->label[sample] >= layout.classes)
            return bad_label(task, sample, layout.classes, err);
    }
    return ONNXPRESS_OK;
}

static double distil_output(OutputKind kind, double variance, const Value *old, const Value *now,
                            int64_t n, int64_t batch, real *d)
{
    OutputLayout layout = output_layout(kind, &now->shape);
    double loss = 0;
    if (layout.rows < 1)
        return 0;
    /* A sample's rows share its weight in the mean. */
    double part = (double)n / (double)layout.rows, weight = part / (double)batch;
    for (int64_t row = 0; row < layout.rows; row++) {
        int64_t at = row_start(&layout, row);
        const real *p = old->r + at, *q = now->r + at;
        double apart = (double)*q - (double)*p;
        switch (kind) {
        case OUTPUT_LOGITS:
            loss += distil_logits(p, q, layout.classes, layout.class_stride, weight, d + at);
            break;
        case OUTPUT_PROBABILITIES:
            loss += distil_probabilities(p, q, layout.classes, layout.class_stride, weight, d + at);
            break;
        case OUTPUT_BERNOULLI:
            loss += distil_coin((double)*p, (double)*q, weight, d + at);
            break;
        case OUTPUT_VALUES:
            loss += apart * apart / (2 * variance);
            d[at] = (real)(weight * apart / variance);
            break;
        }
    }
    return loss * part;
}

int objective_block(const FinetuneTask *task, const Exec *exec, const Exec *teacher,
                    const int64_t *sample, int64_t n, int64_t batch, real *const *d_out,
                    Objective *sum, Error *err)
{
    if (task->label)
        return label_block(task, exec, teacher, sample, n, batch, d_out[0], sum, err);
    for (int o = 0; o < program_outputs(task->program); o++) {
        const Value *old = exec_output(teacher, o), *now = exec_output(exec, o);
        if (!d_out[o] || !old->r || !now->r)
            continue;
        if (old->count != now->count)
            return error_set(err, ONNXPRESS_DATA,
                             "output %s changes its shape with the weights: it cannot be distilled",
                             program_output(task->program, o)->name);
        double variance = task->variance && task->variance[o] > 0 ? task->variance[o] : 1;
        sum->loss += distil_output(task->kind[o], variance, old, now, n, batch, d_out[o]);
    }
    return ONNXPRESS_OK;
}
