/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options_internal.h"

/* Room for the rows of every group, and the end row. */
#define MOST_OPTIONS 64

int usage_error(const Command *command, const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "onnxpress %s: %s %s: expected %s\n", command->name, option, value, expected);
    return ONNXPRESS_USAGE;
}

bool parse_number(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == 0 && isfinite(*value);
}

/* "0.485,0.456,0.406" */
static bool parse_numbers(const char *text, double *values, int most, int *n)
{
    for (*n = 0; *n < most; text++) {
        char *end;
        values[*n] = strtod(text, &end);
        if (end == text || !isfinite(values[*n]))
            return false;
        ++*n;
        if (*end == 0)
            return true;
        if (*end != ',')
            return false;
        text = end;
    }
    return false;
}

/* "500M", "2G", "1048576" */
static bool parse_bytes(const char *text, size_t *bytes)
{
    char *end;
    double value = strtod(text, &end);
    double unit = 1;
    if (*end == 'k' || *end == 'K')
        unit = 1024.0, end++;
    else if (*end == 'M')
        unit = 1048576.0, end++;
    else if (*end == 'G')
        unit = 1073741824.0, end++;
    value *= unit;
    if (end == text || *end || !(value >= 1) || value > 1e15)
        return false;
    *bytes = (size_t)value;
    return true;
}

int parse_word(const char *text, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    return -1;
}

static int set_goal(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    bool kmeans = raw->method && strcmp(raw->method, "kmeans") == 0;
    const struct {
        const char *option, *text;
        OnnxPressGoal goal;
    } goals[] = {{"--ratio", raw->ratio, ONNXPRESS_GOAL_RATIO},
                 {"--bits", raw->bits, ONNXPRESS_GOAL_BITS},
                 {"--max-kl", raw->max_kl, ONNXPRESS_GOAL_MAX_KL},
                 {"--max-error", raw->max_error, ONNXPRESS_GOAL_MAX_ERROR},
                 {"--max-drop", raw->max_drop, ONNXPRESS_GOAL_MAX_DROP},
                 {"--step", raw->step, ONNXPRESS_GOAL_STEP},
                 {"--lambda", raw->lambda, ONNXPRESS_GOAL_STEP},
                 {"--levels", kmeans ? raw->levels : NULL, ONNXPRESS_GOAL_STEP}};
    const char *given = NULL;
    for (size_t i = 0; i < sizeof goals / sizeof goals[0]; i++) {
        if (!goals[i].text)
            continue;
        if (given)
            return usage_error(command, given, goals[i].option, "one goal only");
        given = goals[i].option;
        options->goal = goals[i].goal;
        if (!parse_number(goals[i].text, &options->goal_value))
            return usage_error(command, given, goals[i].text, "a number");
    }
    if (raw->lambda && raw->method && strcmp(raw->method, "ecsq") != 0)
        return usage_error(command, "--lambda", raw->lambda, "--method ecsq with it");
    bool ecsq = raw->lambda || (raw->method && strcmp(raw->method, "ecsq") == 0);
    if (raw->levels && !kmeans && !ecsq)
        return usage_error(command, "--levels", raw->levels,
                           "--method kmeans or --method ecsq with it");
    return 0;
}

static int set_words(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    static const char *const methods[] = {"compensated", "uniform", "kmeans", "ecsq", NULL},
                             *const scopes[] = {"auto", "model", "tensor", NULL},
                             *const forms[] = {"auto",   "function", "inlined",
                                               "lookup", "plain",    NULL},
                             *const graphs[] = {"keep", "small", NULL},
                             *const sidecars[] = {"auto", "always", "never", NULL},
                             *const importances[] = {
                                 "gauss-newton", "becker-lecun", "empirical-fisher",
                                 "mc-fisher",    "hutchinson",   "adam",
                                 "activation",   "none",         NULL};
    const struct {
        const char *option, *text, *const *words, *expected;
    } choices[] = {{"--method", raw->method, methods, "compensated, uniform, kmeans or ecsq"},
                   {"--scope", raw->scope, scopes, "auto, model or tensor"},
                   {"--form", raw->form, forms, "auto, function, inlined, lookup or plain"},
                   {"--graph", raw->graph, graphs, "keep or small"},
                   {"--sidecar", raw->sidecar, sidecars, "auto, always or never"},
                   {"--importance", raw->importance, importances,
                    "gauss-newton, becker-lecun, empirical-fisher, mc-fisher, hutchinson, adam, "
                    "activation or none"}};
    int word[6] = {0};
    for (size_t i = 0; i < 6; i++)
        if (choices[i].text && (word[i] = parse_word(choices[i].text, choices[i].words)) < 0)
            return usage_error(command, choices[i].option, choices[i].text, choices[i].expected);
    options->method = raw->lambda ? ONNXPRESS_METHOD_ECSQ : (OnnxPressMethod)word[0];
    options->scope = (OnnxPressScope)word[1];
    options->form = (OnnxPressForm)word[2];
    options->graph = (OnnxPressGraph)word[3];
    options->sidecar = (OnnxPressSidecar)word[4];
    options->importance = (OnnxPressImportance)word[5];
    return 0;
}

