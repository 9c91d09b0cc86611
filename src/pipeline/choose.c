/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/choose.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"
#include "pipeline/sensitive.h"

/* Where the data prove little, and of tensors whose importance does and that are at most this share of the
 * weights: no step above so many root mean squares. */
#define DOUBTFUL_STEP 0.25
#define DOUBTFUL_SHARE 0.02

/* Searches for sensitive tensors, at most. */
#define FINER_ROUNDS 3

/* The finest grid tried has this many cells over the largest weight. */
#define FINEST_CELLS 1e6
#define SEARCH_STEPS 13
/* The narrower cell at zero that is tried too, as half its width in steps, and where its step is looked
 * for: from so much finer to so much coarser than the best step of the plain grid. At coarse steps
 * most of the weights lie in that cell, and what they add up to would be lost; where fewer than
 * NARROW_SHARE of them do it gains nothing. */
#define NARROW_SHARE 0.4
#define NARROW_HALF 0.4f
#define NARROW_FINER 1.25
#define NARROW_COARSER 2.5
#define NARROW_STEPS 7
/* A search ends when so much of its goal is used: of a distance (a hundredth of a bit a weight is
 * worth more), of a size. */
#define ENOUGH_DISTANCE 0.97
#define ENOUGH_SIZE 0.9985
/* Settings whose expected distances differ by up to this many e-folds tell of each other. */
#define NEIGHBOURS 0.8
/* Where a search for a number of centres begins. */
#define FIRST_CENTRES 16.0
#define MOST_CENTRES 1024.0

OnnxPressMethod choose_method(const Session *session, const ChooseInput *input)
{
    OnnxPressMethod method = session->options->method;
    return method == ONNXPRESS_METHOD_COMPENSATED && !input->matrix ? ONNXPRESS_METHOD_UNIFORM
                                                                    : method;
}

/* ---- one candidate ---- */

typedef struct {
    Session *session;
    const Selection *selection;
    const ChooseInput *input;
    QuantizeScope scope;
    float zero_half;    /* for compensation */
    double near;        /* a step known to be about right; 0: none is known */
    float *relative;
    const float *finer; /* per tensor, of what `relative` has been multiplied with; NULL: 1 */
    float *bounded;     /* [n_tensors] */
    Choice best;    /* the last that met the goal; while the search runs, numbers only */
    Choice nearest; /* the finest that did not, for the message (numbers only) */
    Error refusal;  /* of the last step at which the model could not answer as it had */
    double tried[SEARCH_STEPS + 1], excess[SEARCH_STEPS + 1]; /* what has been measured */
    int evaluations;
} Search;

/* Leaves the numbers that it has come to. */
static void forget_arrays(Choice *choice)
{
    arena_destroy(choice->arena);
    choice->arena = NULL;
    choice->quantized = (Quantized){0};
}

void choice_free(Choice *choice)
{
    forget_arrays(choice);
    free(choice->distance);
    free(choice->all);
    memset(choice, 0, sizeof *choice);
}

static int estimate_bytes(Search *s, Choice *choice)
{
    const QuantizeInput *in = &s->selection->input;
    uint64_t total = s->input->base_bytes + 4 * (uint64_t)choice->quantized.levels;
    uint64_t streams;
    int rc = rewrite_estimate(choice->quantized.symbol, in->offset, in->n_tensors,
                              choice->quantized.centre, choice->quantized.levels, &streams,
                              s->session->err);
    if (rc)
        return rc;
    total += streams;
    choice->bytes = (uint64_t)((double)total * s->input->size_correction);
    return ONNXPRESS_OK;
}

/* The largest weight, in units of its tensor's relative step. */
static double largest_weight(const Search *s)
{
    const QuantizeInput *in = &s->selection->input;
    double largest = 0;
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            largest = fmax(largest, fabs((double)in->w[i]) / (double)s->relative[t]);
    return largest > 0 ? largest : 1;
}

/* A grid's distortion, h step^2 / 12, falls by this much for each further bit at high rate: the
 * lambda at which ECSQ settles near step 1. */
