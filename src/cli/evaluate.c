/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/cli.h"

static int run_both(CommandLine *line, bool two_models)
{
    OnnxPressError error = {0};
    OnnxPressDistance distance;
    progress_install(line);
    OnnxPressStatus status =
        two_models ? onnxpress_verify(line->argument[0], line->argument[1], &line->options,
                                      &distance, &error)
                   : onnxpress_evaluate(line->argument[0], &line->options, &distance, &error);
    if (status)
        return fail(&error);
    progress_clear();
    int rc = ONNXPRESS_OK;
    if (line->json)
        rc = distance_json(&distance, line->json);
    if (!line->quiet && !(line->json && strcmp(line->json, "-") == 0))
        distance_print(&distance, two_models);
    return rc;
}

static int run_evaluate(CommandLine *line)
{
    return run_both(line, false);
}

static int run_verify(CommandLine *line)
{
    return run_both(line, true);
}

const Command command_evaluate = {
    .name = "evaluate",
    .takes = TAKES_DATA | TAKES_RUN,
    .n_arguments = 1,
    .arguments = "model.onnx",
    .summary = "run a model on samples; its accuracy with labels",
    .example = "  onnxpress evaluate small.onnx --data test.npy --labels test_labels.npy\n",
    .run = run_evaluate};

const Command command_verify = {
    .name = "verify",
    .takes = TAKES_DATA | TAKES_RUN,
    .n_arguments = 2,
    .arguments = "original.onnx small.onnx",
    .summary = "compare the answers of two models",
    .example = "  onnxpress verify original.onnx small.onnx --data test.npy --labels labels.npy\n",
    .run = run_verify};
