/* SPDX-License-Identifier: Apache-2.0
 *
 * Compress, on one page: the stages in the order in which the data passes through them. */
#include <malloc.h>
#include <math.h>
#include <string.h>

#include "importance/importance.h"
#include "pipeline/check.h"
#include "pipeline/compress_internal.h"
#include "pipeline/measure.h"
#include "pipeline/pruning.h"
#include "pipeline/training.h"

/* Weights up to which a load decodes fast enough for form function (some 5 s). */
#define FUNCTION_WEIGHTS 30000000
/* An output is nearly constant where its elements vary from sample to sample by this share of their
 * variance, or, probabilities, by a hundredth (squared). */
#define CONSTANT_SHARE 1e-3
#define CONSTANT_PROBABILITY 1e-4
/* Rounds of a goal on size: each corrects the estimate by the bytes really written. */
#define SIZE_ROUNDS 4
#define SIZE_TOLERANCE 0.002

static void compression_close(Compression *c)
{
    stream_close(&c->stream);
    choice_free(&c->choice);
    answers_free(c->answers);
    answers_free(c->seen);
    if (c->separate)
        data_close(&c->validation);
    data_close(&c->train);
    data_close(&c->calibration);
    session_close(&c->session);
}

/* ---- options ---- */

static int check_options(const OnnxPressOptions *options, Error *err)
{
    double v = options->goal_value;
    bool data = options->calibration != NULL;
    switch (options->goal) {
    case ONNXPRESS_GOAL_DEFAULT:
        break;
    case ONNXPRESS_GOAL_RATIO:
        if (!(v > 1) || !isfinite(v))
            return error_set(err, ONNXPRESS_USAGE, "--ratio %g: expected a number above 1", v);
        break;
    case ONNXPRESS_GOAL_BITS:
        if (!(v > 0) || v > 32)
            return error_set(err, ONNXPRESS_USAGE,
                             "--bits %g: expected bits a weight, above 0 and at most 32", v);
        break;
    default:
        if (!(v > 0) || !isfinite(v))
            return error_set(err, ONNXPRESS_USAGE, "the goal's value %g: expected a number above 0",
                             v);
        if (options->goal == ONNXPRESS_GOAL_STEP)
            break;
        if (!data)
            return error_set(err, ONNXPRESS_USAGE,
                             "a goal on the model's answers needs samples: give --calib DATA");
        if (options->goal == ONNXPRESS_GOAL_MAX_DROP && !options->labels)
            return error_set(err, ONNXPRESS_USAGE, "--max-drop needs --labels LABELS.npy");
    }
    if (options->method == ONNXPRESS_METHOD_KMEANS && options->goal == ONNXPRESS_GOAL_STEP &&
        (v < 2 || v > 65535 || v != floor(v)))
        return error_set(err, ONNXPRESS_USAGE,
                         "%g centres: expected a whole number from 2 to 65535", v);
    if (options->levels < 0 || options->levels > 65535)
        return error_set(err, ONNXPRESS_USAGE, "%d levels: expected a number up to 65535",
                         options->levels);
    if ((options->validation || options->labels) && !data)
        return error_set(err, ONNXPRESS_USAGE, "--validate and --labels need --calib DATA too");
    bool automatic = options->prune == ONNXPRESS_PRUNE_AUTO;
    if ((options->epochs || options->batch_norm || automatic) && !data)
        return error_set(err, ONNXPRESS_USAGE,
                         "--finetune, --batch-norm and --prune auto need samples: give "
                         "--calib DATA");
    if (automatic && (goal_is_size(options->goal) || options->goal == ONNXPRESS_GOAL_STEP))
        return error_set(err, ONNXPRESS_USAGE,
                         "--prune auto needs a goal on the model's answers; with another goal give "
                         "the share");
    return training_check_options(options, err);
}

/* Statistics that are to be trained with or measured anew stay, and importance from a file is that of
 * the weights as they are. */
