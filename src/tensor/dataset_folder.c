/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/dataset_internal.h"
#include "tensor/file.h"
#include "tensor/proto_view.h"
#include "tensor/wire.h"

/* Files or folders that are counted in their names, in that order. */
typedef struct {
    size_t count;
    long *numbers; /* ascending; malloc'ed */
} Numbered;

/* The number in prefix<number>suffix; -1 when the name is another. */
static long numbered(const char *name, const char *prefix, const char *suffix)
{
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9')
        return -1;
    char *end;
    errno = 0;
    long number = strtol(name + length, &end, 10);
    bool canonical = name[length] != '0' || end == name + length + 1; /* no leading zeros */
    return errno == 0 && canonical && strcmp(end, suffix) == 0 ? number : -1;
}

static int compare_numbers(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static int list_numbered(const char *folder, const char *prefix, const char *suffix, Numbered *list,
                         Error *err)
{
    *list = (Numbered){0, NULL};
    DIR *directory = opendir(folder);
    if (!directory)
        return error_set(err, ONNXPRESS_IO, "%s: cannot be read: %s", folder, strerror(errno));
    int status = ONNXPRESS_OK;
    size_t capacity = 0;
    for (const struct dirent *entry; !status && (entry = readdir(directory));) {
        long number = numbered(entry->d_name, prefix, suffix);
        if (number < 0)
            continue;
        if (list->count == capacity) {
            capacity = 2 * capacity + 16;
            long *larger = realloc(list->numbers, capacity * sizeof *larger);
            if (!larger) {
                status = error_memory(err, "a folder of samples");
                break;
            }
            list->numbers = larger;
        }
        list->numbers[list->count++] = number;
    }
    closedir(directory);
    if (list->count > 1)
        qsort(list->numbers, list->count, sizeof *list->numbers, compare_numbers);
    return status;
}

static int read_tensor(Dataset *dataset, const char *path, Tensor *tensor, Error *err)
{
    FileMap map;
    int status = file_map(path, &map, err);
    if (status)
        return status;
    if (map.size == 0)
        status = error_set(err, ONNXPRESS_FORMAT, "%s: is empty, not a tensor", path);
    else
        status = wire_check(&onnx__tensor_proto__descriptor, map.data, map.size, path, err);
    if (!status) {
        ProtobufCAllocator allocator = wire_allocator(dataset->arena);
        const Onnx__TensorProto *proto = onnx__tensor_proto__unpack(&allocator, map.size, map.data);
        const char *name = proto && proto->name && *proto->name ? proto->name : NULL;
        tensor->name = name ? name : path;
        if (!proto)
            status = error_memory(err, path);
        else if (proto_is_external(proto))
            status = error_set(err, ONNXPRESS_UNSUPPORTED,
                               "%s: keeps its data in another file; save "
                               "them inside",
                               path);
        else
            status = proto_view(proto, path, dataset->arena, tensor, err);
        tensor->name = name;
    }
    file_unmap(&map);
    return status;
}

/* The arrays of one folder; *count is 0 when it has none. */
static int read_set(Dataset *dataset, const char *folder, Tensor **tensors, size_t *count,
                    Error *err)
{
    Numbered files;
    int status = list_numbered(folder, "input_", ".pb", &files, err);
    *count = files.count;
    if (!status && !(*tensors = arena_array(dataset->arena, files.count, sizeof **tensors)))
        status = error_memory(err, "samples");
    for (size_t i = 0; i < files.count && !status; i++) {
        const char *path =
            arena_printf(dataset->arena, "%s/input_%ld.pb", folder, files.numbers[i]);
        status =
            path ? read_tensor(dataset, path, &(*tensors)[i], err) : error_memory(err, "samples");
    }
    free(files.numbers);
    return status;
}

/* The same but for the number of samples. */
static bool fits(const Tensor *a, const Tensor *b)
{
    if (a->dtype != b->dtype || a->shape.rank != b->shape.rank || a->shape.rank == 0 ||
        (!a->name != !b->name) || (a->name && strcmp(a->name, b->name) != 0))
        return false;
    Shape shape = b->shape;
    shape.dim[0] = a->shape.dim[0];
    return shape_equal(&a->shape, &shape);
}

/* The same name, type and rank: inputs of the same graph, of whatever shape. */
static bool alike(const Tensor *a, const Tensor *b)
{
    return a->dtype == b->dtype && a->shape.rank == b->shape.rank && (!a->name == !b->name) &&
           (!a->name || strcmp(a->name, b->name) == 0) && a->count > 0 && b->count > 0;
}

/* Sets that can't be put behind one another but are runs of one graph: a sample each. */
static bool is_ragged(const Dataset *dataset, Tensor *const *sets, size_t n_sets)
{
    bool one_shape = true;
    for (size_t s = 0; s < n_sets; s++)
        for (size_t k = 0; k < dataset->count; k++) {
            if (!alike(&sets[0][k], &sets[s][k]))
                return false;
            one_shape = one_shape && fits(&sets[0][k], &sets[s][k]);
        }
    return !one_shape;
}

/* Puts input k of all sets behind one another along the first axis. */
static int join(Dataset *dataset, Tensor *const *sets, size_t n_sets, size_t k, Error *err)
{
    Tensor *joined = &dataset->tensors[k];
    *joined = sets[0][k];
    for (size_t s = 1; s < n_sets; s++) {
        const Tensor *part = &sets[s][k];
        if (!fits(joined, part))
            return error_set(err, ONNXPRESS_DATA,
                             "%s: input %zu has another name, type or shape in set %zu than in the "
                             "first",
                             dataset->path, k, s);
        if (__builtin_add_overflow(joined->shape.dim[0], part->shape.dim[0],
                                   &joined->shape.dim[0]) ||
            __builtin_add_overflow(joined->bytes, part->bytes, &joined->bytes) ||
            __builtin_add_overflow(joined->count, part->count, &joined->count))
            return error_memory(err, "samples");
    }
    if (n_sets == 1)
        return ONNXPRESS_OK;
    unsigned char *data = arena_array(dataset->arena, joined->bytes, 1);
    if (!data)
        return error_memory(err, "samples");
    joined->data = data;
    for (size_t s = 0; s < n_sets; s++) {
        if (sets[s][k].bytes > 0)
            memcpy(data, sets[s][k].data, sets[s][k].bytes);
        data += sets[s][k].bytes;
    }
    return ONNXPRESS_OK;
}

static int join_sets(Dataset *dataset, Tensor *const *sets, size_t n_sets, Error *err)
{
    if (is_ragged(dataset, sets, n_sets)) {
        dataset->set = sets;
        dataset->tensors = sets[0];
        dataset->samples = (int64_t)n_sets;
        return ONNXPRESS_OK;
    }
    if (!(dataset->tensors = arena_array(dataset->arena, dataset->count, sizeof *dataset->tensors)))
        return error_memory(err, "samples");
    int status = ONNXPRESS_OK;
    for (size_t k = 0; k < dataset->count && !status; k++)
        status = join(dataset, sets, n_sets, k, err);
    return status;
}

static int read_sets(Dataset *dataset, const Numbered *folders, Error *err)
{
    Tensor **sets = arena_array(dataset->arena, folders->count, sizeof *sets);
    if (!sets)
        return error_memory(err, "samples");
    for (size_t s = 0; s < folders->count; s++) {
        size_t count = 0;
        const char *folder = arena_printf(dataset->arena, "%s/test_data_set_%ld", dataset->path,
                                          folders->numbers[s]);
        int status = folder ? read_set(dataset, folder, &sets[s], &count, err)
                            : error_memory(err, "samples");
        if (status)
            return status;
        if (s > 0 && count != dataset->count)
            return error_set(err, ONNXPRESS_DATA,
                             "%s: has %zu inputs where the sets before it have "
                             "%zu",
                             folder, count, dataset->count);
        dataset->count = count;
    }
    return join_sets(dataset, sets, folders->count, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The .npz files of the folder, by name. */
static int list_npz(Dataset *dataset, char ***names, size_t *count, Error *err)
{
    DIR *directory = opendir(dataset->path);
    size_t capacity = 0;
    int status = ONNXPRESS_OK;
    *names = NULL;
    *count = 0;
    if (!directory)
        return error_set(err, ONNXPRESS_IO, "%s: cannot be read: %s", dataset->path,
                         strerror(errno));
    for (const struct dirent *entry; !status && (entry = readdir(directory));) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 4, ".npz") != 0)
            continue;
        if (*count == capacity) {
            capacity = 2 * capacity + 16;
            char **larger = arena_array(dataset->arena, capacity, sizeof *larger);
            if (larger && *count)
                memcpy(larger, *names, *count * sizeof *larger);
            *names = larger;
        }
        if (!*names || !((*names)[*count] = arena_printf(dataset->arena, "%s/%s", dataset->path,
                                                         entry->d_name)))
            status = error_memory(err, "a folder of samples");
        else
            ++*count;
    }
    closedir(directory);
    if (!status && *count > 1)
        qsort(*names, *count, sizeof **names, compare_names);
    return status;
}

