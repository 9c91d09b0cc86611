/* SPDX-License-Identifier: Apache-2.0
 *
 * .npy and .npz, as arrays, as samples and as labels. */
#include <stdlib.h>

#include "fuzz/fuzz.h"
#include "tensor/dataset.h"
#include "tensor/npy.h"

static void read_all(const NpyFile *file)
{
    for (size_t k = 0; k < npy_count(file); k++) {
        const Tensor *tensor = npy_tensor(file, k);
        Error err = {0};
        double *value = malloc((size_t)tensor->count * sizeof *value + 1);
        FUZZ_CHECK(value);
        FUZZ_CHECK(!tensor->name || npy_find(file, tensor->name) == tensor);
        fuzz_check_error(tensor_to_double(tensor, value, &err), &err);
        free(value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Error err = {0};
    NpyFile *file;
    Dataset *dataset = NULL;
    Arena *arena = arena_create();
    const char *path = fuzz_file("x.npz", data, size);
    int status = npy_open(path, &file, &err);
    fuzz_check_error(status, &err);
    if (!status) {
        read_all(file);
        npy_close(file);
    }
    err = (Error){0};
    fuzz_check_error(dataset_open(path, &dataset, &err), &err);
    dataset_close(dataset);
    int64_t *label, count;
    err = (Error){0};
    fuzz_check_error(labels_read(path, arena, &label, &count, &err), &err);
    arena_destroy(arena);
    return 0;
}
