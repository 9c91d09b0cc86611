/* SPDX-License-Identifier: Apache-2.0
 *
 * What a run may take where the caller sets no bound: a file of a few bytes can ask for any amount. Real
 * graphs stay far below: activations grow with the inputs and with the weights. */
#include "autodiff/internal.h"

#include <unistd.h>

#define LEAST_BYTES ((size_t)1 << 30)
#define BYTES_A_FILE_BYTE 256
#define BYTES_AN_INPUT_BYTE 4096
#define LEAST_ROUNDS ((int64_t)1 << 16)

static size_t file_bytes(const Program *program)
{
    return (size_t)(program->model->file_bytes + program->model->external_bytes);
}

static size_t input_bytes(const Program *program, const Value *inputs)
{
    size_t bytes = 0;
    for (int k = 0; inputs && k < program->n_inputs; k++)
        bytes += (size_t)inputs[k].count * (inputs[k].r ? sizeof(real) : sizeof(int64_t));
    return bytes;
}

size_t limit_memory(const Program *program, const Value *inputs)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t machine = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX;
    size_t from_file, from_inputs, limit;
    if (!size_mul(file_bytes(program), BYTES_A_FILE_BYTE, &from_file) ||
        !size_mul(input_bytes(program, inputs), BYTES_AN_INPUT_BYTE, &from_inputs) ||
        __builtin_add_overflow(from_file, from_inputs, &limit) ||
        __builtin_add_overflow(limit, LEAST_BYTES, &limit))
        return machine;
    return limit < machine ? limit : machine;
}

int64_t limit_rounds(const Program *program, const Value *inputs)
{
    size_t given = file_bytes(program) + input_bytes(program, inputs);
    return given < (size_t)INT64_MAX - (size_t)LEAST_ROUNDS ? LEAST_ROUNDS + (int64_t)given
                                                            : INT64_MAX;
}