static int set_numbers(const Command *command, const Raw *raw, OnnxPressOptions *options)
{
    double value;
    if (raw->mean && !parse_numbers(raw->mean, options->mean, 16, &options->n_mean))
        return usage_error(command, "--mean", raw->mean, "1 to 16 numbers with commas between");
    if (raw->std) {
        if (!parse_numbers(raw->std, options->std, 16, &options->n_std))
            return usage_error(command, "--std", raw->std, "1 to 16 numbers with commas between");
        for (int i = 0; i < options->n_std; i++)
            if (!(options->std[i] > 0))
                return usage_error(command, "--std", raw->std, "numbers above 0");
    }
    if (raw->scale) {
        if (!parse_number(raw->scale, &options->scale) || options->scale == 0)
            return usage_error(command, "--scale", raw->scale, "a number other than 0");
    }
    if (raw->threads) {
        if (!parse_number(raw->threads, &value) || value < 1 || value > 1024 ||
            value != floor(value))
            return usage_error(command, "--threads", raw->threads, "a whole number from 1 to 1024");
        options->threads = (int)value;
    }
    if (raw->levels) {
        if (!parse_number(raw->levels, &value) || value < 2 || value > 65535 ||
            value != floor(value))
            return usage_error(command, "--levels", raw->levels, "a whole number from 2 to 65535");
        options->levels = (int)value;
    }
    if (raw->memory && !parse_bytes(raw->memory, &options->memory))
        return usage_error(command, "--memory", raw->memory, "bytes, such as 500M or 2G");
    if (raw->seed) {
        if (!parse_number(raw->seed, &value) || value < 0 || value > 9e15 || value != floor(value))
            return usage_error(command, "--seed", raw->seed, "a whole number of 0 or more");
        options->seed = (uint64_t)value;
    }
    return 0;
}

size_t append_options(struct poptOption *all, size_t n, const struct poptOption *table)
{
    for (size_t i = 0; table[i].longName || table[i].shortName; i++)
        all[n++] = table[i];
    all[n] = (struct poptOption)POPT_TABLEEND;
    return n;
}

