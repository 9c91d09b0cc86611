/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "fuzz/fuzz.h"

#include "scratch.h"

_Noreturn void fuzz_fail(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

const char *fuzz_path(const char *name)
{
    if (!*scratch) {
        scratch_make();
        atexit(scratch_remove);
    }
    return scratch_path("%s", name);
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t size)
{
    const char *path = fuzz_path(name);
    scratch_write(path, data, size);
    return path;
}

void fuzz_check_error(int status, const Error *err)
{
    if (!status)
        return;
    if (status == ONNXPRESS_INTERNAL)
        fuzz_fail(err->message, "an internal error", 0);
    FUZZ_CHECK(*err->message && !strchr(err->message, '\n'));
}

uint8_t bytes_u8(Bytes *bytes)
{
    if (!bytes->left)
        return 0;
    bytes->left--;
    return *bytes->at++;
}

uint16_t bytes_u16(Bytes *bytes)
{
    uint16_t low = bytes_u8(bytes);
    return (uint16_t)(low | bytes_u8(bytes) << 8);
}

uint64_t bytes_size(Bytes *bytes)
{
    uint8_t first = bytes_u8(bytes);
    uint64_t value = first & 63;
    for (int k = first >> 6; k > 0; k--)
        value = value << 8 | bytes_u8(bytes);
    return value;
}