static bool folds(const OnnxPressOptions *options)
{
    return options->batch_norm == ONNXPRESS_NORM_FIXED && !options->hessian;
}

/* ---- stages ---- */

/* The decoder's form unless it would take long to load, or the model cannot be lifted to its opset. */
static int choose_form(Session *s, RewriteForm *form)
{
    Error why = {0};
    int64_t elements = 0;
    switch (s->options->form) {
    case ONNXPRESS_FORM_FUNCTION:
        *form = FORM_FUNCTION;
        return ONNXPRESS_OK;
    case ONNXPRESS_FORM_INLINED:
        *form = FORM_INLINED;
        return ONNXPRESS_OK;
    case ONNXPRESS_FORM_LOOKUP:
        *form = FORM_LOOKUP;
        return ONNXPRESS_OK;
    case ONNXPRESS_FORM_PLAIN:
        *form = FORM_PLAIN;
        return ONNXPRESS_OK;
    default:
        *form = FORM_LOOKUP;
        for (int w = 0; w < program_weights(s->program); w++)
            elements += program_weight(s->program, w)->count;
        if (elements > FUNCTION_WEIGHTS)
            return ONNXPRESS_OK;
        if (rewrite_lift_check(s->model, &why))
            return session_warn(s, "the form lookup is written: %s", why.message);
        *form = FORM_FUNCTION;
        return ONNXPRESS_OK;
    }
}

static int find_importance(Compression *c)
{
    Session *s = &c->session;
    size_t n = (size_t)program_weights(s->program);
    c->h = arena_array(s->arena, n + 1, sizeof *c->h);
    if (!c->h)
        return error_memory(s->err, "the importance");
    if (s->options->hessian) {
        c->source = "importance from a file";
        return hessian_read(s, s->options->hessian, c->h);
    }
    if (!c->answers) {
        c->source = "importance from its size";
        return importance_from_weights(s->program, c->form != FORM_LOOKUP, s->arena, c->h, s->err);
    }
    /* Labels belong to the samples of the goal: they are the calibration's only when both are one.
     */
    const int64_t *label = c->separate ? NULL : c->label;
    if (c->separate && s->options->importance == ONNXPRESS_IMPORTANCE_EMPIRICAL_FISHER)
        return error_set(s->err, ONNXPRESS_USAGE,
                         "empirical-fisher needs labels of the calibration samples: leave out "
                         "--validate, or measure it with `onnxpress hessian` first");
    bool *wanted = arena_array(s->arena, n + 1, sizeof *wanted);
    if (!wanted)
        return error_memory(s->err, "the importance");
    for (int w = 0; w < (int)n; w++)
        wanted[w] = select_may_code(program_weight(s->program, w));
    return measure_importance(s, c->calibration.feed, c->importance_sample, c->n_importance, label,
                              wanted, c->h, &c->source);
}

