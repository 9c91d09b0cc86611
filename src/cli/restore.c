/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static int run(CommandLine *line)
{
    OnnxPressError error = {0};
    if (!line->out) {
        fprintf(stderr, "onnxpress restore: say where to: -o plain.onnx\n");
        return ONNXPRESS_USAGE;
    }
    int rc = (int)onnxpress_restore(line->argument[0], line->out, &line->options, &error);
    if (rc)
        return fail(&error);
    if (!line->quiet)
        printf("%s -> %s: ordinary float initializers\n", line->argument[0], line->out);
    return ONNXPRESS_OK;
}

const Command command_restore = {
    .name = "restore",
    .takes = TAKES_OUT | TAKES_SIDECAR,
    .n_arguments = 1,
    .arguments = "small.onnx",
    .summary = "turn a compressed model back into ordinary float initializers",
    .example = "  onnxpress restore small.onnx -o plain.onnx\n",
    .run = run};
