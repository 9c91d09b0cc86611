/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "importance/importance.h"
#include "pipeline/measure.h"
#include "pipeline/report.h"
#include "tensor/npy.h"

static int importance_progress(void *context, double share)
{
    return session_progress(context, "importance", share);
}

static ImportanceKind importance_kind(OnnxPressImportance importance)
{
    static const ImportanceKind kind[] = {
        [ONNXPRESS_IMPORTANCE_GAUSS_NEWTON] = IMPORTANCE_GAUSS_NEWTON,
        [ONNXPRESS_IMPORTANCE_BECKER_LECUN] = IMPORTANCE_BECKER_LECUN,
        [ONNXPRESS_IMPORTANCE_EMPIRICAL_FISHER] = IMPORTANCE_EMPIRICAL_FISHER,
        [ONNXPRESS_IMPORTANCE_MC_FISHER] = IMPORTANCE_MC_FISHER,
        [ONNXPRESS_IMPORTANCE_HUTCHINSON] = IMPORTANCE_HUTCHINSON,
        [ONNXPRESS_IMPORTANCE_ADAM] = IMPORTANCE_ADAM,
        [ONNXPRESS_IMPORTANCE_ACTIVATION] = IMPORTANCE_ACTIVATION,
        [ONNXPRESS_IMPORTANCE_NONE] = IMPORTANCE_NONE};
    return kind[importance];
}

int measure_importance(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                       const int64_t *label, const bool *wanted, float **h,
                       const char **name)
{
    ImportanceOptions options = {.kind = session->kind,
                                 .variance = session->variance,
                                 .seed = session->options->seed,
                                 .threads = session->threads,
                                 .exact_columns = IMPORTANCE_EXACT_COLUMNS,
                                 .draws = IMPORTANCE_DRAWS,
                                 .wanted = wanted,
                                 .memory = session->options->memory,
                                 .progress = importance_progress,
                                 .context = session};
    ImportanceKind kind = importance_kind(session->options->importance);
    *name = importance_name(kind);
    return importance_estimate(kind, session->program, feed, sample, n, label, &options,
                               session->arena, h, session->err);
}

int hessian_read(Session *session, const char *path, float **h)
{
    NpyFile *file = NULL;
    int rc = npy_open(path, &file, session->err), found = 0;
    for (int w = 0; w < program_weights(session->program) && !rc; w++) {
        const Weight *weight = program_weight(session->program, w);
        const Tensor *tensor = npy_find(file, weight->name);
        h[w] = NULL;
        if (!tensor)
            continue;
        char have[160], want[160];
        if (!shape_equal(&tensor->shape, &weight->shape)) {
            rc = error_set(session->err, ONNXPRESS_DATA, "%s: %s has shape %s, the model's %s",
                           path, weight->name, shape_text(&tensor->shape, have, sizeof have),
                           shape_text(&weight->shape, want, sizeof want));
            break;
        }
        h[w] = arena_array(session->arena, (size_t)weight->count, sizeof(float));
        rc = h[w] ? tensor_to_float(tensor, h[w], session->err)
                  : error_memory(session->err, "the importance");
        for (int64_t i = 0; i < weight->count && !rc; i++)
            if (!(h[w][i] >= 0) || isinf(h[w][i]))
                rc = error_set(session->err, ONNXPRESS_DATA,
                               "%s: %s holds a negative or infinite importance or NaN", path,
                               weight->name);
        found++;
    }
    if (!rc && !found)
        rc = error_set(session->err, ONNXPRESS_DATA, "%s: has no array named after a weight of %s",
                       path, session->model->path);
    npy_close(file);
    return rc;
}

static int hessian_write(Session *session, float *const *h, const char *path)
{
    int n = program_weights(session->program);
    size_t count = 0;
    Tensor *tensors = arena_array(session->arena, (size_t)n + 1, sizeof *tensors);
    if (!tensors)
        return error_memory(session->err, "the importance");
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(session->program, w);
        if (h[w])
            tensors[count++] = (Tensor){.name = weight->name,
                                        .dtype = DTYPE_FLOAT,
                                        .shape = weight->shape,
                                        .count = weight->count,
                                        .data = h[w],
                                        .bytes = (size_t)weight->count * sizeof(float)};
    }
    return npz_write(path, tensors, count, session->err);
}

OnnxPressStatus onnxpress_hessian(const char *input, const char *output,
                                  const OnnxPressOptions *options, OnnxPressReport **report,
                                  OnnxPressError *error)
{
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session s = {0};
    Data data = {0};
    Answers *answers = NULL;
    int64_t *label = NULL;
    const char *name = "";
    if (report)
        *report = NULL;
    int rc = options->calibration
                 ? ONNXPRESS_OK
                 : error_set(err, ONNXPRESS_USAGE, "give the samples: --calib DATA");
    if (!rc)
        rc = session_open(&s, input, SESSION_RESTORE, options, err);
    if (!rc)
        rc = session_can_run(&s);
    if (!rc)
        rc = session_data(&s, options->calibration, &data);
    if (!rc)
        rc = session_labels(&s, options->labels, &data, &label);
    int64_t *sample = rc ? NULL : arena_array(s.arena, (size_t)data.samples, sizeof *sample);
    float **h = rc ? NULL : arena_array(s.arena, (size_t)program_weights(s.program) + 1, sizeof *h);
    if (!rc && (!sample || !h))
        rc = error_memory(err, "the importance");
    for (int64_t i = 0; i < data.samples && !rc; i++)
        sample[i] = i;
    EvaluateOptions evaluate = {0};
    if (!rc) {
        evaluate = session_evaluate_options(&s, "original");
        rc = answers_create(s.program, data.feed, sample, data.samples, &evaluate, &answers, err);
    }
    if (!rc)
        rc = session_kinds(&s, answers);
    if (!rc)
        rc = measure_importance(&s, data.feed, sample, data.samples, label, NULL, h, &name);
    if (!rc)
        rc = hessian_write(&s, h, output);
    Arena *arena = NULL;
    if (!rc && report)
        rc = report_create(report, &arena, err);
    if (!rc && report)
        rc = report_fill(*report, arena, &s, NULL, NULL);
    if (!rc && report) {
        (*report)->output = arena_strdup(arena, output);
        (*report)->importance = name;
        (*report)->calibration_samples = data.samples;
    }
    answers_free(answers);
    data_close(&data);
    session_close(&s);
    return (OnnxPressStatus)rc;
}