/* What the allocator has kept of the activations of the stage before. */
static void give_back_memory(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

static int find_layers(Compression *c)
{
    Session *s = &c->session;
    if (s->options->method != ONNXPRESS_METHOD_COMPENSATED || !c->answers)
        return ONNXPRESS_OK;
    int rc = measure_layers(s, c->calibration.feed, c->importance_sample, c->n_importance,
                            &c->selection, &c->matrix);
    c->choose.matrix = c->matrix;
    return rc;
}

/* Everything of the model but what is coded, as a first estimate of the result's fixed part. */
static uint64_t fixed_bytes(const Compression *c)
{
    const Session *s = &c->session;
    uint64_t bytes = s->model->file_bytes + s->model->external_bytes;
    for (int t = 0; t < c->selection.n_coded; t++) {
        const Weight *weight = program_weight(s->program, c->selection.weight[t]);
        bytes -= (uint64_t)weight->count * dtype_bytes(weight->dtype);
    }
    return bytes;
}

static void fill_choose(Compression *c)
{
    const Session *s = &c->session;
    c->choose = (ChooseInput){.data = &c->validation,
                              .answers = c->answers,
                              .seen = c->seen,
                              .label = c->label,
                              .original_bytes = s->model->file_bytes + s->model->external_bytes,
                              .base_bytes = fixed_bytes(c),
                              .size_correction = 1};
}

/* Whether an output says nearly the same of every sample, as a detector does where nothing is to be
 * found: a file that says so whatever it is given would meet any goal. */
static bool is_constant(const Compression *c, int output)
{
    double variation = answers_variation(c->answers, output);
    OutputKind kind = c->session.kind[output];
    const Shape *shape = answers_shape(c->answers, output);
    if (kind == OUTPUT_BERNOULLI)
        return variation < CONSTANT_PROBABILITY;
    if (kind == OUTPUT_PROBABILITIES && shape->rank > 0) /* of many classes each says little */
        return variation * (double)shape->dim[shape->rank - 1] < 2 * CONSTANT_PROBABILITY;
    return variation <= CONSTANT_SHARE * answers_variance(c->answers, output);
}

/* Goals on answers that prove little bound the steps. */
static int find_doubt(Compression *c)
{
    Session *s = &c->session;
    OnnxPressGoal goal = s->options->goal;
    int n = program_outputs(s->program), constant = 0;
    if (!c->answers || goal_is_size(goal) || goal == ONNXPRESS_GOAL_STEP)
        return ONNXPRESS_OK;
    for (int o = 0; o < n; o++)
        constant += is_constant(c, o);
    c->choose.cautious = c->random || constant == n;
    if (c->random || constant < n)
        return ONNXPRESS_OK;
    return session_warn(s, "the model answers nearly the same on all samples that the goal is "
                           "measured on, which says little about other answers: rounding stays "
                           "cautious; give samples with different answers");
}

static int prune(Compression *c)
{
    int rc = find_doubt(c);
    return rc ? rc : prune_selection(&c->session, &c->choose, &c->selection, &c->pruned);
}

static const char *note_text(Compression *c)
{
    Session *s = &c->session;
    return arena_printf(s->arena,
                        "\"version\":\"%s\",\"source\":\"%s\",\"method\":\"%s\",\"scope\":\"%s\","
                        "\"goal\":\"%s\",\"importance\":\"%s\"",
                        ONNXPRESS_VERSION, s->model->sha256, compress_method(c),
                        c->choice.scope == QUANTIZE_SCOPE_MODEL ? "model" : "tensor",
                        goal_text(s, c->answers), c->source);
}

/* Puts the chosen quantization into a fresh copy of the model, so that it can be done again. */
static int rewrite_copy(Compression *c, Model **copy)
{
    Session *s = &c->session;
    const QuantizeInput *in = &c->selection.input;
    const Quantized *q = &c->choice.quantized;
    CodedTensor *tensors = arena_array(s->arena, in->n_tensors, sizeof *tensors);
    const char *note = note_text(c);
    int folded;
    c->written = arena_array(s->arena, in->n_tensors, sizeof *c->written);
    if (!tensors || !note || !c->written)
        return error_memory(s->err, "the rewritten model");
    for (size_t t = 0; t < in->n_tensors; t++) {
        const Weight *weight = program_weight(s->program, c->selection.weight[t]);
        c->written[t] = weight->name;
        tensors[t] = (CodedTensor){.name = weight->name,
                                   .dtype = weight->dtype,
                                   .shape = weight->shape,
                                   .first = in->offset[t],
                                   .count = in->offset[t + 1] - in->offset[t],
                                   .scale = q->scale[t]};
    }
    Coded coded = {.n_tensors = in->n_tensors,
                   .tensors = tensors,
                   .n_symbols = in->offset[in->n_tensors],
                   .symbols = q->symbol,
                   .index = c->stream.index.data,
                   .levels = q->levels,
                   .codebook = q->centre};
    int rc = model_load(s->model->path, copy, s->err);
    if (!rc && strcmp((*copy)->sha256, s->model->sha256) != 0)
        rc = error_set(s->err, ONNXPRESS_IO, "%s: changed while it was being compressed",
                       s->model->path);
    if (!rc)
        rewrite_strip(*copy);
    if (!rc && s->folded)
        rc = rewrite_fold(*copy, &folded, s->err);
    if (!rc && c->stream.on)
        rc = model_adopt(*copy, &c->stream.index, s->err);
    for (int w = 0; w < c->selection.n_weights && !rc && c->tuned.exact; w++) {
        const Weight *weight = program_weight(s->program, w);
        if (c->tuned.exact[w])
            rc = rewrite_values(*copy, weight->name, c->tuned.exact[w], weight->count, s->err);
    }
    if (!rc)
        rc = rewrite_apply(*copy, &coded, c->form, note, s->err);
    if (rc || s->options->graph == ONNXPRESS_GRAPH_KEEP)
        return rc;
    rc = rewrite_shorten(*copy, c->written, in->n_tensors, s->err);
    /* The check asks for them when the copy is gone. */
    for (size_t t = 0; t < in->n_tensors && !rc; t++)
        if (!(c->written[t] = arena_strdup(s->arena, c->written[t])))
            rc = error_memory(s->err, "the names of weights");
    return rc;
}

/* While the result takes memory the values need not, which the model has, to be read again. */
static void forget_values(Compression *c)
{
    c->forgotten = !c->selection.pruned;
    if (c->forgotten)
        select_forget(&c->selection);
}

static int recall_values(Compression *c)
{
    int rc = c->forgotten ? select_reread(&c->session, &c->selection) : ONNXPRESS_OK;
    c->forgotten = false;
    return rc;
}

static int quantize_to_goal(Compression *c, Model **small)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    bool on_size = goal_is_size(options->goal);
    ChooseInput input = c->choose;
    c->method = choose_method(s, &input);
    for (int round = 0;; round++) {
        choice_free(&c->choice);
        model_free(*small);
        *small = NULL;
        int rc = recall_values(c);
        if (!rc)
            rc = choose_quantization(s, &c->selection, &input, &c->choice);
        forget_values(c);
        if (!rc)
            rc = rewrite_copy(c, small);
        uint64_t bytes = 0;
        if (!rc && on_size)
            rc = rewrite_size(*small, &bytes, s->err);
        if (rc || !on_size)
            return rc;
        double written = (double)bytes;
        double limit = options->goal == ONNXPRESS_GOAL_RATIO
                           ? (double)input.original_bytes / options->goal_value
                           : options->goal_value * (double)c->selection.total_elements / 8;
        if (written <= limit && (written >= limit * (1 - SIZE_TOLERANCE) || round >= SIZE_ROUNDS))
            return ONNXPRESS_OK;
        if (round >= 2 * SIZE_ROUNDS)
            return error_set(s->err, ONNXPRESS_GOAL, "%s: the goal (%s) cannot be reached",
                             s->model->path, goal_text(s, c->answers));
        double correction = input.size_correction * written / (double)c->choice.bytes;
        /* Late rounds that are over lean to the safe side, so that the search ends. */
        input.size_correction =
            round >= SIZE_ROUNDS ? correction * (1 + SIZE_TOLERANCE) : correction;
    }
}

