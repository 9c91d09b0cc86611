/* SPDX-License-Identifier: Apache-2.0
 *
 * The loader of models: parse, every tensor, save and load again, functions inlined, the graph, the
 * program with its constants folded, and the lifting to opset 11. */
#include <string.h>

#include "autodiff/autodiff.h"
#include "fuzz/fuzz.h"
#include "model/inline.h"
#include "model/visit.h"
#include "rewrite/rewrite.h"

static int view(void *context, Onnx__TensorProto *proto)
{
    Error err = {0};
    Tensor tensor;
    int status = model_tensor(context, proto, "a tensor", &tensor, &err);
    fuzz_check_error(status, &err);
    const unsigned char *data = tensor.data;
    if (!status && data && tensor.bytes) /* the first and the last byte are there */
        FUZZ_CHECK(data[0] + data[tensor.bytes - 1] >= 0);
    return 0;
}

/* What is saved loads again and packs to as many bytes. */
static void save(const Model *model)
{
    Error err = {0};
    Model *again;
    const char *path = fuzz_path("saved.onnx");
    int status = model_save(model, path, &err);
    fuzz_check_error(status, &err);
    if (status)
        return;
    FUZZ_CHECK(model_load(path, &again, &err) == ONNXPRESS_OK);
    FUZZ_CHECK(model_packed_size(again) == model_packed_size(model));
    model_free(again);
}

static void build(Model *model)
{
    Error err = {0};
    Program *program;
    int status = model_inline(model, &err);
    if (!status)
        status = program_build(model, &program, &err);
    fuzz_check_error(status, &err);
    if (!status)
        program_free(program);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t external[64] = {1, 2, 3};
    Error err = {0};
    Model *model;
    fuzz_file("weights.bin", external, sizeof external);
    const char *path = fuzz_file("x.onnx", data, size);
    int status = model_load(path, &model, &err);
    fuzz_check_error(status, &err);
    if (status)
        return 0;
    const Visitor visitor = {.tensor = view, .context = model};
    model_visit(model->proto, &visitor);
    save(model);
    fuzz_check_error(rewrite_lift(model, &err), &err);
    build(model);
    model_free(model);
    return 0;
}
