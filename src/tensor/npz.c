/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <zip.h>

#include "tensor/npy_internal.h"

/* Deflate cannot do better than 258 bytes in two bits. */
#define DEFLATE_MAX_RATIO 1032
#define DEFLATE_SLACK 64

#define DOS_DATE_1980 0x21 /* the earliest that zip can say: 1 January 1980 */

#define COPY_BYTES ((size_t)64 << 10)

static int bad_member(const char *where, const char *what, Error *err)
{
    return error_set(err, ONNXPRESS_FORMAT, "%s: %s", where, what);
}

/* What the directory claims must be possible, before anything is allocated for it. */
static int check_claims(const zip_stat_t *stat, const char *where, uint64_t *room, Error *err)
{
    const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if ((stat->valid & needed) != needed)
        return bad_member(where, "the archive is damaged", err);
    if (stat->encryption_method != ZIP_EM_NONE ||
        (stat->comp_method != ZIP_CM_STORE && stat->comp_method != ZIP_CM_DEFLATE))
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: is encrypted or compressed in another way than deflate; save it with "
                         "numpy.savez",
                         where);
    /* Members that overlap could each claim the whole file. */
    if (stat->comp_size > *room)
        return bad_member(where, "claims more bytes than the archive has", err);
    *room -= stat->comp_size;
    uint64_t most = stat->comp_size;
    if (stat->comp_method == ZIP_CM_DEFLATE)
        most = most > (UINT64_MAX - DEFLATE_SLACK) / DEFLATE_MAX_RATIO
                   ? UINT64_MAX
                   : most * DEFLATE_MAX_RATIO + DEFLATE_SLACK;
    if (stat->size > most || stat->size > SIZE_MAX)
        return bad_member(where, "claims more data than its compressed bytes can hold", err);
    return ONNXPRESS_OK;
}

static bool read_exactly(zip_file_t *member, void *data, size_t bytes)
{
    unsigned char *at = data;
    while (bytes > 0) {
        zip_int64_t got = zip_fread(member, at, bytes);
        if (got <= 0)
            return false;
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static int read_array(zip_file_t *member, size_t size, Arena *arena, const char *where,
                      Tensor *tensor, Error *err)
{
    unsigned char prefix[NPY_PREFIX];
    if (size < sizeof prefix || !read_exactly(member, prefix, sizeof prefix))
        return bad_member(where, "is too short for an .npy array, or damaged", err);
    size_t header_bytes = npy_header_bytes(prefix, sizeof prefix);
    if (header_bytes < sizeof prefix || header_bytes > size || header_bytes > NPY_MAX_HEADER)
        return bad_member(where, "is no .npy array, or its header is damaged", err);
    unsigned char *header = arena_array(arena, header_bytes, 1);
    if (!header)
        return error_memory(err, "an array");
    memcpy(header, prefix, sizeof prefix);
    if (!read_exactly(member, header + sizeof prefix, header_bytes - sizeof prefix))
        return bad_member(where, "its data are damaged", err);
    int status = npy_read_header(header, header_bytes, where, tensor, err);
    if (status)
        return status;
    if (size - header_bytes != tensor->bytes)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: holds %zu bytes of data where its header claims "
                         "%zu",
                         where, size - header_bytes, tensor->bytes);
    void *data = arena_array(arena, tensor->bytes, 1);
    if (!data)
        return error_memory(err, "an array");
    /* The checksum is compared only when the end has been seen. */
    unsigned char beyond;
    if (!read_exactly(member, data, tensor->bytes) || zip_fread(member, &beyond, 1) != 0)
        return bad_member(where, "its data are damaged", err);
    tensor->data = data;
    return ONNXPRESS_OK;
}

static int read_member(NpyFile *file, zip_t *archive, zip_uint64_t index, const char *path,
                       uint64_t *room, Error *err)
{
    zip_stat_t stat;
    if (zip_stat_index(archive, index, 0, &stat) != 0 || !(stat.valid & ZIP_STAT_NAME))
        return bad_member(path, "the archive is damaged", err);
    char where[400];
    snprintf(where, sizeof where, "%.250s: member '%.100s'", path, stat.name);
    int status = check_claims(&stat, where, room, err);
    if (status)
        return status;
    size_t length = strlen(stat.name);
    if (length < 5 || strcmp(stat.name + length - 4, ".npy") != 0)
        return bad_member(where, "is no .npy array", err);
    char *name = arena_strdup(file->arena, stat.name);
    if (!name)
        return error_memory(err, "an array");
    name[length - 4] = '\0';
    if (npy_find(file, name))
        return bad_member(where, "is there twice", err);
    zip_file_t *member = zip_fopen_index(archive, index, 0);
    if (!member)
        return bad_member(where, "cannot be read: the archive is damaged", err);
    Tensor *tensor = &file->tensors[file->count];
    status = read_array(member, (size_t)stat.size, file->arena, where, tensor, err);
    zip_fclose(member);
    if (!status) {
        tensor->name = name;
        file->count++;
    }
    return status;
}

int npz_read(NpyFile *file, const char *path, Error *err)
{
    zip_error_t reason;
    zip_error_init(&reason);
    zip_source_t *source = zip_source_buffer_create(file->map.data, file->map.size, 0, &reason);
    zip_t *archive = source ? zip_open_from_source(source, ZIP_RDONLY, &reason) : NULL;
    int status = ONNXPRESS_OK;
    if (!archive) {
        status = error_set(err, ONNXPRESS_FORMAT, "%s: cannot be read as .npz: %s; is it complete?",
                           path, zip_error_strerror(&reason));
        zip_source_free(source);
    } else {
        zip_int64_t n = zip_get_num_entries(archive, 0);
        uint64_t room = file->map.size;
        file->tensors = arena_array(file->arena, n > 0 ? (size_t)n : 0, sizeof *file->tensors);
        if (!file->tensors)
            status = error_memory(err, "arrays");
        for (zip_int64_t i = 0; i < n && !status; i++)
            status = read_member(file, archive, (zip_uint64_t)i, path, &room, err);
        zip_discard(archive);
    }
    zip_error_fini(&reason);
    return status;
}

/* Header and data as one member; both must live until the archive is closed. */
static bool add_member(zip_t *archive, const Tensor *tensor, Arena *arena)
{
    size_t header_bytes;
    char *header = npy_make_header(tensor, arena, &header_bytes);
    char *name = arena_printf(arena, "%s.npy", tensor->name);
    zip_buffer_fragment_t *parts = arena_array(arena, 2, sizeof *parts);
    if (!header || !name || !parts)
        return false;
    parts[0] = (zip_buffer_fragment_t){(zip_uint8_t *)header, header_bytes};
    parts[1] = (zip_buffer_fragment_t){(zip_uint8_t *)(uintptr_t)tensor->data, tensor->bytes};
    zip_source_t *source = zip_source_buffer_fragment(archive, parts, tensor->bytes ? 2 : 1, 0);
    zip_int64_t index = source ? zip_file_add(archive, name, source, ZIP_FL_ENC_UTF_8) : -1;
    if (index < 0) {
        zip_source_free(source);
        return false;
    }
    return zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_STORE, 0) == 0 &&
           zip_file_set_dostime(archive, (zip_uint64_t)index, 0, DOS_DATE_1980, 0) == 0;
}

