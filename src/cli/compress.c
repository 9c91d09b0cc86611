/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* model.onnx (or model.onnx.zst) -> model.small.onnx */
static char *default_output(const char *input)
{
    size_t length = strlen(input);
    if (length > 4 && strcmp(input + length - 4, ".zst") == 0)
        length -= 4;
    if (length > 5 && strncmp(input + length - 5, ".onnx", 5) == 0)
        length -= 5;
    char *output = malloc(length + sizeof ".small.onnx");
    if (output) {
        memcpy(output, input, length);
        strcpy(output + length, ".small.onnx");
    }
    return output;
}

static int run(CommandLine *line)
{
    char *made = line->out ? NULL : default_output(line->argument[0]);
    const char *output = line->out ? line->out : made;
    OnnxPressError error = {0};
    OnnxPressReport *report = NULL;
    if (!output) {
        fprintf(stderr, "onnxpress: out of memory\n");
        return ONNXPRESS_MEMORY;
    }
    progress_install(line);
    int rc = (int)onnxpress_compress(line->argument[0], output, &line->options, &report, &error);
    free(made);
    if (rc)
        return fail(&error);
    progress_clear();
    for (size_t i = 0; i < report->n_warnings; i++)
        fprintf(stderr, "onnxpress: note: %s\n", report->warnings[i]);
    if (line->json)
        rc = report_json(report, line->json);
    if (!line->quiet && !(line->json && strcmp(line->json, "-") == 0))
        report_print(report);
    onnxpress_report_free(report);
    return rc;
}

const Command command_compress = {
    .name = "compress",
    .takes = TAKES_DATA | TAKES_OUT | TAKES_COMPRESS | TAKES_TUNING | TAKES_IMPORTANCE |
             TAKES_SIDECAR | TAKES_RUN,
    .n_arguments = 1,
    .arguments = "model.onnx",
    .summary = "make a model small",
    .example =
        "  onnxpress compress model.onnx -o small.onnx --calib images.npy \\\n"
        "      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n"
        "  With no goal: the smallest file whose answers stay within a KL divergence of 0.005\n"
        "  nats and of a tenth of the model's own mean output entropy. Without -o, the result\n"
        "  is model.small.onnx; files named .onnx.zst are read and written too. Give\n"
        "  samples that the model was not trained on.\n",
    .run = run};
