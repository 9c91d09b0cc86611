/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/session.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "autodiff/invent.h"
#include "model/inline.h"

#define INVENTED_SAMPLES 40

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* From /proc where there is one: what getrusage knows includes the process that started this one. */
uint64_t peak_rss_bytes(void)
{
    unsigned long long kilobytes = 0;
    char line[128];
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status) &&
           sscanf(line, "VmHWM: %llu kB", &kilobytes) != 1) {
    }
    if (status)
        fclose(status);
    if (kilobytes)
        return (uint64_t)kilobytes * 1024;
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage))
        return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}

RewriteSidecar session_sidecar(const OnnxPressOptions *options)
{
    return options->sidecar == ONNXPRESS_SIDECAR_ALWAYS  ? SIDECAR_ALWAYS
           : options->sidecar == ONNXPRESS_SIDECAR_NEVER ? SIDECAR_NEVER
                                                         : SIDECAR_AUTO;
}

int session_open(Session *session, const char *path, int how, const OnnxPressOptions *options,
                 Error *err)
{
    memset(session, 0, sizeof *session);
    session->options = options;
    session->err = err;
    session->started = seconds_now();
    session->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
    /* Samples run in parallel, each on one thread: BLAS threads would only get in their way. */
    openblas_set_num_threads(1);
    session->arena = arena_create();
    if (!session->arena)
        return error_memory(err, "the run");
    int rc = model_load(path, &session->model, err);
    if (!rc && (how & SESSION_RESTORE) && rewrite_is_ours(session->model, NULL, NULL))
        rc = rewrite_restore(session->model, err);
    if (!rc && (how & SESSION_FOLD))
        rc = rewrite_fold(session->model, &session->folded, err);
    if (!rc)
        rc = model_inline(session->model, err);
    if (!rc)
        rc = program_build(session->model, &session->program, err);
    return rc;
}

int session_can_run(Session *session)
{
    const char *unsupported = program_unsupported(session->program);
    return unsupported ? error_set(session->err, ONNXPRESS_UNSUPPORTED,
                                   "%s: %s has no forward rule here", session->model->path,
                                   unsupported)
                       : ONNXPRESS_OK;
}

void session_close(Session *session)
{
    program_free(session->program);
    model_free(session->model);
    arena_destroy(session->arena);
    memset(session, 0, sizeof *session);
}

int session_warn(Session *session, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (session->n_warnings == session->max_warnings) {
        size_t max = session->max_warnings ? 2 * session->max_warnings : 8;
        const char **grown = arena_array(session->arena, max, sizeof *grown);
        if (!grown)
            return error_memory(session->err, "a warning");
        if (session->n_warnings)
            memcpy(grown, session->warnings, session->n_warnings * sizeof *grown);
        session->warnings = grown;
        session->max_warnings = max;
    }
    const char *copy = arena_strdup(session->arena, text);
    if (!copy)
        return error_memory(session->err, "a warning");
    session->warnings[session->n_warnings++] = copy;
    return ONNXPRESS_OK;
}

static int bind_data(Session *session, Data *data)
{
    const OnnxPressOptions *options = session->options;
    FeedOptions feed = {
        .scale = options->scale, .n_mean = options->n_mean, .n_std = options->n_std};
    memcpy(feed.mean, options->mean, sizeof feed.mean);
    memcpy(feed.std, options->std, sizeof feed.std);
    int rc = feed_create(session->program, data->dataset, &feed, &data->feed, session->err);
    return rc ? rc : feed_fit(data->feed, session->program, options->memory, session->err);
}

/* Random inputs; where the graph leaves sizes open, the first size that it runs at. */
static int invent_data(Session *session, Data *data)
{
    static const int64_t sizes[] = {64, 48, 32, 224, 128, 320, 256, 512, 100, 16, 640, 16000, 8, 4};
    int rc = ONNXPRESS_OK;
    bool free_sizes = true;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes && free_sizes; k++) {
        data_close(data);
        *session->err = (Error){0};
        rc = invent_samples(session->program, INVENTED_SAMPLES, sizes[k], session->options->seed,
                            &data->dataset, &free_sizes, session->err);
        if (!rc)
            rc = bind_data(session, data);
        if (!rc || rc == ONNXPRESS_MEMORY)
            break;
    }
    return rc ? rc
              : session_warn(session, "calibrated on random numbers, which say little about what "
                                      "the model meets in use: give real inputs");
}

int session_data(Session *session, const char *path, Data *data)
{
    int rc;
    if (strcmp(path, "random") == 0) {
        rc = invent_data(session, data);
    } else {
        rc = dataset_open(path, &data->dataset, session->err);
        if (!rc)
            rc = bind_data(session, data);
    }
    if (!rc)
        data->samples = feed_samples(data->feed);
    return rc;
}

void data_close(Data *data)
{
    if (data->feed)
        feed_free(data->feed);
    dataset_close(data->dataset);
    memset(data, 0, sizeof *data);
}