static int copy_out(zip_source_t *source, const char *path, Error *err)
{
    FileWriter *writer;
    int status = file_create(path, &writer, err);
    if (status)
        return status;
    if (zip_source_open(source) != 0) {
        file_abort(writer);
        return error_memory(err, "an .npz file");
    }
    unsigned char buffer[COPY_BYTES];
    zip_int64_t got;
    while (!status && (got = zip_source_read(source, buffer, sizeof buffer)) > 0)
        status = file_write(writer, buffer, (size_t)got, err);
    if (!status && got < 0)
        status = error_memory(err, "an .npz file");
    zip_source_close(source);
    if (!status)
        return file_commit(writer, err);
    file_abort(writer);
    return status;
}

/* libzip writes into memory, so that the file itself appears whole or not at all, like all ours. */
int npz_write(const char *path, const Tensor *tensors, size_t count, Error *err)
{
    for (size_t i = 0; i < count; i++)
        if (!tensors[i].name || !*tensors[i].name || dtype_bytes(tensors[i].dtype) == 0 ||
            tensors[i].dtype == DTYPE_BFLOAT16)
            return error_set(err, ONNXPRESS_UNSUPPORTED,
                             "%s: array '%s' of %s cannot be written as .npy", path,
                             tensors[i].name ? tensors[i].name : "", dtype_name(tensors[i].dtype));
    if (count == 0)
        return error_set(err, ONNXPRESS_USAGE, "%s: there are no arrays to write", path);
    int status = ONNXPRESS_OK;
    Arena *arena = arena_create();
    zip_source_t *source = arena ? zip_source_buffer_create(NULL, 0, 0, NULL) : NULL;
    if (source)
        zip_source_keep(source); /* the archive frees one reference */
    zip_t *archive = source ? zip_open_from_source(source, ZIP_TRUNCATE, NULL) : NULL;
    if (source && !archive)
        zip_source_free(source);
    bool ok = archive != NULL;
    for (size_t i = 0; i < count && ok; i++)
        ok = add_member(archive, &tensors[i], arena);
    if (ok && zip_close(archive) == 0) {
        status = copy_out(source, path, err);
    } else if (archive) { /* two arrays of one name, or out of memory */
        status = error_set(err, ONNXPRESS_MEMORY, "%s: cannot be written as .npz: %s", path,
                           zip_strerror(archive));
        zip_discard(archive);
    } else {
        status = error_memory(err, "an .npz file");
    }
    if (source)
        zip_source_free(source);
    arena_destroy(arena);
    return status;
}
