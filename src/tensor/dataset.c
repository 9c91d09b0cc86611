/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/dataset.h"

#include <string.h>
#include <sys/stat.h>

#include "tensor/dataset_internal.h"
#include "tensor/npy.h"

const char *dataset_path(const Dataset *dataset)
{
    return dataset->path;
}

int64_t dataset_samples(const Dataset *dataset)
{
    return dataset->samples;
}

size_t dataset_inputs(const Dataset *dataset)
{
    return dataset->count;
}

const Tensor *dataset_input(const Dataset *dataset, size_t index)
{
    return &dataset->tensors[index];
}

bool dataset_is_ragged(const Dataset *dataset)
{
    return dataset->set != NULL;
}

const Tensor *dataset_sample(const Dataset *dataset, size_t index, int64_t sample)
{
    return &dataset->set[sample][index];
}

void dataset_close(Dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t f = 0; f < dataset->n_files; f++)
        npy_close(dataset->files[f]);
    npy_close(dataset->file);
    arena_destroy(dataset->arena); /* which holds the Dataset itself */
}

static int open_arrays(Dataset *dataset, Error *err)
{
    int status = npy_open(dataset->path, &dataset->file, err);
    if (status)
        return status;
    dataset->count = npy_count(dataset->file);
    dataset->tensors = arena_array(dataset->arena, dataset->count, sizeof *dataset->tensors);
    if (!dataset->tensors)
        return error_memory(err, "samples");
    for (size_t i = 0; i < dataset->count; i++)
        dataset->tensors[i] = *npy_tensor(dataset->file, i);
    return ONNXPRESS_OK;
}

static int count_samples(Dataset *dataset, Error *err)
{
    if (dataset->count == 0)
        return error_set(err, ONNXPRESS_DATA, "%s: holds no arrays", dataset->path);
    for (size_t i = 0; i < dataset->count && !dataset->set; i++) {
        const Tensor *tensor = &dataset->tensors[i];
        const char *name = tensor->name ? tensor->name : "array";
        if (tensor->shape.rank == 0)
            return error_set(err, ONNXPRESS_DATA,
                             "%s: '%s' is a single number; the first axis must "
                             "be the samples",
                             dataset->path, name);
        int64_t samples = tensor->shape.dim[0];
        if (samples == 0 || tensor->count == 0)
            return error_set(err, ONNXPRESS_DATA, "%s: '%s' holds no samples", dataset->path, name);
        if (i > 0 && samples != dataset->samples)
            return error_set(err, ONNXPRESS_DATA,
                             "%s: '%s' has %lld samples where the arrays before "
                             "it have %lld; the first axis must be the samples",
                             dataset->path, name, (long long)samples, (long long)dataset->samples);
        dataset->samples = samples;
    }
    return ONNXPRESS_OK;
}

int dataset_open(const char *path, Dataset **result, Error *err)
{
    *result = NULL;
    Arena *arena = arena_create();
    Dataset *dataset = arena ? arena_array(arena, 1, sizeof *dataset) : NULL;
    if (!dataset) {
        arena_destroy(arena);
        return error_memory(err, "samples");
    }
    dataset->arena = arena;
    dataset->path = arena_strdup(arena, path);
    struct stat info;
    int status = ONNXPRESS_OK;
    if (!dataset->path)
        status = error_memory(err, "samples");
    else if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        status = dataset_open_folder(dataset, err);
    else
        status = open_arrays(dataset, err);
    if (!status)
        status = count_samples(dataset, err);
    if (status)
        dataset_close(dataset);
    else
        *result = dataset;
    return status;
}

int dataset_made(const char *name, Arena *arena, Tensor *tensors, size_t count, Dataset **result,
                 Error *err)
{
    *result = NULL;
    Dataset *dataset = arena_array(arena, 1, sizeof *dataset);
    if (!dataset) {
        arena_destroy(arena);
        return error_memory(err, "samples");
    }
    *dataset = (Dataset){.arena = arena, .path = name, .count = count, .tensors = tensors};
    int status = count_samples(dataset, err);
    if (status)
        dataset_close(dataset);
    else
        *result = dataset;
    return status;
}

static const Tensor *find_labels(const NpyFile *file)
{
    static const char *const names[] = {"label", "labels", "y"};
    if (npy_count(file) == 1)
        return npy_tensor(file, 0);
    const Tensor *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !found; i++)
        found = npy_find(file, names[i]);
    return found;
}

static int convert_labels(const char *path, const Tensor *tensor, Arena *arena, int64_t **labels,
                          Error *err)
{
    if (!tensor)
        return error_set(err, ONNXPRESS_DATA,
                         "%s: has several arrays, none of them named label, labels or y", path);
    /* One number a sample; [N, 1] is what some loaders write. */
    if (!dtype_is_integer(tensor->dtype) || tensor->shape.rank < 1 ||
        tensor->count != tensor->shape.dim[0]) {
        char shape[200];
        return error_set(
            err, ONNXPRESS_DATA, "%s: labels must be one integer a sample, this is %s %s", path,
            dtype_name(tensor->dtype), shape_text(&tensor->shape, shape, sizeof shape));
    }
    if (tensor->count == 0)
        return error_set(err, ONNXPRESS_DATA, "%s: holds no labels", path);
    int64_t *out = arena_array(arena, (size_t)tensor->count, sizeof *out);
    if (!out)
        return error_memory(err, "labels");
    int status = tensor_to_int64(tensor, out, err);
    for (int64_t i = 0; i < tensor->count && !status; i++)
        if (out[i] < 0)
            status = error_set(err, ONNXPRESS_DATA, "%s: label %lld is %lld; labels count from 0",
                               path, (long long)i, (long long)out[i]);
    *labels = out;
    return status;
}

int labels_read(const char *path, Arena *arena, int64_t **labels, int64_t *count, Error *err)
{
    *labels = NULL;
    *count = 0;
    NpyFile *file;
    int status = npy_open(path, &file, err);
    if (status)
        return status;
    const Tensor *tensor = find_labels(file);
    status = convert_labels(path, tensor, arena, labels, err);
    if (status)
        *labels = NULL;
    else
        *count = tensor->count;
    npy_close(file);
    return status;
}
