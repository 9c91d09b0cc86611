/* The command line: one file a subcommand, options and reports shared.
 *
 * A program on onnxpress.h like any other. Only this folder prints and exits. Exit codes are the
 * OnnxPressStatus numbers.
 */
#ifndef ONNXPRESS_CLI_CLI_H
#define ONNXPRESS_CLI_CLI_H

#include <stdbool.h>

#include "onnxpress.h"

/* What the command line says, for all commands. */
typedef struct {
    OnnxPressOptions options;
    const char *out;  /* -o */
    const char *json; /* --json */
    int quiet;
    char *argument[2]; /* files without an option */
    int n_arguments;
    struct Raw *raw;   /* what the strings above point into */
} CommandLine;

/* Groups of options that a command takes. */
enum {
    TAKES_DATA = 1,       /* --calib/--data, --labels, preprocessing, --output */
    TAKES_OUT = 2,        /* -o */
    TAKES_COMPRESS = 4,   /* goal, method, form */
    TAKES_SIDECAR = 8,
    TAKES_IMPORTANCE = 32,
    TAKES_TRAINING = 64,  /* of weights: finetune's */
    TAKES_TUNING = 128,   /* of centres: compress's */
    TAKES_RUN = 16        /* --threads, --memory, --seed */
};

typedef struct {
    const char *name;
    int takes;
    int n_arguments;
    const char *arguments; /* for the usage line: "model.onnx" */
    const char *summary;
    const char *example;   /* whole lines, each ending in a newline */
    int (*run)(CommandLine *line);
} Command;

extern const Command command_compress, command_restore, command_inspect, command_hessian,
    command_evaluate, command_verify, command_finetune;

/* Parses argv[1..) of a command (argv[0] is its name). Returns 0; an exit code after printing help or
 * an error: *done says that the process should end with it. */
int command_line_parse(const Command *command, int argc, const char **argv, CommandLine *line,
                       bool *done);
void command_line_free(CommandLine *line);

/* One line on stderr; returns the code. */
int fail(const OnnxPressError *error);

/* Progress callback for a terminal; installs itself into the options when stderr is one. */
void progress_install(CommandLine *line);
void progress_clear(void);

/* Human-readable closing tables on stdout, JSON to a file ("-": stdout). */
void report_print(const OnnxPressReport *report);
void training_print(const OnnxPressReport *report); /* lines on training and pruning, if any */
void tensors_print(const OnnxPressReport *report);
void distance_print(const OnnxPressDistance *distance, bool two_models);
int report_json(const OnnxPressReport *report, const char *path);
int distance_json(const OnnxPressDistance *distance, const char *path);

#endif
