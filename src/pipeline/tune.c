/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/training.h"

/* Coarser grids that are tried: up to this many times the step, in so many trainings. */
#define COARSEST 1.6
#define TRIALS 4
/* Of the centres' mean size a step. */
#define RATE 1e-2

typedef struct {
    Session *session;
    const Selection *selection;
    const ChooseInput *input;
    const TuneData *data;
} Tuning;

/* One candidate: before its training and after. */
typedef struct {
    Choice choice;
    Choice plain; /* numbers only: distances and scores without training */
    Finetuned run;
    Tuned tuned;
    bool better;
} Trial;

typedef struct {
    float centre;
    uint16_t level;
} RankedCentre;

static int compare_centres(const void *a, const void *b)
{
    const RankedCentre *x = a, *y = b;
    if (x->centre != y->centre)
        return x->centre < y->centre ? -1 : 1;
    return (x->level > y->level) - (x->level < y->level);
}

/* Centres ascending again, equal ones as one. */
static int sort_centres(const QuantizeInput *in, Quantized *q, Error *err)
{
    size_t levels = (size_t)q->levels;
    RankedCentre *ranked = calloc(levels, sizeof *ranked);
    uint16_t *symbol_of = calloc(levels, sizeof *symbol_of);
    if (ranked && symbol_of) {
        for (size_t c = 0; c < levels; c++)
            ranked[c] = (RankedCentre){q->centre[c], (uint16_t)c};
        qsort(ranked, levels, sizeof *ranked, compare_centres);
        q->levels = 0;
        for (size_t c = 0; c < levels; c++) {
            if (c == 0 || ranked[c].centre != ranked[c - 1].centre)
                q->centre[q->levels++] = ranked[c].centre;
            symbol_of[ranked[c].level] = (uint16_t)(q->levels - 1);
        }
        for (size_t i = 0; i < in->offset[in->n_tensors]; i++)
            q->symbol[i] = symbol_of[q->symbol[i]];
        q->distortion = 0;
        for (size_t t = 0; t < in->n_tensors; t++)
            q->distortion += quantize_distortion(in, q, t);
    }
    bool failed = !ranked || !symbol_of;
    free(ranked);
    free(symbol_of);
    return failed ? error_memory(err, "the centres") : ONNXPRESS_OK;
}

/* What is not coded costs the same whatever it is, so it is trained too; weights of two axes keep
 * their zeros by staying as they are. */
static int find_trained(const Tuning *t, bool **trained)
{
    const Selection *selection = t->selection;
    *trained = arena_array(t->session->arena, (size_t)selection->n_weights + 1, sizeof **trained);
    if (!*trained)
        return error_memory(t->session->err, "the training");
    for (int w = 0; w < selection->n_weights; w++)
        (*trained)[w] = !selection->coded[w] &&
                        program_weight(t->session->program, w)->shape.rank < 2;
    return ONNXPRESS_OK;
}

/* Trains the centres of the trial's choice in place. */
static int train(const Tuning *t, Trial *trial)
{
    Session *s = t->session;
    const QuantizeInput *in = &t->selection->input;
    Quantized *q = &trial->choice.quantized;
    FinetuneOptions options = training_options(s, s->options->epochs);
    if (options.rate == 0)
        options.rate = RATE;
    FinetuneShared shared = {.weight = t->selection->weight,
                             .input = in,
                             .quantized = q,
                             .gradient = s->options->centre_gradient == ONNXPRESS_CENTRE_HESSIAN
                                             ? FINETUNE_HESSIAN
                                             : FINETUNE_MEAN,
                             .train_scales = trial->choice.scope == QUANTIZE_SCOPE_TENSOR,
                             .relative = true};
    FinetuneTask task = {.model = s->model,
                         .program = s->program,
                         .feed = t->data->data->feed,
                         .sample = t->data->sample,
                         .n = t->data->n,
                         .label = t->data->label,
                         .kind = s->kind,
                         .variance = s->variance,
                         .shared = &shared};
    bool *trained;
    int rc = find_trained(t, &trained);
    task.trained = trained;
    if (!rc)
        rc = finetune_run(&task, &options, s->arena, &trial->run, s->err);
    if (rc)
        return rc;
    memcpy(q->centre, trial->run.centre, (size_t)q->levels * sizeof *q->centre);
    memcpy(q->scale, trial->run.scale, in->n_tensors * sizeof *q->scale);
    for (int w = 0; w < t->selection->n_weights; w++)
        if (trained[w] && trial->run.weight[w] != program_weight(s->program, w)->data)
            trial->tuned.exact[w] = trial->run.weight[w];
    return sort_centres(in, q, s->err);
}

/* Statistics of the normalizations behind the rounded weights. */
static int measure_norms(const Tuning *t, Trial *trial)
{
    Session *s = t->session;
    const QuantizeInput *in = &t->selection->input;
    size_t n = (size_t)t->selection->n_weights + 1;
    float *values = arena_array(s->arena, in->offset[in->n_tensors], sizeof *values);
    real **weights = arena_array(s->arena, n, sizeof *weights);
    if (!values || !weights)
        return error_memory(s->err, "the statistics");
    quantize_reconstruct(in, &trial->choice.quantized, values);
    memcpy(weights, trial->tuned.exact, n * sizeof *weights);
    for (int k = 0; k < t->selection->n_coded; k++)
        weights[t->selection->weight[k]] = values + in->offset[k];
    int rc = training_norms(s, t->data->data->feed, t->data->sample, t->data->n, weights,
                            &trial->tuned.norms);
    for (int w = 0; w < t->selection->n_weights; w++)
        trial->tuned.exact[w] = t->selection->coded[w] ? NULL : weights[w];
    return rc;
}

