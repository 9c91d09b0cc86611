/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static int run(CommandLine *line)
{
    OnnxPressError error = {0};
    OnnxPressReport *report = NULL;
    if (!line->out) {
        fprintf(stderr, "onnxpress finetune: say where to: -o tuned.onnx\n");
        return ONNXPRESS_USAGE;
    }
    progress_install(line);
    int rc = (int)onnxpress_finetune(line->argument[0], line->out, &line->options, &report, &error);
    if (rc)
        return fail(&error);
    progress_clear();
    for (size_t i = 0; i < report->n_warnings; i++)
        fprintf(stderr, "onnxpress: note: %s\n", report->warnings[i]);
    if (line->json)
        rc = report_json(report, line->json);
    if (!line->quiet && !(line->json && strcmp(line->json, "-") == 0)) {
        printf("%s -> %s\n", report->input, report->output);
        training_print(report);
        printf("  %-14s %12.2f s, %.0f MB at the peak\n", "cost", report->seconds,
               (double)report->peak_rss_bytes / 1e6);
    }
    onnxpress_report_free(report);
    return rc;
}

const Command command_finetune = {
    .name = "finetune",
    .takes = TAKES_DATA | TAKES_OUT | TAKES_RUN | TAKES_TRAINING | TAKES_IMPORTANCE,
    .n_arguments = 1,
    .arguments = "model.onnx",
    .summary = "train a model's weights, and prune them",
    .example =
        "  onnxpress finetune model.onnx -o pruned.onnx --calib train.npy --labels labels.npy \\\n"
        "      --epochs 15 --prune 0.95 --augment shift\n"
        "  onnxpress compress pruned.onnx -o small.onnx --calib images.npy --finetune 5\n"
        "  Without --labels the original's own answers are the teacher. Zeros of an earlier\n"
        "  pruning stay zeros.\n",
    .run = run};
