/* SPDX-License-Identifier: Apache-2.0
 *
 * run_model MODEL INPUT OUTPUT.npz: runs the executor once on the arrays of INPUT (a .npz with the
 * model's input names, or a .npy for a single input) as they are, and writes every output under its
 * name. For tests/test_executor.py. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

#include "autodiff/autodiff.h"
#include "model/inline.h"
#include "tensor/npy.h"

enum { MOST = 16 };

static int read_input(const Tensor *tensor, Arena *arena, Value *value, Error *err)
{
    bool is_real = dtype_is_real(tensor->dtype);
    size_t count = (size_t)tensor->count;
    *value = (Value){.dtype = tensor->dtype, .shape = tensor->shape, .count = tensor->count};
    void *data = arena_array(arena, count, is_real ? sizeof(real) : sizeof(int64_t));
    if (!data)
        return error_memory(err, "an input");
    if (!is_real)
        return tensor_to_int64(tensor, value->i = data, err);
    value->r = data;
#ifdef ONNXPRESS_F64
    return tensor_to_double(tensor, value->r, err);
#else
    return tensor_to_float(tensor, value->r, err);
#endif
}

static int run(const char *model_path, const char *input_path, const char *output_path, Error *err)
{
    Model *model = NULL;
    Program *program = NULL;
    Exec *exec = NULL;
    NpyFile *file = NULL;
    Arena *arena = arena_create();
    Value inputs[MOST];
    Tensor outputs[MOST];
    int n = 0, status = model_load(model_path, &model, err);
    if (!status)
        status = model_inline(model, err);
    if (!status)
        status = program_build(model, &program, err);
    if (!status)
        status = npy_open(input_path, &file, err);
    if (!status)
        status = exec_create(program, 0, &exec, err);
    if (!status && (program_inputs(program) > MOST || program_outputs(program) > MOST))
        status = error_set(err, ONNXPRESS_UNSUPPORTED, "more than %d inputs or outputs", MOST);
    for (int k = 0; !status && k < program_inputs(program); k++) {
        const char *name = program_input(program, k)->name;
        const Tensor *tensor = npy_count(file) == 1 && !npy_tensor(file, 0)->name
                                   ? npy_tensor(file, 0)
                                   : npy_find(file, name);
        status = tensor ? read_input(tensor, arena, &inputs[k], err)
                        : error_set(err, ONNXPRESS_DATA, "no array for input %s", name);
    }
    if (!status)
        status = exec_forward(exec, inputs, EXEC_DISCARD, err);
    for (int k = 0; !status && k < program_outputs(program); k++) {
        const Value *value = exec_output(exec, k);
        size_t width = value->r ? sizeof(real) : sizeof(int64_t);
        outputs[n++] = (Tensor){.name = program_output(program, k)->name,
                                .dtype = !value->r                       ? DTYPE_INT64
                                         : sizeof(real) == sizeof(float) ? DTYPE_FLOAT
                                                                         : DTYPE_DOUBLE,
                                .shape = value->shape,
                                .count = value->count,
                                .data = value->r ? (const void *)value->r : value->i,
                                .bytes = (size_t)value->count * width};
    }
    if (!status)
        status = npz_write(output_path, outputs, (size_t)n, err);
    exec_free(exec);
    npy_close(file);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
    return status;
}

int main(int argc, char **argv)
{
    Error err = {0};
    openblas_set_num_threads(1);
    if (argc != 4) {
        fprintf(stderr, "usage: run_model MODEL INPUT OUTPUT.npz\n");
        return 1;
    }
    if (run(argv[1], argv[2], argv[3], &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return 0;
}