/* How far the answers are from the original's: KL, or the error of plain values. */
static double apart(const Session *session, const Choice *choice)
{
    OnnxPressDistance d;
    session_distance(session, choice->distance, 0, &d);
    return isnan(d.kl) ? d.relative_error : d.kl;
}

static bool is_better(const Tuning *t, const Choice *a, const Choice *b)
{
    if (t->data->label && t->input->label && a->score[1].correct != b->score[1].correct)
        return a->score[1].correct > b->score[1].correct;
    return apart(t->session, a) < apart(t->session, b);
}

static void describe(const Tuning *t, const Choice *choice, OnnxPressDistance *out)
{
    session_distance(t->session, choice->distance, 0, out);
    if (t->input->label) {
        double n = (double)choice->score[0].samples;
        out->samples = choice->score[0].samples;
        out->accuracy = (double)choice->score[0].correct / n;
        out->accuracy_small = (double)choice->score[1].correct / n;
    }
}

/* Tunes the trial's choice, which has been measured. */
static int tune(const Tuning *t, Trial *trial)
{
    Session *s = t->session;
    const OnnxPressOptions *options = s->options;
    size_t outputs = (size_t)program_outputs(s->program);
    trial->tuned.exact =
        arena_array(s->arena, (size_t)t->selection->n_weights + 1, sizeof *trial->tuned.exact);
    trial->plain.distance = calloc(outputs + 1, sizeof *trial->plain.distance);
    if (!trial->tuned.exact || !trial->plain.distance)
        return error_memory(s->err, "the training");
    memcpy(trial->plain.distance, trial->choice.distance, outputs * sizeof(Distance));
    memcpy(trial->plain.score, trial->choice.score, sizeof trial->plain.score);
    int rc = options->epochs ? train(t, trial) : ONNXPRESS_OK;
    if (!rc && options->batch_norm)
        rc = measure_norms(t, trial);
    if (!rc)
        rc = choose_measure(s, t->selection, t->input, trial->tuned.exact, &trial->choice);
    if (rc)
        return rc;
    trial->better = is_better(t, &trial->choice, &trial->plain);
    training_clear(&trial->tuned.training);
    if (options->epochs)
        training_report(&trial->run, options->epochs, t->data->n, t->data->label != NULL,
                        &trial->tuned.training);
    describe(t, &trial->plain, &trial->tuned.training.before);
    describe(t, &trial->choice, &trial->tuned.training.after);
    return ONNXPRESS_OK;
}

static void trial_close(Trial *trial)
{
    choice_free(&trial->choice);
    choice_free(&trial->plain);
}

/* The setting that a step `factor` times as long stands for. */
static double coarser(OnnxPressMethod method, double x, double factor)
{
    if (method == ONNXPRESS_METHOD_KMEANS)
        return fmax(2, round(x / factor));
    return method == ONNXPRESS_METHOD_ECSQ ? x * factor * factor : x * factor;
}

/* Puts the trial's result in place of the choice. */
static void take(Trial *trial, Choice *choice, Tuned *tuned)
{
    choice_free(choice);
    *choice = trial->choice;
    memset(&trial->choice, 0, sizeof trial->choice);
    *tuned = trial->tuned;
    tuned->training.kept = tuned->training.epochs > 0;
}

/* Bisection over factors of the step: each trial quantizes, trains and measures. */
static int try_coarser(const Tuning *t, Choice *choice, Tuned *tuned)
{
    double x = choice->x, low = 0, high = log(COARSEST);
    const Choice like = {
        .scope = choice->scope, .zero_half = choice->zero_half, .finer = choice->finer};
    int rc = ONNXPRESS_OK;
    for (int k = 0; k < TRIALS && !rc; k++) {
        Trial trial = {0};
        double middle = (low + high) / 2;
        rc = choose_at(t->session, t->selection, t->input, &like,
                       coarser(t->session->options->method, x, exp(middle)), &trial.choice);
        if (!rc)
            rc = tune(t, &trial);
        bool meets = !rc && choose_meets(t->session, t->input, &trial.choice);
        if (meets && trial.choice.bytes < choice->bytes)
            take(&trial, choice, tuned);
        if (meets)
            low = middle;
        else
            high = middle;
        trial_close(&trial);
    }
    return rc;
}

int tune_choice(Session *session, const Selection *selection, const ChooseInput *input,
                const TuneData *data, Choice *choice, Tuned *tuned)
{
    const OnnxPressOptions *options = session->options;
    Tuning t = {.session = session, .selection = selection, .input = input, .data = data};
    Trial trial = {0};
    int rc = choose_at(session, selection, input, choice, choice->x, &trial.choice);
    if (!rc)
        rc = tune(&t, &trial);
    if (!rc) {
        *tuned = trial.tuned;
        tuned->norms = 0;
        tuned->exact = NULL;
        if (trial.better)
            take(&trial, choice, tuned);
        else
            rc = session_warn(session, "%s made the answers no better and was left out",
                              options->epochs ? "--finetune" : "--batch-norm reestimate");
    }
    bool worth = trial.better && !goal_is_size(options->goal) &&
                 options->goal != ONNXPRESS_GOAL_STEP;
    trial_close(&trial);
    return rc || !worth ? rc : try_coarser(&t, choice, tuned);
}