static size_t option_table(const Command *command, Raw *raw, struct poptOption *all)
{
    const char *data_name =
        command->takes & (TAKES_COMPRESS | TAKES_IMPORTANCE | TAKES_TRAINING) ? "calib" : "data";
    const struct poptOption data[] = {
        {data_name, 0, POPT_ARG_STRING, &raw->calib, 0,
         "samples: .npy, .npz (input name to array), a folder of input_*.pb, or `random`", "DATA"},
        {"labels", 0, POPT_ARG_STRING, &raw->labels, 0,
         "the samples' classes: an integer .npy (those of --validate, if given)", "LABELS"},
        {"mean", 0, POPT_ARG_STRING, &raw->mean, 0, "subtracted from each channel after scaling",
         "M,M,M"},
        {"std", 0, POPT_ARG_STRING, &raw->std, 0, "each channel is divided by it", "S,S,S"},
        {"scale", 0, POPT_ARG_STRING, &raw->scale, 0,
         "data are multiplied by it first (1/255 for uint8 data)", "X"},
        {"output", 0, POPT_ARG_ARGV, &raw->outputs, 0,
         "what an output means: logits, probabilities, bernoulli or values", "NAME=KIND"},
        POPT_TABLEEND};
    const struct poptOption out[] = {
        {"out", 'o', POPT_ARG_STRING, &raw->out, 0, "the file to write", "FILE"}, POPT_TABLEEND};
    const struct poptOption compress[] = {
        {"validate", 0, POPT_ARG_STRING, &raw->validate, 0,
         "samples on which the goal is measured (else a fifth of --calib)", "DATA"},
        {"hessian", 0, POPT_ARG_STRING, &raw->hessian, 0, "importance from `onnxpress hessian`",
         "H.npz"},
        {"ratio", 0, POPT_ARG_STRING, &raw->ratio, 0, "goal: so many times smaller", "R"},
        {"bits", 0, POPT_ARG_STRING, &raw->bits, 0, "goal: bits a weight, everything counted", "B"},
        {"max-kl", 0, POPT_ARG_STRING, &raw->max_kl, 0,
         "goal: mean KL divergence from the original's answers, nats", "D"},
        {"max-error", 0, POPT_ARG_STRING, &raw->max_error, 0,
         "goal: mean squared error of plain outputs / their variance", "E"},
        {"max-drop", 0, POPT_ARG_STRING, &raw->max_drop, 0,
         "goal: percentage points of top-1 accuracy lost (needs --labels)", "PTS"},
        {"step", 0, POPT_ARG_STRING, &raw->step, 0,
         "no goal: this step, or this number of centres (kmeans)", "X"},
        {"lambda", 0, POPT_ARG_STRING, &raw->lambda, 0,
         "no goal: ecsq with this price of a bit, in units of distortion", "L"},
        {"levels", 0, POPT_ARG_STRING, &raw->levels, 0,
         "no goal: kmeans with so many centres; ecsq: start from as many", "K"},
        {"method", 0, POPT_ARG_STRING, &raw->method, 0,
         "compensated (default), or the paper's uniform, kmeans, ecsq", "METHOD"},
        {"scope", 0, POPT_ARG_STRING, &raw->scope, 0,
         "one step for the model, one a tensor, or auto: the smaller (default)", "SCOPE"},
        {"unweighted", 0, POPT_ARG_NONE, &raw->unweighted, 0,
         "centres without importance (for comparison)", NULL},
        {"form", 0, POPT_ARG_STRING, &raw->form, 0,
         "function, inlined, lookup, plain or auto (default)", "FORM"},
        {"graph", 0, POPT_ARG_STRING, &raw->graph, 0,
         "keep the graph's names (default), or small: without what only people read", "HOW"},
        POPT_TABLEEND};
    const struct poptOption importance[] = {
        {"importance", 0, POPT_ARG_STRING, &raw->importance, 0,
         "gauss-newton (default), becker-lecun, empirical-fisher, mc-fisher, hutchinson, adam, "
         "activation or none",
         "NAME"},
        POPT_TABLEEND};
    const struct poptOption sidecar[] = {{"sidecar", 0, POPT_ARG_STRING, &raw->sidecar, 0,
                                          "streams in FILE.data: auto (default), always, never",
                                          "WHEN"},
                                         POPT_TABLEEND};
    const struct poptOption run[] = {
        {"threads", 0, POPT_ARG_STRING, &raw->threads, 0, "default: one a processor", "N"},
        {"memory", 0, POPT_ARG_STRING, &raw->memory, 0,
         "most bytes for activations (without data: for all, 1.5 GB)", "SIZE"},
        {"seed", 0, POPT_ARG_STRING, &raw->seed, 0, "of random draws (default 1)", "N"},
        POPT_TABLEEND};
    const struct poptOption common[] = {
        {"json", 0, POPT_ARG_STRING, &raw->json, 0, "the report as JSON (-: standard output)",
         "FILE"},
        {"quiet", 'q', POPT_ARG_NONE, &raw->quiet, 0, "no progress, no table", NULL},
        {"help", 'h', POPT_ARG_NONE, &raw->help, 0, "this text", NULL},
        POPT_TABLEEND};
    size_t n = 0;
    if (command->takes & TAKES_OUT)
        n = append_options(all, n, out);
    if (command->takes & TAKES_DATA)
        n = append_options(all, n, data);
    if (command->takes & TAKES_COMPRESS)
        n = append_options(all, n, compress);
    if (command->takes & TAKES_IMPORTANCE)
        n = append_options(all, n, importance);
    if (command->takes & (TAKES_TRAINING | TAKES_TUNING))
        n = append_training(command, raw, all, n);
    if (command->takes & TAKES_SIDECAR)
        n = append_options(all, n, sidecar);
    if (command->takes & TAKES_RUN)
        n = append_options(all, n, run);
    return append_options(all, n, common);
}

