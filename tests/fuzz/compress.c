/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole: a tiny graph is compressed on invented samples, in the form that its bytes choose, and
 * what comes out is restored. */
#include <unistd.h>

#include "entropy/entropy.h"
#include "fuzz/fuzz.h"
#include "onnxpress.h"

#define MEMORY ((size_t)32 << 20)

static void restore(const char *small, const OnnxPressOptions *options)
{
    Error err = {0};
    FUZZ_CHECK(onnxpress_restore(small, fuzz_path("back.onnx"), options, &err) == ONNXPRESS_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Error err = {0};
    OnnxPressReport *report = NULL;
    OnnxPressOptions options;
    uint32_t choice = entropy_crc32(data, size);
    onnxpress_options_init(&options);
    options.threads = 1;
    options.memory = MEMORY;
    options.calibration = choice % 8 ? "random" : NULL;
    options.form = (OnnxPressForm)(choice >> 3) % (ONNXPRESS_FORM_PLAIN + 1);
    options.method = (OnnxPressMethod)(choice >> 8) % (ONNXPRESS_METHOD_ECSQ + 1);
    options.graph = choice >> 31 ? ONNXPRESS_GRAPH_SMALL : ONNXPRESS_GRAPH_KEEP;
    options.importance = (OnnxPressImportance)(choice >> 16) % (ONNXPRESS_IMPORTANCE_NONE + 1);
    const char *model = fuzz_file("x.onnx", data, size), *small = fuzz_path("small.onnx");
    int status = (int)onnxpress_inspect(model, &options, &report, &err);
    fuzz_check_error(status, &err);
    onnxpress_report_free(report);
    if (status)
        return 0;
    err = (Error){0};
    status = (int)onnxpress_compress(model, small, &options, &report, &err);
    fuzz_check_error(status, &err);
    if (!status)
        restore(small, &options);
    else
        FUZZ_CHECK(access(small, F_OK) != 0);
    onnxpress_report_free(report);
    unlink(small);
    return 0;
}
