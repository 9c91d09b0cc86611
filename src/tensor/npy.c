/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/npy.h"

#include <stdio.h>
#include <string.h>

#include "tensor/npy_internal.h"

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

/* numpy's kind and width, and ours. */
static const struct {
    char kind[3];
    int dtype;
} types[] = {
    {"u1", DTYPE_UINT8},  {"i1", DTYPE_INT8},    {"b1", DTYPE_BOOL},   {"u2", DTYPE_UINT16},
    {"i2", DTYPE_INT16},  {"i4", DTYPE_INT32},   {"u4", DTYPE_UINT32}, {"i8", DTYPE_INT64},
    {"u8", DTYPE_UINT64}, {"f2", DTYPE_FLOAT16}, {"f4", DTYPE_FLOAT},  {"f8", DTYPE_DOUBLE},
};

size_t npy_header_bytes(const unsigned char *data, size_t size)
{
    if (size < NPY_PREFIX || memcmp(data, magic, sizeof magic) != 0)
        return 0;
    if (data[6] == 1)
        return 10 + ((size_t)data[8] | (size_t)data[9] << 8);
    return 12 + ((size_t)data[8] | (size_t)data[9] << 8 | (size_t)data[10] << 16 |
                 (size_t)data[11] << 24);
}

/* The header is a Python dict literal: a cursor over it, which stops for good at what it does not
 * expect. */
typedef struct {
    const char *at, *end;
    bool failed;
} Cursor;

static void skip_spaces(Cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\n'))
        cursor->at++;
}

static bool take(Cursor *cursor, const char *token)
{
    size_t length = strlen(token);
    skip_spaces(cursor);
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, token, length) != 0)
        return false;
    cursor->at += length;
    return true;
}

static void expect(Cursor *cursor, const char *token)
{
    if (!take(cursor, token))
        cursor->failed = true;
}

/* A string without escapes, in either kind of quotes. */
static void take_string(Cursor *cursor, char *text, size_t size)
{
    size_t length = 0;
    char quote = take(cursor, "'") ? '\'' : '"';
    if (quote == '"')
        expect(cursor, "\"");
    while (cursor->at < cursor->end && *cursor->at != quote && length + 1 < size)
        text[length++] = *cursor->at++;
    text[length] = '\0';
    if (cursor->at < cursor->end && *cursor->at == quote)
        cursor->at++;
    else
        cursor->failed = true;
}

static int64_t take_number(Cursor *cursor)
{
    int64_t value = 0;
    skip_spaces(cursor);
    const char *start = cursor->at;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++)
        if (!int64_mul(value, 10, &value) ||
            __builtin_add_overflow(value, (int64_t)(*cursor->at - '0'), &value))
            cursor->failed = true;
    if (cursor->at == start)
        cursor->failed = true;
    take(cursor, "L"); /* written by Python 2 */
    return value;
}

/* Number of axes; the first TENSOR_MAX_RANK are kept. */
static int take_shape(Cursor *cursor, Shape *shape)
{
    int rank = 0;
    expect(cursor, "(");
    while (!cursor->failed && !take(cursor, ")")) {
        int64_t dim = take_number(cursor);
        if (rank < TENSOR_MAX_RANK)
            shape->dim[rank] = dim;
        rank++;
        if (!take(cursor, ",")) {
            expect(cursor, ")");
            break;
        }
    }
    shape->rank = rank < TENSOR_MAX_RANK ? rank : TENSOR_MAX_RANK;
    return rank;
}

static int dtype_of(const char *descr)
{
    bool ordered = *descr == '<' || *descr == '|' || *descr == '=' || *descr == '>';
    const char *kind = descr + ordered;
    if (*descr == '>' && strcmp(kind + (*kind != '\0'), "1") != 0)
        return DTYPE_UNDEFINED;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(kind, types[i].kind) == 0)
            return types[i].dtype;
    return DTYPE_UNDEFINED;
}

int npy_read_header(const unsigned char *header, size_t size, const char *where, Tensor *tensor,
                    Error *err)
{
    if (header[6] < 1 || header[6] > 3)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: is .npy of version %d; save it anew with "
                         "numpy.save",
                         where, header[6]);
    Cursor cursor = {(const char *)header + (header[6] == 1 ? 10 : 12), (const char *)header + size,
                     false};
    char descr[32] = "", key[32];
    bool fortran = false, has_shape = false, structured = false;
    int rank = 0;
    expect(&cursor, "{");
    while (!cursor.failed && !take(&cursor, "}")) {
        take_string(&cursor, key, sizeof key);
        expect(&cursor, ":");
        if (strcmp(key, "descr") == 0) {
            structured = take(&cursor, "[");
            if (structured)
                break;
            take_string(&cursor, descr, sizeof descr);
        } else if (strcmp(key, "fortran_order") == 0) {
            fortran = take(&cursor, "True");
            if (!fortran)
                expect(&cursor, "False");
        } else if (strcmp(key, "shape") == 0) {
            rank = take_shape(&cursor, &tensor->shape);
            has_shape = true;
        } else {
            cursor.failed = true;
        }
        if (!take(&cursor, ",")) {
            expect(&cursor, "}");
            break;
        }
    }
    if (structured)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: is an array of records; save plain numbers", where);
    if (cursor.failed || !*descr || !has_shape)
        return error_set(err, ONNXPRESS_FORMAT, "%s: its .npy header is damaged", where);
    tensor->dtype = dtype_of(descr);
    if (tensor->dtype == DTYPE_UNDEFINED)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: holds '%s' data; numbers are needed, of 8 "
                         "to 64 bits, little-endian",
                         where, descr);
    if (rank > TENSOR_MAX_RANK)
        return error_set(err, ONNXPRESS_UNSUPPORTED, "%s: has %d axes, at most %d are handled",
                         where, rank, TENSOR_MAX_RANK);
    if (fortran)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: is in Fortran order; save "
                         "numpy.ascontiguousarray of it",
                         where);
    size_t width = dtype_bytes(tensor->dtype);
    int64_t bytes;
    if (!shape_count(&tensor->shape, &tensor->count) ||
        !int64_mul(tensor->count, (int64_t)width, &bytes))
        return error_set(err, ONNXPRESS_FORMAT, "%s: its .npy header claims an impossible shape",
                         where);
    tensor->bytes = (size_t)bytes;
    return ONNXPRESS_OK;
}

