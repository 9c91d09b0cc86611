/* What the files of the option parser share: the texts that popt stores, before they are checked.
 * Nonsense is refused with our own words. The options point into the texts, so they live as long as
 * the command line. */
#ifndef ONNXPRESS_CLI_OPTIONS_INTERNAL_H
#define ONNXPRESS_CLI_OPTIONS_INTERNAL_H

#include <popt.h>
#include <stddef.h>

#include "cli/cli.h"

struct Raw {
    char *calib, *validate, *labels, *hessian, *out, *json;
    char *ratio, *bits, *max_kl, *max_error, *max_drop, *step, *lambda, *levels;
    char *method, *scope, *form, *graph, *sidecar, *importance;
    char *mean, *std, *scale, *threads, *memory, *seed;
    struct {
        char *epochs, *finetune, *train, *train_labels, *batch, *rate, *optimizer, *schedule;
        char *step_epochs, *factor, *warmup, *decay, *augment, *checkpoint, *teacher, *centre_gradient;
        char *batch_norm, *prune, *prune_by, *prune_scope, *prune_until;
    } training;
    char **outputs;
    int quiet, unweighted, help;
};
typedef struct Raw Raw;

/* Ends the parse with a message; always non-zero. */
int usage_error(const Command *command, const char *option, const char *value,
                const char *expected);
bool parse_number(const char *text, double *value);
/* The position of `text` among `words`; -1 when it is none of them. */
int parse_word(const char *text, const char *const *words);

/* A copy of the rows of `table` (an end row included) appended to `all`; the new number of rows. */
size_t append_options(struct poptOption *all, size_t n, const struct poptOption *table);

/* options_training.c: what finetune and compress take about training and pruning. */
size_t append_training(const Command *command, Raw *raw, struct poptOption *all, size_t n);
int set_training(const Command *command, const Raw *raw, OnnxPressOptions *options);

#endif