static double unit_lambda(const Search *s)
{
    const QuantizeInput *in = &s->selection->input;
    double sum = 0;
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            sum += (double)in->h[i] * (double)s->relative[t] * (double)s->relative[t];
    return (sum > 0 ? sum / (double)in->offset[in->n_tensors] : 1) * M_LN2 / 6;
}

/* Centres to start from: as many as a grid of that step has, within reason. */
static int ecsq_levels(const Search *s, double lambda)
{
    if (s->session->options->levels > 0)
        return s->session->options->levels;
    double cells = 2 * largest_weight(s) / sqrt(lambda / unit_lambda(s)) + 1;
    return (int)fmin(fmax(cells, 3), MOST_CENTRES);
}

/* Root mean square of a tensor's weights. */
static double tensor_size(const QuantizeInput *in, size_t tensor)
{
    size_t first = in->offset[tensor];
    return sqrt(quantize_mean_square(in->w + first, in->offset[tensor + 1] - first));
}

/* Relative steps for a step x, within the bounds. */
static const float *relative_at(const Search *s, double x)
{
    const QuantizeInput *in = &s->selection->input;
    const float *finer = s->scope == QUANTIZE_SCOPE_TENSOR ? s->finer : NULL;
    if (!s->input->cautious && !finer)
        return s->relative;
    for (size_t t = 0; t < in->n_tensors; t++) {
        double share = (double)(in->offset[t + 1] - in->offset[t]) / (double)in->offset[in->n_tensors];
        bool bound = s->input->cautious || (finer[t] < 1 && share <= DOUBTFUL_SHARE);
        double size = bound ? tensor_size(in, t) : 0;
        s->bounded[t] = s->relative[t];
        if (size > 0)
            s->bounded[t] = fminf(s->relative[t], (float)(DOUBTFUL_STEP * size / x));
    }
    return s->bounded;
}

static int quantize_at(Search *s, double x, Choice *choice)
{
    const OnnxPressOptions *options = s->session->options;
    const QuantizeInput *in = &s->selection->input;
    memset(choice, 0, sizeof *choice);
    choice->x = x;
    choice->scope = s->scope;
    choice->zero_half = s->zero_half;
    choice->finer = s->scope == QUANTIZE_SCOPE_TENSOR ? s->finer : NULL;
    choice->arena = arena_create();
    if (!choice->arena)
        return error_memory(s->session->err, "the quantization");
    OnnxPressMethod method = choose_method(s->session, s->input);
    if (method == ONNXPRESS_METHOD_KMEANS)
        return quantize_kmeans(in, s->relative, (int)lround(x), s->scope, !options->unweighted,
                               choice->arena, &choice->quantized, s->session->err);
    if (method == ONNXPRESS_METHOD_ECSQ)
        return quantize_ecsq(in, s->relative, x, ecsq_levels(s, x), s->scope, !options->unweighted,
                             choice->arena, &choice->quantized, s->session->err);
    if (method == ONNXPRESS_METHOD_COMPENSATED)
        return quantize_compensated(in, s->input->matrix, (float)x, relative_at(s, x),
                                    s->zero_half, s->scope, s->session->threads, choice->arena,
                                    &choice->quantized, s->session->err);
    return quantize_uniform(in, (float)x, relative_at(s, x), s->scope, !options->unweighted,
                            choice->arena, &choice->quantized, s->session->err);
}

/* The arrays of a choice that has only its numbers left. */
static int quantize_again(Search *s, Choice *choice)
{
    Choice again;
    int rc = quantize_at(s, choice->x, &again);
    choice->arena = again.arena;
    choice->quantized = again.quantized;
    return rc;
}

static int measure_answers(Search *s, Choice *choice)
{
    return choose_measure(s->session, s->selection, s->input, NULL, choice);
}

/* The goal's samples, and where those that the importance saw were measured too, all of them:
 * samples that nothing was fitted to can only seem easier by chance, and the more samples know
 * better. */