char *npy_make_header(const Tensor *tensor, Arena *arena, size_t *size)
{
    const char *kind = NULL;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].dtype == tensor->dtype)
            kind = types[i].kind;
    char shape[TENSOR_MAX_RANK * 22 + 4], dict[sizeof shape + 80];
    size_t used = 0;
    shape[0] = '\0';
    for (int i = 0; i < tensor->shape.rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, i ? ", %lld" : "%lld",
                                 (long long)tensor->shape.dim[i]);
    int length = snprintf(dict, sizeof dict,
                          "{'descr': '%c%s', 'fortran_order': False, "
                          "'shape': (%s%s), }",
                          kind && kind[1] == '1' ? '|' : '<', kind ? kind : "", shape,
                          tensor->shape.rank == 1 ? "," : "");
    /* Data start at a multiple of 64 bytes; the dict ends in a line feed. */
    size_t total = (10 + (size_t)length + 1 + 63) / 64 * 64;
    char *header = kind ? arena_array(arena, total, 1) : NULL;
    if (!header)
        return NULL;
    memset(header, ' ', total);
    memcpy(header, magic, sizeof magic);
    header[6] = 1;
    header[7] = 0;
    header[8] = (char)((total - 10) & 0xff);
    header[9] = (char)((total - 10) >> 8);
    memcpy(header + 10, dict, (size_t)length);
    header[total - 1] = '\n';
    *size = total;
    return header;
}

static int read_single(NpyFile *file, const char *path, Error *err)
{
    const FileMap *map = &file->map;
    size_t header = npy_header_bytes(map->data, map->size);
    Tensor *tensor = arena_array(file->arena, 1, sizeof *tensor);
    if (!tensor)
        return error_memory(err, "an array");
    if (header > map->size || header > NPY_MAX_HEADER)
        return error_set(err, ONNXPRESS_FORMAT, "%s: its .npy header is damaged or cut off", path);
    int status = npy_read_header(map->data, header, path, tensor, err);
    if (status)
        return status;
    size_t there = map->size - header;
    if (there != tensor->bytes)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: holds %zu bytes of data where its header claims "
                         "%zu; is it complete?",
                         path, there, tensor->bytes);
    const unsigned char *data = map->data + header;
    if ((uintptr_t)data % dtype_bytes(tensor->dtype) != 0 && there > 0) {
        void *copy = arena_array(file->arena, there, 1); /* by a writer that does not pad */
        if (!copy)
            return error_memory(err, "an array");
        data = memcpy(copy, data, there);
    }
    tensor->data = there > 0 ? data : NULL;
    file->tensors = tensor;
    file->count = 1;
    return ONNXPRESS_OK;
}

int npy_open(const char *path, NpyFile **result, Error *err)
{
    *result = NULL;
    FileMap map;
    int status = file_map(path, &map, err);
    if (status)
        return status;
    Arena *arena = arena_create();
    NpyFile *file = arena ? arena_array(arena, 1, sizeof *file) : NULL;
    if (!file) {
        arena_destroy(arena);
        file_unmap(&map);
        return error_memory(err, "an array");
    }
    *file = (NpyFile){.arena = arena, .map = map};
    if (map.size >= 4 && memcmp(map.data, "PK", 2) == 0)
        status = npz_read(file, path, err);
    else if (npy_header_bytes(map.data, map.size) > 0)
        status = read_single(file, path, err);
    else
        status = error_set(err, ONNXPRESS_FORMAT, "%s: is neither .npy nor .npz", path);
    if (status)
        npy_close(file);
    else
        *result = file;
    return status;
}

void npy_close(NpyFile *file)
{
    if (!file)
        return;
    FileMap map = file->map;
    arena_destroy(file->arena); /* which holds the file's struct too */
    file_unmap(&map);
}

size_t npy_count(const NpyFile *file)
{
    return file->count;
}

const Tensor *npy_tensor(const NpyFile *file, size_t index)
{
    return &file->tensors[index];
}

const Tensor *npy_find(const NpyFile *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (file->tensors[i].name && strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}
