/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune.h"

#include <math.h>
#include <string.h>

#include "pipeline/report.h"

/* Samples on which an output's meaning and variance are looked up. */
#define KIND_SAMPLES 256
/* The share of the run after which pruning is over, so that what is left can settle. */
#define PRUNE_UNTIL 0.6
#define PRUNE_EVERY 100 /* steps */

static int training_progress(void *context, const FinetuneProgress *progress)
{
    return session_progress(context, "training", (double)progress->step / (double)progress->steps);
}

static int check_options(const OnnxPressOptions *options, Error *err)
{
    if (!options->calibration)
        return error_set(err, ONNXPRESS_USAGE, "give the samples: --calib DATA");
    if (options->epochs < 0 || options->batch < 0 || options->shift < 0 || !(options->rate >= 0) ||
        isinf(options->rate))
        return error_set(err, ONNXPRESS_USAGE,
                         "epochs, batch, rate and shift must not be negative");
    if (!(options->prune >= 0 && options->prune < 1))
        return error_set(err, ONNXPRESS_USAGE,
                         "--prune %g: expected the share of weights to remove, 0 to below 1",
                         options->prune);
    return ONNXPRESS_OK;
}

static FinetuneOptions training_options(Session *session)
{
    const OnnxPressOptions *options = session->options;
    FinetuneOptions training = finetune_defaults();
    training.epochs = options->epochs > 0 ? options->epochs : 3;
    training.batch = options->batch > 0 ? options->batch : 64;
    training.rate = options->rate > 0 ? options->rate : 1e-3;
    training.optimizer = options->sgd ? FINETUNE_SGD : FINETUNE_ADAM;
    training.schedule = FINETUNE_COSINE;
    training.floor = 0;
    training.seed = options->seed;
    training.shift = options->shift;
    training.flip = options->flip != 0;
    if (options->prune > 0) {
        training.prune.every = PRUNE_EVERY;
        training.prune.keep = 1 - options->prune;
        training.prune.from = 0;
        training.prune.to = PRUNE_UNTIL;
    }
    training.threads = session->threads;
    training.memory = options->memory;
    training.checkpoint = options->checkpoint;
    training.progress = options->progress ? training_progress : NULL;
    training.context = session;
    return training;
}

/* Which outputs are what, from the model's own answers. */
static int find_kinds(Session *session, const Data *data, const int64_t *sample)
{
    Answers *answers = NULL;
    EvaluateOptions evaluate = session_evaluate_options(session, "original");
    int64_t n = data->samples < KIND_SAMPLES ? data->samples : KIND_SAMPLES;
    int rc =
        answers_create(session->program, data->feed, sample, n, &evaluate, &answers, session->err);
    if (!rc)
        rc = session_kinds(session, answers);
    answers_free(answers);
    return rc;
}

static int train(Session *session, const Data *data, const int64_t *label, Finetuned *tuned)
{
    int64_t *sample = arena_array(session->arena, (size_t)data->samples, sizeof *sample);
    if (!sample)
        return error_memory(session->err, "the samples");
    for (int64_t i = 0; i < data->samples; i++)
        sample[i] = i;
    int rc = find_kinds(session, data, sample);
    FinetuneOptions training = training_options(session);
    FinetuneTask task = {.model = session->model,
                         .program = session->program,
                         .feed = data->feed,
                         .sample = sample,
                         .n = data->samples,
                         .label = label,
                         .kind = session->kind,
                         .variance = session->variance};
    return rc ? rc : finetune_run(&task, &training, session->arena, tuned, session->err);
}

static int store(Session *session, const Finetuned *tuned, const char *output)
{
    int rc = ONNXPRESS_OK;
    for (int w = 0; w < program_weights(session->program) && !rc; w++) {
        const Weight *weight = program_weight(session->program, w);
        size_t bytes = (size_t)weight->count * sizeof *weight->data;
        if (tuned->weight[w] && memcmp(tuned->weight[w], weight->data, bytes) != 0)
            rc = rewrite_values(session->model, weight->name, tuned->weight[w], weight->count,
                                session->err);
    }
    return rc ? rc : model_save(session->model, output, session->err);
}

OnnxPressStatus onnxpress_finetune(const char *input, const char *output,
                                   const OnnxPressOptions *options, OnnxPressReport **report,
                                   OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session s = {0};
    Data data = {0};
    Finetuned tuned = {0};
    Arena *arena = NULL;
    int64_t *label = NULL;
    if (report)
        *report = NULL;
    int rc = check_options(options, err);
    if (!rc)
        rc = session_open(&s, input, true, options, err);
    if (!rc && program_unsupported(s.program))
        rc = error_set(err, ONNXPRESS_UNSUPPORTED, "%s: %s has no forward rule here", input,
                       program_unsupported(s.program));
    if (!rc)
        rc = session_data(&s, options->calibration, &data);
    if (!rc)
        rc = session_labels(&s, options->labels, &data, &label);
    if (!rc)
        rc = train(&s, &data, label, &tuned);
    if (!rc && report)
        rc = report_create(report, &arena, err);
    if (!rc && report)
        rc = report_fill(*report, arena, &s, NULL, NULL);
    if (!rc && report) {
        int last = training_options(&s).epochs - 1;
        (*report)->output = arena_strdup(arena, output);
        (*report)->calibration_samples = data.samples;
        (*report)->distance.samples = data.samples;
        if (label && tuned.accuracy)
            (*report)->distance.accuracy_small = tuned.accuracy[last];
    }
    if (!rc)
        rc = store(&s, &tuned, output);
    if (rc && report) {
        onnxpress_report_free(*report);
        *report = NULL;
    }
    data_close(&data);
    session_close(&s);
    return (OnnxPressStatus)rc;
}
