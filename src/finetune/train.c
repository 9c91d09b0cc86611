/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_LANES 64

/* A part of every minibatch: its blocks run one after another, in one thread. */
typedef struct {
    Exec *exec, *teacher;
    FeedStore *store;
    Value *inputs;
    real **d_out;          /* [outputs] */
    size_t *room;          /* [outputs] elements that d_out[o] holds */
    real **sum;            /* [weights] gradients over several blocks; made when first needed */
    const real **gradient; /* [weights] of the lane's part of the current minibatch */
    Objective objective;
    Error err;
} Lane;

typedef struct {
    const FinetuneTask *task;
    const FinetuneOptions *options;
    Parameters parameters;
    Progress progress;
    Lane *lane;
    const real *const **gradient; /* [lanes] */
    int n_weights, n_outputs;
    int64_t n, batch, block;           /* samples of an epoch, of a minibatch, of a forward run */
    int64_t per_epoch, steps, resumed; /* resumed: the step that this run begins with */
    int64_t *order;
    double kept;
} Trainer;

FinetuneOptions finetune_defaults(void)
{
    return (FinetuneOptions){.epochs = 1,
                             .batch = 64,
                             .lanes = 2,
                             .seed = 1,
                             .optimizer = FINETUNE_ADAM,
                             .rate = 1e-4,
                             .momentum = 0.9,
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .epsilon = 1e-8,
                             .schedule = FINETUNE_COSINE,
                             .factor = 0.1,
                             .step_epochs = 10,
                             .prune = {.to = 0.6},
                             .threads = 1};
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool is_share(double x)
{
    return x >= 0 && x < 1;
}

static int check_options(const FinetuneOptions *o, Error *err)
{
    const char *wrong = NULL;
    if (o->epochs < 1 || o->epochs > 1000000)
        wrong = "the number of epochs must be 1 to 1,000,000";
    else if (o->batch < 1 || o->lanes < 1 || o->lanes > MAX_LANES)
        wrong = "a minibatch has at least one sample, and 1 to 64 lanes";
    else if (!(o->rate > 0) || !isfinite(o->rate))
        wrong = "the learning rate must be above 0";
    else if (!is_share(o->momentum) || !is_share(o->beta1) || !is_share(o->beta2))
        wrong = "momentum, beta1 and beta2 must be at least 0 and below 1";
    else if (!(o->epsilon > 0) || !(o->decay >= 0) || !isfinite(o->decay))
        wrong = "epsilon must be above 0, the decay at least 0";
    else if (!(o->floor >= 0) || !(o->floor <= 1) || !(o->factor > 0) || o->warmup < 0)
        wrong = "the schedule's floor must be 0 to 1, its factor above 0, the warm-up at least 0";
    else if (o->shift < 0 || o->shift > 1024)
        wrong = "images can be shifted by 0 to 1,024 pixels";
    else if (o->prune.every < 0 || (o->prune.every && (!(o->prune.keep > 0) || o->prune.keep > 1)))
        wrong = "the kept fraction must be above 0 and at most 1";
    else if (o->prune.every &&
             !(o->prune.from >= 0 && o->prune.from <= o->prune.to && o->prune.to <= 1))
        wrong = "pruning begins and ends within the run: 0 <= from <= to <= 1";
    else if (o->checkpoint_steps < 0)
        wrong = "checkpoints are written every 0 or more steps";
    return wrong ? error_set(err, ONNXPRESS_USAGE, "fine-tuning: %s", wrong) : ONNXPRESS_OK;
}

static int open_lane(Trainer *t, Lane *lane, Error *err)
{
    const FinetuneTask *task = t->task;
    size_t memory = t->options->memory / (size_t)t->options->lanes;
    size_t n_outputs = (size_t)t->n_outputs + 1, n_weights = (size_t)t->n_weights + 1;
    if (t->options->memory && !memory)
        memory = 1; /* 0 would mean no bound */
    int status = exec_create(task->program, memory, &lane->exec, err);
    if (status)
        return status;
    exec_set_weights(lane->exec, (const real *const *)t->parameters.weight);
    exec_set_wanted(lane->exec, t->parameters.wanted);
    exec_set_by_batch(lane->exec, t->options->norm_by_batch);
    const Program *teacher = task->teacher ? task->teacher : task->label ? NULL : task->program;
    if (teacher && (status = exec_create(teacher, memory, &lane->teacher, err)))
        return status;
    lane->store = feed_store_create();
    lane->inputs = calloc((size_t)program_inputs(task->program) + 1, sizeof *lane->inputs);
    lane->d_out = calloc(n_outputs, sizeof *lane->d_out);
    lane->room = calloc(n_outputs, sizeof *lane->room);
    lane->sum = calloc(n_weights, sizeof *lane->sum);
    lane->gradient = calloc(n_weights, sizeof *lane->gradient);
    return lane->store && lane->inputs && lane->d_out && lane->room && lane->sum && lane->gradient
               ? ONNXPRESS_OK
               : error_memory(err, "the training");
}

static void close_lane(const Trainer *t, Lane *lane)
{
    exec_free(lane->exec);
    exec_free(lane->teacher);
    if (lane->store)
        feed_store_free(lane->store);
    for (int o = 0; lane->d_out && o < t->n_outputs; o++)
        free(lane->d_out[o]);
    for (int w = 0; lane->sum && w < t->n_weights; w++)
        free(lane->sum[w]);
    free(lane->inputs);
    free(lane->d_out);
    free(lane->room);
    free(lane->sum);
    free(lane->gradient);
}

/* Room for the gradients at the outputs that the loss reads. */
static int open_d_out(const Trainer *t, Lane *lane, Error *err)
{
    int n = t->task->label ? 1 : t->n_outputs;
    for (int o = 0; o < n; o++) {
        const Value *output = exec_output(lane->exec, o);
        size_t count = output->r ? (size_t)output->count : 0;
        if (t->task->label && !output->r)
            return error_set(err, ONNXPRESS_DATA, "output %s is of integers: it has no loss",
                             program_output(t->task->program, o)->name);
        if (lane->room[o] >= count)
            continue;
        free(lane->d_out[o]);
        lane->room[o] = 0;
        lane->d_out[o] = malloc(count * sizeof(real));
        if (!lane->d_out[o])
            return error_memory(err, "the outputs' gradients");
        lane->room[o] = count;
    }
    return ONNXPRESS_OK;
}

/* The first block's gradients are read where they are; with a second one they are added up. */
static int add_gradients(const Trainer *t, Lane *lane, bool first, bool last, Error *err)
{
    for (int w = 0; w < t->n_weights; w++) {
        const real *from = t->parameters.wanted[w] ? exec_gradient(lane->exec, w) : NULL;
        size_t n = (size_t)program_weight(t->task->program, w)->count;
        if (first && last) {
            lane->gradient[w] = from;
            continue;
        }
        if (!t->parameters.wanted[w])
            continue;
        if (!lane->sum[w] && !(lane->sum[w] = malloc((n + 1) * sizeof(real))))
            return error_memory(err, "the sum of gradients");
        real *sum = lane->sum[w];
        if (first)
            memset(sum, 0, n * sizeof *sum);
        for (size_t i = 0; from && i < n; i++)
            sum[i] += from[i];
        lane->gradient[w] = sum;
    }
    return ONNXPRESS_OK;
}

static int run_block(const Trainer *t, Lane *lane, const int64_t *sample, int64_t n, int64_t batch,
                     int64_t epoch)
{
    const FinetuneOptions *options = t->options;
    Error *err = &lane->err;
    int status = feed_batch(t->task->feed, sample, n, lane->store, lane->inputs, err);
    for (int k = 0; !status && k < program_inputs(t->task->program); k++)
        augment(&lane->inputs[k], sample, n, options->shift, options->flip, options->seed, epoch);
    exec_set_samples(lane->exec, n);
    if (!status)
        status = exec_forward(lane->exec, lane->inputs, EXEC_KEEP, err);
    if (!status && lane->teacher) {
        exec_set_samples(lane->teacher, n);
        status = exec_forward(lane->teacher, lane->inputs, EXEC_DISCARD, err);
    }
    if (!status)
        status = open_d_out(t, lane, err);
    if (!status)
        status = objective_block(t->task, lane->exec, lane->teacher, sample, n, batch, lane->d_out,
                                 &lane->objective, err);
    return status ? status : exec_backward(lane->exec, (const real *const *)lane->d_out, err);
}

static int run_lane(const Trainer *t, int l, const int64_t *sample, int64_t n, int64_t epoch)
{
    Lane *lane = &t->lane[l];
    int64_t lanes = t->options->lanes, blocks = (n + t->block - 1) / t->block;
    int status = ONNXPRESS_OK;
    lane->objective = (Objective){0};
    memset(lane->gradient, 0, (size_t)t->n_weights * sizeof *lane->gradient);
    for (int64_t b = l; !status && b < blocks; b += lanes) {
        int64_t left = n - b * t->block;
        status =
            run_block(t, lane, sample + b * t->block, left < t->block ? left : t->block, n, epoch);
        if (!status)
            status = add_gradients(t, lane, b == l, b + lanes >= blocks, &lane->err);
    }
    lane->err.code = (OnnxPressStatus)status;
    return status;
}

/* The first trained tensor with a gradient that is not finite; NULL: none. */
static const char *first_spoilt(const Trainer *t)
{
    for (int w = 0; w < t->n_weights; w++)
        for (int l = 0; l < t->options->lanes; l++) {
            const Weight *weight = program_weight(t->task->program, w);
            const real *gradient = t->lane[l].gradient[w];
            for (int64_t i = 0; gradient && i < weight->count; i++)
                if (!isfinite(gradient[i]))
                    return weight->name;
        }
    return NULL;
}

static int spoilt(const Trainer *t, double loss, Error *err)
{
    const char *name = first_spoilt(t), *path = t->options->checkpoint;
    return error_set(
        err, ONNXPRESS_DATA,
        "step %lld (epoch %lld): the loss is %g; the first gradient that is not finite "
        "is %s%s; lower the learning rate%s%s",
        (long long)t->progress.step + 1, (long long)(t->progress.step / t->per_epoch) + 1, loss,
        name ? "that of " : "none", name ? name : "", path ? "; the last good state is " : "",
        path ? path : "");
}

static int run_step(Trainer *t, Error *err)
{
    const FinetuneOptions *options = t->options;
    int64_t step = t->progress.step, epoch = step / t->per_epoch;
    int64_t first = step % t->per_epoch * t->batch, left = t->n - first;
    int64_t n = left < t->batch ? left : t->batch;
    if (first == 0 || t->order[0] < 0) {
        memcpy(t->order, t->task->sample, (size_t)t->n * sizeof *t->order);
        shuffle(t->order, t->n, options->seed, epoch);
    }
#pragma omp parallel for num_threads(options->threads) schedule(static, 1)
    for (int l = 0; l < options->lanes; l++)
        run_lane(t, l, t->order + first, n, epoch);
    Objective sum = {0};
    for (int l = 0; l < options->lanes; l++) {
        const Lane *lane = &t->lane[l];
        if (lane->err.code)
            return error_set(err, lane->err.code, "%s", lane->err.message);
        /* A wrong label is told at once, not in the minibatch that meets it. */
        if (step == t->resumed && l == 0 && t->task->label) {
            int status = objective_check_classes(t->task, lane->exec, err);
            if (status)
                return status;
        }
        sum.loss += lane->objective.loss;
        sum.correct += lane->objective.correct;
    }
    if (!isfinite(sum.loss))
        return spoilt(t, sum.loss / (double)n, err);
    double rate = schedule_rate(options, step, t->steps);
    if (!parameters_update(&t->parameters, t->gradient, options->lanes, options, rate, step + 1))
        return spoilt(t, sum.loss / (double)n, err);
    t->progress.epoch.loss += sum.loss;
    t->progress.epoch.correct += sum.correct;
    t->progress.step++;
    return ONNXPRESS_OK;
}

static int prune_after_step(Trainer *t, Error *err)
{
    const PruneSchedule *prune = &t->options->prune;
    int64_t done = t->progress.step;
    if (!prune->every)
        return ONNXPRESS_OK;
    double before = (double)(done - prune->every) / (double)t->steps;
    bool due = done % prune->every == 0 && before < prune->to;
    if (!due && done != t->steps)
        return ONNXPRESS_OK;
    int status = parameters_prune(&t->parameters, prune, (double)done / (double)t->steps, err);
    t->kept = parameters_kept(&t->parameters);
    return status;
}

static void end_epoch(Trainer *t)
{
    Progress *progress = &t->progress;
    int64_t epoch = progress->step / t->per_epoch - 1;
    progress->loss[epoch] = progress->epoch.loss / (double)t->n;
    progress->accuracy[epoch] =
        t->task->label ? (double)progress->epoch.correct / (double)t->n : NAN;
    progress->epoch = (Objective){0};
}

/* Figures of the epoch that the last step belonged to. */
static bool report(const Trainer *t, double began)
{
    const FinetuneOptions *options = t->options;
    int64_t done = t->progress.step, epoch = (done - 1) / t->per_epoch;
    int64_t seen = (done - epoch * t->per_epoch) * t->batch;
    if (!options->progress)
        return false;
    FinetuneProgress p = {.epoch = (int)epoch + 1,
                          .epochs = options->epochs,
                          .step = done,
                          .steps = t->steps,
                          .kept = t->kept,
                          .seconds = now() - began};
    p.seconds_left = p.seconds * (double)(t->steps - done) / (double)(done - t->resumed);
    if (done % t->per_epoch == 0) {
        p.loss = t->progress.loss[epoch];
        p.accuracy = t->progress.accuracy[epoch];
    } else {
        p.loss = t->progress.epoch.loss / (double)seen;
        p.accuracy = t->task->label ? (double)t->progress.epoch.correct / (double)seen : NAN;
    }
    return options->progress(options->context, &p) != 0;
}

static int train(Trainer *t, Error *err)
{
    const FinetuneOptions *options = t->options;
    double began = now();
    int status = ONNXPRESS_OK;
    t->resumed = t->progress.step;
    while (!status && t->progress.step < t->steps) {
        status = run_step(t, err);
        if (!status)
            status = prune_after_step(t, err);
        if (status)
            return status;
        bool whole = t->progress.step % t->per_epoch == 0;
        if (whole)
            end_epoch(t);
        bool stop = report(t, began) && t->progress.step < t->steps;
        bool due = whole || stop ||
                   (options->checkpoint_steps && t->progress.step % options->checkpoint_steps == 0);
        if (options->checkpoint && due)
            status = checkpoint_save(t->task, options, &t->parameters, &t->progress, err);
        if (!status && stop)
            status =
                error_set(err, ONNXPRESS_INTERRUPTED, "interrupted after step %lld of %lld%s%s",
                          (long long)t->progress.step, (long long)t->steps,
                          options->checkpoint ? "; to be resumed from " : "",
                          options->checkpoint ? options->checkpoint : "");
    }
    return status;
}

/* Sizes of blocks, minibatches and epochs, within what the graph allows. */
static int settle_sizes(Trainer *t, Error *err)
{
    int64_t most = feed_max_batch(t->task->feed), lanes = t->options->lanes;
    t->n = t->task->n;
    t->batch = t->options->batch < t->n ? t->options->batch : t->n;
    if (t->n < 1)
        return error_set(err, ONNXPRESS_DATA, "there are no samples to train with");
    for (int64_t i = 0; i < t->n; i++)
        if (t->task->sample[i] < 0 || t->task->sample[i] >= feed_samples(t->task->feed))
            return error_set(err, ONNXPRESS_INTERNAL, "sample %lld does not exist",
                             (long long)t->task->sample[i]);
    t->block = (t->batch + lanes - 1) / lanes;
    if (most != INT64_MAX) {
        t->block = most;
        t->n -= t->n % most;
        t->batch = (t->batch + most - 1) / most * most;
    }
    if (t->n < 1)
        return error_set(err, ONNXPRESS_DATA,
                         "too few samples: the model's input fixes its batch at %lld",
                         (long long)most);
    t->per_epoch = (t->n + t->batch - 1) / t->batch;
    if (!int64_mul(t->per_epoch, t->options->epochs, &t->steps))
        return error_set(err, ONNXPRESS_USAGE, "fine-tuning: too many steps");
    return ONNXPRESS_OK;
}

static int open_trainer(Trainer *t, Arena *arena, Error *err)
{
    size_t lanes = (size_t)t->options->lanes, epochs = (size_t)t->options->epochs;
    int status = parameters_create(t->task, t->options, arena, &t->parameters, err);
    if (status)
        return status;
    t->lane = calloc(lanes, sizeof *t->lane);
    t->gradient = calloc(lanes, sizeof *t->gradient);
    t->order = malloc((size_t)t->n * sizeof *t->order);
    t->progress.loss = arena_array(arena, epochs, sizeof(double));
    t->progress.accuracy = arena_array(arena, epochs, sizeof(double));
    if (!t->lane || !t->gradient || !t->order || !t->progress.loss || !t->progress.accuracy)
        return error_memory(err, "the training");
    /* Not shuffled yet: a resumed run may begin in the middle of an epoch. */
    memset(t->order, -1, (size_t)t->n * sizeof *t->order);
    for (size_t l = 0; !status && l < lanes; l++) {
        status = open_lane(t, &t->lane[l], err);
        t->gradient[l] = t->lane[l].gradient;
    }
    if (!status && t->options->checkpoint) {
        bool found;
        status = checkpoint_load(t->task, t->options, &t->parameters, &t->progress, &found, err);
        if (!status && (t->progress.step < 0 || t->progress.step > t->steps))
            status = error_set(err, ONNXPRESS_FORMAT, "%s: is damaged; remove it to start anew",
                               t->options->checkpoint);
        if (!status && found && t->task->shared)
            parameters_spread(&t->parameters, t->options->threads);
    }
    t->kept = parameters_kept(&t->parameters);
    return status;
}

static void close_trainer(Trainer *t)
{
    for (int l = 0; t->lane && l < t->options->lanes; l++)
        close_lane(t, &t->lane[l]);
    free(t->lane);
    free(t->gradient);
    free(t->order);
}

static int hand_over(const Trainer *t, Arena *arena, Finetuned *result, Error *err)
{
    const Parameters *p = &t->parameters;
    const FinetuneShared *shared = t->task->shared;
    size_t n = (size_t)t->n_weights + 1, tensors = shared ? shared->input->n_tensors : 0;
    result->weight = p->weight;
    result->mask = arena_array(arena, n, sizeof *result->mask);
    result->second_moment = arena_array(arena, n, sizeof *result->second_moment);
    result->loss = t->progress.loss;
    result->accuracy = t->progress.accuracy;
    result->steps = t->steps;
    if (!result->mask || !result->second_moment)
        return error_memory(err, "the result");
    double unbias = 1 / (1 - pow(t->options->beta2, (double)t->steps));
    for (size_t i = 0; p->v && i < p->n; i++)
        p->v[i] = (real)((double)p->v[i] * unbias);
    for (int k = 0; k < p->n_free; k++) {
        result->mask[p->free[k].weight] = p->mask ? p->mask + p->free[k].at : NULL;
        result->second_moment[p->free[k].weight] = p->v ? p->v + p->free[k].at : NULL;
    }
    if (!shared)
        return ONNXPRESS_OK;
    result->centre = arena_array(arena, (size_t)p->levels, sizeof *result->centre);
    result->scale = arena_array(arena, tensors, sizeof *result->scale);
    if (!result->centre || !result->scale)
        return error_memory(err, "the result");
    for (size_t c = 0; c < (size_t)p->levels; c++)
        result->centre[c] = (float)p->theta[p->centre_at + c];
    for (size_t k = 0; k < tensors; k++)
        result->scale[k] = (float)p->theta[p->scale_at + k];
    return ONNXPRESS_OK;
}

int finetune_run(const FinetuneTask *task, const FinetuneOptions *options, Arena *arena,
                 Finetuned *result, Error *err)
{
    FinetuneOptions own = *options;
    if (own.threads < 1)
        own.threads = 1;
    Trainer t = {.task = task,
                 .options = &own,
                 .n_weights = program_weights(task->program),
                 .n_outputs = program_outputs(task->program)};
    double began = now();
    *result = (Finetuned){0};
    int status = check_options(options, err);
    if (!status)
        status = settle_sizes(&t, err);
    if (!status)
        status = objective_check(task, err);
    if (!status)
        status = open_trainer(&t, arena, err);
    if (!status)
        status = train(&t, err);
    if (!status)
        status = hand_over(&t, arena, result, err);
    result->seconds = now() - began;
    close_trainer(&t);
    return status;
}
