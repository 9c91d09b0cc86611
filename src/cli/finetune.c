/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

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
    if (line->json)
        rc = report_json(report, line->json);
    if (!line->quiet) {
        printf("%s -> %s: trained on %lld samples in %.1f s\n", line->argument[0], line->out,
               (long long)report->calibration_samples, report->seconds);
        if (line->options.labels)
            printf("  top-1 over the last epoch, while training: %.2f %%\n",
                   100 * report->distance.accuracy_small);
    }
    onnxpress_report_free(report);
    return rc;
}

const Command command_finetune = {
    .name = "finetune",
    .takes = TAKES_DATA | TAKES_OUT | TAKES_RUN | TAKES_TRAINING,
    .n_arguments = 1,
    .arguments = "model.onnx",
    .summary = "train a model's weights, and prune them",
    .example =
        "  onnxpress finetune model.onnx -o pruned.onnx --calib train.npy --labels labels.npy \\\n"
        "      --epochs 15 --prune 0.95 --augment shift\n"
        "  onnxpress compress pruned.onnx -o small.onnx --calib images.npy\n"
        "  Without --labels the original's own answers are the teacher.\n",
    .run = run};