static double choice_excess(const Session *session, const ChooseInput *input, const Choice *choice)
{
    double excess = goal_excess(session, input->answers, choice->distance, choice->score);
    if (choice->all)
        excess = fmax(excess, goal_excess(session, input->answers, choice->all, choice->score));
    return excess;
}

bool choose_meets(const Session *session, const ChooseInput *input, const Choice *choice)
{
    return choice_excess(session, input, choice) <= 1;
}

/* The same with the samples that the importance saw, where the goal may be met. */
static int measure_seen(Session *session, const ChooseInput *input, const real *const *weights,
                        Choice *choice)
{
    size_t n_outputs = (size_t)program_outputs(session->program);
    free(choice->all);
    choice->all = NULL;
    if (!input->seen || !(choice_excess(session, input, choice) <= 1))
        return ONNXPRESS_OK;
    choice->all = calloc(n_outputs + 1, sizeof *choice->all);
    if (!choice->all)
        return error_memory(session->err, "a measurement");
    EvaluateOptions evaluate = session_evaluate_options(session, NULL);
    int rc = answers_compare(input->seen, session->program, input->data->feed, weights,
                             session->kind, &evaluate, NULL, choice->all, NULL, session->err);
    for (size_t o = 0; o < n_outputs; o++)
        distance_add(&choice->all[o], &choice->distance[o]);
    return rc;
}

int choose_measure(Session *session, const Selection *selection, const ChooseInput *input,
                   real *const *exact, Choice *choice)
{
    const QuantizeInput *in = &selection->input;
    if (!input->answers)
        return ONNXPRESS_OK;
    size_t n_outputs = (size_t)program_outputs(session->program);
    /* Rounded where they are, if the model has them to be read again: one copy is enough. */
    float *own = NULL, *values = selection->values;
    if (selection->pruned)
        values = own = malloc((in->offset[in->n_tensors] + 1) * sizeof *own);
    const real **weights = calloc((size_t)selection->n_weights + 1, sizeof *weights);
    if (!choice->distance)
        choice->distance = calloc(n_outputs + 1, sizeof *choice->distance);
    int rc = values && weights && choice->distance ? ONNXPRESS_OK
                                                   : error_memory(session->err, "a measurement");
    for (int w = 0; w < selection->n_weights && !rc && exact; w++)
        weights[w] = exact[w];
    for (int t = 0; t < selection->n_coded && !rc; t++)
        weights[selection->weight[t]] = values + in->offset[t];
    if (!rc) {
        quantize_reconstruct(in, &choice->quantized, values);
        EvaluateOptions evaluate = session_evaluate_options(session, NULL);
        choice->measured = true;
        rc = answers_compare(input->answers, session->program, input->data->feed, weights,
                             session->kind, &evaluate, input->label, choice->distance,
                             choice->score, session->err);
    }
    if (!rc)
        rc = measure_seen(session, input, weights, choice);
    if (!selection->pruned) { /* after a failure too: the search goes on from the values as they were */
        int again = select_reread(session, selection);
        rc = again ? again : rc;
    }
    free(own);
    free(weights);
    return rc;
}

int choose_values_meet(Session *session, const ChooseInput *input, const real *const *weights,
                       double part, bool *meets)
{
    size_t n_outputs = (size_t)program_outputs(session->program);
    Distance *distance = calloc(n_outputs + 1, sizeof *distance);
    Score score[2] = {{0, 0}, {0, 0}};
    EvaluateOptions evaluate = session_evaluate_options(session, NULL);
    if (!distance)
        return error_memory(session->err, "a measurement");
    int rc = answers_compare(input->answers, session->program, input->data->feed, weights,
                             session->kind, &evaluate, input->label, distance, score, session->err);
    *meets = !rc && goal_excess(session, input->answers, distance, score) <= part;
    free(distance);
    return rc;
}

static double size_excess(const Search *s, const Choice *choice)
{
    const OnnxPressOptions *options = s->session->options;
    double bytes = (double)choice->bytes;
    if (options->goal == ONNXPRESS_GOAL_RATIO)
        return options->goal_value * bytes / (double)s->input->original_bytes;
    return 8.0 * bytes / (options->goal_value * (double)s->selection->total_elements);
}