int session_labels(Session *session, const char *path, const Data *data, int64_t **label)
{
    *label = NULL;
    if (!path)
        return ONNXPRESS_OK;
    int64_t count = 0;
    int rc = labels_read(path, session->arena, label, &count, session->err);
    if (!rc && count != data->samples)
        rc = error_set(session->err, ONNXPRESS_DATA, "%s: holds %lld labels for %lld samples of %s",
                       path, (long long)count, (long long)data->samples,
                       dataset_path(data->dataset));
    return rc;
}

/* "NAME=kind" of the options for an output; NULL when it is not mentioned. */
static const char *kind_override(const OnnxPressOptions *options, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < options->n_outputs; i++)
        if (strncmp(options->outputs[i], name, length) == 0 && options->outputs[i][length] == '=')
            return options->outputs[i] + length + 1;
    return NULL;
}

static int check_overrides(Session *session)
{
    const OnnxPressOptions *options = session->options;
    for (size_t i = 0; i < options->n_outputs; i++) {
        const char *equals = strrchr(options->outputs[i], '=');
        bool found = false;
        for (int o = 0; equals && o < program_outputs(session->program); o++) {
            const char *name = program_output(session->program, o)->name;
            found |= strlen(name) == (size_t)(equals - options->outputs[i]) &&
                     strncmp(name, options->outputs[i], strlen(name)) == 0;
        }
        if (!found)
            return error_set(
                session->err, ONNXPRESS_USAGE,
                "--output %s: expected NAME=logits, probabilities, bernoulli or values "
                "with NAME an output of the model",
                options->outputs[i]);
    }
    return ONNXPRESS_OK;
}

int session_kinds(Session *session, const Answers *answers)
{
    int n = program_outputs(session->program);
    session->kind = arena_array(session->arena, (size_t)n + 1, sizeof *session->kind);
    session->variance = arena_array(session->arena, (size_t)n + 1, sizeof *session->variance);
    if (!session->kind || !session->variance)
        return error_memory(session->err, "the outputs");
    int rc = check_overrides(session);
    for (int o = 0; o < n && !rc; o++) {
        const ProgramOutput *output = program_output(session->program, o);
        const char *text = kind_override(session->options, output->name);
        session->variance[o] = answers_variance(answers, o);
        if (!text) {
            session->kind[o] = output_kind_guess(output, answers_shape(answers, o));
            /* A softmax that is spelled out, or a mean of several. */
            if (session->kind[o] == OUTPUT_VALUES && answers_sum_to_one(answers, o))
                session->kind[o] = OUTPUT_PROBABILITIES;
        } else if (!output_kind_parse(text, &session->kind[o]))
            rc = error_set(session->err, ONNXPRESS_USAGE,
                           "--output %s=%s: expected logits, probabilities, bernoulli or values",
                           output->name, text);
    }
    return rc;
}

static int forward_progress(void *context, double share)
{
    Session *session = context;
    return session_progress(session, session->stage, share);
}

EvaluateOptions session_evaluate_options(Session *session, const char *stage)
{
    session->stage = stage;
    return (EvaluateOptions){.threads = session->threads,
                             .memory = session->options->memory,
                             .progress = stage ? forward_progress : NULL,
                             .context = session};
}

int session_report(Session *session, const OnnxPressProgress *progress)
{
    const OnnxPressOptions *options = session->options;
    if (options->progress && options->progress(options->context, progress))
        return error_set(session->err, ONNXPRESS_INTERRUPTED, "interrupted");
    return ONNXPRESS_OK;
}

int session_progress(Session *session, const char *stage, double share)
{
    const OnnxPressProgress progress = {.stage = stage,
                                        .share = share,
                                        .loss = NAN,
                                        .accuracy = NAN,
                                        .kept = NAN,
                                        .seconds_left = NAN};
    return session_report(session, &progress);
}

void distance_clear(OnnxPressDistance *distance)
{
    *distance = (OnnxPressDistance){.kl = NAN,
                                    .entropy = NAN,
                                    .relative_error = NAN,
                                    .max_error = NAN,
                                    .top1_agreement = NAN,
                                    .accuracy = NAN,
                                    .accuracy_small = NAN};
}

void session_distance(const Session *session, const Distance *distance, int64_t samples,
                      OnnxPressDistance *out)
{
    distance_clear(out);
    out->samples = samples;
    for (int o = 0; o < program_outputs(session->program); o++) {
        const Distance *d = &distance[o];
        out->max_error = fmax(d->max_error, isnan(out->max_error) ? 0 : out->max_error);
        if (session->kind[o] == OUTPUT_VALUES) {
            if (!d->elements)
                continue;
            double error = d->squared / (double)d->elements;
            /* A constant output has no variance: any change counts as infinite. */
            error = error > 0 ? error / session->variance[o] : 0;
            if (isnan(out->relative_error) || error > out->relative_error)
                out->relative_error = error;
        } else if (d->rows) {
            double kl = d->kl / (double)d->rows, same = (double)d->same_top1 / (double)d->rows;
            if (isnan(out->kl) || kl > out->kl) {
                out->kl = kl;
                out->entropy = d->entropy / (double)d->rows;
            }
            if (isnan(out->top1_agreement) || same < out->top1_agreement)
                out->top1_agreement = same;
        }
    }
}