static int read_npz_sets(Dataset *dataset, char **names, size_t n, Error *err)
{
    Arena *arena = dataset->arena;
    Tensor **sets = arena_array(arena, n, sizeof *sets);
    dataset->files = arena_array(arena, n, sizeof *dataset->files);
    if (!sets || !dataset->files)
        return error_memory(err, "samples");
    for (size_t s = 0; s < n; s++) {
        int status = npy_open(names[s], &dataset->files[s], err);
        if (status)
            return status;
        dataset->n_files = s + 1;
        size_t count = npy_count(dataset->files[s]);
        if (s > 0 && count != dataset->count)
            return error_set(err, ONNXPRESS_DATA, "%s: has %zu arrays where %s has %zu", names[s],
                             count, names[0], dataset->count);
        dataset->count = count;
        if (!(sets[s] = arena_array(arena, count + 1, sizeof **sets)))
            return error_memory(err, "samples");
        for (size_t k = 0; k < count; k++)
            sets[s][k] = *npy_tensor(dataset->files[s], k);
    }
    return join_sets(dataset, sets, n, err);
}

int dataset_open_folder(Dataset *dataset, Error *err)
{
    int status = read_set(dataset, dataset->path, &dataset->tensors, &dataset->count, err);
    if (status || dataset->count > 0)
        return status;
    Numbered folders;
    char **npz = NULL;
    size_t n_npz = 0;
    status = list_numbered(dataset->path, "test_data_set_", "", &folders, err);
    if (!status && folders.count == 0)
        status = list_npz(dataset, &npz, &n_npz, err);
    if (!status && folders.count == 0 && n_npz == 0)
        status = error_set(err, ONNXPRESS_DATA,
                           "%s: has neither input_*.pb files nor test_data_set_* folders nor .npz "
                           "files in it",
                           dataset->path);
    if (!status)
        status = folders.count > 0 ? read_sets(dataset, &folders, err)
                                   : read_npz_sets(dataset, npz, n_npz, err);
    free(folders.numbers);
    return status;
}
