/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of zstd's. The first byte chooses: the rest as it is, or packed by us, which must come back. */
#include <string.h>

#include "fuzz/fuzz.h"
#include "tensor/file.h"

static void expand(const char *path, const uint8_t *expected, size_t size)
{
    Error err = {0};
    FileMap map;
    FUZZ_CHECK(file_map(path, &map, &err) == ONNXPRESS_OK);
    int status = file_expand(path, &map, &err);
    fuzz_check_error(status, &err);
    if (expected)
        FUZZ_CHECK(!status && map.size == size && (!size || !memcmp(map.data, expected, size)));
    file_unmap(&map);
}

static void round_trip(const uint8_t *data, size_t size)
{
    Error err = {0};
    FileWriter *writer;
    const char *path = fuzz_path("x.zst");
    FUZZ_CHECK(file_create(path, &writer, &err) == ONNXPRESS_OK);
    FUZZ_CHECK(file_write(writer, data, size, &err) == ONNXPRESS_OK);
    FUZZ_CHECK(file_commit(writer, &err) == ONNXPRESS_OK);
    expand(path, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] % 2)
        round_trip(data + 1, size - 1);
    else if (size)
        expand(fuzz_file("x.zst", data + 1, size - 1), NULL, 0);
    return 0;
}
