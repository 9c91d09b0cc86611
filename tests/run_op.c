/* SPDX-License-Identifier: Apache-2.0
 *
 * run_op FOLDER...: runs each FOLDER/model.onnx on FOLDER/input_K.pb and compares with
 * FOLDER/output_K.pb, one line a folder: "passed NAME", "skipped NAME: why" (no row for an op, or a
 * type that the executor does not hold) or "failed NAME: why". For tests/test_conformance.py. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/autodiff.h"
#include "tensor/file.h"
#include "tensor/proto_view.h"

enum { MOST = 16 };

/* As onnx's own runner, but for sums in another order. */
#define RELATIVE 1e-3
#define RELATIVE_BFLOAT16 1e-2 /* we compute in float32 and do not round to its 8 bits */
#define ABSOLUTE 1e-5

/* ONNXPRESS_IO: there is no such file. */
static int read_tensor(const char *folder, const char *kind, int k, Arena *arena, Value *value,
                       Error *err)
{
    const char *path = arena_printf(arena, "%s/%s_%d.pb", folder, kind, k);
    FileMap map;
    Tensor tensor = {.name = path};
    int status = file_map(path, &map, err);
    if (status)
        return status;
    Onnx__TensorProto *proto = onnx__tensor_proto__unpack(NULL, map.size, map.data);
    if (!proto)
        status = error_set(err, ONNXPRESS_UNSUPPORTED, "%s: not a tensor", path);
    else
        status = proto_view(proto, path, arena, &tensor, err);
    bool is_real = dtype_is_real(tensor.dtype);
    if (!status && !is_real && !dtype_is_integer(tensor.dtype))
        status =
            error_set(err, ONNXPRESS_UNSUPPORTED, "%s: is of %s", path, dtype_name(tensor.dtype));
    if (!status) {
        size_t count = (size_t)tensor.count;
        *value = (Value){.dtype = tensor.dtype, .shape = tensor.shape, .count = tensor.count};
        if (is_real) {
            value->r = arena_array(arena, count, sizeof(real));
            status = tensor_to_float(&tensor, value->r, err);
        } else {
            value->i = arena_array(arena, count, sizeof(int64_t));
            status = tensor_to_int64(&tensor, value->i, err);
        }
    }
    if (proto)
        onnx__tensor_proto__free_unpacked(proto, NULL);
    file_unmap(&map);
    return status;
}

static double element(const Value *value, int64_t e)
{
    return value->r ? (double)value->r[e] : (double)value->i[e];
}

static int compare(int k, const Value *got, const Value *wanted, Error *err)
{
    char ours[100], theirs[100];
    if (got->dtype != wanted->dtype || !shape_equal(&got->shape, &wanted->shape))
        return error_set(err, ONNXPRESS_DATA, "output %d is %s %s, not %s %s", k,
                         dtype_name(got->dtype), shape_text(&got->shape, ours, sizeof ours),
                         dtype_name(wanted->dtype),
                         shape_text(&wanted->shape, theirs, sizeof theirs));
    double relative = wanted->dtype == DTYPE_BFLOAT16 ? RELATIVE_BFLOAT16 : RELATIVE;
    for (int64_t e = 0; e < got->count; e++) {
        double x = element(got, e), y = element(wanted, e);
        if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= ABSOLUTE + relative * fabs(y))
            continue;
        return error_set(err, ONNXPRESS_DATA, "element %lld of output %d is %.9g, not %.9g",
                         (long long)e, k, x, y);
    }
    return ONNXPRESS_OK;
}

/* ONNXPRESS_UNSUPPORTED: to be skipped. */
static int run(const char *folder, Arena *arena, Error *err)
{
    Model *model = NULL;
    Program *program = NULL;
    Exec *exec = NULL;
    Value inputs[MOST], wanted;
    int status = model_load(arena_printf(arena, "%s/model.onnx", folder), &model, err);
    if (!status)
        status = program_build(model, &program, err);
    if (!status && program_unsupported(program))
        status = error_set(err, ONNXPRESS_UNSUPPORTED, "%s", program_unsupported(program));
    if (!status && program_inputs(program) > MOST)
        status = error_set(err, ONNXPRESS_UNSUPPORTED, "more than %d inputs", MOST);
    for (int k = 0; !status && k < program_inputs(program); k++)
        status = read_tensor(folder, "input", k, arena, &inputs[k], err);
    if (!status)
        status = exec_create(program, 0, &exec, err);
    if (!status)
        status = exec_forward(exec, inputs, EXEC_DISCARD, err);
    for (int k = 0; !status && k < program_outputs(program); k++) {
        status = read_tensor(folder, "output", k, arena, &wanted, err);
        if (!status)
            status = compare(k, exec_output(exec, k), &wanted, err);
    }
    exec_free(exec);
    program_free(program);
    model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    openblas_set_num_threads(1);
    for (int k = 1; k < argc; k++) {
        Error err = {0};
        Arena *arena = arena_create();
        const char *slash = strrchr(argv[k], '/');
        const char *name = slash ? slash + 1 : argv[k];
        int status = run(argv[k], arena, &err);
        if (status)
            printf("%s %s: %s\n", status == ONNXPRESS_UNSUPPORTED ? "skipped" : "failed", name,
                   err.message);
        else
            printf("passed %s\n", name);
        fflush(stdout);
        arena_destroy(arena);
    }
    return 0;
}