/* The search goes over y: y = step or 1/centres for goals on answers (the largest that meets is the
 * smallest file), its inverse for goals on size (the largest that meets is the most exact). */
static double x_of_y(const Search *s, double y)
{
    bool kmeans = s->session->options->method == ONNXPRESS_METHOD_KMEANS;
    return kmeans != goal_is_size(s->session->options->goal) ? 1 / y : y;
}

/* A rounding may be lucky or not, by half of its distance and more, and a search takes the lucky
 * ones: so a setting must also meet the goal by what those around it say, a distance going with the
 * square of the step (or with lambda). */
static double trend(const Search *s, double y)
{
    double power = s->session->options->method == ONNXPRESS_METHOD_ECSQ ? 1 : 2, sum = 0, n = 0;
    for (int i = 0; i < s->evaluations; i++) {
        double apart = log(y / s->tried[i]);
        if (fabs(apart) > NEIGHBOURS / power || !(s->excess[i] > 0) || !isfinite(s->excess[i]))
            continue;
        sum += log(s->excess[i]) + power * apart;
        n++;
    }
    return n > 0 ? exp(sum / n) : 0;
}

static int try_at(void *context, double y, double *excess, Error *err)
{
    (void)err; /* the session's, which all callees use */
    Search *s = context;
    Choice choice;
    bool size = goal_is_size(s->session->options->goal);
    int rc = session_progress(s->session, "search", fmin(1.0, s->evaluations / 16.0));
    if (rc)
        return rc;
    s->tried[s->evaluations] = y;
    s->excess[s->evaluations++] = *excess = INFINITY;
    rc = quantize_at(s, x_of_y(s, y), &choice);
    if (!rc)
        rc = size ? estimate_bytes(s, &choice) : measure_answers(s, &choice);
    if (rc) {
        choice_free(&choice);
        if (rc != ONNXPRESS_DATA && rc != ONNXPRESS_GOAL)
            return rc;
        /* Rounded too coarsely, a loop runs for other rounds, and too finely, there are too many levels:
         * no comparison, and so no goal met. */
        s->refusal = *s->session->err;
        *s->session->err = (Error){0};
        return ONNXPRESS_OK;
    }
    *excess = size ? size_excess(s, &choice) : choice_excess(s->session, s->input, &choice);
    s->excess[s->evaluations - 1] = *excess;
    if (!size)
        *excess = fmax(*excess, trend(s, y));
    forget_arrays(&choice); /* one set of symbols at a time: they are made again for the best */
    Choice *keep = *excess <= 1 ? &s->best : &s->nearest;
    choice_free(keep);
    *keep = choice;
    return ONNXPRESS_OK;
}

/* ---- the search ---- */

/* The step that is CHOOSE_CAUTIOUS_STEP root mean squares of the tensor it is largest for. */
static double cautious_step(const Search *s)
{
    const QuantizeInput *in = &s->selection->input;
    double step = DBL_MAX;
    for (size_t t = 0; t < in->n_tensors; t++) {
        double size = tensor_size(in, t);
        if (size > 0)
            step = fmin(step, CHOOSE_CAUTIOUS_STEP * size / (double)s->relative[t]);
    }
    return step == DBL_MAX ? 1 : step;
}

static int unreachable(Search *s)
{
    Session *session = s->session;
    if (goal_is_size(session->options->goal))
        return error_set(session->err, ONNXPRESS_GOAL,
                         "%s: the goal (%s) cannot be reached: the coarsest grid still takes %llu "
                         "bytes",
                         session->model->path, goal_text(session, s->input->answers),
                         (unsigned long long)s->nearest.bytes);
    OnnxPressDistance d;
    session_distance(session, s->nearest.distance, 0, &d);
    return error_set(session->err, ONNXPRESS_GOAL,
                     "%s: the goal (%s) cannot be reached: the finest grid tried gives KL %.3g, "
                     "relative error %.3g, largest difference %.3g",
                     session->model->path, goal_text(session, s->input->answers), d.kl,
                     d.relative_error, d.max_error);
}

