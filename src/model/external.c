/* SPDX-License-Identifier: Apache-2.0 */
#include "model/model_internal.h"
#include "model/visit.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tensor/proto_view.h"

#define MAX_FILES 16384 /* external files of one model: each costs a mapping */

static const char *external_entry(const Onnx__TensorProto *proto, const char *key)
{
    for (size_t i = 0; i < proto->n_external_data; i++) {
        const Onnx__StringStringEntryProto *entry = proto->external_data[i];
        if (entry->key && entry->value && strcmp(entry->key, key) == 0)
            return entry->value;
    }
    return NULL;
}

static const char *tensor_label(const Onnx__TensorProto *proto)
{
    return proto->name && *proto->name ? proto->name : "(no name)";
}

static ExternalFile *find_file(const Model *model, const char *location)
{
    ExternalFile *file = model->private_data->externals;
    while (file && strcmp(file->location, location) != 0)
        file = file->next;
    return file;
}

/* Relative, and without a step upwards. */
static bool location_is_safe(const char *location)
{
    if (*location == '\0' || *location == '/')
        return false;
    for (const char *part = location; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return false;
    }
    return true;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static bool lies_in(const char *path, const char *folder)
{
    size_t length = folder ? strlen(folder) : 0;
    if (length == 1)
        length = 0; /* the root: every absolute path */
    return folder && strncmp(path, folder, length) == 0 && path[length] == '/';
}

/* realpath of location in folder; NULL with errno when there is none. */
static char *resolve_in(const char *folder, const char *location)
{
    char joined[PATH_MAX];
    int length = snprintf(joined, sizeof joined, "%s/%s", folder, location);
    if (length < 0 || (size_t)length >= sizeof joined) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return realpath(joined, NULL);
}

/* The model's folder is where its path points to, or, when that is a link (as in the caches of
 * model hubs), where the file really lies; a location may resolve into either and nowhere else. */
static int resolve(Model *model, const char *tensor, const char *location, const char **resolved,
                   Error *err)
{
    int status = ONNXPRESS_OK;
    char *given = folder_of(model->path), *folder = given ? realpath(given, NULL) : NULL;
    char *real = realpath(model->path, NULL), *real_folder = real ? folder_of(real) : NULL;
    char *found = NULL;
    if (!location_is_safe(location)) {
        status = error_set(err, ONNXPRESS_FORMAT,
                           "%s: tensor '%s': its external data '%s' is not a path inside the "
                           "model's folder; refused",
                           model->path, tensor, location);
        goto done;
    }
    if (folder)
        found = resolve_in(folder, location);
    if (!found && real_folder)
        found = resolve_in(real_folder, location);
    if (!found) {
        status = error_set(err, ONNXPRESS_IO,
                           "%s: tensor '%s': its external data '%s' cannot be "
                           "read: %s; it must lie beside the model",
                           model->path, tensor, location, strerror(errno));
    } else if (!lies_in(found, folder) && !lies_in(found, real_folder)) {
        status = error_set(err, ONNXPRESS_FORMAT,
                           "%s: tensor '%s': its external data '%s' links to "
                           "a place outside the model's folder; refused",
                           model->path, tensor, location);
    } else if (!(*resolved = arena_strdup(model->arena, found))) {
        status = error_memory(err, "external data");
    }
done:
    free(given);
    free(folder);
    free(real);
    free(real_folder);
    free(found);
    return status;
}

typedef struct {
    Model *model;
    int files;
    Error *err;
} Opening;

static int open_for_tensor(void *context, Onnx__TensorProto *proto)
{
    Opening *opening = context;
    Model *model = opening->model;
    if (!proto_is_external(proto))
        return ONNXPRESS_OK;
    const char *location = external_entry(proto, "location"), *tensor = tensor_label(proto);
    if (!location)
        return error_set(opening->err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': is external data without a location", model->path,
                         tensor);
    if (find_file(model, location))
        return ONNXPRESS_OK;
    if (++opening->files > MAX_FILES)
        return error_set(opening->err, ONNXPRESS_FORMAT, "%s: more than %d external data files",
                         model->path, MAX_FILES);
    ExternalFile *file = arena_array(model->arena, 1, sizeof *file);
    if (!file)
        return error_memory(opening->err, "external data");
    file->location = location;
    int status = resolve(model, tensor, location, &file->resolved, opening->err);
    if (status)
        return status;
    bool counted = false;
    for (const ExternalFile *other = model->private_data->externals; other; other = other->next)
        counted |= strcmp(other->resolved, file->resolved) == 0;
    Error local = {0};
    status = file_map(file->resolved, &file->map, &local);
    if (status)
        return error_set(opening->err, local.code, "%s: tensor '%s': external data: %s",
                         model->path, tensor, local.message);
    file->next = model->private_data->externals;
    model->private_data->externals = file;
    if (!counted)
        model->external_bytes += file->map.size;
    return ONNXPRESS_OK;
}

int external_open(Model *model, Error *err)
{
    Opening opening = {.model = model, .err = err};
    Visitor visitor = {.tensor = open_for_tensor, .context = &opening};
    return model_visit(model->proto, &visitor);
}

int model_adopt(Model *model, FileMap *map, Error *err)
{
    ExternalFile *file = arena_array(model->arena, 1, sizeof *file);
    if (!file)
        return error_memory(err, "a file of the model's");
    /* No tensor names it: a location is never empty. */
    *file = (ExternalFile){model->private_data->externals, "", "", *map};
    model->private_data->externals = file;
    *map = (FileMap){0};
    return ONNXPRESS_OK;
}

void external_close(Model *model)
{
    for (ExternalFile *file = model->private_data->externals; file; file = file->next)
        file_unmap(&file->map);
    model->private_data->externals = NULL;
}

/* Decimal digits only; an absent entry leaves *number as it is. */
static bool read_number(const Onnx__TensorProto *proto, const char *key, uint64_t *number)
{
    const char *text = external_entry(proto, key);
    if (!text)
        return true;
    uint64_t value = 0;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
            return false;
    }
    *number = value;
    return *text != '\0';
}