static int set_options(const Command *command, Raw *raw, CommandLine *line)
{
    OnnxPressOptions *options = &line->options;
    onnxpress_options_init(options);
    options->calibration = raw->calib;
    options->validation = raw->validate;
    options->labels = raw->labels;
    options->hessian = raw->hessian;
    options->unweighted = raw->unweighted;
    options->outputs = (const char *const *)raw->outputs;
    while (raw->outputs && raw->outputs[options->n_outputs])
        options->n_outputs++;
    line->out = raw->out;
    line->json = raw->json;
    line->quiet = raw->quiet;
    int rc = set_goal(command, raw, options);
    if (!rc)
        rc = set_words(command, raw, options);
    if (!rc)
        rc = set_numbers(command, raw, options);
    if (!rc)
        rc = set_training(command, raw, options);
    return rc;
}

void command_line_free(CommandLine *line)
{
    Raw *raw = line->raw;
    for (int i = 0; i < line->n_arguments; i++)
        free(line->argument[i]);
    if (!raw)
        return;
    char *const texts[] = {
        raw->calib,     raw->validate, raw->labels, raw->hessian,   raw->out,      raw->json,
        raw->ratio,     raw->bits,     raw->max_kl, raw->max_error, raw->max_drop, raw->step,
        raw->lambda,    raw->method,   raw->scope,  raw->form,      raw->sidecar,  raw->importance,
        raw->mean,      raw->std,      raw->scale,  raw->threads,   raw->memory,   raw->seed,
        raw->levels,    raw->graph};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    char *training[sizeof raw->training / sizeof(char *)];
    memcpy(training, &raw->training, sizeof training);
    for (size_t i = 0; i < sizeof training / sizeof training[0]; i++)
        free(training[i]);
    for (size_t i = 0; raw->outputs && raw->outputs[i]; i++)
        free(raw->outputs[i]);
    free(raw->outputs);
    free(raw);
}

/* Help or a message, and the exit code; *done stays false when the command is to be run. */
static int parse(const Command *command, poptContext context, CommandLine *line, bool *done)
{
    Raw *raw = line->raw;
    int rc = poptGetNextOpt(context);
    *done = true;
    if (rc < -1) {
        fprintf(stderr, "onnxpress %s: %s: %s\n", command->name,
                poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(rc));
        return ONNXPRESS_USAGE;
    }
    if (raw->help) {
        printf("onnxpress %s: %s\n\n", command->name, command->summary);
        char usage[200];
        snprintf(usage, sizeof usage, "%s [options]", command->arguments);
        poptSetOtherOptionHelp(context, usage);
        poptPrintHelp(context, stdout, 0);
        printf("\nExample:\n%s", command->example);
        return ONNXPRESS_OK;
    }
    const char *argument;
    while ((argument = poptGetArg(context))) {
        if (line->n_arguments == command->n_arguments)
            return usage_error(command, "argument", argument, "no further file");
        line->argument[line->n_arguments++] = strdup(argument);
    }
    if (line->n_arguments < command->n_arguments) {
        fprintf(stderr, "onnxpress %s: expected %s; onnxpress %s --help shows an example\n",
                command->name, command->arguments, command->name);
        return ONNXPRESS_USAGE;
    }
    rc = set_options(command, raw, line);
    *done = rc != 0;
    return rc;
}

int command_line_parse(const Command *command, int argc, const char **argv, CommandLine *line,
                       bool *done)
{
    struct poptOption table[MOST_OPTIONS];
    memset(line, 0, sizeof *line);
    *done = true;
    line->raw = calloc(1, sizeof *line->raw);
    if (!line->raw) {
        fprintf(stderr, "onnxpress: out of memory\n");
        return ONNXPRESS_MEMORY;
    }
    option_table(command, line->raw, table);
    char name[40]; /* as popt's usage line is to show it */
    snprintf(name, sizeof name, "onnxpress %s", command->name);
    argv[0] = name;
    poptContext context = poptGetContext("onnxpress", argc, argv, table, 0);
    int rc = parse(command, context, line, done);
    poptFreeContext(context);
    return rc;
}
