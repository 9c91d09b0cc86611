/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/compressed.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define LEVEL 19
/* zstd itself can expand some 40,000 times; no model does. */
#define MOST_EXPANSION 1000
#define LEAST_BOUND ((size_t)1 << 20)

struct Packer {
    ZSTD_CCtx *context;
    size_t room;
    unsigned char out[];
};

bool path_is_compressed(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".zst") == 0;
}

Packer *packer_create(void)
{
    size_t room = ZSTD_CStreamOutSize();
    Packer *packer = malloc(sizeof *packer + room);
    if (!packer)
        return NULL;
    packer->room = room;
    packer->context = ZSTD_createCCtx();
    if (!packer->context ||
        ZSTD_isError(ZSTD_CCtx_setParameter(packer->context, ZSTD_c_compressionLevel, LEVEL)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(packer->context, ZSTD_c_checksumFlag, 1))) {
        packer_free(packer);
        return NULL;
    }
    return packer;
}

void packer_free(Packer *packer)
{
    if (packer)
        ZSTD_freeCCtx(packer->context);
    free(packer);
}

int packer_put(Packer *packer, const unsigned char *data, size_t bytes, bool last,
               PackerWrite write, void *context, Error *err)
{
    ZSTD_inBuffer in = {data, bytes, 0};
    for (;;) {
        ZSTD_outBuffer out = {packer->out, packer->room, 0};
        size_t left = ZSTD_compressStream2(packer->context, &out, &in,
                                           last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return error_set(err, ONNXPRESS_MEMORY, "zstd: %s", ZSTD_getErrorName(left));
        int status = write(context, packer->out, out.pos, err);
        if (status || (last ? left == 0 : in.pos == in.size))
            return status;
    }
}

/* Grows to at least `needed` bytes, at most `bound`. */
static unsigned char *grown(unsigned char *data, size_t *size, size_t bound)
{
    size_t wanted = *size < bound / 2 ? 2 * *size : bound;
    unsigned char *more = realloc(data, wanted);
    if (more)
        *size = wanted;
    return more;
}

int file_expand(const char *path, FileMap *map, Error *err)
{
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    if (map->size < sizeof magic || memcmp(map->data, magic, sizeof magic) != 0)
        return ONNXPRESS_OK;
    size_t bound = map->size > SIZE_MAX / MOST_EXPANSION ? SIZE_MAX : map->size * MOST_EXPANSION;
    bound = bound < LEAST_BOUND ? LEAST_BOUND : bound;
    size_t size = map->size < bound / 2 ? 2 * map->size : bound, used = 0, left = 1;
    unsigned char *data = malloc(size);
    ZSTD_DCtx *context = ZSTD_createDCtx();
    int status = data && context ? ONNXPRESS_OK : error_memory(err, "a zstd file");
    ZSTD_inBuffer in = {map->data, map->size, 0};
    while (!status && (left > 0 || in.pos < in.size)) {
        if (used == size) {
            unsigned char *more = size < bound ? grown(data, &size, bound) : NULL;
            if (!more) {
                status = error_set(err, ONNXPRESS_FORMAT,
                                   "%s: expands to more than %zu bytes: not a model", path, size);
                break;
            }
            data = more;
        }
        ZSTD_outBuffer out = {data, size, used};
        left = ZSTD_decompressStream(context, &out, &in);
        bool stuck = out.pos == used && in.pos == in.size && left > 0;
        used = out.pos;
        if (ZSTD_isError(left) || stuck)
            status = error_set(err, ONNXPRESS_FORMAT, "%s: is a damaged zstd file: %s", path,
                               stuck ? "it ends too early" : ZSTD_getErrorName(left));
    }
    ZSTD_freeDCtx(context);
    if (status) {
        free(data);
        return status;
    }
    file_unmap(map);
    *map = (FileMap){data, used, 1};
    return ONNXPRESS_OK;
}