/* What quantize_at needs in the scope. */
static int open_scope(Search *s, QuantizeScope scope)
{
    Session *session = s->session;
    const QuantizeInput *in = &s->selection->input;
    s->scope = scope;
    if (!s->relative) {
        s->relative = arena_array(session->arena, in->n_tensors, sizeof *s->relative);
        s->bounded = arena_array(session->arena, in->n_tensors, sizeof *s->bounded);
    }
    if (!s->relative || !s->bounded)
        return error_memory(session->err, "the search");
    int rc = quantize_relative_steps(in, scope, s->relative, session->err);
    /* What compensation takes up of a tensor's error lets its step grow. */
    if (scope == QUANTIZE_SCOPE_TENSOR && s->input->matrix)
        for (size_t t = 0; t < in->n_tensors; t++)
            s->relative[t] = (float)((double)s->relative[t] / sqrt(s->input->matrix[t].effect));
    for (size_t t = 0; t < in->n_tensors && scope == QUANTIZE_SCOPE_TENSOR && s->finer; t++)
        s->relative[t] *= s->finer[t];
    return rc;
}

int choose_at(Session *session, const Selection *selection, const ChooseInput *input,
              const Choice *like, double x, Choice *choice)
{
    Search s = {.session = session,
                .selection = selection,
                .input = input,
                .zero_half = like->zero_half,
                .finer = like->finer};
    int rc = open_scope(&s, like->scope);
    memset(choice, 0, sizeof *choice);
    if (!rc)
        rc = quantize_at(&s, x, choice);
    if (!rc)
        rc = measure_answers(&s, choice);
    if (!rc)
        rc = estimate_bytes(&s, choice);
    return rc;
}

/* The step at which rounding is expected to be as far away as the goal allows. */
static double expected_step(const Search *s)
{
    const QuantizeInput *in = &s->selection->input;
    double unit = 0;
    for (size_t t = 0; t < in->n_tensors && s->input->answers; t++) {
        double r = (double)s->relative[t], sum = 0;
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            sum += (double)in->h[i];
        unit += sensitive_expected(s->session, s->input, (int)t, sum * r * r / 12);
    }
    return unit > 0 ? 1 / sqrt(unit) : 0;
}

static void set_range(const Search *s, QuantizeRange *range)
{
    const OnnxPressOptions *options = s->session->options;
    bool size = goal_is_size(options->goal);
    double low = 1 / MOST_CENTRES, high = 0.5, guess = 1 / FIRST_CENTRES;
    if (options->method != ONNXPRESS_METHOD_KMEANS) {
        high = 2 * largest_weight(s);
        low = high / FINEST_CELLS;
        guess = expected_step(s);
        guess = guess > 0 ? fmin(fmax(guess, low), high) : sqrt(low * high);
    }
    if (options->method == ONNXPRESS_METHOD_ECSQ) {
        low *= low * unit_lambda(s);
        high *= high * unit_lambda(s);
        guess *= guess * unit_lambda(s);
    }
    if (s->near > 0) {
        low = s->near / NARROW_FINER;
        high = s->near * NARROW_COARSER;
        guess = s->near;
    }
    *range = (QuantizeRange){.low = size ? 1 / high : low,
                             .high = size ? 1 / low : high,
                             .guess = size ? 1 / guess : guess,
                             .enough = size ? ENOUGH_SIZE : ENOUGH_DISTANCE,
                             .steps = s->near > 0 ? NARROW_STEPS : SEARCH_STEPS};
}