static int tune(Compression *c, Model **small)
{
    Session *s = &c->session;
    const OnnxPressOptions *options = s->options;
    TuneData data;
    training_clear(&c->tuned.training);
    if (!options->epochs && !options->batch_norm)
        return ONNXPRESS_OK;
    if (!c->answers)
        return error_set(s->err, ONNXPRESS_UNSUPPORTED,
                         "%s: the model cannot be run here, so nothing can be trained: leave out "
                         "--finetune and --batch-norm",
                         s->model->path);
    int rc = recall_values(c);
    if (!rc)
        rc = compress_open_training(c, &data);
    if (!rc)
        rc = tune_choice(s, &c->selection, &c->choose, &data, &c->choice, &c->tuned);
    model_free(*small);
    *small = NULL;
    return rc ? rc : rewrite_copy(c, small);
}

/* What the result takes on disk: the file may be compressed again (.zst). */
static int measure_result(Compression *c, const char *path)
{
    FileMap map;
    int rc = file_map(path, &map, c->session.err);
    if (!rc)
        c->sizes.model_bytes = map.size;
    file_unmap(&map);
    return rc;
}

static int check_result(Compression *c, const char *path)
{
    if (c->stream.on)
        return check_streams(path, c->session.err);
    select_release(&c->selection);
    return check_written(&c->session, &c->selection, &c->choice, c->written, path);
}

