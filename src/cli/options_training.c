/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "cli/options_internal.h"

/* Pixels of --augment shift: what small images bear without losing their object. */
#define SHIFT_PIXELS 2

size_t append_training(const Command *command, Raw *raw, struct poptOption *all, size_t n)
{
    bool tuning = command->takes & TAKES_TUNING;
    const struct poptOption finetune[] = {
        {"epochs", 0, POPT_ARG_STRING, &raw->training.epochs, 0,
         "passes over the samples (default 3)", "N"},
        {"checkpoint", 0, POPT_ARG_STRING, &raw->training.checkpoint, 0,
         "written after each epoch, and resumed from", "FILE"},
        {"teacher", 0, POPT_ARG_STRING, &raw->training.teacher, 0,
         "a model whose answers are the target; with labels, half of it", "MODEL"},
        {"hessian", 0, POPT_ARG_STRING, &raw->hessian, 0,
         "importance from `onnxpress hessian`, for --prune-by damage and auto", "H.npz"},
        {"prune-until", 0, POPT_ARG_STRING, &raw->training.prune_until, 0,
         "share of the run after which pruning is over (default 0.6)", "SHARE"},
        POPT_TABLEEND};
    const struct poptOption tune[] = {
        {"finetune", 0, POPT_ARG_STRING, &raw->training.finetune, 0,
         "train the shared centres for so many epochs, after the quantization", "EPOCHS"},
        {"train", 0, POPT_ARG_STRING, &raw->training.train, 0,
         "samples for --finetune and --batch-norm (else those of --calib)", "DATA"},
        {"train-labels", 0, POPT_ARG_STRING, &raw->training.train_labels, 0,
         "their classes (without any labels the original's answers are the teacher)", "LABELS"},
        {"centre-gradient", 0, POPT_ARG_STRING, &raw->training.centre_gradient, 0,
         "of a centre: the mean of its weights' (default), or the hessian-weighted mean", "HOW"},
        POPT_TABLEEND};
    const struct poptOption both[] = {
        {"batch", 0, POPT_ARG_STRING, &raw->training.batch, 0, "samples a step (default 64)", "N"},
        {"rate", 0, POPT_ARG_STRING, &raw->training.rate, 0,
         tuning ? "learning rate, of the centres' mean size (default 0.01)"
                : "learning rate (default 0.001)",
         "R"},
        {"optimizer", 0, POPT_ARG_STRING, &raw->training.optimizer, 0, "adam (default) or sgd",
         "NAME"},
        {"schedule", 0, POPT_ARG_STRING, &raw->training.schedule, 0,
         "the rate's: cosine (default: half of one, down to 0), step or constant", "NAME"},
        {"step-epochs", 0, POPT_ARG_STRING, &raw->training.step_epochs, 0,
         "schedule step: epochs from one step to the next (default 10)", "N"},
        {"factor", 0, POPT_ARG_STRING, &raw->training.factor, 0,
         "schedule step: what each multiplies the rate by (default 0.1)", "F"},
        {"warmup", 0, POPT_ARG_STRING, &raw->training.warmup, 0,
         "steps during which the rate grows from 0 (default 0)", "STEPS"},
        {"decay", 0, POPT_ARG_STRING, &raw->training.decay, 0,
         "weight decay, of weights of two axes or more (default 0)", "D"},
        {"augment", 0, POPT_ARG_STRING, &raw->training.augment, 0,
         "shift (2 pixels), flip (left to right), or shift,flip", "HOW"},
        {"batch-norm", 0, POPT_ARG_STRING, &raw->training.batch_norm, 0,
         "mean and variance of batch normalization: fixed (default), reestimate after it on the "
         "samples, or train (each minibatch's own, then reestimated)",
         "HOW"},
        {"prune", 0, POPT_ARG_STRING, &raw->training.prune, 0,
         tuning ? "share of the weights to remove before the quantization; auto: what makes the "
                  "smallest file"
                : "share of the weights to remove, gradually; auto: by what h w^2 / 2 says it costs",
         "FRACTION"},
        {"prune-by", 0, POPT_ARG_STRING, &raw->training.prune_by, 0,
         "what goes first: the least size (default), or the least damage, h w^2", "HOW"},
        {"prune-scope", 0, POPT_ARG_STRING, &raw->training.prune_scope, 0,
         "one threshold for the model (default), or one a tensor", "SCOPE"},
        POPT_TABLEEND};
    n = append_options(all, n, tuning ? tune : finetune);
    return append_options(all, n, both);
}

typedef struct {
    const char *option, *text, *expected;
    double low, high; /* both allowed */
    bool whole;
    double *number;   /* one of these two */
    int *integer;
} NumberOption;

static int set_number(const Command *command, const NumberOption *o)
{
    double value;
    if (!o->text)
        return 0;
    if (!parse_number(o->text, &value) || value < o->low || value > o->high ||
        (o->whole && value != floor(value)))
        return usage_error(command, o->option, o->text, o->expected);
    if (o->integer)
        *o->integer = (int)value;
    else
        *o->number = value;
    return 0;
}