static int search_scope(Search *s)
{
    Session *session = s->session;
    const OnnxPressOptions *options = session->options;
    bool kmeans = options->method == ONNXPRESS_METHOD_KMEANS;
    int rc = ONNXPRESS_OK;
    bool fixed = options->goal == ONNXPRESS_GOAL_STEP;
    if (fixed || !s->input->answers) {
        double x = fixed ? options->goal_value : kmeans ? 64 : cautious_step(s);
        if (!fixed && options->method == ONNXPRESS_METHOD_ECSQ)
            x *= x * unit_lambda(s);
        if (!goal_is_size(options->goal)) {
            rc = quantize_at(s, x, &s->best);
            return rc ? rc : measure_answers(s, &s->best);
        }
    }
    QuantizeRange range;
    double best;
    set_range(s, &range);
    /* Its own words on a goal out of reach know neither the goal nor how near it came. */
    Error search_err = {0};
    rc = quantize_search(&range, try_at, s, &best, &search_err);
    if (rc == ONNXPRESS_GOAL && session->err->code == ONNXPRESS_OK)
        return s->nearest.x > 0 ? unreachable(s)
                                : error_set(session->err, s->refusal.code, "%s", s->refusal.message);
    if (rc && session->err->code == ONNXPRESS_OK)
        return error_set(session->err, search_err.code, "%s", search_err.message);
    if (!rc)
        rc = quantize_again(s, &s->best);
    if (!rc && goal_is_size(options->goal))
        rc = measure_answers(s, &s->best);
    return rc;
}

static void forget(Search *s)
{
    choice_free(&s->best);
    choice_free(&s->nearest);
    s->evaluations = 0;
}

/* The search once more, with finer steps for tensors that turned out sensitive. before: what the search
 * before it returned; *found: whether there were any, and their steps have helped. */
static int search_finer(Search *s, int before, bool *found)
{
    Session *session = s->session;
    /* What just failed shows it too where the answers jump. */
    Choice *choice[] = {&s->nearest, &s->best};
    size_t n = s->selection->input.n_tensors;
    Error reason = *session->err;
    const float *others = s->finer;
    float *finer = arena_array(session->arena, n, sizeof *finer);
    *session->err = (Error){0};
    *found = false;
    int rc = finer ? ONNXPRESS_OK : error_memory(session->err, "the search");
    for (int k = 0; k < 2 && !rc && !*found; k++) {
        if (!choice[k]->measured)
            continue;
        if (!choice[k]->arena)
            rc = quantize_again(s, choice[k]);
        if (!rc)
            rc = sensitive_find(session, s->selection, s->input, choice[k], finer, found);
    }
    if (rc)
        return rc;
    if (!*found) {
        *session->err = reason;
        return before;
    }
    if (!before && !s->best.arena)
        rc = quantize_again(s, &s->best);
    if (!rc && !before)
        rc = estimate_bytes(s, &s->best);
    if (rc)
        return rc;
    for (size_t t = 0; t < n; t++) {
        s->relative[t] *= finer[t];
        finer[t] *= others ? others[t] : 1;
    }
    s->finer = finer;
    Choice without = s->best;
    memset(&s->best, 0, sizeof s->best);
    forget(s);
    rc = search_scope(s);
    if (!rc && !before)
        rc = estimate_bytes(s, &s->best);
    if (before || (rc && rc != ONNXPRESS_GOAL) || (!rc && s->best.bytes <= without.bytes)) {
        choice_free(&without);
        return rc;
    }
    /* The finest grid is no longer fine enough for the others, or finer steps save nothing. */
    for (size_t t = 0; t < n; t++)
        s->relative[t] *= (others ? others[t] : 1) / finer[t];
    s->finer = others;
    choice_free(&s->best);
    s->best = without;
    *session->err = (Error){0};
    *found = false;
    return s->best.arena ? ONNXPRESS_OK : quantize_again(s, &s->best);
}

/* The search in the scope; while one tensor's rounding decides, that of another hardly shows: so
 * sensitive ones are looked for more than once. */
static int search_sensitive(Search *s)
{
    const OnnxPressOptions *options = s->session->options;
    int rc = search_scope(s);
    /* Other importances know no distances. */
    bool found = s->scope == QUANTIZE_SCOPE_TENSOR && s->input->answers && !(s->near > 0) &&
                 !goal_is_size(options->goal) && options->goal != ONNXPRESS_GOAL_STEP &&
                 options->goal != ONNXPRESS_GOAL_MAX_DROP &&
                 options->method != ONNXPRESS_METHOD_KMEANS && !options->hessian &&
                 options->importance == ONNXPRESS_IMPORTANCE_GAUSS_NEWTON;
    for (int round = 0; round < FINER_ROUNDS && found && (!rc || rc == ONNXPRESS_GOAL); round++)
        rc = search_finer(s, rc, &found);
    return rc;
}

