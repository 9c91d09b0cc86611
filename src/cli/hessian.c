/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static int run(CommandLine *line)
{
    OnnxPressError error = {0};
    OnnxPressReport *report = NULL;
    if (!line->out) {
        fprintf(stderr, "onnxpress hessian: say where to: -o h.npz\n");
        return ONNXPRESS_USAGE;
    }
    progress_install(line);
    int rc = (int)onnxpress_hessian(line->argument[0], line->out, &line->options, &report, &error);
    if (rc)
        return fail(&error);
    progress_clear();
    if (line->json)
        rc = report_json(report, line->json);
    if (!line->quiet)
        printf("%s -> %s: importance of %lld weights from %lld samples in %.2f s\n",
               line->argument[0], line->out, (long long)report->weights,
               (long long)report->calibration_samples, report->seconds);
    onnxpress_report_free(report);
    return rc;
}

const Command command_hessian = {
    .name = "hessian",
    .takes = TAKES_DATA | TAKES_OUT | TAKES_IMPORTANCE | TAKES_RUN,
    .n_arguments = 1,
    .arguments = "model.onnx",
    .summary = "write the importance (Hessian diagonal) of every weight to a .npz",
    .example = "  onnxpress hessian model.onnx --calib images.npy -o h.npz\n"
               "  onnxpress compress model.onnx --calib images.npy --hessian h.npz\n",
    .run = run};