static int set_training_numbers(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    const char *whole = "a whole number from 1";
    const double tiny = 1e-300; /* the least that is above 0 */
    const NumberOption numbers[] = {
        {"--epochs", raw->training.epochs, whole, 1, 100000, true, NULL, &options->epochs},
        {"--finetune", raw->training.finetune, whole, 1, 100000, true, NULL, &options->epochs},
        {"--batch", raw->training.batch, whole, 1, 100000, true, NULL, &options->batch},
        {"--step-epochs", raw->training.step_epochs, whole, 1, 100000, true, NULL,
         &options->step_epochs},
        {"--warmup", raw->training.warmup, "a whole number of steps", 0, 1e9, true, NULL,
         &options->warmup},
        {"--rate", raw->training.rate, "a number above 0", tiny, 1e300, false, &options->rate, NULL},
        {"--factor", raw->training.factor, "a number above 0, at most 1", tiny, 1, false,
         &options->factor, NULL},
        {"--decay", raw->training.decay, "a number from 0", 0, 1e300, false, &options->decay, NULL},
        {"--prune-until", raw->training.prune_until, "a share of the run, above 0 and at most 1",
         tiny, 1, false, &options->prune_until, NULL}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        int rc = set_number(command, &numbers[i]);
        if (rc)
            return rc;
    }
    const char *prune = raw->training.prune;
    if (prune && strcmp(prune, "auto") == 0)
        options->prune = ONNXPRESS_PRUNE_AUTO;
    else if (prune && (!parse_number(prune, &options->prune) || !(options->prune > 0) ||
                       options->prune >= 1))
        return usage_error(command, "--prune", prune,
                           "the share of weights to remove, above 0 and below 1, or auto");
    return 0;
}

static int set_training_words(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    static const char *const optimizers[] = {"adam", "sgd", NULL},
                             *const schedules[] = {"cosine", "step", "constant", NULL},
                             *const gradients[] = {"mean", "hessian", NULL},
                             *const norms[] = {"fixed", "reestimate", "train", NULL},
                             *const measures[] = {"size", "damage", NULL},
                             *const scopes[] = {"auto", "model", "tensor", NULL};
    const struct {
        const char *option, *text, *const *words, *expected;
    } choices[] = {
        {"--optimizer", raw->training.optimizer, optimizers, "adam or sgd"},
        {"--schedule", raw->training.schedule, schedules, "cosine, step or constant"},
        {"--centre-gradient", raw->training.centre_gradient, gradients, "mean or hessian"},
        {"--batch-norm", raw->training.batch_norm, norms, "fixed, reestimate or train"},
        {"--prune-by", raw->training.prune_by, measures, "size or damage"},
        {"--prune-scope", raw->training.prune_scope, scopes, "model or tensor"}};
    int word[6] = {0};
    for (size_t i = 0; i < 6; i++)
        if (choices[i].text && (word[i] = parse_word(choices[i].text, choices[i].words)) < 0)
            return usage_error(command, choices[i].option, choices[i].text, choices[i].expected);
    options->sgd = word[0];
    options->schedule = (OnnxPressSchedule)word[1];
    options->centre_gradient = (OnnxPressCentre)word[2];
    options->batch_norm = (OnnxPressNorm)word[3];
    options->prune_by = (OnnxPressPruneBy)word[4];
    options->prune_scope = (OnnxPressScope)word[5];
    const char *a = raw->training.augment;
    if (!a)
        return 0;
    bool both = !strcmp(a, "shift,flip") || !strcmp(a, "flip,shift");
    if (!both && strcmp(a, "shift") != 0 && strcmp(a, "flip") != 0)
        return usage_error(command, "--augment", a, "shift, flip or shift,flip");
    options->shift = both || !strcmp(a, "shift") ? SHIFT_PIXELS : 0;
    options->flip = both || !strcmp(a, "flip");
    return 0;
}

/* What would be without effect is a mistake of the user's. */
static int check_company(const Command *command, const Raw *raw)
{
    const char *pruning = raw->training.prune;
    bool steps = raw->training.schedule && strcmp(raw->training.schedule, "step") == 0;
    bool training = !(command->takes & TAKES_TUNING) || raw->training.finetune;
    bool samples = training || raw->training.batch_norm;
    const struct {
        const char *option, *text;
        bool fine;
        const char *expected;
    } rules[] = {
        {"--prune-by", raw->training.prune_by, pruning, "--prune FRACTION with it"},
        {"--prune-scope", raw->training.prune_scope, pruning, "--prune FRACTION with it"},
        {"--prune-until", raw->training.prune_until, pruning, "--prune FRACTION with it"},
        {"--step-epochs", raw->training.step_epochs, steps, "--schedule step with it"},
        {"--factor", raw->training.factor, steps, "--schedule step with it"},
        {"--batch", raw->training.batch, training, "--finetune EPOCHS with it"},
        {"--rate", raw->training.rate, training, "--finetune EPOCHS with it"},
        {"--optimizer", raw->training.optimizer, training, "--finetune EPOCHS with it"},
        {"--schedule", raw->training.schedule, training, "--finetune EPOCHS with it"},
        {"--warmup", raw->training.warmup, training, "--finetune EPOCHS with it"},
        {"--decay", raw->training.decay, training, "--finetune EPOCHS with it"},
        {"--augment", raw->training.augment, training, "--finetune EPOCHS with it"},
        {"--centre-gradient", raw->training.centre_gradient, training, "--finetune EPOCHS with it"},
        {"--train-labels", raw->training.train_labels, training, "--finetune EPOCHS with it"},
        {"--train", raw->training.train, samples, "--finetune or --batch-norm with it"}};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (rules[i].text && !rules[i].fine)
            return usage_error(command, rules[i].option, rules[i].text, rules[i].expected);
    return 0;
}

int set_training(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    int rc = set_training_numbers(command, raw, options);
    if (!rc)
        rc = set_training_words(command, raw, options);
    options->checkpoint = raw->training.checkpoint;
    options->teacher = raw->training.teacher;
    options->train = raw->training.train;
    options->train_labels = raw->training.train_labels;
    return rc ? rc : check_company(command, raw);
}
