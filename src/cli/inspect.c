/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/cli.h"

static int run(CommandLine *line)
{
    OnnxPressError error = {0};
    OnnxPressReport *report = NULL;
    int rc = (int)onnxpress_inspect(line->argument[0], &line->options, &report, &error);
    if (rc)
        return fail(&error);
    if (line->json)
        rc = report_json(report, line->json);
    if (!line->quiet && !(line->json && strcmp(line->json, "-") == 0))
        tensors_print(report);
    onnxpress_report_free(report);
    return rc;
}

const Command command_inspect = {.name = "inspect",
                                 .takes = 0,
                                 .n_arguments = 1,
                                 .arguments = "model.onnx",
                                 .summary = "list a model's tensors, and what would be coded",
                                 .example = "  onnxpress inspect model.onnx --json -\n",
                                 .run = run};