static int make_small(Compression *c, Model **small)
{
    Session *s = &c->session;
    int rc = select_check_finite(s);
    if (!rc)
        rc = compress_open_data(c);
    give_back_memory();
    if (!rc)
        rc = choose_form(s, &c->form);
    if (!rc)
        rc = find_importance(c);
    if (!rc)
        rc = select_weights(s, c->h, c->source, &c->selection);
    if (!rc)
        fill_choose(c);
    if (!rc)
        rc = find_layers(c);
    give_back_memory();
    if (!rc)
        rc = prune(c);
    if (!rc)
        rc = quantize_to_goal(c, small);
    return rc ? rc : tune(c, small);
}

/* The same where the weights are more than memory is to hold. */
static int make_streamed(Compression *c, const char *output, Model **small)
{
    Session *s = &c->session;
    int rc = compress_open_data(c); /* a warning that there are none */
    c->source = "importance from its size";
    c->form = FORM_LOOKUP;
    c->method = ONNXPRESS_METHOD_UNIFORM;
    c->pruned = NAN;
    training_clear(&c->tuned.training);
    if (!rc)
        rc = stream_quantize(s, output, &c->selection, &c->choice, &c->stream);
    return rc ? rc : rewrite_copy(c, small);
}

OnnxPressStatus onnxpress_compress(const char *input, const char *output,
                                   const OnnxPressOptions *options, OnnxPressReport **report,
                                   OnnxPressError *error)
{
    Compression c = {0};
    Error own = {0}, *err = error ? error : &own;
    err->code = ONNXPRESS_OK;
    Session *s = &c.session;
    Model *small = NULL;
    if (report)
        *report = NULL;

    int rc = check_options(options, err);
    if (!rc)
        rc = session_open(s, input, folds(options) ? SESSION_FOLD : SESSION_AS_IS, options, err);
    if (!rc && rewrite_is_ours(s->model, NULL, NULL))
        rc = error_set(
            err, ONNXPRESS_USAGE,
            "%s: is already compressed by onnxpress; compress the original, or restore it "
            "first",
            input);
    if (!rc)
        rc = stream_wanted(s) ? make_streamed(&c, output, &small) : make_small(&c, &small);
    if (!rc)
        rc = session_progress(s, "write", 0);
    if (!rc)
        rc = rewrite_save(small, output, session_sidecar(options), &c.sizes, err);
    if (!rc)
        rc = rewrite_parts(small, &c.parts, err);
    model_free(small);
    if (!rc)
        rc = recall_values(&c);
    if (!rc)
        rc = measure_result(&c, output);
    if (!rc && c.sizes.model_bytes + c.sizes.sidecar_bytes >=
                   s->model->file_bytes + s->model->external_bytes)
        rc = session_warn(s, "the result is no smaller than the original (%llu bytes)",
                          (unsigned long long)(s->model->file_bytes + s->model->external_bytes));
    if (!rc && report)
        rc = compress_report(&c, output, report);
    if (!rc)
        rc = check_result(&c, output);
    if (report && *report && rc) {
        onnxpress_report_free(*report);
        *report = NULL;
    } else if (report && *report) {
        (*report)->seconds = seconds_now() - s->started;
        (*report)->peak_rss_bytes = peak_rss_bytes();
    }
    compression_close(&c);
    return (OnnxPressStatus)rc;
}
