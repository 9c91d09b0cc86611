/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands that compress nothing: restore, inspect, evaluate, verify. */
#include <math.h>
#include <string.h>

#include "importance/importance.h"
#include "pipeline/report.h"

const char *onnxpress_version(void)
{
    return ONNXPRESS_VERSION;
}

void onnxpress_options_init(OnnxPressOptions *options)
{
    memset(options, 0, sizeof *options);
    options->seed = 1;
}

OnnxPressStatus onnxpress_restore(const char *input, const char *output,
                                  const OnnxPressOptions *options, OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Model *model = NULL;
    RewriteSizes sizes;
    int rc = model_load(input, &model, err);
    if (!rc && !rewrite_is_ours(model, NULL, NULL))
        rc = error_set(err, ONNXPRESS_USAGE, "%s: was not written by onnxpress compress", input);
    if (!rc)
        rc = rewrite_restore(model, err);
    if (!rc)
        rc = rewrite_save(model, output, session_sidecar(options), &sizes, err);
    model_free(model);
    return (OnnxPressStatus)rc;
}

OnnxPressStatus onnxpress_inspect(const char *input, const OnnxPressOptions *options,
                                  OnnxPressReport **report, OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session s = {0};
    RewriteForm form = FORM_PLAIN;
    bool ours = false;
    *report = NULL;
    int rc = session_open(&s, input, SESSION_AS_IS, options, err);
    if (!rc && rewrite_is_ours(s.model, &form, NULL)) {
        ours = true;
        session_close(&s);
        rc = session_open(&s, input, SESSION_RESTORE, options, err);
    }
    if (!rc && program_unsupported(s.program))
        rc = session_warn(&s, "%s has no forward rule here: nothing can be measured",
                          program_unsupported(s.program));
    float **h = rc ? NULL : arena_array(s.arena, (size_t)program_weights(s.program) + 1, sizeof *h);
    if (!rc && !h)
        rc = error_memory(err, "the weights");
    Selection selection;
    Arena *arena = NULL;
    bool nothing = false;
    if (!rc) { /* no importance: what would be coded, and which weights no derivative reaches */
        Error why = {0};
        s.err = &why;
        int selected = select_weights(&s, h, "", &selection);
        s.err = err;
        nothing = selected == ONNXPRESS_UNSUPPORTED;
        if (nothing)
            rc = session_warn(&s, "nothing to compress: %s", why.message);
        else if (selected)
            rc = error_set(err, (OnnxPressStatus)selected, "%s", why.message);
    }
    if (!rc)
        rc = report_create(report, &arena, err);
    if (!rc)
        rc = report_fill(*report, arena, &s, &selection, NULL);
    if (!rc) {
        OnnxPressTensor *tensors = (OnnxPressTensor *)(*report)->tensors;
        for (size_t i = 0; i < (*report)->n_tensors; i++) {
            tensors[i].importance = NAN;
            if (strcmp(tensors[i].treatment, "coded") == 0 &&
                !program_weight(s.program, (int)i)->blocked_by)
                tensors[i].reason = "";
        }
        (*report)->form = ours ? rewrite_form_name(form) : NULL;
    } else {
        onnxpress_report_free(*report);
        *report = NULL;
    }
    session_close(&s);
    return (OnnxPressStatus)rc;
}

/* A session with data on which it has answered: what evaluate and verify share. */
static int open_answered(Session *s, const char *path, const OnnxPressOptions *options, Data *data,
                         int64_t **label, Answers **answers, Error *err)
{
    if (!options->calibration)
        return error_set(err, ONNXPRESS_USAGE, "give the samples: --data DATA");
    int rc = session_open(s, path, SESSION_RESTORE, options, err);
    if (!rc)
        rc = session_can_run(s);
    if (!rc)
        rc = session_data(s, options->calibration, data);
    if (!rc)
        rc = session_labels(s, options->labels, data, label);
    int64_t *sample = rc ? NULL : arena_array(s->arena, (size_t)data->samples, sizeof *sample);
    if (!rc && !sample)
        rc = error_memory(err, "the samples");
    for (int64_t i = 0; i < data->samples && !rc; i++)
        sample[i] = i;
    if (rc)
        return rc;
    EvaluateOptions evaluate = session_evaluate_options(s, "original");
    rc = answers_create(s->program, data->feed, sample, data->samples, &evaluate, answers, err);
    return rc ? rc : session_kinds(s, *answers);
}

OnnxPressStatus onnxpress_evaluate(const char *input, const OnnxPressOptions *options,
                                   OnnxPressDistance *distance, OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session s = {0};
    Data data = {0};
    Answers *answers = NULL;
    int64_t *label = NULL;
    distance_clear(distance);
    int rc = open_answered(&s, input, options, &data, &label, &answers, err);
    if (!rc) {
        distance->samples = data.samples;
        for (int o = 0; o < program_outputs(s.program); o++)
            if (s.kind[o] != OUTPUT_VALUES && isnan(distance->entropy))
                distance->entropy = answers_entropy(answers, o, s.kind[o]);
        if (label) {
            Score score = answers_score(answers, label);
            distance->accuracy = (double)score.correct / (double)score.samples;
        }
    }
    answers_free(answers);
    data_close(&data);
    session_close(&s);
    return (OnnxPressStatus)rc;
}

OnnxPressStatus onnxpress_verify(const char *original, const char *small,
                                 const OnnxPressOptions *options, OnnxPressDistance *distance,
                                 OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session first = {0}, second = {0};
    Data data = {0}, bound = {0};
    Answers *answers = NULL;
    int64_t *label = NULL;
    distance_clear(distance);
    int rc = open_answered(&first, original, options, &data, &label, &answers, err);
    if (!rc)
        rc = session_open(&second, small, SESSION_RESTORE, options, err);
    if (!rc)
        rc = session_data(&second, options->calibration, &bound);
    Distance *parts =
        rc ? NULL
           : arena_array(first.arena, (size_t)program_outputs(first.program) + 1, sizeof *parts);
    if (!rc && !parts)
        rc = error_memory(err, "the comparison");
    Score score[2] = {{0, 0}, {0, 0}};
    if (!rc) {
        EvaluateOptions evaluate = session_evaluate_options(&first, "small");
        rc = answers_compare(answers, second.program, bound.feed, NULL, first.kind, &evaluate,
                             label, parts, score, err);
    }
    if (!rc) {
        session_distance(&first, parts, data.samples, distance);
        if (label) {
            distance->accuracy = (double)score[0].correct / (double)score[0].samples;
            distance->accuracy_small = (double)score[1].correct / (double)score[1].samples;
        }
    }
    answers_free(answers);
    data_close(&bound);
    data_close(&data);
    session_close(&second);
    session_close(&first);
    return (OnnxPressStatus)rc;
}
