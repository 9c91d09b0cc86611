/* SPDX-License-Identifier: Apache-2.0
 *
 * Finetune: training of all weights, with gradual pruning, on one page. */
#include <math.h>
#include <string.h>

#include "pipeline/measure.h"
#include "pipeline/pruning.h"
#include "pipeline/report.h"
#include "pipeline/training.h"

/* Samples on which an output's meaning and variance are looked up. */
#define KIND_SAMPLES 256
/* Samples for the importance that pruning goes by: the paper found 1,000 enough. */
#define PRUNE_SAMPLES 1000
/* The share of the run after which pruning is over, so that what is left can settle. */
#define PRUNE_UNTIL 0.6
#define PRUNE_EVERY 100 /* steps */
#define SHORT_RUN 20    /* prunings that a run too short for that has at least */
/* --prune auto: the damage, as a part of that of removing everything. */
#define AUTO_DAMAGE 0.05
#define EPOCHS 3
#define RATE 1e-3

typedef struct {
    Session session, teacher;
    Data data;
    int64_t *sample, *label;
    const float **h; /* of pruning; NULL: not needed */
    uint8_t **mask;  /* of weights that were pruned before; NULL where none were */
    double prune;    /* share to remove */
    Finetuned tuned;
    int64_t norms;
} Run;

static int open_run(Run *run, const char *input, const OnnxPressOptions *options, Error *err)
{
    Session *s = &run->session;
    int rc = options->calibration
                 ? training_check_options(options, err)
                 : error_set(err, ONNXPRESS_USAGE, "give the samples: --calib DATA");
    if (!rc)
        rc = session_open(s, input, SESSION_RESTORE, options, err);
    if (!rc)
        rc = session_can_run(s);
    if (!rc)
        rc = session_data(s, options->calibration, &run->data);
    if (!rc)
        rc = session_labels(s, options->labels, &run->data, &run->label);
    if (rc)
        return rc;
    run->sample = arena_array(s->arena, (size_t)run->data.samples, sizeof *run->sample);
    for (int64_t i = 0; run->sample && i < run->data.samples; i++)
        run->sample[i] = i;
    return run->sample ? ONNXPRESS_OK : error_memory(err, "the samples");
}

static bool same_input(const ProgramInput *a, const ProgramInput *b)
{
    bool same = strcmp(a->name, b->name) == 0 && a->dtype == b->dtype;
    if (!a->shape_known || !b->shape_known)
        return same;
    same &= a->shape.rank == b->shape.rank;
    for (int k = 0; same && k < a->shape.rank; k++)
        same = a->shape.dim[k] == b->shape.dim[k] || a->shape.dim[k] < 0 || b->shape.dim[k] < 0;
    return same;
}

/* Another model in the teacher's place: it is asked what the model is asked. */
static int open_teacher(Run *run)
{
    Session *s = &run->session, *t = &run->teacher;
    const char *path = s->options->teacher;
    if (!path)
        return ONNXPRESS_OK;
    int rc = session_open(t, path, SESSION_RESTORE, s->options, s->err);
    if (!rc)
        rc = session_can_run(t);
    bool same = !rc && program_inputs(t->program) == program_inputs(s->program) &&
                program_outputs(t->program) == program_outputs(s->program);
    for (int k = 0; same && k < program_inputs(s->program); k++)
        same = same_input(program_input(t->program, k), program_input(s->program, k));
    if (!rc && !same)
        rc = error_set(s->err, ONNXPRESS_DATA,
                       "--teacher %s: its inputs and outputs are not those of %s", path,
                       s->model->path);
    return rc;
}

/* Which outputs are what, from the model's own answers. */
static int find_kinds(Run *run)
{
    Session *s = &run->session;
    Answers *answers = NULL;
    EvaluateOptions evaluate = session_evaluate_options(s, "original");
    int64_t n = run->data.samples < KIND_SAMPLES ? run->data.samples : KIND_SAMPLES;
    int rc = answers_create(s->program, run->data.feed, run->sample, n, &evaluate, &answers, s->err);
    if (!rc)
        rc = session_kinds(s, answers);
    answers_free(answers);
    return rc;
}

static int find_importance(Run *run)
{
    Session *s = &run->session;
    const char *name;
    int64_t n = run->data.samples, every = (n + PRUNE_SAMPLES - 1) / PRUNE_SAMPLES, used = 0;
    float **h = arena_array(s->arena, (size_t)program_weights(s->program) + 1, sizeof *h);
    int64_t *sample = arena_array(s->arena, (size_t)n, sizeof *sample);
    if (!h || !sample)
        return error_memory(s->err, "the importance");
    run->h = (const float **)h;
    if (s->options->hessian)
        return hessian_read(s, s->options->hessian, h);
    for (int64_t i = 0; i < n; i += every)
        sample[used++] = i;
    return measure_importance(s, run->data.feed, sample, used, run->label, NULL, h, &name);
}

/* How much is removed, and by what. */
static int plan_pruning(Run *run)
{
    Session *s = &run->session;
    const OnnxPressOptions *options = s->options;
    bool automatic = options->prune == ONNXPRESS_PRUNE_AUTO;
    run->prune = automatic ? 0 : options->prune;
    int rc = automatic || (run->prune > 0 && options->prune_by == ONNXPRESS_PRUNE_DAMAGE)
                 ? find_importance(run)
                 : ONNXPRESS_OK;
    if (rc || !automatic)
        return rc;
    int n = program_weights(s->program);
    const real **w = arena_array(s->arena, (size_t)n + 1, sizeof *w);
    Pruning pruning;
    if (!w)
        return error_memory(s->err, "the weights");
    for (int k = 0; k < n; k++) {
        const Weight *weight = program_weight(s->program, k);
        w[k] = weight->reaches && !weight->steers ? weight->data : NULL;
    }
    rc = pruning_open(s, w, run->h, &pruning);
    return rc ? rc : pruning_auto(s, &pruning, AUTO_DAMAGE, &run->prune);
}

