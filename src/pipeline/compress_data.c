/* SPDX-License-Identifier: Apache-2.0
 *
 * The samples of a compression: which of them the importance sees, the goal is measured on and
 * training sees, and the original's answers. */
#include <string.h>

#include "pipeline/compress_internal.h"

/* Every so many calibration samples are kept from the importance, to measure the goal on. */
#define HELD_OUT 5
/* Most bytes of answers on samples that the importance saw. */
#define SEEN_BYTES ((size_t)64 << 20)

/* Splits the calibration samples, or takes the goal's from the validation data. */
static int split_samples(Compression *c)
{
    Session *s = &c->session;
    int64_t n = c->calibration.samples, m = c->validation.samples;
    c->importance_sample = arena_array(s->arena, (size_t)n, sizeof(int64_t));
    c->goal_sample = arena_array(s->arena, (size_t)(n > m ? n : m), sizeof(int64_t));
    if (!c->importance_sample || !c->goal_sample)
        return error_memory(s->err, "the samples");
    if (c->separate) {
        for (int64_t i = 0; i < n; i++)
            c->importance_sample[c->n_importance++] = i;
        for (int64_t i = 0; i < m; i++)
            c->goal_sample[c->n_goal++] = i;
        return ONNXPRESS_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        if (i % HELD_OUT == HELD_OUT - 1)
            c->goal_sample[c->n_goal++] = i;
        else
            c->importance_sample[c->n_importance++] = i;
    }
    if (c->n_goal == 0) {
        memcpy(c->goal_sample, c->importance_sample, (size_t)n * sizeof(int64_t));
        c->n_goal = n;
        return session_warn(s,
                            "only %lld samples: the goal is measured on those that the importance "
                            "saw; give %d or more",
                            (long long)n, HELD_OUT);
    }
    return ONNXPRESS_OK;
}

/* The samples that the goal is measured on, and their labels. */
static int bind_goal(Compression *c)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    int rc = ONNXPRESS_OK;
    c->separate = options->validation != NULL;
    if (c->separate)
        rc = session_data(s, options->validation, &c->validation);
    else
        c->validation = c->calibration;
    if (!rc)
        rc = session_labels(s, options->labels, &c->validation, &c->label);
    return rc ? rc : split_samples(c);
}

/* The original's answers: on the goal's samples, and for a goal on answers on as many of the others
 * as there is room for. */
static int open_answers(Compression *c)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    EvaluateOptions evaluate = session_evaluate_options(s, "original");
    int rc = answers_create(s->program, c->validation.feed, c->goal_sample, c->n_goal, &evaluate,
                            &c->answers, s->err);
    if (rc || c->separate || c->n_importance == 0 || c->goal_sample[0] == c->importance_sample[0] ||
        goal_is_size(options->goal) || options->goal == ONNXPRESS_GOAL_STEP ||
        options->goal == ONNXPRESS_GOAL_MAX_DROP)
        return rc;
    size_t each = answers_bytes(c->answers) / (size_t)c->n_goal + 1;
    int64_t most = (int64_t)(SEEN_BYTES / each), n = c->n_importance;
    n = n < most ? n : most;
    return n == 0 ? rc
                  : answers_create(s->program, c->validation.feed, c->importance_sample, n,
                                   &evaluate, &c->seen, s->err);
}

int compress_open_data(Compression *c)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    if (!options->calibration)
        return session_warn(s, "no calibration data: importance from the weights alone, a cautious "
                               "step, nothing measured; give --calib DATA for a smaller file");
    const char *unsupported = program_unsupported(s->program);
    if (unsupported)
        return session_warn(s,
                            "%s has no forward rule here, so the model cannot be run: importance "
                            "from the weights alone, nothing measured",
                            unsupported);
    c->random = strcmp(options->calibration, "random") == 0;
    int rc = session_data(s, options->calibration, &c->calibration);
    bool ran = !rc; /* else it is the data that are refused, which another kind of file would mend */
    if (!rc)
        rc = bind_goal(c);
    if (!rc)
        rc = open_answers(c);
    /* What a row refuses only when it meets the data, and numbers that nobody has vouched for. */
    if ((rc == ONNXPRESS_UNSUPPORTED && ran) || (rc && rc != ONNXPRESS_MEMORY && c->random)) {
        answers_free(c->answers); /* the goal's samples may have passed */
        c->answers = NULL;
        rc = session_warn(s, "the model cannot be run here: %s; importance from the weights alone, "
                             "nothing measured",
                          s->err->message);
        *s->err = (Error){0};
        return rc;
    }
    return rc ? rc : session_kinds(s, c->answers);
}

int compress_open_training(Compression *c, TuneData *data)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    int64_t *sample, *label = NULL;
    if (!options->train) {
        *data = (TuneData){&c->calibration, c->importance_sample, c->n_importance, NULL};
        int rc = session_labels(s, options->train_labels, &c->calibration, &label);
        data->label = label ? label : c->separate ? NULL : c->label;
        return rc;
    }
    int rc = session_data(s, options->train, &c->train);
    if (!rc)
        rc = session_labels(s, options->train_labels, &c->train, &label);
    if (rc)
        return rc;
    sample = arena_array(s->arena, (size_t)c->train.samples, sizeof *sample);
    for (int64_t i = 0; sample && i < c->train.samples; i++)
        sample[i] = i;
    *data = (TuneData){&c->train, sample, c->train.samples, label};
    return sample ? ONNXPRESS_OK : error_memory(s->err, "the samples");
}