int external_data(const Model *model, const Onnx__TensorProto *proto, const char *name,
                  uint64_t expected, bool expected_known, const unsigned char **data, size_t *bytes,
                  Error *err)
{
    const char *location = external_entry(proto, "location");
    const ExternalFile *file = location ? find_file(model, location) : NULL;
    if (!file)
        return error_set(err, ONNXPRESS_FORMAT, "%s: tensor '%s': its external data was not loaded",
                         model->path, name);
    uint64_t offset = 0, size = file->map.size;
    if (!read_number(proto, "offset", &offset))
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': the offset of its external data is no number",
                         model->path, name);
    uint64_t length = offset <= size ? size - offset : 0;
    if (expected_known && !external_entry(proto, "length"))
        length = expected;
    if (!read_number(proto, "length", &length))
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': the length of its external data is no number",
                         model->path, name);
    if (offset > size || length > size - offset)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: tensor '%s': its external data (%llu bytes at %llu) runs past the "
                         "end of '%s' (%llu bytes); is that file complete?",
                         model->path, name, (unsigned long long)length, (unsigned long long)offset,
                         location, (unsigned long long)size);
    *data = length ? file->map.data + offset : NULL;
    *bytes = (size_t)length;
    return ONNXPRESS_OK;
}

/* Makes the folders of `path` after its first `from` characters. */
static int make_folders(char *path, size_t from, Error *err)
{
    for (char *slash = strchr(path + from, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int failed = mkdir(path, 0777) != 0 && errno != EEXIST;
        if (failed)
            error_set(err, ONNXPRESS_IO, "%s: cannot be made: %s", path, strerror(errno));
        *slash = '/';
        if (failed)
            return ONNXPRESS_IO;
    }
    return ONNXPRESS_OK;
}

static int copy_file(const ExternalFile *file, const char *folder, FileWriter *writer, Error *err)
{
    char target[PATH_MAX];
    int length = snprintf(target, sizeof target, "%s/%s", folder, file->location);
    if (length < 0 || (size_t)length >= sizeof target)
        return error_set(err, ONNXPRESS_IO, "%s/%s: %s", folder, file->location,
                         strerror(ENAMETOOLONG));
    struct stat info, source;
    if (stat(target, &info) == 0) {
        if (stat(file->resolved, &source) == 0 && info.st_dev == source.st_dev &&
            info.st_ino == source.st_ino)
            return ONNXPRESS_OK;
        FileMap there;
        int status = file_map(target, &there, err);
        if (status)
            return status;
        bool same = there.size == file->map.size &&
                    (there.size == 0 || memcmp(there.data, file->map.data, there.size) == 0);
        file_unmap(&there);
        return same ? ONNXPRESS_OK
                    : error_set(err, ONNXPRESS_IO,
                                "%s: is needed for the model's external data, "
                                "but another file is there; choose another folder",
                                target);
    }
    FileWriter *copy;
    int status = make_folders(target, strlen(folder) + 1, err);
    if (!status)
        status = file_create(target, &copy, err);
    if (status)
        return status;
    file_attach(writer, copy);
    return file_write(copy, file->map.data, file->map.size, err);
}

typedef struct {
    const Model *model;
    const char *folder;
    FileWriter *writer;
    bool *copied; /* by position in the list of external files */
    const char *path;
    Error *err;
} Copying;

static int copy_for_tensor(void *context, Onnx__TensorProto *proto)
{
    Copying *copying = context;
    if (!proto_is_external(proto))
        return ONNXPRESS_OK;
    const char *location = external_entry(proto, "location");
    size_t index = 0;
    const ExternalFile *file = copying->model->private_data->externals;
    for (; file && (!location || strcmp(file->location, location) != 0); file = file->next)
        index++;
    if (!file || copying->copied[index]) /* one that is not the source's is its maker's to write */
        return ONNXPRESS_OK;
    copying->copied[index] = true;
    struct stat source, target;
    if (stat(copying->path, &target) == 0 && stat(file->resolved, &source) == 0 &&
        source.st_dev == target.st_dev && source.st_ino == target.st_ino)
        return error_set(copying->err, ONNXPRESS_IO,
                         "%s: holds the model's external data; choose another name", copying->path);
    return copy_file(file, copying->folder, copying->writer, copying->err);
}

int external_copy(const Model *model, const char *path, FileWriter *writer, Error *err)
{
    size_t files = 0;
    for (const ExternalFile *file = model->private_data->externals; file; file = file->next)
        files++;
    if (files == 0)
        return ONNXPRESS_OK;
    char *folder = folder_of(path);
    bool *copied = calloc(files, sizeof *copied);
    int status;
    if (folder && copied) {
        Copying copying = {model, folder, writer, copied, path, err};
        Visitor visitor = {.tensor = copy_for_tensor, .context = &copying};
        status = model_visit(model->proto, &visitor);
    } else {
        status = error_memory(err, "external data");
    }
    free(folder);
    free(copied);
    return status;
}