/* Exact zeros among other numbers are what an earlier pruning left: they stay. */
static int keep_zeros(Run *run)
{
    Session *s = &run->session;
    int n = program_weights(s->program);
    run->mask = arena_array(s->arena, (size_t)n + 1, sizeof *run->mask);
    if (!run->mask)
        return error_memory(s->err, "the masks");
    for (int k = 0; k < n; k++) {
        const Weight *weight = program_weight(s->program, k);
        int64_t zeros = 0;
        for (int64_t i = 0; weight->shape.rank >= 2 && i < weight->count; i++)
            zeros += weight->data[i] == 0;
        if (zeros == 0 || zeros == weight->count)
            continue;
        run->mask[k] = arena_array(s->arena, (size_t)weight->count, 1);
        if (!run->mask[k])
            return error_memory(s->err, "the masks");
        for (int64_t i = 0; i < weight->count; i++)
            run->mask[k][i] = weight->data[i] != 0;
    }
    return ONNXPRESS_OK;
}

static int epochs_of(const OnnxPressOptions *options)
{
    return options->epochs > 0 ? options->epochs : EPOCHS;
}

static int train(Run *run)
{
    Session *s = &run->session;
    const OnnxPressOptions *options = s->options;
    FinetuneOptions training = training_options(s, epochs_of(options));
    training.checkpoint = options->checkpoint;
    if (training.rate == 0)
        training.rate = RATE;
    if (run->prune > 0) {
        double steps = ceil((double)run->data.samples / (double)training.batch) * training.epochs;
        double until = options->prune_until > 0 ? options->prune_until : PRUNE_UNTIL;
        double every = fmin(PRUNE_EVERY, ceil(steps * until / SHORT_RUN));
        training.prune = (PruneSchedule){.every = (int64_t)every,
                                         .keep = 1 - run->prune,
                                         .to = until,
                                         .measure = pruning_measure(options),
                                         .scope = pruning_scope(options),
                                         .h = run->h};
    }
    FinetuneTask task = {.model = s->model,
                         .program = s->program,
                         .feed = run->data.feed,
                         .sample = run->sample,
                         .n = run->data.samples,
                         .label = run->label,
                         .teacher = run->teacher.program,
                         .teacher_sha256 =
                             run->teacher.model ? run->teacher.model->sha256 : NULL,
                         .kind = s->kind,
                         .variance = s->variance,
                         .mask = (const uint8_t *const *)run->mask};
    int rc = finetune_run(&task, &training, s->arena, &run->tuned, s->err);
    if (!rc && options->batch_norm)
        rc = training_norms(s, run->data.feed, run->sample, run->data.samples, run->tuned.weight,
                            &run->norms);
    return rc;
}

static int fill_report(const Run *run, const char *output, OnnxPressReport **report)
{
    const Session *s = &run->session;
    Arena *arena;
    OnnxPressReport *r;
    int rc = report_create(&r, &arena, s->err);
    if (rc)
        return rc;
    rc = report_fill(r, arena, s, NULL, NULL);
    if (rc) {
        onnxpress_report_free(r);
        return rc;
    }
    int64_t zeros = 0, total = 0;
    for (int k = 0; k < program_weights(s->program); k++) {
        const Weight *weight = program_weight(s->program, k);
        for (int64_t i = 0; weight->shape.rank >= 2 && i < weight->count; i++)
            zeros += run->tuned.weight[k][i] == 0;
        total += weight->shape.rank >= 2 ? weight->count : 0;
    }
    r->output = arena_strdup(arena, output);
    r->calibration_samples = run->data.samples;
    r->distance.samples = run->data.samples;
    r->pruned = total ? (double)zeros / (double)total : NAN;
    r->norms = run->norms;
    training_report(&run->tuned, epochs_of(s->options), run->data.samples, run->label != NULL,
                    &r->training);
    r->distance.accuracy_small = r->training.last_accuracy;
    *report = r;
    return ONNXPRESS_OK;
}

static int store(Run *run, const char *output)
{
    Session *s = &run->session;
    int rc = ONNXPRESS_OK;
    for (int w = 0; w < program_weights(s->program) && !rc; w++) {
        const Weight *weight = program_weight(s->program, w);
        size_t bytes = (size_t)weight->count * sizeof *weight->data;
        if (run->tuned.weight[w] && memcmp(run->tuned.weight[w], weight->data, bytes) != 0)
            rc = rewrite_values(s->model, weight->name, run->tuned.weight[w], weight->count, s->err);
    }
    return rc ? rc : model_save(s->model, output, s->err);
}

OnnxPressStatus onnxpress_finetune(const char *input, const char *output,
                                   const OnnxPressOptions *options, OnnxPressReport **report,
                                   OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Run run = {0};
    if (report)
        *report = NULL;
    int rc = open_run(&run, input, options, err);
    if (!rc)
        rc = open_teacher(&run);
    if (!rc)
        rc = find_kinds(&run);
    if (!rc)
        rc = plan_pruning(&run);
    if (!rc)
        rc = keep_zeros(&run);
    if (!rc)
        rc = train(&run);
    if (!rc && report)
        rc = fill_report(&run, output, report);
    if (!rc)
        rc = store(&run, output);
    if (rc && report) {
        onnxpress_report_free(*report);
        *report = NULL;
    }
    data_close(&run.data);
    session_close(&run.teacher);
    session_close(&run.session);
    return (OnnxPressStatus)rc;
}