/* A goal on size is met by all: the one whose answers are nearest wins. Else the smaller. */
static bool is_better(const OnnxPressOptions *options, const Choice *a, const Choice *b)
{
    if (!b->bytes)
        return true;
    if (!goal_is_size(options->goal) || !a->measured || !b->measured)
        return a->bytes < b->bytes;
    return a->distance[0].kl + a->distance[0].squared < b->distance[0].kl + b->distance[0].squared;
}

/* The share of weights at zero that have not been there before. */
static double share_at_zero(const QuantizeInput *in, const Quantized *q)
{
    size_t n = in->offset[in->n_tensors], zeros = 0;
    for (size_t i = 0; i < n; i++)
        zeros += q->centre[q->symbol[i]] == 0 && in->w[i] != 0;
    return n ? (double)zeros / (double)n : 0;
}

/* Searches in one scope and keeps what is better than the choice. A goal out of reach is left in
 * *failure: another scope may reach it. */
static int search_and_keep(Search *s, QuantizeScope scope, Choice *choice, Error *failure)
{
    Session *session = s->session;
    forget_arrays(choice);
    int rc = open_scope(s, scope);
    if (!rc)
        rc = search_sensitive(s);
    if (!rc)
        rc = estimate_bytes(s, &s->best);
    if (!rc)
        s->best.at_zero = share_at_zero(&s->selection->input, &s->best.quantized);
    if (!rc && is_better(session->options, &s->best, choice)) {
        choice_free(choice);
        *choice = s->best;
        memset(&s->best, 0, sizeof s->best);
    }
    forget(s);
    if (rc == ONNXPRESS_GOAL) {
        *failure = *session->err;
        *session->err = (Error){0};
        rc = ONNXPRESS_OK;
    }
    return rc;
}

int choose_quantization(Session *session, const Selection *selection, const ChooseInput *input,
                        Choice *choice)
{
    const OnnxPressOptions *options = session->options;
    memset(choice, 0, sizeof *choice);
    Search s = {.session = session, .selection = selection, .input = input, .zero_half = 0.5f};
    int rc = ONNXPRESS_OK;
    Error failure = {0}, ignored;
    for (int scope = QUANTIZE_SCOPE_MODEL; scope <= QUANTIZE_SCOPE_TENSOR && !rc; scope++) {
        /* A step for all tensors makes no sense without data, unless it is asked for. */
        bool wanted =
            options->scope == ONNXPRESS_SCOPE_AUTO
                ? (input->answers && !input->cautious) || scope == QUANTIZE_SCOPE_TENSOR
                : (scope == QUANTIZE_SCOPE_TENSOR) == (options->scope == ONNXPRESS_SCOPE_TENSOR);
        if (wanted)
            rc = search_and_keep(&s, (QuantizeScope)scope, choice, &failure);
    }
    if (!rc && !choice->bytes)
        rc = error_set(session->err, failure.code, "%s", failure.message);
    if (!rc && choose_method(session, input) == ONNXPRESS_METHOD_COMPENSATED && input->answers &&
        options->goal != ONNXPRESS_GOAL_STEP && choice->at_zero > NARROW_SHARE) {
        s.zero_half = NARROW_HALF;
        s.near = choice->x;
        s.finer = choice->finer;
        rc = search_and_keep(&s, choice->scope, choice, &ignored);
    }
    if (!rc && !choice->arena) {
        s.zero_half = choice->zero_half;
        s.finer = choice->finer;
        rc = open_scope(&s, choice->scope);
        if (!rc)
            rc = quantize_again(&s, choice);
    }
    if (rc)
        choice_free(choice);
    return rc;
}
